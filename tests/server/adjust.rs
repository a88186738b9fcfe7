//! Adjusting over HTTP: units come and go, one SKU at a time or many.

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

const MANY: &str = "/api/inventory/adjust";

/// No sweep within a test: only a request sweeps.
const NO_SWEEPER: [&str; 2] = ["--sweep-interval-ms", "60000"];

async fn adjust(server: &Stockhold, sku: &str, body: Value, key: Option<&str>) -> Answer {
    server.post_with(&format!("/api/inventory/{sku}/adjust"), body, key).await
}

fn is_replay(answer: &Answer) -> bool {
    answer.headers.get("idempotent-replayed").is_some_and(|value| value == "true")
}

/// The counts in a body, and the version.
fn counts(body: &Value) -> [u64; 4] {
    ["available", "reserved", "confirmed", "version"].map(|name| body[name].as_u64().unwrap())
}

/// SKU and code of each result; done is 200.
fn told(results: &Value) -> Vec<(&str, &str)> {
    let results = results.as_array().unwrap();
    results.iter().map(|result| (result["sku"].as_str().unwrap(), result["code"].as_str().unwrap_or("200"))).collect()
}

#[tokio::test]
async fn ten_jackets_arrive_at_noon() {
    let redis = RedisServer::start();
    let server = Stockhold::start(&redis);
    server.seed("jacket", 5).await;
    let held = server.held("jacket", 2).await;
    let sold = server.held("jacket", 1).await;
    server.confirm(&sold).await.ok();

    let arrived = adjust(&server, "jacket", json!({ "delta": 10, "reason": "delivery 4711" }), None).await.ok();
    assert_eq!(counts(&arrived), [12, 2, 1, 5]);
    let fields: Vec<_> = arrived.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(fields, ["sku", "available", "reserved", "confirmed", "updatedAt", "version"]);
    let stock = server.stock("jacket").await;
    for name in fields {
        assert_eq!(stock[name], arrived[name], "{name}");
    }
    assert_eq!(counts(&adjust(&server, "jacket", json!({ "delta": -3 }), None).await.ok()), [9, 2, 1, 6]);
    assert_eq!(counts(&adjust(&server, "jacket", json!({ "available": 40 }), None).await.ok()), [40, 2, 1, 7]);
    let events = server.events("jacket", 3).await;
    let words = |event: &Value| {
        assert!(event.get("reservationId").is_none() && event.get("cartId").is_none(), "{event}");
        ["event", "state", "quantity", "reason"].map(|name| event.get(name).cloned().unwrap_or_default())
    };
    assert_eq!(words(&events[0]), [json!("adjust"), json!("added"), json!(31), json!(null)]);
    assert_eq!(words(&events[1]), [json!("adjust"), json!("removed"), json!(3), json!(null)]);
    assert_eq!(words(&events[2]), [json!("adjust"), json!("added"), json!(10), json!("delivery 4711")]);

    server.confirm(&held).await.ok();
    assert_eq!(server.counts("jacket").await, [40, 0, 3]);
    assert_invariants(&mut redis.connection().await, History::Whole).await;
}

