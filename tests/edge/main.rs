//! The edge of the HTTP server: crowds, slow and greedy clients, and bytes that are not requests.
//!
//! `EDGE_CASES` sets the number of random requests, `EDGE_SEED` the seed.

#[path = "../support/mod.rs"]
mod support;

mod crowd;
mod garbage;
mod greed;
mod made_up;
mod refused;
mod wire;
