//! Live events: each once and in order, for any number of listeners, over restarts, and for those that come back.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use hyper::Request;
use hyper::body::Bytes;
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};
use tokio::time::sleep;

use crate::support::events::{Heard, Listener};
use crate::support::redis_server::RedisServer;
use crate::support::stockhold::{Answer, Stockhold};

const PATIENCE: Duration = Duration::from_secs(30);
const MAX_LISTENERS: usize = 1024;

/// All events of the audit, the oldest first.
async fn audit(server: &Stockhold) -> Vec<Value> {
    let (mut events, mut path) = (Vec::new(), "/api/audit?limit=1000".to_owned());
    loop {
        let page = server.get(&path).await.ok()["events"].as_array().unwrap().clone();
        let Some(last) = page.last() else { break };
        path = format!("/api/audit?limit=1000&before={}", last["id"].as_str().unwrap());
        events.extend(page);
    }
    events.reverse();
    events
}

fn ids<'a>(events: impl IntoIterator<Item = &'a Value>) -> Vec<String> {
    events.into_iter().map(|event| event["id"].as_str().unwrap().to_owned()).collect()
}

async fn adjust(server: &Stockhold, skus: usize) {
    let adjustment = |sku| json!({ "sku": format!("sku-{sku}"), "delta": 1, "create": true });
    let adjustments: Vec<_> = (0..skus).map(adjustment).collect();
    server.post("/api/inventory/adjust", json!({ "adjustments": adjustments })).await.ok();
}

/// A refusal of a stream.
async fn refused(server: &Stockhold, last: &str) -> Answer {
    server.send(Request::get(server.url("/api/events")).header("last-event-id", last), Bytes::new()).await
}

#[tokio::test]
async fn an_event_is_heard_as_the_audit_shows_it() {
    let redis = RedisServer::start();
    let server = Stockhold::start(&redis);
    server.seed("before", 1).await;
    sleep(Duration::from_millis(50)).await;
    let mut listener = Listener::open(&server, "/api/events", None).await;
    server.seed("tea", 5).await;
    let hold = json!({ "cartId": "c\n\n", "sku": "tea", "quantity": 1, "metadata": { "order": "é" } });
    server.post("/api/reservations/hold", hold).await.problem(400, "invalid_request");
    let hold = json!({ "cartId": "c 1", "sku": "tea", "quantity": 1, "metadata": { "order": "é" } });
    let called = Instant::now();
    server.post("/api/reservations/hold", hold).await.ok();
    let heard = listener.some(2).await;
    println!("heard after {:?}", called.elapsed());
    let audit = audit(&server).await;
    assert_eq!(audit.len(), 3);
    for (heard, event) in heard.iter().zip(&audit[1..]) {
        assert_eq!(heard.data, *event);
        assert_eq!(heard.id.as_deref(), event["id"].as_str());
        assert_eq!(heard.kind, event["event"].as_str().unwrap());
    }
    // HEAD has no stream, and what follows it is answered.
    let head = Request::builder().method("HEAD").uri(server.url("/api/events"));
    assert_eq!(server.send(head, Bytes::new()).await.status, 200);
    server.get("/api/events?sku=tea&x=1").await.problem(400, "invalid_request");
    for bad in ["", "x", "1", "1-2-3-4", "-1-0"] {
        refused(&server, bad).await.problem(400, "invalid_request");
    }
}

#[tokio::test]
async fn a_listener_of_a_sku_hears_nothing_else() {
    let redis = RedisServer::start();
    let server = Stockhold::start(&redis);
    let mut of_one = Listener::open(&server, "/api/events?sku=tea", None).await;
    let mut of_all = Listener::open(&server, "/api/events", None).await;
    for round in 0..3 {
        server.seed("tea", round + 1).await;
        server.seed("cup", 1).await;
    }
    of_all.some(6).await;
    let heard = of_one.some(3).await;
    assert!(heard.iter().all(|heard| heard.data["sku"] == "tea"), "{heard:?}");
    let first = heard[0].id.clone();
    // Also what it has missed.
    let mut again = Listener::open(&server, "/api/events?sku=tea", first.as_deref()).await;
    let missed = again.some(2).await;
    assert_eq!(missed[0].id, heard[1].id);
    assert_eq!(missed[1].id, heard[2].id);
    // Events of others move the place to come back to, so that it is not trimmed.
    server.seed("cup", 1).await;
    let other = of_all.some(1).await.pop().unwrap().id.unwrap();
    again.heartbeat().await;
    let at = |id: &str| id.split('-').next().unwrap().parse::<u64>().unwrap();
    assert!(at(again.last.as_deref().unwrap()) >= at(&other), "{:?} is before {other}", again.last);
    let mut anew = Listener::open(&server, "/api/events?sku=tea", again.last.as_deref()).await;
    server.seed("tea", 9).await;
    for listener in [&mut again, &mut anew, &mut of_one] {
        assert_eq!(listener.next().await.unwrap().data["available"], 9);
    }
}

