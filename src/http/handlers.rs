//! One function for each endpoint: input to an engine call, its outcome to an answer.

use std::pin::Pin;
use std::sync::Arc;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Request, Response, StatusCode};
use serde::Serialize;
use serde_json::json;

use super::input::{Fields, body, digits, idempotency_key, optional_body, query, text, whole};
use super::problem::Problem;
use super::seats::Occupant;
use crate::engine::{
    ActiveLimit, AuditLimit, Engine, Error, Hold, HoldRequest, Impairment, Quantity, SeedQuantity, Settle, Ttl,
};
use crate::keys::{CartId, Invalid, ReservationId, Sku};

type Answer = Result<Response<Full<Bytes>>, Problem>;

pub(super) async fn seed(engine: &Engine, request: Request<Incoming>) -> Answer {
    let mut fields = body(request).await?;
    let sku = fields.required("sku", text(Sku::parse));
    let quantity = fields.required("quantity", whole(SeedQuantity::new));
    let (Some(sku), Some(quantity)) = (sku, quantity) else { return Err(refused(fields)) };
    fields.finish()?;
    let stock = engine.seed(&sku, quantity).await?;
    Ok(ok(&super::json::stock(&stock)))
}

pub(super) async fn stock(engine: &Engine, sku: &str, request: &Request<Incoming>) -> Answer {
    let sku = Sku::parse(sku)?;
    let mut fields = query(request)?;
    let limit = fields.optional("active", digits(ActiveLimit::new));
    fields.finish()?;
    match while_there(request, Box::pin(engine.stock(&sku, limit.unwrap_or(ActiveLimit::DEFAULT)))).await? {
        Some(stock) => Ok(ok(&super::json::stock(&stock))),
        None => Err(Problem::not_found("unknown_sku", "Unknown SKU", "this SKU was never seeded")),
    }
}

pub(super) async fn hold(engine: &Engine, request: Request<Incoming>) -> Answer {
    let idempotency_key = idempotency_key(request.headers())?;
    let mut fields = body(request).await?;
    let cart = fields.required("cartId", text(CartId::parse));
    let sku = fields.required("sku", text(Sku::parse));
    let quantity = fields.required("quantity", whole(Quantity::new));
    let ttl = fields.optional("ttlSeconds", whole(Ttl::new)).unwrap_or(Ttl::DEFAULT);
    let (Some(cart), Some(sku), Some(quantity)) = (cart, sku, quantity) else { return Err(refused(fields)) };
    fields.finish()?;
    let requested = quantity.get();
    let insufficient = |code, detail| {
        Problem::new(StatusCode::CONFLICT, code, "Insufficient inventory", detail).with("requested", requested)
    };
    match engine.hold(HoldRequest { cart, sku, quantity, ttl, idempotency_key }).await? {
        Hold::Held(record) => Ok(ok(&super::json::reservation(&record))),
        Hold::Replayed(record) => Ok(replayed(&super::json::reservation(&record))),
        Hold::Conflict { field } => Err(Problem::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "idempotency_key_reused",
            "Idempotency-Key used again",
            format!("this Idempotency-Key was used for a request with another {field}"),
        )),
        Hold::UnknownSku => Err(insufficient("unknown_sku", "this SKU was never seeded").with("available", 0)),
        Hold::Insufficient { available } => {
            let problem = insufficient("insufficient_inventory", "fewer units are available than were requested");
            Err(problem.with("available", available))
        }
    }
}

pub(super) async fn reservation(engine: &Engine, id: &str, request: &Request<Incoming>) -> Answer {
    let id = ReservationId::parse(id)?;
    query(request)?.finish()?;
    match while_there(request, Box::pin(engine.reservation(id))).await? {
        Some(record) => Ok(ok(&super::json::reservation(&record))),
        None => Err(unknown_reservation()),
    }
}

