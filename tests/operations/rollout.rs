//! A rollout that no client notices: instances behind a load balancer are restarted one after the other.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::body::Bytes;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::sleep;

use crate::support::invariants::{History, assert_invariants};
use crate::support::redis_server::RedisServer;
use crate::support::stockhold::Stockhold;
use crate::tool::{Tool, free_port};

const PATIENCE: Duration = Duration::from_secs(30);
const RESTARTS: usize = 20;
const CLIENTS: usize = 8;
/// Between two sales of a client: the machine must have time to restart servers, too.
const PAUSE: Duration = Duration::from_millis(4);

/// It repeats no request: one that fails reaches the client. It looks at the readiness 20 times a second, and gives an answer
/// the time that it needs on a busy machine.
fn haproxy(port: u16, statistics: u16, instances: [u16; 2]) -> Tool {
    let [a, b] = instances;
    let configuration = format!(
        "defaults
  mode http
  retries 0
  timeout connect 2s
  timeout client 60s
  timeout server 60s
  timeout check 5s
frontend shop
  bind 127.0.0.1:{port}
  default_backend stockhold
backend stockhold
  balance roundrobin
  option httpchk GET /readyz
  http-check expect status 200
  default-server check inter 50ms fall 1 rise 1
  server a 127.0.0.1:{a}
  server b 127.0.0.1:{b}
frontend statistics
  bind 127.0.0.1:{statistics}
  stats enable
  stats uri /
"
    );
    Tool::start("haproxy", &["-db", "-f", "haproxy.cfg"], &[("haproxy.cfg", &configuration)])
}

async fn connect(address: SocketAddr) -> std::io::Result<SendRequest<Full<Bytes>>> {
    let stream = TcpStream::connect(address).await?;
    let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(std::io::Error::other)?;
    tokio::spawn(connection);
    Ok(sender)
}

/// The body of an answer with 200.
async fn ask(client: &mut SendRequest<Full<Bytes>>, request: Request<Full<Bytes>>) -> Result<Bytes, String> {
    let shown = format!("{} {}", request.method(), request.uri());
    client.ready().await.map_err(|error| format!("{shown}: {error}"))?;
    let answer = client.send_request(request).await.map_err(|error| format!("{shown}: {error}"))?;
    let status = answer.status();
    let body = answer.into_body().collect().await.map_err(|error| format!("{shown}: {error}"))?.to_bytes();
    if status == 200 { Ok(body) } else { Err(format!("{shown}: {status} {}", String::from_utf8_lossy(&body))) }
}

fn get(path: &str) -> Request<Full<Bytes>> {
    Request::get(path).header("host", "localhost").body(Full::default()).unwrap()
}

fn post(path: &str, body: &Value) -> Request<Full<Bytes>> {
    let request = Request::post(path).header("host", "localhost").header("content-type", "application/json");
    request.body(Full::from(body.to_string())).unwrap()
}

/// Holds and confirms until told to end, on one connection, which never breaks. It does not read: a server on a busy machine
/// refuses reads before it refuses sales, and that is not what this is about.
async fn buy(address: SocketAddr, number: usize, end: &AtomicBool, answered: &AtomicU64) -> Result<(), String> {
    let mut client = connect(address).await.map_err(|error| error.to_string())?;
    let hold = json!({ "cartId": format!("cart-{number}"), "sku": "tea", "quantity": 1 });
    while !end.load(Ordering::Relaxed) {
        let record = ask(&mut client, post("/api/reservations/hold", &hold)).await?;
        let record: Value = serde_json::from_slice(&record).unwrap();
        let path = format!("/api/reservations/{}", record["reservationId"].as_str().unwrap());
        ask(&mut client, post(&format!("{path}/confirm"), &json!({}))).await?;
        answered.fetch_add(2, Ordering::Relaxed);
        sleep(PAUSE).await;
    }
    Ok(())
}

/// The state of an instance, as HAProxy sees it, such as `UP`.
async fn state(statistics: SocketAddr, instance: &str) -> Option<String> {
    let mut client = connect(statistics).await.ok()?;
    let table = ask(&mut client, get("/;csv")).await.unwrap();
    let table = String::from_utf8(table.to_vec()).unwrap();
    let mut rows = table.lines().map(|line| line.split(',').collect::<Vec<_>>());
    let at = rows.next()?.iter().position(|name| *name == "status")?;
    rows.find(|row| row[..2] == ["stockhold", instance]).map(|row| row[at].to_owned())
}

