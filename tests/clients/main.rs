//! The examples of `clients/`, run as their users run them: with the real client libraries, on a real server.

#[path = "../support/mod.rs"]
mod support;

mod cluster;
mod fleet;
mod install;
mod words;
