//! Limits how much of Redis and of this process reads may take. Sales come first: with any number of readers, a hold
//! finds Redis free most of the time.
//!
//! A small read is one look of some 20 us. Each thread has one in progress at a time, and they pause in between while
//! there are sales. A large read is a series of calls, its pages. Of all large reads of the process, one page is in
//! progress, and the pause after it is longer than the page took. A waiting read costs nothing. A read that waits too
//! long is refused.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{Mutex, MutexGuard, Semaphore, SemaphorePermit};
use tokio::time::{Instant, sleep_until, timeout};

use super::Error;

/// Large reads in progress in a process. They take turns at their pages, so more would only be slower and use memory.
const LARGE: usize = 4;

/// How long a read waits for its place. An immediate refusal would not help: the client would retry at once, and a
/// thousand such clients keep a server busy with refusals.
const MAX_WAIT: Duration = Duration::from_millis(250);

/// The pause after a page, as a multiple of the time that the page took.
const REST_OF_PAGES: u32 = 3;

/// The same for small reads, while there are sales.
const REST_OF_SMALL: u32 = 2;

/// The read time, pauses included, that an idle process has saved up: its first read is not delayed.
const SAVED: Duration = Duration::from_millis(10);

/// How long after a sale, in milliseconds, another sale is expected.
const SELLING_MS: u64 = 100;

/// The limits that all engines of a process share.
pub(super) struct Gate {
    large: Semaphore,
    pages: Turns,
    opened: Instant,
    /// Milliseconds after `opened` of the last sale; initially 0, as if there had been a sale at that time.
    sold: AtomicU64,
}

impl Default for Gate {
    fn default() -> Self {
        let (large, pages) = (Semaphore::new(LARGE), Turns::default());
        Self { large, pages, opened: Instant::now(), sold: AtomicU64::new(0) }
    }
}

impl Gate {
    /// A place for a large read.
    pub(super) async fn large(&self) -> Result<SemaphorePermit<'_>, Error> {
        // No timer is needed when there is a place.
        if let Ok(place) = self.large.try_acquire() {
            return Ok(place);
        }
        let place = timeout(MAX_WAIT, self.large.acquire()).await.map_err(|_| Error::Busy)?;
        Ok(place.expect("the places are never closed"))
    }

    /// Lets one page be read, when its turn comes.
    pub(super) async fn page<T>(&self, read: impl Future<Output = T>) -> T {
        let _turn = Turn::begin(self.pages.0.lock().await, REST_OF_PAGES).await;
        read.await
    }

    /// Records a sale: reads slow down.
    pub(super) fn sells(&self) {
        self.sold.store(self.now_ms(), Ordering::Relaxed);
    }

    fn is_selling(&self) -> bool {
        self.now_ms() < self.sold.load(Ordering::Relaxed) + SELLING_MS
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// The small reads of one engine, which is one thread.
#[derive(Default)]
pub(super) struct SmallReads(Turns);

impl SmallReads {
    /// The turn of a small read.
    pub(super) async fn turn(&self, gate: &Gate) -> Result<Turn<'_>, Error> {
        let next = match self.0.0.try_lock() {
            Ok(next) => next,
            Err(_) => timeout(MAX_WAIT, self.0.0.lock()).await.map_err(|_| Error::Busy)?,
        };
        Ok(Turn::begin(next, if gate.is_selling() { REST_OF_SMALL } else { 0 }).await)
    }
}

/// When the next read may begin. One reader has it at a time.
struct Turns(Mutex<Instant>);

impl Default for Turns {
    fn default() -> Self {
        Self(Mutex::new(Instant::now()))
    }
}

/// A reader's turn. The time it took is also counted when it is dropped early.
pub(super) struct Turn<'a> {
    next: MutexGuard<'a, Instant>,
    started: Instant,
    rest: u32,
}

impl<'a> Turn<'a> {
    async fn begin(next: MutexGuard<'a, Instant>, rest: u32) -> Self {
        if rest > 0 && *next > Instant::now() {
            sleep_until(*next).await;
        }
        Self { next, started: Instant::now(), rest }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let earliest = self.started.checked_sub(SAVED).unwrap_or(self.started);
        *self.next = (*self.next).max(earliest) + self.started.elapsed() * (1 + self.rest);
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
    async fn one_small_read_is_under_way_and_the_next_is_refused() {
        let (gate, small) = (Gate::default(), SmallReads::default());
        let turn = small.turn(&gate).await;
        assert!(matches!(small.turn(&gate).await, Err(Error::Busy)));
        drop(turn);
        assert!(small.turn(&gate).await.is_ok());
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
