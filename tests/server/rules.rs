//! Rules of a SKU: a limit for each cart, units that are kept back, a longest hold.

use std::sync::Arc;
use std::time::Duration;

use hyper::Request;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::support::invariants::{History, assert_invariants};
use crate::support::redis_server::RedisServer;
use crate::support::snapshot::Snapshot;
use crate::support::stockhold::{Answer, Stockhold};

const HOLD: &str = "/api/reservations/hold";

async fn rule(server: &Stockhold, sku: &str, rules: Value) -> Answer {
    let request = Request::put(server.url(&format!("/api/inventory/{sku}/rules")));
    server.send(request.header("content-type", "application/json"), rules.to_string().into()).await
}

async fn hold(server: &Stockhold, cart: &str, sku: &str, quantity: u64) -> Answer {
    server.post(HOLD, json!({ "cartId": cart, "sku": sku, "quantity": quantity })).await
}

#[tokio::test]
async fn they_are_set_as_a_whole_and_shown() {
    let redis = RedisServer::start();
    let server = Stockhold::start(&redis);
    server.seed("tea", 9).await;
    let rules = json!({ "perCart": 4, "safetyStock": 2, "maxTtlSeconds": 900 });
    let set = rule(&server, "tea", rules.clone()).await.ok();
    assert_eq!((&set["rules"], &set["version"], &set["available"]), (&rules, &json!(2), &json!(9)));
    assert_eq!(server.get("/api/inventory/tea").await.ok()["rules"], rules);
    assert_eq!(rule(&server, "tea", rules.clone()).await.ok()["version"], 2, "the same rules change nothing");
    assert_eq!(server.events("tea", 1).await[0]["event"], "rules");
    server.seed("tea", 7).await;
    assert_eq!(server.get("/api/inventory/tea").await.ok()["rules"], rules, "a seed keeps them");
    let set = rule(&server, "tea", json!({ "safetyStock": 1 })).await.ok();
    assert_eq!(set["rules"], json!({ "safetyStock": 1 }));
    let set = rule(&server, "tea", json!({})).await.ok();
    assert_eq!(set.get("rules"), None);
    assert_eq!(server.get("/api/inventory/tea").await.ok().get("rules"), None);
    assert_invariants(&mut redis.connection().await, History::Whole).await;
}

#[tokio::test]
async fn bad_rules_are_named_and_change_nothing() {
    let redis = RedisServer::start();
    let server = Stockhold::start(&redis);
    server.seed("tea", 9).await;
    let mut connection = redis.connection().await;
    let before = Snapshot::take(&mut connection).await;
    rule(&server, "nil", json!({ "perCart": 1 })).await.problem(404, "unknown_sku");
    for (field, most) in [("perCart", 1_000_000_000u64), ("safetyStock", 1_000_000_000), ("maxTtlSeconds", 2_592_000)] {
        for value in
            [json!(0), json!(most + 1), json!(-1), json!(1.5), json!("4"), json!(null), json!([1]), json!(true)]
        {
            let problem = rule(&server, "tea", json!({ field: value })).await.problem(400, "invalid_request");
            let expected = json!([{ "field": field, "detail": format!("must be a whole number from 1 to {most}") }]);
            assert_eq!(problem["errors"], expected, "{value}");
        }
    }
    let problem = rule(&server, "tea", json!({ "perCart": 0, "percart": 1 })).await.problem(400, "invalid_request");
    assert_eq!(problem["errors"].as_array().unwrap().len(), 2);
    assert!(before.changed(&Snapshot::take(&mut connection).await).is_empty());
}

