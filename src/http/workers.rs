//! The threads that serve connections: one for each core, each with its own runtime.
//!
//! Everything that belongs to a connection stays on its thread: no work moves to another thread or wakes it.

use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{Builder, available_parallelism};

use tokio::runtime::{self, Handle};
use tokio::sync::oneshot;

/// Threads, each with its own responder.
pub struct Workers<R> {
    each: Vec<Worker<R>>,
    next: AtomicUsize,
}

struct Worker<R> {
    runtime: Handle,
    respond: R,
    /// The thread ends when this is dropped.
    _running: oneshot::Sender<()>,
}

impl<R: Clone> Workers<R> {
    /// Starts a thread for each core; `respond` creates its responder.
    ///
    /// # Errors
    /// When the system gives no more threads.
    pub fn start(respond: impl Fn() -> R) -> std::io::Result<Self> {
        let mut each = Vec::new();
        for number in 0..available_parallelism().map_or(1, usize::from) {
            let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
            let handle = runtime.handle().clone();
            let (running, stopped) = oneshot::channel::<()>();
            Builder::new().name(format!("worker-{number}")).spawn(move || drop(runtime.block_on(stopped)))?;
            each.push(Worker { runtime: handle, respond: respond(), _running: running });
        }
        Ok(Self { each, next: AtomicUsize::new(0) })
    }

    /// Runs `work` on the next thread in turn, with its responder.
    pub(super) fn spawn<F>(&self, work: impl FnOnce(R) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        let worker = &self.each[turn % self.each.len()];
        worker.runtime.spawn(work(worker.respond.clone()));
    }
}
