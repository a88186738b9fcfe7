//! What is counted of the scripts.

use std::fmt;

use crate::metrics::{Counter, Exposition};

/// Redis had lost the scripts.
pub(super) static RELOADS: Counter = Counter::new();
/// A change was made, and too few replicas had it in time.
pub(super) static REPLICA_SHORTAGES: Counter = Counter::new();

pub(crate) fn expose(to: &mut Exposition) -> fmt::Result {
    let help = "How often the scripts were loaded again because Redis had lost them.";
    to.counter("stockhold_script_reloads", help, &RELOADS)?;
    let help = "Changes that too few replicas confirmed in time (--durability wait:N).";
    to.counter("stockhold_replica_shortages", help, &REPLICA_SHORTAGES)
}
