//! A confirm with a choice: a part of the units, or although the hold has lapsed.

use serde_json::Value;

use super::super::catalogue::Kind;
use super::super::input::{text, whole};
use super::super::json::reservation;
use super::super::problem::Problem;
use super::super::request::WholeRequest;
use super::change::exceeds;
use super::rules::cart_limit;
use super::{Answer, lapsed, not_active, ok, replayed, unknown_reservation};
use crate::engine::{Engine, Quantity, Sale, SaleRequest};
use crate::keys::{Invalid, ReservationId};

/// The fields of which one is enough to make a confirm a confirm with a choice.
pub(super) const CHOICES: [&str; 2] = ["quantity", "ifExpired"];

/// Confirms with a choice.
pub(super) async fn sell(engine: &Engine, request: WholeRequest) -> Answer {
    let id = ReservationId::parse(&request.name())?;
    let mut fields = request.fields;
    let quantity = fields.optional("quantity", whole(Quantity::new));
    let reacquire = fields.optional("ifExpired", only_reacquire).is_some();
    fields.finish()?;
    let key = request.idempotency_key?;
    // Boxed: a rare request must not make the state of every request larger.
    match Box::pin(engine.sell(id, SaleRequest { quantity, reacquire }, key.as_ref())).await? {
        Sale::Done(record) => Ok(ok(&reservation(&record))),
        Sale::Replayed(record) => Ok(replayed(&reservation(&record))),
        Sale::Conflict { field } => {
            let detail = format!("this Idempotency-Key was used for a confirm with another {field}");
            Err(Problem::new(Kind::IdempotencyKeyReused, detail))
        }
        Sale::Exceeds { quantity } => Err(exceeds(quantity)),
        Sale::Insufficient { requested, available } => {
            let detail = "the reservation has lapsed, and fewer units are available than it would sell";
            let problem = Problem::new(Kind::InsufficientInventory, detail);
            let problem = match requested {
                Some(requested) => problem.with("requested", requested),
                None => problem,
            };
            Err(problem.with("available", available))
        }
        Sale::CartLimit { per_cart, units } => Err(cart_limit(per_cart, units)),
        Sale::NotActive { state, reason } => Err(not_active(state, &reason)),
        Sale::Expired => Err(lapsed()),
        Sale::NotFound => Err(unknown_reservation()),
    }
}

fn only_reacquire(value: &Value) -> Result<(), Invalid> {
    let rule = |word: &str| {
        if word == "reacquire" { Ok(()) } else { Err(Invalid { field: "ifExpired", rule: "must be reacquire" }) }
    };
    text(rule)(value)
}
