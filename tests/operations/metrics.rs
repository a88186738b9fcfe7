//! What is counted, as promtool and Prometheus read it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use http_body_util::{BodyExt, Empty};
use hyper::Request;
use hyper::body::Bytes;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use redis::cmd;
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::support::redis_server::RedisServer;
use crate::support::stockhold::Stockhold;
use crate::tool::{Tool, command, free_port};

const PATIENCE: Duration = Duration::from_secs(30);

fn client() -> Client<HttpConnector, Empty<Bytes>> {
    Client::builder(TokioExecutor::new()).build_http()
}

/// The text at a URL.
async fn text(url: &str, token: Option<&str>) -> (u16, String) {
    let mut request = Request::get(url);
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    let answer = client().request(request.body(Empty::new()).unwrap()).await.unwrap();
    let status = answer.status().as_u16();
    (status, String::from_utf8(answer.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap())
}

async fn exposed(server: &Stockhold) -> String {
    let (status, text) = text(&server.url("/metrics"), None).await;
    assert_eq!(status, 200, "{text}");
    text
}

/// The value of a series; 0 when it is not there.
async fn value(server: &Stockhold, series: &str) -> f64 {
    let text = exposed(server).await;
    let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.map_or(0.0, |value| value.parse().unwrap())
}

/// Waits until a series has a value for which this is so.
async fn until(server: &Stockhold, series: &str, is_so: impl Fn(f64) -> bool) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let found = value(server, series).await;
        if is_so(found) {
            return;
        }
        assert!(Instant::now() < deadline, "{series} is {found}");
        sleep(Duration::from_millis(20)).await;
    }
}

