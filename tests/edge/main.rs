//! The edge of the HTTP server: crowds, slow and greedy clients, and bytes that are no requests.
//!
//! `EDGE_CASES` says how many requests are made up, `EDGE_SEED` which.

#[path = "../support/mod.rs"]
mod support;

mod crowd;
mod garbage;
mod greed;
mod made_up;
mod refused;
mod wire;
