//! One line for each request, under a name of its own: requests can be logged without everything else at this level.
//!
//! It tells which operation was asked for, and not for what: no SKU, no cart, no id of a reservation, nothing of a query
//! and no token.

use std::time::Instant;

use hyper::Method;
use tracing::{debug, enabled};

use super::routes::Route;

/// The part of the program that filters of the log name.
const TARGET: &str = "stockhold::access";

/// What is known of a request before it is carried out.
pub(super) struct AccessLog {
    method: &'static str,
    route: &'static str,
}

impl AccessLog {
    /// The beginning of a line; `None` when no lines are wanted. Without a route nothing is known that is safe to log.
    pub(super) fn begin(method: &Method, route: Option<&Route>) -> Option<Self> {
        enabled!(target: TARGET, tracing::Level::DEBUG)
            .then(|| Self { method: known(method), route: route.map_or("unknown", |route| route.path) })
    }

    /// Logs the line. The code is that of a problem.
    pub(super) fn end(self, id: &str, status: u16, code: Option<&str>, started: Instant) {
        let Self { method, route } = self;
        let elapsed_ms = (started.elapsed().as_secs_f64() * 1e6).round() / 1e3;
        debug!(target: TARGET, id, method, route, status, code, elapsed_ms, "request");
    }
}

/// The line of what hyper could not parse.
pub(super) fn unparsed(id: &str, status: u16, code: &str) {
    debug!(target: TARGET, id, status, code, "no request");
}

/// A client may make up a method, of any length.
fn known(method: &Method) -> &'static str {
    const KNOWN: [&str; 9] = ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT"];
    KNOWN.into_iter().find(|name| *name == method.as_str()).unwrap_or("unknown")
}
