//! The counts of a SKU with many lapsed holds, as they will be after the sweep, without sweeping.
//!
//! The units of the lapsed holds are added up from the latest hold to the earliest, a page at a time. Meanwhile
//! sweepers remove the earliest. At the end the counts are read. Before that, two things are read: how many lapsed
//! holds are left, and which is the earliest. If the list has that hold at this place, the holds before it are exactly
//! those that are left: their units are available. If not (a late buyer's hold was removed from the middle), the list
//! is made again; the quantities are known by then. The number of lapsed holds only decreases: if it is equal before
//! and after the counts were read, the holds did not change.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::future::{BoxFuture, FutureExt, Shared, WeakShared};

use super::Error;
use super::read::{Counts, Look, Reads};
use super::record::{malformed, number};
use crate::keys::{ReservationId, StockKeys};

/// Holds in a page, with their quantities: a third of a millisecond of Redis's time.
const PER_PAGE: u64 = 250;

/// Attempts to make the list.
const MAX_LISTS: u32 = 10;

/// Attempts to read the counts for a list, while sweepers work.
const MAX_LOOKS: u32 = 50;

/// The counts of a SKU, and the time up to which holds had lapsed; `None` for an unknown SKU.
type Found = Option<(Counts, u64)>;
type Counting = BoxFuture<'static, Result<Found, Error>>;
type Gathering = HashMap<String, WeakShared<Counting>>;

/// Readers of the same SKU: when many meet its lapsed holds, one adds up the units for all.
#[derive(Default)]
pub(super) struct Crowds(Mutex<Gathering>);

impl Crowds {
    /// Waits for the sum in progress for the SKU, and then adds up once for all readers that arrived meanwhile. They
    /// cannot use the sum in progress: it may have begun before a hold lapsed that they must see as lapsed. When all
    /// readers are gone, it stops.
    pub(super) async fn join(reads: &Arc<Reads>, keys: &StockKeys) -> Result<Found, Error> {
        let flight = {
            let mut gathering = reads.crowds.lock();
            let joined = gathering.get(&keys.inventory).and_then(WeakShared::upgrade);
            joined.unwrap_or_else(|| {
                let flight = Self::fly(Arc::clone(reads), keys.clone());
                gathering.insert(keys.inventory.clone(), flight.downgrade().expect("it was not polled"));
                flight
            })
        };
        flight.await
    }

    fn fly(reads: Arc<Reads>, keys: StockKeys) -> Shared<Counting> {
        let flight = async move {
            let _turn = reads.turns.of(&keys).lock().await;
            // From here on no reader can join.
            reads.crowds.lock().remove(&keys.inventory);
            reads.count(&keys).await
        };
        flight.boxed().shared()
    }

    fn lock(&self) -> MutexGuard<'_, Gathering> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reads {
    /// Adds up, until the result is consistent.
    async fn count(&self, keys: &StockKeys) -> Result<Found, Error> {
        let _place = self.gate.large().await?;
        let mut quantities = HashMap::new();
        let now_ms = self.redis.now_ms(&keys.active).await.map_err(Error::retry_safe)?;
        // No list is needed when all holds have lapsed.
        let mut list = Vec::new();
        for _ in 0..=MAX_LISTS {
            for _ in 0..MAX_LOOKS {
                let (left, lowest, look, still_left) = self.gate.page(self.look_around(keys, now_ms)).await?;
                let Some(Look { counts, active, .. }) = look else { return Ok(None) };
                if left != still_left {
                    continue;
                }
                let units = match left.checked_sub(1).map(|last| list.get(last as usize)) {
                    None => 0,
                    Some(_) if left == active => counts.reserved,
                    Some(Some((id, units))) if lowest.as_ref() == Some(id) => *units,
                    Some(_) => break,
                };
                return Ok(Some((counts.without(units)?, now_ms)));
            }
            list = self.lapsed(keys, now_ms, &mut quantities).await?;
        }
        Err(Error::Busy)
    }

    /// The counts. Before them, how many of the holds that had lapsed at `now_ms` are left, and the earliest of all;
    /// after them, how many are still left.
    async fn look_around(
        &self,
        keys: &StockKeys,
        now_ms: u64,
    ) -> Result<(u64, Option<String>, Option<Look>, u64), Error> {
        let (left, lowest) = self.redis.tail(&keys.active, now_ms).await.map_err(Error::retry_safe)?;
        let look = self.look(keys, 0).await?;
        let still_left = self.redis.count_up_to(&keys.active, now_ms).await.map_err(Error::retry_safe)?;
        Ok((left, lowest, look, still_left))
    }

    /// The holds that had lapsed at `now_ms`, the latest expiry first, each with the total units up to it.
    async fn lapsed(
        &self,
        keys: &StockKeys,
        now_ms: u64,
        quantities: &mut HashMap<String, u64>,
    ) -> Result<Vec<(String, u64)>, Error> {
        let mut end = self.redis.count_up_to(&keys.active, now_ms).await.map_err(Error::retry_safe)?;
        let (mut list, mut listed, mut units) = (Vec::new(), HashSet::new(), 0u64);
        while end > 0 {
            let start = end.saturating_sub(PER_PAGE);
            let page = self.gate.page(self.page(keys, start, end - 1, quantities)).await?;
            // When earlier holds are swept, the others move down in rank: some are read twice, and none is missed.
            for id in page.into_iter().rev() {
                if listed.insert(id.clone()) {
                    units += quantities[&id];
                    list.push((id, units));
                }
            }
            end = start;
        }
        Ok(list)
    }

    /// The holds from one rank to another; their quantities are added to those that are known.
    async fn page(
        &self,
        keys: &StockKeys,
        first: u64,
        last: u64,
        quantities: &mut HashMap<String, u64>,
    ) -> Result<Vec<String>, Error> {
        let ids = self.redis.ranked(&keys.active, first, last).await.map_err(Error::retry_safe)?;
        let unknown: Vec<&String> = ids.iter().filter(|id| !quantities.contains_key(*id)).collect();
        let key = |id: &&String| ReservationId::parse(id).ok().and_then(|id| keys.reservation(&id));
        let records = unknown.iter().map(key).collect::<Option<Vec<_>>>().ok_or_else(|| malformed(&keys.active))?;
        let fields = self.redis.fields(&records, &["state", "quantity"]).await.map_err(Error::retry_safe)?;
        for (id, fields) in unknown.into_iter().zip(fields) {
            let quantity = match &*fields {
                [Some(state), Some(quantity)] if state == "active" => number(quantity)?,
                // It is already gone and will not be among those that are left, or it is damaged and holds no units.
                _ => 0,
            };
            quantities.insert(id.clone(), quantity);
        }
        Ok(ids)
    }
}