#[tokio::test]
async fn refusals_change_nothing_and_say_why() {
    let [sku, nil] = keys::in_one_shard(["sku", "nil"]);
    let redis = RedisServer::start();
    let server = Stockhold::start_with(&redis, &NO_SWEEPER);
    server.seed(sku, 5).await;
    server.held(sku, 2).await;
    let mut connection = redis.connection().await;
    let before = Snapshot::take(&mut connection).await;

    let problem = adjust(&server, sku, json!({ "delta": -4 }), Some("k")).await.problem(409, "insufficient_inventory");
    assert_eq!((&problem["title"], &problem["available"]), (&json!("Insufficient inventory"), &json!(3)));
    assert_eq!(problem["requested"], 4);
    let problem = adjust(&server, sku, json!({ "delta": 1, "ifVersion": 1 }), Some("k")).await;
    assert_eq!(problem.problem(409, "stale_version")["version"], 2);
    adjust(&server, nil, json!({ "delta": 1 }), Some("k")).await.problem(404, "unknown_sku");
    let all = json!({ "mode": "all", "adjustments": [
        { "sku": sku, "delta": 1 }, { "sku": sku, "delta": -9 }, { "sku": nil, "available": 3 },
    ] });
    let problem = server.post_with(MANY, all, Some("k")).await.problem(409, "adjustments_refused");
    assert_eq!(told(&problem["errors"]), [(sku, "insufficient_inventory"), (nil, "unknown_sku")]);
    assert_eq!(problem["errors"][0]["available"], 4, "with what the first line would have added");
    assert_eq!(before.changed(&Snapshot::take(&mut connection).await), Vec::<String>::new());

    let most = 1_000_000_000_000_u64;
    let (few, all) = ((most - 2).to_string(), most.to_string());
    let full = ["available", &few, "seeded", &all];
    cmd("HSET").arg(keys::inventory(sku)).arg(&full).exec_async(&mut connection).await.unwrap();
    adjust(&server, sku, json!({ "delta": 1 }), None).await.problem(409, "excessive_inventory");
    adjust(&server, sku, json!({ "delta": -1 }), None).await.ok();
}

#[tokio::test]
async fn a_sku_comes_into_being_when_told_so() {
    let redis = RedisServer::start();
    let server = Stockhold::start(&redis);
    let made = adjust(&server, "new", json!({ "available": 7, "create": true, "ifVersion": 0 }), None).await.ok();
    assert_eq!(counts(&made), [7, 0, 0, 1]);
    adjust(&server, "new", json!({ "delta": 7, "create": true, "ifVersion": 0 }), None)
        .await
        .problem(409, "stale_version");
    assert_eq!(counts(&adjust(&server, "new", json!({ "delta": 1, "create": true }), None).await.ok()), [8, 0, 0, 2]);
    adjust(&server, "other", json!({ "delta": 1, "create": false }), None).await.problem(404, "unknown_sku");
    server.held("new", 8).await;
    assert_invariants(&mut redis.connection().await, History::Whole).await;
}

#[tokio::test]
async fn one_key_is_one_adjustment_of_a_sku() {
    let redis = RedisServer::start();
    let server = Stockhold::start(&redis);
    server.seed("sku", 5).await;
    server.seed("other", 5).await;
    let body = json!({ "delta": 10, "reason": "delivery" });
    let first = adjust(&server, "sku", body.clone(), Some("noon")).await;
    assert!(!is_replay(&first));
    // The answer is that of the first request, whatever happened since.
    server.held("sku", 2).await;
    let again = adjust(&server, "sku", body.clone(), Some("noon")).await;
    assert!(is_replay(&again));
    assert_eq!(first.ok(), again.ok());
    assert_eq!(server.counts("sku").await, [13, 2, 0]);
    for (other, what) in [
        (json!({ "delta": 11, "reason": "delivery" }), "number of units"),
        (json!({ "available": 10, "reason": "delivery" }), "kind of change"),
        (json!({ "delta": 10 }), "reason"),
        (json!({ "delta": 10, "reason": "delivery", "ifVersion": 1 }), "ifVersion"),
        (json!({ "delta": 10, "reason": "delivery", "create": true }), "create"),
    ] {
        let problem = adjust(&server, "sku", other, Some("noon")).await.problem(422, "idempotency_key_reused");
        assert!(problem["detail"].as_str().unwrap().contains(&format!("another {what}")), "{problem}");
    }
    // Another SKU with the same key, and a hold with the same key, are requests of their own.
    assert!(!is_replay(&adjust(&server, "other", body, Some("noon")).await));
    let hold = json!({ "cartId": "c", "sku": "sku", "quantity": 1 });
    assert!(!is_replay(&server.post_with("/api/reservations/hold", hold, Some("noon")).await));
    // A refusal is not remembered.
    adjust(&server, "sku", json!({ "delta": -99 }), Some("later")).await.problem(409, "insufficient_inventory");
    adjust(&server, "sku", json!({ "delta": 99 }), Some("first")).await.ok();
    assert!(!is_replay(&adjust(&server, "sku", json!({ "delta": -99 }), Some("later")).await));
    assert_eq!(server.counts("sku").await, [12, 3, 0]);
    assert_invariants(&mut redis.connection().await, History::Whole).await;
}

