//! Expiry is exact, whichever request or sweep notices it first.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::{join, join_all, pending};
use redis::aio::MultiplexedConnection;
use redis::{AsyncCommands, InfoDict, cmd};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;

use crate::support::invariants::{History, assert_invariants};
use crate::support::keys;
use crate::support::redis_server::RedisServer;
use crate::support::stockhold::Stockhold;

/// Longer than the shortest hold, which lasts a second.
const PAST_EXPIRY: Duration = Duration::from_millis(1050);
/// The server does not sweep during a test, except in its first round.
const NO_SWEEPER: [&str; 2] = ["--sweep-interval-ms", "60000"];

#[tokio::test]
async fn a_hold_expires_without_any_request() {
    let redis = RedisServer::start();
    let server = Stockhold::start(&redis);
    server.seed("sku", 5).await;
    let id = server.held_for("sku", 2, 1).await;
    let held = Instant::now();

    // Reads Redis itself: a read over HTTP would expire the hold.
    let mut connection = redis.connection().await;
    let state: String = connection.hget(keys::reservation(&id), "state").await.unwrap();
    assert_eq!(state, "active");
    let waited = loop {
        let state: String = connection.hget(keys::reservation(&id), "state").await.unwrap();
        if state == "released" {
            break held.elapsed();
        }
        assert!(held.elapsed() < Duration::from_secs(20), "never released");
        sleep(Duration::from_millis(10)).await;
    };
    assert!(waited >= Duration::from_millis(900), "released before its time, after {waited:?}");
    let available: u64 = connection.hget(keys::inventory("sku"), "available").await.unwrap();
    assert_eq!(available, 5);
    let left: u64 = connection.zcard(keys::due_of("sku")).await.unwrap();
    assert_eq!(left, 0, "nothing is left to poll for");
    let event = &server.events("sku", 1).await[0];
    assert_eq!((&event["event"], &event["reason"]), (&json!("expired"), &json!("reservation_ttl_elapsed")));
}

#[tokio::test]
async fn a_read_right_after_expiry_is_already_right() {
    let redis = RedisServer::start();
    let server = Stockhold::start_with(&redis, &NO_SWEEPER);
    server.seed("sku", 300).await;
    let mut ids = Vec::new();
    for _ in 0..150 {
        ids.push(server.held_for("sku", 1, 1).await);
    }
    let stays = server.held("sku", 1).await;
    sleep(PAST_EXPIRY).await;

    let record = server.get(&format!("/api/reservations/{}", ids[0])).await.ok();
    assert_eq!((&record["state"], &record["reason"]), (&json!("released"), &json!("reservation_ttl_elapsed")));
    let stock = server.stock("sku").await;
    assert_eq!((&stock["available"], &stock["activeReservations"]), (&json!(299), &json!([stays])));
}

#[tokio::test]
async fn a_settlement_after_expiry_is_refused_and_the_units_are_back() {
    let redis = RedisServer::start();
    let server = Stockhold::start_with(&redis, &NO_SWEEPER);
    server.seed("sku", 5).await;
    let (one, other) = (server.held_for("sku", 2, 1).await, server.held_for("sku", 1, 1).await);
    sleep(PAST_EXPIRY).await;

    for _ in 0..2 {
        let problem = server.confirm(&one).await.problem(409, "reservation_not_active");
        assert_eq!((&problem["state"], &problem["reason"]), (&json!("released"), &json!("reservation_ttl_elapsed")));
    }
    server.release(&other).await.problem(409, "reservation_not_active");
    let mut connection = redis.connection().await;
    let available: u64 = connection.hget(keys::inventory("sku"), "available").await.unwrap();
    assert_eq!(available, 5);
}

