//! What a sweeper remembers from one round to the next: mainly, which SKUs to skip for a while.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

use super::pace::Pace;

/// How long a SKU that cannot be swept is skipped. A repaired SKU is swept soon, and a damaged one costs little.
const RETRY: Duration = Duration::from_secs(3);

/// How long a SKU is skipped while another sweeper works on it, or after a temporary error.
const PAUSE: Duration = Duration::from_millis(200);

/// The maximum number of remembered SKUs. Others are tried whenever they are met, and not reported.
const MOST: usize = 10_000;

/// What a sweeper remembers from one round to the next. Bounded: it may be kept for as long as the sweeper runs.
#[derive(Debug, Default)]
pub struct Rounds {
    aside: HashMap<String, Aside>,
    stuck: Vec<(String, String)>,
    order: RandomState,
    pub(super) pace: Pace,
}

#[derive(Debug)]
struct Aside {
    until: Instant,
    reported: bool,
}

impl Rounds {
    /// SKUs that are listed as due and were found to be damaged since the last call, each with the reason. A SKU is
    /// reported once while it stays damaged.
    pub fn newly_stuck(&mut self) -> Vec<(String, String)> {
        std::mem::take(&mut self.stuck)
    }

    /// How many SKUs are reported, and still damaged.
    pub(super) fn stuck_skus(&self) -> u64 {
        self.aside.values().filter(|aside| aside.reported).count() as u64
    }

    /// Whether to skip the SKU for now.
    pub(super) fn is_aside(&self, sku: &str) -> bool {
        self.aside.get(sku).is_some_and(|aside| aside.until > Instant::now())
    }

    /// Whether the SKU could not be swept before.
    pub(super) fn knows(&self, sku: &str) -> bool {
        self.aside.contains_key(sku)
    }

    /// Its place in a page. Each sweeper has a different order, so two sweepers seldom work on the same SKU.
    pub(super) fn place(&self, sku: &str) -> u64 {
        self.order.hash_one(sku)
    }

    /// The SKU cannot be swept: an operator should look at it.
    pub(super) fn put_aside(&mut self, sku: &str, why: String) {
        if let Some(aside) = self.remember(sku, RETRY)
            && !std::mem::replace(&mut aside.reported, true)
        {
            self.stuck.push((sku.to_owned(), why));
        }
    }

    /// The SKU could not be swept this time. That is not reported.
    pub(super) fn pass_over(&mut self, sku: &str) {
        self.remember(sku, PAUSE);
    }

    /// The SKU was swept: if sweeping fails again, that is reported.
    pub(super) fn is_sound(&mut self, sku: &str) {
        self.aside.remove(sku);
    }

    /// After a whole round that began at `start`: SKUs not met in it are no longer listed.
    pub(super) fn forget_before(&mut self, start: Instant) {
        self.aside.retain(|_, aside| aside.until > start);
    }

    fn remember(&mut self, sku: &str, time: Duration) -> Option<&mut Aside> {
        let until = Instant::now() + time;
        if let Some(aside) = self.aside.get_mut(sku) {
            aside.until = until;
        } else if self.aside.len() < MOST {
            self.aside.insert(sku.to_owned(), Aside { until, reported: false });
        }
        self.aside.get_mut(sku)
    }
}
