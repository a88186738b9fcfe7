//! What was sold comes back, and never more of it.

use std::sync::Arc;

use redis::cmd;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::support::invariants::{History, assert_invariants};
use crate::support::keys;
use crate::support::redis_server::RedisServer;
use crate::support::snapshot::Snapshot;
use crate::support::stockhold::{Answer, Stockhold};

async fn take_back(server: &Stockhold, id: &str, body: Value, key: Option<&str>) -> Answer {
    server.post_with(&format!("/api/reservations/{id}/return"), body, key).await
}

fn units(quantity: u64, restock: bool) -> Value {
    json!({ "quantity": quantity, "restock": restock })
}

fn is_replay(answer: &Answer) -> bool {
    answer.headers.get("idempotent-replayed").is_some_and(|value| value == "true")
}

/// Sells, and returns the reservation's id.
async fn sold(server: &Stockhold, sku: &str, quantity: u64) -> String {
    let id = server.held(sku, quantity).await;
    server.confirm(&id).await.ok();
    id
}

async fn record(server: &Stockhold, id: &str) -> Value {
    server.get(&format!("/api/reservations/{id}")).await.ok()
}

#[tokio::test]
async fn three_jackets_are_sold_and_two_come_back_one_of_them_torn() {
    let redis = RedisServer::start();
    let server = Stockhold::start(&redis);
    server.seed("jacket", 5).await;
    let id = sold(&server, "jacket", 3).await;
    let sale = record(&server, &id).await;
    assert_eq!((sale.get("returned"), sale.get("confirmedAt")), (None, None));

    let back = take_back(&server, &id, units(1, true), None).await.ok();
    assert_eq!(server.counts("jacket").await, [3, 0, 2]);
    let mut expected = sale.clone();
    (expected["returned"], expected["updatedAt"]) = (json!(1), back["updatedAt"].clone());
    assert_eq!(back, expected, "nothing else differs");

    let torn = take_back(&server, &id, units(1, false), None).await.ok();
    assert_eq!((&torn["returned"], &torn["quantity"], &torn["state"]), (&json!(2), &json!(3), &json!("confirmed")));
    assert_eq!(server.counts("jacket").await, [3, 0, 1]);
    let now = record(&server, &id).await;
    assert_eq!((&now["returned"], &now["confirmedAt"]), (&json!(2), &sale["updatedAt"]));
    assert_eq!(now["updatedAt"], torn["updatedAt"]);

    let events = server.events("jacket", 2).await;
    let told =
        |event: &Value| ["event", "reservationId", "quantity", "state", "reason"].map(|name| event[name].clone());
    let returned = |reason| [json!("return"), json!(id), json!(1), json!("confirmed"), json!(reason)];
    assert_eq!([told(&events[0]), told(&events[1])], [returned("written_off"), returned("restocked")]);
    assert_invariants(&mut redis.connection().await, History::Whole).await;
}

#[tokio::test]
async fn refusals_change_nothing_and_say_why() {
    let redis = RedisServer::start();
    let server = Stockhold::start(&redis);
    server.seed("sku", 9).await;
    let id = sold(&server, "sku", 3).await;
    let (held, given_up) = (server.held("sku", 1).await, server.held("sku", 1).await);
    server.release(&given_up).await.ok();
    take_back(&server, &id, units(1, true), None).await.ok();
    let mut connection = redis.connection().await;
    let before = Snapshot::take(&mut connection).await;

    let problem = take_back(&server, &id, units(3, true), Some("k")).await.problem(409, "exceeds_sale");
    assert_eq!((&problem["title"], &problem["returnable"]), (&json!("Return exceeds sale"), &json!(2)));
    assert_eq!(problem["requested"], 3);
    let problem = take_back(&server, &held, units(1, true), Some("k")).await.problem(409, "reservation_not_confirmed");
    assert_eq!((&problem["title"], &problem["state"]), (&json!("Reservation is not confirmed"), &json!("active")));
    assert_eq!(problem.get("reason"), None);
    let problem = take_back(&server, &given_up, units(1, true), None).await.problem(409, "reservation_not_confirmed");
    assert_eq!((&problem["state"], &problem["reason"]), (&json!("released"), &json!("manual_release")));
    let nobody = "018f0000-0000-8abc-8000-00000000000a";
    take_back(&server, nobody, units(1, true), Some("k")).await.problem(404, "unknown_reservation");
    assert_eq!(before.changed(&Snapshot::take(&mut connection).await), Vec::<String>::new());

    // What a seed no longer counts needs room.
    server.seed("sku", 9).await;
    let most = "1000000000000";
    let full = ["available", most, "seeded", most];
    cmd("HSET").arg(keys::inventory("sku")).arg(&full).exec_async(&mut connection).await.unwrap();
    take_back(&server, &id, units(1, true), None).await.problem(409, "excessive_inventory");
    take_back(&server, &id, units(1, false), None).await.ok();
}

#[tokio::test]
async fn every_field_is_needed_and_every_bad_one_is_named() {
    let redis = RedisServer::start();
    let server = Stockhold::start(&redis);
    server.seed("sku", 9).await;
    let id = sold(&server, "sku", 3).await;
    for (body, bad) in [
        (json!({}), &["quantity", "restock"][..]),
        (json!({ "quantity": 1 }), &["restock"]),
        (json!({ "restock": true }), &["quantity"]),
        (json!({ "quantity": 0, "restock": "true" }), &["quantity", "restock"]),
        (json!({ "quantity": 1_000_000_001, "restock": null }), &["quantity", "restock"]),
        (json!({ "quantity": 1.5, "restock": 1 }), &["quantity", "restock"]),
        (json!({ "quantity": 1, "restock": true, "sku": "sku" }), &["sku"]),
    ] {
        let problem = take_back(&server, &id, body, None).await.problem(400, "invalid_request");
        let named: Vec<_> =
            problem["errors"].as_array().unwrap().iter().map(|error| error["field"].as_str().unwrap()).collect();
        assert_eq!(named, bad);
    }
    take_back(&server, "x", units(1, true), None).await.problem(400, "invalid_request");
    assert_eq!(server.counts("sku").await, [6, 0, 3]);
}

