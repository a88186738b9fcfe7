//! A hold gets more time while its customer pays, within the operator's limit.

use std::sync::Arc;
use std::time::Duration;

use redis::cmd;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::support::invariants::{History, assert_invariants};
use crate::support::keys;
use crate::support::redis_server::RedisServer;
use crate::support::stockhold::{Answer, Stockhold, program};

const HOLD: &str = "/api/reservations/hold";

async fn extend(server: &Stockhold, id: &str, ttl_seconds: u64) -> Answer {
    server.post(&format!("/api/reservations/{id}/extend"), json!({ "ttlSeconds": ttl_seconds })).await
}

/// A time of an answer, in epoch milliseconds.
fn ms(time: &Value) -> i64 {
    time.as_str().unwrap().parse::<jiff::Timestamp>().unwrap().as_millisecond()
}

#[tokio::test]
async fn a_hold_lapses_later_and_is_sold() {
    let redis = RedisServer::start();
    let server = Stockhold::start_with(&redis, &["--sweep-interval-ms", "10"]);
    server.seed("tea", 5).await;
    let id = server.held_for("tea", 2, 1).await;
    let held = server.get(&format!("/api/reservations/{id}")).await.ok();

    let extended = extend(&server, &id, 600).await.ok();
    assert_eq!(ms(&extended["expiresAt"]), ms(&extended["updatedAt"]) + 600_000);
    let mut expected = held;
    for name in ["expiresAt", "updatedAt"] {
        expected[name] = extended[name].clone();
    }
    assert_eq!(extended, expected, "nothing else differs");
    assert_eq!(server.get(&format!("/api/reservations/{id}")).await.ok(), extended);
    assert_eq!(server.counts("tea").await, [3, 2, 0]);

    // Beyond the first expiry.
    sleep(Duration::from_millis(1200)).await;
    assert_eq!(server.confirm(&id).await.ok()["state"], "confirmed");
    let events = server.events("tea", 10).await;
    let story: Vec<_> = events.iter().map(|event| event["event"].as_str().unwrap()).collect();
    assert_eq!(story, ["confirm", "extend", "hold", "seed"]);
    assert_eq!((&events[1]["quantity"], &events[1]["state"]), (&json!(2), &json!("active")));
    assert_invariants(&mut redis.connection().await, History::Whole).await;
}

#[tokio::test]
async fn a_repeat_or_a_shorter_time_changes_nothing() {
    let redis = RedisServer::start();
    let server = Stockhold::start(&redis);
    server.seed("tea", 5).await;
    let id = server.held("tea", 1).await;
    let before = server.get(&format!("/api/reservations/{id}")).await.ok();
    for ttl_seconds in [1, 60, 500] {
        assert_eq!(extend(&server, &id, ttl_seconds).await.ok(), before);
    }
    assert_eq!(server.events("tea", 10).await.len(), 2);
}

#[tokio::test]
async fn the_operators_limit_is_told_and_nothing_is_changed() {
    let redis = RedisServer::start();
    let server = Stockhold::start(&redis);
    server.seed("tea", 5).await;
    let id = server.held("tea", 1).await;
    let before = server.get(&format!("/api/reservations/{id}")).await.ok();
    let created = ms(&before["createdAt"]);

    // An hour after the hold, when nothing is set.
    let problem = extend(&server, &id, 3601).await.problem(409, "extension_limit_reached");
    assert_eq!(problem["title"], "Extension limit reached");
    assert_eq!(ms(&problem["maxExpiresAt"]), created + 3_600_000);
    assert!(problem["maxExpiresAt"].as_str().unwrap().ends_with('Z'), "{problem}");
    for (limit, ttl_seconds, latest) in [("7200", 7201, 7200), ("0", 700, 600), ("300", 700, 600)] {
        let set = program(&["settings", "--redis-url", &redis.url(), "--extend-max-seconds", limit]).output().unwrap();
        assert!(set.status.success(), "{set:?}");
        let problem = extend(&server, &id, ttl_seconds).await.problem(409, "extension_limit_reached");
        assert_eq!(ms(&problem["maxExpiresAt"]), created + latest * 1000, "a limit of {limit} s");
    }
    assert_eq!(server.get(&format!("/api/reservations/{id}")).await.ok(), before);
    assert_eq!(server.events("tea", 10).await.len(), 2);
}

