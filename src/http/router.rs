//! What all requests have in common: authorization, the choice of the operation, and an answer in every case.

use std::time::Instant;

use http_body_util::Full;
use hyper::body::{Body, Bytes, Incoming};
use hyper::header::HeaderValue;
use hyper::{Request, Response};
use tracing::{Level, debug, enabled, error, warn};
use uuid::Uuid;

use super::auth::Access;
use super::handlers::Answer;
use super::problem::Problem;
use super::request::{WholeRequest, discard};
use super::routes::Route;
use super::{MAX_HEADER_BYTES, MAX_TARGET_BYTES};
use crate::engine::Engine;

pub(super) const REQUEST_ID: &str = "x-request-id";

/// Answers a request, in every case.
pub(super) async fn respond(engine: &Engine, access: &Access, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let started = Instant::now();
    let id = request_id(&request);
    let logged = enabled!(Level::DEBUG).then(|| (request.method().clone(), request.uri().path().to_owned()));
    let mut response = match carry_out(engine, access, request).await {
        Ok(response) => response,
        Err(mut problem) => {
            let cause = problem.cause.take();
            let response = problem.into_response();
            if let Some(cause) = cause {
                let (id, status) = (shown(&id), response.status().as_u16());
                if status == 503 { warn!(id, status, cause, "request") } else { error!(id, status, cause, "request") }
            }
            response
        }
    };
    if let Some((method, path)) = logged {
        let elapsed_ms = started.elapsed().as_secs_f64() * 1000.0;
        debug!(id = shown(&id), %method, path, status = response.status().as_u16(), elapsed_ms, "request");
    }
    response.headers_mut().insert(REQUEST_ID, id);
    response
}

/// From bytes to an operation. A request can be refused for its sender, its target, and its body, in this order.
async fn carry_out(engine: &Engine, access: &Access, request: Request<Incoming>) -> Answer {
    match admit(access, &request) {
        Ok(route) => {
            let request = WholeRequest::read(route.input, request).await?;
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

/// The route of a request, after its sender was authorized.
///
/// # Errors
/// 401, 403, 404, 405, 414, 421 and 431.
fn admit(access: &Access, request: &Request<Incoming>) -> Result<&'static Route, Problem> {
    access.check(request)?;
    check_sizes(request)?;
    Route::find(request.method(), request.uri().path())
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
