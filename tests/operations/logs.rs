//! What a server logs, for people and for programs.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Stdio;

use hyper::Request;
use hyper::body::Bytes;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::redis_server::RedisServer;
use crate::support::stockhold::{Stockhold, program};

const TOKEN: &str = "a-token-that-no-log-shows";

/// A server that logs to a file.
struct Logging {
    server: Stockhold,
    folder: TempDir,
}

impl Logging {
    fn start(redis: &RedisServer, arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let tokens = folder.path().join("tokens");
        std::fs::write(&tokens, format!("write {TOKEN}\n")).unwrap();
        let log = File::create(folder.path().join("log")).unwrap();
        let url = redis.url();
        let mut command = program(&["--port", "0", "--redis-url", &url, "--token-file", tokens.to_str().unwrap()]);
        command.args(redis.ca().iter().flat_map(|ca| ["--redis-ca".as_ref(), ca.as_os_str()]));
        // Not by RUST_LOG: the tests' own level would be used.
        let server = Stockhold::run(command.args(arguments).stderr(log));
        Self { server, folder }
    }

    /// A request with an id and a token, and whatever else the log must not show.
    async fn ask(&self, method: &str, path: &str, id: &str, body: &Value) -> String {
        let request = Request::builder().method(method).uri(self.server.url(path)).header("x-request-id", id);
        let request = request.header("authorization", format!("Bearer {TOKEN}"));
        let request = request.header("content-type", "application/json").header("idempotency-key", "a-secret-key");
        let body = if body.is_null() { Bytes::new() } else { body.to_string().into() };
        let answer = self.server.send(request, body).await;
        answer.headers["x-request-id"].to_str().unwrap().to_owned()
    }

    /// Ends the server, and returns what it has logged.
    fn end(self) -> String {
        drop(self.server);
        read(self.folder.path())
    }
}

fn read(folder: &Path) -> String {
    std::fs::read_to_string(folder.join("log")).unwrap()
}

/// Requests with secrets and names; the ids that they were answered with.
async fn requests(logging: &Logging) -> Vec<String> {
    let hold = json!({ "cartId": "a-secret-cart", "sku": "secret-sku", "quantity": 2 });
    let long = "x".repeat(129);
    vec![
        logging.ask("POST", "/api/inventory/seed", "seeding", &json!({ "sku": "secret-sku", "quantity": 1 })).await,
        logging.ask("POST", "/api/reservations/hold", "holding", &hold).await,
        logging.ask("GET", "/api/inventory/secret-sku?active=1", "looking", &Value::Null).await,
        logging.ask("GET", "/secret-path?token=secret", "lost", &Value::Null).await,
        logging.ask("SECRET", "/livez", &long, &Value::Null).await,
        logging.ask("GET", "/livez", "with a space", &Value::Null).await,
    ]
}

/// What the log says of each of them.
const EXPECTED: [(&str, &str, u64, Option<&str>); 6] = [
    ("POST", "/api/inventory/seed", 200, None),
    ("POST", "/api/reservations/hold", 409, Some("insufficient_inventory")),
    ("GET", "/api/inventory/:sku", 200, None),
    ("GET", "unknown", 404, Some("unknown_path")),
    ("unknown", "unknown", 405, Some("method_not_allowed")),
    ("GET", "/livez", 200, None),
];

#[tokio::test]
async fn each_request_is_an_object_on_a_line() {
    let redis = RedisServer::start();
    let logging = Logging::start(&redis, &["--log", "debug", "--log-format", "json"]);
    let ids = requests(&logging).await;
    assert_eq!(ids[..4], ["seeding", "holding", "looking", "lost"]);
    assert!(ids[4..].iter().all(|id| id.len() == 36), "{ids:?}");
    let log = logging.end();
    assert!(!log.contains("secret") && !log.contains(TOKEN), "{log}");
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for line in &lines {
        for member in ["timestamp", "level", "target", "message"] {
            assert!(line[member].as_str().is_some_and(|text| !text.is_empty()), "{member} in {line}");
        }
    }
    for told in ["serving", "stopping", "stopped"] {
        assert!(lines.iter().any(|line| line["message"] == told && line["level"] == "INFO"), "{told} in {log}");
    }
    for (id, (method, route, status, code)) in ids.iter().zip(EXPECTED) {
        let of_it: Vec<_> = lines.iter().filter(|line| line["id"] == **id).collect();
        let [line] = of_it[..] else { panic!("{id}: {of_it:?}") };
        let told = [&line["target"], &line["level"], &line["method"], &line["route"]].map(|value| value.as_str());
        assert_eq!(told, [Some("stockhold::access"), Some("DEBUG"), Some(method), Some(route)], "{line}");
        assert_eq!((line["status"].as_u64(), line["code"].as_str()), (Some(status), code), "{line}");
        assert!(line["elapsed_ms"].as_f64().is_some_and(|ms| ms > 0.0 && ms < 60_000.0), "{line}");
    }
}

#[tokio::test]
async fn requests_are_logged_when_they_are_asked_for() {
    let redis = RedisServer::start();
    let quiet = Logging::start(&redis, &["--log", "info"]);
    requests(&quiet).await;
    let log = quiet.end();
    assert!(log.contains("serving") && !log.contains("request") && !log.contains("holding"), "{log}");

    let chosen = Logging::start(&redis, &["--log", "info,stockhold::access=debug"]);
    let ids = requests(&chosen).await;
    let log = chosen.end();
    assert!(log.contains("serving") && !log.contains("secret"), "{log}");
    for (id, (_, route, status, _)) in ids.iter().zip(EXPECTED) {
        let lines: Vec<_> = log.lines().filter(|line| line.contains(&format!("id=\"{id}\""))).collect();
        let [line] = lines[..] else { panic!("{id}: {lines:?}") };
        assert!(line.contains(&format!("route=\"{route}\" status={status}")), "{line}");
    }
}

/// Both outputs are one in a container.
#[test]
fn what_it_prints_is_an_object_too() {
    let redis = RedisServer::start_plain();
    let mut command = program(&["--port", "0", "--redis-url", &redis.url(), "--log-format", "json", "--log", "off"]);
    let mut server = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(server.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let line: Value = serde_json::from_str(&line).unwrap();
    assert!(line["message"].as_str().unwrap().starts_with("stockhold listens on http://127.0.0.1:"), "{line}");
    assert!(line["timestamp"].as_str().unwrap().ends_with('Z') && line["level"] == "INFO", "{line}");
    server.kill().unwrap();
    server.wait().unwrap();
}

/// Also when it cannot start.
#[test]
fn a_failure_is_an_object_too() {
    let redis_url = "redis://127.0.0.1:1/nowhere";
    let command = |format: &str| program(&["--redis-url", redis_url, "--log-format", format]).output().unwrap();
    let failed = command("json");
    let said = String::from_utf8(failed.stderr).unwrap();
    let line: Value = serde_json::from_str(&said).unwrap();
    assert_eq!((failed.status.code(), &line["level"]), (Some(1), &json!("ERROR")), "{said}");
    assert!(line["message"].as_str().unwrap().contains("--redis-url"), "{said}");
    let said = String::from_utf8(command("text").stderr).unwrap();
    assert!(said.starts_with("stockhold: --redis-url"), "{said}");
    assert_eq!(command("xml").status.code(), Some(2));
}
