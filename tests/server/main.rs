//! The program over HTTP, on real redis-servers: one module for each promise.

mod adjust;
mod auth;
mod cart_settling;
mod carts;
mod change;
mod cli;
mod compatibility;
mod durability;
mod events;
mod expiry;
mod extend;
mod group_commit;
mod idempotency;
mod input;
mod limits;
mod lists;
mod moves;
mod outage;
mod private;
mod races;
mod readiness;
mod reads;
mod returns;
mod rules;
mod scripts;
mod sell;
mod settings;
mod shards;
mod tls;
mod unix_socket;
mod walk;

#[path = "../support/mod.rs"]
mod support;
