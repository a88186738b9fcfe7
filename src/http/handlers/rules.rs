//! The rules of a SKU, and the refusals that come of them.

use super::super::catalogue::Kind;
use super::super::input::whole;
use super::super::json::counts;
use super::super::problem::Problem;
use super::super::request::WholeRequest;
use super::{Answer, NEVER_SEEDED, ok};
use crate::engine::{Engine, MaxTtl, PerCart, Rules, SafetyStock};
use crate::keys::Sku;

/// Sets all rules of the SKU in the path: those that are left out are none.
pub(in super::super) async fn rule(engine: &Engine, request: WholeRequest) -> Answer {
    let sku = Sku::parse(&request.name())?;
    let mut fields = request.fields;
    let per_cart = fields.optional("perCart", whole(PerCart::new));
    let safety_stock = fields.optional("safetyStock", whole(SafetyStock::new));
    let max_ttl = fields.optional("maxTtlSeconds", whole(MaxTtl::new));
    fields.finish()?;
    // Boxed: a rare request must not make the state of every request larger.
    match Box::pin(engine.rule(&sku, Rules::new(per_cart, safety_stock, max_ttl))).await? {
        Some(stock) => Ok(ok(&counts(&stock))),
        None => Err(Problem::new(Kind::UnknownSku, NEVER_SEEDED)),
    }
}

/// The rules allow no hold of the length that was asked for.
pub(super) fn too_long(max_ttl_ms: u64) -> Problem {
    let problem = Problem::new(Kind::HoldTooLong, "the rules of the SKU allow no hold of this length");
    problem.with("maxTtlSeconds", max_ttl_ms / 1000)
}

/// The rules allow the cart no more units.
pub(super) fn cart_limit(per_cart: u64, units: u64) -> Problem {
    let problem = Problem::new(Kind::CartLimitReached, "the rules of the SKU allow one cart fewer units");
    problem.with("perCart", per_cart).with("inCart", units)
}