#[tokio::test]
async fn many_at_once_each_has_its_own_outcome() {
    let redis = RedisServer::start();
    let server = Stockhold::start(&redis);
    server.seed("tea", 5).await;
    server.seed("cup", 1).await;
    let body = json!({ "adjustments": [
        { "sku": "tea", "delta": 3, "reason": "delivery" },
        { "sku": "cup", "delta": -2 },
        { "sku": "nil", "delta": 1 },
        { "sku": "tea", "available": 20, "ifVersion": 2 },
        { "sku": "tea", "delta": 3, "ifVersion": 1 },
        { "sku": "new", "available": 4, "create": true },
    ] });
    let results = server.post(MANY, body.clone()).await.ok()["results"].clone();
    let codes = [
        ("tea", "200"),
        ("cup", "insufficient_inventory"),
        ("nil", "unknown_sku"),
        ("tea", "200"),
        ("tea", "stale_version"),
        ("new", "200"),
    ];
    assert_eq!(told(&results), codes);
    assert_eq!([0, 3, 5].map(|at: usize| counts(&results[at])), [[8, 0, 0, 2], [20, 0, 0, 3], [4, 0, 0, 1]]);
    assert_eq!(
        (&results[1]["status"], &results[1]["available"], &results[4]["version"]),
        (&json!(409), &json!(1), &json!(3))
    );
    for member in ["type", "title", "detail"] {
        assert!(results[2][member].is_string(), "{}", results[2]);
    }
    // The mode that is meant when none is given.
    let each = json!({ "mode": "each", "adjustments": body["adjustments"] });
    assert_eq!(told(&server.post(MANY, each).await.ok()["results"])[0], ("tea", "200"));
    assert_invariants(&mut redis.connection().await, History::Whole).await;
}

#[tokio::test]
async fn many_at_once_with_a_key_are_made_once() {
    let [tea, cup] = keys::in_one_shard(["tea", "cup"]);
    let redis = RedisServer::start();
    let server = Stockhold::start(&redis);
    server.seed(tea, 5).await;
    server.seed(cup, 5).await;
    for mode in ["each", "all"] {
        // The same line twice is meant twice.
        let body = json!({ "mode": mode, "adjustments": [
            { "sku": tea, "delta": 1 }, { "sku": cup, "delta": -1 }, { "sku": tea, "delta": 1 },
        ] });
        let first = server.post_with(MANY, body.clone(), Some(mode)).await;
        assert!(!is_replay(&first));
        let again = server.post_with(MANY, body.clone(), Some(mode)).await;
        assert!(is_replay(&again));
        assert_eq!(first.ok(), again.ok());
        let more = json!({ "mode": mode, "adjustments": [{ "sku": tea, "delta": 1 }, { "sku": cup, "delta": 5 }] });
        let other = server.post_with(MANY, more, Some(mode)).await;
        assert!(!is_replay(&other));
        let results = if mode == "all" { "errors" } else { "results" };
        assert_eq!(told(&other.body[results]).last(), Some(&(cup, "idempotency_key_reused")));
    }
    assert_eq!((server.counts(tea).await, server.counts(cup).await), ([9, 0, 0], [3, 0, 0]));
    assert_invariants(&mut redis.connection().await, History::Whole).await;
}

