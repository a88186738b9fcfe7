//! Readers that read much and do not pause: what they get is correct, and buyers continue.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hyper::Request;
use hyper::body::Bytes;
use serde_json::Value;
use stockhold::keys::ReservationId;
use tokio::task::{JoinError, JoinSet};
use tokio::time::timeout;

use super::faults::FaultInjector;
use super::world::{STUCK, UNITS, World};
use crate::support::stockhold::Answer;

const READERS: usize = 32;

/// What they request, and the maximum number of entries in an answer.
const PATHS: [(&str, usize); 6] = [
    ("/api/inventory/hot?active=10000", 10_000),
    ("/api/audit?sku=hot&limit=1000", 1000),
    ("/api/audit?limit=1000", 1000),
    ("/api/inventory/hot", 100),
    ("/api/inventory?limit=1000", 1000),
    ("/api/reservations?sku=hot&limit=1000", 1000),
];

/// The results of the readers so far.
#[derive(Default)]
struct Got {
    answered: AtomicU64,
    refused: AtomicU64,
}

impl FaultInjector {
    /// Reads for a while, and until a reader got an answer and something was sold. Then all readers go away, even those
    /// that wait for an answer.
    pub async fn read_much(&mut self) {
        let (begun, length) = (Instant::now(), Duration::from_millis(self.rng.u64(200..600)));
        let sold = self.world.operations.load(Ordering::Relaxed);
        let (got, mut readers) = (Arc::new(Got::default()), JoinSet::new());
        for number in 0..READERS {
            let (world, got) = (Arc::clone(&self.world), Arc::clone(&got));
            readers.spawn(async move { read(&world, number, &got).await });
        }
        let is_enough = || {
            let is_sold = self.world.operations.load(Ordering::Relaxed) > sold;
            begun.elapsed() > length && is_sold && got.answered.load(Ordering::Relaxed) > 0
        };
        while !is_enough() {
            assert!(begun.elapsed() < STUCK, "with readers, nothing is sold or nothing read");
            if let Ok(Some(ended)) = timeout(Duration::from_millis(5), readers.join_next()).await {
                ended.unwrap();
            }
        }
        readers.abort_all();
        while let Some(ended) = readers.join_next().await {
            assert!(ended.as_ref().is_err_and(JoinError::is_cancelled), "{ended:?}");
        }
        self.statistics.reads += got.answered.load(Ordering::Relaxed);
        self.statistics.reads_refused += got.refused.load(Ordering::Relaxed);
    }
}

async fn read(world: &World, number: usize, got: &Got) {
    let server = world.server().await;
    for turn in number.. {
        let (path, most) = PATHS[turn % PATHS.len()];
        let attempt = timeout(STUCK, server.attempt(Request::get(server.url(path)), Bytes::new()));
        let answer = attempt.await.unwrap_or_else(|_| panic!("{path} hangs")).unwrap();
        if answer.status == 503 {
            assert!(answer.headers.contains_key("retry-after"), "{path} answered {answer:?}");
            assert_eq!(answer.problem(503, "unavailable")["outcome"], "none", "{path}");
            got.refused.fetch_add(1, Ordering::Relaxed);
            continue;
        }
        match path {
            "/api/inventory?limit=1000" => check_list(path, most, answer, "sku"),
            "/api/reservations?sku=hot&limit=1000" => check_list(path, most, answer, "reservationId"),
            _ if path.contains("audit") => check_events(path, most, answer),
            _ => check_stock(path, most, answer),
        }
        got.answered.fetch_add(1, Ordering::Relaxed);
    }
}

fn check_stock(path: &str, most: usize, answer: Answer) {
    let stock = answer.ok();
    assert_eq!(stock["sku"], "hot", "{path}");
    assert_eq!(total(&stock), UNITS[0].1, "{path}");
    assert!(stock["updatedAt"].is_string(), "{path}");
    let ids = stock["activeReservations"].as_array().unwrap();
    let ids: Vec<&str> = ids.iter().map(|id| id.as_str().unwrap()).collect();
    assert!(ids.len() <= most, "{path} gave {}", ids.len());
    assert!(ids.iter().all(|id| ReservationId::parse(id).is_ok()), "{path} gave {ids:?}");
    assert_eq!(ids.iter().collect::<HashSet<_>>().len(), ids.len(), "{path} names one twice");
}

/// Each entry is there once.
fn check_list(path: &str, most: usize, answer: Answer, field: &str) {
    let body = answer.ok();
    let items = body["items"].as_array().unwrap();
    let names: HashSet<_> = items.iter().map(|item| item[field].as_str().unwrap()).collect();
    assert!(names.len() == items.len() && items.len() <= most, "{path}: {body}");
    assert!(field != "sku" || names.contains("hot"), "{path}: {body}");
}

/// The newest events come first; those of one SKU are a chain without a gap.
fn check_events(path: &str, most: usize, answer: Answer) {
    let body = answer.ok();
    let events = body["events"].as_array().unwrap();
    assert!((1..=most).contains(&events.len()), "{path} gave {}", events.len());
    for pair in events.windows(2) {
        assert!(stream_id(&pair[0]) > stream_id(&pair[1]), "{path}: {pair:?}");
        if path.contains("sku=") {
            assert_eq!(pair[0]["previous"], pair[1]["id"], "{path}: {pair:?}");
            assert_eq!(pair[0]["version"].as_u64(), pair[1]["version"].as_u64().map(|version| version + 1), "{path}");
        }
    }
    for event in events.iter().filter(|event| event["sku"] == "hot" || path.contains("sku=")) {
        assert_eq!(event["sku"], "hot", "{path}: {event}");
        assert_eq!(total(event), UNITS[0].1, "{path}: {event}");
    }
}

/// The sum of its units.
fn total(counts: &Value) -> u64 {
    ["available", "reserved", "confirmed"].iter().map(|name| counts[*name].as_u64().unwrap()).sum()
}

fn stream_id(event: &Value) -> (u64, u64) {
    let (ms, sequence) = event["id"].as_str().unwrap().split_once('-').unwrap();
    (ms.parse().unwrap(), sequence.parse().unwrap())
}
