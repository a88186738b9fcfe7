//! How much reads may take of Redis and of this process. Sales come first: whoever reads, and however much, a hold finds
//! Redis free for most of the time.
//!
//! A small read is one look of some 20 us; on each thread one is under way at a time, and while there are sales they rest
//! in between. A large read is a series of calls, its pages; of all large reads of the process one page is under way, and
//! after it they rest for longer than it took. Who waits costs nothing; who waits for too long is refused.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{Mutex, MutexGuard, Semaphore, SemaphorePermit};
use tokio::time::{Instant, sleep_until, timeout};

use super::Error;

/// Large reads under way in a process. They take turns at their pages, so more would only be slower, and take memory.
const LARGE: usize = 4;

/// How long a read waits for its place. A refusal at once would not help: the client would be back at once, and a
/// thousand of those keep a server busy with nothing but refusals.
const MAX_WAIT: Duration = Duration::from_millis(250);

/// Times as long as a page took that passes before the next one.
const REST_OF_PAGES: u32 = 3;

/// The same for small reads, while there are sales.
const REST_OF_SMALL: u32 = 2;

/// Time for reads, rests included, that an idle process has saved up: a first read is not held up.
const SAVED: Duration = Duration::from_millis(10);

/// How long after a sale, in milliseconds, it is taken that there will be another.
const SELLING_MS: u64 = 100;

/// The limits that all engines of a process share.
pub(super) struct Gate {
    large: Semaphore,
    pages: Turns,
    opened: Instant,
    /// Milliseconds after `opened` of the last sale; at first 0, as if there had been one.
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
        // Without a timer where there is a place.
        if let Ok(place) = self.large.try_acquire() {
            return Ok(place);
        }
        let place = timeout(MAX_WAIT, self.large.acquire()).await.map_err(|_| Error::Busy)?;
        Ok(place.expect("the places are never closed"))
    }

    /// Lets one page be read, in its turn.
    pub(super) async fn page<T>(&self, read: impl Future<Output = T>) -> T {
        let _turn = Turn::begin(self.pages.0.lock().await, REST_OF_PAGES).await;
        read.await
    }

    /// Something is sold: reads make room.
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
    /// The turn for a small read.
    pub(super) async fn turn(&self, gate: &Gate) -> Result<Turn<'_>, Error> {
        let next = match self.0.0.try_lock() {
            Ok(next) => next,
            Err(_) => timeout(MAX_WAIT, self.0.0.lock()).await.map_err(|_| Error::Busy)?,
        };
        Ok(Turn::begin(next, if gate.is_selling() { REST_OF_SMALL } else { 0 }).await)
    }
}

/// When the next one may begin. One has it at a time.
struct Turns(Mutex<Instant>);

impl Default for Turns {
    fn default() -> Self {
        Self(Mutex::new(Instant::now()))
    }
}

/// Who reads. What it took is counted also when the reader is dropped in the middle.
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
