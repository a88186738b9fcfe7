//! Settling: a hold is sold, or released. Scripts `confirm` and `release`.

use super::group_commit::GroupCommit;
use super::record::malformed;
use super::{Engine, Error, Reservation, ReservationState, item, of_shard};
use crate::keys::{IdempotencyKey, ReservationId, Sku};
use crate::scripts::Reply;

/// The reply when the reservation is of another SKU than the call says.
const OF_ANOTHER_SKU: [&str; 2] = ["CONFLICT", "sku"];

/// The outcome of a confirm or a release.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Settle {
    /// Done now.
    Settled(Reservation),
    /// Done before, with the same idempotency key.
    Replayed(Reservation),
    /// Settled or expired before.
    NotActive {
        /// The state.
        state: ReservationState,
        /// Why it was released; empty when it was confirmed.
        reason: String,
    },
    /// It was due, and is now expired.
    Expired,
    /// No such reservation.
    NotFound,
}

impl Engine {
    /// Moves a reservation's units from reserved to confirmed, finally. Script `confirm`.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn confirm(&self, id: ReservationId, key: Option<&IdempotencyKey>) -> Result<Settle, Error> {
        self.settle(&self.confirms, id, key).await
    }

    /// Moves a reservation's units from reserved back to available. Script `release`.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn release(&self, id: ReservationId, key: Option<&IdempotencyKey>) -> Result<Settle, Error> {
        self.settle(&self.releases, id, key).await
    }

    async fn settle(
        &self,
        each: &[GroupCommit],
        id: ReservationId,
        key: Option<&IdempotencyKey>,
    ) -> Result<Settle, Error> {
        self.reads.gate.sells();
        let token = key.map(IdempotencyKey::token).unwrap_or_default();
        // A script may touch only the keys it is given, so the SKU has to be known before the call.
        if let Some(sku) = self.known_skus.of(id) {
            let reply = self.settle_of(each, id, &sku, token.clone()).await?;
            if reply.parts() != OF_ANOTHER_SKU {
                return settled(id, &reply);
            }
            // The record was dropped, and the id used again. Nothing was done.
            self.known_skus.forget(id);
        }
        let reservation = self.layout.reservation(&id);
        let Some(sku) = self.redis.hash_field(&reservation, "sku").await.map_err(Error::retry_safe)? else {
            return Ok(Settle::NotFound);
        };
        let sku = Sku::parse(&sku).map_err(|_| malformed("the SKU of a reservation"))?;
        self.known_skus.remember(id, &sku);
        settled(id, &self.settle_of(each, id, &sku, token).await?)
    }

    async fn settle_of(
        &self,
        each: &[GroupCommit],
        id: ReservationId,
        sku: &Sku,
        token: String,
    ) -> Result<Reply, Error> {
        let keys = self.layout.stock(sku);
        Ok(of_shard(each, &keys).submit(item(&keys, id, vec![token])).await?)
    }
}

fn settled(id: ReservationId, reply: &Reply) -> Result<Settle, Error> {
    Ok(match &*reply.parts() {
        ["CONFIRMED" | "RELEASED", record @ ..] => Settle::Settled(Reservation::read(id, record)?),
        ["REPLAYED", record @ ..] => Settle::Replayed(Reservation::read(id, record)?),
        ["NOT_ACTIVE", state, reason] => {
            Settle::NotActive { state: ReservationState::read(state)?, reason: (*reason).to_owned() }
        }
        ["EXPIRED"] => Settle::Expired,
        ["NOT_FOUND"] => Settle::NotFound,
        _ => return Err(malformed("confirm or release")),
    })
}
