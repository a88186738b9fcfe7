//! How long a connection may take for its next step: to begin a request while it is idle, and to send the head of a
//! request that has begun. hyper has one timeout for both, which is too short for the first or too long for the
//! second.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Poll, ready};
use std::time::Duration;

use hyper::header::{CONNECTION, HeaderName, HeaderValue};
use hyper::{Request, Version};
use tokio::time::{Instant, sleep_until};

use super::{HEADER_READ_TIMEOUT, LINGER_TIMEOUT};

/// An idle connection is kept this much longer than announced, because a request sent at the last moment needs time to
/// arrive.
const KEEP_ALIVE_GRACE: Duration = Duration::from_secs(1);

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");

/// No deadline: a request is being answered.
const NONE: u64 = u64::MAX;

/// The deadline of one connection. It is used by the one task that serves the connection.
pub(super) struct Deadline {
    opened: Instant,
    keep_alive: Duration,
    /// When the next step is due, in milliseconds after `opened`.
    due_ms: AtomicU64,
    /// The value of `keep_alive` that clients are told.
    keep_alive_value: HeaderValue,
    /// The first bytes of a request were received: more bytes do not move the deadline.
    has_begun: AtomicBool,
}

impl Deadline {
    /// For a new connection: its first request is due.
    pub(super) fn new(keep_alive: Duration) -> Self {
        let (due_ms, has_begun) = (AtomicU64::new(ms(HEADER_READ_TIMEOUT)), AtomicBool::new(true));
        let keep_alive_value =
            HeaderValue::try_from(format!("timeout={}", keep_alive.as_secs())).expect("a number is plain text");
        let (opened, keep_alive) = (Instant::now(), keep_alive + KEEP_ALIVE_GRACE);
        Self { opened, keep_alive, due_ms, keep_alive_value, has_begun }
    }

    /// The header that tells how long the connection is kept for another request, unless this request is the last.
    pub(super) fn keep_alive_header<B>(&self, request: &Request<B>) -> Option<(HeaderName, HeaderValue)> {
        let values = request.headers().get_all(CONNECTION).iter();
        let mut options = values.flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
        let is_last = request.version() != Version::HTTP_11
            || options.any(|option| option.trim_ascii().eq_ignore_ascii_case(b"close"));
        (!is_last).then(|| (KEEP_ALIVE, self.keep_alive_value.clone()))
    }

    /// Bytes were received.
    pub(super) fn received(&self) {
        if !self.has_begun.swap(true, Ordering::Relaxed) {
            self.set_due(HEADER_READ_TIMEOUT);
        }
    }

    /// Bytes were sent. A connection is idle from the last bytes of its answer.
    pub(super) fn sent(&self) {
        if !self.has_begun.load(Ordering::Relaxed) {
            self.set_due(self.keep_alive);
        }
    }

    /// The whole head was received. The rest of the request has a separate timeout.
    pub(super) fn request_started(&self) {
        self.has_begun.store(true, Ordering::Relaxed);
        self.due_ms.store(NONE, Ordering::Relaxed);
    }

    /// An answer is ready to be sent.
    pub(super) fn answered(&self) {
        self.has_begun.store(false, Ordering::Relaxed);
    }

    /// Everything is answered, and what the client still sends is discarded.
    pub(super) fn lingers(&self) {
        self.has_begun.store(true, Ordering::Relaxed);
        self.set_due(LINGER_TIMEOUT);
    }

    /// Completes when the next step is overdue. Poll it after everything that moves this deadline, in the same task.
    pub(super) async fn passed(&self) {
        let mut alarm = pin!(sleep_until(self.opened + HEADER_READ_TIMEOUT));
        poll_fn(|context| {
            loop {
                // The code that sets a deadline polls this again.
                let Some(due) = self.due() else { return Poll::Pending };
                if due < alarm.deadline() {
                    alarm.as_mut().reset(due);
                }
                ready!(alarm.as_mut().poll(context));
                // The alarm was set for a step that finished in time.
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
