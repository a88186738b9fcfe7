//! Carts: held, settled and extended as one, and read.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::super::catalogue::Kind;
use super::super::input::{Fields, text, whole};
use super::super::json;
use super::super::problem::Problem;
use super::super::request::WholeRequest;
use super::{Answer, IDEMPOTENT_REPLAYED, ok, refused, replayed, while_there};
use crate::engine::{
    CartExtend, CartHold, CartHoldRequest, CartLine, CartSettle, EndedLine, Engine, LapsingLine, LimitedLine,
    MAX_BATCH, Quantity, Reservation, Shortage, Ttl,
};
use crate::keys::{CartId, IdempotencyKey, Metadata, Sku};

/// Holds all lines of a cart, or none.
pub(in super::super) async fn hold_cart(engine: &Engine, request: WholeRequest) -> Answer {
    const LIST: &str = "must be a list of 1 to 100 objects";
    let cart = CartId::parse(&request.name())?;
    let idempotency_key = request.idempotency_key?;
    let mut fields = request.fields;
    let lines = fields.objects("items", 1..=MAX_BATCH, LIST, line);
    if let Some(lines) = &lines {
        refuse_doubles(&mut fields, lines);
    }
    let ttl = fields.optional("ttlSeconds", whole(Ttl::new));
    let metadata = fields.strings("metadata", Metadata::new);
    let Some(lines) = lines else { return Err(refused(fields)) };
    fields.finish()?;
    let request = CartHoldRequest { cart, lines, ttl, metadata, idempotency_key };
    // Boxed: a rare request must not make the state of every request larger.
    match Box::pin(engine.hold_cart(&request)).await? {
        CartHold::Held(records) => Ok(ok(&held(&request.cart, &records))),
        CartHold::Replayed(records) => Ok(replayed(&held(&request.cart, &records))),
        CartHold::Ended(lines) => {
            let detail = "this cart was held before, and some of it has ended since";
            let (name, value) = IDEMPOTENT_REPLAYED;
            Err(not_active(detail, &lines).with_header(name, value))
        }
        CartHold::Conflict => {
            let detail = "this Idempotency-Key was used for a request with other items, another ttlSeconds or other \
                          metadata";
            Err(Problem::new(Kind::IdempotencyKeyReused, detail))
        }
        CartHold::Short(shortages) => {
            let lines = request.lines.iter().zip(shortages);
            let short: Vec<_> = lines.filter_map(|(line, shortage)| Some((line, shortage?))).collect();
            Err(all_short(&short))
        }
        CartHold::Full => Err(Problem::new(Kind::CartFull, FULL)),
    }
}

pub(super) const FULL: &str = "nothing was held: the cart has 100 reservations that are active or sold";

/// Sells all that a cart holds, or nothing.
pub(in super::super) async fn confirm_cart(engine: &Engine, request: WholeRequest) -> Answer {
    let (cart, key) = to_settle(request)?;
    let outcome = Box::pin(engine.confirm_cart(&cart, key.as_ref())).await?;
    settled(&cart, outcome)
}

/// Gives back all that a cart holds.
pub(in super::super) async fn release_cart(engine: &Engine, request: WholeRequest) -> Answer {
    let (cart, key) = to_settle(request)?;
    let outcome = Box::pin(engine.release_cart(&cart, key.as_ref())).await?;
    settled(&cart, outcome)
}

/// Gives all that a cart holds more time, or nothing.
pub(in super::super) async fn extend_cart(engine: &Engine, request: WholeRequest) -> Answer {
    let cart = CartId::parse(&request.name())?;
    let mut fields = request.fields;
    let Some(ttl) = fields.required("ttlSeconds", whole(Ttl::new)) else { return Err(refused(fields)) };
    fields.finish()?;
    match Box::pin(engine.extend_cart(&cart, ttl)).await? {
        CartExtend::Extended(records) => Ok(ok(&held(&cart, &records))),
        CartExtend::Limited(lines) => Err(limited(&lines)),
        CartExtend::NotActive(lines) => Err(not_active(NOT_EXTENDED, &lines)),
        CartExtend::UnknownCart => Err(unknown_cart()),
    }
}

/// The cart to settle, and the idempotency key.
fn to_settle(mut request: WholeRequest) -> Result<(CartId, Option<IdempotencyKey>), Problem> {
    let cart = CartId::parse(&request.name())?;
    request.fields.finish()?;
    Ok((cart, request.idempotency_key?))
}

fn settled(cart: &CartId, outcome: CartSettle) -> Answer {
    match outcome {
        CartSettle::Settled(records) => Ok(ok(&json::cart(cart, None, &records))),
        CartSettle::Replayed(records) => Ok(replayed(&json::cart(cart, None, &records))),
        CartSettle::NotActive(lines) => Err(not_active(NOTHING_DONE, &lines)),
        CartSettle::Lapsing(lines) => Err(lapsing(&lines)),
        CartSettle::Partly { done, ended: lines } => Err(partly(&done, &lines)),
        CartSettle::UnknownCart => Err(unknown_cart()),
    }
}

/// The cart is in several shards, which are confirmed one after another.
fn lapsing(lines: &[LapsingLine]) -> Problem {
    let errors = lines.iter().map(|line| {
        let expires_at = json::time(line.expires_at_ms);
        json!({ "reservationId": line.id.to_string(), "sku": line.sku.as_str(), "expiresAt": expires_at })
    });
    let detail = "nothing was done: some of the cart lapses within 2 s; extend the cart, and confirm it again";
    Problem::new(Kind::CartLapsesSoon, detail).with("errors", errors.collect::<Vec<_>>())
}

