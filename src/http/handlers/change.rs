//! Another number of units for a hold: it is set, or some go back.

use super::super::catalogue::Kind;
use super::super::input::whole;
use super::super::json;
use super::super::problem::Problem;
use super::super::request::WholeRequest;
use super::rules::cart_limit;
use super::{Answer, lapsed, not_active, ok, refused, replayed, unknown_reservation};
use crate::engine::{Changed, Engine, NewQuantity, Quantity};
use crate::keys::ReservationId;

/// It shall hold this number of units.
pub(in super::super) async fn change(engine: &Engine, request: WholeRequest) -> Answer {
    carry_out(engine, request, NewQuantity::Set).await
}

/// This number of its units go back.
pub(super) async fn release_part(engine: &Engine, request: WholeRequest) -> Answer {
    carry_out(engine, request, NewQuantity::Release).await
}

async fn carry_out(engine: &Engine, request: WholeRequest, how: fn(Quantity) -> NewQuantity) -> Answer {
    let id = ReservationId::parse(&request.name())?;
    let mut fields = request.fields;
    let Some(quantity) = fields.required("quantity", whole(Quantity::new)) else { return Err(refused(fields)) };
    fields.finish()?;
    let key = request.idempotency_key?;
    // Boxed: a rare request must not make the state of every request larger.
    match Box::pin(engine.change(id, how(quantity), key.as_ref())).await? {
        Changed::Done(record) => Ok(ok(&json::reservation(&record))),
        Changed::Replayed(record) => Ok(replayed(&json::reservation(&record))),
        Changed::Conflict { field } => {
            let what = if field == "how" { "kind" } else { &field };
            let detail = format!("this Idempotency-Key was used for a change with another {what}");
            Err(Problem::new(Kind::IdempotencyKeyReused, detail))
        }
        Changed::Exceeds { quantity } => Err(exceeds(quantity)),
        Changed::Insufficient { available } => {
            let detail = "fewer units are available than it would hold more";
            let problem = Problem::new(Kind::InsufficientInventory, detail);
            Err(problem.with("requested", quantity.get()).with("available", available))
        }
        Changed::CartLimit { per_cart, units } => Err(cart_limit(per_cart, units).with("requested", quantity.get())),
        Changed::NotActive { state, reason } => Err(not_active(state, &reason)),
        Changed::Expired => Err(lapsed()),
        Changed::NotFound => Err(unknown_reservation()),
    }
}

/// The reservation has fewer units than shall go back, or be sold.
pub(super) fn exceeds(quantity: u64) -> Problem {
    Problem::new(Kind::ExceedsReservation, "the reservation holds fewer units").with("quantity", quantity)
}
