//! The counts of a SKU with many lapsed holds, as they will be when those are swept, without sweeping them.
//!
//! What the lapsed holds sit on is added up from the latest of them downwards, a page at a time. Sweepers take the earliest
//! away meanwhile. In the end one look tells, of one moment, the counts, how many lapsed holds are left and which is the
//! earliest. If that is the one at this place of the list, those before it are exactly those that are left: what they
//! sit on is available. If it is not (a buyer came too late with one from the middle), the list is made again, of which
//! the quantities are known by then.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::future::{BoxFuture, FutureExt, Shared, WeakShared};

use super::outcome::{number, odd};
use super::read::{LISTED_AT_ONCE, Reads};
use super::{Error, Stock};
use crate::keys::{ReservationId, Sku, StockKeys};

/// Holds in a page, with their quantities: a third of a millisecond of Redis's time.
const PER_PAGE: u64 = 250;

/// Times that the list is made before it is given up.
const MAX_LISTS: u32 = 10;

/// What a SKU has.
#[derive(Debug, Clone)]
pub(super) struct Counted {
    pub available: u64,
    pub reserved: u64,
    pub confirmed: u64,
    pub updated_at_ms: u64,
    pub active: Vec<String>,
}

impl Counted {
    pub(super) fn stock(self, sku: &Sku) -> Stock {
        let Self { available, reserved, confirmed, updated_at_ms, active: active_reservations } = self;
        Stock { sku: sku.clone(), available, reserved, confirmed, active_reservations, updated_at_ms }
    }
}

/// What a SKU has, and the time up to which holds had lapsed; nothing for an unknown SKU.
type Found = Option<(Counted, u64)>;
type Counting = BoxFuture<'static, Result<Found, Error>>;
type Gathering = HashMap<String, WeakShared<Counting>>;

/// Readers of the same SKU: of a crowd that meets its lapsed holds one adds them up for all.
#[derive(Default)]
pub(super) struct Crowds(Mutex<Gathering>);

impl Crowds {
    /// Waits for what is under way for the SKU, and then adds up once for all who came meanwhile. Not what is under way
    /// already: it may have begun before the last hold lapsed that the reader has to see as lapsed. When all readers are
    /// gone, it stops.
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
            // From here on it is too late to join.
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
    /// Adds up, until it is right.
    async fn count(&self, keys: &StockKeys) -> Result<Found, Error> {
        let _place = self.gate.large().await?;
        let mut quantities = HashMap::new();
        for _ in 0..MAX_LISTS {
            let Some(look) = self.gate.page(self.look(keys, 0, 0)).await? else { return Ok(None) };
            let now_ms = look.moment.now_ms;
            let list = self.lapsed(keys, now_ms, &mut quantities).await?;
            let Some(look) = self.gate.page(self.look(keys, now_ms, LISTED_AT_ONCE)).await? else { return Ok(None) };
            let left = look.moment.below;
            let units = match left.checked_sub(1).map(|last| list.get(last as usize)) {
                None => Some(0),
                // All that is reserved has lapsed.
                Some(_) if left == look.moment.members => Some(look.reserved),
                Some(Some((id, units))) if look.moment.lowest.as_ref().is_some_and(|(lowest, _)| lowest == id) => {
                    Some(*units)
                }
                Some(_) => None,
            };
            if let Some(units) = units {
                return Ok(Some((look.without(units)?, now_ms)));
            }
        }
        Err(Error::Busy)
    }

    /// The holds that had lapsed at `now_ms`, the latest expiry first, each with the units of all up to it.
    async fn lapsed(
        &self,
        keys: &StockKeys,
        now_ms: u64,
        quantities: &mut HashMap<String, u64>,
    ) -> Result<Vec<(String, u64)>, Error> {
        let mut end = self.redis.count_up_to(&keys.active, now_ms).await.map_err(Error::without_doubt)?;
        let (mut list, mut listed, mut units) = (Vec::new(), HashSet::new(), 0u64);
        while end > 0 {
            let start = end.saturating_sub(PER_PAGE);
            let page = self.gate.page(self.page(keys, start, end - 1, quantities)).await?;
            // When earlier ones are swept the others move down: some are met again, and none is passed over.
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
        let ids = self.redis.ranked(&keys.active, first, last).await.map_err(Error::without_doubt)?;
        let unknown: Vec<&String> = ids.iter().filter(|id| !quantities.contains_key(*id)).collect();
        let key = |id: &&String| ReservationId::parse(id).map(|id| self.layout.reservation(&id));
        let records = unknown.iter().map(key).collect::<Result<Vec<_>, _>>().map_err(|_| odd(&keys.active))?;
        let fields = self.redis.fields(&records, &["state", "quantity"]).await.map_err(Error::without_doubt)?;
        for (id, fields) in unknown.into_iter().zip(fields) {
            let quantity = match &*fields {
                [Some(state), Some(quantity)] if state == "active" => number(quantity)?,
                // It is gone by now, and will not be among those that are left; or it is damaged, and holds no units.
                _ => 0,
            };
            quantities.insert(id.clone(), quantity);
        }
        Ok(ids)
    }
}
