//! A real Redis Cluster: calls find their node, whatever happens to it, and none is executed twice; and a shop on it.

mod compatibility;
mod failing;
mod market;
mod members;
mod moving;
mod playground;
mod routing;
mod scripts;
mod serving;
mod shop;
mod users;

#[path = "../support/mod.rs"]
mod support;
