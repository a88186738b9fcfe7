//! Expiring what is due: for the sweeper, and for whoever meets it first. Script `sweep`, always in bounded calls.

use std::hash::{DefaultHasher, Hash, Hasher};

use tokio::sync::Mutex;

use super::record::{malformed, number};
use super::{Engine, Error, Reservation, only};
use crate::keys::{ReservationId, Sku, StockKeys};

/// SKUs that one look at the due list takes.
const DUE_PAGE: usize = 100;

/// Holds that one call expires at most. The script takes four times as many, but that is over a millisecond in which
/// nobody else is served: buyers would notice.
pub(super) const SWEPT_PER_CALL: usize = 25;

/// Turns at sweeping a SKU, for those who want it swept before they go on: of a crowd that meets the same lapsed holds
/// one sweeps, and the others wait for it. Together they would do the same work many times over, and Redis little else.
pub(super) struct Turns([Mutex<()>; 64]);

impl Default for Turns {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Mutex::default()))
    }
}

impl Turns {
    /// That of a SKU, which it may share with others.
    pub(super) fn of(&self, keys: &StockKeys) -> &Mutex<()> {
        let mut hasher = DefaultHasher::new();
        keys.inventory.hash(&mut hasher);
        &self.0[hasher.finish() as usize % self.0.len()]
    }
}

/// What a round of sweeping did.
#[derive(Debug, Default)]
pub struct Swept {
    /// Reservations that were expired.
    pub expired: u64,
    /// SKUs that are listed as due and cannot be swept, each with the reason: damage for somebody to look at.
    pub stuck: Vec<(String, String)>,
}

impl Engine {
    /// Expires everything that is due, SKU by SKU.
    ///
    /// # Errors
    /// See [`Error`]. What was expired until then stays so.
    pub async fn sweep_due(&self) -> Result<Swept, Error> {
        let mut swept = Swept::default();
        for shard in self.layout.shards() {
            // What is stuck stays listed: step over it.
            let mut skip = 0;
            loop {
                let now_ms = self.redis.now_ms().await.map_err(Error::without_doubt)?;
                let due = self.redis.up_to(&shard.due, now_ms, skip, DUE_PAGE).await.map_err(Error::without_doubt)?;
                if due.is_empty() {
                    break;
                }
                for sku in due {
                    match self.sweep_sku(&sku).await {
                        // Due still, and nothing to expire: another sweeper is at it, or its scores are damaged.
                        Ok((0, Some(next_ms))) if next_ms <= now_ms => skip += 1,
                        Ok((expired, _)) => swept.expired += expired,
                        Err(Error::Broken(why)) => {
                            skip += 1;
                            swept.stuck.push((sku, why));
                        }
                        Err(error) => return Err(error),
                    }
                }
            }
        }
        Ok(swept)
    }

    /// One call for a SKU of the due list, so that a large one does not keep the others waiting.
    async fn sweep_sku(&self, sku: &str) -> Result<(u64, Option<u64>), Error> {
        let sku = Sku::parse(sku).map_err(|invalid| Error::Broken(invalid.to_string()))?;
        let keys = self.layout.stock(&sku);
        let holds = self.earliest_holds(&keys, SWEPT_PER_CALL).await?;
        self.sweep(&keys, &holds).await
    }

    /// Lets `sweep` run when nobody else sweeps the SKU, and tells whether it has. Who comes while somebody does waits for
    /// the end of that, the first time, and is not let in: there may be nothing left to do.
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

    /// Expires what is due among the earliest holds of a SKU.
    pub(super) async fn sweep_earliest(&self, keys: &StockKeys) -> Result<u64, Error> {
        let holds = self.earliest_holds(keys, SWEPT_PER_CALL).await?;
        Ok(self.sweep(keys, &holds).await?.0)
    }

    /// Expires everything that is due on a SKU, unless somebody else does so at the same time.
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

    /// Expires the `lapsed` earliest holds of a SKU, in as many calls as that takes; those that somebody else expires
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
        self.sweep(&keys, &[self.layout.reservation(&record.id)]).await.map(drop)
    }

    /// The keys of the holds of a SKU that expire first, at most `count`.
    pub(super) async fn earliest_holds(&self, keys: &StockKeys, count: usize) -> Result<Vec<String>, Error> {
        let ids = self.redis.lowest(&keys.active, count).await.map_err(Error::without_doubt)?;
        let key = |id: &String| ReservationId::parse(id).map(|id| self.layout.reservation(&id));
        ids.iter().map(key).collect::<Result<_, _>>().map_err(|_| malformed(&keys.active))
    }

    /// How many were expired, and when the next expiry of the SKU is due, epoch milliseconds.
    async fn sweep(&self, keys: &StockKeys, holds: &[String]) -> Result<(u64, Option<u64>), Error> {
        let shard = &keys.shard;
        let mut names = vec![&*shard.audit, &*shard.due, &*shard.settings, &*keys.inventory, &*keys.active];
        names.extend(holds.iter().map(String::as_str));
        // Sweeping twice does what sweeping once does: a lost reply leaves no doubt.
        let replies = self.scripts.call("sweep", &names, &[]).await.map_err(Error::without_doubt)?;
        match &*only(&replies)?.parts() {
            ["SWEPT", count, ""] => Ok((number(count)?, None)),
            ["SWEPT", count, next] => Ok((number(count)?, Some(number(next)?))),
            ["UNKNOWN_SKU"] => Err(Error::Broken("holds are listed for a SKU that was never seeded".to_owned())),
            _ => Err(malformed("sweep")),
        }
    }
}
