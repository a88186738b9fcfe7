//! Selling with a choice: a part of a hold, or a hold that has lapsed. Script `sell`.

use super::record::{malformed, number};
use super::{Engine, Error, Quantity, Reservation, ReservationState};
use crate::keys::{IdempotencyKey, ReservationId};
use crate::scripts::Reply;

/// What is sold of a reservation, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SaleRequest {
    /// How many of its units: the others go back. All of them by default.
    pub quantity: Option<Quantity>,
    /// Whether it is sold although it has lapsed, if its units are available.
    pub reacquire: bool,
}

/// The outcome of such a sale.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sale {
    /// Done now.
    Done(Reservation),
    /// Done before, with the same idempotency key.
    Replayed(Reservation),
    /// The same idempotency key was used for a sale of another quantity.
    Conflict {
        /// The field that differs.
        field: String,
    },
    /// It has fewer units, and stays as it is.
    Exceeds {
        /// How many units it has.
        quantity: u64,
    },
    /// It has lapsed, and fewer units are available, and none on other lapsed holds.
    Insufficient {
        /// How many units it would sell, if that is known.
        requested: Option<u64>,
        /// How many units can be sold.
        available: u64,
    },
    /// It has lapsed, and the rules of the SKU allow the cart no more units of it.
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
    /// Confirms a reservation, with a choice. Script `sell`. Before a refusal for lack of units, it sweeps what has
    /// lapsed on the SKU.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn sell(
        &self,
        id: ReservationId,
        request: SaleRequest,
        key: Option<&IdempotencyKey>,
    ) -> Result<Sale, Error> {
        let token = key.map(IdempotencyKey::token).unwrap_or_default();
        let quantity = request.quantity.map_or(String::new(), |quantity| quantity.to_string());
        let if_expired = if request.reacquire { "reacquire" } else { "" };
        match self.call_alone("sell", id, None, &[&token, &quantity, if_expired]).await? {
            Some(reply) => match sold(id, &reply)? {
                Sale::Insufficient { available, .. } => {
                    let requested = match request.quantity {
                        Some(quantity) => Some(quantity),
                        // Only for the client to read: the refusal stands, whether this read succeeds or not.
                        None => self.reservation_by(&self.redis, id).await.ok().flatten().map(|record| record.quantity),
                    };
                    Ok(Sale::Insufficient { requested: requested.map(Quantity::get), available })
                }
                outcome => Ok(outcome),
            },
            None => Ok(Sale::NotFound),
        }
    }
}

fn sold(id: ReservationId, reply: &Reply) -> Result<Sale, Error> {
    Ok(match &*reply.parts() {
        ["CONFIRMED", record @ ..] => Sale::Done(Reservation::read(id, record)?),
        ["REPLAYED", record @ ..] => Sale::Replayed(Reservation::read(id, record)?),
        ["CONFLICT", field] => Sale::Conflict { field: (*field).to_owned() },
        ["EXCEEDS", quantity] => Sale::Exceeds { quantity: number(quantity)? },
        ["INSUFFICIENT", available, _lapsed] => Sale::Insufficient { requested: None, available: number(available)? },
        ["CART_LIMIT", per_cart, units] => Sale::CartLimit { per_cart: number(per_cart)?, units: number(units)? },
        ["NOT_ACTIVE", state, reason] => {
            Sale::NotActive { state: ReservationState::read(state)?, reason: (*reason).to_owned() }
        }
        ["EXPIRED"] => Sale::Expired,
        ["NOT_FOUND"] => Sale::NotFound,
        _ => return Err(malformed("sell")),
    })
}
