//! A hold holds more units, or fewer: the customer changes the cart.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::sleep;

use crate::support::invariants::{History, assert_invariants};
use crate::support::redis_server::RedisServer;
use crate::support::snapshot::Snapshot;
use crate::support::stockhold::{Answer, Stockhold};

const HOLD: &str = "/api/reservations/hold";

/// No sweep within a test: only a request sweeps.
const NO_SWEEPER: [&str; 2] = ["--sweep-interval-ms", "60000"];

async fn ask(server: &Stockhold, verb: &str, id: &str, quantity: u64, key: Option<&str>) -> Answer {
    server.post_with(&format!("/api/reservations/{id}/{verb}"), json!({ "quantity": quantity }), key).await
}

async fn change(server: &Stockhold, id: &str, quantity: u64) -> Answer {
    ask(server, "change", id, quantity, None).await
}

async fn record(server: &Stockhold, id: &str) -> Value {
    server.get(&format!("/api/reservations/{id}")).await.ok()
}

fn is_replay(answer: &Answer) -> bool {
    answer.headers.get("idempotent-replayed").is_some_and(|value| value == "true")
}

#[tokio::test]
async fn the_customer_takes_three_and_then_one() {
    let redis = RedisServer::start();
    let server = Stockhold::start(&redis);
    server.seed("tea", 5).await;
    let id = server.held("tea", 2).await;
    let held = record(&server, &id).await;
    assert_eq!(held.get("initialQuantity"), None);

    let changed = change(&server, &id, 3).await.ok();
    let mut expected = held.clone();
    expected["quantity"] = json!(3);
    expected["updatedAt"] = changed["updatedAt"].clone();
    assert_eq!(changed, expected, "nothing else differs");
    assert_eq!(server.counts("tea").await, [2, 3, 0]);
    assert_eq!(change(&server, &id, 1).await.ok()["quantity"], 1);
    assert_eq!(server.counts("tea").await, [4, 1, 0]);
    let now = record(&server, &id).await;
    assert_eq!((&now["quantity"], &now["initialQuantity"]), (&json!(1), &json!(2)));
    let listed = server.get("/api/reservations?sku=tea").await.ok();
    assert_eq!(listed["items"][0], now);

    assert_eq!(server.confirm(&id).await.ok()["quantity"], 1);
    assert_eq!(server.counts("tea").await, [4, 0, 1]);
    let events = server.events("tea", 10).await;
    let told: Vec<_> =
        events.iter().map(|event| (event["event"].as_str().unwrap(), event["quantity"].as_u64())).collect();
    let one = |event, quantity| (event, Some(quantity));
    assert_eq!(told, [one("confirm", 1), one("change", 1), one("change", 3), one("hold", 2), one("seed", 5)]);
    assert_invariants(&mut redis.connection().await, History::Whole).await;
}

/// The same quantity is the same request: a repeat needs no key, and with one it is told.
#[tokio::test]
async fn a_repeated_change_does_nothing() {
    let redis = RedisServer::start();
    let server = Stockhold::start(&redis);
    server.seed("tea", 5).await;
    let id = server.held("tea", 2).await;
    let first = change(&server, &id, 4).await.ok();
    assert_eq!(change(&server, &id, 4).await.ok(), first);
    assert_eq!(server.events("tea", 10).await.len(), 3);

    let keyed = ask(&server, "change", &id, 1, Some("k")).await;
    assert!(!is_replay(&keyed));
    let again = ask(&server, "change", &id, 1, Some("k")).await;
    assert!(is_replay(&again));
    assert_eq!((keyed.ok()["quantity"].clone(), again.ok()["quantity"].clone()), (json!(1), json!(1)));
    ask(&server, "change", &id, 2, Some("k")).await.problem(422, "idempotency_key_reused");
    ask(&server, "release", &id, 1, Some("k")).await.problem(422, "idempotency_key_reused");
    // Of another reservation, the same key is another operation.
    let other = server.held("tea", 1).await;
    assert_eq!(ask(&server, "change", &other, 2, Some("k")).await.ok()["quantity"], 2);
}

#[tokio::test]
async fn a_part_is_released_once_with_a_key_and_each_time_without() {
    let redis = RedisServer::start();
    let server = Stockhold::start_with(&redis, &NO_SWEEPER);
    server.seed("tea", 9).await;
    let id = server.held_for("tea", 8, 4).await;
    for turn in 0..3 {
        let answer = ask(&server, "release", &id, 3, Some("back")).await;
        assert_eq!((is_replay(&answer), answer.ok()["quantity"].clone()), (turn > 0, json!(5)));
    }
    for left in [3, 1] {
        let answer = ask(&server, "release", &id, 2, None).await.ok();
        assert_eq!((&answer["quantity"], &answer["state"]), (&json!(left), &json!("active")));
        assert_eq!(answer.get("reason"), None);
    }
    let event = &server.events("tea", 1).await[0];
    assert_eq!([&event["event"], &event["reason"]], ["change", "partial_release"]);
    let problem = ask(&server, "release", &id, 2, Some("too-many")).await.problem(409, "exceeds_reservation");
    assert_eq!((&problem["title"], &problem["quantity"]), (&json!("Quantity exceeds reservation"), &json!(1)));

    // A replay shows the reservation as it is now: this one has lapsed, and nobody has swept it.
    sleep(Duration::from_millis(4050)).await;
    let replayed = ask(&server, "release", &id, 3, Some("back")).await;
    assert!(is_replay(&replayed));
    assert_eq!(replayed.ok()["reason"], "reservation_ttl_elapsed");
    assert_eq!(server.counts("tea").await, [9, 0, 0]);
    assert_invariants(&mut redis.connection().await, History::Whole).await;
}

