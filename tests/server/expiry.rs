//! Expiry is exact, whoever notices it first.

use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use redis::{AsyncCommands, InfoDict, cmd};
use serde_json::json;
use tokio::time::sleep;

use crate::support::redis_server::RedisServer;
use crate::support::stockhold::Stockhold;

/// Longer than the shortest hold, which lasts a second.
const PAST_EXPIRY: Duration = Duration::from_millis(1050);
/// No sweep of the server's own within a test.
const NO_SWEEPER: [&str; 2] = ["--sweep-interval-ms", "60000"];

#[tokio::test]
async fn nobody_asks_and_it_is_released_all_the_same() {
    let redis = RedisServer::start();
    let shop = Stockhold::start(&redis);
    shop.seed("sku", 5).await;
    let id = shop.held_for("sku", 2, 1).await;
    let held = Instant::now();

    // Looking at Redis itself: a read over HTTP would expire it.
    let mut connection = redis.connection().await;
    let state: String = connection.hget(format!("reservation:{id}"), "state").await.unwrap();
    assert_eq!(state, "active");
    let waited = loop {
        let state: String = connection.hget(format!("reservation:{id}"), "state").await.unwrap();
        if state == "released" {
            break held.elapsed();
        }
        assert!(held.elapsed() < Duration::from_secs(20), "never released");
        sleep(Duration::from_millis(10)).await;
    };
    assert!(waited >= Duration::from_millis(900), "released before its time, after {waited:?}");
    let available: u64 = connection.hget("inventory:sku", "available").await.unwrap();
    assert_eq!(available, 5);
    let left: u64 = connection.zcard("stockhold:due").await.unwrap();
    assert_eq!(left, 0, "nothing is left to poll for");
    let event = &shop.events("sku", 1).await[0];
    assert_eq!((&event["event"], &event["reason"]), (&json!("expired"), &json!("reservation_ttl_elapsed")));
}

#[tokio::test]
async fn a_read_right_after_expiry_is_already_right() {
    let redis = RedisServer::start();
    let shop = Stockhold::start_with(&redis, &NO_SWEEPER);
    shop.seed("sku", 300).await;
    let mut ids = Vec::new();
    for _ in 0..150 {
        ids.push(shop.held_for("sku", 1, 1).await);
    }
    let stays = shop.held("sku", 1).await;
    sleep(PAST_EXPIRY).await;

    let record = shop.get(&format!("/api/reservations/{}", ids[0])).await.ok();
    assert_eq!((&record["state"], &record["reason"]), (&json!("released"), &json!("reservation_ttl_elapsed")));
    let stock = shop.stock("sku").await;
    assert_eq!((&stock["available"], &stock["activeReservations"]), (&json!(299), &json!([stays])));
}

#[tokio::test]
async fn a_settlement_after_expiry_is_refused_and_the_units_are_back() {
    let redis = RedisServer::start();
    let shop = Stockhold::start_with(&redis, &NO_SWEEPER);
    shop.seed("sku", 5).await;
    let (one, other) = (shop.held_for("sku", 2, 1).await, shop.held_for("sku", 1, 1).await);
    sleep(PAST_EXPIRY).await;

    for _ in 0..2 {
        let problem = shop.confirm(&one).await.problem(409, "reservation_not_active");
        assert_eq!((&problem["state"], &problem["reason"]), (&json!("released"), &json!("reservation_ttl_elapsed")));
    }
    shop.release(&other).await.problem(409, "reservation_not_active");
    let mut connection = redis.connection().await;
    let available: u64 = connection.hget("inventory:sku", "available").await.unwrap();
    assert_eq!(available, 5);
}

#[tokio::test]
async fn a_hold_finds_the_units_that_lapsed_holds_sit_on() {
    let redis = RedisServer::start();
    let shop = Stockhold::start_with(&redis, &NO_SWEEPER);
    shop.seed("sku", 250).await;
    for _ in 0..250 {
        shop.held_for("sku", 1, 1).await;
    }
    sleep(PAST_EXPIRY).await;
    // All of them: it takes three sweeps.
    shop.held("sku", 250).await;
    assert_eq!(shop.counts("sku").await, [0, 250, 0]);

    let body = json!({ "cartId": "late", "sku": "sku", "quantity": 1 });
    shop.post("/api/reservations/hold", body).await.problem(409, "insufficient_inventory");
}

/// They come for the SKU that sold out, and its holds all lapse at once.
#[tokio::test]
async fn a_crowd_that_meets_lapsed_holds_does_not_sweep_them_a_hundred_times() {
    // More are not swept by a read.
    const HOLDS: u64 = 100;
    const CROWD: usize = 100;
    // Of 25 holds each.
    const SWEEPS: u64 = HOLDS / 25;
    let redis = RedisServer::start();
    let shop = Stockhold::start_with(&redis, &NO_SWEEPER);
    shop.seed("sku", HOLDS).await;
    for _ in 0..HOLDS {
        shop.held_for("sku", 1, 1).await;
    }
    sleep(PAST_EXPIRY).await;
    let mut connection = redis.connection().await;
    let before = script_calls(&mut connection).await;
    let readers = (0..CROWD).map(|_| shop.get("/api/inventory/sku?active=0"));
    for answer in futures_util::future::join_all(readers).await {
        let stock = answer.ok();
        assert_eq!((&stock["available"], &stock["reserved"]), (&json!(HOLDS), &json!(0)));
    }
    let calls = script_calls(&mut connection).await - before;
    // Each reads and, once it is swept, reads again; each thread of the server sweeps for its own.
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
