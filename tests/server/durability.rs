//! Whatever was acknowledged is still there: after a kill of Redis, and with `wait:N` after the loss of its machine.
//!
//! `DURABILITY_ROUNDS` sets how often each is tried.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use redis::cmd;
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::sleep;
use uuid::Uuid;

use crate::support::invariants::{History, assert_invariants};
use crate::support::keys;
use crate::support::redis_server::{RedisServer, cut_short};
use crate::support::stockhold::{Answer, Stockhold};

const BUYERS: usize = 8;
/// How long a primary continues to serve without its replica.
const APART: Duration = Duration::from_millis(200);
const PATIENCE: Duration = Duration::from_secs(30);

fn rounds() -> usize {
    std::env::var("DURABILITY_ROUNDS").map_or(3, |rounds| rounds.parse().expect("DURABILITY_ROUNDS"))
}

async fn hold(server: &Stockhold, key: &str) -> Answer {
    let body = json!({ "cartId": "cart-1", "sku": "tea", "quantity": 1 });
    server.post_with("/api/reservations/hold", body, Some(key)).await
}

/// A Redis that a replica may follow by its address, so it is no node of a cluster.
fn primary() -> RedisServer {
    // It does not wait for more replicas before the first one may copy it.
    RedisServer::start_single(&["--repl-diskless-sync-delay", "0"])
}

/// A replica of `primary` that has reported to it.
async fn replica_of(primary: &RedisServer) -> RedisServer {
    let options = ["--replicaof", "127.0.0.1", &primary.port().to_string()];
    let replica = RedisServer::start_single(&options);
    primary.until_followed().await;
    replica
}

/// Retries while the outcome is unknown, as a client does: a busy machine may delay a replica.
async fn answered(ask: impl AsyncFn() -> Answer) -> Answer {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let answer = ask().await;
        if answer.status != 503 {
            return answer;
        }
        assert!(Instant::now() < deadline, "{}", answer.body);
    }
}

async fn seed(server: &Stockhold, quantity: u64) {
    let body = json!({ "sku": "tea", "quantity": quantity });
    answered(async || server.post("/api/inventory/seed", body.clone()).await).await.ok();
}

async fn is_there(redis: &mut MultiplexedConnection, id: &str) -> bool {
    cmd("EXISTS").arg(keys::reservation(id)).query_async(redis).await.unwrap()
}

/// Buys until it is stopped, and returns the ids that were acknowledged.
async fn buy(server: Arc<Stockhold>, closing: Arc<AtomicBool>) -> Vec<String> {
    let mut acknowledged = Vec::new();
    while !closing.load(Ordering::Relaxed) {
        let answer = hold(&server, &Uuid::new_v4().to_string()).await;
        if answer.status == 200 {
            acknowledged.push(answer.body["reservationId"].as_str().unwrap().to_owned());
        } else {
            answer.problem(503, "unavailable");
            sleep(Duration::from_millis(5)).await;
        }
    }
    acknowledged
}

