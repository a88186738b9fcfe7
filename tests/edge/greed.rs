//! Bodies without end, and answers that no client reads.

use std::io::{Read, Write};
use std::thread;
use std::time::{Duration, Instant};

use socket2::SockRef;

use crate::support::redis_server::RedisServer;
use crate::support::stockhold::Stockhold;
use crate::wire::{connect, most_memory, split};

const MEMORY: u64 = 64 << 20;
const GIGABYTE: usize = 1 << 30;
const PATIENCE: Duration = Duration::from_secs(60);

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_gigabyte_is_refused_before_it_is_sent() {
    let redis = RedisServer::start();
    let server = Stockhold::start(&redis);
    server.seed("tea", 5).await;
    let before = most_memory(server.id());
    let address = server.address;
    let senders: Vec<_> = (0..16)
        .map(|sender| {
            thread::spawn(move || {
                let mut stream = connect(address);
                let head =
                    "POST /api/reservations/hold HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n";
                let (framing, piece) = if sender % 2 == 0 {
                    ("transfer-encoding: chunked".to_owned(), format!("10000\r\n{}\r\n", "x".repeat(1 << 16)))
                } else {
                    (format!("content-length: {GIGABYTE}"), "x".repeat(1 << 16))
                };
                write!(stream, "{head}{framing}\r\n\r\n").unwrap();
                let mut sent = 0;
                while sent < GIGABYTE && stream.write_all(piece.as_bytes()).is_ok() {
                    sent += piece.len();
                }
                let mut answer = Vec::new();
                let _ = stream.read_to_end(&mut answer);
                // A reset may have overtaken the answer. What counts is that the rest was not read.
                let answers = split(&answer).0;
                assert!(answers.iter().all(|answer| answer.status == 413), "{answers:?}");
                sent
            })
        })
        .collect();
    for sender in senders {
        let sent = sender.join().unwrap();
        assert!(sent < 64 << 20, "{sent} bytes were taken");
    }
    let grown = most_memory(server.id()) - before;
    assert!(grown < MEMORY, "{grown} bytes of memory for bodies that were refused");
    server.get("/livez").await.ok();
}

/// Clients that request much, again and again, and read nothing of it.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_client_that_does_not_read_is_closed() {
    const GREEDY: usize = 10;
    let redis = RedisServer::start();
    let server = Stockhold::start(&redis);
    server.seed("tea", 5000).await;
    for _ in 0..5000 / 50 {
        let holds = (0..50).map(|_| server.held("tea", 1));
        for hold in holds.collect::<Vec<_>>() {
            hold.await;
        }
    }
    let open_files = || std::fs::read_dir(format!("/proc/{}/fd", server.id())).unwrap().count();
    let (before, own) = (most_memory(server.id()), open_files());
    let greedy: Vec<_> = (0..GREEDY)
        .map(|_| {
            let mut stream = connect(server.address);
            SockRef::from(&stream).set_recv_buffer_size(16 * 1024).unwrap();
            stream.set_nonblocking(true).unwrap();
            // More answers than fit all buffers on the way: the server stops reading before it has all requests.
            let requests = "GET /api/inventory/tea HTTP/1.1\r\nhost: localhost\r\n\r\n".repeat(5000);
            let sent = stream.write(requests.as_bytes()).unwrap();
            assert!(sent > 50_000, "{sent} bytes are not enough");
            stream
        })
        .collect();
    let asked = Instant::now();
    while open_files() < own + GREEDY / 2 {
        assert!(asked.elapsed() < PATIENCE, "they are not let in");
        thread::sleep(Duration::from_millis(5));
    }
    while open_files() > own + 3 {
        server.get("/livez").await.ok();
        assert!(asked.elapsed() < PATIENCE, "{} connections are still open", open_files() - own);
        thread::sleep(Duration::from_millis(50));
    }
    assert!(asked.elapsed() > Duration::from_secs(2), "they were not given a chance");
    let grown = most_memory(server.id()) - before;
    assert!(grown < MEMORY, "{grown} bytes of memory for answers that nobody took");
    drop(greedy);
}
