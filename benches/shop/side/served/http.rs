//! The HTTP around a store: hold and confirm, with this project's own server below and the same JSON in and out.

use std::fmt::Display;
use std::sync::Arc;

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Request, Response, StatusCode};
use jiff::Timestamp;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Value, json};
use stockhold::http::{DEFAULT_KEEP_ALIVE, Drain, Workers, serve_with};
use tokio::net::TcpListener;
use tokio::runtime::Builder;

use super::LISTENS;
use super::store::{Outcome, Record, Store};
use crate::script_calls::TTL_MS;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Hold {
    cart_id: String,
    sku: String,
    quantity: u64,
    ttl_seconds: Option<u64>,
}

#[derive(Deserialize)]
struct HoldCart {
    items: Vec<Line>,
}

#[derive(Deserialize)]
struct Line {
    sku: String,
    quantity: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Shown<'a> {
    reservation_id: &'a str,
    cart_id: &'a str,
    sku: &'a str,
    quantity: u64,
    state: &'a str,
    #[serde(serialize_with = "time")]
    expires_at: u64,
    #[serde(serialize_with = "time")]
    created_at: u64,
    #[serde(serialize_with = "time")]
    updated_at: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ShownCart<'a> {
    cart_id: &'a str,
    #[serde(serialize_with = "time")]
    expires_at: u64,
    reservations: Vec<Shown<'a>>,
}

/// Serves until the process is killed. `open` gives what makes the store of each thread.
pub fn serve<S: Store, M: Fn() -> Arc<S>>(open: impl Future<Output = M>) {
    // As `stockhold serve` does it: one thread that accepts, and one for each core that serves.
    let runtime = Builder::new_current_thread().enable_all().build().expect("the machine has threads");
    runtime.block_on(async {
        let store_of_thread = open.await;
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("there is a free port");
        println!("{LISTENS}{}", listener.local_addr().expect("it has an address"));
        let workers = Workers::start(|| {
            let store = store_of_thread();
            move |request| {
                let store = Arc::clone(&store);
                async move { respond(&*store, request).await }
            }
        });
        let workers = workers.expect("the machine has threads");
        serve_with(listener, &workers, DEFAULT_KEEP_ALIVE, Arc::<Drain>::default(), std::future::pending()).await;
    });
}

async fn respond(store: &impl Store, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let path = request.uri().path().to_owned();
    if let Some(cart) = path.strip_prefix("/api/carts/").and_then(|rest| rest.strip_suffix("/hold")) {
        let Ok(body) = request.into_body().collect().await else { return bad_request("the body broke off") };
        let Ok(hold) = serde_json::from_slice::<HoldCart>(&body.to_bytes()) else { return bad_request("not a cart") };
        let lines: Vec<_> = hold.items.into_iter().map(|line| (line.sku, line.quantity)).collect();
        return answer(store.hold_cart(cart, &lines, TTL_MS).await);
    }
    let Some(rest) = path.strip_prefix("/api/reservations/") else { return not_found() };
    let outcome = match rest.strip_suffix("/confirm") {
        Some(id) => store.confirm(id).await,
        None if rest == "hold" => {
            let Ok(body) = request.into_body().collect().await else { return bad_request("the body broke off") };
            let Ok(hold) = serde_json::from_slice::<Hold>(&body.to_bytes()) else { return bad_request("not a hold") };
            let ttl_ms = hold.ttl_seconds.map_or(TTL_MS, |seconds| seconds * 1000);
            store.hold(&hold.cart_id, &hold.sku, hold.quantity, ttl_ms).await
        }
        None => return not_found(),
    };
    answer(outcome)
}

fn answer<E: Display>(outcome: Result<Outcome, E>) -> Response<Full<Bytes>> {
    match outcome {
        Ok(Outcome::Done(record)) => json_response(StatusCode::OK, "application/json", &Shown::from(&record)),
        Ok(Outcome::Held(records)) => json_response(StatusCode::OK, "application/json", &ShownCart::from(&*records)),
        Ok(Outcome::Insufficient { available }) => {
            let mut problem = problem(StatusCode::CONFLICT, "insufficient_inventory", "Insufficient inventory");
            problem["available"] = available.into();
            problem_response(StatusCode::CONFLICT, &problem)
        }
        Ok(Outcome::NotActive { state }) => {
            let mut problem = problem(StatusCode::CONFLICT, "reservation_not_active", "Reservation is not active");
            problem["state"] = state.into();
            problem_response(StatusCode::CONFLICT, &problem)
        }
        Ok(Outcome::Contention) => {
            let problem = problem(StatusCode::CONFLICT, "contention", "Too many at once");
            problem_response(StatusCode::CONFLICT, &problem)
        }
        Ok(Outcome::NotFound) => not_found(),
        Err(error) => {
            eprintln!("the other side: {error}");
            let status = StatusCode::SERVICE_UNAVAILABLE;
            problem_response(status, &problem(status, "unavailable", "Service unavailable"))
        }
    }
}

impl<'a> From<&'a Record> for Shown<'a> {
    fn from(record: &'a Record) -> Self {
        Self {
            reservation_id: &record.id,
            cart_id: &record.cart,
            sku: &record.sku,
            quantity: record.quantity,
            state: record.state,
            expires_at: record.expires_at,
            created_at: record.created_at,
            updated_at: record.updated_at,
        }
    }
}

impl<'a> From<&'a [Record]> for ShownCart<'a> {
    fn from(records: &'a [Record]) -> Self {
        let first = records.first().expect("a cart has lines");
        let reservations = records.iter().map(Shown::from).collect();
        Self { cart_id: &first.cart, expires_at: first.expires_at, reservations }
    }
}

fn time<S: Serializer>(ms: &u64, serializer: S) -> Result<S::Ok, S::Error> {
    let time = Timestamp::from_millisecond(*ms as i64).expect("a time of this age");
    serializer.collect_str(&format_args!("{time:.3}"))
}

fn problem(status: StatusCode, code: &str, title: &str) -> Value {
    json!({ "type": format!("urn:stockhold:problem:{code}"), "title": title, "status": status.as_u16(), "code": code })
}

fn not_found() -> Response<Full<Bytes>> {
    let status = StatusCode::NOT_FOUND;
    problem_response(status, &problem(status, "not_found", "Not found"))
}

fn bad_request(title: &str) -> Response<Full<Bytes>> {
    let status = StatusCode::BAD_REQUEST;
    problem_response(status, &problem(status, "invalid_request", title))
}

fn problem_response(status: StatusCode, problem: &Value) -> Response<Full<Bytes>> {
    json_response(status, "application/problem+json", problem)
}

fn json_response(status: StatusCode, content_type: &'static str, body: &impl Serialize) -> Response<Full<Bytes>> {
    let body = serde_json::to_vec(body).expect("what is shown has text for keys");
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}
