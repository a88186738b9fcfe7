//! The limit of its memory: above it no new hold is made, and existing holds are kept.

use std::path::Path;

use nix::sys::signal::Signal;
use serde_json::json;
use stockhold::private_redis::default_maxmemory;

use super::{Starting, connect, folder, program, redis_url, setting, start};
use crate::support::stockhold::Stockhold;

fn arguments(folder: &Path) -> [&str; 6] {
    ["--port", "0", "--redis-port", "0", "--data-dir", folder.to_str().unwrap()]
}

#[tokio::test]
async fn is_a_share_of_the_memory_or_as_configured() {
    let folder = folder();
    let server = start(folder.path());
    assert_eq!(setting(&redis_url(&server), "maxmemory").await, default_maxmemory().to_string());
    drop(server);
    for (named, bytes) in [("0", "0"), ("100MB", "104857600"), ("2gb", "2147483648"), ("20000000", "20000000")] {
        let server = Stockhold::spawn(&[&arguments(folder.path())[..], &["--redis-maxmemory", named]].concat());
        assert_eq!(setting(&redis_url(&server), "maxmemory").await, bytes);
    }
}

#[tokio::test]
async fn when_it_is_full_holds_are_refused_and_settled() {
    let folder = folder();
    let limited = [&arguments(folder.path())[..], &["--redis-maxmemory", "16mb"]].concat();
    let mut server = Stockhold::spawn(&limited);
    server.seed("sku", 3).await;
    let [sold, given_back] = [server.held("sku", 1).await, server.held("sku", 1).await];
    // One small command that creates a large value: it is accepted, and nothing after it.
    let mut connection = connect(&redis_url(&server)).await;
    let mut fill = redis::cmd("SETRANGE");
    fill.arg("filler").arg(20_000_000).arg("x").exec_async(&mut connection).await.unwrap();

    let body = json!({ "cartId": "cart", "sku": "sku", "quantity": 1 });
    let problem = server.post("/api/reservations/hold", body).await.problem(503, "unavailable");
    assert_eq!(problem["outcome"], "none");
    assert_eq!(server.confirm(&sold).await.ok()["state"], "confirmed");
    assert_eq!(server.release(&given_back).await.ok()["state"], "released");
    assert_eq!(server.counts("sku").await, [2, 0, 1]);

    // Memory use near the limit is logged.
    server.signal(Signal::SIGTERM);
    assert!(server.wait().success());
    let mut again = Starting::spawn(program(&limited));
    let told = again.logs("--redis-maxmemory");
    assert!(told.contains("WARN") && told.contains("16777216 bytes"), "{told}");
    assert!(again.end(Signal::SIGTERM).success());
}
