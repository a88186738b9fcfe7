//! Bytes that are not requests, or that another reader could take for more than one request.

use std::io::{Read, Write};
use std::net::Shutdown;

use serde_json::Value;

use crate::support::redis_server::RedisServer;
use crate::support::snapshot::Snapshot;
use crate::support::stockhold::Stockhold;
use crate::wire::{Raw, connect, exchange, split};

const LIVE: &str = "GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n";
/// A length follows.
const HOLD: &str = "POST /api/reservations/hold HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n";
const BODY: &str = r#"{"cartId":"c","sku":"tea","quantity":1}"#;

/// What is sent, and the maximum number of answers. Every answer must be a refusal.
fn shapes() -> Vec<(Vec<u8>, usize)> {
    let (post, length) = (HOLD, BODY.len());
    let hidden = format!("{HOLD}content-length: {length}\r\n\r\n{BODY}");
    let texts = vec![
        (String::new(), 0),
        ("\r\n\r\n\r\n".to_owned(), 0),
        ("GET\r\n\r\n".to_owned(), 1),
        ("GET /livez\r\n\r\n".to_owned(), 1),
        ("GET /livez HTTP/3.0\r\nhost: localhost\r\n\r\n".to_owned(), 1),
        ("GET  /livez  HTTP/1.1\r\nhost: localhost\r\n\r\n".to_owned(), 1),
        ("GET /livez\0 HTTP/1.1\r\nhost: localhost\r\n\r\n".to_owned(), 1),
        ("GET /livez HTTP/1.1\r\nho st: shop\r\n\r\n".to_owned(), 1),
        ("GET /livez HTTP/1.1\r\nhost: sh\0op\r\n\r\n".to_owned(), 1),
        ("GET /livez HTTP/1.1\r\n: shop\r\n\r\n".to_owned(), 1),
        (format!("GET /livez HTTP/1.1\r\nhost: localhost\r\n{}\r\n", "x: y\r\n".repeat(1000)), 1),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\x06\x04\0\0\0\0\0".to_owned(), 1),
        // Lengths that contradict each other: the rest must not be taken for another request.
        (format!("{post}content-length: {length}\r\ncontent-length: 0\r\n\r\n{BODY}"), 1),
        (format!("{post}content-length: {length}, 0\r\n\r\n{BODY}"), 1),
        (format!("{post}content-length: +{length}\r\n\r\n{BODY}"), 1),
        (format!("{post}content-length: -1\r\n\r\n{hidden}"), 1),
        (format!("{post}content-length: 99999999999999999999999\r\n\r\n{hidden}"), 1),
        (format!("{post}content-length: 0x27\r\n\r\n{BODY}"), 1),
        (format!("{post}transfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n0\r\n\r\n{hidden}"), 2),
        (format!("{post}content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n{hidden}"), 2),
        (format!("{post}transfer-encoding: identity\r\n\r\n{hidden}"), 1),
        (format!("{post}transfer-encoding: xchunked\r\n\r\n{hidden}"), 1),
        (format!("{post}transfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n{hidden}"), 1),
        (format!("{post}transfer-encoding: chunked\r\n\r\nfffffffffffffffff\r\n{hidden}"), 1),
        (format!("{post}transfer-encoding: chunked\r\n\r\n-1\r\n{hidden}"), 1),
        (format!("{post}transfer-encoding: chunked\r\n\r\nx\r\n{hidden}"), 1),
        (format!("{post}transfer-encoding: chunked\r\n\r\n5\r\nhello{hidden}"), 1),
        (format!("{post}transfer-encoding : chunked\r\n\r\n{hidden}"), 1),
        (format!("{post} transfer-encoding: chunked\r\n\r\n{hidden}"), 1),
        (format!("POST /api/reservations/hold HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n{hidden}"), 1),
    ];
    let mut shapes: Vec<_> = texts.into_iter().map(|(text, answers)| (text.into_bytes(), answers)).collect();
    // The start of a TLS handshake, and bytes without meaning.
    shapes.push((b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(), 1));
    shapes.push(((0..=255).cycle().take(100_000).collect(), 1));
    shapes.push((vec![0; 100_000], 1));
    shapes.push((vec![b'A'; 1_000_000], 1));
    shapes
}

/// Every answer says what is wrong, even for bytes that were never a request.
#[track_caller]
fn assert_problem(answer: &Raw) {
    assert_eq!(answer.header("content-type"), Some(&b"application/problem+json"[..]), "{answer:?}");
    assert_eq!(answer.headers.iter().filter(|(name, _)| name == "x-request-id").count(), 1, "{answer:?}");
    let problem: Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(problem["status"], answer.status);
    for member in ["type", "title", "detail", "code"] {
        assert!(!problem[member].as_str().unwrap().is_empty(), "{problem}");
    }
}