/// Lets buyers buy until `disaster` is over, and returns the ids that were acknowledged.
async fn promised(server: &Arc<Stockhold>, disaster: impl AsyncFnOnce()) -> Vec<String> {
    let closing = Arc::new(AtomicBool::new(false));
    let mut buyers = JoinSet::new();
    for _ in 0..BUYERS {
        buyers.spawn(buy(Arc::clone(server), Arc::clone(&closing)));
    }
    sleep(Duration::from_millis(200)).await;
    disaster().await;
    closing.store(true, Ordering::Relaxed);
    buyers.join_all().await.concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_redis_that_always_writes_its_file_has_lost_nothing() {
    let mut redis = RedisServer::start_with(&["--appendonly", "yes", "--appendfsync", "always"]);
    let server = Arc::new(Stockhold::start(&redis));
    seed(&server, 1_000_000_000).await;
    let mut all = Vec::new();
    for _ in 0..rounds() {
        let promised = promised(&server, async || {
            redis.kill();
            redis.restart();
        });
        let promised = promised.await;
        assert!(!promised.is_empty());
        let mut connection = redis.connection().await;
        for id in &promised {
            assert!(is_there(&mut connection, id).await, "{id} was acknowledged and is lost");
        }
        all.extend(promised);
    }
    let mut connection = redis.connection().await;
    for id in &all {
        assert!(is_there(&mut connection, id).await, "{id} was acknowledged and is lost, later");
    }
    assert_invariants(&mut connection, History::Whole).await;
    println!("{} kills, {} holds acknowledged, none lost", rounds(), all.len());
}

/// Redis alone would keep the half, and carry it out together with the next write.
#[tokio::test]
async fn half_a_transaction_in_the_file_is_never_carried_out() {
    // From one byte of the last hold to almost all of it.
    for cut in [1, 2, 6, 13, 14, 15, 100, 200, 300, 500, 600] {
        // With everysec, Redis may acknowledge a write and delay it for as long as the disk is busy.
        let mut redis = RedisServer::start_with(&["--appendonly", "yes", "--appendfsync", "always"]);
        let server = Stockhold::start(&redis);
        server.seed("tea", 5).await;
        server.held("tea", 1).await;
        server.held("tea", 2).await;
        redis.kill();
        cut_short(redis.folder(), cut);
        redis.restart();
        server.wait_until_ready().await;
        assert_eq!(server.counts("tea").await, [4, 1, 0]);
        // Written after the rest that is left.
        server.held("tea", 1).await;
        redis.restart();
        server.wait_until_ready().await;
        assert_eq!(server.counts("tea").await, [3, 2, 0]);
        assert_invariants(&mut redis.connection().await, History::Whole).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_takes_over_has_all_that_was_acknowledged() {
    let mut all = 0;
    for _ in 0..rounds() {
        let primary = primary();
        let replica = replica_of(&primary).await;
        let server = Arc::new(Stockhold::start_with(&primary, &["--durability", "wait:1"]));
        seed(&server, 1_000_000_000).await;
        let mut heir = replica.connection().await;
        let promised = promised(&server, async || {
            // The two lose their connection while the primary still serves. Then the primary is gone, and only the
            // replica is left.
            replica.stop_process();
            cmd("CLIENT").arg(&["KILL", "TYPE", "REPLICA"]).exec_async(&mut primary.connection().await).await.unwrap();
            sleep(APART).await;
            primary.stop_process();
            replica.continue_process();
            cmd("REPLICAOF").arg("NO").arg("ONE").exec_async(&mut heir).await.unwrap();
        });
        let promised = promised.await;
        assert!(!promised.is_empty());
        for id in &promised {
            assert!(is_there(&mut heir, id).await, "{id} was acknowledged and is lost");
        }
        all += promised.len();
        assert_invariants(&mut heir, History::Whole).await;
        primary.continue_process();
    }
    println!("{} fail-overs, {all} holds acknowledged, none lost", rounds());
}

#[tokio::test]
async fn too_few_replicas_leave_the_outcome_unknown_until_they_are_back() {
    let primary = primary();
    let replica = replica_of(&primary).await;
    let server = Stockhold::start_with(&primary, &["--durability", "wait:1"]);
    seed(&server, 5).await;
    answered(async || hold(&server, "order-1").await).await.ok();

    replica.stop_process();
    for _ in 0..2 {
        // A replay is unknown too: that it was done once does not mean that a replica has it.
        let problem = hold(&server, "order-2").await.problem(503, "unavailable");
        assert_eq!(problem["outcome"], "unknown");
    }
    // A read promises nothing.
    assert_eq!(server.counts("tea").await, [3, 2, 0]);
    replica.continue_process();
    let answer = answered(async || hold(&server, "order-2").await).await;
    assert_eq!(answer.headers["idempotent-replayed"], "true");
    let id = answer.ok()["reservationId"].as_str().unwrap().to_owned();
    assert!(is_there(&mut replica.connection().await, &id).await);
    answered(async || server.confirm(&id).await).await;
}

/// An expiry can be repeated, so no replica has to confirm it. An answer that is a promise waits for replicas.
#[tokio::test]
async fn sweeping_waits_for_no_replica() {
    const NO_SWEEPER: [&str; 2] = ["--sweep-interval-ms", "60000"];
    let redis = RedisServer::start();
    let without_wait = Stockhold::start_with(&redis, &NO_SWEEPER);
    without_wait.seed("tea", 1000).await;
    let waiting = ["--durability", "wait:1", NO_SWEEPER[0], NO_SWEEPER[1]];
    let server = Stockhold::start_with(&redis, &waiting);
    let lapse = async || {
        let mut ids = Vec::new();
        for _ in 0..100 {
            ids.push(without_wait.held_for("tea", 1, 1).await);
        }
        sleep(Duration::from_millis(1050)).await;
        ids
    };
    let ids = lapse().await;
    for id in &ids[..2] {
        let record = server.get(&format!("/api/reservations/{id}")).await.ok();
        assert_eq!((&record["state"], &record["reason"]), (&json!("released"), &json!("reservation_ttl_elapsed")));
    }
    let problem = server.confirm(&ids[2]).await.problem(503, "unavailable");
    assert_eq!(problem["outcome"], "unknown");
    assert_eq!(server.counts("tea").await, [1000, 0, 0]);

    lapse().await;
    drop(server);
    // In the one round at the start of the server.
    let _server = Stockhold::start_with(&redis, &waiting);
    let mut connection = redis.connection().await;
    let deadline = Instant::now() + PATIENCE;
    while is_due(&mut connection, "tea").await {
        assert!(Instant::now() < deadline, "never swept");
        sleep(Duration::from_millis(10)).await;
    }
    assert_invariants(&mut connection, History::Whole).await;
}

async fn is_due(redis: &mut MultiplexedConnection, sku: &str) -> bool {
    let bound: Option<f64> = cmd("ZSCORE").arg(keys::due_of(sku)).arg(sku).query_async(redis).await.unwrap();
    bound.is_some()
}

/// After an error reply nothing is unknown, even if it comes together with the number of replicas.
#[tokio::test]
async fn a_refusal_is_not_an_unknown_outcome() {
    let primary = primary();
    let _replica = replica_of(&primary).await;
    let server = Stockhold::start_with(&primary, &["--durability", "wait:1", "--log", "off"]);
    seed(&server, 5).await;
    let mut redis = primary.connection().await;

    // Before the reloader runs: the request itself finds the scripts missing.
    cmd("SCRIPT").arg("FLUSH").exec_async(&mut redis).await.unwrap();
    hold(&server, "order-1").await.ok();
    cmd("HSET").arg(keys::inventory("tea")).arg(&["available", "many"]).exec_async(&mut redis).await.unwrap();
    hold(&server, "order-2").await.problem(500, "internal");
}
