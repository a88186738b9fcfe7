//! Whether the stock is as the scripts left it, on a live system, and its repair; and whether a server can do what stockhold
//! needs.
//!
//! A SKU is read into a snapshot, and the snapshot is verified; nothing is written. A repair calls the script `repair`
//! with what was found. This module uses the engine's types and a few of its reads. The engine does not know of this
//! module.

mod audit_reach;
mod compatibility;
mod findings;
mod life;
mod repair;
mod snapshot;
mod verifier;

use std::collections::BTreeMap;
use std::sync::Arc;

pub use audit_reach::AuditReach;
pub use compatibility::{Need, Verdict, compatibility};
pub use findings::{Checked, Damage, Finding, Limits};
use repair::{Answer, Repairer};
use snapshot::Reader;
use verifier::Verifier;

use crate::engine::{Engine, Error, Options};
use crate::keys::{Layout, Sku, Subject};
use crate::redis::Redis;

/// Attempts to read a SKU when it changed too much during the reading.
const MAX_READINGS: u32 = 10;

/// Attempts to check a SKU again because it changed, before it is left as it is.
const MAX_STALLS: u32 = 20;

/// Repairs in a row that end nothing, before a SKU is left as it is: each of them is an event in the audit.
const MAX_FRUITLESS: u32 = 3;

/// Checks and repairs the stock of one Redis.
pub struct Checker {
    engine: Arc<Engine>,
    redis: Redis,
    layout: Layout,
    reader: Reader,
    repairer: Repairer,
}

/// Every SKU in any key, with the ids of its active reservations that were found.
pub type Census = BTreeMap<String, Vec<String>>;

/// The outcome of the repair of a SKU.
#[derive(Debug)]
pub struct Repaired {
    /// Events that record what was done.
    pub events: u64,
    /// The state of the SKU after the repair.
    pub checked: Checked,
    /// Why it was not repaired; nothing if it was.
    pub left: Option<String>,
}

impl Checker {
    /// A checker for `redis`, which has this layout; nothing is sent yet.
    pub fn new(layout: Layout, redis: Redis) -> Self {
        let engine = Arc::new(Engine::on(layout.clone(), redis.clone(), Options::default()));
        let reader = Reader { engine: Arc::clone(&engine), redis: redis.clone(), layout: layout.clone() };
        let repairer = Repairer::new(Arc::clone(&engine), redis.clone(), layout.clone());
        Self { engine, redis, layout, reader, repairer }
    }

    /// Scans all keys once, a page at a time, and lists what to check.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn census(&self) -> Result<Census, Error> {
        let mut census = Census::new();
        for shard in self.layout.shards() {
            let mut cursor = 0;
            loop {
                let (next, skus) = self.redis.scan_members(&shard.skus, cursor).await.map_err(Error::retry_safe)?;
                census.extend(skus.into_iter().map(|sku| (sku, Vec::new())));
                if next == 0 {
                    break;
                }
                cursor = next;
            }
        }
        for node in self.redis.primaries().await.map_err(Error::retry_safe)? {
            self.scan(&node, &mut census).await?;
        }
        Ok(census)
    }

    /// Scans the keys of one node.
    async fn scan(&self, node: &Redis, census: &mut Census) -> Result<(), Error> {
        let mut cursor = 0;
        loop {
            let (next, keys) = node.scan(cursor).await.map_err(Error::retry_safe)?;
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
            let fields = self.redis.fields(&records, &["state", "sku"]).await.map_err(Error::retry_safe)?;
            for (id, fields) in ids.into_iter().zip(fields) {
                if let [Some(state), Some(sku)] = &*fields
                    && state == "active"
                {
                    census.entry(sku.clone()).or_default().push(id);
                }
            }
            if next == 0 {
                return Ok(());
            }
            cursor = next;
        }
    }

    /// Reads how far back the audit reaches, and whether that agrees with the setting.
    ///
    /// # Errors
    /// See [`Error`]; damage is no error.
    pub async fn audit(&self) -> Result<AuditReach, Error> {
        AuditReach::look(&self.engine, &self.redis, &self.layout).await
    }

    /// Checks a SKU on a live system. `suspects` are ids of reservations to look at besides those that the SKU's own
    /// keys and events name.
    ///
    /// # Errors
    /// See [`Error`]; damage is no error.
    pub async fn check(&self, sku: &Sku, suspects: &[String], limits: Limits) -> Result<Checked, Error> {
        for _ in 0..MAX_READINGS {
            match self.reader.snapshot(sku, suspects, limits.events).await {
                Ok(Some(snapshot)) => return Ok(Verifier::verify(sku, &snapshot, limits)),
                Ok(None) => {}
                // A key of another type, or a value that is not text: nothing can be verified.
                Err(Error::Broken(why)) => return Ok(Checked::unverified(sku, Damage::Unreadable, why)),
                Err(error) => return Err(error),
            }
        }
        let why = "it changes faster than it can be read".to_owned();
        Ok(Checked::unverified(sku, Damage::Busy, why))
    }

    /// Repairs what `checked` found, and checks again until nothing is found that can be repaired.
    ///
    /// # Errors
    /// See [`Error`]. With [`Error::Unknown`] a part may be repaired: check again.
    pub async fn repair(&self, checked: Checked, suspects: &[String], limits: Limits) -> Result<Repaired, Error> {
        let mut repaired = Repaired { events: 0, checked, left: None };
        let sku = repaired.checked.sku.clone();
        let (mut stalled, mut fruitless) = (0, 0);
        while repaired.left.is_none() && repaired.checked.is_repairable() {
            if stalled > MAX_STALLS {
                repaired.left = Some("it changes faster than it can be repaired".to_owned());
                break;
            }
            let events = repaired.events;
            match self.repairer.round(&repaired.checked).await? {
                Answer::Repaired(0) | Answer::Stale => stalled += 1,
                Answer::Repaired(events) => (repaired.events, stalled) = (repaired.events + events, 0),
                Answer::Left(why) => repaired.left = Some(why),
            }
            let checked = self.check(&sku, suspects, limits).await?;
            let is_fruitless = repaired.events > events && checked.findings == repaired.checked.findings;
            fruitless = if is_fruitless { fruitless + 1 } else { 0 };
            repaired.checked = checked;
            if fruitless == MAX_FRUITLESS && repaired.left.is_none() {
                repaired.left = Some("repairs do not end it".to_owned());
            }
        }
        Ok(repaired)
    }
}