/// Some shards were done, and others refused.
fn partly(done: &[Reservation], lines: &[EndedLine]) -> Problem {
    let done: Vec<Value> = done.iter().map(|record| json!(json::reservation(record))).collect();
    let errors: Vec<Value> = lines.iter().map(ended).collect();
    let detail = "a part of the cart was settled, and the rest is not active";
    Problem::new(Kind::CartPartlySettled, detail).with("reservations", done).with("errors", errors)
}

/// The reservations of a cart.
pub(in super::super) async fn cart(engine: &Engine, mut request: WholeRequest) -> Answer {
    let cart = CartId::parse(&request.name())?;
    request.fields.finish()?;
    match while_there(&request, Box::pin(engine.cart(&cart))).await? {
        Some(records) => Ok(ok(&json::cart(&cart, None, &records))),
        None => Err(unknown_cart()),
    }
}

const NOTHING_DONE: &str = "nothing was done: some of the cart is not active";
const NOT_EXTENDED: &str = "the cart was not extended as a whole: some of it is not active";

fn not_active(detail: &str, lines: &[EndedLine]) -> Problem {
    let errors: Vec<Value> = lines.iter().map(ended).collect();
    Problem::new(Kind::ReservationNotActive, detail).with("errors", errors)
}

/// The whole cart can be extended to the earliest of the latest expiries.
fn limited(lines: &[LimitedLine]) -> Problem {
    let latest = lines.iter().map(|line| line.max_expires_at_ms).min().unwrap_or_default();
    let errors = lines.iter().map(|line| {
        let latest = json::time(line.max_expires_at_ms);
        json!({ "reservationId": line.id.to_string(), "sku": line.sku.as_str(), "maxExpiresAt": latest })
    });
    let detail = "the cart was not extended as a whole: the operator allows less time for some of it";
    let problem = Problem::new(Kind::ExtensionLimitReached, detail).with("maxExpiresAt", json::time(latest));
    problem.with("errors", errors.collect::<Vec<_>>())
}

fn unknown_cart() -> Problem {
    Problem::new(Kind::UnknownCart, "nothing was held for this cart as a whole, or all of it is long over")
}

/// A line of a body. `None` when a field is wrong or missing, which is recorded there.
fn line(fields: &mut Fields) -> Option<CartLine> {
    let sku = fields.required("sku", text(Sku::parse));
    let quantity = fields.required("quantity", whole(Quantity::new));
    Some(CartLine { sku: sku?, quantity: quantity? })
}

/// A SKU has one line.
fn refuse_doubles(fields: &mut Fields, lines: &[CartLine]) {
    let mut seen = BTreeSet::new();
    for (at, line) in lines.iter().enumerate() {
        if !seen.insert(line.sku.as_str()) {
            fields.refuse(&format!("items[{at}].sku"), "is in an earlier item");
        }
    }
}

/// The lines that cannot be held. The problem is that of the first, but for a lack of units before all.
fn all_short(lines: &[(&CartLine, Shortage)]) -> Problem {
    let kinds: Vec<Kind> = lines.iter().map(|(_, shortage)| kind(*shortage)).collect();
    let kind = match kinds.first() {
        Some(first) if kinds.iter().all(|kind| [Kind::CartLimitReached, Kind::HoldTooLong].contains(kind)) => *first,
        _ => Kind::InsufficientInventory,
    };
    let detail = match kind {
        Kind::CartLimitReached => "nothing was held: the rules of a SKU allow one cart fewer units",
        Kind::HoldTooLong => "nothing was held: the rules of a SKU allow no hold of this length",
        _ => "nothing was held: fewer units are available than were requested",
    };
    let errors: Vec<Value> = lines.iter().map(|(line, shortage)| short(line, *shortage)).collect();
    Problem::new(kind, detail).with("errors", errors)
}

fn kind(shortage: Shortage) -> Kind {
    match shortage {
        Shortage::Insufficient { .. } => Kind::InsufficientInventory,
        Shortage::UnknownSku => Kind::UnknownSkuHeld,
        Shortage::TooLong { .. } => Kind::HoldTooLong,
        Shortage::CartLimit { .. } => Kind::CartLimitReached,
    }
}

fn short(line: &CartLine, shortage: Shortage) -> Value {
    let (sku, requested, code) = (line.sku.as_str(), line.quantity.get(), kind(shortage).code());
    match shortage {
        Shortage::Insufficient { available } => json!({ "sku": sku, "requested": requested, "available": available }),
        Shortage::UnknownSku => json!({ "sku": sku, "requested": requested, "available": 0, "code": code }),
        Shortage::TooLong { max_ttl_ms } => {
            json!({ "sku": sku, "requested": requested, "maxTtlSeconds": max_ttl_ms / 1000, "code": code })
        }
        Shortage::CartLimit { per_cart, units } => {
            json!({ "sku": sku, "requested": requested, "perCart": per_cart, "inCart": units, "code": code })
        }
    }
}

/// A reservation that is not active.
fn ended(line: &EndedLine) -> Value {
    let mut shown = json!({ "reservationId": line.id.to_string(), "sku": line.sku.as_str() });
    match line.state {
        Some(state) => shown["state"] = state.as_str().into(),
        None => shown["code"] = Kind::UnknownReservation.code().into(),
    }
    if !line.reason.is_empty() {
        shown["reason"] = line.reason.as_str().into();
    }
    shown
}

fn held<'a>(cart: &'a CartId, records: &'a [Reservation]) -> impl serde::Serialize + use<'a> {
    let expires_at_ms = records.iter().map(|record| record.expires_at_ms).min();
    json::cart(cart, expires_at_ms, records)
}
