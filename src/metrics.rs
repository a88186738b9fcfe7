//! What is counted, of whatever layer, and the text that Prometheus reads of it.
//!
//! Each layer declares its own numbers as statics: they are those of the process, whatever number of threads and
//! engines it has. To record is one atomic addition, or two: no lock, and nothing is allocated. The values of all labels
//! are known when the program is built, so no client can make one up.

mod exposition;

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

pub(crate) use exposition::{Exposition, exposed};

/// A number that only grows.
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    pub(crate) fn inc(&self) {
        self.add(1);
    }

    pub(crate) fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A number that grows and shrinks.
pub(crate) struct Gauge(AtomicI64);

impl Gauge {
    pub(crate) const fn new() -> Self {
        Self(AtomicI64::new(0))
    }

    pub(crate) fn add(&self, count: i64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    pub(crate) fn set(&self, value: u64) {
        self.0.store(i64::try_from(value).unwrap_or(i64::MAX), Ordering::Relaxed);
    }

    /// Two threads may record in another order than things happened: for a moment it may be too low.
    pub(crate) fn get(&self) -> u64 {
        u64::try_from(self.0.load(Ordering::Relaxed)).unwrap_or(0)
    }
}

/// How often a value was in which range.
pub(crate) struct Histogram<const BUCKETS: usize> {
    /// The highest value of each bucket.
    bounds: &'static [u64; BUCKETS],
    /// The last one is for all that is higher.
    counts: [AtomicU64; BUCKETS],
    higher: AtomicU64,
    sum: AtomicU64,
    /// How many make one of the unit that is shown.
    per_unit: f64,
}

/// From 250 µs to 2.5 s: a call takes less than a millisecond, and is given up after 0.8 s.
const TIMES_US: [u64; 13] =
    [250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000];

/// How long things took.
pub(crate) type Times = Histogram<{ TIMES_US.len() }>;

impl Times {
    pub(crate) const fn of_seconds() -> Self {
        Self::new(&TIMES_US, 1e6)
    }

    pub(crate) fn record(&self, time: Duration) {
        self.observe(u64::try_from(time.as_micros()).unwrap_or(u64::MAX));
    }
}

impl<const BUCKETS: usize> Histogram<BUCKETS> {
    pub(crate) const fn new(bounds: &'static [u64; BUCKETS], per_unit: f64) -> Self {
        let (counts, higher) = ([const { AtomicU64::new(0) }; BUCKETS], AtomicU64::new(0));
        Self { bounds, counts, higher, sum: AtomicU64::new(0), per_unit }
    }

    pub(crate) fn observe(&self, value: u64) {
        let at = self.bounds.iter().position(|bound| value <= *bound);
        at.map_or(&self.higher, |at| &self.counts[at]).fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(value, Ordering::Relaxed);
    }

    /// The sum, the number of values, and for each bound how many values are not higher and belong to no lower bound.
    fn read(&self) -> (f64, u64, Vec<(f64, u64)>) {
        let counts = self.counts.iter().map(|count| count.load(Ordering::Relaxed));
        let bounds = self.bounds.iter().map(|bound| *bound as f64 / self.per_unit);
        let buckets: Vec<(f64, u64)> = bounds.zip(counts).collect();
        let count = buckets.iter().map(|(_, count)| count).sum::<u64>() + self.higher.load(Ordering::Relaxed);
        (self.sum.load(Ordering::Relaxed) as f64 / self.per_unit, count, buckets)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.read().1 == 0
    }
}
