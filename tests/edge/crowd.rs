//! Two thousand clients that connect and request nothing, and connect again when they are closed.

use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use hyper::Request;
use serde_json::json;

use crate::support::redis_server::RedisServer;
use crate::support::stockhold::Stockhold;
use crate::wire::{connect, most_memory};

const THREADS: usize = 20;
const EACH: usize = 100;
const GOOD: usize = 50;
/// The time for all good clients together. If each had to wait until clients of the crowd time out, it would take
/// minutes.
const BOUND: Duration = Duration::from_secs(40);
const MEMORY: u64 = 64 << 20;

/// Bytes that are sent one at a time.
const SLOW: [&str; 3] = [
    "",
    "GET /livez HTTP/1.1\r\nhost: localhost\r\nx-slow: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "\"sku\":\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
];
const HEAD: &str = "POST /api/inventory/seed HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 5000\r\n\r\n{";

async fn hold(server: &Stockhold, key: &str) -> Result<(), String> {
    let body = json!({ "cartId": "cart-1", "sku": "tea", "quantity": 1 }).to_string();
    let request = Request::post(server.url("/api/reservations/hold")).header("content-type", "application/json");
    server.attempt(request.header("idempotency-key", key), body.into()).await.map(|answer| drop(answer.ok()))
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn two_thousand_slow_clients_do_not_keep_others_out() {
    rlimit::increase_nofile_limit(8192).unwrap();
    let redis = RedisServer::start();
    let server = Stockhold::start(&redis);
    server.seed("tea", 1000).await;
    let before = most_memory(server.id());
    let address = server.address;
    let stop = Arc::new(AtomicBool::new(false));
    let crowd: Vec<_> = (0..THREADS)
        .map(|thread| {
            let stop = Arc::clone(&stop);
            thread::spawn(move || {
                let enter = || {
                    let mut stream = connect(address);
                    if thread % 3 == 2 {
                        let _ = stream.write_all(HEAD.as_bytes());
                    }
                    stream.set_nonblocking(true).unwrap();
                    stream
                };
                let mut streams: Vec<_> = (0..EACH).map(|_| enter()).collect();
                let (mut turned_out, mut round) = (0, 0);
                while !stop.load(Ordering::Relaxed) {
                    for stream in &mut streams {
                        let byte = SLOW[thread % 3].as_bytes().get(round).copied();
                        let said = byte.is_none_or(|byte| stream.write_all(&[byte]).is_ok());
                        if !said || matches!(stream.read(&mut [0; 512]), Ok(0)) {
                            *stream = enter();
                            turned_out += 1;
                        }
                    }
                    round += 1;
                    thread::sleep(Duration::from_millis(100));
                }
                turned_out
            })
        })
        .collect();
    thread::sleep(Duration::from_secs(1));

    let started = Instant::now();
    for good in 0..GOOD {
        // One client that was there before the crowd, and one that connects now.
        let key = format!("hold-{good}");
        while let Err(error) = hold(&server, &key).await {
            // A connection that has been idle for too long may be closed while a request is on its way.
            assert!(started.elapsed() < BOUND, "{error}");
        }
        let mut stream = connect(address);
        stream.write_all(b"GET /livez HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer:?}");
        assert!(started.elapsed() < BOUND, "they are kept out");
    }
    println!("{GOOD} clients, old and new, were served in {:?}", started.elapsed());
    stop.store(true, Ordering::Relaxed);
    let turned_out: usize = crowd.into_iter().map(|thread| thread.join().unwrap()).sum();
    assert!(turned_out > 0, "there was room for all");
    let grown = most_memory(server.id()) - before;
    assert!(grown < MEMORY, "{grown} bytes for a crowd");
    assert_eq!(server.counts("tea").await, [1000 - GOOD as u64, GOOD as u64, 0]);
}
