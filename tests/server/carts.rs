//! Carts over HTTP: held as one, read, and never half.

use std::time::Duration;

use hyper::Request;
use redis::cmd;
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::support::invariants::{History, assert_invariants};
use crate::support::keys;
use crate::support::redis_server::RedisServer;
use crate::support::snapshot::Snapshot;
use crate::support::stockhold::{Answer, Stockhold};

/// No sweep within a test: only a request sweeps.
const NO_SWEEPER: [&str; 2] = ["--sweep-interval-ms", "60000"];

fn lines(lines: &[(&str, u64)]) -> Value {
    lines.iter().map(|(sku, quantity)| json!({ "sku": sku, "quantity": quantity })).collect()
}

/// Not at the same moment as the last hold: those of one moment have no order.
async fn hold(server: &Stockhold, cart: &str, items: &[(&str, u64)], key: Option<&str>) -> Answer {
    sleep(Duration::from_millis(2)).await;
    server.post_with(&format!("/api/carts/{cart}/hold"), json!({ "items": lines(items) }), key).await
}

fn is_replay(answer: &Answer) -> bool {
    answer.headers.get("idempotent-replayed").is_some_and(|value| value == "true")
}

/// Some members of each object in a list, as text.
fn told<const N: usize>(list: &Value, names: [&str; N]) -> Vec<[String; N]> {
    let shown = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    list.as_array().unwrap().iter().map(|one| names.map(|name| shown(&one[name]))).collect()
}

fn id_of(body: &Value, line: usize) -> &str {
    body["reservations"][line]["reservationId"].as_str().unwrap()
}

#[tokio::test]
async fn a_cart_is_held_with_one_request() {
    let [tea, cup] = keys::in_one_shard(["tea", "cup"]);
    let redis = RedisServer::start();
    let server = Stockhold::start(&redis);
    server.seed(tea, 5).await;
    server.seed(cup, 2).await;
    server.get("/api/carts/c").await.problem(404, "unknown_cart");
    let body = json!({ "items": lines(&[(tea, 3), (cup, 2)]), "ttlSeconds": 30 });
    let cart = server.post("/api/carts/c/hold", body).await.ok();
    let members: Vec<_> = cart.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(members, ["cartId", "expiresAt", "reservations"]);
    let shown = told(&cart["reservations"], ["cartId", "sku", "quantity", "state"]);
    assert_eq!(shown, [["c", tea, "3", "active"], ["c", cup, "2", "active"]].map(|line| line.map(str::to_owned)));
    for at in 0..2 {
        assert_eq!(cart["reservations"][at]["expiresAt"], cart["expiresAt"]);
        let record = server.get(&format!("/api/reservations/{}", id_of(&cart, at))).await.ok();
        assert_eq!(record, cart["reservations"][at]);
    }
    assert_eq!((server.counts(tea).await, server.counts(cup).await), ([2, 3, 0], [0, 2, 0]));

    // More for the same cart is another hold.
    hold(&server, "c", &[(tea, 1)], None).await.ok();
    // A single hold is not listed.
    let single = json!({ "cartId": "c", "sku": tea, "quantity": 1 });
    server.post("/api/reservations/hold", single).await.ok();
    server.confirm(id_of(&cart, 0)).await.ok();
    let read = server.get("/api/carts/c").await.ok();
    let members: Vec<_> = read.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(members, ["cartId", "reservations"]);
    // By the moment in which they were made; those of one moment by SKU.
    let shown = told(&read["reservations"], ["sku", "quantity", "state"]);
    let expected = [[cup, "2", "active"], [tea, "3", "confirmed"], [tea, "1", "active"]];
    assert_eq!(shown, expected.map(|line| line.map(str::to_owned)));
    assert_invariants(&mut redis.connection().await, History::Whole).await;
}