#[tokio::test]
async fn what_is_not_active_is_not_extended() {
    let redis = RedisServer::start();
    let server = Stockhold::start_with(&redis, &["--sweep-interval-ms", "60000"]);
    server.seed("tea", 5).await;
    let (sold, given_up, lapsing) =
        (server.held("tea", 1).await, server.held("tea", 1).await, server.held_for("tea", 1, 1).await);
    server.confirm(&sold).await.ok();
    server.release(&given_up).await.ok();
    sleep(Duration::from_millis(1050)).await;
    for _ in 0..2 {
        for (id, state, reason) in [
            (&sold, "confirmed", Value::Null),
            (&given_up, "released", json!("manual_release")),
            (&lapsing, "released", json!("reservation_ttl_elapsed")),
        ] {
            let problem = extend(&server, id, 600).await.problem(409, "reservation_not_active");
            assert_eq!((&problem["state"], &problem["reason"]), (&json!(state), &reason));
        }
    }
    let nobody = "018f0000-0000-8abc-8000-00000000000a";
    extend(&server, nobody, 600).await.problem(404, "unknown_reservation");
    // The call expired what had lapsed: no sweep did.
    assert_eq!(server.events("tea", 1).await[0]["event"], "expired");
    assert_eq!(server.counts("tea").await, [4, 0, 1]);
}

/// The same request again is the same request, whatever was extended since.
#[tokio::test]
async fn a_hold_is_replayed_after_its_extension() {
    let redis = RedisServer::start();
    let server = Stockhold::start(&redis);
    server.seed("tea", 9).await;
    let body = |ttl: u64| json!({ "cartId": "cart-1", "sku": "tea", "quantity": 1, "ttlSeconds": ttl });
    for (turn, verb) in [None, Some("confirm")].into_iter().enumerate() {
        let key = format!("order-{turn}");
        let held = server.post_with(HOLD, body(600), Some(&key)).await.ok();
        let id = held["reservationId"].as_str().unwrap();
        for ttl_seconds in [900, 1200] {
            extend(&server, id, ttl_seconds).await.ok();
        }
        if let Some(verb) = verb {
            server.post(&format!("/api/reservations/{id}/{verb}"), None).await.ok();
        }
        let again = server.post_with(HOLD, body(600), Some(&key)).await;
        assert_eq!(again.headers["idempotent-replayed"], "true");
        assert_eq!(again.ok(), server.get(&format!("/api/reservations/{id}")).await.ok());

        // As if the extension had ended after 1200 s exactly: a request for that time is another one.
        let mut connection = redis.connection().await;
        let record = keys::reservation(id);
        let created: u64 = cmd("HGET").arg(&record).arg("createdAt").query_async(&mut connection).await.unwrap();
        let expires = created + 1_200_000;
        cmd("HSET").arg(&record).arg("expiresAt").arg(expires).exec_async(&mut connection).await.unwrap();
        for other in [900, 1200, 1201] {
            let answer = server.post_with(HOLD, body(other), Some(&key)).await;
            answer.problem(422, "idempotency_key_reused");
        }
        server.post_with(HOLD, body(600), Some(&key)).await.ok();
    }
}

#[tokio::test]
async fn extensions_that_come_together_have_their_own_outcomes() {
    const HOLDS: usize = 60;
    let redis = RedisServer::start();
    let server = Arc::new(Stockhold::start(&redis));
    server.seed("tea", HOLDS as u64).await;
    server.seed("cup", HOLDS as u64).await;
    let mut requests = JoinSet::new();
    for turn in 0..HOLDS {
        let server = Arc::clone(&server);
        requests.spawn(async move {
            let id = server.held(["tea", "cup"][turn % 2], 1).await;
            if turn % 3 == 0 {
                server.release(&id).await.ok();
                extend(&server, &id, 900).await.problem(409, "reservation_not_active");
            } else if turn % 3 == 1 {
                extend(&server, &id, 4000).await.problem(409, "extension_limit_reached");
            } else {
                let record = extend(&server, &id, 900).await.ok();
                assert_eq!(record["reservationId"], id);
                assert_eq!(ms(&record["expiresAt"]), ms(&record["updatedAt"]) + 900_000);
            }
        });
    }
    requests.join_all().await;
    assert_invariants(&mut redis.connection().await, History::Whole).await;
}
