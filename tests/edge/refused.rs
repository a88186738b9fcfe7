//! A request that is refused before its body was read: the answer reaches a client that is still sending the body.

use std::fs;
use std::io::{Read, Write};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use stockhold::http::MAX_LINGER_BYTES;
use tempfile::TempDir;

use crate::support::redis_server::RedisServer;
use crate::support::stockhold::Stockhold;
use crate::wire::{Raw, connect, split};

const READER: &str = "reader-reader-reader-1";
const WRITER: &str = "writer-writer-writer-1";
/// More than all buffers on the way can hold.
const BYTES: usize = 2_000_000;
const PATIENCE: Duration = Duration::from_secs(60);

/// A server with every reason to refuse: tokens, and a list of host names.
struct Guarded {
    server: Stockhold,
    _redis: RedisServer,
    _folder: TempDir,
}

impl Guarded {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("tokens");
        fs::write(&file, format!("read {READER}\nwrite {WRITER}\n")).unwrap();
        let redis = RedisServer::start();
        let arguments = ["--token-file", file.to_str().unwrap(), "--allowed-hosts", "shop.example"];
        Self { server: Stockhold::start_with(&redis, &arguments), _redis: redis, _folder: folder }
    }
}

/// A request, and how it is refused.
struct Case {
    method: &'static str,
    path: &'static str,
    headers: Vec<(&'static str, String)>,
    told: (u16, &'static str),
}

fn cases() -> Vec<Case> {
    let seed = "/api/inventory/seed";
    let bearer = |token: &str| ("authorization", format!("Bearer {token}"));
    let json = ("content-type", "application/json".to_owned());
    let case = |method, path, headers: &[(&'static str, String)], status, code| Case {
        method,
        path,
        headers: [std::slice::from_ref(&json), headers].concat(),
        told: (status, code),
    };
    let text = ("content-type", "text/plain".to_owned());
    vec![
        case("POST", seed, &[bearer(WRITER)], 413, "body_too_large"),
        Case { headers: vec![text, bearer(WRITER)], ..case("POST", seed, &[], 415, "unsupported_media_type") },
        case("POST", seed, &[], 401, "unauthorized"),
        case("POST", seed, &[bearer(READER)], 403, "insufficient_scope"),
        case("POST", seed, &[("host", "evil.example".to_owned()), bearer(WRITER)], 421, "host_not_allowed"),
        case("POST", "/nowhere", &[bearer(WRITER)], 404, "unknown_path"),
        case("PUT", "/api/audit", &[bearer(WRITER)], 405, "method_not_allowed"),
        case("GET", "/api/audit", &[bearer(READER)], 413, "body_too_large"),
        case("POST", &LONG_TARGET, &[bearer(WRITER)], 414, "uri_too_long"),
        case("POST", seed, &[("x-large", "x".repeat(20_000)), bearer(WRITER)], 431, "headers_too_large"),
        // hyper itself refuses this.
        case("POST", "/nowhere", &[("ho st", "x".to_owned())], 400, "invalid_http"),
    ]
}

static LONG_TARGET: std::sync::LazyLock<String> = std::sync::LazyLock::new(|| format!("/{}", "x".repeat(5000)));

/// Sends a whole request before it reads anything, and returns the one answer.
fn send_all(server: &Stockhold, case: &Case, framing: &str, body: &[u8]) -> Raw {
    let mut head = format!("{} {} HTTP/1.1\r\n", case.method, case.path);
    if !case.headers.iter().any(|(name, _)| *name == "host") {
        head += "host: localhost\r\n";
    }
    for (name, value) in &case.headers {
        head += &format!("{name}: {value}\r\n");
    }
    let mut stream = connect(server.address);
    write!(stream, "{head}{framing}\r\n\r\n").unwrap();
    stream.write_all(body).unwrap_or_else(|error| panic!("{head}{framing}: {error}"));
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap_or_else(|error| panic!("{head}{framing}: {error}"));
    let mut answers = split(&answer).0;
    assert_eq!(answers.len(), 1, "{answers:?}");
    answers.remove(0)
}

#[tokio::test]
async fn every_refusal_says_why() {
    let guarded = Guarded::start();
    let whole = vec![b'x'; BYTES];
    let chunks = format!("2710\r\n{}\r\n", "x".repeat(10_000)).repeat(BYTES / 10_000) + "0\r\n\r\n";
    for case in cases() {
        for (framing, body) in [
            (format!("content-length: {BYTES}"), &*whole),
            ("transfer-encoding: chunked".to_owned(), chunks.as_bytes()),
        ] {
            let answer = send_all(&guarded.server, &case, &framing, body);
            let problem: Value = serde_json::from_slice(&answer.body).unwrap();
            assert_eq!((answer.status, problem["code"].as_str().unwrap()), case.told, "{framing}");
            assert_eq!(answer.header("connection"), Some(&b"close"[..]), "{} {}", case.path, case.told.1);
            assert_eq!(answer.header("keep-alive"), None);
        }
    }
}

#[tokio::test]
async fn common_clients_get_the_reason() {
    let guarded = Guarded::start();
    let folder = tempfile::tempdir().unwrap();
    let body = folder.path().join("body");
    fs::write(&body, vec![b'x'; BYTES]).unwrap();
    let sender = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/edge/sender.py");
    for case in cases().iter().filter(|case| case.told.0 != 400) {
        let (status, code) = case.told;
        for framing in ["length", "chunked"] {
            let mut python = Command::new("python3");
            python.args([
                sender,
                &guarded.server.address.to_string(),
                case.method,
                case.path,
                &BYTES.to_string(),
                framing,
            ]);
            python.args(case.headers.iter().flat_map(|(name, value)| [*name, value]));
            let output = python.output().unwrap();
            let (told, failed) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
            assert_eq!(told.trim(), format!("{status} {code} close"), "{framing}: {failed}");
        }
        // With more than 1 MB, curl waits for a `100 Continue` unless it is told otherwise.
        for arguments in [&[][..], &["-H", "Expect:"], &["-H", "Expect: 100-continue"], &["--http1.0"]] {
            let mut curl = Command::new("curl");
            curl.args(["-sS", "-w", "\n%{http_code}", "-X", case.method]).args(arguments);
            curl.args(["--data-binary", &format!("@{}", body.display()), &guarded.server.url(case.path)]);
            for (name, value) in &case.headers {
                curl.args(["-H", &format!("{name}: {value}")]);
            }
            let output = curl.output().unwrap();
            let (told, failed) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
            let is_told = told.contains(&format!("\"code\":\"{code}\"")) && told.ends_with(&format!("\n{status}"));
            assert!(output.status.success() && is_told, "{arguments:?} {status}: {told} {failed}");
        }
    }
}

/// A small body that has arrived does not cost the connection.
#[tokio::test]
async fn a_small_body_is_read_and_the_connection_stays_open() {
    let guarded = Guarded::start();
    for case in cases().into_iter().filter(|case| ![400, 413].contains(&case.told.0)) {
        let mut stream = connect(guarded.server.address);
        let mut head = format!("{} {} HTTP/1.1\r\ncontent-length: 2\r\n", case.method, case.path);
        if !case.headers.iter().any(|(name, _)| *name == "host") {
            head += "host: localhost\r\n";
        }
        case.headers.iter().for_each(|(name, value)| head += &format!("{name}: {value}\r\n"));
        let requests = format!("{head}\r\n{{}}GET /livez HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        stream.write_all(requests.as_bytes()).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        let statuses: Vec<_> = split(&answer).0.iter().map(|answer| answer.status).collect();
        assert_eq!(statuses, [case.told.0, 200], "{} {}", case.method, case.path);
    }
}

/// What is sent after a refusal is read for a limited time, and is never taken for a request.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_client_that_continues_after_a_refusal_is_closed() {
    const MANY: usize = 100;
    let redis = RedisServer::start();
    let server = Stockhold::start(&redis);
    server.seed("tea", 5).await;
    let open_files = || fs::read_dir(format!("/proc/{}/fd", server.id())).unwrap().count();
    let own = open_files();
    let head = "POST /nowhere HTTP/1.1\r\nhost: localhost\r\ncontent-length: 9000000\r\n\r\n";
    let silent: Vec<_> = (0..MANY)
        .map(|_| {
            let mut stream = connect(server.address);
            stream.write_all(head.as_bytes()).unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
            // To the server, this is the rest of a body.
            let body = r#"{"cartId":"c","sku":"tea","quantity":1}"#;
            let hold = format!(
                "POST /api/reservations/hold HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            );
            stream.write_all(hold.as_bytes()).unwrap();
            stream
        })
        .collect();
    let started = Instant::now();
    while open_files() > own + 3 {
        server.get("/livez").await.ok();
        assert!(started.elapsed() < PATIENCE, "{} connections are still open", open_files() - own);
        thread::sleep(Duration::from_millis(50));
    }
    drop(silent);

    let mut stream = connect(server.address);
    write!(stream, "POST /nowhere HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n", 1_usize << 40).unwrap();
    let piece = vec![b'x'; 1 << 16];
    let mut sent = 0;
    while stream.write_all(&piece).is_ok() {
        sent += piece.len();
        assert!(sent < 64 << 20, "{sent} bytes were taken");
    }
    assert!(sent >= MAX_LINGER_BYTES, "{sent} bytes were taken and no more");
    assert_eq!(server.counts("tea").await, [5, 0, 0]);
}