#[tokio::test]
async fn one_key_is_one_return_of_a_sale() {
    let redis = RedisServer::start();
    let server = Stockhold::start(&redis);
    server.seed("sku", 9).await;
    let (id, other) = (sold(&server, "sku", 4).await, sold(&server, "sku", 2).await);
    let first = take_back(&server, &id, units(2, true), Some("parcel")).await;
    assert!(!is_replay(&first));
    take_back(&server, &id, units(1, true), Some("second-parcel")).await.ok();
    let again = take_back(&server, &id, units(2, true), Some("parcel")).await;
    assert!(is_replay(&again));
    assert_eq!(first.ok(), again.ok(), "what it left then");
    for (body, what) in [(units(1, true), "quantity"), (units(2, false), "restock")] {
        let problem = take_back(&server, &id, body, Some("parcel")).await.problem(422, "idempotency_key_reused");
        assert!(problem["detail"].as_str().unwrap().ends_with(what), "{problem}");
    }
    // The key says which return of this sale it is, and nothing about another sale.
    assert!(!is_replay(&take_back(&server, &other, units(2, true), Some("parcel")).await));
    assert_eq!(server.counts("sku").await, [8, 0, 1]);
    // Without a key, each repeat returns again, within what was sold.
    take_back(&server, &id, units(1, true), None).await.ok();
    let problem = take_back(&server, &id, units(1, true), None).await.problem(409, "exceeds_sale");
    assert_eq!(problem["returnable"], 0);
    assert_invariants(&mut redis.connection().await, History::Whole).await;
}

/// The record was dropped, and the key of its hold used again: what came back then was another sale.
#[tokio::test]
async fn a_key_of_an_earlier_sale_returns_nothing() {
    let redis = RedisServer::start();
    let server = Stockhold::start(&redis);
    let mut connection = redis.connection().await;
    server.seed("sku", 9).await;
    let order = async || {
        let body = json!({ "cartId": "cart-1", "sku": "sku", "quantity": 2 });
        let held = server.post_with("/api/reservations/hold", body, Some("order")).await.ok();
        let id = held["reservationId"].as_str().unwrap().to_owned();
        server.confirm(&id).await.ok();
        id
    };
    let id = order().await;
    take_back(&server, &id, units(1, true), Some("parcel")).await.ok();
    cmd("DEL").arg(keys::reservation(&id)).exec_async(&mut connection).await.unwrap();
    take_back(&server, &id, units(1, true), Some("parcel")).await.problem(404, "unknown_reservation");
    assert_eq!(order().await, id);
    let problem = take_back(&server, &id, units(1, true), Some("parcel")).await.problem(422, "idempotency_key_reused");
    assert!(problem["detail"].as_str().unwrap().ends_with("another sale"), "{problem}");
    take_back(&server, &id, units(2, true), Some("another-parcel")).await.ok();
}

/// A count anew does not know what was sold before: what comes back is on sale, and nobody else's sale is undone.
#[tokio::test]
async fn a_sale_before_a_seed_can_be_returned() {
    let redis = RedisServer::start();
    let server = Stockhold::start(&redis);
    server.seed("sku", 9).await;
    let old = sold(&server, "sku", 3).await;
    server.seed("sku", 6).await;
    sold(&server, "sku", 2).await;
    take_back(&server, &old, units(2, true), None).await.ok();
    take_back(&server, &old, units(1, false), None).await.ok();
    assert_eq!(server.counts("sku").await, [6, 0, 2]);
    let events = server.events("sku", 2).await;
    assert_eq!([&events[0]["reason"], &events[1]["reason"]], ["written_off_after_seed", "restocked_after_seed"]);
    assert_invariants(&mut redis.connection().await, History::Whole).await;
}

/// A crowd returns the same sale, with keys and without: as much comes back as was sold.
#[tokio::test]
async fn a_crowd_returns_no_more_than_was_sold() {
    const CROWD: usize = 40;
    let redis = RedisServer::start();
    let server = Arc::new(Stockhold::start(&redis));
    server.seed("sku", 30).await;
    let id = sold(&server, "sku", 25).await;
    let mut requests = JoinSet::new();
    for turn in 0..CROWD {
        let (server, id) = (Arc::clone(&server), id.clone());
        requests.spawn(async move {
            // Each key comes twice.
            let key = (turn % 4 > 0).then(|| format!("key-{}", turn / 2));
            let answer = take_back(&server, &id, units(2, turn % 8 > 3), key.as_deref()).await;
            if answer.status == 200 {
                return u64::from(!is_replay(&answer)) * 2;
            }
            answer.problem(409, "exceeds_sale");
            0
        });
    }
    let returned: u64 = requests.join_all().await.into_iter().sum();
    assert_eq!(record(&server, &id).await["returned"], returned);
    assert_eq!(returned, 24, "one unit is left, and everybody wants two");
    assert_invariants(&mut redis.connection().await, History::Whole).await;
}
