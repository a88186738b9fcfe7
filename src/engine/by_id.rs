//! A script call about a reservation of which only the id is known, as confirm, release, extend, change and return make it.

use super::expiry::SWEPT_PER_CALL;
use super::group_commit::GroupCommit;
use super::record::{malformed, number};
use super::{Engine, Error, item, of_shard, only};
use crate::keys::{CartId, OperationId, ReservationId, Sku};
use crate::scripts::Reply;

/// The reply when the reservation is of another SKU than the call says.
const OF_ANOTHER_SKU: [&str; 2] = ["CONFLICT", "sku"];

impl Engine {
    /// Puts a reservation and its argument into the next call of a script. `None` when there is no such reservation.
    pub(super) async fn call_by_id(
        &self,
        each: &[GroupCommit],
        id: ReservationId,
        argument: String,
    ) -> Result<Option<Reply>, Error> {
        self.with_sku(id, |sku| self.call_of(each, id, sku, argument.clone())).await
    }

    /// Makes a call about a reservation, for which its SKU has to be known. `None` when there is no such reservation.
    pub(super) async fn with_sku<F: Future<Output = Result<Reply, Error>>>(
        &self,
        id: ReservationId,
        call: impl Fn(Sku) -> F,
    ) -> Result<Option<Reply>, Error> {
        self.reads.gate.sells();
        // A script may touch only the keys it is given, so the SKU has to be known before the call.
        if let Some(sku) = self.known_skus.of(id) {
            let reply = call(sku).await?;
            if reply.parts() != OF_ANOTHER_SKU {
                return Ok(Some(reply));
            }
            // The record was dropped, and the id used again. Nothing was done.
            self.known_skus.forget(id);
        }
        let Some(reservation) = self.layout.reservation(&id) else { return Ok(None) };
        let Some(sku) = self.redis.hash_field(&reservation, "sku").await.map_err(Error::retry_safe)? else {
            return Ok(None);
        };
        let sku = Sku::parse(&sku).map_err(|_| malformed("the SKU of a reservation"))?;
        self.known_skus.remember(id, &sku);
        call(sku).await.map(Some)
    }

    /// Calls a script for one reservation, apart from other requests: with the key of an operation if it takes one.
    /// Before it passes on a refusal for lack of units, it sweeps what has lapsed on the SKU. When the SKU has a limit
    /// for each cart, it names the cart. `None` when there is no such reservation.
    pub(super) async fn call_alone(
        &self,
        script: &str,
        id: ReservationId,
        operation: Option<OperationId>,
        arguments: &[&str],
    ) -> Result<Option<Reply>, Error> {
        self.with_sku(id, |sku| self.call_and_sweep(script, id, sku, operation, arguments)).await
    }

    async fn call_and_sweep(
        &self,
        script: &str,
        id: ReservationId,
        sku: Sku,
        operation: Option<OperationId>,
        arguments: &[&str],
    ) -> Result<Reply, Error> {
        let keys = self.layout.stock(&sku);
        let (shard, operation) = (&keys.shard, operation.map(|operation| keys.shard.operation(&operation)));
        let reservation = shard.reservation(&id);
        let mut names = vec![&*shard.audit, &*shard.due, &*shard.settings];
        names.extend(operation.as_deref());
        names.extend([&*keys.inventory, &*keys.active, &*reservation]);
        let (mut waited, mut left) = (false, None);
        // The cart and the reservations that it lists, once they are asked for.
        let mut cart = Vec::new();
        loop {
            let names: Vec<&str> = names.iter().copied().chain(cart.iter().map(String::as_str)).collect();
            let replies = self.scripts.call(script, &names, arguments).await?;
            let reply = only(&replies)?;
            let lapsed = match &*reply.parts() {
                ["UNSEEN", id] => {
                    let id = CartId::parse(id).map_err(|_| malformed("the cart of a reservation"))?;
                    cart = [vec![shard.cart(&id)], self.listed(shard, &id).await?].concat();
                    continue;
                }
                ["INSUFFICIENT", _available, lapsed] => number(lapsed)?,
                _ => return Ok(reply.clone()),
            };
            // Holds that lapse later do not count: otherwise this might never end.
            let left = left.get_or_insert(lapsed);
            if lapsed == 0 || *left == 0 {
                return Ok(reply.clone());
            }
            if self.in_turn(&keys, &mut waited, self.sweep_earliest(&keys)).await? {
                *left = left.saturating_sub(SWEPT_PER_CALL as u64);
            }
        }
    }

    async fn call_of(
        &self,
        each: &[GroupCommit],
        id: ReservationId,
        sku: Sku,
        argument: String,
    ) -> Result<Reply, Error> {
        let keys = self.layout.stock(&sku);
        Ok(of_shard(each, &keys).submit(item(&keys, id, vec![argument])).await?)
    }
}
