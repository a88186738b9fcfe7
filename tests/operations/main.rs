//! What the people who operate it rely on, with the tools that they use: HAProxy and Prometheus.

mod backup;
mod kubernetes;
mod logs;
mod manners;
mod metrics;
mod rollout;
mod tool;
mod unfit;

#[path = "../support/mod.rs"]
mod support;
