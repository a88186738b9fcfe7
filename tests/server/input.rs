//! Bad input is answered with a 4xx that names the field and its rule, and changes nothing.

use hyper::Request;
use serde_json::{Value, json};

use crate::support::redis_server::RedisServer;
use crate::support::snapshot::Snapshot;
use crate::support::stockhold::{Answer, Stockhold};

const HOLD: &str = "/api/reservations/hold";
const SEED: &str = "/api/inventory/seed";

/// A POST of exactly these bytes as JSON.
async fn post_raw(server: &Stockhold, path: &str, body: impl Into<Vec<u8>>) -> Answer {
    let request = Request::post(server.url(path)).header("content-type", "application/json");
    server.send(request, body.into().into()).await
}

/// The fields that a 400 names.
#[track_caller]
fn bad_fields(answer: Answer) -> Vec<String> {
    let problem = answer.problem(400, "invalid_request");
    let errors = problem["errors"].as_array().unwrap();
    assert!(errors.iter().all(|error| !error["detail"].as_str().unwrap().is_empty()));
    errors.iter().map(|error| error["field"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn quantities_and_ttls() {
    let redis = RedisServer::start();
    let server = Stockhold::start_with(&redis, &["--sweep-interval-ms", "60000"]);
    server.seed("sku", 5).await;

    let wrong = ["-1", "1.5", "1.0", "\"2\"", "true", "null", "[]", "{}", "1e3", "1e18", "1000000001"];
    for bad in wrong.into_iter().chain(["1000000000000000000", "99999999999999999999"]) {
        let seed = post_raw(&server, SEED, format!(r#"{{"sku":"sku","quantity":{bad}}}"#)).await;
        assert_eq!(bad_fields(seed), ["quantity"], "{bad}");
        let hold = post_raw(&server, HOLD, format!(r#"{{"cartId":"c","sku":"sku","quantity":{bad}}}"#)).await;
        assert_eq!(bad_fields(hold), ["quantity"], "{bad}");
    }
    let hold = post_raw(&server, HOLD, r#"{"cartId":"c","sku":"sku","quantity":0}"#).await;
    assert_eq!(bad_fields(hold), ["quantity"]);
    for bad in wrong.into_iter().chain(["0", "2592001"]) {
        let body = format!(r#"{{"cartId":"c","sku":"sku","quantity":1,"ttlSeconds":{bad}}}"#);
        assert_eq!(bad_fields(post_raw(&server, HOLD, body).await), ["ttlSeconds"], "{bad}");
    }
    let held = server.held("sku", 1).await;
    let [extend, change, release] =
        ["extend", "change", "release"].map(|verb| format!("/api/reservations/{held}/{verb}"));
    let before = Snapshot::take(&mut redis.connection().await).await;
    for bad in wrong.into_iter().chain(["0", "2592001"]) {
        let extended = post_raw(&server, &extend, format!(r#"{{"ttlSeconds":{bad}}}"#)).await;
        assert_eq!(bad_fields(extended), ["ttlSeconds"], "{bad}");
    }
    for bad in wrong.into_iter().chain(["0", "1000000001"]) {
        for path in [&change, &release] {
            let changed = post_raw(&server, path, format!(r#"{{"quantity":{bad}}}"#)).await;
            assert_eq!(bad_fields(changed), ["quantity"], "{bad}");
        }
    }
    for bad in ["nan", "NaN", "inf", "-Infinity", "0x10", "01", "+1", "1.", ".5", "1_000", "'1'", ""] {
        let body = format!(r#"{{"sku":"sku","quantity":{bad}}}"#);
        post_raw(&server, SEED, body).await.problem(400, "invalid_json");
    }
    assert_eq!(Snapshot::take(&mut redis.connection().await).await, before);

    server.seed("sku", 1_000_000_000).await;
    server.held_for("sku", 1_000_000_000, 2_592_000).await;
}

#[tokio::test]
async fn names() {
    let redis = RedisServer::start();
    let server = Stockhold::start_with(&redis, &["--sweep-interval-ms", "60000"]);
    server.seed("sku", 5).await;
    let before = Snapshot::take(&mut redis.connection().await).await;

    let long = ["x".repeat(129), "x".repeat(5000), "é".repeat(65)];
    let common = ["", "a\nb", "a\0b", "\u{7f}", "a\u{85}b"];
    let for_sku = ["a:b", "{a}", "a b", "\u{a0}", "\u{3000}", "audit", ".", ".."];
    for bad in common.into_iter().chain(long.iter().map(String::as_str)) {
        let hold = server.post(HOLD, json!({ "cartId": bad, "sku": "sku", "quantity": 1 })).await;
        assert_eq!(bad_fields(hold), ["cartId"], "{bad:?}");
    }
    for bad in common.into_iter().chain(for_sku).chain(long.iter().map(String::as_str)) {
        assert_eq!(bad_fields(server.post(SEED, json!({ "sku": bad, "quantity": 1 })).await), ["sku"], "{bad:?}");
        let hold = server.post(HOLD, json!({ "cartId": "c", "sku": bad, "quantity": 1 })).await;
        assert_eq!(bad_fields(hold), ["sku"], "{bad:?}");
        let escaped: String = bad.bytes().map(|byte| format!("%{byte:02X}")).collect();
        if !bad.is_empty() && escaped.len() < 4000 {
            assert_eq!(bad_fields(server.get(&format!("/api/inventory/{escaped}")).await), ["sku"], "{bad:?}");
        }
        if escaped.len() < 4000 {
            assert_eq!(bad_fields(server.get(&format!("/api/audit?sku={escaped}")).await), ["sku"], "{bad:?}");
        }
    }
    // Invalid UTF-8 in a body and in a path.
    post_raw(&server, SEED, b"{\"sku\":\"\xff\xfe\",\"quantity\":1}").await.problem(400, "invalid_json");
    post_raw(&server, SEED, br#"{"sku":"\ud800","quantity":1}"#).await.problem(400, "invalid_json");
    for path in ["%ff", "%c0%80", "%ed%a0%80", "%", "%4", "%zz"] {
        server.get(&format!("/api/inventory/{path}")).await.problem(400, "invalid_request");
        server.get(&format!("/api/audit?sku={path}")).await.problem(400, "invalid_request");
    }
    for id in ["nope", "018f000000008abc800000000000000a", "%7B018f0000-0000-8abc-8000-00000000000a%7D"] {
        assert_eq!(bad_fields(server.get(&format!("/api/reservations/{id}")).await), ["reservationId"]);
        assert_eq!(bad_fields(server.confirm(id).await), ["reservationId"]);
        assert_eq!(bad_fields(server.release(id).await), ["reservationId"]);
        let extend = server.post(&format!("/api/reservations/{id}/extend"), json!({ "ttlSeconds": 60 })).await;
        assert_eq!(bad_fields(extend), ["reservationId"]);
        for verb in ["change", "release"] {
            let change = server.post(&format!("/api/reservations/{id}/{verb}"), json!({ "quantity": 1 })).await;
            assert_eq!(bad_fields(change), ["reservationId"]);
        }
    }
    assert_eq!(Snapshot::take(&mut redis.connection().await).await, before);
}

#[tokio::test]
async fn fields() {
    let redis = RedisServer::start();
    let server = Stockhold::start_with(&redis, &["--sweep-interval-ms", "60000"]);
    server.seed("sku", 5).await;
    let id = server.held("sku", 1).await;
    let before = Snapshot::take(&mut redis.connection().await).await;

    assert_eq!(bad_fields(server.post(HOLD, json!({})).await), ["cartId", "sku", "quantity"]);
    assert_eq!(bad_fields(server.post(SEED, json!({})).await), ["sku", "quantity"]);
    let everything = r#"{"cartId":7,"sku":"a b","quantity":0,"ttlSeconds":null,"ttl":3,"sku2":1}"#;
    let named = bad_fields(post_raw(&server, HOLD, everything).await);
    assert_eq!(named, ["cartId", "sku", "quantity", "ttlSeconds", "ttl", "sku2"]);
    for twice in [
        r#"{"cartId":"c","sku":"sku","quantity":1,"quantity":1}"#,
        r#"{"cartId":"c","quantity":1,"sku":"sku","\u0071uantity":2}"#,
    ] {
        assert_eq!(bad_fields(post_raw(&server, HOLD, twice).await), ["quantity"]);
    }
    for none in
        ["", "[]", "1", "\"x\"", "null", "{", r#"{"sku":"sku","quantity":1} x"#, r#"{"sku":"sku",}"#, "\u{feff}{}"]
    {
        post_raw(&server, SEED, none).await.problem(400, "invalid_json");
    }
    let deep = format!(r#"{{"sku":{}1{}}}"#, "[".repeat(5000), "]".repeat(5000));
    post_raw(&server, SEED, deep).await.problem(400, "invalid_json");

    for path in ["confirm", "release"] {
        let path = format!("/api/reservations/{id}/{path}");
        assert_eq!(bad_fields(server.post(&path, json!({ "force": true })).await), ["force"]);
        server.post(&path, json!([])).await.problem(400, "invalid_json");
    }
    let extend = format!("/api/reservations/{id}/extend");
    assert_eq!(bad_fields(server.post(&extend, json!({})).await), ["ttlSeconds"]);
    assert_eq!(bad_fields(server.post(&extend, json!({ "ttlSeconds": 60, "ttlMs": 1 })).await), ["ttlMs"]);
    post_raw(&server, &extend, "").await.problem(400, "invalid_json");
    let confirm = format!("/api/reservations/{id}/confirm");
    for (body, bad) in [
        (json!({ "quantity": 0 }), vec!["quantity"]),
        (json!({ "quantity": null, "ifExpired": "reacquire" }), vec!["quantity"]),
        (json!({ "ifExpired": "" }), vec!["ifExpired"]),
        (json!({ "ifExpired": true, "quantity": 1 }), vec!["ifExpired"]),
        (json!({ "ifExpired": "release", "quantity": "1", "force": 1 }), vec!["quantity", "ifExpired", "force"]),
    ] {
        assert_eq!(bad_fields(server.post(&confirm, body.clone()).await), bad, "{body}");
    }
    let [change, release] = ["change", "release"].map(|verb| format!("/api/reservations/{id}/{verb}"));
    assert_eq!(bad_fields(server.post(&change, json!({})).await), ["quantity"]);
    for path in [&change, &release] {
        assert_eq!(bad_fields(server.post(path, json!({ "quantity": 1, "units": 1 })).await), ["units"]);
        assert_eq!(bad_fields(server.post(path, json!({ "quantity": 0, "units": 1 })).await), ["quantity", "units"]);
    }
    for (query, field) in [
        ("inventory/sku?active=-1", "active"),
        ("inventory/sku?active=10001", "active"),
        ("inventory/sku?active=1.5", "active"),
        ("inventory/sku?active=", "active"),
        ("inventory/sku?active=1&active=2", "active"),
        ("inventory/sku?acive=1", "acive"),
        ("audit?limit=0", "limit"),
        ("audit?limit=1001", "limit"),
        ("audit?limit=0x10", "limit"),
        ("audit?limit=1e2", "limit"),
        ("audit?limt=5", "limt"),
        ("inventory?limit=0", "limit"),
        ("inventory?limit=1001", "limit"),
        ("inventory?after=a%20b", "after"),
        ("inventory?after=", "after"),
        ("inventory?availableBelow=0", "availableBelow"),
        ("inventory?availableBelow=1000000000001", "availableBelow"),
        ("inventory?availableBelow=-1", "availableBelow"),
        ("inventory?sku=sku", "sku"),
        ("reservations", "sku"),
        ("reservations?sku=", "sku"),
        ("reservations?sku=sku&state=confirmed", "state"),
        ("reservations?sku=sku&state=", "state"),
        ("reservations?sku=sku&limit=1001", "limit"),
        ("reservations?sku=sku&after=1-x", "after"),
        ("reservations?sku=sku&after=018f3b9e-5c1a-8000-9f10-0242ac120002", "after"),
        ("reservations?sku=sku&cartId=c", "cartId"),
    ] {
        assert_eq!(bad_fields(server.get(&format!("/api/{query}")).await), [field], "{query}");
    }
    // Fields in the place where the other kind of request has them would have no effect.
    let good = r#"{"cartId":"c","sku":"sku","quantity":1}"#;
    assert_eq!(bad_fields(post_raw(&server, &format!("{HOLD}?ttlSeconds=5&x"), good).await), ["ttlSeconds", "x"]);
    assert_eq!(bad_fields(server.post(&format!("/api/reservations/{id}/confirm?force=1"), None).await), ["force"]);
    post_raw(&server, &format!("{HOLD}?a=%zz"), good).await.problem(400, "invalid_request");
    assert_eq!(bad_fields(server.send(Request::get(server.url("/api/audit")), "{}".into()).await), ["body"]);
    let record = Request::get(server.url(&format!("/api/reservations/{id}?full=1")));
    assert_eq!(bad_fields(server.send(record, Default::default()).await), ["full"]);
    assert_eq!(Snapshot::take(&mut redis.connection().await).await, before);
}

#[tokio::test]
async fn media_types() {
    let redis = RedisServer::start();
    let server = Stockhold::start(&redis);
    let body: Value = json!({ "sku": "sku", "quantity": 1 });
    let post = async |headers: &[(&str, &str)]| {
        let request = Request::post(server.url(SEED));
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        server.send(request, body.to_string().into()).await
    };
    for bad in [
        &[][..],
        &[("content-type", "text/plain")],
        &[("content-type", "application/x-www-form-urlencoded")],
        &[("content-type", "application/jsonx")],
        &[("content-type", "application/json"), ("content-encoding", "gzip")],
    ] {
        post(bad).await.problem(415, "unsupported_media_type");
    }
    post(&[("content-type", "Application/JSON; charset=utf-8")]).await.ok();
}

#[tokio::test]
async fn paths_and_methods() {
    let redis = RedisServer::start();
    let server = Stockhold::start(&redis);
    server.seed("sku", 5).await;
    for path in [
        "/api",
        "/api/inventories",
        "/api/inventory/sku/",
        "/api/inventory/",
        "/API/audit",
        "//api/audit",
        "/api/reservations/x/y",
    ] {
        let answer = server.get(path).await;
        if path == "/api/inventory/" {
            answer.problem(400, "invalid_request");
        } else {
            answer.problem(404, "unknown_path");
        }
    }
}

/// Every resource with every method: it is answered, or refused with the list of methods that are allowed.
#[tokio::test]
async fn resources_by_methods() {
    let redis = RedisServer::start();
    let server = Stockhold::start(&redis);
    server.seed("sku", 50).await;
    let id = server.held("sku", 1).await;
    let items = json!({ "items": [{ "sku": "sku", "quantity": 1 }] });
    server.post("/api/carts/c/hold", items).await.ok();
    // There is no SKU of this name.
    let is_missing = |path: &str| path.ends_with("/inventory/seed") || path.ends_with("/inventory/adjust");
    for (path, allow) in [
        ("/livez".to_owned(), "GET, HEAD"),
        ("/readyz".to_owned(), "GET, HEAD"),
        ("/api/inventory/seed".to_owned(), "GET, HEAD, POST"),
        ("/api/inventory/adjust".to_owned(), "GET, HEAD, POST"),
        ("/api/inventory".to_owned(), "GET, HEAD"),
        ("/api/inventory/sku".to_owned(), "GET, HEAD"),
        ("/api/inventory/sku/adjust".to_owned(), "POST"),
        ("/api/reservations".to_owned(), "GET, HEAD"),
        ("/api/reservations/hold".to_owned(), "POST"),
        (format!("/api/reservations/{id}"), "GET, HEAD"),
        (format!("/api/reservations/{id}/confirm"), "POST"),
        (format!("/api/reservations/{id}/release"), "POST"),
        ("/api/carts/c".to_owned(), "GET, HEAD"),
        ("/api/carts/c/hold".to_owned(), "POST"),
        ("/api/carts/c/confirm".to_owned(), "POST"),
        ("/api/carts/c/release".to_owned(), "POST"),
        ("/api/carts/c/extend".to_owned(), "POST"),
        (format!("/api/reservations/{id}/change"), "POST"),
        (format!("/api/reservations/{id}/return"), "POST"),
        ("/api/audit".to_owned(), "GET, HEAD"),
    ] {
        for method in ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW"] {
            let request = Request::builder().method(method).uri(server.url(&path));
            let answer = server.send(request.header("content-type", "application/json"), Default::default()).await;
            if allow.split(", ").any(|allowed| allowed == method) {
                assert!(![404, 405].contains(&answer.status.as_u16()) || is_missing(&path), "{method} {path}");
            } else {
                assert_eq!(answer.status, 405, "{method} {path}");
                assert_eq!(answer.headers["allow"], allow, "{method} {path}");
                if method != "HEAD" {
                    answer.problem(405, "method_not_allowed");
                }
            }
        }
    }
}

/// HEAD has the headers of GET, with the same length, and no body.
#[tokio::test]
async fn every_get_endpoint_answers_head() {
    let redis = RedisServer::start();
    let server = Stockhold::start(&redis);
    server.seed("sku", 5).await;
    let id = server.held("sku", 1).await;
    for path in [
        "/livez",
        "/readyz",
        "/api/inventory",
        "/api/inventory/sku",
        "/api/audit",
        "/nowhere",
        "/api/carts/c",
        &format!("/api/reservations/{id}"),
    ] {
        let ask = async |method: &str| {
            let request = Request::builder().method(method).uri(server.url(path)).header("x-request-id", "same");
            server.send(request, Default::default()).await
        };
        let (mut get, mut head) = (ask("GET").await, ask("HEAD").await);
        assert_eq!((head.status, &head.body), (get.status, &Value::Null), "{path}");
        for answer in [&mut get, &mut head] {
            answer.headers.remove("date");
        }
        assert_eq!(head.headers, get.headers, "{path}");
    }
}

#[tokio::test]
async fn request_ids() {
    let redis = RedisServer::start();
    let server = Stockhold::start(&redis);
    let ask = async |id: &str| {
        let request = Request::get(server.url("/livez")).header("x-request-id", id);
        server.send(request, Default::default()).await.headers["x-request-id"].to_str().unwrap().to_owned()
    };
    assert_eq!(ask("trace-17").await, "trace-17");
    for unfit in ["a b", &"x".repeat(129)] {
        let minted = ask(unfit).await;
        assert_eq!(minted.len(), 36, "{minted}");
    }
    let minted = server.get("/nowhere").await;
    assert_eq!(minted.headers["x-request-id"].len(), 36);
    minted.problem(404, "unknown_path");
}
