//! One function for each operation: from the fields of a request to an engine call, and from its outcome to an answer.

mod adjust;
mod board;
mod cart;
mod change;
mod events;
mod list;
mod returns;
mod rules;
mod sell;

use std::pin::Pin;

use hyper::Response;
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use serde::Serialize;
use serde_json::json;

use super::catalogue::Kind;
use super::content::Content;
use super::input::{Fields, digits, text, whole};
use super::problem::Problem;
use super::request::WholeRequest;
use crate::engine::{
    ActiveLimit, Engine, Error, Extend, Hold, HoldRequest, Impairment, PageLimit, Quantity, Reservation,
    ReservationState, Seed, SeedQuantity, Settle, Ttl,
};
use crate::keys::{CartId, IdempotencyKey, Invalid, Metadata, ReservationId, Sku};

pub(super) use adjust::{adjust, adjust_many};
pub(super) use board::board;
pub(super) use cart::{cart, confirm_cart, extend_cart, hold_cart, release_cart};
pub(super) use change::change;
pub(super) use events::events;
pub(super) use list::{active, skus};
pub(super) use returns::take_back;
pub(super) use rules::rule;

pub(super) type Answer = Result<Response<Content>, Problem>;

pub(super) const IDEMPOTENT_REPLAYED: (HeaderName, HeaderValue) =
    (HeaderName::from_static("idempotent-replayed"), HeaderValue::from_static("true"));

pub(super) async fn seed(engine: &Engine, request: WholeRequest) -> Answer {
    let key = request.idempotency_key?;
    let mut fields = request.fields;
    let sku = fields.required("sku", text(Sku::parse));
    let quantity = fields.required("quantity", whole(SeedQuantity::new));
    let (Some(sku), Some(quantity)) = (sku, quantity) else { return Err(refused(fields)) };
    fields.finish()?;
    // Boxed: a rare request must not make the state of every request larger.
    match Box::pin(engine.seed(&sku, quantity, key.as_ref())).await? {
        Seed::Seeded(stock) => Ok(ok(&super::json::stock(&stock))),
        Seed::Replayed(stock) => Ok(replayed(&super::json::stock(&stock))),
        Seed::Conflict { field } => {
            let detail = format!("this Idempotency-Key was used for a seed with another {field}");
            Err(Problem::new(Kind::IdempotencyKeyReused, detail))
        }
    }
}

pub(super) async fn stock(engine: &Engine, mut request: WholeRequest) -> Answer {
    let sku = Sku::parse(&request.name())?;
    let limit = request.fields.optional("active", digits(ActiveLimit::new));
    request.fields.finish()?;
    match while_there(&request, Box::pin(engine.stock(&sku, limit.unwrap_or(ActiveLimit::DEFAULT)))).await? {
        Some(stock) => Ok(ok(&super::json::stock(&stock))),
        None => Err(Problem::new(Kind::UnknownSku, NEVER_SEEDED)),
    }
}

pub(super) async fn hold(engine: &Engine, request: WholeRequest) -> Answer {
    let idempotency_key = request.idempotency_key?;
    let mut fields = request.fields;
    let cart = fields.required("cartId", text(CartId::parse));
    let sku = fields.required("sku", text(Sku::parse));
    let quantity = fields.required("quantity", whole(Quantity::new));
    let ttl = fields.optional("ttlSeconds", whole(Ttl::new));
    let metadata = fields.strings("metadata", Metadata::new);
    let (Some(cart), Some(sku), Some(quantity)) = (cart, sku, quantity) else { return Err(refused(fields)) };
    fields.finish()?;
    let requested = quantity.get();
    let insufficient = |kind, detail, available| {
        Err(Problem::new(kind, detail).with("requested", requested).with("available", available))
    };
    match engine.hold(HoldRequest { cart, sku, quantity, ttl, metadata, idempotency_key }).await? {
        Hold::Held(record) => Ok(ok(&super::json::reservation(&record))),
        Hold::Replayed(record) => replayed_hold(&record),
        Hold::Conflict { field } => {
            let detail = format!("this Idempotency-Key was used for a request with another {field}");
            Err(Problem::new(Kind::IdempotencyKeyReused, detail))
        }
        Hold::UnknownSku => insufficient(Kind::UnknownSkuHeld, NEVER_SEEDED, 0),
        Hold::Insufficient { available } => {
            let detail = "fewer units are available than were requested";
            insufficient(Kind::InsufficientInventory, detail, available)
        }
        Hold::TooLong { max_ttl_ms } => Err(rules::too_long(max_ttl_ms)),
        Hold::CartLimit { per_cart, units } => Err(rules::cart_limit(per_cart, units).with("requested", requested)),
        Hold::CartFull => Err(Problem::new(Kind::CartFull, cart::FULL)),
    }
}

