//! Returning: units of a sale come back. Script `return`.

use super::record::{malformed, number};
use super::{Engine, Error, Quantity, Reservation, ReservationState, only};
use crate::keys::{IdempotencyKey, OperationId, ReservationId, Sku};
use crate::scripts::Reply;

/// Units of a sale that come back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReturnRequest {
    /// The reservation that was sold.
    pub id: ReservationId,
    /// How many units.
    pub quantity: Quantity,
    /// Whether they are available again. Otherwise they leave the books.
    pub restock: bool,
}

/// The outcome of a return.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Return {
    /// Done now; the record says how many units came back in all.
    Done(Reservation),
    /// Done before, with the same idempotency key: what it left then.
    Replayed(Reservation),
    /// The same idempotency key was used for another return.
    Conflict {
        /// The first field that differs.
        field: String,
    },
    /// It was not sold.
    NotSold {
        /// The state.
        state: ReservationState,
        /// Why it was released; empty while it is active.
        reason: String,
    },
    /// Fewer units were sold and not yet returned.
    Exceeds {
        /// This number.
        left: u64,
    },
    /// The SKU would have more than 10^12 units in all.
    Excessive,
    /// No such reservation.
    NotFound,
}

impl Engine {
    /// Takes back units of a sale. Script `return`. A key makes the request safe to repeat.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn take_back(&self, request: ReturnRequest, key: Option<&IdempotencyKey>) -> Result<Return, Error> {
        let operation = match key {
            Some(key) => OperationId::of_return(key, request.id),
            None => OperationId::mint(),
        };
        let once = if key.is_some() { "once" } else { "" };
        match self.with_sku(request.id, |sku| self.return_once(sku, request, operation, once)).await? {
            Some(reply) => returned(request.id, &reply),
            None => Ok(Return::NotFound),
        }
    }

    async fn return_once(
        &self,
        sku: Sku,
        request: ReturnRequest,
        operation: OperationId,
        once: &str,
    ) -> Result<Reply, Error> {
        let keys = self.layout.stock(&sku);
        let shard = &keys.shard;
        let (operation, reservation) = (shard.operation(&operation), shard.reservation(&request.id));
        let names = [&*shard.audit, &*shard.settings, &*operation, &*keys.inventory, &*reservation];
        let restock = if request.restock { "restock" } else { "write_off" };
        let replies = self.scripts.call("return", &names, &[&request.quantity.to_string(), restock, once]).await?;
        only(&replies).cloned()
    }
}

fn returned(id: ReservationId, reply: &Reply) -> Result<Return, Error> {
    let record = |parts: &[&str]| match parts {
        [record @ .., returned] => Ok(Reservation { returned: number(returned)?, ..Reservation::read(id, record)? }),
        [] => Err(malformed("return")),
    };
    Ok(match &*reply.parts() {
        ["RETURNED", parts @ ..] => Return::Done(record(parts)?),
        ["REPLAYED", parts @ ..] => Return::Replayed(record(parts)?),
        ["CONFLICT", field] => Return::Conflict { field: (*field).to_owned() },
        ["NOT_SOLD", state, reason] => {
            Return::NotSold { state: ReservationState::read(state)?, reason: (*reason).to_owned() }
        }
        ["EXCEEDS", left] => Return::Exceeds { left: number(left)? },
        ["EXCESSIVE"] => Return::Excessive,
        ["NOT_FOUND"] => Return::NotFound,
        _ => return Err(malformed("return")),
    })
}
