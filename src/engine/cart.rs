//! A cart: the reservations that were held for it together. It has an index of their ids, and no units of its own.

use std::collections::BTreeMap;

use super::expiry::SWEPT_PER_CALL;
use super::record::malformed;
use super::{Engine, Error, Reservation, ReservationState};
use crate::keys::{CartId, ReservationId, Sku, StockKeys};
use crate::redis::Redis;

/// A reservation of a cart that is not active, or no longer known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndedLine {
    /// Its id.
    pub id: ReservationId,
    /// The SKU.
    pub sku: Sku,
    /// Its state; `None` when its record was dropped.
    pub state: Option<ReservationState>,
    /// Why it was released; empty otherwise.
    pub reason: String,
}

impl From<&Reservation> for EndedLine {
    fn from(record: &Reservation) -> Self {
        let (id, sku, reason) = (record.id, record.sku.clone(), record.reason.clone());
        Self { id, sku, state: Some(record.state), reason }
    }
}

/// A reservation that a cart lists, as it is stored.
pub(super) struct Listed {
    /// `None` when it was dropped.
    pub record: Option<Reservation>,
    /// The token with which it was settled; empty if there is none.
    pub token: String,
}

impl Engine {
    /// Reads the reservations of a cart in the order in which they were made; those that are due are expired first.
    /// Those whose records were dropped are left out. `None` for a cart that has none.
    ///
    /// # Errors
    /// See [`Error`]; [`Error::Busy`] when many others read.
    pub async fn cart(&self, cart: &CartId) -> Result<Option<Vec<Reservation>>, Error> {
        let redis = &self.reads.redis;
        let _turn = self.reads.small.turn(&self.reads.gate).await?;
        let ids = self.index(redis, &self.lists(cart)).await?;
        let records = in_order(self.records(redis, &ids).await?.into_iter().flatten().collect());
        Ok(if records.is_empty() { None } else { Some(records) })
    }

    /// The ids in lists of a cart, in no order.
    pub(super) async fn index(&self, redis: &Redis, lists: &[String]) -> Result<Vec<ReservationId>, Error> {
        let lists = redis.hashes(lists.iter().cloned()).await.map_err(Error::retry_safe)?;
        let ids = lists.iter().flat_map(|list| list.keys()).map(|id| ReservationId::parse(id));
        ids.collect::<Result<_, _>>().map_err(|_| malformed("the list of a cart"))
    }

    /// The lists of a cart in all shards.
    pub(super) fn lists(&self, cart: &CartId) -> Vec<String> {
        self.layout.shards().iter().map(|shard| shard.cart(cart)).collect()
    }

    /// The records of reservations; those that are due are expired first.
    pub(super) async fn records(
        &self,
        redis: &Redis,
        ids: &[ReservationId],
    ) -> Result<Vec<Option<Reservation>>, Error> {
        let (mut listed, now_ms) = self.stored_each(redis, ids).await?;
        let records = listed.iter().filter_map(|listed| listed.record.as_ref());
        let due: Vec<&Reservation> = records.filter(|record| record.is_due(now_ms)).collect();
        if !due.is_empty() {
            self.sweep_together(&due).await?;
            listed = self.stored_each(redis, ids).await?.0;
        }
        Ok(listed.into_iter().map(|listed| listed.record).collect())
    }

    /// Reservations as they are stored, and Redis's clock to compare them with, epoch milliseconds.
    pub(super) async fn stored_each(&self, redis: &Redis, ids: &[ReservationId]) -> Result<(Vec<Listed>, u64), Error> {
        if ids.is_empty() {
            return Ok((Vec::new(), 0));
        }
        let keys = ids.iter().map(|id| self.layout.reservation(id)).collect::<Option<Vec<_>>>();
        let keys = keys.ok_or_else(|| malformed("the list of a cart"))?;
        let (hashes, now_ms) = redis.hashes_now(keys).await.map_err(Error::retry_safe)?;
        let listed = ids.iter().zip(hashes).map(|(id, mut fields)| {
            let record = Reservation::stored(*id, &fields)?;
            Ok::<_, Error>(Listed { record, token: fields.remove("token").unwrap_or_default() })
        });
        Ok((listed.collect::<Result<_, _>>()?, now_ms))
    }

    /// Expires reservations that are due, of several SKUs.
    async fn sweep_together(&self, due: &[&Reservation]) -> Result<(), Error> {
        let mut by_sku: BTreeMap<&str, (StockKeys, Vec<String>)> = BTreeMap::new();
        for record in due {
            let (_, holds) =
                by_sku.entry(record.sku.as_str()).or_insert_with(|| (self.layout.stock(&record.sku), Vec::new()));
            holds.push(self.layout.shard_of(&record.sku).reservation(&record.id));
        }
        let calls =
            by_sku.values().flat_map(|(keys, holds)| holds.chunks(SWEPT_PER_CALL).map(move |some| (keys, some)));
        let calls: Vec<_> = calls.collect();
        for outcome in self.sweep_each(&self.redis, &calls).await.map_err(Error::retry_safe)? {
            outcome.map_err(Error::retry_safe)?;
        }
        Ok(())
    }
}

/// As they were made; those that were made at once, by SKU.
pub(super) fn in_order(mut records: Vec<Reservation>) -> Vec<Reservation> {
    fn order(record: &Reservation) -> (u64, &str, ReservationId) {
        (record.created_at_ms, record.sku.as_str(), record.id)
    }
    records.sort_by(|one, other| order(one).cmp(&order(other)));
    records
}