/// As with a hold: units on lapsed holds are available, although nobody has swept them.
#[tokio::test]
async fn lapsed_holds_are_swept_before_a_refusal() {
    let [tea, cup, pot] = keys::in_one_shard(["tea", "cup", "pot"]);
    let redis = RedisServer::start();
    let server = Stockhold::start_with(&redis, &NO_SWEEPER);
    server.seed(tea, 70).await;
    server.seed(cup, 1).await;
    // More than one call of the sweep takes.
    for _ in 0..60 {
        server.held_for(tea, 1, 1).await;
    }
    server.held_for(cup, 1, 1).await;
    server.held(tea, 4).await;
    sleep(Duration::from_millis(1050)).await;
    adjust(&server, tea, json!({ "delta": -67 }), None).await.problem(409, "insufficient_inventory");
    for mode in ["each", "all"] {
        server.seed(pot, 9).await;
        let cups = if mode == "each" { -1 } else { 1 };
        let teas = if mode == "each" { -60 } else { -6 };
        let body = json!({ "mode": mode, "adjustments": [
            { "sku": pot, "delta": -1 }, { "sku": tea, "delta": teas }, { "sku": cup, "delta": cups },
        ] });
        let answer = server.post(MANY, body).await.ok();
        assert_eq!(told(&answer["results"]), [(pot, "200"), (tea, "200"), (cup, "200")]);
        assert_eq!(server.counts(pot).await, [8, 0, 0], "what was done is not done again");
    }
    assert_eq!((server.counts(tea).await, server.counts(cup).await), ([0, 4, 0], [1, 0, 0]));
    assert_invariants(&mut redis.connection().await, History::Whole).await;
}

