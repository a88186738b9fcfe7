//! What all requests have in common: authorization, the choice of the operation, and an answer in every case.

use std::sync::Arc;
use std::time::Instant;

use hyper::body::{Body, Incoming};
use hyper::header::HeaderValue;
use hyper::{Request, Response};
use tracing::{error, warn};
use uuid::Uuid;

use super::access_log::AccessLog;
use super::auth::Access;
use super::catalogue::Kind;
use super::content::Content;
use super::cors;
use super::events::Feed;
use super::handlers::Answer;
use super::metrics;
use super::problem::Problem;
use super::request::{WholeRequest, discard};
use super::routes::{Operation, Route};
use super::{MAX_HEADER_BYTES, MAX_TARGET_BYTES};
use crate::engine::Engine;

pub(super) const REQUEST_ID: &str = "x-request-id";

/// Answers a request, in every case.
pub(super) async fn respond(
    engine: &Engine,
    access: &Access,
    feed: &Arc<Feed>,
    request: Request<Incoming>,
) -> Response<Content> {
    let started = Instant::now();
    let id = request_id(&request);
    let found = Route::find(request.method(), request.uri().path());
    let route = found.as_ref().ok().copied();
    let page = access.cors.as_ref().map(|cors| (cors, cors.allows(&request)));
    let logged = AccessLog::begin(request.method(), route);
    let (mut response, kind) = match carry_out(engine, access, feed, found, request).await {
        Ok(response) => (response, None),
        Err(mut problem) => {
            let (cause, kind) = (problem.cause.take(), problem.kind());
            let response = problem.into_response();
            if let Some(cause) = cause {
                let (id, status, code) = (shown(&id), response.status().as_u16(), kind.code());
                if status == 503 {
                    warn!(id, status, code, cause, "request");
                } else {
                    error!(id, status, code, cause, "request");
                }
            }
            (response, Some(kind))
        }
    };
    if let Some(line) = logged {
        line.end(shown(&id), response.status().as_u16(), kind.map(Kind::code), started);
    }
    metrics::answered(route, &response, kind, started.elapsed());
    response.headers_mut().insert(REQUEST_ID, id);
    if let Some((cors, allowed)) = page {
        cors.mark(allowed, &mut response);
    }
    response
}

/// From bytes to an operation. A request can be refused for its sender, its target, and its body, in this order.
async fn carry_out(
    engine: &Engine,
    access: &Access,
    feed: &Arc<Feed>,
    found: Result<&'static Route, Problem>,
    request: Request<Incoming>,
) -> Answer {
    if let Some(cors) = &access.cors
        && cors::is_preflight(&request)
        && cors.allows(&request).is_some()
    {
        access.check_name(&request)?;
        return Ok(cors::preflight());
    }
    match admit(access, &request).and(found) {
        Ok(route) => {
            let mut request = WholeRequest::read(route.input, request).await?;
            if matches!(route.operation, Operation::Events) {
                request.feed = Some(Arc::clone(feed));
            }
            route.operation.carry_out(engine, request).await
        }
        Err(refused) => {
            if !request.body().is_end_stream() {
                let (head, body) = request.into_parts();
                Box::pin(discard(&head, body)).await;
            }
            Err(refused)
        }
    }
}

/// Whether a request is looked at, whatever it asks for.
///
/// # Errors
/// 401, 403, 414, 421 and 431.
fn admit(access: &Access, request: &Request<Incoming>) -> Result<(), Problem> {
    access.check(request)?;
    check_sizes(request)
}

/// Limits that hyper also has, but hyper does not tell the client which one was exceeded.
fn check_sizes(request: &Request<Incoming>) -> Result<(), Problem> {
    let target = request.uri().path_and_query().map_or(0, |target| target.as_str().len());
    if target > MAX_TARGET_BYTES {
        return Err(Problem::target_too_long());
    }
    let headers: usize = request.headers().iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    if headers > MAX_HEADER_BYTES {
        return Err(Problem::headers_too_large());
    }
    Ok(())
}

/// The client's own id for the request if it is safe to log, or a new one.
fn request_id(request: &Request<Incoming>) -> HeaderValue {
    match request.headers().get(REQUEST_ID) {
        Some(id) if (1..=128).contains(&id.len()) && id.as_bytes().iter().all(u8::is_ascii_graphic) => id.clone(),
        _ => {
            let mut text = Uuid::encode_buffer();
            HeaderValue::from_str(Uuid::new_v4().hyphenated().encode_lower(&mut text)).expect("it is plain text")
        }
    }
}

fn shown(id: &HeaderValue) -> &str {
    id.to_str().unwrap_or_default()
}
