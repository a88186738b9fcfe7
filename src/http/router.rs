//! One table: which path and method is which operation. And what all requests have in common.

use std::time::Instant;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::HeaderValue;
use hyper::{Method, Request, Response};
use tracing::{debug, error, warn};
use uuid::Uuid;

use super::auth::Access;
use super::handlers;
use super::input::unescape;
use super::problem::Problem;
use super::{MAX_HEADER_BYTES, MAX_TARGET_BYTES};
use crate::engine::Engine;

pub(super) const REQUEST_ID: &str = "x-request-id";

/// Answers a request. Whatever happens, there is an answer.
pub(super) async fn respond(engine: &Engine, access: &Access, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let started = Instant::now();
    let id = request_id(&request);
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let answer = match access.check(&request) {
        Ok(()) => route(engine, request).await,
        Err(problem) => Err(problem),
    };
    let mut response = match answer {
        Ok(response) => response,
        Err(mut problem) => {
            let cause = problem.cause.take();
            let response = problem.into_response();
            if let Some(cause) = cause {
                let status = response.status().as_u16();
                if status == 503 { warn!(id, status, cause, "request") } else { error!(id, status, cause, "request") }
            }
            response
        }
    };
    let elapsed_ms = started.elapsed().as_secs_f64() * 1000.0;
    debug!(id, %method, path, status = response.status().as_u16(), elapsed_ms, "request");
    if let Ok(id) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    response
}

async fn route(engine: &Engine, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Problem> {
    check_sizes(&request)?;
    let path = request.uri().path().to_owned();
    let pieces = path.split('/').skip(1).map(unescape).collect::<Result<Vec<_>, _>>()?;
    let pieces: Vec<&str> = pieces.iter().map(String::as_str).collect();
    let get = matches!(*request.method(), Method::GET | Method::HEAD);
    let post = *request.method() == Method::POST;
    match *pieces {
        ["livez"] if get => Ok(handlers::live()),
        ["readyz"] if get => handlers::ready(engine).await,
        ["api", "inventory", "seed"] if post => handlers::seed(engine, request).await,
        ["api", "inventory", sku] if get => handlers::stock(engine, sku, &request).await,
        ["api", "reservations", "hold"] if post => handlers::hold(engine, request).await,
        ["api", "reservations", "hold"] => Err(Problem::method_not_allowed("POST")),
        ["api", "reservations", id] if get => handlers::reservation(engine, id, &request).await,
        ["api", "reservations", id, "confirm"] if post => handlers::confirm(engine, id, request).await,
        ["api", "reservations", id, "release"] if post => handlers::release(engine, id, request).await,
        ["api", "audit"] if get => handlers::audit(engine, &request).await,

        ["api", "inventory", "seed"] => Err(Problem::method_not_allowed("GET, HEAD, POST")),
        ["api", "reservations", _, "confirm" | "release"] => Err(Problem::method_not_allowed("POST")),
        ["livez" | "readyz"] | ["api", "audit"] | ["api", "inventory" | "reservations", _] => {
            Err(Problem::method_not_allowed("GET, HEAD"))
        }
        _ => Err(Problem::not_found("unknown_path", "Not found", "there is nothing at this path")),
    }
}

/// Limits that hyper would enforce as well, but without telling the client which.
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

/// The client's own id for the request if it is fit for a log, or a new one.
fn request_id(request: &Request<Incoming>) -> String {
    let given = request.headers().get(REQUEST_ID).and_then(|value| value.to_str().ok());
    match given {
        Some(id) if (1..=128).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic()) => id.to_owned(),
        _ => Uuid::new_v4().to_string(),
    }
}
