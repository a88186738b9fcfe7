//! What the test binaries share.

// Each test binary compiles this module separately and uses only a part of it.
#![allow(dead_code)]

pub mod cluster;
pub mod events;
pub mod invariants;
pub mod keys;
pub mod playground;
pub mod redis_server;
pub mod sentinel;
pub mod snapshot;
pub mod stockhold;
pub mod tls;
