//! Carts over HTTP: confirmed, released and extended as one.

use std::time::Duration;

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

/// Holds one unit of each SKU for the cart `c`, and returns the ids. Not at the same moment as the last hold: those of
/// one moment have no order.
async fn held<const N: usize>(server: &Stockhold, skus: [&str; N], ttl_seconds: u64) -> [String; N] {
    sleep(Duration::from_millis(2)).await;
    let items: Vec<_> = skus.iter().map(|sku| json!({ "sku": sku, "quantity": 1 })).collect();
    let cart = server.post("/api/carts/c/hold", json!({ "items": items, "ttlSeconds": ttl_seconds })).await.ok();
    std::array::from_fn(|at| cart["reservations"][at]["reservationId"].as_str().unwrap().to_owned())
}

async fn cart(server: &Stockhold, verb: &str, key: Option<&str>) -> Answer {
    server.post_with(&format!("/api/carts/c/{verb}"), None, key).await
}

async fn extend(server: &Stockhold, ttl_seconds: u64) -> Answer {
    server.post("/api/carts/c/extend", json!({ "ttlSeconds": ttl_seconds })).await
}

async fn lapse() {
    sleep(Duration::from_millis(1050)).await;
}

fn is_replay(answer: &Answer) -> bool {
    answer.headers.get("idempotent-replayed").is_some_and(|value| value == "true")
}

/// Id and state of each reservation in an answer, in the order of the ids.
fn states(body: &Value) -> Vec<(String, String)> {
    let text = |record: &Value, name: &str| record[name].as_str().unwrap().to_owned();
    let records = body["reservations"].as_array().unwrap().iter();
    let mut states: Vec<_> = records.map(|record| (text(record, "reservationId"), text(record, "state"))).collect();
    states.sort();
    states
}

fn all(ids: &[&String], state: &str) -> Vec<(String, String)> {
    let mut all: Vec<_> = ids.iter().map(|id| ((*id).clone(), state.to_owned())).collect();
    all.sort();
    all
}

/// The reservations that a problem names, each with SKU, state and reason.
fn named(problem: &Value) -> Vec<[String; 4]> {
    let shown = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let names = ["reservationId", "sku", "state", "reason"];
    let mut named: Vec<_> =
        problem["errors"].as_array().unwrap().iter().map(|one| names.map(|name| shown(&one[name]))).collect();
    named.sort();
    named
}

const LAPSED: &str = "reservation_ttl_elapsed";

async fn three(redis: &RedisServer, arguments: &[&str]) -> Stockhold {
    let server = Stockhold::start_with(redis, arguments);
    for sku in ["tea", "cup", "pot"] {
        server.seed(sku, 5).await;
    }
    server
}

#[tokio::test]
async fn a_cart_is_sold_or_given_back_with_one_request() {
    let redis = RedisServer::start();
    let server = three(&redis, &[]).await;
    for verb in ["confirm", "release"] {
        cart(&server, verb, None).await.problem(404, "unknown_cart");
    }
    let [tea, cup] = held(&server, ["tea", "cup"], 600).await;
    let [more] = held(&server, ["tea"], 600).await;
    let sold = cart(&server, "confirm", None).await.ok();
    let members: Vec<_> = sold.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!((members, &sold["cartId"]), (vec!["cartId", "reservations"], &json!("c")));
    assert_eq!(states(&sold), all(&[&tea, &cup, &more], "confirmed"));
    let record = server.get(&format!("/api/reservations/{tea}")).await.ok();
    assert!(sold["reservations"].as_array().unwrap().contains(&record));
    // Later, for the same cart: what is sold stays sold.
    let [pot, cup] = held(&server, ["pot", "cup"], 600).await;
    let back = cart(&server, "release", None).await.ok();
    assert_eq!(states(&back), all(&[&pot, &cup], "released"));
    assert_eq!(server.counts("tea").await, [3, 0, 2]);
    assert_eq!((server.counts("cup").await, server.counts("pot").await), ([4, 0, 1], [5, 0, 0]));
    assert_invariants(&mut redis.connection().await, History::Whole).await;
}