#[tokio::test]
async fn every_bad_field_is_named() {
    let redis = RedisServer::start();
    let server = Stockhold::start_with(&redis, &NO_SWEEPER);
    server.seed("sku", 5).await;
    let before = Snapshot::take(&mut redis.connection().await).await;
    let named = async |path: &str, body: &str| {
        let request = Request::post(server.url(path)).header("content-type", "application/json");
        let problem = server.send(request, body.to_owned().into()).await.problem(400, "invalid_request");
        let field = |error: &Value| error["field"].as_str().unwrap().to_owned();
        problem["errors"].as_array().unwrap().iter().map(field).collect::<Vec<_>>()
    };
    let one = "/api/inventory/sku/adjust";
    for (body, fields) in [
        (r#"{}"#, &["delta"][..]),
        (r#"{"delta":1,"available":1}"#, &["available"]),
        (r#"{"delta":0}"#, &["delta"]),
        (r#"{"delta":1.0}"#, &["delta"]),
        (r#"{"delta":"1"}"#, &["delta"]),
        (r#"{"delta":null}"#, &["delta"]),
        (r#"{"delta":[1]}"#, &["delta"]),
        (r#"{"delta":1000000001}"#, &["delta"]),
        (r#"{"delta":-1000000001}"#, &["delta"]),
        (r#"{"delta":-99999999999999999999}"#, &["delta"]),
        (r#"{"delta":1,"delta":1}"#, &["delta"]),
        (r#"{"available":-1}"#, &["available"]),
        (r#"{"available":1000000001}"#, &["available"]),
        (r#"{"delta":1,"ifVersion":-1}"#, &["ifVersion"]),
        (r#"{"delta":1,"ifVersion":1000000000001}"#, &["ifVersion"]),
        (r#"{"delta":1,"ifVersion":"1"}"#, &["ifVersion"]),
        (r#"{"delta":1,"create":1}"#, &["create"]),
        (r#"{"delta":1,"create":null}"#, &["create"]),
        (r#"{"delta":1,"reason":""}"#, &["reason"]),
        (r#"{"delta":1,"reason":"a\nb"}"#, &["reason"]),
        (r#"{"delta":1,"sku":"sku"}"#, &["sku"]),
        (r#"{"delta":1,"mode":"all"}"#, &["mode"]),
        (r#"{"reason":7,"create":2,"ifVersion":[],"x":{}}"#, &["delta", "ifVersion", "create", "reason", "x"]),
    ] {
        assert_eq!(named(one, body).await, fields, "{body}");
    }
    let long = "x".repeat(129);
    assert_eq!(named(one, &format!(r#"{{"delta":1,"reason":"{long}"}}"#)).await, ["reason"]);
    assert_eq!(named(&format!("{one}?delta=1"), r#"{"delta":1}"#).await, ["delta"]);
    assert_eq!(named("/api/inventory/a%20b/adjust", r#"{"delta":1}"#).await, ["sku"]);

    for (body, fields) in [
        (r#"{}"#, &["adjustments"][..]),
        (r#"{"adjustments":[]}"#, &["adjustments"]),
        (r#"{"adjustments":{}}"#, &["adjustments"]),
        (r#"{"adjustments":null}"#, &["adjustments"]),
        (r#"{"adjustments":[{"sku":"sku","delta":1}],"adjustments":[{"sku":"sku","delta":1}]}"#, &["adjustments"]),
        (r#"{"adjustments":[7,{"sku":"sku","delta":1},[]]}"#, &["adjustments[0]", "adjustments[2]"]),
        (r#"{"adjustments":[{"sku":"sku","delta":1}],"mode":"some"}"#, &["mode"]),
        (r#"{"adjustments":[{"sku":"sku","delta":1}],"mode":null,"x":1}"#, &["mode", "x"]),
        (
            r#"{"adjustments":[{"sku":"sku","delta":1},{"sku":"a b","delta":0},{},{"sku":"sku","delta":2,"delta":3}]}"#,
            &[
                "adjustments[1].sku",
                "adjustments[1].delta",
                "adjustments[2].sku",
                "adjustments[2].delta",
                "adjustments[3].delta",
            ],
        ),
        (
            r#"{"adjustments":[{"sku":"sku","delta":1,"mode":"all","create":0}]}"#,
            &["adjustments[0].create", "adjustments[0].mode"],
        ),
    ] {
        assert_eq!(named(MANY, body).await, fields, "{body}");
    }
    let line = r#"{"sku":"sku","delta":1}"#;
    let lines = |count: usize| format!(r#"{{"adjustments":[{}]}}"#, vec![line; count].join(","));
    assert_eq!(named(MANY, &lines(101)).await, ["adjustments"]);
    let bad_key = server.post_with(one, json!({ "delta": 1 }), Some("a b")).await.problem(400, "invalid_request");
    assert_eq!(bad_key["errors"][0]["field"], "Idempotency-Key");
    assert_eq!(Snapshot::take(&mut redis.connection().await).await, before);

    let request = Request::post(server.url(MANY)).header("content-type", "application/json");
    server.send(request, lines(100).into()).await.ok();
    assert_eq!(server.counts("sku").await, [105, 0, 0]);
}

/// Adjustments and holds of the same units, at the same time: none is lost, and none is counted twice.
#[tokio::test]
async fn adjustments_and_holds_at_the_same_time() {
    let redis = RedisServer::start();
    let server = std::sync::Arc::new(Stockhold::start(&redis));
    server.seed("sku", 100).await;
    let mut requests = tokio::task::JoinSet::new();
    for number in 0..64_u64 {
        let server = std::sync::Arc::clone(&server);
        requests.spawn(async move {
            if number.is_multiple_of(2) {
                server.held("sku", 1).await;
                return;
            }
            // Two clients with the same key.
            let (body, key) = (json!({ "delta": 3 }), format!("key-{}", number / 4));
            let body = json!({ "adjustments": [{ "sku": "sku", "delta": body["delta"] }] });
            server.post_with(MANY, body, Some(&key)).await.ok();
        });
    }
    requests.join_all().await;
    assert_eq!(server.counts("sku").await, [100 - 32 + 16 * 3, 32, 0]);
    assert_invariants(&mut redis.connection().await, History::Whole).await;
}
