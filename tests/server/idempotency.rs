//! A request with the same `Idempotency-Key` is the same request.

use std::sync::Arc;

use serde_json::{Value, json};
use stockhold::scripts::Catalogue;
use tokio::task::JoinSet;
use tokio::time::{Duration, sleep};

use crate::support::invariants::{History, assert_invariants};
use crate::support::keys;
use crate::support::redis_server::RedisServer;
use crate::support::stockhold::{Answer, Stockhold};

fn body(quantity: u64) -> Value {
    json!({ "cartId": "cart-1", "sku": "sku", "quantity": quantity })
}

fn is_replay(answer: &Answer) -> bool {
    answer.headers.get("idempotent-replayed").is_some_and(|value| value == "true")
}

#[tokio::test]
async fn one_hold_and_the_same_answer() {
    let redis = RedisServer::start();
    let server = Stockhold::start(&redis);
    server.seed("sku", 5).await;

    let first = server.post_with("/api/reservations/hold", body(2), Some("order-1")).await;
    assert!(!is_replay(&first));
    let again = server.post_with("/api/reservations/hold", body(2), Some("order-1")).await;
    assert!(is_replay(&again));
    assert_eq!(first.ok(), again.ok());
    assert_eq!(server.counts("sku").await, [3, 2, 0]);

    for other in [
        body(3),
        json!({ "cartId": "cart-2", "sku": "sku", "quantity": 2 }),
        json!({ "cartId": "cart-1", "sku": "sku", "quantity": 2, "ttlSeconds": 601 }),
    ] {
        server.post_with("/api/reservations/hold", other, Some("order-1")).await.problem(422, "idempotency_key_reused");
    }
    assert_eq!(server.counts("sku").await, [3, 2, 0]);
    server.post_with("/api/reservations/hold", body(2), Some("order-2")).await.ok();
    assert_eq!(server.counts("sku").await, [1, 4, 0]);
    // A key stands for a hold of its SKU: the same key for another SKU is another hold.
    server.seed("other", 5).await;
    let other = json!({ "cartId": "cart-1", "sku": "other", "quantity": 2 });
    let first = server.post_with("/api/reservations/hold", other.clone(), Some("order-1")).await;
    assert!(!is_replay(&first));
    let again = server.post_with("/api/reservations/hold", other, Some("order-1")).await;
    assert!(is_replay(&again));
    assert_eq!(first.ok(), again.ok());
    assert_eq!((server.counts("sku").await, server.counts("other").await), ([1, 4, 0], [3, 2, 0]));
}

#[tokio::test]
async fn sixteen_at_once_are_one_hold() {
    let redis = RedisServer::start();
    let server = Arc::new(Stockhold::start(&redis));
    server.seed("sku", 50).await;
    let mut requests = JoinSet::new();
    for _ in 0..16 {
        let server = Arc::clone(&server);
        requests.spawn(async move { server.post_with("/api/reservations/hold", body(2), Some("order-1")).await });
    }
    let answers = requests.join_all().await;
    assert_eq!(answers.iter().filter(|answer| is_replay(answer)).count(), 15);
    let bodies: Vec<Value> = answers.into_iter().map(Answer::ok).collect();
    assert!(bodies.iter().all(|body| *body == bodies[0]));
    assert_eq!(server.counts("sku").await, [48, 2, 0]);
}

#[tokio::test]
async fn a_refusal_is_not_remembered() {
    let redis = RedisServer::start();
    let server = Stockhold::start(&redis);
    server.seed("sku", 1).await;
    let path = "/api/reservations/hold";
    server.post_with(path, body(2), Some("order-1")).await.problem(409, "insufficient_inventory");
    server.seed("sku", 5).await;
    let answer = server.post_with(path, body(2), Some("order-1")).await;
    assert!(!is_replay(&answer));
    answer.ok();
}

#[tokio::test]
async fn settling_twice_with_one_key_is_settling_once() {
    let redis = RedisServer::start();
    let server = Stockhold::start(&redis);
    server.seed("sku", 9).await;
    for path in ["confirm", "release"] {
        let id = server.held("sku", 1).await;
        let path = format!("/api/reservations/{id}/{path}");
        let first = server.post_with(&path, None, Some("settle-1")).await;
        assert!(!is_replay(&first));
        let again = server.post_with(&path, json!({}), Some("settle-1")).await;
        assert!(is_replay(&again));
        assert_eq!(first.ok(), again.ok());
        server.post_with(&path, None, Some("settle-2")).await.problem(409, "reservation_not_active");
        server.post(&path, None).await.problem(409, "reservation_not_active");
    }
    assert_eq!(server.counts("sku").await, [8, 0, 1]);
}

