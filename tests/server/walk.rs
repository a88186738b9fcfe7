//! The walk of the README: every endpoint, with the bodies as they are documented.

use serde_json::{Value, json};

use crate::support::redis_server::RedisServer;
use crate::support::stockhold::Stockhold;

/// The object without its times. Each time must be RFC 3339 with milliseconds.
fn timeless(mut body: Value) -> Value {
    for name in ["updatedAt", "createdAt", "expiresAt", "happenedAt"] {
        if let Some(time) = body.as_object_mut().unwrap().remove(name) {
            let time = time.as_str().unwrap();
            assert_eq!((time.len(), &time[10..11], &time[19..20], &time[23..]), (24, "T", ".", "Z"), "{name} {time}");
        }
    }
    body
}

#[tokio::test]
async fn seed_hold_confirm_release_audit() {
    let redis = RedisServer::start();
    let server = Stockhold::start(&redis);

    let seeded = server.seed("sku-123", 5).await;
    let expected = json!({
        "sku": "sku-123", "available": 5, "reserved": 0, "confirmed": 0, "activeReservations": [], "version": 1
    });
    assert_eq!(timeless(seeded), expected);

    let body = json!({ "cartId": "cart-1", "sku": "sku-123", "quantity": 2, "ttlSeconds": 30 });
    let held = server.post("/api/reservations/hold", body).await.ok();
    let id = held["reservationId"].as_str().unwrap().to_owned();
    let record =
        |state| json!({ "reservationId": id, "cartId": "cart-1", "sku": "sku-123", "quantity": 2, "state": state });
    assert_eq!(timeless(held.clone()), record("active"));
    assert_eq!(server.get(&format!("/api/reservations/{id}")).await.ok(), held);

    let stock = server.stock("sku-123").await;
    let expected = json!({
        "sku": "sku-123", "available": 3, "reserved": 2, "confirmed": 0, "activeReservations": [id], "version": 2
    });
    assert_eq!(timeless(stock), expected);

    let confirmed = server.confirm(&id).await.ok();
    assert_eq!(timeless(confirmed.clone()), record("confirmed"));
    assert_eq!(server.get(&format!("/api/reservations/{id}")).await.ok(), confirmed);
    assert_eq!(server.counts("sku-123").await, [3, 0, 2]);

    let other = server.held("sku-123", 1).await;
    let released = server.release(&other).await.ok();
    assert_eq!((&released["state"], &released["reason"]), (&json!("released"), &json!("manual_release")));
    assert_eq!(server.counts("sku-123").await, [3, 0, 2]);

    let events = server.events("sku-123", 50).await;
    let story: Vec<_> = events.iter().map(|event| event["event"].as_str().unwrap()).collect();
    assert_eq!(story, ["release", "hold", "confirm", "hold", "seed"]);
    for (newer, older) in events.iter().zip(&events[1..]) {
        assert_eq!(newer["previous"], older["id"]);
        assert_eq!(newer["version"].as_u64().unwrap(), older["version"].as_u64().unwrap() + 1);
    }
    let confirm = timeless(events[2].clone());
    for (name, value) in [
        ("reservationId", json!(id)),
        ("cartId", json!("cart-1")),
        ("sku", json!("sku-123")),
        ("quantity", json!(2)),
        ("state", json!("confirmed")),
        ("available", json!(3)),
        ("reserved", json!(0)),
        ("confirmed", json!(2)),
    ] {
        assert_eq!(confirm[name], value, "{name}");
    }
}

#[tokio::test]
async fn refusals_keep_their_titles() {
    let redis = RedisServer::start();
    let server = Stockhold::start(&redis);
    server.seed("sku-1", 3).await;

    let body = json!({ "cartId": "cart-1", "sku": "sku-1", "quantity": 4 });
    let problem = server.post("/api/reservations/hold", body).await.problem(409, "insufficient_inventory");
    assert_eq!(problem["title"], "Insufficient inventory");
    assert_eq!((&problem["available"], &problem["requested"]), (&json!(3), &json!(4)));

    let body = json!({ "cartId": "cart-1", "sku": "never-seeded", "quantity": 1 });
    let problem = server.post("/api/reservations/hold", body).await.problem(409, "unknown_sku");
    assert_eq!(problem["title"], "Insufficient inventory");
    server.get("/api/inventory/never-seeded").await.problem(404, "unknown_sku");
    assert_eq!(server.events("never-seeded", 5).await, [] as [Value; 0]);

    let id = server.held("sku-1", 1).await;
    server.release(&id).await.ok();
    for path in ["confirm", "release"] {
        let problem =
            server.post(&format!("/api/reservations/{id}/{path}"), None).await.problem(409, "reservation_not_active");
        assert_eq!(problem["title"], "Reservation is not active");
        assert_eq!((&problem["state"], &problem["reason"]), (&json!("released"), &json!("manual_release")));
    }

    let nobody = "00000000-0000-8000-8000-000000000000";
    server.get(&format!("/api/reservations/{nobody}")).await.problem(404, "unknown_reservation");
    server.confirm(nobody).await.problem(404, "unknown_reservation");
    server.release(nobody).await.problem(404, "unknown_reservation");
}