/// One shopper cannot take the whole drop, whatever the way: alone, as a cart, by a change, late.
#[tokio::test]
async fn a_cart_gets_no_more_than_the_rules_allow() {
    let redis = RedisServer::start();
    let server = Stockhold::start_with(&redis, &["--sweep-interval-ms", "60000"]);
    server.seed("tea", 100).await;
    server.seed("cup", 100).await;
    rule(&server, "tea", json!({ "perCart": 4 })).await.ok();

    let first = hold(&server, "a", "tea", 3).await.ok();
    let id = first["reservationId"].as_str().unwrap();
    let limit = hold(&server, "a", "tea", 2).await.problem(409, "cart_limit_reached");
    assert_eq!([&limit["perCart"], &limit["inCart"], &limit["requested"]], [4, 3, 2].map(|n| json!(n)).each_ref());
    // Alone with metadata, and the cart lists it.
    let noted = json!({ "cartId": "a", "sku": "tea", "quantity": 1, "metadata": { "order": "A-17" } });
    assert_eq!(server.post(HOLD, noted.clone()).await.ok()["metadata"], noted["metadata"]);
    assert_eq!(server.get("/api/carts/a").await.ok()["reservations"].as_array().unwrap().len(), 2);
    let cart = json!({ "items": [{ "sku": "cup", "quantity": 1 }, { "sku": "tea", "quantity": 1 }] });
    let problem = server.post("/api/carts/a/hold", cart.clone()).await.problem(409, "cart_limit_reached");
    let line = json!({ "sku": "tea", "requested": 1, "perCart": 4, "inCart": 4, "code": "cart_limit_reached" });
    assert_eq!(problem["errors"], json!([line]));
    let change = format!("/api/reservations/{id}/change");
    let problem = server.post(&change, json!({ "quantity": 4 })).await.problem(409, "cart_limit_reached");
    assert_eq!([&problem["inCart"], &problem["requested"]], [&json!(1), &json!(4)]);
    server.post(&change, json!({ "quantity": 1 })).await.ok();
    assert_eq!(server.post("/api/carts/a/hold", cart).await.ok()["reservations"].as_array().unwrap().len(), 2);
    // What is sold counts, and what came back does not.
    let sold = server.post("/api/carts/a/confirm", json!({})).await.ok();
    assert_eq!(sold["reservations"].as_array().unwrap().len(), 4);
    let limit = hold(&server, "a", "tea", 2).await.problem(409, "cart_limit_reached");
    assert_eq!(limit["inCart"], 3);
    server.post(&format!("/api/reservations/{id}/return"), json!({ "quantity": 1, "restock": true })).await.ok();
    hold(&server, "a", "tea", 2).await.ok();
    // Too late, and the cart has held others since.
    let short = json!({ "cartId": "b", "sku": "tea", "quantity": 3, "ttlSeconds": 1 });
    let late = server.post(HOLD, short).await.ok();
    sleep(Duration::from_millis(1100)).await;
    hold(&server, "b", "tea", 2).await.ok();
    let confirm = format!("/api/reservations/{}/confirm", late["reservationId"].as_str().unwrap());
    let sale = |quantity: u64| json!({ "quantity": quantity, "ifExpired": "reacquire" });
    let problem = server.post(&confirm, sale(3)).await.problem(409, "cart_limit_reached");
    assert_eq!([&problem["perCart"], &problem["inCart"]], [&json!(4), &json!(2)]);
    assert_eq!(server.post(&confirm, sale(2)).await.ok()["reason"], "late_confirm");
    assert_invariants(&mut redis.connection().await, History::Whole).await;
}

/// A key makes a hold safe to repeat, before the rule and after it.
#[tokio::test]
async fn a_repeat_is_the_same_hold_whatever_the_rules_say_by_then() {
    let redis = RedisServer::start();
    let server = Stockhold::start(&redis);
    server.seed("tea", 100).await;
    let ask = async |key: &str, quantity: u64| {
        let body = json!({ "cartId": "a", "sku": "tea", "quantity": quantity });
        server.post_with(HOLD, body, Some(key)).await
    };
    let before = ask("before", 9).await.ok();
    rule(&server, "tea", json!({ "perCart": 4, "maxTtlSeconds": 60 })).await.ok();
    assert_eq!(ask("before", 9).await.ok(), before);
    let held = ask("after", 4).await.ok();
    let again = ask("after", 4).await;
    assert_eq!(again.headers["idempotent-replayed"], "true");
    assert_eq!(again.ok(), held);
    ask("after", 3).await.problem(422, "idempotency_key_reused");
    ask("more", 1).await.problem(409, "cart_limit_reached");
    assert_eq!(server.counts("tea").await, [87, 13, 0]);
}

