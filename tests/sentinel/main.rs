//! A master that sentinels name: what was acknowledged survives its end, and nobody is sold what is not there.
//!
//! Each test has its own master, two replicas and three sentinels.

mod fail_over;
mod market;
mod playground;
mod refused;
mod stale;

#[path = "../support/mod.rs"]
mod support;
