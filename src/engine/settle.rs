//! Settling: a hold is sold, or released. Scripts `confirm` and `release`.

use super::group_commit::GroupCommit;
use super::record::malformed;
use super::{Engine, Error, Reservation, ReservationState};
use crate::keys::{IdempotencyKey, ReservationId};
use crate::scripts::Reply;

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
        /// Why it was released, or `late_confirm`; otherwise empty.
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
        let token = key.map(IdempotencyKey::token).unwrap_or_default();
        match self.call_by_id(each, id, token).await? {
            Some(reply) => settled(id, &reply),
            None => Ok(Settle::NotFound),
        }
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