#[tokio::test]
async fn every_short_line_is_named_and_nothing_is_held() {
    let [tea, cup, pot, nil] = keys::in_one_shard(["tea", "cup", "pot", "nil"]);
    let wanted = [(tea, 3), (cup, 1), (nil, 1), (pot, 9)];
    let redis = RedisServer::start();
    let server = Stockhold::start(&redis);
    for sku in [tea, cup, pot] {
        server.seed(sku, 2).await;
    }
    let before = Snapshot::take(&mut redis.connection().await).await;
    let problem = hold(&server, "c", &wanted, Some("key")).await.problem(409, "insufficient_inventory");
    assert_eq!(problem["title"], "Insufficient inventory");
    let expected = json!([
        { "sku": tea, "requested": 3, "available": 2 },
        { "sku": nil, "requested": 1, "available": 0, "code": "unknown_sku" },
        { "sku": pot, "requested": 9, "available": 2 },
    ]);
    assert_eq!(problem["errors"], expected);
    assert_eq!(before.changed(&Snapshot::take(&mut redis.connection().await).await), Vec::<String>::new());
    // A refusal is not remembered.
    server.seed(nil, 1).await;
    server.seed(tea, 3).await;
    server.seed(pot, 9).await;
    let again = hold(&server, "c", &wanted, Some("key")).await;
    assert!(!is_replay(&again));
    again.ok();
}

/// Units on lapsed holds are available, although nobody has swept them.
#[tokio::test]
async fn lapsed_holds_are_swept_before_a_refusal() {
    let redis = RedisServer::start();
    let server = Stockhold::start_with(&redis, &NO_SWEEPER);
    server.seed("tea", 70).await;
    server.seed("cup", 2).await;
    server.seed("pot", 1).await;
    // More than one call of the sweep takes.
    for _ in 0..60 {
        server.held_for("tea", 1, 1).await;
    }
    server.held_for("cup", 2, 1).await;
    sleep(Duration::from_millis(1050)).await;
    let problem = hold(&server, "c", &[("tea", 71), ("cup", 2)], None).await.problem(409, "insufficient_inventory");
    assert_eq!(problem["errors"], json!([{ "sku": "tea", "requested": 71, "available": 70 }]));
    hold(&server, "c", &[("pot", 1), ("tea", 70), ("cup", 2)], None).await.ok();
    assert_eq!((server.counts("tea").await, server.counts("cup").await), ([0, 70, 0], [0, 2, 0]));
    assert_invariants(&mut redis.connection().await, History::Whole).await;
}

#[tokio::test]
async fn one_key_is_one_hold_of_a_cart() {
    let redis = RedisServer::start();
    let server = Stockhold::start(&redis);
    server.seed("tea", 9).await;
    server.seed("cup", 9).await;
    let items = [("tea", 2), ("cup", 1)];
    let first = hold(&server, "c", &items, Some("order-17")).await;
    assert!(!is_replay(&first));
    let first = first.ok();
    let again = hold(&server, "c", &items, Some("order-17")).await;
    assert!(is_replay(&again));
    assert_eq!(again.ok(), first);
    // The same list in another order is the same list.
    let swapped = hold(&server, "c", &[items[1], items[0]], Some("order-17")).await;
    assert!(is_replay(&swapped));
    assert_eq!(swapped.ok()["reservations"], json!([first["reservations"][1], first["reservations"][0]]));
    for other in [&[("tea", 2)][..], &[("tea", 2), ("cup", 2)], &[("tea", 2), ("cup", 1), ("pot", 1)], &[("pot", 1)]] {
        hold(&server, "c", other, Some("order-17")).await.problem(422, "idempotency_key_reused");
    }
    let longer = json!({ "items": lines(&items), "ttlSeconds": 601 });
    server.post_with("/api/carts/c/hold", longer, Some("order-17")).await.problem(422, "idempotency_key_reused");
    assert_eq!((server.counts("tea").await, server.counts("cup").await), ([7, 2, 0], [8, 1, 0]));
    // Another cart, a single hold and an adjustment with the same key are requests of their own.
    assert!(!is_replay(&hold(&server, "d", &items, Some("order-17")).await));
    let single = json!({ "cartId": "c", "sku": "tea", "quantity": 2 });
    assert!(!is_replay(&server.post_with("/api/reservations/hold", single, Some("order-17")).await));
    let more = json!({ "delta": 1 });
    assert!(!is_replay(&server.post_with("/api/inventory/tea/adjust", more, Some("order-17")).await));

    // While all of it holds or has sold, a replay is as good as the first answer.
    server.confirm(id_of(&first, 0)).await.ok();
    let extend = format!("/api/reservations/{}/extend", id_of(&first, 1));
    server.post(&extend, json!({ "ttlSeconds": 900 })).await.ok();
    let sold = hold(&server, "c", &items, Some("order-17")).await;
    assert!(is_replay(&sold));
    assert_eq!(sold.ok()["reservations"][0]["state"], "confirmed");
    server.release(id_of(&first, 1)).await.ok();
    let ended = hold(&server, "c", &items, Some("order-17")).await;
    assert!(is_replay(&ended));
    let problem = ended.problem(409, "reservation_not_active");
    let expected = json!([{
        "reservationId": id_of(&first, 1), "sku": "cup", "state": "released", "reason": "manual_release"
    }]);
    assert_eq!(problem["errors"], expected);
    assert_invariants(&mut redis.connection().await, History::Whole).await;
}

