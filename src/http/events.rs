//! Live events: `text/event-stream` as browsers read it
//! (<https://html.spec.whatwg.org/multipage/server-sent-events.html>).
//!
//! A listener that comes back says the last id that it has seen. It first gets from the audit what it missed, and then
//! joins the [`Feed`], which everybody hears.

mod feed;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::stream::{self, Stream};
use hyper::body::Bytes;
use tokio::time::{Instant, sleep_until};
use tracing::debug;

use super::catalogue::Kind;
use super::problem::Problem;
use crate::engine::{Error, EventPlace, Follower};
use crate::keys::{Invalid, Sku};

pub(super) use feed::Feed;
use feed::{Batch, Heard, Seat};

/// A silent stream says something this often: proxies close what is silent.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// After how many milliseconds a browser should come back.
const RETRY_MS: u16 = 1000;

/// Events of each shard that are read at once for a listener that comes back.
const MISSED_AT_ONCE: usize = 200;

/// A stream of events, as it is sent. Boxed: it is rare, and every answer reserves space for it.
pub struct Events(Pin<Box<dyn Stream<Item = Bytes> + Send>>);

impl Events {
    /// Begins a stream of the events of a SKU, or of all: after the event whose id is `last`, or with what happens from
    /// now on. It ends when `gone` completes.
    ///
    /// # Errors
    /// 400 when `last` is no id, 410 when events after it may have been trimmed, 503 when there are too many listeners.
    pub(super) async fn begin(
        feed: Arc<Feed>,
        sku: Option<Sku>,
        last: Option<&str>,
        gone: impl Future<Output = ()> + Send + 'static,
    ) -> Result<Self, Problem> {
        const LAST: Invalid = Invalid { field: "Last-Event-ID", rule: "must be the id of an event" };
        let engine = feed.engine();
        let last = last.map(|text| EventPlace::parse(engine.layout(), text).ok_or(LAST)).transpose()?;
        let seat = feed.seat()?;
        if let Some(last) = last
            && engine.may_have_trimmed_after(last).await?
        {
            let detail = "the audit may no longer have all events after this one: read the state, and begin anew";
            return Err(Problem::new(Kind::EventsTrimmed, detail));
        }
        let heard = feed.join().await?;
        let from = last.unwrap_or(heard.from);
        let listener = Listener {
            missed: (from < heard.from).then(|| engine.follow(from)),
            opening: Some(format!("retry: {RETRY_MS}\nid: {from}\n\n").into()),
            heartbeat_at: Instant::now() + HEARTBEAT,
            gone: Box::pin(gone),
            seen: from,
            feed,
            heard,
            sku,
            _seat: seat,
        };
        Ok(Self(Box::pin(stream::unfold(listener, async |mut listener| {
            let bytes = listener.next().await?;
            listener.heartbeat_at = Instant::now() + HEARTBEAT;
            Some((bytes, listener))
        }))))
    }

    pub(super) fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        self.0.as_mut().poll_next(context)
    }
}

/// One client that listens.
struct Listener {
    feed: Arc<Feed>,
    heard: Heard,
    sku: Option<Sku>,
    opening: Option<Bytes>,
    /// Reads what happened before it joined.
    missed: Option<Follower>,
    /// Where it began: another server may be ahead of this one, and has told it more.
    seen: EventPlace,
    heartbeat_at: Instant,
    gone: Pin<Box<dyn Future<Output = ()> + Send>>,
    _seat: Seat,
}

impl Listener {
    /// What is sent next; `None` at the end.
    async fn next(&mut self) -> Option<Bytes> {
        if let Some(opening) = self.opening.take() {
            return Some(opening);
        }
        while let Some(mut follower) = self.missed.take() {
            let (batch, is_over) = self.catch_up(&mut follower).await?;
            if !is_over {
                // What comes meanwhile would be too much for the buffer.
                self.heard = self.feed.join().await.ok()?;
                self.missed = Some(follower);
            }
            if let Some(bytes) = batch.shown(self.sku.as_ref(), self.seen) {
                return Some(bytes);
            }
        }
        loop {
            tokio::select! {
                biased;
                () = &mut self.gone => return None,
                heard = self.heard.receiver.recv() => {
                    // It reads too slowly, or the server ends. It can come back.
                    let batch = heard.inspect_err(|why| debug!(%why, "a listener is cut off")).ok()?;
                    if let Some(bytes) = batch.shown(self.sku.as_ref(), self.seen) {
                        return Some(bytes);
                    }
                }
                () = sleep_until(self.heartbeat_at) => return Some(self.heartbeat()),
            }
        }
    }

    /// Reads a piece of what was missed; the second value is whether that was all. `None` when it cannot be read, or
    /// was trimmed meanwhile.
    async fn catch_up(&mut self, follower: &mut Follower) -> Option<(Batch, bool)> {
        let (engine, up_to) = (self.feed.engine(), self.heard.from);
        let read = async {
            let before = follower.done();
            let followed = engine.follow_on(follower, Some(up_to), MISSED_AT_ONCE).await?;
            Ok::<_, Error>((followed, engine.may_have_trimmed_after(before).await?))
        };
        let (followed, is_trimmed) = tokio::select! {
            biased;
            () = &mut self.gone => return None,
            read = Box::pin(read) => read.inspect_err(|error| debug!(%error, "a listener is cut off")).ok()?,
        };
        (!is_trimmed).then(|| (Batch::of(followed.events), follower.done() >= up_to))
    }

    /// A comment, and a place to come back to, which is later than the last event if others than those asked for
    /// happened.
    fn heartbeat(&self) -> Bytes {
        match self.feed.done_by(&self.heard).filter(|done| *done > self.seen) {
            Some(done) => format!(": \nid: {done}\n\n").into(),
            None => Bytes::from_static(b": \n\n"),
        }
    }
}
