//! What the people who operate it rely on, with the tools that they use: HAProxy.

mod logs;
mod rollout;
mod tool;

#[path = "../support/mod.rs"]
mod support;
