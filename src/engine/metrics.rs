//! What is counted of the operations.

use std::fmt;

use crate::keys::MAX_SHARDS;
use crate::metrics::{Counter, Exposition, Gauge, Histogram};

/// The scripts whose requests are sent together.
const GROUPED: [&str; 5] = ["hold", "hold_with_metadata", "confirm", "release", "extend"];

static GROUPS: [Group; GROUPED.len()] = [const { Group::new() }; GROUPED.len()];

/// A group commit, of all threads together.
pub(super) struct Group {
    pub(super) batches: Histogram<8>,
    pub(super) waiting: Gauge,
    pub(super) refused: Counter,
}

impl Group {
    const fn new() -> Self {
        let batches = Histogram::new(&[1, 2, 5, 10, 20, 40, 70, 100], 1.0);
        Self { batches, waiting: Gauge::new(), refused: Counter::new() }
    }

    /// That of a script.
    pub(super) fn of(script: &str) -> &'static Self {
        let at = GROUPED.iter().position(|name| *name == script);
        &GROUPS[at.expect("each script whose requests are sent together is listed")]
    }
}

/// Holds that this process has expired.
pub(super) static EXPIRED: Counter = Counter::new();
/// How overdue the earliest hold was when the last round of the sweeper began, in milliseconds.
pub(super) static OLDEST_LAPSED_MS: Gauge = Gauge::new();
/// SKUs that cannot be swept.
pub(super) static STUCK_SKUS: Gauge = Gauge::new();
/// Entries of the audit of each shard when it was last trimmed.
pub(super) static AUDIT_ENTRIES: [Gauge; MAX_SHARDS as usize] = [const { Gauge::new() }; MAX_SHARDS as usize];
pub(super) static AUDIT_TRIMMED: Counter = Counter::new();

pub(crate) fn expose(to: &mut Exposition) -> fmt::Result {
    let groups = || GROUPED.iter().zip(&GROUPS).map(|(script, group)| ([("script", *script)], group));
    let batches = groups().map(|(labels, group)| (labels, &group.batches));
    to.histograms("stockhold_group_commit_requests", "Requests in a call to Redis.", batches)?;
    let waiting = groups().map(|(labels, group)| (labels, group.waiting.get()));
    to.gauges("stockhold_group_commit_waiting", "Requests that wait for the next call.", waiting)?;
    let refused = groups().map(|(labels, group)| (labels, group.refused.get()));
    to.counters("stockhold_group_commit_refused", "Requests that were refused because too many waited.", refused)?;
    let help = "Holds that this server has expired.";
    to.counter("stockhold_expired_holds", help, &EXPIRED)?;
    let help =
        "How long ago the earliest hold lapsed that was not swept when the last sweep began; 0 if none had lapsed.";
    to.gauge("stockhold_oldest_lapsed_hold_age_seconds", help, OLDEST_LAPSED_MS.per(1e3))?;
    to.gauge("stockhold_stuck_skus", "SKUs that are damaged and cannot be swept.", STUCK_SKUS.per(1.0))?;
    let entries: u64 = AUDIT_ENTRIES.iter().map(Gauge::get).sum();
    to.gauge("stockhold_audit_entries", "Entries of the audit stream, in all shards.", entries as f64)?;
    to.counter("stockhold_audit_trimmed_entries", "Entries that this server has trimmed.", &AUDIT_TRIMMED)
}