pub(super) async fn confirm(engine: &Engine, id: &str, request: Request<Incoming>) -> Answer {
    let id = ReservationId::parse(id)?;
    let key = idempotency_key(request.headers())?;
    optional_body(request).await?.finish()?;
    settled(engine.confirm(id, key.as_ref()).await?)
}

pub(super) async fn release(engine: &Engine, id: &str, request: Request<Incoming>) -> Answer {
    let id = ReservationId::parse(id)?;
    let key = idempotency_key(request.headers())?;
    optional_body(request).await?.finish()?;
    settled(engine.release(id, key.as_ref()).await?)
}

fn settled(outcome: Settle) -> Answer {
    let not_active = |state: &str, reason: &str| {
        let detail = format!("the reservation is {state} already");
        let problem = Problem::new(StatusCode::CONFLICT, "reservation_not_active", "Reservation is not active", detail);
        let problem = problem.with("state", state);
        if reason.is_empty() { problem } else { problem.with("reason", reason) }
    };
    match outcome {
        Settle::Settled(record) => Ok(ok(&super::json::reservation(&record))),
        Settle::Replayed(record) => Ok(replayed(&super::json::reservation(&record))),
        Settle::NotActive { state, reason } => Err(not_active(state.as_str(), &reason)),
        // The same answer as a moment later, when it is one that was released.
        Settle::Expired => Err(not_active("released", "reservation_ttl_elapsed")),
        Settle::NotFound => Err(unknown_reservation()),
    }
}

pub(super) async fn audit(engine: &Engine, request: &Request<Incoming>) -> Answer {
    const BEFORE: Invalid = Invalid { field: "before", rule: "must be the id of an event of this SKU" };
    let mut fields = query(request)?;
    let sku = fields.optional("sku", text(Sku::parse));
    let limit = fields.optional("limit", digits(AuditLimit::new));
    let before = fields.optional("before", text(|id| if id.is_empty() { Err(BEFORE) } else { Ok(id.to_owned()) }));
    fields.finish()?;
    let limit = limit.unwrap_or(AuditLimit::DEFAULT);
    match while_there(request, Box::pin(engine.audit(sku.as_ref(), limit, before.as_deref()))).await? {
        Some(events) => Ok(ok(&super::json::events(&events))),
        None => Err(BEFORE.into()),
    }
}

/// The process runs; nothing else is looked at.
pub(super) fn live() -> Response<Full<Bytes>> {
    ok(&json!({ "status": "live" }))
}

/// Requests can be served: all of them, or at least those that settle what was held.
pub(super) async fn ready(engine: &Engine) -> Answer {
    // In a box: what is seldom asked must not make the state of every request larger.
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

/// What `read` gives, unless the client goes away first: it is dropped then, and reads no further. It is boxed because it
/// is large: every connection would have room for it, whatever it asks for.
async fn while_there<T>(
    request: &Request<Incoming>,
    read: Pin<Box<impl Future<Output = Result<T, Error>>>>,
) -> Result<T, Error> {
    let Some(occupant) = request.extensions().get::<Arc<Occupant>>() else { return read.await };
    tokio::select! {
        biased;
        read = read => read,
        // Nobody reads this answer.
        () = occupant.gone() => Err(Error::Busy),
    }
}

/// The problem with fields of which at least one is missing or wrong.
fn refused(fields: Fields) -> Problem {
    fields.finish().expect_err("a field that could not be read is remembered")
}

fn unknown_reservation() -> Problem {
    Problem::not_found("unknown_reservation", "Unknown reservation", "there is no reservation of this id")
}

fn ok(body: &impl Serialize) -> Response<Full<Bytes>> {
    let body = serde_json::to_vec(body).expect("what is shown has text for keys and plain values");
    let mut response = Response::new(Full::from(body));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// The answer that the same request had before.
fn replayed(body: &impl Serialize) -> Response<Full<Bytes>> {
    let mut response = ok(body);
    response.headers_mut().insert("idempotent-replayed", HeaderValue::from_static("true"));
    response
}