/// Holds go on while a listener comes and goes, and the server is started anew.
#[tokio::test]
async fn who_comes_back_misses_nothing_and_hears_nothing_twice() {
    let redis = RedisServer::start();
    let mut server = Arc::new(Stockhold::start(&redis));
    for sku in 0..8 {
        server.seed(&format!("sku-{sku}"), 100_000).await;
    }
    let seeded = audit(&server).await;
    let mut last = seeded[0]["id"].as_str().unwrap().to_owned();
    let (mut heard, mut late): (Vec<Heard>, usize) = (Vec::new(), 0);
    for round in 0..4 {
        let stop = Arc::new(AtomicBool::new(false));
        let mut buyers = tokio::task::JoinSet::new();
        for buyer in 0..8 {
            let (server, stop) = (Arc::clone(&server), Arc::clone(&stop));
            buyers.spawn(async move {
                let mut sku = buyer;
                while !stop.load(Ordering::Relaxed) {
                    let id = server.held(&format!("sku-{}", sku % 8), 1).await;
                    server.release(&id).await.ok();
                    sku += 3;
                    sleep(Duration::from_millis(20)).await;
                }
            });
        }
        for visit in 0..6 {
            let mut listener = Listener::open(&server, "/api/events", Some(&last)).await;
            // On a busy machine it may be cut off.
            for _ in 0..30 * visit + 1 {
                let Some(event) = listener.next().await else { break };
                late += usize::from(event.id.is_none());
                heard.push(event);
            }
            last = listener.last.unwrap();
            sleep(Duration::from_millis(30)).await;
        }
        stop.store(true, Ordering::Relaxed);
        while let Some(bought) = buyers.join_next().await {
            bought.unwrap();
        }
        if round < 3 {
            drop(Arc::into_inner(server).unwrap());
            server = Arc::new(Stockhold::start(&redis));
        }
    }
    let expected = ids(&audit(&server).await[1..]);
    let mut listener = Listener::open(&server, "/api/events", Some(&last)).await;
    while heard.len() < expected.len() {
        heard.push(listener.next().await.unwrap());
    }
    assert_eq!(late, 0);
    assert_eq!(ids(heard.iter().map(|heard| &heard.data)), expected);
    println!("{} events", expected.len());
}

#[tokio::test]
async fn what_was_trimmed_is_gone() {
    let redis = RedisServer::start();
    let server = Stockhold::start_with(&redis, &["--sweep-interval-ms", "20", "--audit-max", "40"]);
    adjust(&server, 20).await;
    let first = audit(&server).await[0]["id"].as_str().unwrap().to_owned();
    drop(Listener::open(&server, "/api/events", Some(&first)).await);
    let deadline = Instant::now() + PATIENCE;
    while ids(&audit(&server).await).contains(&first) {
        assert!(Instant::now() < deadline, "nothing is trimmed");
        adjust(&server, 50).await;
    }
    refused(&server, &first).await.problem(410, "events_trimmed");
    let newest = audit(&server).await.pop().unwrap();
    drop(Listener::open(&server, "/api/events", newest["id"].as_str()).await);
}

/// The numbers of the server.
async fn number(server: &Stockhold, series: &str) -> u64 {
    let mut stream = TcpStream::connect(server.address).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let value = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    value.unwrap().parse::<f64>().unwrap() as u64
}

async fn until_listeners_are(server: &Stockhold, count: u64) {
    let deadline = Instant::now() + PATIENCE;
    while number(server, "stockhold_http_listeners").await != count {
        assert!(Instant::now() < deadline, "{} listeners", number(server, "stockhold_http_listeners").await);
        sleep(Duration::from_millis(50)).await;
    }
}

/// It asks, and reads nothing more than the system does for it.
fn idle_listener(server: &Stockhold) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.connect(&server.address.into()).unwrap();
    let mut stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(b"GET /api/events HTTP/1.1\r\nhost: localhost\r\n\r\n").unwrap();
    stream
}

