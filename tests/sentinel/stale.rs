//! A sentinel that does not know of the fail-over, and a Redis that still calls itself a master.

use std::time::{Duration, Instant};

use redis::cmd;
use stockhold::redis::{Files, Redis};

use crate::support::redis_server::RedisServer;
use crate::support::sentinel::{NAME, Sentinel, Watched};
use crate::support::stockhold::{Stockhold, program};

const PATIENCE: Duration = Duration::from_secs(30);

async fn keys(redis: &RedisServer) -> usize {
    cmd("DBSIZE").query_async(&mut redis.connection().await).await.unwrap()
}

/// Its answer counts for the majority and not for the address, even when one of the others is gone.
#[tokio::test(flavor = "multi_thread")]
async fn the_latest_fail_over_counts() {
    let mut watched = Watched::start().await;
    watched.redis[0].kill();
    let new = watched.until_master_is_not(0, &[0, 1, 2]).await;
    // On its own, it never learns what the others know.
    let deserted = RedisServer::start();
    let stale = Sentinel::start(&deserted, 1, &[]).await;
    assert_eq!(stale.named().await, deserted.port());
    watched.sentinels.pop();
    watched.sentinels.insert(0, stale);

    let mut heir = watched.redis[new].connection().await;
    cmd("HSET").arg(&["stockhold:settings", "keepMs", "60000"]).exec_async(&mut heir).await.unwrap();
    // Whichever of them answers first, and whichever last.
    for round in 0..30 {
        watched.sentinels.rotate_left(1);
        let files = Files { ca: deserted.ca(), ..Files::default() };
        let redis = Redis::open_with(&watched.url(), files).unwrap();
        let deadline = Instant::now() + PATIENCE;
        let setting = loop {
            match redis.hash_field("stockhold:settings", "keepMs").await {
                Ok(setting) => break setting,
                // A busy machine may take longer than a connection may.
                Err(failure) => assert!(Instant::now() < deadline, "{failure}"),
            }
        };
        assert_eq!(setting.as_deref(), Some("60000"), "round {round}");
    }
    let arguments = watched.arguments();
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    let server = Stockhold::spawn(&[&["--port", "0"], &arguments[..]].concat());
    server.seed("tea", 5).await;
    // Now it is one of the two that answer.
    watched.sentinels[1].kill();
    cmd("CLIENT").arg(&["KILL", "TYPE", "normal"]).exec_async(&mut heir).await.unwrap();
    server.wait_until_ready().await;
    server.held("tea", 2).await;
    assert_eq!(server.counts("tea").await, [3, 2, 0]);
    // Now it is the only one.
    watched.sentinels[2].kill();
    let output = program(&["settings"]).args(&arguments).output().unwrap();
    assert!(String::from_utf8(output.stderr).unwrap().contains("only 1 of the 3 sentinels"));
    assert_eq!(keys(&deserted).await, 0);
}

/// The sentinels name what calls itself a replica, as in the middle of a fail-over.
#[tokio::test(flavor = "multi_thread")]
async fn a_replica_is_not_served() {
    let redis = RedisServer::start();
    let sentinel = Sentinel::start(&redis, 1, &[]).await;
    let other = RedisServer::start();
    let port = other.port().to_string();
    cmd("REPLICAOF").arg(&["127.0.0.1", &port]).exec_async(&mut redis.connection().await).await.unwrap();
    let watched = Watched { redis: vec![redis], sentinels: vec![sentinel] };
    let output = program(&["settings"]).args(watched.arguments()).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    let words = format!(", which the sentinels name as {NAME}: it is no master, or not yet: its role is slave");
    assert!(said.contains(&words), "{said}");
}
