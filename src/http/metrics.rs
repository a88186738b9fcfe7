//! What is counted of requests and connections, and the numbers of all layers below.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use hyper::{Response, StatusCode};

use super::catalogue::Kind;
use super::handlers::IDEMPOTENT_REPLAYED;
use super::routes::{COUNT, ROUTES, Route};
use super::{MAX_CONNECTIONS, MAX_LISTENERS};
use crate::metrics::{Counter, Exposition, Gauge, Times};
use crate::{engine, metrics, redis, scripts, sweeper};

/// All that are answered. A test compares them with those of the problems.
const STATUSES: [u16; 18] = [200, 204, 400, 401, 403, 404, 405, 408, 409, 410, 413, 414, 415, 421, 422, 431, 500, 503];
const STATUS_NAMES: [&str; STATUSES.len()] = [
    "200", "204", "400", "401", "403", "404", "405", "408", "409", "410", "413", "414", "415", "421", "422", "431",
    "500", "503",
];

/// The outcomes of an operation are the codes of the problems, and these.
const SUCCESSES: [&str; 2] = ["done", "replayed"];
const DONE: usize = Kind::CODES.len();
const REPLAYED: usize = DONE + 1;
const OUTCOMES: usize = DONE + SUCCESSES.len();

const FROM_THE_BEGINNING: [usize; 3] = [DONE, Kind::Internal as usize, Kind::Unavailable as usize];

/// For each route, and for what belongs to none.
static REQUESTS: [Requests; COUNT + 1] = [const { Requests::new() }; COUNT + 1];
pub(super) static CONNECTIONS: Gauge = Gauge::new();
pub(super) static CONNECTIONS_OPENED: Counter = Counter::new();
pub(super) static CONNECTIONS_EVICTED: Counter = Counter::new();
/// Streams of events.
pub(super) static LISTENERS: Gauge = Gauge::new();
pub(super) static DRAINING: Gauge = Gauge::new();

struct Requests {
    statuses: [Counter; STATUSES.len()],
    outcomes: [Counter; OUTCOMES],
    times: Times,
}

impl Requests {
    const fn new() -> Self {
        let (statuses, outcomes) = ([const { Counter::new() }; _], [const { Counter::new() }; OUTCOMES]);
        Self { statuses, outcomes, times: Times::of_seconds() }
    }

    fn count(&self, status: StatusCode) {
        if let Some(at) = STATUSES.iter().position(|known| *known == status.as_u16()) {
            self.statuses[at].inc();
        }
    }
}

/// A request has its answer, which may be a problem.
pub(super) fn answered<B>(route: Option<&Route>, answer: &Response<B>, problem: Option<Kind>, time: Duration) {
    let requests = &REQUESTS[route.map_or(COUNT, |route| route.operation as usize)];
    requests.count(answer.status());
    requests.times.record(time);
    let outcome = match problem {
        Some(kind) => kind as usize,
        // Most answers have one header by now.
        None if answer.headers().len() > 1 && answer.headers().contains_key(IDEMPOTENT_REPLAYED.0) => REPLAYED,
        None => DONE,
    };
    requests.outcomes[outcome].inc();
}

/// What came was not a request.
pub(super) fn unparsed(status: StatusCode) {
    REQUESTS[COUNT].count(status);
}

/// The numbers of all layers, as Prometheus reads them.
pub(super) fn exposed() -> String {
    metrics::exposed(|to| {
        expose(to)?;
        sweeper::expose(to)?;
        engine::metrics::expose(to)?;
        scripts::metrics::expose(to)?;
        redis::metrics::expose(to)
    })
}

fn expose(to: &mut Exposition) -> fmt::Result {
    let of_route = |route: &Route| [("method", method(route)), ("route", route.path)];
    let labels = || ROUTES.iter().map(of_route).chain([[("method", "unknown"), ("route", "unknown")]]);
    let by_status = labels().zip(&REQUESTS).flat_map(|([method, route], requests)| {
        let statuses = STATUS_NAMES.iter().zip(&requests.statuses);
        statuses.map(move |(status, count)| ([method, route, ("status", *status)], count.get()))
    });
    let help = "Requests, by route and status; unknown are those that belong to no route.";
    let shown = |(labels, count): &([_; 3], u64)| *count > 0 || labels[2] == ("status", "200");
    to.counters("stockhold_http_requests", help, by_status.filter(shown))?;
    let times = labels().zip(REQUESTS.iter().map(|requests| &requests.times)).filter(|(_, times)| !times.is_empty());
    to.histograms("stockhold_http_request_duration_seconds", "How long requests took, by route.", times)?;
    let help = "Requests to the API, by operation and outcome: done, replayed, or the code of a problem.";
    let operations = operations().into_iter();
    let operations = operations.map(|((name, outcome), count)| ([("operation", name), ("outcome", outcome)], count));
    to.counters("stockhold_operations", help, operations)?;
    to.gauge("stockhold_http_connections", "Open connections of clients.", CONNECTIONS.per(1.0))?;
    let help = "How many connections may be open; for one more, an idle one is closed.";
    to.gauge("stockhold_http_connections_limit", help, MAX_CONNECTIONS as f64)?;
    to.counter("stockhold_http_connections_opened", "Connections of clients, since the start.", &CONNECTIONS_OPENED)?;
    let help = "Idle connections that were closed to make room for others.";
    to.counter("stockhold_http_connections_evicted", help, &CONNECTIONS_EVICTED)?;
    to.gauge("stockhold_http_listeners", "Clients that listen to events.", LISTENERS.per(1.0))?;
    let help = "How many clients may listen to events; one more is refused.";
    to.gauge("stockhold_http_listeners_limit", help, MAX_LISTENERS as f64)?;
    to.gauge("stockhold_draining", "1 while the server drains, after SIGTERM.", DRAINING.per(1.0))?;
    let version = [("version", env!("CARGO_PKG_VERSION"))];
    to.gauges("stockhold_build_info", "Which version runs.", [(version, 1)])
}

/// How often each operation had each outcome. Some are there from the beginning: Prometheus does not see the increase of
/// a number that begins with 1.
fn operations() -> BTreeMap<(&'static str, &'static str), u64> {
    let names: Vec<_> = Kind::CODES.iter().chain(&SUCCESSES).collect();
    let mut all = BTreeMap::new();
    for (route, requests) in ROUTES.iter().zip(&REQUESTS).filter(|(route, _)| route.path.starts_with("/api/")) {
        for (at, count) in requests.outcomes.iter().enumerate() {
            if FROM_THE_BEGINNING.contains(&at) || count.get() > 0 {
                *all.entry((route.operation.name(), *names[at])).or_default() += count.get();
            }
        }
    }
    all
}

/// That of the routes are known: a client can make one up.
fn method(route: &Route) -> &'static str {
    match route.method.as_str() {
        "POST" => "POST",
        "PUT" => "PUT",
        _ => "GET",
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_answer_is_counted() {
        let kinds = Kind::ALL.iter().map(|(kind, _)| kind.status().as_u16());
        let expected: BTreeSet<_> = kinds.chain([200, 204]).collect();
        assert_eq!(BTreeSet::from(STATUSES), expected);
        assert_eq!(STATUSES.map(|status| status.to_string()), STATUS_NAMES);
        for (number, (kind, _)) in Kind::ALL.iter().enumerate() {
            assert_eq!((*kind as usize, Kind::CODES[number]), (number, kind.code()));
        }
        for (number, route) in ROUTES.iter().enumerate() {
            assert_eq!((route.operation as usize, method(route)), (number, route.method.as_str()));
        }
    }
}
