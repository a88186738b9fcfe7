//! What is counted of the calls to Redis.

use std::fmt;
use std::time::Duration;

use super::Failure;
use crate::metrics::{Counter, Exposition, Times};

static CALLS: [Counter; 4] = [const { Counter::new() }; 4];
const OUTCOMES: [&str; 4] = ["answered", "refused", "unreachable", "no_reply"];
static CALL_TIMES: Times = Times::of_seconds();
static CONNECTIONS_OPENED: Counter = Counter::new();
static CONNECTIONS_FAILED: Counter = Counter::new();

/// A call has ended.
pub(super) fn called<T>(outcome: &Result<T, Failure>, time: Duration) {
    let outcome = match outcome {
        Ok(_) | Err(Failure::Malformed(_)) => 0,
        Err(Failure::Refused { .. }) => 1,
        Err(Failure::Unreachable(_) | Failure::Barred(_)) => 2,
        Err(Failure::NoReply(_)) => 3,
    };
    CALLS[outcome].inc();
    CALL_TIMES.record(time);
}

/// A connection was opened.
pub(super) fn opened<T>(_: &T) {
    CONNECTIONS_OPENED.inc();
}

/// An attempt to connect failed.
pub(super) fn failed(_: &Failure) {
    CONNECTIONS_FAILED.inc();
}

pub(crate) fn expose(to: &mut Exposition) -> fmt::Result {
    let calls = OUTCOMES.iter().zip(&CALLS).map(|(outcome, count)| ([("outcome", *outcome)], count.get()));
    to.counters("stockhold_redis_calls", "Calls to Redis, by how they ended; a pipeline is one call.", calls)?;
    to.histogram("stockhold_redis_call_duration_seconds", "How long calls to Redis took.", &CALL_TIMES)?;
    let help = "Connections to Redis that were opened; more than at the start means that some were lost.";
    to.counter("stockhold_redis_connections_opened", help, &CONNECTIONS_OPENED)?;
    to.counter("stockhold_redis_connections_failed", "Attempts to connect to Redis that failed.", &CONNECTIONS_FAILED)
}