#[tokio::test]
async fn a_hold_gets_the_units_of_lapsed_holds() {
    let redis = RedisServer::start();
    let server = Stockhold::start_with(&redis, &NO_SWEEPER);
    server.seed("sku", 250).await;
    for _ in 0..250 {
        server.held_for("sku", 1, 1).await;
    }
    sleep(PAST_EXPIRY).await;
    // All of them lapsed: that takes three sweeps.
    server.held("sku", 250).await;
    assert_eq!(server.counts("sku").await, [0, 250, 0]);

    let body = json!({ "cartId": "late", "sku": "sku", "quantity": 1 });
    server.post("/api/reservations/hold", body).await.problem(409, "insufficient_inventory");
}

/// Many clients request a SKU that sold out, and all its holds lapse at once.
#[tokio::test]
async fn many_readers_of_lapsed_holds_do_not_each_sweep_them() {
    // A read sweeps no more than this number.
    const HOLDS: u64 = 100;
    const CROWD: usize = 100;
    // 25 holds in each.
    const SWEEPS: u64 = HOLDS / 25;
    let redis = RedisServer::start();
    let server = Stockhold::start_with(&redis, &NO_SWEEPER);
    server.seed("sku", HOLDS).await;
    for _ in 0..HOLDS {
        server.held_for("sku", 1, 1).await;
    }
    sleep(PAST_EXPIRY).await;
    let mut connection = redis.connection().await;
    let before = script_calls(&mut connection).await;
    let readers = (0..CROWD).map(|_| server.get("/api/inventory/sku?active=0"));
    for answer in join_all(readers).await {
        let stock = answer.ok();
        assert_eq!((&stock["available"], &stock["reserved"]), (&json!(HOLDS), &json!(0)));
    }
    let calls = script_calls(&mut connection).await - before;
    // Each client reads, and reads again after the sweep. Each thread of the server sweeps separately.
    let threads = std::thread::available_parallelism().unwrap().get() as u64;
    let enough = threads * (SWEEPS + 5) + 3 * CROWD as u64;
    assert!((SWEEPS..=enough).contains(&calls), "{calls} calls, where {enough} are enough");
}

async fn script_calls(connection: &mut MultiplexedConnection) -> u64 {
    let info: InfoDict = cmd("INFO").arg("commandstats").query_async(connection).await.unwrap();
    let stats: String = info.get("cmdstat_evalsha").unwrap();
    let calls = stats.strip_prefix("calls=").and_then(|stats| stats.split(',').next());
    calls.unwrap().parse().unwrap()
}

/// Holds one unit of each SKU, and waits until these holds have lapsed.
async fn lapse(redis: &RedisServer, skus: &[String]) {
    let server = Stockhold::start_with(redis, &NO_SWEEPER);
    for skus in skus.chunks(50) {
        join_all(skus.iter().map(async |sku| server.seed(sku, 5).await)).await;
        join_all(skus.iter().map(async |sku| server.held_for(sku, 1, 1).await)).await;
    }
    drop(server);
    sleep(PAST_EXPIRY).await;
}

/// Waits until no other SKU than those in `left` is listed as due.
async fn until_due(redis: &mut MultiplexedConnection, left: &[&str]) {
    let started = Instant::now();
    loop {
        let mut due: Vec<Vec<u8>> = Vec::new();
        for shard in keys::shards() {
            due.extend(redis.zrange::<_, Vec<_>>(&shard.due, 0, -1).await.unwrap());
        }
        if due.iter().all(|sku| left.iter().any(|left| left.as_bytes() == sku)) {
            return;
        }
        assert!(started.elapsed() < Duration::from_secs(30), "{} SKUs are due still", due.len());
        sleep(Duration::from_millis(10)).await;
    }
}

/// The stored counts: available, reserved. A read over HTTP would expire what is due.
async fn stored(redis: &mut MultiplexedConnection, sku: &str) -> [u64; 2] {
    let counts: [String; 2] = redis.hmget(keys::inventory(sku), &["available", "reserved"]).await.unwrap();
    counts.map(|count| count.parse().unwrap())
}

