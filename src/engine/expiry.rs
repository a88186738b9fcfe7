//! Expiring what is due on a SKU. Script `sweep`, always in bounded calls.

use std::hash::{DefaultHasher, Hash, Hasher};

use tokio::sync::Mutex;

use super::record::{malformed, number};
use super::{Engine, Error, Reservation, metrics, only};
use crate::keys::{ReservationId, StockKeys};
use crate::redis::{Failure, Redis};
use crate::scripts::Reply;

/// The maximum number of holds that one call expires. The script accepts four times this number, but that takes over a
/// millisecond, and no other client is served in that time: buyers would notice.
pub(super) const SWEPT_PER_CALL: usize = 25;

/// Turns at sweeping a SKU, for callers that need it swept before they continue. When many callers meet the same
/// lapsed holds, one sweeps and the others wait. Otherwise all would repeat the same work, and Redis would do little
/// else.
pub(super) struct Turns([Mutex<()>; 64]);

impl Default for Turns {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Mutex::default()))
    }
}

impl Turns {
    /// The turn of a SKU, which other SKUs may share.
    pub(super) fn of(&self, keys: &StockKeys) -> &Mutex<()> {
        let mut hasher = DefaultHasher::new();
        keys.inventory.hash(&mut hasher);
        &self.0[hasher.finish() as usize % self.0.len()]
    }
}

/// The lapsed holds of a SKU that lacks units for a request, before that is refused.
#[derive(Default)]
pub(super) struct Lapsed {
    /// How many there are now.
    due: u64,
    /// How many of them may still be swept for this request, once it is known.
    left: Option<u64>,
    waited: bool,
}

impl Lapsed {
    /// Takes the number that a script found.
    pub(super) fn note(&mut self, due: u64) {
        self.due = due;
        if due > 0 {
            // Holds that lapse later do not count: otherwise this might never end.
            self.left.get_or_insert(due);
        }
    }

    /// Whether a sweep may bring the units that the request lacks.
    pub(super) fn may_suffice(&self) -> bool {
        self.due > 0 && self.left.is_some_and(|left| left > 0)
    }
}

/// What one call of `sweep` did.
pub(super) struct Expired {
    /// Reservations that were expired.
    pub count: u64,
    /// When the next expiry of the SKU is due, epoch milliseconds.
    pub next_ms: Option<u64>,
}

impl Expired {
    /// Each reply is read once, and counted.
    pub(super) fn read(replies: &[Reply]) -> Result<Self, Error> {
        let expired = match &*only(replies)?.parts() {
            ["SWEPT", count, ""] => Self { count: number(count)?, next_ms: None },
            ["SWEPT", count, next] => Self { count: number(count)?, next_ms: Some(number(next)?) },
            ["UNKNOWN_SKU"] => {
                return Err(Error::Broken("holds are listed for a SKU that was never seeded".to_owned()));
            }
            _ => return Err(malformed("sweep")),
        };
        metrics::EXPIRED.add(expired.count);
        Ok(expired)
    }
}

impl Engine {
    /// Runs `sweep` when no other caller sweeps the SKU, and returns whether it did. A caller that arrives during a
    /// sweep waits once for its end and then does not sweep: there may be nothing left to do.
    pub(super) async fn in_turn(
        &self,
        keys: &StockKeys,
        waited: &mut bool,
        sweep: impl Future<Output = Result<u64, Error>>,
    ) -> Result<bool, Error> {
        let turn = self.sweeps.of(keys);
        let _turn = match turn.try_lock() {
            Ok(turn) => turn,
            Err(_) => {
                let turn = turn.lock().await;
                if !std::mem::replace(waited, true) {
                    return Ok(false);
                }
                turn
            }
        };
        sweep.await?;
        Ok(true)
    }

