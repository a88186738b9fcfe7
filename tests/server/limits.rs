//! What is too large, too slow or too many, and the way out when the server is told to stop.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use hyper::Request;
use nix::sys::signal::Signal;
use serde_json::json;

use crate::support::redis_server::RedisServer;
use crate::support::stockhold::Stockhold;

/// A connection on which bytes are sent as they are.
fn connect(shop: &Stockhold) -> TcpStream {
    let stream = TcpStream::connect(shop.address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    stream
}

/// Everything until the server closes.
fn read_all(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    match stream.read_to_end(&mut bytes) {
        // A server that answers before it has read everything resets the rest.
        Err(error) if error.kind() != ErrorKind::ConnectionReset => panic!("{error}"),
        _ => String::from_utf8(bytes).unwrap(),
    }
}

#[tokio::test]
async fn too_large() {
    let redis = RedisServer::start();
    let shop = Stockhold::start(&redis);

    let body = json!({ "sku": "x".repeat(16 * 1024), "quantity": 1 });
    shop.post("/api/inventory/seed", body).await.problem(413, "body_too_large");
    // 2 MB, with and without a length that is known beforehand. The server may close before all of it is sent.
    for framing in ["content-length: 2000000", "transfer-encoding: chunked"] {
        let mut stream = connect(&shop);
        let head = "POST /api/inventory/seed HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n";
        write!(stream, "{head}{framing}\r\n\r\n").unwrap();
        let piece =
            if framing.ends_with("chunked") { format!("3E8\r\n{}\r\n", "x".repeat(1000)) } else { "x".repeat(1000) };
        for _ in 0..2000 {
            if stream.write_all(piece.as_bytes()).is_err() {
                break;
            }
        }
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"HTTP/1.1 413", "{framing}");
    }

    let target = format!("/api/audit?sku={}", "x".repeat(4096));
    shop.get(&target).await.problem(414, "uri_too_long");
    let request = Request::get(shop.url("/livez")).header("x-large", "x".repeat(16 * 1024));
    shop.send(request, Default::default()).await.problem(431, "headers_too_large");
    // Past what is read at all.
    let mut stream = connect(&shop);
    let _ = write!(stream, "GET /livez HTTP/1.1\r\nhost: localhost\r\nx-large: {}\r\n\r\n", "x".repeat(200 * 1024));
    assert!(read_all(&mut stream).starts_with("HTTP/1.1 431"));
}

#[tokio::test]
async fn too_slow() {
    let redis = RedisServer::start();
    let shop = Stockhold::start(&redis);

    let mut no_headers = connect(&shop);
    write!(no_headers, "GET /livez HTTP/1.1\r\nhost:").unwrap();
    let mut no_body = connect(&shop);
    let head = "POST /api/inventory/seed HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n";
    write!(no_body, "{head}content-length: 30\r\n\r\n{{\"sku\":").unwrap();
    let started = Instant::now();

    let late = read_all(&mut no_body);
    assert!(late.starts_with("HTTP/1.1 408"), "{late}");
    assert!(late.contains("\"code\":\"body_timeout\""), "{late}");
    // Too late for an answer that would be of use: the connection is closed.
    let silent = read_all(&mut no_headers);
    assert!(silent.is_empty() || silent.starts_with("HTTP/1.1 408"), "{silent}");
    assert!(started.elapsed() >= Duration::from_secs(4), "it was cut off at once");
}

/// More connections than are served at a time: the server opens no more than it may, and serves again when they leave.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn too_many() {
    rlimit::increase_nofile_limit(4096).unwrap();
    let redis = RedisServer::start();
    let shop = Stockhold::start(&redis);
    let open_files = || std::fs::read_dir(format!("/proc/{}/fd", shop.id())).unwrap().count();
    let own = open_files();
    let crowd: Vec<TcpStream> = (0..1200).map(|_| connect(&shop)).collect();
    let mut most = 0;
    for _ in 0..100 {
        most = most.max(open_files());
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(most > own, "none was accepted");
    // A few more than before for what the server opens for itself.
    assert!(most <= own + 1024 + 10, "{} connections are open", most - own);
    drop(crowd);
    shop.get("/livez").await.ok();
}

#[tokio::test]
async fn told_to_stop_it_finishes_what_runs() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let redis = RedisServer::start();
        let mut shop = Stockhold::start(&redis);
        shop.seed("sku", 5).await;
        let body = r#"{"cartId":"c","sku":"sku","quantity":2}"#;
        let mut running = connect(&shop);
        let head = "POST /api/reservations/hold HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n";
        write!(running, "{head}expect: 100-continue\r\ncontent-length: {}\r\n\r\n", body.len()).unwrap();
        // The server asks for the body: the request runs.
        let mut go_on = [0; 25];
        running.read_exact(&mut go_on).unwrap();
        assert_eq!(&go_on, b"HTTP/1.1 100 Continue\r\n\r\n");

        shop.signal(signal);
        let refused = Instant::now();
        while TcpStream::connect(shop.address).is_ok() {
            assert!(refused.elapsed() < Duration::from_secs(20), "it still accepts");
            std::thread::sleep(Duration::from_millis(5));
        }
        running.write_all(body.as_bytes()).unwrap();
        let answer = read_all(&mut running);
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert!(shop.wait().success());
    }
}