#[tokio::test]
async fn one_round_sweeps_many_skus_and_two_servers_sweep_each_once() {
    let redis = RedisServer::start();
    // More than two pages of the due list.
    let skus: Vec<String> = (0..1200).map(|number| format!("sku-{number}")).collect();
    lapse(&redis, &skus).await;
    let mut connection = redis.connection().await;
    let _servers = [Stockhold::start_with(&redis, &NO_SWEEPER), Stockhold::start_with(&redis, &NO_SWEEPER)];
    until_due(&mut connection, &[]).await;
    for sku in &skus {
        assert_eq!(stored(&mut connection, sku).await, [5, 0], "{sku}");
    }
    // Three events of each SKU: seeded, held, expired once.
    let mut events = 0;
    for shard in keys::shards() {
        events += cmd("XLEN").arg(&shard.audit).query_async::<usize>(&mut connection).await.unwrap();
    }
    assert_eq!(events, 3 * skus.len());
}

/// It need not be the first in the list: the SKU before it has more holds than one call expires.
#[tokio::test]
async fn a_damaged_sku_does_not_hold_up_a_large_one() {
    const HOLDS: u64 = 1000;
    let [large, damaged] = keys::in_one_shard(["large", "damaged"]);
    let redis = RedisServer::start();
    let server = Stockhold::start_with(&redis, &NO_SWEEPER);
    for sku in [large, damaged] {
        server.seed(sku, HOLDS).await;
    }
    for _ in 0..HOLDS {
        server.held_for(large, 1, 1).await;
    }
    server.held_for(damaged, 1, 1).await;
    drop(server);
    let mut connection = redis.connection().await;
    let _: () = connection.hset(keys::inventory(damaged), "reserved", "2").await.unwrap();
    sleep(PAST_EXPIRY).await;

    let server =
        Stockhold::spawn(&["--port", "0", "--redis-url", &redis.url(), "--log", "off", NO_SWEEPER[0], NO_SWEEPER[1]]);
    until_due(&mut connection, &[damaged]).await;
    assert_eq!(server.counts(large).await, [HOLDS, 0, 0]);
}

#[tokio::test]
async fn a_stuck_sku_is_swept_after_its_repair() {
    let redis = RedisServer::start();
    lapse(&redis, &["damaged", "denied", "sound"].map(str::to_owned)).await;
    let mut connection = redis.connection().await;
    let _: () = connection.hset(keys::inventory("damaged"), "reserved", "2").await.unwrap();
    let mut allow = async |keys: &str| {
        let rules = [
            "on",
            ">secret",
            "+@all",
            "resetkeys",
            "~*reservation:*",
            "~*operation:*",
            "~*cart:*",
            "~*stockhold:*",
            "~*inventory:audit",
        ];
        // And the SKU with which the server checks its rights.
        let skus = keys.split(' ').chain(["stockhold-readiness-probe"]);
        let skus = skus.flat_map(|sku| [format!("~{}", keys::inventory(sku)), format!("~{}", keys::active(sku))]);
        cmd("ACL")
            .arg("SETUSER")
            .arg("shop")
            .arg(&rules)
            .arg(skus.collect::<Vec<_>>())
            .exec_async(&mut connection)
            .await
            .unwrap();
    };
    allow("damaged sound").await;
    let url = redis.url_as("shop", "secret");
    let _server = Stockhold::spawn(&["--port", "0", "--redis-url", &url, "--sweep-interval-ms", "20", "--log", "off"]);
    let mut observer = redis.connection().await;
    until_due(&mut observer, &["damaged", "denied"]).await;
    assert_eq!(stored(&mut observer, "denied").await, [4, 1]);

    allow("damaged denied sound").await;
    let _: () = observer.hset(keys::inventory("damaged"), "reserved", "1").await.unwrap();
    until_due(&mut observer, &[]).await;
    assert_invariants(&mut observer, History::Whole).await;
}

