//! Whether a SKU is as the scripts left it: its books are read, and judged. Nothing is written.

use std::collections::BTreeMap;
use std::fmt;

use super::judge::Judge;
use super::{Engine, Error};
use crate::keys::{Sku, Subject};

/// Times that a SKU is read anew when too much happened to it during the reading.
const MAX_READINGS: u32 = 10;

/// How thorough a check is.
#[derive(Debug, Clone, Copy)]
pub struct Thoroughness {
    /// Events of each SKU that are replayed, at most.
    pub events: usize,
    /// Milliseconds that a reservation may be active beyond its time before it counts as forgotten.
    pub overdue_ms: u64,
}

/// What is wrong, by what it takes to mend it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Damage {
    /// The counts are not what the audit and the active reservations come to.
    Counts,
    /// The audit does not add up, or lacks an event that it should have.
    History,
    /// A reservation is not what its last event left.
    Record,
    /// A reservation or the SKU is not where the scripts and the sweeper look for it.
    Index,
    /// A reservation would be active longer than it was held for, or longer than allowed.
    Expiry,
    /// Reservations are active long after their time: nobody sweeps.
    Overdue,
    /// Something is there that cannot be understood, or nothing where something must be.
    Unreadable,
    /// More happened than a check can keep up with: nothing is known.
    Busy,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Counts => "counts",
            Self::History => "history",
            Self::Record => "record",
            Self::Index => "index",
            Self::Expiry => "expiry",
            Self::Overdue => "overdue",
            Self::Unreadable => "unreadable",
            Self::Busy => "busy",
        })
    }
}

impl Damage {
    /// Whether [`Engine::mend`] knows what to do about it.
    pub fn is_mendable(self) -> bool {
        !matches!(self, Self::Unreadable | Self::Busy)
    }
}

/// Something that is not as the scripts left it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Of which kind.
    pub damage: Damage,
    /// The reservation that it is about; empty when it is about the SKU.
    pub reservation: String,
    /// In words.
    pub what: String,
}

/// A SKU that was checked.
#[derive(Debug)]
pub struct Checked {
    /// Which.
    pub sku: Sku,
    /// Events that were replayed.
    pub events: usize,
    /// Reservations that were looked at.
    pub reservations: usize,
    /// What is wrong; nothing if all is well.
    pub findings: Vec<Finding>,
    pub(super) plan: Plan,
}

/// What would mend it: the arguments of script `repair`.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub version: String,
    pub last_event: String,
    pub restart: String,
    /// Units to add: available, reserved, confirmed.
    pub change: [i64; 3],
    /// Reservations to make again, each from an event.
    pub restore: Vec<(String, String)>,
    /// Reservations to file by their records.
    pub file: Vec<String>,
    /// Whether lapsed reservations are left.
    pub sweep: bool,
}

/// Every SKU there is a trace of, with the ids of its active reservations as far as they were met.
pub type Census = BTreeMap<String, Vec<String>>;

impl Engine {
    /// Goes once over all keys, a page at a time, and lists what is to be checked.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn census(&self) -> Result<Census, Error> {
        let mut census = Census::new();
        for shard in self.layout.shards() {
            let mut cursor = 0;
            loop {
                let (next, skus) = self.redis.scan_set(&shard.skus, cursor).await.map_err(Error::without_doubt)?;
                census.extend(skus.into_iter().map(|sku| (sku, Vec::new())));
                if next == 0 {
                    break;
                }
                cursor = next;
            }
        }
        let mut cursor = 0;
        loop {
            let (next, keys) = self.redis.scan(cursor).await.map_err(Error::without_doubt)?;
            let (mut ids, mut records) = (Vec::new(), Vec::new());
            for key in keys {
                match self.layout.read(&key) {
                    Some(Subject::Stock(sku)) => drop(census.entry(sku.to_string()).or_default()),
                    Some(Subject::Reservation(id)) => {
                        ids.push(id.to_string());
                        records.push(key);
                    }
                    None => {}
                }
            }
            let fields = self.redis.fields(&records, &["state", "sku"]).await.map_err(Error::without_doubt)?;
            for (id, fields) in ids.into_iter().zip(fields) {
                if let [Some(state), Some(sku)] = &*fields
                    && state == "active"
                {
                    census.entry(sku.clone()).or_default().push(id);
                }
            }
            if next == 0 {
                return Ok(census);
            }
            cursor = next;
        }
    }

    /// Checks a SKU on a live system. `suspects` are ids of reservations to look at besides those that the SKU's own
    /// keys and events name.
    ///
    /// # Errors
    /// See [`Error`]; damage is no error.
    pub async fn check(&self, sku: &Sku, suspects: &[String], how: Thoroughness) -> Result<Checked, Error> {
        for _ in 0..MAX_READINGS {
            match self.books(sku, suspects, how.events).await {
                Ok(Some(books)) => return Ok(Judge::of(sku, &books, how)),
                Ok(None) => {}
                // A key of another type, most likely: Redis says so, and nothing can be judged.
                Err(Error::Broken(why)) => return Ok(Checked::unjudged(sku, Damage::Unreadable, why)),
                Err(error) => return Err(error),
            }
        }
        let why = "it changes faster than it can be read".to_owned();
        Ok(Checked::unjudged(sku, Damage::Busy, why))
    }
}

impl Checked {
    pub(super) fn new(sku: &Sku) -> Self {
        Self { sku: sku.clone(), events: 0, reservations: 0, findings: Vec::new(), plan: Plan::default() }
    }

    fn unjudged(sku: &Sku, damage: Damage, what: String) -> Self {
        let mut checked = Self::new(sku);
        checked.findings.push(Finding { damage, reservation: String::new(), what });
        checked
    }
}