#[tokio::test]
async fn all_units_released_one_by_one_or_without_a_quantity_end_it() {
    let redis = RedisServer::start();
    let server = Stockhold::start(&redis);
    server.seed("tea", 9).await;
    let (one, other) = (server.held("tea", 2).await, server.held("tea", 2).await);
    ask(&server, "release", &one, 1, None).await.ok();
    let done = ask(&server, "release", &one, 1, Some("k")).await.ok();
    assert_eq!([&done["state"], &done["reason"]], ["released", "manual_release"]);
    assert!(is_replay(&ask(&server, "release", &one, 1, Some("k")).await));
    ask(&server, "release", &one, 1, None).await.problem(409, "reservation_not_active");

    ask(&server, "release", &other, 1, None).await.ok();
    let path = format!("/api/reservations/{other}/release");
    for turn in 0..2 {
        let all = server.post_with(&path, json!({}), Some("all")).await;
        assert_eq!(is_replay(&all), turn > 0, "as ever");
        assert_eq!(all.ok()["quantity"], 1);
    }
    assert_eq!(server.counts("tea").await, [9, 0, 0]);
    assert_invariants(&mut redis.connection().await, History::Whole).await;
}

#[tokio::test]
async fn refusals_change_nothing_and_say_why() {
    let redis = RedisServer::start();
    let server = Stockhold::start_with(&redis, &NO_SWEEPER);
    server.seed("tea", 5).await;
    let (id, sold) = (server.held("tea", 2).await, server.held("tea", 1).await);
    server.confirm(&sold).await.ok();
    let mut connection = redis.connection().await;
    let before = Snapshot::take(&mut connection).await;
    // Two are there, and the two that it holds do not count as missing.
    let problem = ask(&server, "change", &id, 5, Some("k")).await.problem(409, "insufficient_inventory");
    assert_eq!((&problem["requested"], &problem["available"]), (&json!(5), &json!(2)));
    for verb in ["change", "release"] {
        ask(&server, verb, &sold, 1, None).await.problem(409, "reservation_not_active");
        let nobody = "018f0000-0000-8abc-8000-00000000000a";
        ask(&server, verb, nobody, 1, None).await.problem(404, "unknown_reservation");
    }
    assert_eq!(before.changed(&Snapshot::take(&mut connection).await), Vec::<String>::new());
    assert_eq!(ask(&server, "change", &id, 4, Some("k")).await.ok()["quantity"], 4);
}

/// A refusal for lack of units comes only after everything that has lapsed was swept.
#[tokio::test]
async fn units_of_lapsed_holds_are_swept_first() {
    const HOLDS: u64 = 60;
    let redis = RedisServer::start();
    let server = Stockhold::start_with(&redis, &NO_SWEEPER);
    server.seed("tea", HOLDS + 1).await;
    let id = server.held("tea", 1).await;
    for _ in 0..HOLDS {
        server.held_for("tea", 1, 1).await;
    }
    let problem = change(&server, &id, 2).await.problem(409, "insufficient_inventory");
    assert_eq!(problem["available"], 0);
    sleep(Duration::from_millis(1050)).await;
    change(&server, &id, HOLDS + 2).await.problem(409, "insufficient_inventory");
    assert_eq!(change(&server, &id, HOLDS + 1).await.ok()["quantity"], HOLDS + 1);
    assert_invariants(&mut redis.connection().await, History::Whole).await;
}

#[tokio::test]
async fn what_has_lapsed_is_not_changed() {
    let redis = RedisServer::start();
    let server = Stockhold::start_with(&redis, &NO_SWEEPER);
    server.seed("tea", 5).await;
    for verb in ["change", "release"] {
        let id = server.held_for("tea", 1, 1).await;
        sleep(Duration::from_millis(1050)).await;
        for _ in 0..2 {
            let problem = ask(&server, verb, &id, 1, None).await.problem(409, "reservation_not_active");
            assert_eq!([&problem["state"], &problem["reason"]], ["released", "reservation_ttl_elapsed"]);
        }
        // The call expired it: no sweep did.
        assert_eq!(server.events("tea", 1).await[0]["event"], "expired");
    }
}

/// The same hold again is the same request, whatever it was changed to since.
#[tokio::test]
async fn a_hold_is_replayed_after_a_change() {
    let redis = RedisServer::start();
    let server = Stockhold::start(&redis);
    server.seed("tea", 9).await;
    let body = |quantity: u64| json!({ "cartId": "cart-1", "sku": "tea", "quantity": quantity });
    let held = server.post_with(HOLD, body(2), Some("order")).await.ok();
    let id = held["reservationId"].as_str().unwrap();
    change(&server, id, 5).await.ok();
    for settled in [false, true] {
        if settled {
            server.confirm(id).await.ok();
        }
        let again = server.post_with(HOLD, body(2), Some("order")).await;
        assert!(is_replay(&again));
        assert_eq!(again.ok()["quantity"], 5);
        for other in [1, 5] {
            server.post_with(HOLD, body(other), Some("order")).await.problem(422, "idempotency_key_reused");
        }
    }
}