#[tokio::test]
async fn a_replay_of_what_is_over_says_so() {
    let [tea, cup] = keys::in_one_shard(["tea", "cup"]);
    let redis = RedisServer::start();
    let server = Stockhold::start_with(&redis, &[&NO_SWEEPER[..], &["--keep-seconds", "1"]].concat());
    server.seed(tea, 2).await;
    server.seed(cup, 2).await;
    let body = json!({ "items": lines(&[(tea, 2), (cup, 2)]), "ttlSeconds": 1 });
    let first = server.post_with("/api/carts/c/hold", body.clone(), Some("key")).await.ok();
    server.release(id_of(&first, 0)).await.ok();
    sleep(Duration::from_millis(1100)).await;
    // One record was dropped, and the other line has lapsed, which nobody has noticed.
    let again = server.post_with("/api/carts/c/hold", body, Some("key")).await;
    assert!(is_replay(&again));
    let problem = again.problem(409, "reservation_not_active");
    let expected = json!([
        { "reservationId": id_of(&first, 0), "sku": tea, "code": "unknown_reservation" },
        { "reservationId": id_of(&first, 1), "sku": cup, "state": "released", "reason": "reservation_ttl_elapsed" },
    ]);
    assert_eq!(problem["errors"], expected);
    assert_eq!((server.counts(tea).await, server.counts(cup).await), ([2, 0, 0], [2, 0, 0]));
}

/// As the read of a single reservation does.
#[tokio::test]
async fn a_read_shows_what_has_lapsed_as_released() {
    let [tea, cup] = keys::in_one_shard(["tea", "cup"]);
    let redis = RedisServer::start();
    let server = Stockhold::start_with(&redis, &NO_SWEEPER);
    server.seed(tea, 2).await;
    server.seed(cup, 2).await;
    let body = json!({ "items": lines(&[(tea, 2), (cup, 1)]), "ttlSeconds": 1 });
    server.post("/api/carts/c/hold", body).await.ok();
    hold(&server, "c", &[(cup, 1)], None).await.ok();
    sleep(Duration::from_millis(1050)).await;
    let read = server.get("/api/carts/c").await.ok();
    let shown = told(&read["reservations"], ["sku", "state", "reason"]);
    let lapsed = |sku| [sku, "released", "reservation_ttl_elapsed"];
    let expected = [lapsed(cup), lapsed(tea), [cup, "active", "null"]];
    assert_eq!(shown, expected.map(|line| line.map(str::to_owned)));
    assert_eq!((server.counts(tea).await, server.counts(cup).await), ([2, 0, 0], [1, 1, 0]));
    assert_invariants(&mut redis.connection().await, History::Whole).await;
}

#[tokio::test]
async fn a_full_cart_makes_room_by_itself_while_something_has_ended() {
    let redis = RedisServer::start();
    let server = Stockhold::start_with(&redis, &NO_SWEEPER);
    // A cart has a list in each shard.
    let names: [String; 50] = std::array::from_fn(|number| format!("sku-{number}"));
    let skus = keys::in_one_shard(names.each_ref().map(String::as_str));
    for sku in skus {
        server.seed(sku, 10).await;
    }
    let all = skus.map(|sku| (sku, 1));
    let first = hold(&server, "c", &all, None).await.ok();
    let soon = json!({ "items": lines(&all[..49]), "ttlSeconds": 1 });
    server.post("/api/carts/c/hold", soon).await.ok();
    for line in 0..3 {
        server.confirm(id_of(&first, line)).await.ok();
    }
    hold(&server, "c", &all[..1], None).await.ok();
    assert_eq!(server.get("/api/carts/c").await.ok()["reservations"].as_array().unwrap().len(), 100);
    hold(&server, "c", &all[..1], None).await.problem(409, "cart_full");
    // 49 of them lapse, and nobody has noticed.
    sleep(Duration::from_millis(1050)).await;
    hold(&server, "c", &all[..49], None).await.ok();
    let read = server.get("/api/carts/c").await.ok();
    let states = told(&read["reservations"], ["state"]);
    let count = |state: &str| states.iter().filter(|shown| shown[0] == state).count();
    assert_eq!((count("active"), count("confirmed"), count("released")), (97, 3, 0));
    hold(&server, "c", &all[..1], None).await.problem(409, "cart_full");
    assert_invariants(&mut redis.connection().await, History::Whole).await;
}