/// A client that gets a 200 continues to charge: a replay must not be a 200 when the units went back, swept or not.
#[tokio::test]
async fn a_replayed_hold_is_good_only_while_it_has_its_units() {
    let redis = RedisServer::start();
    let server = Stockhold::start_with(&redis, &["--sweep-interval-ms", "60000"]);
    server.seed("sku", 9).await;
    let path = "/api/reservations/hold";
    let lapsing = json!({ "cartId": "cart-1", "sku": "sku", "quantity": 2, "ttlSeconds": 1 });
    server.post_with(path, lapsing.clone(), Some("lapses")).await.ok();
    let held = async |key: &str| {
        let record = server.post_with(path, body(1), Some(key)).await.ok();
        record["reservationId"].as_str().unwrap().to_owned()
    };
    let (released, confirmed) = (held("released").await, held("confirmed").await);
    server.release(&released).await.ok();
    server.confirm(&confirmed).await.ok();
    sleep(Duration::from_millis(1050)).await;

    for (key, body, reason) in [("lapses", lapsing, "reservation_ttl_elapsed"), ("released", body(1), "manual_release")]
    {
        let again = server.post_with(path, body, Some(key)).await;
        assert!(is_replay(&again), "{key}");
        let problem = again.problem(409, "reservation_not_active");
        assert_eq!(problem["title"], "Reservation is not active");
        assert_eq!((&problem["state"], &problem["reason"]), (&json!("released"), &json!(reason)));
    }
    let again = server.post_with(path, body(1), Some("confirmed")).await;
    assert!(is_replay(&again));
    assert_eq!(again.ok()["state"], "confirmed");
    server.seed("sku", 3).await;
    let problem = server.post_with(path, body(1), Some("confirmed")).await;
    assert_eq!(problem.ok()["state"], "confirmed");
    assert_eq!(server.counts("sku").await, [3, 0, 0]);
}

#[tokio::test]
async fn a_key_has_a_rule() {
    let redis = RedisServer::start();
    let server = Stockhold::start(&redis);
    server.seed("sku", 5).await;
    for bad in ["", "a b", "\u{e9}", &"x".repeat(256)] {
        let answer = server.post_with("/api/reservations/hold", body(1), Some(bad)).await;
        assert_eq!(answer.problem(400, "invalid_request")["errors"][0]["field"], "Idempotency-Key");
    }
    let request = hyper::Request::post(server.url("/api/reservations/hold"))
        .header("content-type", "application/json")
        .header("idempotency-key", "a")
        .header("idempotency-key", "b");
    server.send(request, body(1).to_string().into()).await.problem(400, "invalid_request");
    server.post_with("/api/reservations/hold", body(1), Some(&"x".repeat(255))).await.ok();
    assert_eq!(server.counts("sku").await, [4, 1, 0]);
}

/// A server remembers of which SKU a reservation is. Another service may use the id again, for another SKU.
#[tokio::test]
async fn an_id_that_another_service_used_again_is_settled_where_it_is_now() {
    let [sku, other] = keys::in_one_shard(["sku", "other"]);
    let redis = RedisServer::start();
    let server = Stockhold::start(&redis);
    server.seed(sku, 5).await;
    server.seed(other, 5).await;
    let id = server.post_with("/api/reservations/hold", body(2), Some("order-1")).await.ok()["reservationId"].clone();
    let id = id.as_str().unwrap();
    server.release(id).await.ok();
    // The time for which it is kept is over.
    let mut connection = redis.connection().await;
    redis::cmd("DEL").arg(keys::reservation(id)).exec_async(&mut connection).await.unwrap();

    server.confirm(id).await.problem(404, "unknown_reservation");
    let mut hold = redis::cmd("EVALSHA");
    hold.arg(&Catalogue::embedded().get("hold").unwrap().sha1)
        .arg(5)
        .arg(keys::audit_of(other))
        .arg(keys::due_of(other));
    hold.arg(keys::inventory(other)).arg(keys::active(other)).arg(keys::reservation(id));
    hold.arg("each").arg("cart-1").arg(3).arg(60_000);
    let held: Vec<Vec<String>> = hold.query_async(&mut connection).await.unwrap();
    assert_eq!(held[0][0], "HELD");
    let confirmed = server.confirm(id).await.ok();
    assert_eq!((&confirmed["sku"], &confirmed["quantity"]), (&json!(other), &json!(3)));
    assert_eq!((server.counts(sku).await, server.counts(other).await), ([5, 0, 0], [2, 0, 3]));
}

