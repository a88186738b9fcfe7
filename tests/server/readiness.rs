//! Ready means able: the server proves every operation before it opens the port and afterwards, and names what is
//! impaired.

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::cmd;
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::support::keys;
use crate::support::redis_server::RedisServer;
use crate::support::snapshot::Snapshot;
use crate::support::stockhold::{Stockhold, program};

async fn run(connection: &mut MultiplexedConnection, command: &str) {
    let mut words = command.split(' ');
    let mut command = cmd(words.next().unwrap());
    command.arg(words.collect::<Vec<_>>()).exec_async(connection).await.unwrap();
}

/// Starts a server that must refuse to serve, and returns what it prints.
fn refused(url: &str) -> String {
    let ended = program(&["--port", "0", "--redis-url", url]).output().unwrap();
    let told = String::from_utf8(ended.stderr).unwrap();
    assert!(!ended.status.success(), "{told}");
    assert!(!String::from_utf8_lossy(&ended.stdout).contains("listens"), "{told}");
    told
}

/// What is impaired, by name.
fn impaired(body: &Value) -> Vec<(&str, &str)> {
    let text = |value: &'_ Value, name: &str| value[name].as_str().map(str::to_owned);
    let listed = body["impaired"].as_array().unwrap();
    assert!(listed.iter().all(|one| text(one, "what").is_some() && text(one, "why").is_some()), "{body}");
    listed.iter().map(|one| (one["what"].as_str().unwrap(), one["why"].as_str().unwrap())).collect()
}

#[tokio::test]
async fn a_proof_leaves_no_trace() {
    let redis = RedisServer::start();
    let server = Stockhold::start(&redis);
    server.seed("tea", 5).await;
    server.held("tea", 2).await;
    let mut connection = redis.connection().await;
    let before = Snapshot::take(&mut connection).await;
    assert_eq!(server.get("/readyz").await.ok(), json!({ "status": "ready" }));
    assert!(before.changed(&Snapshot::take(&mut connection).await).is_empty());
}

/// Each write that an operation needs is denied alone: only the operations that need it are named.
#[tokio::test]
async fn a_user_without_a_right_is_refused_before_the_port_opens() {
    let redis = RedisServer::start();
    let mut connection = redis.connection().await;
    let all = [
        "hold",
        "hold_with_metadata",
        "cart_hold",
        "confirm",
        "release",
        "extend",
        "change",
        "sell",
        "sweep",
        "seed",
        "adjust",
        "return",
        "rules",
        "inventory",
        "audit",
    ];
    let writing = &all[..13];
    for (command, operations) in [
        ("xadd", writing),
        ("hset", writing),
        ("zadd", &["hold", "hold_with_metadata", "cart_hold", "extend", "sweep", "seed", "adjust"]),
        ("zrem", &["confirm", "release", "extend", "change", "sell", "sweep", "seed"]),
        ("pexpire", &["cart_hold", "confirm", "release", "extend", "change", "sell", "seed", "adjust", "return"]),
        ("hdel", &["cart_hold"]),
        ("persist", &["cart_hold", "sell"]),
    ] {
        // The scripts are published before; otherwise that would fail first.
        run(&mut connection, "ACL SETUSER weak reset on nopass ~* &* +@all").await;
        let url = redis.url_as("weak", "any");
        drop(Stockhold::spawn(&["--port", "0", "--redis-url", &url]));
        run(&mut connection, &format!("ACL SETUSER weak -{command}")).await;
        let told = refused(&url);
        for operation in all {
            let named = told.contains(&format!("  {operation}: the user at Redis may not do what this needs"));
            assert_eq!(named, operations.contains(&operation), "without {command}, {operation}: {told}");
        }
    }
}

#[tokio::test]
async fn a_server_that_loses_a_right_is_not_ready() {
    let redis = RedisServer::start();
    let mut connection = redis.connection().await;
    run(&mut connection, "ACL SETUSER weak reset on nopass ~* &* +@all").await;
    let url = redis.url_as("weak", "any");
    let server = Stockhold::spawn(&["--port", "0", "--redis-url", &url]);
    server.get("/readyz").await.ok();
    run(&mut connection, "ACL SETUSER weak -zadd").await;
    let body = server.get("/readyz").await.problem(503, "unavailable");
    assert_eq!(
        impaired(&body).iter().map(|(what, _)| *what).collect::<Vec<_>>(),
        ["hold", "hold_with_metadata", "cart_hold", "extend", "sweep", "seed", "adjust"],
        "{body}"
    );
    assert!(!body.to_string().contains("NOPERM"), "what Redis said is for the log: {body}");
    run(&mut connection, "ACL SETUSER weak +zadd").await;
    server.get("/readyz").await.ok();
}

