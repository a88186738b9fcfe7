//! Many requests at once: nothing is sold twice and nothing is lost.

use std::collections::HashMap;

use serde_json::{Value, json};
use tokio::task::JoinSet;

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