#[tokio::test]
async fn kept_units_are_shown_and_never_held_and_no_hold_is_longer_than_allowed() {
    let redis = RedisServer::start();
    let server = Stockhold::start(&redis);
    server.seed("tea", 5).await;
    rule(&server, "tea", json!({ "safetyStock": 2, "maxTtlSeconds": 60 })).await.ok();
    let problem = hold(&server, "a", "tea", 4).await.problem(409, "insufficient_inventory");
    assert_eq!([&problem["available"], &problem["requested"]], [&json!(3), &json!(4)]);
    let long = json!({ "cartId": "a", "sku": "tea", "quantity": 1, "ttlSeconds": 61 });
    assert_eq!(server.post(HOLD, long).await.problem(409, "hold_too_long")["maxTtlSeconds"], 60);
    let cart = json!({ "items": [{ "sku": "tea", "quantity": 1 }], "ttlSeconds": 61 });
    let problem = server.post("/api/carts/a/hold", cart).await.problem(409, "hold_too_long");
    let line = json!({ "sku": "tea", "requested": 1, "maxTtlSeconds": 60, "code": "hold_too_long" });
    assert_eq!(problem["errors"], json!([line]));
    // Left open, it lasts as long as it may.
    let held = hold(&server, "a", "tea", 3).await.ok();
    let [created, expires] =
        ["createdAt", "expiresAt"].map(|time| held[time].as_str().unwrap().parse::<jiff::Timestamp>().unwrap());
    assert_eq!((expires - created).total(jiff::Unit::Second).unwrap(), 60.0);
    hold(&server, "b", "tea", 1).await.problem(409, "insufficient_inventory");
    assert_eq!(server.counts("tea").await, [2, 3, 0]);
    let extend = format!("/api/reservations/{}/extend", held["reservationId"].as_str().unwrap());
    let problem = server.post(&extend, json!({ "ttlSeconds": 61 })).await.problem(409, "extension_limit_reached");
    assert_eq!(problem["maxExpiresAt"], held["expiresAt"]);
}

/// 60 requests of 6 carts at once, alone and as carts: each cart gets what it may have, and no unit more.
#[tokio::test]
async fn carts_that_ask_at_once_get_what_they_may_have() {
    let redis = RedisServer::start();
    let server = Arc::new(Stockhold::start(&redis));
    server.seed("tea", 20).await;
    rule(&server, "tea", json!({ "perCart": 3, "safetyStock": 4 })).await.ok();
    let mut asking = JoinSet::new();
    for n in 0..60 {
        let (server, cart) = (Arc::clone(&server), format!("cart-{}", n % 6));
        asking.spawn(async move {
            if n % 2 == 0 {
                hold(&server, &cart, "tea", 1).await
            } else {
                let items = json!({ "items": [{ "sku": "tea", "quantity": 1 }] });
                server.post(&format!("/api/carts/{cart}/hold"), items).await
            }
        });
    }
    let mut held = 0;
    while let Some(answer) = asking.join_next().await {
        let answer = answer.unwrap();
        held += u64::from(answer.status == 200);
        assert!([200, 409].contains(&answer.status.as_u16()), "{answer:?}");
    }
    assert_eq!((held, server.counts("tea").await), (16, [4, 16, 0]));
    for n in 0..6 {
        let cart = server.get(&format!("/api/carts/cart-{n}")).await;
        let units = if cart.status == 404 { 0 } else { cart.ok()["reservations"].as_array().unwrap().len() };
        assert!(units <= 3, "cart-{n} has {units}");
    }
    assert_invariants(&mut redis.connection().await, History::Whole).await;
}