async fn until_up(statistics: SocketAddr, instance: &str, haproxy: &mut Tool) {
    let deadline = Instant::now() + PATIENCE;
    while state(statistics, instance).await.as_deref() != Some("UP") {
        haproxy.assert_runs();
        assert!(Instant::now() < deadline, "HAProxy does not use {instance}");
        sleep(Duration::from_millis(10)).await;
    }
}

/// Enough for a balancer that looks so often, even on a busy machine; the default of 5 s is for those that look less often.
fn start(redis: &RedisServer, port: u16) -> Stockhold {
    Stockhold::spawn(&["--port", &port.to_string(), "--redis-url", &redis.url(), "--drain-seconds", "2"])
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_restarts_fail_no_request() {
    let redis = RedisServer::start_plain();
    let ports = [free_port(), free_port()];
    let mut instances = ports.map(|port| start(&redis, port));
    instances[0].seed("tea", 1_000_000_000).await;
    let [port, statistics] = [free_port(), free_port()];
    let mut haproxy = haproxy(port, statistics, ports);
    let [address, statistics] = [port, statistics].map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
    for name in ["a", "b"] {
        until_up(statistics, name, &mut haproxy).await;
    }

    let (end, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|number| {
            let (end, answered) = (Arc::clone(&end), Arc::clone(&answered));
            tokio::spawn(async move { buy(address, number, &end, &answered).await })
        })
        .collect();
    for turn in 0..RESTARTS {
        let before = answered.load(Ordering::Relaxed);
        let (at, name) = (turn % 2, ["a", "b"][turn % 2]);
        instances[at].signal(Signal::SIGTERM);
        assert!(instances[at].wait().success());
        instances[at] = start(&redis, ports[at]);
        until_up(statistics, name, &mut haproxy).await;
        assert!(answered.load(Ordering::Relaxed) > before, "nobody buys: {:?}", failures(clients, &end).await);
    }
    let answers = answered.load(Ordering::Relaxed);
    assert_eq!(failures(clients, &end).await, Vec::<String>::new(), "of {answers} requests");
    println!("{RESTARTS} restarts, {answers} requests, none failed");
    assert_invariants(&mut redis.connection().await, History::Whole).await;
}

async fn failures(clients: Vec<tokio::task::JoinHandle<Result<(), String>>>, end: &AtomicBool) -> Vec<String> {
    end.store(true, Ordering::Relaxed);
    let mut failures = Vec::new();
    for client in clients {
        failures.extend(client.await.unwrap().err());
    }
    failures
}

/// What a client sees of it without a load balancer.
#[tokio::test]
async fn a_server_that_drains_says_so_and_serves() {
    let redis = RedisServer::start();
    // So long that only the second signal ends it.
    let mut server = Stockhold::start_with(&redis, &["--drain-seconds", "3600"]);
    server.seed("tea", 5).await;
    let mut early = connect(server.address).await.unwrap();
    ask(&mut early, get("/readyz")).await.unwrap();
    server.signal(Signal::SIGTERM);
    let deadline = Instant::now() + PATIENCE;
    while server.get("/readyz").await.status == 200 {
        assert!(Instant::now() < deadline, "it does not drain");
        sleep(Duration::from_millis(5)).await;
    }
    let not_ready = server.get("/readyz").await;
    assert_eq!(not_ready.headers["connection"], "close");
    not_ready.problem(503, "draining");
    server.get("/livez").await.ok();
    // New connections are served, and the earlier one, for the last time.
    server.held("tea", 2).await;
    let answer = early.send_request(get("/api/inventory/tea")).await.unwrap();
    assert_eq!((answer.status().as_u16(), answer.headers()["connection"].as_bytes()), (200, &b"close"[..]));
    assert!(!answer.headers().contains_key("keep-alive"));
    answer.into_body().collect().await.unwrap();
    assert!(early.ready().await.is_err(), "the connection is closed");
    server.signal(Signal::SIGTERM);
    assert!(server.wait().success());
}

#[tokio::test]
async fn somebody_at_a_terminal_does_not_wait() {
    let redis = RedisServer::start();
    let mut server = Stockhold::start_with(&redis, &["--drain-seconds", "3600"]);
    server.signal(Signal::SIGINT);
    assert!(server.wait().success());
}
