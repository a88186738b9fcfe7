//! The settings of the operator hold for all: servers obey them without a restart, and no caller changes them.

use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use redis::cmd;
use tokio::time::sleep;

use crate::support::keys;
use crate::support::redis_server::RedisServer;
use crate::support::stockhold::{Stockhold, program};

const PATIENCE: Duration = Duration::from_secs(20);

/// Runs `stockhold settings ...`; returns its exit status and what it printed.
fn settings(redis: &RedisServer, arguments: &[&str]) -> (i32, String) {
    let url = redis.url();
    let output = program(&[&["settings", "--redis-url", &url], arguments].concat()).output().unwrap();
    let told = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    (output.status.code().unwrap(), told.concat())
}

/// What it prints.
fn shown(keep: &str, audit: &str, extend: &str) -> String {
    format!("keep-seconds       {keep}\naudit-max          {audit}\nextend-max-seconds {extend}\n")
}

/// How many events the shard of the SKU `tea` keeps.
async fn entries(connection: &mut MultiplexedConnection) -> u64 {
    cmd("XLEN").arg(keys::audit_of("tea")).query_async(connection).await.unwrap()
}

async fn keep_ms(connection: &mut MultiplexedConnection, id: &str) -> i64 {
    cmd("PTTL").arg(keys::reservation(id)).query_async(connection).await.unwrap()
}

#[tokio::test]
async fn they_are_shown_and_set() {
    let redis = RedisServer::start();
    assert_eq!(settings(&redis, &[]), (0, shown("2592000", "1000000", "3600")));
    assert_eq!(settings(&redis, &["--keep-seconds", "60"]), (0, shown("60", "1000000", "3600")));
    // The first server finds what was set before.
    drop(Stockhold::start(&redis));
    assert_eq!(settings(&redis, &["--audit-max", "0"]), (0, shown("60", "0", "3600")));
    assert_eq!(settings(&redis, &["--extend-max-seconds", "2592000"]), (0, shown("60", "0", "2592000")));
    let set = settings(&redis, &["--extend-max-seconds", "0"]);
    assert_eq!(set, (0, shown("60", "0", "0")));
    assert_eq!(settings(&redis, &[]), set);

    let mut connection = redis.connection().await;
    cmd("HSET").arg(&keys::shards()[0].settings).arg("auditMax").arg("many").exec_async(&mut connection).await.unwrap();
    let (status, told) = settings(&redis, &[]);
    assert!(status == 1 && told.contains("the setting auditMax is not a number"), "{told}");
}

#[tokio::test]
async fn a_server_sets_what_it_is_told_and_nothing_else() {
    let redis = RedisServer::start();
    settings(&redis, &["--keep-seconds", "60", "--audit-max", "5000", "--extend-max-seconds", "900"]);
    drop(Stockhold::start(&redis));
    assert_eq!(settings(&redis, &[]).1, shown("60", "5000", "900"));
    drop(Stockhold::start_with(&redis, &["--audit-max", "7000"]));
    assert_eq!(settings(&redis, &[]).1, shown("60", "7000", "900"));
    drop(Stockhold::start_with(&redis, &["--extend-max-seconds", "1200"]));
    assert_eq!(settings(&redis, &[]).1, shown("60", "7000", "1200"));
}

#[tokio::test]
async fn a_change_is_obeyed_without_a_restart() {
    let redis = RedisServer::start_with(&["--stream-node-max-entries", "10"]);
    let server =
        Stockhold::start_with(&redis, &["--sweep-interval-ms", "10", "--keep-seconds", "60", "--audit-max", "0"]);
    let mut connection = redis.connection().await;
    server.seed("tea", 1000).await;
    for _ in 0..100 {
        server.held("tea", 1).await;
    }
    let first = server.held("tea", 1).await;
    server.confirm(&first).await.ok();
    assert!((1..=60_000).contains(&keep_ms(&mut connection, &first).await));
    assert_eq!(entries(&mut connection).await, 103, "0 keeps all");

    // So that each shard keeps 50.
    let audit_max = (50 * keys::shards().len()).to_string();
    settings(&redis, &["--keep-seconds", "0", "--audit-max", &audit_max]);
    let deadline = Instant::now() + PATIENCE;
    while entries(&mut connection).await >= 50 + 20 {
        assert!(Instant::now() < deadline, "the audit is not trimmed");
        sleep(Duration::from_millis(5)).await;
    }
    assert!(entries(&mut connection).await >= 50, "more was taken than the operator wanted");
    let second = server.held("tea", 1).await;
    server.confirm(&second).await.ok();
    assert_eq!(keep_ms(&mut connection, &second).await, -1);
}
