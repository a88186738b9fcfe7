//! How much reads may take of Redis and of this process. Sales come first: whoever reads, and however much, a hold finds
//! Redis free for most of the time.
//!
//! A small read is one call of some 20 us; few of them are under way on a thread at a time. A large read is a series of
//! calls, its pages; of all large reads of the process one page is under way, and after it they rest for longer than it
//! took. Who waits costs nothing; who waits for too long is refused.

use std::time::Duration;

use tokio::sync::{Mutex, MutexGuard, Semaphore, SemaphorePermit};
use tokio::time::{Instant, sleep_until, timeout};

use super::Error;

/// Small reads under way on a thread. One more for each of them waits, and takes no part of the thread's time.
const SMALL: usize = 2;

/// Large reads under way in a process. They take turns at their pages, so more would only be slower, and take memory.
const LARGE: usize = 4;

/// How long a read waits for its place. A refusal at once would not help: the client would be back at once, and a
/// thousand of those keep a server busy with nothing but refusals.
const MAX_WAIT: Duration = Duration::from_millis(250);

/// Times as long as a page took that passes before the next one.
const REST: u32 = 2;

/// Time for pages, rests included, that an idle process has saved up: a first read is not held up.
const SAVED: Duration = Duration::from_millis(10);

/// The limits that all engines of a process share.
pub(super) struct Gate {
    large: Semaphore,
    /// When the next page may be read.
    next: Mutex<Instant>,
}

impl Default for Gate {
    fn default() -> Self {
        Self { large: Semaphore::new(LARGE), next: Mutex::new(Instant::now()) }
    }
}

impl Gate {
    /// A place for a large read.
    pub(super) async fn large(&self) -> Result<SemaphorePermit<'_>, Error> {
        place(&self.large).await
    }

    /// Lets one page be read, in its turn.
    pub(super) async fn page<T>(&self, read: impl Future<Output = T>) -> T {
        let next = self.next.lock().await;
        if *next > Instant::now() {
            sleep_until(*next).await;
        }
        let _turn = Turn { next, started: Instant::now() };
        read.await
    }
}

/// Who reads a page. What it took is counted also when the reader is dropped in the middle.
struct Turn<'a> {
    next: MutexGuard<'a, Instant>,
    started: Instant,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let earliest = self.started.checked_sub(SAVED).unwrap_or(self.started);
        *self.next = (*self.next).max(earliest) + self.started.elapsed() * (1 + REST);
    }
}

/// The places for small reads of one engine, which is one thread.
pub(super) struct SmallReads(Semaphore);

impl Default for SmallReads {
    fn default() -> Self {
        Self(Semaphore::new(SMALL))
    }
}

impl SmallReads {
    /// A place for a small read.
    pub(super) async fn place(&self) -> Result<SemaphorePermit<'_>, Error> {
        place(&self.0).await
    }
}

async fn place(places: &Semaphore) -> Result<SemaphorePermit<'_>, Error> {
    // Without a timer where there is a place.
    if let Ok(place) = places.try_acquire() {
        return Ok(place);
    }
    match timeout(MAX_WAIT, places.acquire()).await {
        Ok(place) => Ok(place.expect("the places are never closed")),
        Err(_) => Err(Error::Busy),
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn there_is_a_place_for_few_and_the_next_is_refused() {
        let gate = Gate::default();
        let places = futures_util::future::join_all((0..LARGE).map(|_| gate.large())).await;
        assert!(places.iter().all(Result::is_ok));
        assert!(matches!(gate.large().await, Err(Error::Busy)));
        drop(places);
        assert!(gate.large().await.is_ok());
    }

    #[tokio::test]
    async fn one_page_is_read_at_a_time_and_one_that_is_dropped_ends_its_turn() {
        let gate = Gate::default();
        let mut first = Box::pin(gate.page(std::future::pending::<()>()));
        assert!(first.as_mut().now_or_never().is_none());
        let mut second = Box::pin(gate.page(async {}));
        assert!(second.as_mut().now_or_never().is_none(), "two at a time");
        drop(first);
        second.await;
    }
}