    /// Sweeps a SKU for a request that lacks units, or waits for another caller's sweep. The request is then to be tried
    /// again.
    pub(super) async fn sweep_for(&self, keys: &StockKeys, lapsed: &mut Lapsed) -> Result<(), Error> {
        // The maximum number that one call takes: these may be enough.
        if self.in_turn(keys, &mut lapsed.waited, self.sweep_earliest(keys)).await? {
            lapsed.left = lapsed.left.map(|left| left.saturating_sub(SWEPT_PER_CALL as u64));
        }
        Ok(())
    }

    /// Expires what is due among the earliest holds of a SKU.
    pub(super) async fn sweep_earliest(&self, keys: &StockKeys) -> Result<u64, Error> {
        let holds = self.earliest_holds(keys, SWEPT_PER_CALL).await?;
        self.sweep(keys, &holds).await
    }

    /// Expires everything that is due on a SKU, unless another caller does so at the same time.
    pub(super) async fn sweep_all(&self, keys: &StockKeys) -> Result<u64, Error> {
        let mut total = 0;
        loop {
            let expired = self.sweep_earliest(keys).await?;
            total += expired;
            if expired < SWEPT_PER_CALL as u64 {
                return Ok(total);
            }
        }
    }

    /// Expires the `lapsed` earliest holds of a SKU, in as many calls as necessary. Holds that another caller expires
    /// meanwhile count.
    pub(super) async fn sweep_lapsed(&self, keys: &StockKeys, lapsed: u64) -> Result<u64, Error> {
        let mut total = 0;
        for _ in 0..lapsed.div_ceil(SWEPT_PER_CALL as u64) {
            total += self.sweep_earliest(keys).await?;
        }
        Ok(total)
    }

    /// Expires one reservation if it is due.
    pub(super) async fn sweep_one(&self, record: &Reservation) -> Result<(), Error> {
        let keys = self.layout.stock(&record.sku);
        self.sweep(&keys, &[keys.shard.reservation(&record.id)]).await.map(drop)
    }

    /// The keys of the holds of a SKU that expire first, at most `count`.
    pub(super) async fn earliest_holds(&self, keys: &StockKeys, count: usize) -> Result<Vec<String>, Error> {
        let ids = self.redis.lowest(&keys.active, count).await.map_err(Error::retry_safe)?;
        self.hold_keys(keys, &ids)
    }

    /// The keys of holds of a SKU.
    pub(super) fn hold_keys(&self, keys: &StockKeys, ids: &[String]) -> Result<Vec<String>, Error> {
        let key = |id: &String| ReservationId::parse(id).ok().and_then(|id| keys.reservation(&id));
        ids.iter().map(key).collect::<Option<_>>().ok_or_else(|| malformed(&keys.active))
    }

    /// Expires what is due among `holds`. Returns the number of expired holds.
    async fn sweep(&self, keys: &StockKeys, holds: &[String]) -> Result<u64, Error> {
        let mut replies = self.sweep_each(&self.redis, &[(keys, holds)]).await.map_err(Error::retry_safe)?;
        let replies = replies.pop().ok_or_else(|| malformed("sweep"))?.map_err(Error::retry_safe)?;
        Ok(Expired::read(&replies)?.count)
    }

    /// Calls `sweep` for each SKU and some of its holds, all together on `redis`. Sweeping is idempotent and promises
    /// nothing to a client. So a lost reply is not ambiguous, and no replica has to confirm.
    pub(super) async fn sweep_each(
        &self,
        redis: &Redis,
        calls: &[(&StockKeys, &[String])],
    ) -> Result<Vec<Result<Vec<Reply>, Failure>>, Failure> {
        let mut names = Vec::with_capacity(calls.len());
        for (keys, holds) in calls {
            let shard = &keys.shard;
            let own = [&*shard.audit, &*shard.due, &*shard.settings, &*keys.inventory, &*keys.active];
            names.push(own.into_iter().chain(holds.iter().map(String::as_str)).collect());
        }
        self.scripts.call_each(redis, "sweep", &names, &[]).await
    }
}
