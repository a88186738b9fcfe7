//! The load: a closed loop. Each caller sends its next call when it has the answer to the last one.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tokio::task::JoinSet;

/// What came of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Done: this number of operations, because one call may carry several.
    Accepted(u64),
    /// Refused because there are too few units: a right answer.
    SoldOut,
    /// Refused because others were at it too, though there were units.
    Contention,
    /// Anything else. No scenario is meant to have any.
    Failed,
}

/// Somebody who calls.
pub trait Caller: Send + 'static {
    fn call(&mut self) -> impl Future<Output = Verdict> + Send;

    /// Whether there is anything left to call for.
    fn has_more(&self) -> bool {
        true
    }
}

/// When to stop.
#[derive(Debug, Clone)]
pub enum Limit {
    For(Duration),
    /// After this number of calls, of all callers together.
    Calls(u64),
    /// As soon as somebody sets it.
    Until(Arc<AtomicBool>),
}

/// What callers got in a stretch of time.
#[derive(Debug, Clone)]
pub struct Tally {
    pub elapsed: Duration,
    pub accepted: u64,
    pub sold_out: u64,
    pub contention: u64,
    pub failed: u64,
    /// Of accepted calls, in nanoseconds.
    latency: Histogram<u64>,
}

impl Tally {
    pub fn new() -> Self {
        let latency = Histogram::new(3).expect("three significant digits are allowed");
        Self { elapsed: Duration::ZERO, accepted: 0, sold_out: 0, contention: 0, failed: 0, latency }
    }

    pub fn add(&mut self, other: &Self) {
        self.elapsed += other.elapsed;
        self.accepted += other.accepted;
        self.sold_out += other.sold_out;
        self.contention += other.contention;
        self.failed += other.failed;
        self.latency.add(&other.latency).expect("both histograms resize themselves");
    }

    /// Accepted operations per second.
    pub fn rate(&self) -> f64 {
        self.accepted as f64 / self.elapsed.as_secs_f64()
    }

    /// The time, in milliseconds, within which this part (0 to 1) of the accepted calls were answered.
    pub fn latency_ms(&self, quantile: f64) -> f64 {
        self.latency.value_at_quantile(quantile) as f64 / 1e6
    }

    fn count(&mut self, verdict: Verdict, took: Duration) {
        match verdict {
            Verdict::Accepted(operations) => {
                self.accepted += operations;
                self.latency.record(took.as_nanos() as u64).expect("the histogram resizes itself");
            }
            Verdict::SoldOut => self.sold_out += 1,
            Verdict::Contention => self.contention += 1,
            Verdict::Failed => self.failed += 1,
        }
    }
}

impl Limit {
    /// Whether there is time for one more call, made at `now`.
    fn allows(&self, started: Instant, now: Instant, calls: &AtomicU64) -> bool {
        match self {
            Self::For(duration) => now - started < *duration,
            Self::Calls(most) => calls.fetch_add(1, Ordering::Relaxed) < *most,
            Self::Until(done) => !done.load(Ordering::Relaxed),
        }
    }
}

/// Runs the callers side by side until `limit`, or until they have no more to call for. The time counts until the last
/// answer is there.
pub async fn closed_loop<C: Caller>(callers: Vec<C>, limit: Limit) -> Tally {
    // One tally for all: they take turns on one thread, so the lock is always free.
    let tally = Arc::new(Mutex::new(Tally::new()));
    let calls = Arc::new(AtomicU64::new(0));
    let started = Instant::now();
    let mut running = JoinSet::new();
    for mut caller in callers {
        let (tally, calls, limit) = (Arc::clone(&tally), Arc::clone(&calls), limit.clone());
        running.spawn(async move {
            let mut sent = Instant::now();
            while caller.has_more() && limit.allows(started, sent, &calls) {
                let verdict = caller.call().await;
                let answered = Instant::now();
                tally.lock().expect("no caller panicked").count(verdict, answered - sent);
                sent = answered;
            }
        });
    }
    while let Some(caller) = running.join_next().await {
        caller.expect("a caller does not panic");
    }
    let mut tally = tally.lock().expect("no caller panicked").clone();
    tally.elapsed = started.elapsed();
    tally
}