#[tokio::test]
async fn a_cart_may_have_any_name_that_its_rule_allows() {
    let redis = RedisServer::start();
    let server = Stockhold::start(&redis);
    server.seed("tea", 5).await;
    let path = "K%C3%B6rbchen%20%F0%9F%9B%92%2F{1}:%25";
    let held = server.post(&format!("/api/carts/{path}/hold"), json!({ "items": lines(&[("tea", 1)]) })).await.ok();
    assert_eq!(held["cartId"], "Körbchen 🛒/{1}:%");
    assert_eq!(server.get(&format!("/api/carts/{path}")).await.ok()["reservations"], held["reservations"]);
    let list = keys::cart_of("tea", "Körbchen 🛒/{1}:%");
    let listed: Vec<String> = cmd("HKEYS").arg(list).query_async(&mut redis.connection().await).await.unwrap();
    assert_eq!(listed, [id_of(&held, 0)]);
    for bad in ["%0A", "a%C2%85", &"x".repeat(129)] {
        let problem = hold(&server, bad, &[("tea", 1)], None).await.problem(400, "invalid_request");
        assert_eq!(problem["errors"][0]["field"], "cartId");
        server.get(&format!("/api/carts/{bad}")).await.problem(400, "invalid_request");
    }
}

#[tokio::test]
async fn every_bad_field_is_named() {
    let redis = RedisServer::start();
    let server = Stockhold::start_with(&redis, &NO_SWEEPER);
    server.seed("sku", 5).await;
    let before = Snapshot::take(&mut redis.connection().await).await;
    let named = async |body: &str| {
        let request = Request::post(server.url("/api/carts/c/hold")).header("content-type", "application/json");
        let problem = server.send(request, body.to_owned().into()).await.problem(400, "invalid_request");
        told(&problem["errors"], ["field"]).into_iter().map(|[field]| field).collect::<Vec<_>>()
    };
    for (body, fields) in [
        (r#"{}"#, &["items"][..]),
        (r#"{"items":[]}"#, &["items"]),
        (r#"{"items":{"sku":"sku","quantity":1}}"#, &["items"]),
        (r#"{"items":[1,{"sku":"sku","quantity":1}]}"#, &["items[0]"]),
        (r#"{"items":[{"sku":"sku","quantity":1}],"cartId":"c"}"#, &["cartId"]),
        (r#"{"items":[{"sku":"sku","quantity":1}],"ttlSeconds":0}"#, &["ttlSeconds"]),
        (r#"{"items":[{"sku":"sku","quantity":1}],"ttlSeconds":2592001}"#, &["ttlSeconds"]),
        (r#"{"items":[{"sku":"s u","quantity":0,"x":1}]}"#, &["items[0].sku", "items[0].quantity", "items[0].x"]),
        (r#"{"items":[{"sku":"sku","quantity":1},{"quantity":1}]}"#, &["items[1].sku"]),
        (r#"{"items":[{"sku":"sku","quantity":1,"ttlSeconds":5}]}"#, &["items[0].ttlSeconds"]),
        (
            r#"{"items":[{"sku":"a","quantity":1},{"sku":"b","quantity":1},{"sku":"a","quantity":2},{"sku":"b","quantity":1}]}"#,
            &["items[2].sku", "items[3].sku"],
        ),
    ] {
        assert_eq!(named(body).await, fields, "{body}");
    }
    let many = |count: usize| json!({ "items": vec![json!({ "sku": "sku", "quantity": 1 }); count] }).to_string();
    assert_eq!(named(&many(101)).await, ["items"]);
    assert_eq!(named(&many(100)).await.len(), 99, "each but the first");
    server.get("/api/carts/c?active=1").await.problem(400, "invalid_request");
    assert_eq!(Snapshot::take(&mut redis.connection().await).await, before);
}
