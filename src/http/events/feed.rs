//! The one reader of all events, for any number of listeners. It reads while somebody listens.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hyper::body::Bytes;
use tokio::sync::broadcast::{self, Receiver, Sender};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep};
use tracing::{info, warn};

use crate::engine::{Engine, Error, Event, EventPlace, Followed};
use crate::http::{MAX_LISTENERS, json, metrics};
use crate::keys::Sku;

/// The pause between two reads, and how much longer it is for each shard.
const PAUSE: Duration = Duration::from_millis(100);
const PAUSE_OF_SHARD: Duration = Duration::from_micros(100);

/// Events that one read takes at most, of all shards together, unless there are very many shards.
const AT_ONCE: usize = 1000;
const AT_ONCE_OF_SHARD: usize = 50;

/// The pause after a read that left something, as a multiple of its time, and at least.
const REST: u32 = 2;
const SHORTEST_REST: Duration = Duration::from_millis(20);

/// Reads with events that a listener may be late: 13 s, or less while there is too much for one read. One that is later is
/// cut off.
const BUFFER: usize = 128;

/// Listeners are told in groups, with a pause after each: so that many do not delay the sales in between.
const GROUPS: usize = 32;
const PAUSE_OF_GROUP: Duration = Duration::from_millis(2);

/// How long a listener waits for the first read, and how often it looks.
const FIRST_READ: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(5);

/// Reads events, and passes them on.
pub(in crate::http) struct Feed {
    engine: Engine,
    groups: Vec<Mutex<State>>,
    next_group: AtomicUsize,
    wake: Notify,
    seats: Arc<Semaphore>,
}

/// A group of listeners.
struct State {
    /// `None` when the server ends.
    sender: Option<Sender<Arc<Batch>>>,
    /// Up to where everything was passed on; `None` while nothing is read.
    done: Option<EventPlace>,
}

/// What a listener hears of the feed.
pub(super) struct Heard {
    pub(super) receiver: Receiver<Arc<Batch>>,
    group: usize,
    /// It hears what is after this.
    pub(super) from: EventPlace,
}

impl Feed {
    pub(in crate::http) fn new(engine: Engine) -> Self {
        let group = || Mutex::new(State { sender: Some(broadcast::channel(BUFFER).0), done: None });
        let (groups, next_group) = ((0..GROUPS).map(|_| group()).collect(), AtomicUsize::new(0));
        Self { engine, groups, next_group, wake: Notify::new(), seats: Arc::new(Semaphore::new(MAX_LISTENERS)) }
    }

    pub(super) fn engine(&self) -> &Engine {
        &self.engine
    }

    /// A place for one more listener.
    ///
    /// # Errors
    /// [`Error::Busy`] when there is none.
    pub(super) fn seat(&self) -> Result<Seat, Error> {
        let permit = Arc::clone(&self.seats).try_acquire_owned().map_err(|_| Error::Busy)?;
        metrics::LISTENERS.add(1);
        Ok(Seat { _permit: permit })
    }

    /// Begins to listen.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when Redis cannot be read, or the server ends.
    pub(super) async fn join(&self) -> Result<Heard, Error> {
        let deadline = Instant::now() + FIRST_READ;
        let group = self.next_group.fetch_add(1, Ordering::Relaxed) % GROUPS;
        let mut receiver = None;
        while Instant::now() < deadline {
            {
                let state = lock(&self.groups[group]);
                let Some(sender) = &state.sender else { break };
                // In this order and under the lock: what is sent next is after `done`.
                let subscribed = sender.subscribe();
                if let Some(from) = state.done {
                    return Ok(Heard { receiver: subscribed, group, from });
                }
                receiver.get_or_insert(subscribed);
            }
            self.wake.notify_one();
            sleep(LOOK).await;
        }
        drop(receiver);
        Err(Error::Unavailable("events cannot be read now".to_owned()))
    }

    /// Up to where a listener has heard everything, if that is known.
    pub(super) fn done_by(&self, heard: &Heard) -> Option<EventPlace> {
        let state = lock(&self.groups[heard.group]);
        state.done.filter(|_| heard.receiver.is_empty())
    }

    /// Ends all streams, and lets none begin.
    pub(in crate::http) fn end(&self) {
        self.groups.iter().for_each(|group| lock(group).sender = None);
    }

    /// Reads while somebody listens.
    pub(in crate::http) async fn run(&self) {
        loop {
            self.wake.notified().await;
            Box::pin(self.read()).await;
        }
    }

