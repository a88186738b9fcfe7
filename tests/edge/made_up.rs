//! Random variants of good requests: whatever is sent, the answer is one that is documented.

use std::env;
use std::net::SocketAddr;

use fastrand::Rng;
use serde_json::Value;

use crate::support::invariants::{History, assert_invariants};
use crate::support::redis_server::RedisServer;
use crate::support::snapshot::Snapshot;
use crate::support::stockhold::Stockhold;
use crate::wire::{Raw, exchange, most_memory, split};

const CASES: u64 = 1500;
const MEMORY: u64 = 64 << 20;
/// After one of this number of cases, everything that is stored is compared.
const LOOK: u64 = 50;

const STATUSES: [u16; 15] = [200, 400, 401, 403, 404, 405, 408, 409, 413, 414, 415, 421, 422, 431, 503];
const ID: &str = "00000000-0000-8000-8000-00000000000a";

/// Pieces that mean something in some place.
const SPICES: [&[u8]; 40] = [
    b"\0",
    b"\r\n",
    b"\n",
    b"\r",
    b" ",
    b"\t",
    b":",
    b"/",
    b"//",
    b"..",
    b"/../",
    b"%",
    b"%00",
    b"%2f",
    b"%ff",
    b"%c0%af",
    b"?",
    b"&",
    b"=",
    b"#",
    b"{",
    b"}",
    b"\"",
    b"\\",
    b"\\u0000",
    b"\\ud800",
    b"\xff",
    b"\xc0\xaf",
    b"\xed\xa0\x80",
    b"\xef\xbb\xbf",
    b"NaN",
    b"-1",
    b"1e999",
    b"99999999999999999999",
    b"0.1",
    b"null",
    b"[",
    b"]",
    b"content-length: 1\r\n",
    b"x-request-id: a\r\n b\r\n",
];

fn setting(name: &str) -> Option<u64> {
    env::var(name).ok().map(|text| text.parse().expect("a whole number"))
}

