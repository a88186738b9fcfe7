//! A confirm with a choice: a part is bought, or the money came too late.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::sleep;

use crate::support::invariants::{History, assert_invariants};
use crate::support::redis_server::RedisServer;
use crate::support::snapshot::Snapshot;
use crate::support::stockhold::{Answer, Stockhold};

/// No sweep within a test: only a request sweeps.
const NO_SWEEPER: [&str; 2] = ["--sweep-interval-ms", "60000"];

async fn confirm(server: &Stockhold, id: &str, body: Value, key: Option<&str>) -> Answer {
    server.post_with(&format!("/api/reservations/{id}/confirm"), body, key).await
}

fn late() -> Value {
    json!({ "ifExpired": "reacquire" })
}

fn is_replay(answer: &Answer) -> bool {
    answer.headers.get("idempotent-replayed").is_some_and(|value| value == "true")
}

/// Event, quantity and reason, the newest first.
async fn told(server: &Stockhold, count: usize) -> Vec<String> {
    let word = |event: &Value, name| event.get(name).map_or(String::new(), |value| value.to_string().replace('"', ""));
    let events = server.events("tea", count).await;
    events.iter().map(|event| ["event", "quantity", "reason"].map(|name| word(event, name)).join(" ")).collect()
}

#[tokio::test]
async fn a_part_is_bought() {
    let redis = RedisServer::start();
    let server = Stockhold::start(&redis);
    server.seed("tea", 9).await;
    let id = server.held("tea", 5).await;
    let sold = confirm(&server, &id, json!({ "quantity": 2 }), Some("pay")).await.ok();
    assert_eq!((&sold["quantity"], &sold["state"], sold.get("reason")), (&json!(2), &json!("confirmed"), None));
    assert_eq!(server.counts("tea").await, [7, 0, 2]);
    assert_eq!(told(&server, 2).await, ["confirm 2 ", "change 2 partial_confirm"]);
    let record = server.get(&format!("/api/reservations/{id}")).await.ok();
    assert_eq!((&record["quantity"], &record["initialQuantity"]), (&json!(2), &json!(5)));

    for body in [json!({ "quantity": 2 }), json!({})] {
        let again = confirm(&server, &id, body, Some("pay")).await;
        assert!(is_replay(&again));
        assert_eq!(again.ok(), sold);
    }
    confirm(&server, &id, json!({ "quantity": 3 }), Some("pay")).await.problem(422, "idempotency_key_reused");
    confirm(&server, &id, json!({ "quantity": 2 }), None).await.problem(409, "reservation_not_active");
    assert_invariants(&mut redis.connection().await, History::Whole).await;
}

#[tokio::test]
async fn the_money_came_too_late_and_the_units_are_still_there() {
    let redis = RedisServer::start();
    let server = Stockhold::start_with(&redis, &NO_SWEEPER);
    server.seed("tea", 9).await;
    let (one, other) = (server.held_for("tea", 3, 1).await, server.held_for("tea", 2, 1).await);
    sleep(Duration::from_millis(1050)).await;
    // Nobody has swept the first; a confirm has expired the second.
    confirm(&server, &other, json!({}), Some("pay")).await.problem(409, "reservation_not_active");
    let sold = confirm(&server, &one, late(), Some("pay")).await.ok();
    assert_eq!([&sold["state"], &sold["reason"]], ["confirmed", "late_confirm"]);
    assert_eq!(told(&server, 2).await, ["confirm 3 late_confirm", "expired 3 reservation_ttl_elapsed"]);
    let part = json!({ "quantity": 1, "ifExpired": "reacquire" });
    assert_eq!(confirm(&server, &other, part, Some("pay")).await.ok()["quantity"], 1);
    assert_eq!(server.counts("tea").await, [5, 0, 4]);

    // A repeat, with the choice or without it.
    for body in [late(), json!({})] {
        let again = confirm(&server, &one, body, Some("pay")).await;
        assert!(is_replay(&again));
        assert_eq!(again.ok(), sold);
    }
    let problem = confirm(&server, &one, late(), None).await.problem(409, "reservation_not_active");
    assert_eq!([&problem["state"], &problem["reason"]], ["confirmed", "late_confirm"]);
    let back = json!({ "quantity": 3, "restock": true });
    assert_eq!(server.post(&format!("/api/reservations/{one}/return"), back).await.ok()["returned"], 3);
    assert_invariants(&mut redis.connection().await, History::Whole).await;
}

