//! Reading stock, reservations and the audit, on a separate connection: reads do not delay sales.
//!
//! Large results are read in pages, each of which takes Redis well under a millisecond, and joined here. A reader that
//! is dropped reads no further page.

use std::collections::HashSet;
use std::sync::Arc;

use futures_util::future;

use super::expiry::Turns;
use super::gate::{Gate, SmallReads};
use super::lapsed::Crowds;
use super::record::{malformed, number};
use super::{ActiveLimit, Engine, Error, Reservation, Rules, Stock};
use crate::keys::{Layout, ReservationId, Sku, StockKeys};
use crate::redis::Redis;
use crate::scripts::{Catalogue, Reply, Scripts};

/// Reservations that a small read lists.
const SMALL: usize = 100;

/// Reservations that are read atomically with the counts, in a millisecond at worst; more are read in pages.
const LISTED_AT_ONCE: usize = 1000;

/// Reservations in a page. Most of the time goes to their scores, which locate the next page.
const LISTED_PER_PAGE: usize = 500;

/// A read sweeps up to this number of lapsed holds; more are counted and left to the sweeper.
const SWEPT_AT_MOST: u64 = 100;

/// What reads need, separate from sales.
pub(super) struct Reads {
    pub redis: Redis,
    pub scripts: Scripts,
    pub layout: Layout,
    pub gate: Arc<Gate>,
    pub small: SmallReads,
    pub crowds: Crowds,
    pub turns: Turns,
}

impl Reads {
    /// On a separate connection to the same Redis as `redis`, within limits that are shared with other engines.
    pub(super) fn on_own_connection(redis: &Redis, layout: Layout, gate: Arc<Gate>) -> Arc<Self> {
        let redis = redis.with_own_connection();
        Arc::new(Self {
            scripts: Scripts::new(Catalogue::embedded(), redis.clone()),
            redis,
            layout,
            gate,
            small: SmallReads::default(),
            crowds: Crowds::default(),
            turns: Turns::default(),
        })
    }

    /// The counts of a SKU and the first `count` of its reservations, read atomically. Script `inventory`.
    pub(super) async fn look(&self, keys: &StockKeys, count: usize) -> Result<Option<Look>, Error> {
        if count > 0 {
            // The script takes five times as long as Redis itself to list them. If both see the same version, they see
            // the same data.
            let list = self.redis.lowest_while(&keys.active, count, &keys.inventory, "version");
            let (look, list) = future::join(self.inventory(keys, 0), list).await;
            let (listed, version) = list.map_err(Error::retry_safe)?;
            match look? {
                Some(look) if version == Some(look.counts.version.to_string()) => {
                    return Ok(Some(Look { listed, ..look }));
                }
                _ => {}
            }
        }
        self.inventory(keys, count).await
    }

    async fn inventory(&self, keys: &StockKeys, count: usize) -> Result<Option<Look>, Error> {
        let names = [&*keys.inventory, &*keys.active];
        let replies = self.scripts.call("inventory", &names, &[&count.to_string()]).await;
        Look::read(&replies.map_err(Error::retry_safe)?)
    }

    /// Lists reservations that lapse after `bound`, `limit` at most, the earliest expiry first. Those that are held or
    /// settled meanwhile may be listed or not. All others are listed once.
    async fn list(&self, keys: &StockKeys, bound: u64, limit: usize) -> Result<Vec<String>, Error> {
        let (mut listed, mut seen) = (Vec::new(), HashSet::new());
        // A page begins at the millisecond in which the last one ended, so those entries are read again.
        let (mut from, mut again) = ((bound + 1) as f64, 0);
        loop {
            let count = LISTED_PER_PAGE.min(limit - listed.len()) + again;
            let page = self.gate.page(self.redis.scored_from(&keys.active, from, count)).await;
            let page = page.map_err(Error::retry_safe)?;
            let is_last = page.len() < count;
            let Some(end) = page.last().map(|(_, score)| *score) else { return Ok(listed) };
            again = page.iter().filter(|(_, score)| *score == end).count();
            from = end;
            for (id, _) in page {
                if listed.len() < limit && seen.insert(id.clone()) {
                    listed.push(id);
                }
            }
            if is_last || listed.len() == limit {
                return Ok(listed);
            }
        }
    }
}

/// The result of one read of a SKU.
pub(super) struct Look {
    pub counts: Counts,
    /// Ids of active reservations, the earliest expiry first.
    pub listed: Vec<String>,
    /// How many reservations are active.
    pub active: u64,
    /// How many of them have lapsed.
    pub lapsed: u64,
}

/// The counts of a SKU.
#[derive(Debug, Clone)]
pub(super) struct Counts {
    available: u64,
    pub reserved: u64,
    confirmed: u64,
    updated_at_ms: u64,
    version: u64,
    rules: Rules,
}

