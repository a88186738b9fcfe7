//! The master ends, hangs or is replaced, and sentinels come and go.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use redis::{RedisResult, Value, cmd};
use serde_json::json;
use stockhold::scripts::Catalogue;
use tokio::time::sleep;

use crate::market::{Market, serve};
use crate::support::sentinel::{NAME, Watched};
use crate::support::stockhold::{Stockhold, program};

const ALL: [usize; 3] = [0, 1, 2];
const PATIENCE: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_master_takes_nothing_with_it() {
    let mut watched = Watched::start().await;
    let market = Market::open(serve(&watched, &["--durability", "wait:1"])).await;
    watched.redis[0].kill();
    let new = watched.until_master_is_not(0, &ALL).await;
    market.until_busy().await;
    // It comes back empty, and calls itself a master until the sentinels have found it.
    watched.redis[0].restart();
    market.until_busy().await;
    market.close(&watched.redis[new]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_master_takes_nothing_with_it() {
    let watched = Watched::start().await;
    let market = Market::open(serve(&watched, &["--durability", "wait:1"])).await;
    watched.redis[0].stop_process();
    let new = watched.until_master_is_not(0, &ALL).await;
    market.until_busy().await;
    // It carries out what was sent to it meanwhile, and nobody hears of that.
    watched.redis[0].continue_process();
    market.until_busy().await;
    market.close(&watched.redis[new]).await;
}

/// Callers by SHA-1 find the scripts on whoever is the next master.
#[tokio::test(flavor = "multi_thread")]
async fn replicas_have_the_scripts_before_they_are_needed() {
    let watched = Watched::start().await;
    let server = serve(&watched, &[]);
    server.wait_until_ready().await;
    let catalogue = Catalogue::embedded();
    let sha1s: Vec<&str> = catalogue.iter().map(|script| script.sha1.as_str()).collect();
    for redis in &watched.redis {
        let mut connection = redis.connection().await;
        cmd("SCRIPT").arg("FLUSH").exec_async(&mut connection).await.unwrap();
        let deadline = Instant::now() + PATIENCE;
        loop {
            let known: Vec<bool> = cmd("SCRIPT").arg("EXISTS").arg(&sha1s).query_async(&mut connection).await.unwrap();
            if known.iter().all(|known| *known) {
                break;
            }
            assert!(Instant::now() < deadline, "{} lacks scripts", redis.port());
            sleep(Duration::from_millis(20)).await;
        }
    }
}

/// The old master lives, and takes changes until it is told of the new one. With all replicas in each promise, the new one
/// has what was promised.
#[tokio::test(flavor = "multi_thread")]
async fn a_fail_over_by_hand_takes_nothing_with_it() {
    let watched = Watched::start_with(&["--min-replicas-to-write", "1", "--min-replicas-max-lag", "2"], &[]).await;
    let market = Market::open(serve(&watched, &["--durability", "wait:2"])).await;
    let mut sentinel = watched.sentinels[0].connection().await.unwrap();
    cmd("SENTINEL").arg(&["FAILOVER", NAME]).exec_async(&mut sentinel).await.unwrap();
    let new = watched.until_master_is_not(0, &ALL).await;
    market.until_busy().await;
    market.close(&watched.redis[new]).await;
}

/// It would serve on: it is not told to follow the new one.
#[tokio::test(flavor = "multi_thread")]
async fn an_old_master_that_serves_on_is_left() {
    let watched = Watched::start().await;
    let server = serve(&watched, &[]);
    server.seed("tea", 1_000_000).await;
    let mut old = watched.redis[0].connection().await;
    cmd("ACL").arg(&["SETUSER", "default", "-slaveof", "-replicaof"]).exec_async(&mut old).await.unwrap();
    let mut sentinel = watched.sentinels[0].connection().await.unwrap();
    cmd("SENTINEL").arg(&["FAILOVER", NAME]).exec_async(&mut sentinel).await.unwrap();
    let new = watched.until_master_is_not(0, &ALL).await;
    let mut new = watched.redis[new].connection().await;
    let deadline = Instant::now() + PATIENCE;
    loop {
        let body = json!({ "cartId": "cart-1", "sku": "tea", "quantity": 1 });
        let answer = server.post("/api/reservations/hold", body).await;
        if answer.status == 200 {
            let key = format!("reservation:{}", answer.ok()["reservationId"].as_str().unwrap());
            if cmd("EXISTS").arg(key).query_async(&mut new).await.unwrap() {
                break;
            }
        } else {
            answer.problem(503, "unavailable");
        }
        assert!(Instant::now() < deadline, "the old master is still served");
        sleep(Duration::from_millis(20)).await;
    }
    let role: Vec<Value> = cmd("ROLE").query_async(&mut old).await.unwrap();
    assert_eq!(role[0], Value::BulkString(b"master".to_vec()), "of the old one");
}

/// A frozen sentinel, then a dead one: a majority is left.
#[tokio::test(flavor = "multi_thread")]
async fn one_sentinel_is_not_missed() {
    let mut watched = Watched::start().await;
    watched.sentinels[0].stop_process();
    let market = Market::open(serve(&watched, &["--durability", "wait:1"])).await;
    watched.sentinels[0].kill();
    watched.redis[0].kill();
    let new = watched.until_master_is_not(0, &[1, 2]).await;
    market.until_busy().await;
    market.close(&watched.redis[new]).await;
}

/// Or one dead sentinel would look like a Redis that fails.
#[tokio::test(flavor = "multi_thread")]
async fn calls_to_sentinels_are_not_counted_as_calls_to_redis() {
    let mut watched = Watched::start().await;
    watched.sentinels[0].kill();
    let server = serve(&watched, &[]);
    server.seed("tea", 5).await;
    // It is asked each second, in vain.
    sleep(Duration::from_millis(2500)).await;
    let mut stream = TcpStream::connect(server.address).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    let mut told = String::new();
    stream.read_to_string(&mut told).unwrap();
    for line in
        ["\nstockhold_redis_calls_total{outcome=\"unreachable\"} 0\n", "\nstockhold_redis_connections_failed_total 0\n"]
    {
        assert!(told.contains(line), "{told}");
    }
}

/// What is connected stays so, and what is not has to wait: the only sentinel may be one that nobody talks to.
#[tokio::test(flavor = "multi_thread")]
async fn without_a_majority_of_sentinels_there_is_no_new_connection() {
    let mut watched = Watched::start().await;
    let server = serve(&watched, &[]);
    server.seed("tea", 5).await;
    for sentinel in &mut watched.sentinels[1..] {
        sentinel.kill();
    }
    server.held("tea", 1).await;
    let mut redis = watched.redis[0].connection().await;
    cut(&mut redis).await;
    let body = json!({ "cartId": "cart-1", "sku": "tea", "quantity": 1 });
    let hold = async || server.post_with("/api/reservations/hold", body.clone(), Some("order-1")).await;
    // It may be sent before the end of the connection is noticed.
    let deadline = Instant::now() + PATIENCE;
    while hold().await.problem(503, "unavailable")["outcome"] != "none" {
        assert!(Instant::now() < deadline, "the connection is still used");
    }
    let output = program(&["settings"]).args(watched.arguments()).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("only 1 of the 3 sentinels in --redis-url can be reached, which is no majority"), "{said}");

    watched.sentinels[2].restart().await;
    server.wait_until_ready().await;
    hold().await.ok();
    assert_eq!(server.counts("tea").await, [3, 2, 0]);
}

/// Ends all connections but this one and those of replicas.
async fn cut(redis: &mut redis::aio::MultiplexedConnection) {
    cmd("CLIENT").arg(&["KILL", "TYPE", "normal", "SKIPME", "yes"]).exec_async(redis).await.unwrap();
}

/// Each command finds the master, and the scripts are loaded into its replicas.
#[tokio::test(flavor = "multi_thread")]
async fn commands_find_the_master() {
    let watched = Watched::start_with_tls().await;
    let run = |arguments: &[&str]| {
        let output = program(arguments).args(watched.arguments()).output().unwrap();
        let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat();
        assert!(output.status.success(), "{arguments:?}: {said}");
        said
    };
    let said = run(&["scripts", "load"]);
    for replica in &watched.redis[1..] {
        assert!(said.contains(&format!("replica 127.0.0.1:{}: ", replica.port())), "{said}");
    }
    run(&["scripts", "verify"]);
    run(&["settings", "--keep-seconds", "60"]);
    serve(&watched, &[]).seed("tea", 5).await;
    run(&["check"]);
    let stored: RedisResult<String> =
        cmd("HGET").arg(&["stockhold:settings", "keepMs"]).query_async(&mut watched.redis[0].connection().await).await;
    assert_eq!(stored.unwrap(), "60000");
}

/// Redis and its sentinels want a password each.
#[tokio::test(flavor = "multi_thread")]
async fn passwords_are_in_files() {
    let options = ["--requirepass", "of-redis", "--masterauth", "of-redis"];
    let watcher = "user watcher on >of-watcher -@all +hello +subscribe +sentinel|master +sentinel|get-master-addr-by-name \
                   resetchannels &+promoted-slave &+switch-master";
    let lines = [&format!("sentinel auth-pass {NAME} of-redis")[..], "requirepass of-sentinels", watcher];
    let watched = Watched::start_with(&options, &lines).await;
    let folder = tempfile::tempdir().unwrap();
    let file = |password: &str| {
        let path = folder.path().join(password);
        std::fs::write(&path, format!("{password}\n")).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let [of_redis, of_sentinels, of_watcher, wrong] = ["of-redis", "of-sentinels", "of-watcher", "wrong"].map(file);
    let with = |url: String, files: &[&str]| {
        let mut arguments = watched.trusting(url);
        arguments.extend(files.iter().map(|file| (*file).to_owned()));
        arguments
    };
    let files = ["--redis-password-file", &of_redis, "--sentinel-password-file", &of_sentinels];
    let as_watcher = watched.url_as(":of-redis@") + "&sentinelUser=watcher";
    for arguments in [
        with(watched.url(), &files),
        with(watched.url_as(":of-redis@"), &files[2..]),
        with(as_watcher, &["--sentinel-password-file", &of_watcher]),
    ] {
        let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        let server = Stockhold::spawn(&[&["--port", "0"], &arguments[..]].concat());
        server.seed("tea", 5).await;
    }
    for (arguments, words) in [
        (with(watched.url(), &files[..2]), "it wants a password, and there is no --sentinel-password-file"),
        (with(watched.url(), &[&files[..3], &[&wrong]].concat()), "wrong (--sentinel-password-file), or sentinelUser"),
        (with(watched.url(), &[&files[2..], &["--redis-password-file", &wrong]].concat()), "which the sentinels name"),
        (with(watched.url() + "&sentinelUser=nobody", &files), "sentinelUser in --redis-url is wrong: WRONGPASS"),
    ] {
        for command in ["settings", "serve"] {
            let output = program(&[command]).args(&arguments).output().unwrap();
            let said = String::from_utf8(output.stderr).unwrap();
            assert!(!output.status.success() && said.contains(words), "{words:?} in: {said}");
        }
    }
}