/// What hyper refuses to parse is refused in the same form as everything else.
#[tokio::test]
async fn bytes_that_are_not_a_request_get_a_reason() {
    let redis = RedisServer::start();
    let server = Stockhold::start(&redis);
    server.seed("tea", 5).await;
    let hold = format!("{HOLD}content-length: {}\r\n\r\n{BODY}", BODY.len());
    let head = "HEAD /livez HTTP/1.1\r\nhost: localhost\r\n\r\n";
    let wrong = "GET /livez HTTP/1.1\r\nho st: x\r\n\r\n";
    let many = |count| format!("GET /livez HTTP/1.1\r\nhost: localhost\r\n{}\r\n", "x: y\r\n".repeat(count));
    let long = |name, bytes| format!("GET /livez HTTP/1.1\r\nhost: localhost\r\n{name}: {}\r\n\r\n", "x".repeat(bytes));
    for (bytes, expected) in [
        ("GET\r\n\r\n".to_owned(), &[(400, "invalid_http")][..]),
        ("GET /livez HTTP/3.0\r\n\r\n".to_owned(), &[(400, "invalid_http")]),
        ("GET http://[/ HTTP/1.1\r\n\r\n".to_owned(), &[(400, "invalid_http")]),
        (wrong.to_owned(), &[(400, "invalid_http")]),
        (format!("{HOLD}content-length: +1\r\n\r\n{BODY}"), &[(400, "invalid_http")]),
        (format!("{HOLD}content-length: 1\r\ncontent-length: 2\r\n\r\n{BODY}"), &[(400, "invalid_http")]),
        (format!("{HOLD}transfer-encoding: identity\r\n\r\n{BODY}"), &[(400, "invalid_http")]),
        (many(99), &[(200, "")]),
        (many(101), &[(431, "headers_too_large")]),
        (long("x", 20_000), &[(431, "headers_too_large")]),
        (long("x", 200_000), &[(431, "headers_too_large")]),
        (format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(5_000)), &[(414, "uri_too_long")]),
        (format!("{HOLD}transfer-encoding: chunked\r\n\r\nx\r\n"), &[(400, "body_incomplete")]),
        (format!("{HOLD}transfer-encoding: chunked\r\n\r\nfffffffffffffffff\r\n"), &[(400, "body_incomplete")]),
        // After requests that are answered normally.
        (format!("{hold}{wrong}"), &[(200, ""), (400, "invalid_http")]),
        (format!("{LIVE}{}{LIVE}", many(101)), &[(200, ""), (431, "headers_too_large")]),
        // The length of the chunks counts, and nothing after them is taken for a separate request.
        (
            format!("{HOLD}content-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n{hold}"),
            &[(400, "invalid_json")],
        ),
    ] {
        let shown = bytes[..bytes.len().min(200)].to_owned();
        let address = server.address;
        let answer = tokio::task::spawn_blocking(move || exchange(address, bytes.as_bytes())).await.unwrap();
        let answers = split(&answer).0;
        let told = |answer: &Raw| match answer.status {
            200 => (200, String::new()),
            status => {
                assert_problem(answer);
                let problem: Value = serde_json::from_slice(&answer.body).unwrap();
                (status, problem["code"].as_str().unwrap().to_owned())
            }
        };
        let told: Vec<_> = answers.iter().map(told).collect();
        let expected: Vec<_> = expected.iter().map(|(status, code)| (*status, (*code).to_owned())).collect();
        assert_eq!(told, expected, "{shown:?}");
    }
    // An answer to HEAD has a length and no body.
    let address = server.address;
    let bytes = format!("{head}{wrong}");
    let answer = tokio::task::spawn_blocking(move || exchange(address, bytes.as_bytes())).await.unwrap();
    let answer = String::from_utf8(answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains(r#""code":"invalid_http""#), "{answer}");
}

#[tokio::test]
async fn bytes_that_are_not_a_request_are_refused_and_change_nothing() {
    let redis = RedisServer::start();
    let server = Stockhold::start(&redis);
    server.seed("tea", 5).await;
    let mut connection = redis.connection().await;
    let before = Snapshot::take(&mut connection).await;
    for (bytes, most) in shapes() {
        let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(300)]).into_owned();
        let address = server.address;
        let sent = bytes.clone();
        let answer = tokio::task::spawn_blocking(move || exchange(address, &sent)).await.unwrap();
        let answers = split(&answer).0;
        assert!(answers.len() <= most, "{shown:?} was answered {answers:?}");
        assert!(answers.iter().all(|answer| (400..500).contains(&answer.status)), "{shown:?} was answered {answers:?}");
        answers.iter().for_each(assert_problem);
        assert_eq!(before.changed(&Snapshot::take(&mut connection).await), Vec::<String>::new(), "{shown:?}");
        server.get("/livez").await.ok();
    }
}

/// Requests before garbage are served, and the garbage is not. There are only a few requests, so that their answers are
/// sent before the unread rest resets the connection.
#[tokio::test]
async fn garbage_after_requests_does_not_affect_them() {
    const REQUESTS: usize = 5;
    let redis = RedisServer::start();
    let server = Stockhold::start(&redis);
    let mut bytes = LIVE.repeat(REQUESTS).into_bytes();
    bytes.extend((0..=255).cycle().take(10_000));
    let address = server.address;
    let answer = tokio::task::spawn_blocking(move || exchange(address, &bytes)).await.unwrap();
    let statuses: Vec<_> = split(&answer).0.iter().map(|answer| answer.status).collect();
    assert_eq!(statuses[..REQUESTS], [200; REQUESTS]);
    assert!(statuses[REQUESTS..].iter().all(|status| *status == 400) && statuses.len() <= REQUESTS + 1, "{statuses:?}");
    server.get("/livez").await.ok();
}

#[tokio::test]
async fn a_client_that_closed_its_sending_side_still_gets_the_answers() {
    let redis = RedisServer::start();
    let server = Stockhold::start(&redis);
    server.seed("tea", 5).await;
    let hold = format!("{HOLD}content-length: {}\r\n\r\n{BODY}", BODY.len());
    let mut stream = connect(server.address);
    stream.write_all((hold + LIVE).as_bytes()).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let answer = tokio::task::spawn_blocking(move || {
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        answer
    });
    let statuses: Vec<_> = split(&answer.await.unwrap()).0.iter().map(|answer| answer.status).collect();
    assert_eq!(statuses, [200, 200]);
    assert_eq!(server.counts("tea").await, [4, 1, 0]);
}