fn promtool(arguments: &[&str], input: &str) -> (bool, String) {
    let mut command = command("promtool");
    command.args(arguments).current_dir(root().join("ops"));
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let Output { status, stdout, stderr } = child.wait_with_output().unwrap();
    (status.success(), String::from_utf8(stdout).unwrap() + &String::from_utf8(stderr).unwrap())
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The names of the series in a text, without those that Prometheus makes of histograms.
fn names(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let names = words.filter(|word| word.starts_with("stockhold_"));
    let family = |name: &str| {
        let suffix = ["_bucket", "_sum", "_count"].into_iter().find_map(|suffix| name.strip_suffix(suffix));
        suffix.unwrap_or(name).to_owned()
    };
    names.map(family).collect()
}

#[tokio::test]
async fn requests_are_counted_by_what_they_are_for() {
    let redis = RedisServer::start();
    let server = Stockhold::start(&redis);
    server.seed("secret-sku", 5).await;
    let hold = async |quantity: u64, key: Option<&str>| {
        let body = json!({ "cartId": "secret-cart", "sku": "secret-sku", "quantity": quantity });
        server.post_with("/api/reservations/hold", body, key).await
    };
    let id = hold(2, Some("secret-key")).await.ok()["reservationId"].as_str().unwrap().to_owned();
    hold(2, Some("secret-key")).await.ok();
    hold(9, None).await.problem(409, "insufficient_inventory");
    server.confirm(&id).await.ok();
    server.confirm(&id).await.problem(409, "reservation_not_active");
    server.get("/api/inventory/secret-other").await.problem(404, "unknown_sku");
    server.get("/secret-path?secret=secret").await.problem(404, "unknown_path");
    server.get("/metrics?secret=1").await.problem(400, "invalid_request");
    server.send(Request::builder().method("SECRET").uri(server.url("/livez")), Bytes::new()).await;
    for (series, expected) in [
        (r#"stockhold_operations_total{operation="hold",outcome="done"}"#, 1.0),
        (r#"stockhold_operations_total{operation="hold",outcome="replayed"}"#, 1.0),
        (r#"stockhold_operations_total{operation="hold",outcome="insufficient_inventory"}"#, 1.0),
        (r#"stockhold_operations_total{operation="hold",outcome="internal"}"#, 0.0),
        (r#"stockhold_operations_total{operation="confirm",outcome="done"}"#, 1.0),
        (r#"stockhold_operations_total{operation="confirm",outcome="reservation_not_active"}"#, 1.0),
        (r#"stockhold_operations_total{operation="stock",outcome="unknown_sku"}"#, 1.0),
        (r#"stockhold_http_requests_total{method="POST",route="/api/reservations/hold",status="200"}"#, 2.0),
        (r#"stockhold_http_requests_total{method="POST",route="/api/reservations/hold",status="409"}"#, 1.0),
        (r#"stockhold_http_requests_total{method="GET",route="/api/inventory/:sku",status="404"}"#, 1.0),
        (r#"stockhold_http_requests_total{method="unknown",route="unknown",status="404"}"#, 1.0),
        (r#"stockhold_http_requests_total{method="unknown",route="unknown",status="405"}"#, 1.0),
        (r#"stockhold_http_request_duration_seconds_count{method="POST",route="/api/reservations/hold"}"#, 3.0),
        (r#"stockhold_group_commit_requests_count{script="hold"}"#, 3.0),
        (r#"stockhold_group_commit_waiting{script="hold"}"#, 0.0),
        (r#"stockhold_build_info{version="0.1.0"}"#, 1.0),
    ] {
        let text = exposed(&server).await;
        let line = text.lines().find(|line| line.starts_with(series)).unwrap_or_else(|| panic!("{series} in {text}"));
        assert_eq!(line, format!("{series} {expected}"));
    }
    let text = exposed(&server).await;
    assert!(!text.to_lowercase().contains("secret") && !text.contains(&id), "{text}");
    assert!(value(&server, "stockhold_http_connections").await >= 1.0);
    let (is_fine, said) = promtool(&["check", "metrics"], &text);
    assert!(is_fine && said.is_empty(), "{said}");
}

#[tokio::test]
async fn holds_that_lapse_and_the_audit_are_counted() {
    let redis = RedisServer::start();
    // It would report the SKU that is damaged below.
    let quiet = ["--audit-max", "100", "--sweep-interval-ms", "50", "--log", "off"];
    let server = Stockhold::start_with(&redis, &quiet);
    server.seed("tea", 1_000_000).await;
    server.held_for("tea", 1, 1).await;
    until(&server, "stockhold_expired_holds_total", |count| count == 1.0).await;
    until(&server, "stockhold_oldest_lapsed_hold_age_seconds", |age| age == 0.0).await;
    until(&server, "stockhold_audit_entries", |entries| entries == 3.0).await;
    assert_eq!(value(&server, r#"stockhold_sweeps_total{outcome="failed"}"#).await, 0.0);
    // Redis trims whole blocks, of about 100 entries.
    for _ in 0..300 {
        server.held("tea", 1).await;
    }
    until(&server, "stockhold_audit_trimmed_entries_total", |count| count > 0.0).await;

    // A SKU that cannot be swept, and one of its holds.
    let mut connection = redis.connection().await;
    server.seed("cup", 5).await;
    server.held_for("cup", 1, 1).await;
    cmd("HSET").arg(&["inventory:cup", "available", "many"]).exec_async(&mut connection).await.unwrap();
    until(&server, "stockhold_stuck_skus", |count| count == 1.0).await;
    until(&server, "stockhold_oldest_lapsed_hold_age_seconds", |age| age > 0.5 && age < 60.0).await;
    cmd("HSET").arg(&["inventory:cup", "available", "4"]).exec_async(&mut connection).await.unwrap();
    until(&server, "stockhold_stuck_skus", |count| count == 0.0).await;
    until(&server, "stockhold_oldest_lapsed_hold_age_seconds", |age| age == 0.0).await;
}

#[tokio::test]
async fn what_happens_to_redis_is_counted() {
    let mut redis = RedisServer::start();
    let server = Stockhold::start_with(&redis, &["--durability", "wait:1"]);
    let answered = r#"stockhold_redis_calls_total{outcome="answered"}"#;
    assert!(value(&server, answered).await > 0.0);
    assert_eq!(value(&server, "stockhold_script_reloads_total").await, 0.0);
    let opened = value(&server, "stockhold_redis_connections_opened_total").await;
    assert!(opened > 0.0);
    // There is no replica.
    let body = json!({ "sku": "tea", "quantity": 5 });
    server.post("/api/inventory/seed", body).await.problem(503, "unavailable");
    assert!(value(&server, "stockhold_replica_shortages_total").await >= 1.0);
    assert_eq!(value(&server, r#"stockhold_operations_total{operation="seed",outcome="unavailable"}"#).await, 1.0);

    redis.kill();
    until(&server, r#"stockhold_redis_calls_total{outcome="unreachable"}"#, |count| count > 0.0).await;
    until(&server, r#"stockhold_sweeps_total{outcome="failed"}"#, |count| count > 0.0).await;
    until(&server, "stockhold_redis_connections_failed_total", |count| count > 0.0).await;
    redis.restart();
    until(&server, "stockhold_script_reloads_total", |count| count >= 1.0).await;
    until(&server, "stockhold_redis_connections_opened_total", |count| count > opened).await;
}

/// Like every other read.
#[tokio::test]
async fn metrics_need_a_token_where_others_do() {
    let redis = RedisServer::start();
    let folder = tempfile::tempdir().unwrap();
    let tokens = folder.path().join("tokens");
    fs::write(&tokens, "read reader-reader-01\n").unwrap();
    let server = Stockhold::start_with(&redis, &["--token-file", tokens.to_str().unwrap()]);
    let url = server.url("/metrics");
    assert_eq!(text(&url, None).await.0, 401);
    assert_eq!(text(&url, Some("reader-reader-02")).await.0, 401);
    let (status, text) = text(&url, Some("reader-reader-01")).await;
    assert_eq!(status, 200);
    let refused = r#"stockhold_http_requests_total{method="GET",route="/metrics",status="401"} 2"#;
    assert!(text.lines().any(|line| line == refused), "{text}");
}

/// With the alerts, and a token.
#[tokio::test]
async fn prometheus_scrapes_it() {
    let redis = RedisServer::start();
    let folder = tempfile::tempdir().unwrap();
    let tokens = folder.path().join("tokens");
    fs::write(&tokens, "write writer-writer-01\nread reader-reader-01\n").unwrap();
    let server = Stockhold::start_with(&redis, &["--token-file", tokens.to_str().unwrap()]);
    let (address, port) = (server.address, free_port());
    let configuration = format!(
        "global: {{ scrape_interval: 100ms, scrape_timeout: 100ms, evaluation_interval: 100ms }}
rule_files: [alerts.yaml]
scrape_configs:
  - job_name: stockhold
    authorization: {{ credentials: reader-reader-01 }}
    static_configs: [{{ targets: ['{address}'] }}]
"
    );
    let alerts = fs::read_to_string(root().join("ops/alerts.yaml")).unwrap();
    let listen = format!("--web.listen-address=127.0.0.1:{port}");
    let arguments = ["--config.file=prometheus.yml", "--storage.tsdb.path=data", &listen, "--log.level=error"];
    let files = [("prometheus.yml", &*configuration), ("alerts.yaml", &alerts)];
    let mut prometheus = Tool::start("prometheus", &arguments, &files);
    let hold = Request::post(server.url("/api/inventory/seed")).header("authorization", "Bearer writer-writer-01");
    let body = json!({ "sku": "tea", "quantity": 5 }).to_string();
    server.send(hold.header("content-type", "application/json"), body.into()).await.ok();

    let deadline = Instant::now() + PATIENCE;
    let mut ask = async |path: &str| -> Value {
        let url = format!("http://127.0.0.1:{port}{path}").parse().unwrap();
        prometheus.assert_runs();
        // Null while it starts.
        match client().get(url).await {
            Ok(answer) if answer.status() == 200 => {
                let body = answer.into_body().collect().await.unwrap().to_bytes();
                serde_json::from_slice::<Value>(&body).unwrap()["data"].take()
            }
            _ => Value::Null,
        }
    };
    for (query, expected) in [
        ("up", "1"),
        ("stockhold_operations_total%7Boperation=%22seed%22,outcome=%22done%22%7D", "1"),
        ("sum(stockhold_http_request_duration_seconds_count%7Broute=%22/api/inventory/seed%22%7D)", "1"),
        ("stockhold_http_connections_limit", "1024"),
    ] {
        loop {
            let found = ask(&format!("/api/v1/query?query={query}")).await;
            if found["result"][0]["value"][1] == expected {
                break;
            }
            assert!(Instant::now() < deadline, "{query}: {found}");
            sleep(Duration::from_millis(50)).await;
        }
    }
    loop {
        let found = ask("/api/v1/rules").await;
        let rules = found["groups"][0]["rules"].as_array().cloned().unwrap_or_default();
        if !rules.is_empty() && rules.iter().all(|rule| rule["health"] == "ok" && rule["state"] == "inactive") {
            assert_eq!(rules.len(), alerts.matches("- alert: ").count());
            break;
        }
        assert!(Instant::now() < deadline, "{found}");
        sleep(Duration::from_millis(50)).await;
    }
}

#[test]
fn the_alerts_fire_when_they_should() {
    for arguments in [["check", "rules", "alerts.yaml"], ["test", "rules", "alerts_test.yaml"]] {
        let (is_fine, said) = promtool(&arguments, "");
        assert!(is_fine, "{said}");
    }
    let read = |file: &str| fs::read_to_string(root().join(file)).unwrap();
    let (alerts, tests, handbook) = (read("ops/alerts.yaml"), read("ops/alerts_test.yaml"), read("docs/operations.md"));
    let tested: Vec<&str> =
        tests.split("alertname: ").skip(1).map(|rest| rest.split([',', '\n']).next().unwrap()).collect();
    let quiet = tests.split("eval_time: 25m").skip(1).map(|rest| rest.split(['}', '\n']).next().unwrap());
    let quiet: Vec<_> = quiet.map(|rest| rest.trim_start_matches(", alertname: ").split(',').next().unwrap()).collect();
    for name in alerts.split("- alert: ").skip(1).map(|rest| rest.lines().next().unwrap()) {
        assert!(tested.iter().filter(|tested| **tested == name).count() >= 2, "{name} is tested when it fires");
        assert!(quiet.contains(&name), "{name} is tested when all is well");
        assert!(handbook.contains(&format!("### {name}\n")), "{name} is not in docs/operations.md");
    }
}

/// The alerts and the dashboard ask for numbers that exist, and the dashboard shows all of them.
#[tokio::test]
async fn the_dashboard_shows_what_is_counted() {
    let redis = RedisServer::start();
    let server = Stockhold::start(&redis);
    server.seed("tea", 5).await;
    let described: BTreeMap<String, String> = exposed(&server)
        .await
        .lines()
        .filter_map(|line| line.strip_prefix("# HELP ")?.split_once(' '))
        .map(|(name, help)| (name.to_owned(), help.to_owned()))
        .collect();
    let known: BTreeSet<String> = described.into_keys().collect();
    let read = |file: &str| fs::read_to_string(root().join("ops").join(file)).unwrap();
    let dashboard = read("grafana.json");
    let shown: Value = serde_json::from_str(&dashboard).unwrap();
    let ids: BTreeSet<_> = shown["panels"].as_array().unwrap().iter().map(|panel| panel["id"].as_u64()).collect();
    assert_eq!(ids.len(), shown["panels"].as_array().unwrap().len());
    assert_eq!(names(&dashboard), known);
    let asked: BTreeSet<_> = names(&read("alerts.yaml"));
    assert_eq!(asked.difference(&known).collect::<Vec<_>>(), Vec::<&String>::new());
}