    /// Reads until nobody listens.
    async fn read(&self) {
        let shards = self.engine.layout().shards().len();
        let interval = PAUSE + PAUSE_OF_SHARD * u32::try_from(shards).unwrap_or(u32::MAX);
        let count = (AT_ONCE / shards).max(AT_ONCE_OF_SHARD);
        let (mut follower, mut fails) = (None, false);
        while self.is_heard() {
            let started = Instant::now();
            let read = async {
                match &mut follower {
                    None => Ok((follower.insert(self.engine.follow_from_now().await?).done(), Followed::default())),
                    Some(follower) => {
                        let followed = self.engine.follow_on(follower, None, count).await?;
                        Ok::<_, Error>((follower.done(), followed))
                    }
                }
            };
            let is_behind = match read.await {
                Ok((done, followed)) => {
                    if std::mem::take(&mut fails) {
                        info!("events are read again");
                    }
                    let is_behind = followed.is_behind;
                    self.pass_on(followed, done).await;
                    is_behind
                }
                Err(error) => {
                    if !std::mem::replace(&mut fails, true) {
                        warn!(%error, "cannot read events");
                    }
                    false
                }
            };
            sleep(if is_behind { (started.elapsed() * REST).max(SHORTEST_REST) } else { interval }).await;
        }
    }

    /// Whether somebody listens. A group in which nobody does begins anew with its next listener.
    fn is_heard(&self) -> bool {
        let mut heard = false;
        for group in &self.groups {
            let mut state = lock(group);
            if state.sender.as_ref().is_some_and(|sender| sender.receiver_count() > 0) {
                heard = true;
            } else {
                state.done = None;
            }
        }
        heard
    }

    async fn pass_on(&self, followed: Followed, done: EventPlace) {
        let batch = (!followed.events.is_empty()).then(|| Arc::new(Batch::of(followed.events)));
        for group in &self.groups {
            let is_told = {
                let mut state = lock(group);
                state.done = Some(done);
                // It fails when nobody listens in this group.
                batch.as_ref().is_some_and(|batch| {
                    state.sender.as_ref().is_some_and(|sender| sender.send(Arc::clone(batch)).is_ok())
                })
            };
            if is_told {
                sleep(PAUSE_OF_GROUP).await;
            }
        }
    }
}

fn lock(group: &Mutex<State>) -> MutexGuard<'_, State> {
    group.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Some events in a row, as they are sent.
pub(super) struct Batch {
    bytes: Bytes,
    each: Vec<(Range<usize>, Option<EventPlace>, String)>,
}

impl Batch {
    /// The text of events. One without a place comes late: its id would lead a client back to what it has seen.
    pub(super) fn of(events: Vec<(Option<EventPlace>, Event)>) -> Self {
        let (mut text, mut each) = (String::new(), Vec::with_capacity(events.len()));
        for (place, event) in events {
            let start = text.len();
            if place.is_some() {
                text.push_str(&format!("id: {}\n", event.id));
            }
            let shown = serde_json::to_string(&json::event(&event)).expect("what is shown has text for keys");
            text.push_str(&format!("event: {}\ndata: {shown}\n\n", event.event.as_str()));
            each.push((start..text.len(), place, event.sku));
        }
        Self { bytes: text.into(), each }
    }

    /// Those of a SKU, or of all, without those up to a place; `None` when there are none.
    pub(super) fn shown(&self, sku: Option<&Sku>, seen: EventPlace) -> Option<Bytes> {
        let is_new = |place: &Option<EventPlace>| place.is_none_or(|place| place > seen);
        if sku.is_none() && self.each.iter().all(|(_, place, _)| is_new(place)) {
            return (!self.bytes.is_empty()).then(|| self.bytes.clone());
        }
        let is_asked_for = |of: &str| sku.is_none_or(|sku| sku.as_str() == of);
        let asked_for = self.each.iter().filter(|(_, place, of)| is_new(place) && is_asked_for(of));
        let mut shown = asked_for.map(|(range, _, _)| self.bytes.slice(range.clone()));
        let first = shown.next()?;
        match shown.next() {
            None => Some(first),
            Some(second) => Some([first, second].into_iter().chain(shown).flatten().collect()),
        }
    }
}

/// A listener's share of the limit, returned on drop.
pub(super) struct Seat {
    _permit: OwnedSemaphorePermit,
}

impl Drop for Seat {
    fn drop(&mut self) {
        metrics::LISTENERS.add(-1);
    }
}
