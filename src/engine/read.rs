//! Reading stock, reservations and the audit, on a connection of its own: what is asked for here does not hold up sales.
//!
//! All that is large is read in pages, each of which takes Redis well under a millisecond, and put together here. A
//! reader that is dropped reads no further page.

use std::collections::HashSet;
use std::sync::Arc;

use super::expiry::Turns;
use super::gate::{Gate, SmallReads};
use super::lapsed::{Counted, Crowds};
use super::outcome::{number, odd};
use super::{ActiveLimit, AuditLimit, Engine, Error, Event, Reservation, Stock};
use crate::keys::{Layout, ReservationId, Sku, StockKeys};
use crate::redis::{Moment, Redis};
use crate::scripts::{Catalogue, Scripts};

/// Reservations that a small read lists.
const SMALL: usize = 100;

/// Reservations that are listed of one moment with the counts; more are read in pages.
pub(super) const LISTED_AT_ONCE: usize = 1000;

/// Reservations in a page. Their scores, by which the next page is found, are what takes the time.
const LISTED_PER_PAGE: usize = 500;

/// Lapsed holds up to which a read sweeps them; more are counted and left to the sweeper.
const SWEPT_AT_MOST: u64 = 100;

/// What reads need, apart from what sells.
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
    /// On a connection of its own to the same Redis as `redis`, within limits that are shared with others.
    pub(super) fn apart(redis: &Redis, layout: Layout, gate: Arc<Gate>) -> Arc<Self> {
        let redis = redis.apart();
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

    /// The counts of a SKU, and the first `count` of its reservations that lapse after `bound`, of one moment.
    pub(super) async fn look(&self, keys: &StockKeys, bound: u64, count: usize) -> Result<Option<Look>, Error> {
        const FIELDS: [&str; 7] = ["available", "reserved", "confirmed", "seeded", "version", "lastEvent", "updatedAt"];
        let moment = self.redis.moment(&keys.inventory, &FIELDS, &keys.active, bound, count).await;
        let moment = moment.map_err(Error::without_doubt)?;
        if moment.fields.iter().all(Option::is_none) {
            return Ok(None);
        }
        let [Some(available), Some(reserved), Some(confirmed), Some(seeded), Some(_), Some(_), Some(updated_at)] =
            &*moment.fields
        else {
            return Err(damaged(keys));
        };
        let [available, reserved, confirmed] = [number(available)?, number(reserved)?, number(confirmed)?];
        if [available, reserved, confirmed].into_iter().try_fold(0, u64::checked_add) != Some(number(seeded)?) {
            return Err(damaged(keys));
        }
        Ok(Some(Look { available, reserved, confirmed, updated_at_ms: number(updated_at)?, moment }))
    }

    /// Lists reservations that lapse after `bound`, `limit` at most, the earliest expiry first. Those that are held or
    /// settled meanwhile may be listed or not; all others are, once.
    async fn list(&self, keys: &StockKeys, bound: u64, limit: usize) -> Result<Vec<String>, Error> {
        let (mut listed, mut seen) = (Vec::new(), HashSet::new());
        // A page begins with those that lapse in the millisecond in which the last one ended: they are met again.
        let (mut from, mut again) = ((bound + 1) as f64, 0);
        loop {
            let count = LISTED_PER_PAGE + again;
            let page = self.gate.page(self.redis.scored_from(&keys.active, from, count)).await;
            let page = page.map_err(Error::without_doubt)?;
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

fn damaged(keys: &StockKeys) -> Error {
    Error::Broken(format!("damaged counts in {}", keys.inventory))
}

/// A look at a SKU.
pub(super) struct Look {
    pub available: u64,
    pub reserved: u64,
    pub confirmed: u64,
    pub updated_at_ms: u64,
    pub moment: Moment,
}

impl Look {
    fn shows_lapsed(&self) -> bool {
        self.moment.lowest.as_ref().is_some_and(|(_, score)| *score <= self.moment.now_ms as f64)
    }

    /// As if `lapsed` units had been swept.
    pub(super) fn without(self, lapsed: u64) -> Result<Counted, Error> {
        let reserved = self.reserved.checked_sub(lapsed).ok_or_else(|| odd("fewer units reserved than are held"))?;
        Ok(Counted {
            available: self.available + lapsed,
            reserved,
            confirmed: self.confirmed,
            updated_at_ms: self.updated_at_ms,
            active: self.moment.above,
        })
    }
}

impl Engine {
    /// Reads a SKU's counts and the first `limit` of its active reservations, as if all that is due had been expired;
    /// a few that are due are. `None` for a SKU that was never seeded.
    ///
    /// The counts and up to 1,000 reservations are of one moment. A longer list is read in pages: what is held or settled
    /// meanwhile may be in it or not.
    ///
    /// # Errors
    /// See [`Error`]; [`Error::Busy`] when many others read.
    pub async fn stock(&self, sku: &Sku, limit: ActiveLimit) -> Result<Option<Stock>, Error> {
        let keys = self.layout.stock(sku);
        let reads = &self.reads;
        let limit = limit.get();
        let at_once = if limit <= LISTED_AT_ONCE { limit } else { 0 };
        let (mut waited, mut swept) = (false, false);
        let (mut counted, bound) = loop {
            // One of both, until the look is done.
            let (mut small, mut large) = (None, None);
            let look = reads.look(&keys, 0, at_once);
            let look = if limit <= SMALL {
                small = Some(reads.small.turn(&reads.gate).await?);
                look.await?
            } else {
                large = Some(reads.gate.large().await?);
                reads.gate.page(look).await?
            };
            let Some(look) = look else { return Ok(None) };
            if !look.shows_lapsed() {
                let mut counted = look.without(0)?;
                if at_once < limit {
                    counted.active = reads.list(&keys, 0, limit).await?;
                }
                return Ok(Some(counted.stock(sku)));
            }
            let now_ms = look.moment.now_ms;
            let lapsed = reads.redis.count_up_to(&keys.active, now_ms).await.map_err(Error::without_doubt)?;
            drop((small.take(), large.take()));
            if swept || lapsed > SWEPT_AT_MOST {
                match Crowds::join(reads, &keys).await? {
                    Some(found) => break found,
                    None => return Ok(None),
                }
            }
            swept = self.in_turn(&keys, &mut waited, self.sweep_lapsed(&keys, lapsed)).await?;
        };
        if at_once < limit {
            let _place = reads.gate.large().await?;
            counted.active = reads.list(&keys, bound, limit).await?;
        }
        counted.active.truncate(limit);
        Ok(Some(counted.stock(sku)))
    }

    /// Reads a reservation; one that is due is expired first.
    ///
    /// # Errors
    /// See [`Error`]; [`Error::Busy`] when many others read.
    pub async fn reservation(&self, id: ReservationId) -> Result<Option<Reservation>, Error> {
        let _turn = self.reads.small.turn(&self.reads.gate).await?;
        self.reservation_by(&self.reads.redis, id).await
    }

    /// The same for a request that sells, by whichever connection.
    pub(super) async fn reservation_by(&self, redis: &Redis, id: ReservationId) -> Result<Option<Reservation>, Error> {
        let Some((record, now_ms)) = self.stored(redis, id).await? else { return Ok(None) };
        if !record.is_due(now_ms) {
            return Ok(Some(record));
        }
        self.sweep_one(&record).await?;
        Ok(self.stored(redis, id).await?.map(|(record, _)| record))
    }

    /// A reservation as it was stored, and Redis's clock by which to judge it, epoch milliseconds.
    async fn stored(&self, redis: &Redis, id: ReservationId) -> Result<Option<(Reservation, u64)>, Error> {
        let stored = redis.hash(&self.layout.reservation(&id)).await.map_err(Error::without_doubt)?;
        Ok(Reservation::stored(id, &stored.fields)?.map(|record| (record, stored.now_ms)))
    }

    /// Reads the newest events of a SKU, or of all, newest first; `before` is the id of an event to start behind. `None`
    /// when that is no event of this SKU.
    ///
    /// # Errors
    /// See [`Error`]; [`Error::Busy`] when many others read.
    pub async fn audit(
        &self,
        sku: Option<&Sku>,
        limit: AuditLimit,
        before: Option<&str>,
    ) -> Result<Option<Vec<Event>>, Error> {
        let _place = self.reads.gate.large().await?;
        match sku.map(|sku| self.layout.stock(sku)) {
            Some(keys) => self.reads.chain(sku.expect("its keys are there").as_str(), &keys, limit.get(), before).await,
            None => {
                let shard = self.layout.shards().next().expect("a layout has a shard");
                self.reads.stream(&shard.audit, limit.get(), before).await
            }
        }
    }
}