/// One answer, whether a sweep was faster or not.
#[tokio::test]
async fn nothing_is_sold_or_extended_when_a_line_has_lapsed() {
    for sweeps in [false, true] {
        let redis = RedisServer::start();
        let server = three(&redis, if sweeps { &["--sweep-interval-ms", "20"] } else { &NO_SWEEPER }).await;
        let [tea] = held(&server, ["tea"], 1).await;
        let [cup, pot] = held(&server, ["cup", "pot"], 600).await;
        lapse().await;
        sleep(Duration::from_millis(if sweeps { 200 } else { 0 })).await;
        let lapsed = [[&*tea, "tea", "released", LAPSED].map(str::to_owned)];
        for _ in 0..2 {
            let problem = cart(&server, "confirm", Some("key")).await.problem(409, "reservation_not_active");
            assert_eq!(problem["title"], "Reservation is not active");
            assert_eq!(named(&problem), lapsed);
            assert_eq!(named(&extend(&server, 900).await.problem(409, "reservation_not_active")), lapsed);
        }
        assert_eq!((server.counts("cup").await, server.counts("pot").await), ([4, 1, 0], [4, 1, 0]));
        // The cart holds the SKU again: what has lapsed before does not matter any more.
        let [again] = held(&server, ["tea"], 600).await;
        assert_eq!(states(&extend(&server, 900).await.ok()), all(&[&cup, &pot, &again], "active"));
        let sold = cart(&server, "confirm", Some("key")).await;
        assert!(!is_replay(&sold), "a refusal is not remembered");
        assert_eq!(states(&sold.ok()), all(&[&cup, &pot, &again], "confirmed"));
        assert_eq!(server.counts("tea").await, [4, 0, 1]);
        assert_invariants(&mut redis.connection().await, History::Whole).await;
    }
}

/// The units went back without the customer.
#[tokio::test]
async fn nothing_is_sold_when_a_line_was_reseeded() {
    let redis = RedisServer::start();
    let server = three(&redis, &[]).await;
    let [tea, cup, pot] = held(&server, ["tea", "cup", "pot"], 600).await;
    server.seed("tea", 9).await;
    server.release(&pot).await.ok();
    let problem = cart(&server, "confirm", None).await.problem(409, "reservation_not_active");
    assert_eq!(named(&problem), [[&*tea, "tea", "released", "inventory_reseeded"].map(str::to_owned)]);
    assert_eq!(states(&cart(&server, "release", None).await.ok()), all(&[&cup], "released"));
}

/// What the customer has put back, or paid for, is no obstacle.
#[tokio::test]
async fn what_was_settled_alone_is_left_out() {
    let redis = RedisServer::start();
    let server = three(&redis, &[]).await;
    let [tea, cup, pot] = held(&server, ["tea", "cup", "pot"], 600).await;
    server.release(&tea).await.ok();
    server.confirm(&cup).await.ok();
    assert_eq!(states(&extend(&server, 900).await.ok()), all(&[&pot], "active"));
    assert_eq!(states(&cart(&server, "confirm", None).await.ok()), all(&[&pot], "confirmed"));
    assert_invariants(&mut redis.connection().await, History::Whole).await;
}

#[tokio::test]
async fn with_nothing_active_each_line_is_named() {
    let redis = RedisServer::start();
    let server = three(&redis, &NO_SWEEPER).await;
    let [tea, cup] = held(&server, ["tea", "cup"], 600).await;
    let [pot] = held(&server, ["pot"], 1).await;
    server.release(&tea).await.ok();
    server.confirm(&cup).await.ok();
    lapse().await;
    let mut expected = [
        [&*tea, "tea", "released", "manual_release"],
        [&*cup, "cup", "confirmed", ""],
        [&*pot, "pot", "released", LAPSED],
    ]
    .map(|line| line.map(str::to_owned));
    expected.sort();
    let before = Snapshot::take(&mut redis.connection().await).await;
    for answer in [
        cart(&server, "confirm", Some("key")).await,
        cart(&server, "release", Some("key")).await,
        cart(&server, "release", None).await,
        extend(&server, 60).await,
    ] {
        assert_eq!(named(&answer.problem(409, "reservation_not_active")), expected);
    }
    assert_eq!(before, Snapshot::take(&mut redis.connection().await).await);
}

#[tokio::test]
async fn a_release_needs_no_line_that_has_lapsed() {
    let redis = RedisServer::start();
    let server = three(&redis, &NO_SWEEPER).await;
    held(&server, ["tea"], 1).await;
    let [cup] = held(&server, ["cup"], 600).await;
    lapse().await;
    assert_eq!(states(&cart(&server, "release", None).await.ok()), all(&[&cup], "released"));
    assert_eq!((server.counts("tea").await, server.counts("cup").await), ([5, 0, 0], [5, 0, 0]));
}