/// A replayed hold is as good as a new one while it has its units, or has sold them. If its units went back, a client
/// that continues to charge would sell units that it does not have.
fn replayed_hold(record: &Reservation) -> Answer {
    match record.state {
        ReservationState::Active | ReservationState::Confirmed => Ok(replayed(&super::json::reservation(record))),
        ReservationState::Released => {
            let (name, value) = IDEMPOTENT_REPLAYED;
            Err(not_active(record.state, &record.reason).with_header(name, value))
        }
    }
}

pub(super) async fn reservation(engine: &Engine, mut request: WholeRequest) -> Answer {
    let id = ReservationId::parse(&request.name())?;
    request.fields.finish()?;
    match while_there(&request, Box::pin(engine.reservation(id))).await? {
        Some(record) => Ok(ok(&super::json::reservation(&record))),
        None => Err(unknown_reservation()),
    }
}

pub(super) async fn confirm(engine: &Engine, request: WholeRequest) -> Answer {
    if sell::CHOICES.iter().any(|choice| request.fields.has(choice)) {
        return Box::pin(sell::sell(engine, request)).await;
    }
    let (id, key) = to_settle(request)?;
    settled(engine.confirm(id, key.as_ref()).await?)
}

pub(super) async fn release(engine: &Engine, request: WholeRequest) -> Answer {
    if request.fields.has("quantity") {
        return Box::pin(change::release_part(engine, request)).await;
    }
    let (id, key) = to_settle(request)?;
    settled(engine.release(id, key.as_ref()).await?)
}

pub(super) async fn extend(engine: &Engine, request: WholeRequest) -> Answer {
    let id = ReservationId::parse(&request.name())?;
    let mut fields = request.fields;
    let Some(ttl) = fields.required("ttlSeconds", whole(Ttl::new)) else { return Err(refused(fields)) };
    fields.finish()?;
    match engine.extend(id, ttl).await? {
        Extend::Extended(record) => Ok(ok(&super::json::reservation(&record))),
        Extend::Limited { max_expires_at_ms } => {
            let problem =
                Problem::new(Kind::ExtensionLimitReached, "the operator allows less time for this reservation");
            Err(problem.with("maxExpiresAt", super::json::time(max_expires_at_ms)))
        }
        Extend::NotActive { state, reason } => Err(not_active(state, &reason)),
        Extend::Expired => Err(lapsed()),
        Extend::NotFound => Err(unknown_reservation()),
    }
}

/// The reservation to settle, and the idempotency key.
fn to_settle(mut request: WholeRequest) -> Result<(ReservationId, Option<IdempotencyKey>), Problem> {
    let id = ReservationId::parse(&request.name())?;
    request.fields.finish()?;
    Ok((id, request.idempotency_key?))
}

fn settled(outcome: Settle) -> Answer {
    match outcome {
        Settle::Settled(record) => Ok(ok(&super::json::reservation(&record))),
        Settle::Replayed(record) => Ok(replayed(&super::json::reservation(&record))),
        Settle::NotActive { state, reason } => Err(not_active(state, &reason)),
        Settle::Expired => Err(lapsed()),
        Settle::NotFound => Err(unknown_reservation()),
    }
}

