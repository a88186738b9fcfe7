//! A script call about a reservation of which only the id is known, as confirm, release, extend and return make it.

use super::group_commit::GroupCommit;
use super::record::malformed;
use super::{Engine, Error, item, of_shard};
use crate::keys::{ReservationId, Sku};
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
        let reservation = self.layout.reservation(&id);
        let Some(sku) = self.redis.hash_field(&reservation, "sku").await.map_err(Error::retry_safe)? else {
            return Ok(None);
        };
        let sku = Sku::parse(&sku).map_err(|_| malformed("the SKU of a reservation"))?;
        self.known_skus.remember(id, &sku);
        call(sku).await.map(Some)
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