#[tokio::test]
async fn a_repeat_is_about_what_the_first_request_was_about() {
    let redis = RedisServer::start();
    let server = three(&redis, &[]).await;
    for verb in ["confirm", "release"] {
        let ids = held(&server, ["tea", "cup"], 600).await;
        let first = cart(&server, verb, Some(verb)).await;
        assert!(!is_replay(&first));
        let first = first.ok();
        let [since] = held(&server, ["pot"], 600).await;
        for _ in 0..2 {
            let again = cart(&server, verb, Some(verb)).await;
            assert!(is_replay(&again));
            assert_eq!(again.ok(), first);
        }
        let state = if verb == "confirm" { "confirmed" } else { "released" };
        assert_eq!(states(&first), all(&[&ids[0], &ids[1]], state));
        // Neither the key of a single request, nor that of the other verb, makes it a repeat.
        let other = if verb == "confirm" { "release" } else { "confirm" };
        server.post_with(&format!("/api/reservations/{since}/{other}"), None, Some("single")).await.ok();
        let [last] = held(&server, ["pot"], 600).await;
        let answer = cart(&server, other, Some("single")).await;
        assert!(!is_replay(&answer));
        let state = if verb == "confirm" { "released" } else { "confirmed" };
        assert_eq!(states(&answer.ok()), all(&[&last], state));
    }
    // A key of which nothing is known any more: each reservation is named.
    assert_eq!(named(&cart(&server, "confirm", Some("new")).await.problem(409, "reservation_not_active")).len(), 8);
    assert_invariants(&mut redis.connection().await, History::Whole).await;
}

#[tokio::test]
async fn the_whole_cart_is_extended_or_nothing_of_it() {
    let [tea, cup] = keys::in_one_shard(["tea", "cup"]);
    let redis = RedisServer::start();
    let server = three(&redis, &["--extend-max-seconds", "100"]).await;
    server.seed(cup, 5).await;
    let [first] = held(&server, [tea], 10).await;
    sleep(Duration::from_millis(2500)).await;
    let [second] = held(&server, [cup], 10).await;
    let longer = extend(&server, 60).await.ok();
    assert_eq!(states(&longer), all(&[&first, &second], "active"));
    let expiries: Vec<_> =
        longer["reservations"].as_array().unwrap().iter().map(|record| record["expiresAt"].clone()).collect();
    assert_eq!(expiries, [longer["expiresAt"].clone(), longer["expiresAt"].clone()], "one expiry again");
    let before = Snapshot::take(&mut redis.connection().await).await;
    // The second could have this much time, and the first could not.
    let problem = extend(&server, 98).await.problem(409, "extension_limit_reached");
    let errors = problem["errors"].as_array().unwrap();
    assert_eq!((errors.len(), &errors[0]["reservationId"], &errors[0]["sku"]), (1, &json!(first), &json!(tea)));
    assert_eq!(errors[0]["maxExpiresAt"], problem["maxExpiresAt"]);
    assert_eq!(before, Snapshot::take(&mut redis.connection().await).await);
    for body in [json!({}), json!({ "ttlSeconds": 0 }), json!({ "ttlSeconds": "60" })] {
        server.post("/api/carts/c/extend", body).await.problem(400, "invalid_request");
    }
    server.post("/api/carts/nobody/extend", json!({ "ttlSeconds": 5 })).await.problem(404, "unknown_cart");
    server.post("/api/carts/c/confirm", json!({ "ttlSeconds": 5 })).await.problem(400, "invalid_request");
    server.post("/api/carts/c/release?force=1", None).await.problem(400, "invalid_request");
}

/// A record is dropped a time after its end. Then the cart is forgotten, and its list is no obstacle.
#[tokio::test]
async fn what_is_long_over_is_left_out() {
    let [tea, cup] = keys::in_one_shard(["tea", "cup"]);
    let redis = RedisServer::start();
    let server = three(&redis, &["--keep-seconds", "1"]).await;
    server.seed(cup, 5).await;
    held(&server, [tea, cup], 600).await;
    cart(&server, "release", Some("key")).await.ok();
    sleep(Duration::from_millis(1100)).await;
    cart(&server, "release", Some("key")).await.problem(404, "unknown_cart");
    server.get("/api/carts/c").await.problem(404, "unknown_cart");
    let [id] = held(&server, [tea], 600).await;
    assert_eq!(states(&cart(&server, "confirm", Some("key")).await.ok()), all(&[&id], "confirmed"));
    let list = keys::cart_of(tea, "c");
    let listed: u64 = cmd("HLEN").arg(list).query_async(&mut redis.connection().await).await.unwrap();
    assert_eq!(listed, 3);
}