#[tokio::test]
async fn a_slow_listener_is_cut_off_and_can_come_back() {
    let redis = RedisServer::start();
    let server = Stockhold::start(&redis);
    adjust(&server, 100).await;
    let mut slow = idle_listener(&server);
    until_listeners_are(&server, 1).await;
    let mut good = Listener::open(&server, "/api/events", None).await;
    let before = audit(&server).await.len();
    let deadline = Instant::now() + PATIENCE;
    let mut count = 0;
    while number(&server, "stockhold_http_listeners").await == 2 {
        adjust(&server, 100).await;
        count += 100;
        good.some(100).await;
        sleep(Duration::from_millis(50)).await;
        assert!(Instant::now() < deadline, "{count} events");
    }
    let mut text = Vec::new();
    // It may be reset.
    let _ = slow.read_to_end(&mut text);
    let text = String::from_utf8(text).unwrap();
    let seen = text.matches("\ndata: ").count();
    println!("cut off after {seen} of {count} events");
    assert!(seen < count);
    // The last block may be incomplete, and so may be the chunk around it.
    let whole = &text[..text.rfind("\n\n").unwrap()];
    let last = whole.lines().rev().find_map(|line| line.strip_prefix("id: ")).unwrap();
    let all = ids(&audit(&server).await);
    let at = all.iter().position(|id| id == last).map_or(before, |at| at + 1);
    let mut again = Listener::open(&server, "/api/events", Some(last)).await;
    let rest = again.some(all.len() - at).await;
    assert_eq!(ids(rest.iter().map(|heard| &heard.data)), all[at..]);
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_thousand_listen_and_others_are_served() {
    rlimit::increase_nofile_limit(8192).unwrap();
    let redis = RedisServer::start();
    let server = Stockhold::start(&redis);
    server.seed("tea", 10_000).await;
    let ask = |_| {
        let mut stream = TcpStream::connect(server.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(b"GET /api/events HTTP/1.1\r\nhost: localhost\r\n\r\n").unwrap();
        stream
    };
    let mut crowd: Vec<_> = (0..MAX_LISTENERS - 200).map(ask).collect();
    let mut readers = Vec::new();
    for _ in 0..200 {
        readers.push(Listener::open(&server, "/api/events", None).await);
    }
    until_listeners_are(&server, MAX_LISTENERS as u64).await;
    server.get("/api/events").await.problem(503, "unavailable");
    let mut held = BTreeSet::new();
    for _ in 0..50 {
        held.insert(server.held("tea", 1).await);
    }
    for reader in &mut readers {
        let heard = reader.some(50).await;
        let heard: BTreeSet<_> = heard.iter().map(|heard| heard.data["reservationId"].as_str().unwrap()).collect();
        assert_eq!(heard, held.iter().map(String::as_str).collect());
    }
    // Who goes makes room.
    crowd.truncate(10);
    drop(readers);
    until_listeners_are(&server, 10).await;
    server.held("tea", 1).await;
    drop(Listener::open(&server, "/api/events", None).await);
}

/// A stream outlives the time that idle connections are kept, and ends with the server.
#[tokio::test]
async fn a_silent_stream_is_kept_until_the_server_ends() {
    let redis = RedisServer::start();
    let arguments = ["--keep-alive-seconds", "1", "--drain-seconds", "2"];
    let mut server = Stockhold::start_with(&redis, &arguments);
    server.seed("tea", 10).await;
    let mut listener = Listener::open(&server, "/api/events?sku=cup", None).await;
    listener.heartbeat().await;
    server.seed("tea", 20).await;
    server.seed("cup", 10).await;
    assert_eq!(listener.next().await.unwrap().data["sku"], "cup");
    server.signal(Signal::SIGTERM);
    sleep(Duration::from_millis(300)).await;
    server.seed("cup", 20).await;
    assert_eq!(listener.next().await.unwrap().data["available"], 20, "it is heard while the server drains");
    assert!(listener.next().await.is_none());
    assert!(server.wait().success());
}

#[tokio::test]
async fn listening_needs_a_token_where_reading_does() {
    let redis = RedisServer::start();
    let folder = tempfile::tempdir().unwrap();
    let tokens = folder.path().join("tokens");
    std::fs::write(&tokens, "read reader-reader-reader-1\n").unwrap();
    let server = Stockhold::start_with(&redis, &["--token-file", tokens.to_str().unwrap()]);
    server.get("/api/events").await.problem(401, "unauthorized");
    let mut stream = TcpStream::connect(server.address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let request = "GET /api/events HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer reader-reader-reader-1\r\n\r\n";
    stream.write_all(request.as_bytes()).unwrap();
    let mut begin = [0; 12];
    stream.read_exact(&mut begin).unwrap();
    assert_eq!(&begin, b"HTTP/1.1 200");
}
