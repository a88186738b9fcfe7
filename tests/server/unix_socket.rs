//! A Redis of this machine that is reached through a socket. It is no cluster, whose nodes are reached by their addresses.

use redis::cmd;

use crate::support::invariants::{History, assert_invariants};
use crate::support::redis_server::RedisServer;
use crate::support::stockhold::{Stockhold, program};

#[tokio::test]
async fn a_server_works_through_a_socket() {
    let redis = RedisServer::start_single(&[]);
    let mut connection = redis.connection().await;
    let user = ["SETUSER", "shop", "on", ">se cret", "~*", "+@all"];
    cmd("ACL").arg(&user).exec_async(&mut connection).await.unwrap();
    let plain = redis.socket_url();
    for url in [plain.clone(), format!("redis+{plain}"), format!("{plain}?user=shop&pass=se%20cret")] {
        let server = Stockhold::spawn(&["--port", "0", "--redis-url", &url]);
        server.seed("tea", 5).await;
        let id = server.held("tea", 2).await;
        server.confirm(&id).await.ok();
        assert_eq!(server.counts("tea").await, [3, 0, 2], "{url}");
    }
    assert_invariants(&mut connection, History::Whole).await;

    let other_database = format!("{plain}?db=1");
    let server = Stockhold::spawn(&["--port", "0", "--redis-url", &other_database]);
    server.get("/api/inventory/tea").await.problem(404, "unknown_sku");
    let checked = program(&["check", "--redis-url", &plain]).output().unwrap();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
}

/// As for any Redis that is not there yet, or not any more: the server waits for it.
#[tokio::test]
async fn a_socket_may_go_and_come_back() {
    let mut redis = RedisServer::start_single(&[]);
    let server = Stockhold::spawn(&["--port", "0", "--redis-url", &redis.socket_url()]);
    redis.kill();
    server.get("/api/inventory/tea").await.problem(503, "unavailable");
    redis.restart();
    server.wait_until_ready().await;
    server.seed("tea", 5).await;
}