fn good(rng: &mut Rng) -> Vec<u8> {
    let (method, target, body) = match rng.u32(..21) {
        0 => ("POST", "/api/inventory/seed".to_owned(), r#"{"sku":"tea","quantity":5}"#.to_owned()),
        1 | 2 => (
            "POST",
            "/api/reservations/hold".to_owned(),
            format!(r#"{{"cartId":"c","sku":"tea","quantity":1,"ttlSeconds":{}}}"#, rng.u32(1..9)),
        ),
        3 => ("POST", "/api/reservations/hold".to_owned(), json(rng, 0)),
        4 => ("POST", format!("/api/reservations/{ID}/confirm"), String::new()),
        5 => ("POST", format!("/api/reservations/{ID}/release"), "{}".to_owned()),
        6 => ("GET", "/api/inventory/tea?active=10".to_owned(), String::new()),
        7 => ("GET", format!("/api/reservations/{ID}"), String::new()),
        8 => ("GET", "/api/audit?sku=tea&limit=10".to_owned(), String::new()),
        9 => {
            let body = format!(r#"{{"ttlSeconds":{}}}"#, rng.u32(1..9));
            ("POST", format!("/api/reservations/{ID}/extend"), body)
        }
        10 => (
            "POST",
            "/api/inventory/tea/adjust".to_owned(),
            format!(r#"{{"delta":{},"reason":"r","ifVersion":7,"create":true}}"#, rng.i32(-3..9)),
        ),
        11 => (
            "POST",
            "/api/inventory/adjust".to_owned(),
            format!(r#"{{"mode":"all","adjustments":[{{"sku":"tea","available":5}},{}]}}"#, json(rng, 1)),
        ),
        12 => ("GET", "/api/inventory?limit=3&after=a&availableBelow=7".to_owned(), String::new()),
        13 => ("GET", format!("/api/reservations?sku=tea&state=active&after=1-{ID}"), String::new()),
        14 => {
            let body = format!(r#"{{"quantity":{},"restock":{}}}"#, rng.u32(1..3), rng.bool());
            ("POST", format!("/api/reservations/{ID}/return"), body)
        }
        15 => (
            "POST",
            "/api/carts/c/hold".to_owned(),
            format!(r#"{{"items":[{{"sku":"tea","quantity":1}},{}],"ttlSeconds":5}}"#, json(rng, 1)),
        ),
        16 => ("POST", format!("/api/carts/c/{}", ["confirm", "release"][rng.usize(..2)]), String::new()),
        17 => ("GET", "/api/carts/c".to_owned(), String::new()),
        18 => {
            let body = format!(r#"{{"quantity":{}}}"#, rng.u32(0..4));
            ("POST", format!("/api/reservations/{ID}/{}", ["change", "release"][rng.usize(..2)]), body)
        }
        19 => {
            let body = format!(r#"{{"quantity":{},"ifExpired":"reacquire"}}"#, rng.u32(1..3));
            ("POST", format!("/api/reservations/{ID}/confirm"), body)
        }
        _ => ("GET", "/readyz".to_owned(), String::new()),
    };
    let key = if rng.bool() { format!("idempotency-key: key-{}\r\n", rng.u32(..50)) } else { String::new() };
    let length = if body.is_empty() {
        String::new()
    } else {
        format!("content-type: application/json\r\ncontent-length: {}\r\n", body.len())
    };
    format!("{method} {target} HTTP/1.1\r\nhost: localhost\r\nx-request-id: mine\r\n{key}{length}\r\n{body}")
        .into_bytes()
}

/// Any JSON, and much that is almost JSON.
fn json(rng: &mut Rng, depth: u32) -> String {
    match rng.u32(..if depth > 3 { 8 } else { 11 }) {
        0 => "null".to_owned(),
        1 => rng.bool().to_string(),
        2 => rng.i64(..).to_string(),
        3 => rng.f64().to_string(),
        4 => ["NaN", "1e400", "-0", "01", "0x1", "1_000", "+1", "'tea'"][rng.usize(..8)].to_owned(),
        5 => "[".repeat(rng.usize(1..8000)),
        6 => format!("\"{}\"", "ä".repeat(rng.usize(..200))),
        7 => format!("{:?}", (0..rng.usize(..20)).map(|_| rng.char(..)).collect::<String>()),
        8 => format!("[{}]", (0..rng.usize(..4)).map(|_| json(rng, depth + 1)).collect::<Vec<_>>().join(",")),
        _ => {
            let names = ["cartId", "sku", "quantity", "ttlSeconds", "cartId", "delta", "restock", "items", "other", ""];
            let field = |rng: &mut Rng| format!("\"{}\":{}", names[rng.usize(..names.len())], json(rng, depth + 1));
            format!("{{{}}}", (0..rng.usize(..6)).map(|_| field(rng)).collect::<Vec<_>>().join(","))
        }
    }
}

/// Makes a request wrong, most likely.
fn spoil(rng: &mut Rng, mut bytes: Vec<u8>) -> Vec<u8> {
    for _ in 0..rng.usize(..4) {
        let at = rng.usize(..=bytes.len());
        match rng.u32(..6) {
            0 if at < bytes.len() => bytes[at] = rng.u8(..),
            1 => drop(bytes.splice(at..at, SPICES[rng.usize(..SPICES.len())].iter().copied())),
            2 => drop(bytes.drain(at..bytes.len().min(at + rng.usize(..20)))),
            3 => {
                let piece = bytes[at..bytes.len().min(at + rng.usize(..60))].to_vec();
                bytes.splice(at..at, piece);
            }
            4 if rng.u32(..10) == 0 => bytes.truncate(at),
            _ if rng.u32(..20) == 0 => drop(bytes.splice(at..at, vec![rng.u8(..); rng.usize(..20_000)])),
            _ => {}
        }
    }
    bytes
}

/// An answer to HEAD has a length and no body. An answer to what is not a request has a body, whatever the bytes begin
/// with.
fn is_for_head(answer: &Raw, sent: &[u8]) -> bool {
    let begins = sent.windows(4).any(|method| method == b"HEAD");
    begins && answer.body.is_empty() && answer.header("content-length") != Some(b"0")
}

fn judge(answer: &Raw, sent: &[u8]) {
    let shown = String::from_utf8_lossy(sent);
    assert!(STATUSES.contains(&answer.status), "{shown:?} was answered {answer:?}");
    if answer.status == 200 || is_for_head(answer, sent) {
        return;
    }
    assert_eq!(answer.header("content-type"), Some(&b"application/problem+json"[..]), "{shown:?}: {answer:?}");
    let problem: Value =
        serde_json::from_slice(&answer.body).unwrap_or_else(|error| panic!("{error}: {shown:?}: {answer:?}"));
    for member in ["type", "title", "detail", "code"] {
        assert!(problem[member].as_str().is_some_and(|text| !text.is_empty()), "{shown:?}: {problem}");
    }
    assert_eq!(problem["status"], answer.status);
    let ids = answer.headers.iter().filter(|(name, _)| name == "x-request-id").count();
    assert_eq!(ids, 1, "{shown:?}: {answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_is_a_documented_one() {
    let seed = setting("EDGE_SEED").unwrap_or_else(|| fastrand::u64(..1_000_000_000));
    let cases = setting("EDGE_CASES").unwrap_or(CASES);
    println!("EDGE_SEED={seed} EDGE_CASES={cases}");
    let redis = RedisServer::start();
    // The sweeper seldom runs, so a request made every change.
    let server = Stockhold::start_with(&redis, &["--sweep-interval-ms", "60000"]);
    server.seed("tea", 1_000_000).await;
    let mut connection = redis.connection().await;
    let mut rng = Rng::with_seed(seed);
    let before = most_memory(server.id());
    let (mut answered, mut good_ones) = (0, 0);
    for case in 0..cases {
        let request = good(&mut rng);
        let request = spoil(&mut rng, request);
        let looks = case % LOOK == 0;
        let stored = if looks { Some(Snapshot::take(&mut connection).await) } else { None };
        let answers = ask(server.address, request.clone()).await;
        for answer in &answers {
            judge(answer, &request);
        }
        answered += answers.len();
        good_ones += answers.iter().filter(|answer| answer.status == 200).count();
        if let Some(stored) = stored {
            let refused = answers.iter().all(|answer| answer.status != 200);
            let changed = stored.changed(&Snapshot::take(&mut connection).await);
            assert!(!refused || changed.is_empty(), "{:?} changed {changed:?}", String::from_utf8_lossy(&request));
            server.get("/livez").await.ok();
        }
    }
    println!("{answered} answers, {good_ones} of them 200");
    assert!(good_ones > 0 && good_ones < answered, "{good_ones} of {answered}");
    assert_invariants(&mut connection, History::Whole).await;
    let grown = most_memory(server.id()) - before;
    assert!(grown < MEMORY, "{grown} bytes of memory for nonsense");
}

async fn ask(address: SocketAddr, request: Vec<u8>) -> Vec<Raw> {
    tokio::task::spawn_blocking(move || split(&exchange(address, &request)).0).await.unwrap()
}
