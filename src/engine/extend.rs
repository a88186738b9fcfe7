//! Extending: a hold gets more time. Script `extend`.

use super::record::{malformed, number};
use super::{Engine, Error, Reservation, ReservationState, Ttl};
use crate::keys::ReservationId;
use crate::scripts::Reply;

/// The outcome of an extension.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Extend {
    /// It lapses at the new time, or later, as before.
    Extended(Reservation),
    /// The operator does not allow that much time. The reservation stays as it is.
    Limited {
        /// The latest expiry that the reservation can have, epoch milliseconds.
        max_expires_at_ms: u64,
    },
    /// Settled before.
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
    /// Makes a reservation lapse `ttl` from now, unless it lapses later anyway. Script `extend`. Safe to repeat: the
    /// time begins again.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn extend(&self, id: ReservationId, ttl: Ttl) -> Result<Extend, Error> {
        match self.call_by_id(&self.extends, id, ttl.as_ms().to_string()).await? {
            Some(reply) => extended(id, &reply),
            None => Ok(Extend::NotFound),
        }
    }
}

fn extended(id: ReservationId, reply: &Reply) -> Result<Extend, Error> {
    Ok(match &*reply.parts() {
        ["EXTENDED", record @ ..] => Extend::Extended(Reservation::read(id, record)?),
        ["LIMITED", latest] => Extend::Limited { max_expires_at_ms: number(latest)? },
        ["NOT_ACTIVE", state, reason] => {
            Extend::NotActive { state: ReservationState::read(state)?, reason: (*reason).to_owned() }
        }
        ["EXPIRED"] => Extend::Expired,
        ["NOT_FOUND"] => Extend::NotFound,
        _ => return Err(malformed("extend")),
    })
}
