//! Many requests at once: nothing is sold twice and nothing is lost.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use redis::aio::MultiplexedConnection;
use redis::cmd;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::support::invariants::{History, assert_invariants};
use crate::support::keys;
use crate::support::redis_server::RedisServer;
use crate::support::stockhold::Stockhold;

#[tokio::test]
async fn three_hundred_buyers_and_fifty_units() {
    let redis = RedisServer::start();
    let server = std::sync::Arc::new(Stockhold::start(&redis));
    server.seed("hot", 50).await;

    let mut buyers = JoinSet::new();
    for buyer in 0..300 {
        let server = std::sync::Arc::clone(&server);
        buyers.spawn(async move {
            let body = json!({ "cartId": format!("cart-{buyer}"), "sku": "hot", "quantity": 1 });
            server.post("/api/reservations/hold", body).await
        });
    }
    let answers = buyers.join_all().await;
    let mut ids = Vec::new();
    let mut refused = 0;
    for answer in answers {
        if answer.status == 200 {
            ids.push(answer.body["reservationId"].as_str().unwrap().to_owned());
        } else {
            answer.problem(409, "insufficient_inventory");
            refused += 1;
        }
    }
    assert_eq!((ids.len(), refused), (50, 250));
    assert_eq!(server.counts("hot").await, [0, 50, 0]);

    // A confirm and a release compete for each: one succeeds, and the other is told which one did.
    let mut races = JoinSet::new();
    for id in ids.clone() {
        let server = std::sync::Arc::clone(&server);
        races.spawn(async move {
            let (confirmed, released) = tokio::join!(server.confirm(&id), server.release(&id));
            let won = (confirmed.status == 200, released.status == 200);
            let loser = match won {
                (true, false) => released.problem(409, "reservation_not_active"),
                (false, true) => confirmed.problem(409, "reservation_not_active"),
                _ => panic!("{id}: confirmed, released: {won:?}"),
            };
            assert_eq!(loser["state"], if won.0 { "confirmed" } else { "released" });
            won.0
        });
    }
    let confirmed = races.join_all().await.into_iter().filter(|&won| won).count() as u64;
    assert_eq!(server.counts("hot").await, [50 - confirmed, 0, confirmed]);

    // The audit agrees: for each reservation one hold and one end.
    let events = server.events("hot", 1000).await;
    assert_eq!(events.len(), 1 + 50 + 50);
    let mut stories: HashMap<&str, Vec<&Value>> = HashMap::new();
    for event in events.iter().rev().skip(1) {
        stories.entry(event["reservationId"].as_str().unwrap()).or_default().push(&event["event"]);
    }
    assert_eq!(stories.len(), 50);
    for (id, story) in stories {
        assert!(matches!(story.as_slice(), [hold, end] if *hold == "hold" && *end != "hold"), "{id}: {story:?}");
    }
}

/// The last unit, again and again, between buyers that release it.
#[tokio::test]
async fn the_last_unit_has_one_holder_at_a_time() {
    let redis = RedisServer::start();
    let server = std::sync::Arc::new(Stockhold::start(&redis));
    server.seed("last", 1).await;
    let mut buyers = JoinSet::new();
    for _ in 0..16 {
        let server = std::sync::Arc::clone(&server);
        buyers.spawn(async move {
            let mut held = 0;
            for _ in 0..20 {
                let body = json!({ "cartId": "cart", "sku": "last", "quantity": 1 });
                let answer = server.post("/api/reservations/hold", body).await;
                if answer.status == 200 {
                    held += 1;
                    server.release(answer.body["reservationId"].as_str().unwrap()).await.ok();
                } else {
                    answer.problem(409, "insufficient_inventory");
                }
            }
            held
        });
    }
    let held: usize = buyers.join_all().await.into_iter().sum();
    assert!(held > 0);
    assert_eq!(server.counts("last").await, [1, 0, 0]);
    // Replays the audit: after each event at most one unit is reserved, and there is no other unit.
    for event in server.events("last", 1000).await {
        let count = |name: &str| event[name].as_u64().unwrap();
        assert_eq!(count("available") + count("reserved"), 1, "{event}");
    }
}

/// In one shard: a part of it is nobody's, at no time.
static BASKET: LazyLock<[&str; 5]> = LazyLock::new(|| keys::in_one_shard(["apple", "bread", "cheese", "date", "egg"]));

/// The basket of a buyer. Every other buyer has it in the opposite order.
fn basket(buyer: usize) -> Vec<&'static str> {
    let mut basket = BASKET.to_vec();
    if buyer.is_multiple_of(2) {
        basket.reverse();
    }
    basket
}

fn line_id(buyer: usize, sku: &str) -> String {
    let place = BASKET.iter().position(|name| *name == sku).unwrap();
    format!("00000000-0000-8{:03x}-8000-{:012x}", keys::shard_of(sku).number, buyer * 16 + place)
}

