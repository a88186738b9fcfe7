//! Changing: a hold holds more units, or fewer, from now on. Script `change`.

use super::record::{malformed, number};
use super::{Engine, Error, Quantity, Reservation, ReservationState};
use crate::keys::{IdempotencyKey, OperationId, ReservationId};
use crate::scripts::Reply;

/// How the number of units changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NewQuantity {
    /// The reservation shall hold this number of units.
    Set(Quantity),
    /// This number of its units go back.
    Release(Quantity),
}

/// The outcome of a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Changed {
    /// It holds this number of units now; or, when all of its units went back, it is released.
    Done(Reservation),
    /// It was changed before, under the same idempotency key: the reservation as it is now.
    Replayed(Reservation),
    /// The same idempotency key was used for another change.
    Conflict {
        /// The first field that differs.
        field: String,
    },
    /// It holds fewer units than shall go back, and stays as it is.
    Exceeds {
        /// How many units it holds.
        quantity: u64,
    },
    /// Fewer units are available than it would hold more, and none on lapsed holds. It stays as it is.
    Insufficient {
        /// How many units can be held.
        available: u64,
    },
    /// The rules of the SKU allow the cart no more units of it.
    CartLimit {
        /// How many units one cart may have.
        per_cart: u64,
        /// How many units this cart has in other reservations, held or sold.
        units: u64,
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
    /// Changes how many units an active reservation holds. Script `change`. Before a refusal for lack of units, it
    /// sweeps what has lapsed on the SKU. To set a quantity is safe to repeat; a key makes a release safe to repeat, too.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn change(
        &self,
        id: ReservationId,
        to: NewQuantity,
        key: Option<&IdempotencyKey>,
    ) -> Result<Changed, Error> {
        let (how, quantity) = match to {
            NewQuantity::Set(quantity) => ("set", quantity),
            NewQuantity::Release(quantity) => ("release", quantity),
        };
        let (operation, once) = match key {
            Some(key) => (OperationId::of_change(key, id), "once"),
            None => (OperationId::mint(), ""),
        };
        let arguments = [how, &quantity.to_string(), once];
        let Some(reply) = self.call_alone("change", id, Some(operation), &arguments).await? else {
            return Ok(Changed::NotFound);
        };
        let outcome = changed(id, &reply)?;
        if let Changed::Replayed(record) = &outcome
            && record.is_active()
            // A reservation that is shown as active may be due. What was done is done, whether this read succeeds or not.
            && let Ok(Some(now)) = self.reservation_by(&self.redis, id).await
        {
            return Ok(Changed::Replayed(now));
        }
        Ok(outcome)
    }
}

fn changed(id: ReservationId, reply: &Reply) -> Result<Changed, Error> {
    Ok(match &*reply.parts() {
        ["CHANGED" | "RELEASED", record @ ..] => Changed::Done(Reservation::read(id, record)?),
        ["REPLAYED", record @ ..] => Changed::Replayed(Reservation::read(id, record)?),
        ["CONFLICT", field] => Changed::Conflict { field: (*field).to_owned() },
        ["EXCEEDS", quantity] => Changed::Exceeds { quantity: number(quantity)? },
        ["INSUFFICIENT", available, _lapsed] => Changed::Insufficient { available: number(available)? },
        ["CART_LIMIT", per_cart, units] => Changed::CartLimit { per_cart: number(per_cart)?, units: number(units)? },
        ["NOT_ACTIVE", state, reason] => {
            Changed::NotActive { state: ReservationState::read(state)?, reason: (*reason).to_owned() }
        }
        ["EXPIRED"] => Changed::Expired,
        ["NOT_FOUND"] => Changed::NotFound,
        _ => return Err(malformed("change")),
    })
}