#[tokio::test]
async fn a_seed_over_live_holds_releases_them_all() {
    let redis = RedisServer::start();
    let server = Stockhold::start(&redis);
    server.seed("sku-1", 300).await;
    // More than two calls can release.
    let mut ids = Vec::new();
    for _ in 0..250 {
        ids.push(server.held("sku-1", 1).await);
    }
    server.confirm(&ids[0]).await.ok();

    let stock = server.seed("sku-1", 7).await;
    assert_eq!((&stock["available"], &stock["activeReservations"]), (&json!(7), &json!([])));
    assert_eq!(server.counts("sku-1").await, [7, 0, 0]);
    for id in &ids[1..] {
        let record = server.get(&format!("/api/reservations/{id}")).await.ok();
        assert_eq!((&record["state"], &record["reason"]), (&json!("released"), &json!("inventory_reseeded")));
    }
    let problem = server.confirm(&ids[1]).await.problem(409, "reservation_not_active");
    assert_eq!(problem["reason"], "inventory_reseeded");
    assert_eq!(server.counts("sku-1").await, [7, 0, 0]);

    let events = server.events("sku-1", 1000).await;
    let releases = events.iter().filter(|event| event["event"] == "release").count();
    assert_eq!(releases, 249);
    assert_eq!((&events[0]["event"], &events[0]["available"]), (&json!("seed"), &json!(7)));
}

#[tokio::test]
async fn a_seed_of_0_takes_a_sku_off_sale() {
    let redis = RedisServer::start();
    let server = Stockhold::start(&redis);
    server.seed("sku-1", 3).await;
    let id = server.held("sku-1", 2).await;

    let expected = json!({
        "sku": "sku-1", "available": 0, "reserved": 0, "confirmed": 0, "activeReservations": [], "version": 5
    });
    assert_eq!(timeless(server.seed("sku-1", 0).await), expected);
    server.confirm(&id).await.problem(409, "reservation_not_active");
    let body = json!({ "cartId": "cart-1", "sku": "sku-1", "quantity": 1 });
    server.post("/api/reservations/hold", body).await.problem(409, "insufficient_inventory");
    server.seed("sku-1", 1).await;
    server.held("sku-1", 1).await;
}

#[tokio::test]
async fn lists_are_capped() {
    let redis = RedisServer::start();
    let server = Stockhold::start(&redis);
    server.seed("a", 10).await;
    server.seed("b", 10).await;
    let mut ids = Vec::new();
    for ttl in [30, 10, 20] {
        ids.push(server.held_for("a", 1, ttl).await);
    }
    server.held("b", 1).await;

    let active =
        async |query: &str| server.get(&format!("/api/inventory/a{query}")).await.ok()["activeReservations"].clone();
    assert_eq!(active("").await, json!([ids[1], ids[2], ids[0]]), "earliest expiry first");
    assert_eq!(active("?active=2").await, json!([ids[1], ids[2]]));
    assert_eq!(active("?active=0").await, json!([]));

    let all = server.get("/api/audit").await.ok();
    assert_eq!(all["events"].as_array().unwrap().len(), 6, "without a SKU, the events of all");
    let newest = server.events("a", 2).await;
    let path = format!("/api/audit?sku=a&limit=10&before={}", newest[1]["id"].as_str().unwrap());
    let rest = server.get(&path).await.ok();
    assert_eq!(rest["events"].as_array().unwrap().len(), 2);
    let of_b = server.events("b", 1).await[0]["id"].as_str().unwrap().to_owned();
    for before in [of_b.as_str(), "yesterday"] {
        let problem = server.get(&format!("/api/audit?sku=a&before={before}")).await.problem(400, "invalid_request");
        assert_eq!(problem["errors"][0]["field"], "before");
    }
}

#[tokio::test]
async fn a_sku_may_hold_any_character_that_its_rule_allows() {
    let redis = RedisServer::start();
    let server = Stockhold::start(&redis);
    let seeded = server.seed("größe/€-😀%41", 2).await;
    assert_eq!(seeded["sku"], "größe/€-😀%41");
    let path = "/api/inventory/gr%C3%B6%C3%9Fe%2F%E2%82%AC-%F0%9F%98%80%2541";
    assert_eq!(server.get(path).await.ok()["available"], 2);
    // A SKU may have the same name as the endpoint.
    for sku in ["seed", "adjust"] {
        server.seed(sku, 1).await;
        server.post(&format!("/api/inventory/{sku}/adjust"), json!({ "delta": 1 })).await.ok();
        assert_eq!(server.stock(sku).await["available"], 2);
    }
}