#[tokio::test]
async fn metadata_is_part_of_the_request() {
    let redis = RedisServer::start();
    let server = Stockhold::start(&redis);
    server.seed("sku", 50).await;
    let path = "/api/reservations/hold";
    let with = |metadata: Value| {
        let mut body = body(2);
        body["metadata"] = metadata;
        body
    };
    let noted = json!({ "order": "A-17", "channel": "größe \"7\"" });
    let held = server.post_with(path, with(noted.clone()), Some("order-1")).await.ok();
    assert_eq!(held["metadata"], noted);
    // The order of the names does not matter.
    let again =
        server.post_with(path, with(json!({ "channel": "größe \"7\"", "order": "A-17" })), Some("order-1")).await;
    assert!(is_replay(&again));
    assert_eq!(again.ok(), held);
    for other in [with(json!({ "order": "A-18" })), body(2)] {
        server.post_with(path, other, Some("order-1")).await.problem(422, "idempotency_key_reused");
    }
    server.post_with(path, body(1), Some("order-2")).await.ok();
    server
        .post_with(
            path,
            {
                let mut body = body(1);
                body["metadata"] = noted.clone();
                body
            },
            Some("order-2"),
        )
        .await
        .problem(422, "idempotency_key_reused");

    // A read shows it, whatever becomes of the reservation; the audit tells it once.
    let id = held["reservationId"].as_str().unwrap();
    server.confirm(id).await.ok();
    assert_eq!(server.get(&format!("/api/reservations/{id}")).await.ok()["metadata"], noted);
    let events = server.events("sku", 10).await;
    let told: Vec<_> =
        events.iter().filter_map(|event| Some((event["event"].as_str()?, event.get("metadata")?))).collect();
    assert_eq!(told, [("hold", &noted)]);

    for bad in [
        json!({}),
        json!([]),
        json!("x"),
        json!({ "a": 1 }),
        json!({ "a": "" }),
        json!({ "": "a" }),
        json!(null),
        json!({ "a": "\n" }),
    ] {
        let problem = server.post(path, with(bad.clone())).await.problem(400, "invalid_request");
        assert_eq!(problem["errors"][0]["field"], "metadata", "{bad}");
    }
    let nine: serde_json::Map<_, _> = (0..9).map(|name| (name.to_string(), json!("x"))).collect();
    server.post(path, with(nine.into())).await.problem(400, "invalid_request");
}

#[tokio::test]
async fn a_seed_with_a_key_is_done_once() {
    let redis = RedisServer::start();
    let server = Stockhold::start(&redis);
    let seed = async |sku: &str, quantity: u64, key: Option<&str>| {
        server.post_with("/api/inventory/seed", json!({ "sku": sku, "quantity": quantity }), key).await
    };
    let first = seed("tea", 5, Some("spring")).await;
    assert!(!is_replay(&first));
    let id = server.held("tea", 2).await;
    let again = seed("tea", 5, Some("spring")).await;
    assert!(is_replay(&again));
    assert_eq!(first.ok(), again.ok(), "the snapshot as it was then");
    assert_eq!(server.counts("tea").await, [3, 2, 0]);
    let problem = seed("tea", 6, Some("spring")).await.problem(422, "idempotency_key_reused");
    assert!(problem["detail"].as_str().unwrap().ends_with("another quantity"), "{problem}");
    server.confirm(&id).await.ok();
    // The key says nothing about another SKU. Without it, a seed counts anew.
    assert!(!is_replay(&seed("cup", 6, Some("spring")).await));
    seed("tea", 5, None).await.ok();
    assert_eq!(server.counts("tea").await, [5, 0, 0]);
    server
        .post_with("/api/inventory/seed", json!({ "sku": "tea", "quantity": 1 }), Some(""))
        .await
        .problem(400, "invalid_request");
}

/// Of a crowd with one key, one seed releases what is held, however long that takes.
#[tokio::test]
async fn a_crowd_with_one_key_seeds_once() {
    let redis = RedisServer::start();
    let server = Arc::new(Stockhold::start(&redis));
    server.seed("tea", 300).await;
    for _ in 0..250 {
        server.held("tea", 1).await;
    }
    let mut crowd = JoinSet::new();
    for _ in 0..8 {
        let server = Arc::clone(&server);
        crowd.spawn(async move {
            let body = json!({ "sku": "tea", "quantity": 7 });
            server.post_with("/api/inventory/seed", body, Some("spring")).await.ok()
        });
    }
    let answers = crowd.join_all().await;
    assert!(answers.iter().all(|answer| answer == &answers[0]), "{answers:?}");
    let seeds = server.events("tea", 1000).await;
    let seeded = seeds.iter().filter(|event| event["state"] == "seeded" && event["quantity"] == 7).count();
    assert_eq!(seeded, 1);
    assert_invariants(&mut redis.connection().await, History::Whole).await;
}
