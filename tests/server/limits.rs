//! Requests that are too large, too slow or too many; and how the server stops.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use hyper::Request;
use nix::sys::signal::Signal;
use serde_json::json;
use stockhold::http::HEADER_READ_TIMEOUT;

use crate::support::redis_server::RedisServer;
use crate::support::stockhold::Stockhold;

/// A connection on which raw bytes are sent.
fn connect(server: &Stockhold) -> TcpStream {
    let stream = TcpStream::connect(server.address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    stream
}

/// Everything until the server closes.
fn read_all(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    match stream.read_to_end(&mut bytes) {
        // If the server answers before it has read everything, it resets the connection.
        Err(error) if error.kind() != ErrorKind::ConnectionReset => panic!("{error}"),
        _ => String::from_utf8(bytes).unwrap(),
    }
}

#[tokio::test]
async fn too_large() {
    let redis = RedisServer::start();
    let server = Stockhold::start(&redis);

    let body = json!({ "sku": "x".repeat(16 * 1024), "quantity": 1 });
    server.post("/api/inventory/seed", body).await.problem(413, "body_too_large");
    // 2 MB, with and without a declared length. The server may close before all of it is sent.
    for framing in ["content-length: 2000000", "transfer-encoding: chunked"] {
        let mut stream = connect(&server);
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
    server.get(&target).await.problem(414, "uri_too_long");
    let request = Request::get(server.url("/livez")).header("x-large", "x".repeat(16 * 1024));
    server.send(request, Default::default()).await.problem(431, "headers_too_large");
    // More than the server reads at all.
    let mut stream = connect(&server);
    let _ = write!(stream, "GET /livez HTTP/1.1\r\nhost: localhost\r\nx-large: {}\r\n\r\n", "x".repeat(200 * 1024));
    let refusal = read_all(&mut stream);
    assert!(refusal.starts_with("HTTP/1.1 431") && refusal.contains("\"code\":\"headers_too_large\""), "{refusal}");
}

#[tokio::test]
async fn too_slow() {
    let redis = RedisServer::start();
    let server = Stockhold::start(&redis);

    let mut no_headers = connect(&server);
    write!(no_headers, "GET /livez HTTP/1.1\r\nhost:").unwrap();
    let mut no_body = connect(&server);
    let head = "POST /api/inventory/seed HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n";
    write!(no_body, "{head}content-length: 30\r\n\r\n{{\"sku\":").unwrap();
    let started = Instant::now();

    let late = read_all(&mut no_body);
    assert!(late.starts_with("HTTP/1.1 408"), "{late}");
    assert!(late.contains("\"code\":\"body_timeout\""), "{late}");
    // It is too late for a useful answer: the connection is closed.
    let silent = read_all(&mut no_headers);
    assert!(silent.is_empty() || silent.starts_with("HTTP/1.1 408"), "{silent}");
    assert!(started.elapsed() >= Duration::from_secs(4), "it was cut off at once");
}

/// Sends a request on a connection that stays open, and returns the head of the answer.
fn ask(stream: &mut TcpStream) -> String {
    write!(stream, "GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(br#"{"status":"live"}"#) {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        answer.push(byte[0]);
    }
    String::from_utf8(answer).unwrap()
}

/// Clients that reuse a connection are told how long it is kept. It is kept for longer than they may need to send a
/// request.
#[tokio::test]
async fn an_idle_connection_is_kept_for_the_announced_time() {
    let redis = RedisServer::start();
    let server = Stockhold::start(&redis);
    let mut idle = connect(&server);
    assert!(ask(&mut idle).contains("\r\nkeep-alive: timeout=75\r\n"));
    std::thread::sleep(HEADER_READ_TIMEOUT + Duration::from_secs(2));
    ask(&mut idle);

    // A client that will not reuse it is not told, and its connection is closed at once.
    for last in ["HTTP/1.1\r\nhost: localhost\r\nconnection: close", "HTTP/1.0"] {
        let mut stream = connect(&server);
        write!(stream, "GET /livez {last}\r\n\r\n").unwrap();
        let answer = read_all(&mut stream);
        assert!(answer.contains(" 200 OK") && !answer.contains("keep-alive"), "{answer}");
    }

    let server = Stockhold::start_with(&redis, &["--keep-alive-seconds", "1"]);
    let mut idle = connect(&server);
    assert!(ask(&mut idle).contains("\r\nkeep-alive: timeout=1\r\n"));
    // As announced, and no longer.
    std::thread::sleep(Duration::from_millis(1000));
    ask(&mut idle);
    assert_eq!(read_all(&mut idle), "");
}

/// A request that has begun must continue, also on a connection that was served before and would be kept.
#[tokio::test]
async fn too_slow_on_a_connection_that_is_kept() {
    let redis = RedisServer::start();
    let server = Stockhold::start_with(&redis, &["--keep-alive-seconds", "3600"]);
    let drips = (0..8).map(|client| {
        let mut stream = connect(&server);
        std::thread::spawn(move || {
            for _ in 0..client % 3 {
                ask(&mut stream);
            }
            let started = Instant::now();
            let slow = "GET /livez HTTP/1.1\r\nhost: localhost\r\nx-slow: ".bytes().chain(std::iter::repeat(b'x'));
            for byte in slow {
                if stream.write_all(&[byte]).is_err() {
                    return;
                }
                assert!(started.elapsed() < Duration::from_secs(60), "it may go on for ever");
                std::thread::sleep(Duration::from_millis(100));
            }
        })
    });
    for drip in drips.collect::<Vec<_>>() {
        drip.join().unwrap();
    }
    // It must not begin and then stop either.
    for requests in [0, 1] {
        let mut stream = connect(&server);
        (0..requests).for_each(|_| drop(ask(&mut stream)));
        write!(stream, "GET").unwrap();
        assert_eq!(read_all(&mut stream), "");
    }
}

/// More connections than are served at a time. The server opens no more than its limit, and serves again when clients
/// leave.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn too_many() {
    rlimit::increase_nofile_limit(4096).unwrap();
    let redis = RedisServer::start();
    let server = Stockhold::start(&redis);
    let open_files = || std::fs::read_dir(format!("/proc/{}/fd", server.id())).unwrap().count();
    let own = open_files();
    let crowd: Vec<TcpStream> = (0..1200).map(|_| connect(&server)).collect();
    let mut most = 0;
    for _ in 0..100 {
        most = most.max(open_files());
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(most > own, "none was accepted");
    // A few more than before, for what the server itself opens.
    assert!(most <= own + 1024 + 10, "{} connections are open", most - own);
    drop(crowd);
    server.get("/livez").await.ok();
}

#[tokio::test]
async fn it_finishes_running_requests_when_told_to_stop() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let redis = RedisServer::start();
        let mut server = Stockhold::start(&redis);
        server.seed("sku", 5).await;
        let body = r#"{"cartId":"c","sku":"sku","quantity":2}"#;
        let mut running = connect(&server);
        let head = "POST /api/reservations/hold HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n";
        write!(running, "{head}expect: 100-continue\r\ncontent-length: {}\r\n\r\n", body.len()).unwrap();
        // The server sends `100 Continue`: the request runs.
        let mut go_on = [0; 25];
        running.read_exact(&mut go_on).unwrap();
        assert_eq!(&go_on, b"HTTP/1.1 100 Continue\r\n\r\n");

        server.signal(signal);
        let refused = Instant::now();
        while TcpStream::connect(server.address).is_ok() {
            assert!(refused.elapsed() < Duration::from_secs(20), "it still accepts");
            std::thread::sleep(Duration::from_millis(5));
        }
        running.write_all(body.as_bytes()).unwrap();
        let answer = read_all(&mut running);
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert!(server.wait().success());
    }
}
