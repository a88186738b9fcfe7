//! How long a connection may take for its next step: to begin a request while it is idle, and to send its head once that has
//! begun. hyper has one clock for both, which would be too short for the one or too long for the other.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Poll, ready};
use std::time::Duration;

use hyper::header::{CONNECTION, HeaderName, HeaderValue};
use hyper::{Request, Version};
use tokio::time::{Instant, sleep_until};

use super::HEADER_READ_TIMEOUT;

/// Longer than was said: a request that is sent in the last moment is on its way for a while.
const GRACE: Duration = Duration::from_secs(1);

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");

/// No time is set while a request is being answered.
const NONE: u64 = u64::MAX;

/// Where a connection stands. It is asked and told by the one task that serves the connection.
pub(super) struct Pace {
    opened: Instant,
    keep_alive: Duration,
    /// When the next step is due, in milliseconds after `opened`.
    due_ms: AtomicU64,
    /// What clients are told of `keep_alive`.
    promise: HeaderValue,
    /// A request, or its head at least, is on its way: more bytes are no news.
    has_begun: AtomicBool,
}

impl Pace {
    /// Of a connection that was opened just now: it was opened for a request.
    pub(super) fn new(keep_alive: Duration) -> Self {
        let (due_ms, has_begun) = (AtomicU64::new(ms(HEADER_READ_TIMEOUT)), AtomicBool::new(true));
        let promise =
            HeaderValue::try_from(format!("timeout={}", keep_alive.as_secs())).expect("a number is plain text");
        Self { opened: Instant::now(), keep_alive: keep_alive + GRACE, promise, due_ms, has_begun }
    }

    /// How long the connection will be kept for another request, if this one does not say that there will be none.
    pub(super) fn promise<B>(&self, request: &Request<B>) -> Option<(HeaderName, HeaderValue)> {
        let values = request.headers().get_all(CONNECTION).iter();
        let mut options = values.flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
        let is_last = request.version() != Version::HTTP_11
            || options.any(|option| option.trim_ascii().eq_ignore_ascii_case(b"close"));
        (!is_last).then(|| (KEEP_ALIVE, self.promise.clone()))
    }

    /// Bytes came.
    pub(super) fn received(&self) {
        if !self.has_begun.swap(true, Ordering::Relaxed) {
            self.set_due(HEADER_READ_TIMEOUT);
        }
    }

    /// Bytes went. An idle connection is idle since it took the last of its answer.
    pub(super) fn sent(&self) {
        if !self.has_begun.load(Ordering::Relaxed) {
            self.set_due(self.keep_alive);
        }
    }

    /// The head of a request is there. How long the rest may take is decided by those who wait for it.
    pub(super) fn asked(&self) {
        self.has_begun.store(true, Ordering::Relaxed);
        self.due_ms.store(NONE, Ordering::Relaxed);
    }

    /// There is an answer, which will be sent.
    pub(super) fn answered(&self) {
        self.has_begun.store(false, Ordering::Relaxed);
    }

    /// When the next step is overdue. To be polled after whatever changes this pace, in the same task.
    pub(super) async fn overdue(&self) {
        let mut alarm = pin!(sleep_until(self.opened + HEADER_READ_TIMEOUT));
        poll_fn(|context| {
            loop {
                // What sets a time polls this again.
                let Some(due) = self.due() else { return Poll::Pending };
                if due < alarm.deadline() {
                    alarm.as_mut().reset(due);
                }
                ready!(alarm.as_mut().poll(context));
                // Set for what was done in time since then.
                if due <= alarm.deadline() {
                    return Poll::Ready(());
                }
                alarm.as_mut().reset(due);
            }
        })
        .await;
    }

    fn due(&self) -> Option<Instant> {
        let due_ms = self.due_ms.load(Ordering::Relaxed);
        (due_ms != NONE).then(|| self.opened + Duration::from_millis(due_ms))
    }

    fn set_due(&self, after: Duration) {
        self.due_ms.store(ms(self.opened.elapsed() + after), Ordering::Relaxed);
    }
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(NONE - 1)
}
