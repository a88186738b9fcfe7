//! The redis layer on a real Redis Cluster: calls find their node, whatever happens to it, and none is executed twice.

mod failing;
mod members;
mod moving;
mod routing;
mod scripts;
mod users;

#[path = "../support/mod.rs"]
mod support;