pub(super) async fn audit(engine: &Engine, mut request: WholeRequest) -> Answer {
    const BEFORE: Invalid = Invalid { field: "before", rule: "must be the id of an event of this SKU" };
    let fields = &mut request.fields;
    let sku = fields.optional("sku", text(Sku::parse));
    let limit = fields.optional("limit", digits(PageLimit::new));
    let before = fields.optional("before", text(|id| if id.is_empty() { Err(BEFORE) } else { Ok(id.to_owned()) }));
    fields.finish()?;
    let limit = limit.unwrap_or(PageLimit::DEFAULT);
    match while_there(&request, Box::pin(engine.audit(sku.as_ref(), limit, before.as_deref()))).await? {
        Some(events) => Ok(ok(&super::json::events(&events))),
        None => Err(BEFORE.into()),
    }
}

/// The process runs; nothing else is checked.
pub(super) async fn live(_: &Engine, _: WholeRequest) -> Answer {
    Ok(ok(&json!({ "status": "live" })))
}

/// What was counted, for Prometheus.
pub(super) async fn metrics(_: &Engine, request: WholeRequest) -> Answer {
    let mut fields = request.fields;
    fields.finish()?;
    let mut response = Response::new(Content::from(super::metrics::exposed()));
    let content_type = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    Ok(response)
}

/// Requests can be served: all, or at least those that settle holds.
pub(super) async fn ready(engine: &Engine, request: WholeRequest) -> Answer {
    if request.server_is_draining() {
        return Err(Problem::draining());
    }
    // Boxed: a rare request must not make the state of every request larger.
    let found = Box::pin(engine.impairments()).await;
    if found.is_empty() {
        return Ok(ok(&json!({ "status": "ready" })));
    }
    let impaired: Vec<_> = found.iter().map(|found| json!({ "what": found.what, "why": found.why })).collect();
    if found.iter().any(Impairment::stops_service) {
        let causes: Vec<_> = found.iter().map(|Impairment { what, cause, .. }| format!("{what}: {cause}")).collect();
        return Err(Problem::from(Error::Unavailable(causes.join("; "))).with("impaired", impaired));
    }
    Ok(ok(&json!({ "status": "impaired", "impaired": impaired })))
}

/// The result of `read`, unless the client goes away first: then the read is dropped, and stops. It is boxed because
/// it is large, and every connection would reserve space for it.
async fn while_there<T>(
    request: &WholeRequest,
    read: Pin<Box<impl Future<Output = Result<T, Error>>>>,
) -> Result<T, Error> {
    tokio::select! {
        biased;
        read = read => read,
        // No client reads this answer.
        () = request.client_gone() => Err(Error::Busy),
    }
}

/// The problem with fields of which at least one is missing or wrong.
fn refused(mut fields: Fields) -> Problem {
    fields.finish().expect_err("a field that could not be read is remembered")
}

const NEVER_SEEDED: &str = "this SKU was never seeded";

fn unknown_reservation() -> Problem {
    Problem::new(Kind::UnknownReservation, "there is no reservation of this id")
}

/// The same answer that a client gets a moment later, for a reservation that was released.
fn lapsed() -> Problem {
    not_active(ReservationState::Released, "reservation_ttl_elapsed")
}

fn not_active(state: ReservationState, reason: &str) -> Problem {
    let state = state.as_str();
    let problem = Problem::new(Kind::ReservationNotActive, format!("the reservation is {state} already"));
    let problem = problem.with("state", state);
    if reason.is_empty() { problem } else { problem.with("reason", reason) }
}

fn ok(body: &impl Serialize) -> Response<Content> {
    let body = serde_json::to_vec(body).expect("what is shown has text for keys and plain values");
    let mut response = Response::new(Content::from(body));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// The answer to an earlier identical request.
fn replayed(body: &impl Serialize) -> Response<Content> {
    let mut response = ok(body);
    response.headers_mut().extend([IDEMPOTENT_REPLAYED]);
    response
}
