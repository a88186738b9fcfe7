//! What a sweeper keeps in mind from one round to the next: above all, which SKUs to leave alone for a while.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

use super::pace::Pace;

/// How long a SKU that cannot be swept is left alone: one that was mended is swept soon, and one that was not costs little.
const RETRY: Duration = Duration::from_secs(3);

/// How long a SKU is left alone that another sweeper is at, or that will be swept when something has passed.
const PAUSE: Duration = Duration::from_millis(200);

/// SKUs that are kept in mind, at most. Those beyond are tried whenever they are met, and not reported.
const MOST: usize = 10_000;

/// What a sweeper keeps in mind from one round to the next. Bounded: it may be kept for as long as the sweeper runs.
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
    /// SKUs that are listed as due and were found to be damaged since this was asked last, each with the reason. A SKU is
    /// told of once for as long as it stays so.
    pub fn newly_stuck(&mut self) -> Vec<(String, String)> {
        std::mem::take(&mut self.stuck)
    }

    /// Whether it is to be left alone for now.
    pub(super) fn is_aside(&self, sku: &str) -> bool {
        self.aside.get(sku).is_some_and(|aside| aside.until > Instant::now())
    }

    /// Whether it could not be swept before.
    pub(super) fn knows(&self, sku: &str) -> bool {
        self.aside.contains_key(sku)
    }

    /// Where it stands in a page. No two sweepers have the same order, so that they seldom meet.
    pub(super) fn place(&self, sku: &str) -> u64 {
        self.order.hash_one(sku)
    }

    /// It cannot be swept: somebody should look at it.
    pub(super) fn put_aside(&mut self, sku: &str, why: String) {
        if let Some(aside) = self.remember(sku, RETRY)
            && !std::mem::replace(&mut aside.reported, true)
        {
            self.stuck.push((sku.to_owned(), why));
        }
    }

    /// It could not be swept just now, which is nothing to report.
    pub(super) fn pass_over(&mut self, sku: &str) {
        self.remember(sku, PAUSE);
    }

    /// It was swept: should it get stuck again, that is news.
    pub(super) fn is_sound(&mut self, sku: &str) {
        self.aside.remove(sku);
    }

    /// After a whole round that began at `start`: what was not met in it is listed no more.
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