/// Names that are not text, which none of our programs wrote; one of them is in the list itself.
#[tokio::test]
async fn names_that_are_not_text_do_not_end_a_round() {
    let redis = RedisServer::start();
    lapse(&redis, &["odd", "sound"].map(str::to_owned)).await;
    let mut connection = redis.connection().await;
    let _: () = connection.zadd(keys::active("odd"), &b"\xff"[..], 1).await.unwrap();
    for first in [&b"\xff"[..], b"odd"] {
        let _: () = connection.zadd(keys::due_of("odd"), first, 1).await.unwrap();
    }
    let _server = Stockhold::start_with(&redis, &["--log", "off"]);
    let started = Instant::now();
    while stored(&mut connection, "sound").await != [5, 0] {
        assert!(started.elapsed() < Duration::from_secs(30), "never swept");
        sleep(Duration::from_millis(10)).await;
    }
    let _: () = connection.zrem(keys::active("odd"), &b"\xff"[..]).await.unwrap();
    let _: () = connection.zrem(keys::due_of("odd"), &b"\xff"[..]).await.unwrap();
    until_due(&mut connection, &[]).await;
}

/// There is no reply about one SKU, and then no further reply on its connection. Redis itself works.
#[tokio::test(flavor = "multi_thread")]
async fn a_sku_without_a_reply_does_not_end_a_round() {
    let redis = RedisServer::start_plain();
    let sound = (0..20).map(|number| format!("sku-{number}"));
    lapse(&redis, &sound.chain(["silent".to_owned()]).collect::<Vec<_>>()).await;
    let mut connection = redis.connection().await;
    let _: () = connection.zadd(keys::due_of("silent"), "silent", 1).await.unwrap();
    let (proxy, silent) = silent_about("silent", &redis).await;
    let url = format!("redis://{proxy}/");
    let _server = Stockhold::spawn(&["--port", "0", "--redis-url", &url, "--log", "off"]);
    until_due(&mut connection, &["silent"]).await;
    assert_eq!(stored(&mut connection, "silent").await, [4, 1]);
    silent.store(false, Ordering::Relaxed);
    until_due(&mut connection, &[]).await;
}

/// A proxy to `redis`. A connection through it stops for good when a script is called on `sku`.
async fn silent_about(sku: &str, redis: &RedisServer) -> (SocketAddr, Arc<AtomicBool>) {
    // The keys are next to each other only as the keys of a script.
    let (inventory, active) = (keys::inventory(sku), keys::active(sku));
    let keys = format!("{inventory}\r\n${}\r\n{active}\r\n", active.len());
    let silent = Arc::new(AtomicBool::new(true));
    let (listener, port) = (TcpListener::bind(("127.0.0.1", 0)).await.unwrap(), redis.port());
    let (address, is_silent) = (listener.local_addr().unwrap(), Arc::clone(&silent));
    tokio::spawn(async move {
        loop {
            let (client, _) = listener.accept().await.unwrap();
            tokio::spawn(pass_on(client, port, keys.clone(), Arc::clone(&is_silent)));
        }
    });
    (address, silent)
}

async fn pass_on(client: TcpStream, port: u16, keys: String, silent: Arc<AtomicBool>) {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_redis, mut to_redis) = TcpStream::connect(("127.0.0.1", port)).await.unwrap().into_split();
    let there = async {
        let (mut seen, mut passed) = (Vec::new(), 0);
        while from_client.read_buf(&mut seen).await.unwrap_or(0) > 0 {
            let is_called = seen.windows(keys.len()).any(|window| window == keys.as_bytes());
            if is_called && silent.load(Ordering::Relaxed) {
                pending::<()>().await;
            }
            if to_redis.write_all(&seen[passed..]).await.is_err() {
                break;
            }
            passed = seen.len();
        }
    };
    let (_, _) = join(there, copy(&mut from_redis, &mut to_client)).await;
}