/// Calls a script by its SHA-1 for the whole basket of a buyer, and returns the words of the replies.
async fn by_sha(
    redis: &mut MultiplexedConnection,
    script: &str,
    buyer: usize,
    ids: &[(String, String)],
    args: &[&str],
) -> Vec<String> {
    let sha1: String = cmd("HGET").arg("stockhold:scripts").arg(script).query_async(redis).await.unwrap();
    let any = BASKET[0];
    let mut keys = [keys::audit_of(any), keys::due_of(any), keys::settings_of(any)].map(str::to_owned).to_vec();
    if script == "cart_hold" {
        keys.extend([keys::cart_of(any, &format!("cart-{buyer}")), keys::new_operation_on(any)]);
    }
    for (sku, id) in ids {
        keys.extend([keys::inventory(sku), keys::active(sku), keys::reservation(id)]);
    }
    let mut call = cmd("EVALSHA");
    let replies: Vec<Vec<String>> =
        call.arg(sha1).arg(keys.len()).arg(keys).arg(args).query_async(redis).await.unwrap();
    replies.into_iter().map(|reply| reply[0].clone()).collect()
}

/// Whether the whole basket of a buyer was held, over HTTP or by SHA: part of it never is.
async fn holds_basket(server: &Stockhold, redis: &mut MultiplexedConnection, buyer: usize) -> bool {
    let basket = basket(buyer);
    if buyer.is_multiple_of(3) {
        let ids: Vec<_> = basket.iter().map(|sku| ((*sku).to_owned(), line_id(buyer, sku))).collect();
        let words = by_sha(redis, "cart_hold", buyer, &ids, &["once", "600000", "", "1", "1", "1", "1", "1"]).await;
        let is_held = words.iter().all(|word| word == "HELD");
        assert!(is_held || words.iter().all(|word| ["INSUFFICIENT", "WITHDRAWN"].contains(&&**word)), "{words:?}");
        return is_held;
    }
    let items: Vec<_> = basket.iter().map(|sku| json!({ "sku": sku, "quantity": 1 })).collect();
    let answer = server.post(&format!("/api/carts/cart-{buyer}/hold"), json!({ "items": items })).await;
    let is_held = answer.status == 200;
    if !is_held {
        answer.problem(409, "insufficient_inventory");
    }
    is_held
}

/// Nobody has half a basket, and nobody waits for somebody who waits for him.
#[tokio::test]
async fn three_hundred_carts_of_the_same_five_skus() {
    let redis = RedisServer::start();
    let server = Arc::new(Stockhold::start(&redis));
    // The date is what runs out.
    for (sku, units) in BASKET.iter().zip([60, 50, 70, 40, 50]) {
        server.seed(sku, units).await;
    }
    let connection = redis.connection().await;
    let mut buyers = JoinSet::new();
    for buyer in 0..300 {
        let (server, mut connection) = (Arc::clone(&server), connection.clone());
        buyers.spawn(async move { (buyer, holds_basket(&server, &mut connection, buyer).await) });
    }
    let outcomes: HashMap<usize, bool> = buyers.join_all().await.into_iter().collect();
    assert_eq!(outcomes.values().filter(|held| **held).count(), 40);
    for (sku, left) in BASKET.iter().zip([20, 10, 30, 0, 10]) {
        assert_eq!(server.counts(sku).await, [left, 40, 0], "{sku}");
    }

    // A confirm over HTTP and a release by SHA compete for each cart: one of them gets all of it.
    let mut races = JoinSet::new();
    for (buyer, is_held) in outcomes {
        let cart = server.get(&format!("/api/carts/cart-{buyer}")).await;
        if !is_held {
            cart.problem(404, "unknown_cart");
            continue;
        }
        let text = |record: &Value, name: &str| record[name].as_str().unwrap().to_owned();
        let records = cart.ok()["reservations"].as_array().unwrap().clone();
        let ids: Vec<_> = records.iter().map(|record| (text(record, "sku"), text(record, "reservationId"))).collect();
        assert_eq!(ids.len(), 5);
        let (server, mut connection) = (Arc::clone(&server), connection.clone());
        races.spawn(async move {
            let args = ["all", "token", "token", "token", "token", "token"];
            let confirm = format!("/api/carts/cart-{buyer}/confirm");
            let (confirmed, released) =
                tokio::join!(server.post(&confirm, None), by_sha(&mut connection, "release", buyer, &ids, &args),);
            let is_sold = confirmed.status == 200;
            if is_sold {
                assert_eq!(confirmed.ok()["reservations"].as_array().unwrap().len(), 5);
                assert_eq!(released, vec!["NOT_ACTIVE"; 5]);
            } else {
                let problem = confirmed.problem(409, "reservation_not_active");
                let errors = problem["errors"].as_array().unwrap();
                assert!(errors.len() == 5 && errors.iter().all(|line| line["reason"] == "manual_release"), "{problem}");
                assert_eq!(released, vec!["RELEASED"; 5]);
            }
            let cart = server.get(&format!("/api/carts/cart-{buyer}")).await.ok();
            let state = if is_sold { "confirmed" } else { "released" };
            let records = cart["reservations"].as_array().unwrap();
            assert!(records.iter().all(|record| record["state"] == state), "{cart}");
            is_sold
        });
    }
    let sold = races.join_all().await.into_iter().filter(|&sold| sold).count() as u64;
    for (sku, units) in BASKET.iter().zip([60, 50, 70, 40, 50]) {
        assert_eq!(server.counts(sku).await, [units - sold, 0, sold], "{sku}");
    }
    assert_invariants(&mut connection.clone(), History::Whole).await;
}
