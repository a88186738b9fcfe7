//! Returns of what was sold.

use super::super::catalogue::Kind;
use super::super::input::{flag, whole};
use super::super::json::reservation;
use super::super::problem::Problem;
use super::super::request::WholeRequest;
use super::{Answer, ok, refused, replayed, unknown_reservation};
use crate::engine::{Engine, Quantity, Return, ReturnRequest};
use crate::keys::ReservationId;

/// Units of the sale in the path.
pub(in super::super) async fn take_back(engine: &Engine, request: WholeRequest) -> Answer {
    let id = ReservationId::parse(&request.name())?;
    let key = request.idempotency_key?;
    let mut fields = request.fields;
    let quantity = fields.required("quantity", whole(Quantity::new));
    let restock = fields.required("restock", flag);
    let (Some(quantity), Some(restock)) = (quantity, restock) else { return Err(refused(fields)) };
    fields.finish()?;
    // Boxed: a rare request must not make the state of every request larger.
    match Box::pin(engine.take_back(ReturnRequest { id, quantity, restock }, key.as_ref())).await? {
        Return::Done(record) => Ok(ok(&reservation(&record))),
        Return::Replayed(record) => Ok(replayed(&reservation(&record))),
        Return::Conflict { field } => {
            // The words of the script, as a client of this interface knows them.
            let what = if field == "confirmedAt" { "sale" } else { &field };
            let detail = format!("this Idempotency-Key was used for a return with another {what}");
            Err(Problem::new(Kind::IdempotencyKeyReused, detail))
        }
        Return::NotSold { state, reason } => {
            let detail = format!("the reservation is {}: only what was sold can be returned", state.as_str());
            let problem = Problem::new(Kind::ReservationNotConfirmed, detail).with("state", state.as_str());
            Err(if reason.is_empty() { problem } else { problem.with("reason", reason) })
        }
        Return::Exceeds { left } => {
            let detail = "fewer units were sold and not yet returned";
            let problem = Problem::new(Kind::ExceedsSale, detail);
            Err(problem.with("requested", quantity.get()).with("returnable", left))
        }
        Return::Excessive => Err(Problem::new(Kind::ExcessiveInventory, "a SKU may have 1000000000000 units in all")),
        Return::NotFound => Err(unknown_reservation()),
    }
}