#[tokio::test]
async fn a_key_of_another_program_is_refused_before_the_port_opens() {
    let redis = RedisServer::start();
    // Where the server looks before it has any stock.
    let audit = keys::audit_of("stockhold-readiness-probe");
    run(&mut redis.connection().await, &format!("SET {audit} x")).await;
    let told = refused(&redis.url());
    assert!(told.contains("hold: a key of stockhold is of another type: is this the right database?"), "{told}");
}

/// Existing holds can be settled, even by a server that starts when memory is full.
#[tokio::test]
async fn full_memory_keeps_no_server_from_starting() {
    let redis = RedisServer::start();
    let mut connection = redis.connection().await;
    let [first, second] = {
        let server = Stockhold::start(&redis);
        server.seed("tea", 5).await;
        [server.held("tea", 2).await, server.held("tea", 1).await]
    };
    run(&mut connection, "CONFIG SET maxmemory 1").await;
    // After a restart, Redis would be just as full, and without the scripts.
    run(&mut connection, "SCRIPT FLUSH").await;
    // Another version has published its own script: that cannot be changed now.
    for published in [true, false] {
        if !published {
            run(&mut connection, "CONFIG SET maxmemory 0").await;
            run(&mut connection, "HDEL stockhold:scripts hold").await;
            run(&mut connection, "CONFIG SET maxmemory 1").await;
        }
        let server = Stockhold::start(&redis);
        let body = server.get("/readyz").await.ok();
        assert_eq!(body["status"], "impaired");
        let mut expected = vec![
            ("hold", "the memory of Redis is full (maxmemory)"),
            ("hold_with_metadata", "the memory of Redis is full (maxmemory)"),
            ("cart_hold", "the memory of Redis is full (maxmemory)"),
            ("seed", "the memory of Redis is full (maxmemory)"),
            ("adjust", "the memory of Redis is full (maxmemory)"),
            ("rules", "the memory of Redis is full (maxmemory)"),
        ];
        if !published {
            expected.push(("scripts", "scripts are not loaded and published"));
        }
        assert_eq!(impaired(&body), expected);
        let hold = server.post("/api/reservations/hold", json!({ "cartId": "c", "sku": "tea", "quantity": 1 })).await;
        assert_eq!(hold.problem(503, "unavailable")["outcome"], "none");
        server.confirm(if published { &first } else { &second }).await.ok();
    }
    run(&mut connection, "CONFIG SET maxmemory 0").await;
    let server = Stockhold::start(&redis);
    assert_eq!(server.get("/readyz").await.ok(), json!({ "status": "ready" }));
    assert_eq!(server.counts("tea").await, [2, 0, 3]);
}

/// When the disk is full, every write fails, so no request is served.
#[tokio::test]
async fn a_failing_disk_is_named() {
    let redis = RedisServer::start_with(&["--save", "3600 1000000", "--dbfilename", "dump.rdb"]);
    let mut connection = redis.connection().await;
    let server = Stockhold::start(&redis);
    server.seed("tea", 5).await;
    // A folder has the name of the file.
    std::fs::create_dir(redis.folder().join("dump.rdb")).unwrap();
    run(&mut connection, "BGSAVE").await;
    loop {
        let info: String = cmd("INFO").arg("persistence").query_async(&mut connection).await.unwrap();
        if info.contains("rdb_last_bgsave_status:err") {
            break;
        }
        sleep(Duration::from_millis(5)).await;
    }
    let body = server.get("/readyz").await.problem(503, "unavailable");
    let named = impaired(&body);
    for operation in
        ["hold", "hold_with_metadata", "cart_hold", "confirm", "release", "extend", "sweep", "seed", "adjust", "return"]
    {
        assert!(named.contains(&(operation, "Redis cannot write to its disk")), "{operation}: {body}");
    }
    std::fs::remove_dir(redis.folder().join("dump.rdb")).unwrap();
    run(&mut connection, "SAVE").await;
    server.get("/readyz").await.ok();
}