impl Look {
    /// From the replies of `inventory`; `None` for an unknown SKU.
    fn read(replies: &[Reply]) -> Result<Option<Self>, Error> {
        let (first, listed) = replies.split_first().ok_or_else(|| malformed("inventory"))?;
        let parts = first.parts();
        let numbers = match &*parts {
            ["UNKNOWN_SKU"] => return Ok(None),
            ["STOCK", _sku, available, reserved, confirmed, _seeded, updated_at, version, active, lapsed, _rules] => {
                [available, reserved, confirmed, updated_at, version, active, lapsed].map(|text| number(text))
            }
            _ => return Err(malformed("inventory")),
        };
        let rules = Rules::stored(parts.last().expect("the reply has rules"))?;
        let [available, reserved, confirmed, updated_at_ms, version, active, lapsed] = numbers;
        let counts = Counts {
            available: available?,
            reserved: reserved?,
            confirmed: confirmed?,
            updated_at_ms: updated_at_ms?,
            version: version?,
            rules,
        };
        let id = |reply: &Reply| match &*reply.parts() {
            ["ACTIVE", id, _expires_at] => Ok((*id).to_owned()),
            _ => Err(malformed("inventory")),
        };
        let listed = listed.iter().map(id).collect::<Result<_, _>>()?;
        Ok(Some(Self { counts, listed, active: active?, lapsed: lapsed? }))
    }
}

impl Counts {
    /// As if `units` of lapsed holds had been swept.
    pub(super) fn without(self, units: u64) -> Result<Self, Error> {
        let reserved =
            self.reserved.checked_sub(units).ok_or_else(|| malformed("fewer units reserved than are held"))?;
        Ok(Self { available: self.available + units, reserved, ..self })
    }

    fn stock(self, sku: &Sku, active_reservations: Vec<String>) -> Stock {
        let Self { available, reserved, confirmed, updated_at_ms, version, rules } = self;
        Stock { sku: sku.clone(), available, reserved, confirmed, active_reservations, updated_at_ms, version, rules }
    }
}

impl Engine {
    /// Reads a SKU's counts and the first `limit` of its active reservations, as if all that is due had been expired.
    /// If few are due, it expires them. `None` for a SKU that was never seeded. Script `inventory`.
    ///
    /// The counts are of one moment, and so is a list of up to 1,000 with them. A longer list, or the list of a SKU
    /// with many lapsed holds, is read after the counts: what is held or settled meanwhile may be in it or not.
    ///
    /// # Errors
    /// See [`Error`]; [`Error::Busy`] when many others read.
    pub async fn stock(&self, sku: &Sku, limit: ActiveLimit) -> Result<Option<Stock>, Error> {
        let keys = self.layout.stock(sku);
        let reads = &self.reads;
        let limit = limit.get();
        let at_once = if limit <= LISTED_AT_ONCE { limit } else { 0 };
        let (mut waited, mut swept) = (false, false);
        loop {
            // One of the two is held until the read is done.
            let (mut small, mut large) = (None, None);
            let look = reads.look(&keys, at_once);
            let look = if limit <= SMALL {
                small = Some(reads.small.turn(&reads.gate).await?);
                look.await?
            } else {
                large = Some(reads.gate.large().await?);
                reads.gate.page(look).await?
            };
            let Some(Look { counts, mut listed, lapsed, .. }) = look else { return Ok(None) };
            if lapsed == 0 {
                if at_once < limit {
                    listed = reads.list(&keys, 0, limit).await?;
                }
                return Ok(Some(counts.stock(sku, listed)));
            }
            drop((small.take(), large.take()));
            if swept || lapsed > SWEPT_AT_MOST {
                let Some((counts, bound)) = Crowds::join(reads, &keys).await? else { return Ok(None) };
                if limit == 0 {
                    return Ok(Some(counts.stock(sku, Vec::new())));
                }
                let _place = reads.gate.large().await?;
                return Ok(Some(counts.stock(sku, reads.list(&keys, bound, limit).await?)));
            }
            swept = self.in_turn(&keys, &mut waited, self.sweep_lapsed(&keys, lapsed)).await?;
        }
    }

    /// Reads a reservation; one that is due is expired first.
    ///
    /// # Errors
    /// See [`Error`]; [`Error::Busy`] when many others read.
    pub async fn reservation(&self, id: ReservationId) -> Result<Option<Reservation>, Error> {
        let _turn = self.reads.small.turn(&self.reads.gate).await?;
        self.reservation_by(&self.reads.redis, id).await
    }

    /// The same for a request that sells, on either connection.
    pub(super) async fn reservation_by(&self, redis: &Redis, id: ReservationId) -> Result<Option<Reservation>, Error> {
        let Some((record, now_ms)) = self.stored(redis, id).await? else { return Ok(None) };
        if !record.is_due(now_ms) {
            return Ok(Some(record));
        }
        self.sweep_one(&record).await?;
        Ok(self.stored(redis, id).await?.map(|(record, _)| record))
    }

    /// A reservation as it was stored, and Redis's clock to compare it with, epoch milliseconds.
    async fn stored(&self, redis: &Redis, id: ReservationId) -> Result<Option<(Reservation, u64)>, Error> {
        let Some(key) = self.layout.reservation(&id) else { return Ok(None) };
        let stored = redis.hash(&key).await.map_err(Error::retry_safe)?;
        Ok(Reservation::stored(id, &stored.fields)?.map(|record| (record, stored.now_ms)))
    }
}
