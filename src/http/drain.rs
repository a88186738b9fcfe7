//! The end of a server that nobody notices: for a time it says that it is not ready, and still serves.

use std::sync::atomic::{AtomicBool, Ordering};

use super::metrics;

/// Whether the server has been told to end. Load balancers learn it from `/readyz`, and clients from `Connection: close`.
#[derive(Debug, Default)]
pub struct Drain {
    is_draining: AtomicBool,
}

impl Drain {
    /// From now on the server is not ready, and each answer is the last one of its connection. All requests are still
    /// served, also those of new connections.
    pub fn start(&self) {
        self.is_draining.store(true, Ordering::Relaxed);
        metrics::DRAINING.set(1);
    }

    /// Whether [`Self::start`] was called.
    pub(super) fn is_draining(&self) -> bool {
        self.is_draining.load(Ordering::Relaxed)
    }
}