/// It is sold only if nobody else has its units; those of other lapsed holds are swept first.
#[tokio::test]
async fn the_units_of_a_late_sale_may_be_gone() {
    const OTHERS: u64 = 40;
    let redis = RedisServer::start();
    let server = Stockhold::start_with(&redis, &NO_SWEEPER);
    server.seed("tea", OTHERS).await;
    let id = server.held_for("tea", OTHERS, 1).await;
    sleep(Duration::from_millis(1050)).await;
    server.confirm(&id).await.problem(409, "reservation_not_active");
    for _ in 0..OTHERS {
        server.held_for("tea", 1, 4).await;
    }
    let problem = confirm(&server, &id, late(), Some("pay")).await.problem(409, "insufficient_inventory");
    assert_eq!((&problem["requested"], &problem["available"]), (&json!(OTHERS), &json!(0)));
    let one = json!({ "quantity": 1, "ifExpired": "reacquire" });
    let problem = confirm(&server, &id, one, Some("pay")).await.problem(409, "insufficient_inventory");
    assert_eq!(problem["requested"], 1);
    sleep(Duration::from_millis(4050)).await;
    assert_eq!(confirm(&server, &id, late(), Some("pay")).await.ok()["reason"], "late_confirm");
    assert_eq!(server.counts("tea").await, [0, 0, OTHERS]);
    assert_invariants(&mut redis.connection().await, History::Whole).await;
}

#[tokio::test]
async fn refusals_change_nothing_and_say_why() {
    let redis = RedisServer::start();
    let server = Stockhold::start_with(&redis, &NO_SWEEPER);
    server.seed("tea", 9).await;
    let (id, given_up) = (server.held("tea", 2).await, server.held("tea", 1).await);
    server.release(&given_up).await.ok();
    let mut connection = redis.connection().await;
    let before = Snapshot::take(&mut connection).await;
    let problem = confirm(&server, &id, json!({ "quantity": 3 }), Some("k")).await.problem(409, "exceeds_reservation");
    assert_eq!(problem["quantity"], 2);
    let problem = confirm(&server, &given_up, late(), None).await.problem(409, "reservation_not_active");
    assert_eq!(problem["reason"], "manual_release");
    let nobody = "018f0000-0000-8abc-8000-00000000000a";
    confirm(&server, nobody, late(), None).await.problem(404, "unknown_reservation");
    assert_eq!(before.changed(&Snapshot::take(&mut connection).await), Vec::<String>::new());
    assert_eq!(confirm(&server, &id, json!({ "quantity": 2 }), Some("k")).await.ok()["quantity"], 2);
}

#[tokio::test]
async fn without_the_choice_what_has_lapsed_is_not_sold() {
    let redis = RedisServer::start();
    let server = Stockhold::start_with(&redis, &NO_SWEEPER);
    server.seed("tea", 9).await;
    let id = server.held_for("tea", 2, 1).await;
    sleep(Duration::from_millis(1050)).await;
    for _ in 0..2 {
        let problem =
            confirm(&server, &id, json!({ "quantity": 1 }), None).await.problem(409, "reservation_not_active");
        assert_eq!(problem["reason"], "reservation_ttl_elapsed");
    }
    assert_eq!(server.counts("tea").await, [9, 0, 0]);
}

/// A hold is the same request after its units were sold, in part or late.
#[tokio::test]
async fn a_hold_is_replayed_after_its_sale() {
    let redis = RedisServer::start();
    let server = Stockhold::start_with(&redis, &NO_SWEEPER);
    server.seed("tea", 9).await;
    let order = json!({ "cartId": "cart-1", "sku": "tea", "quantity": 3, "ttlSeconds": 1 });
    let hold = async |key| server.post_with("/api/reservations/hold", order.clone(), Some(key)).await;
    let id = hold("order").await.ok()["reservationId"].as_str().unwrap().to_owned();
    sleep(Duration::from_millis(1050)).await;
    let part = json!({ "quantity": 2, "ifExpired": "reacquire" });
    let sold = confirm(&server, &id, part, None).await.ok();
    let again = hold("order").await;
    assert!(is_replay(&again));
    assert_eq!(again.ok(), sold);
}
