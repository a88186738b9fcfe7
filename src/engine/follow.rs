//! Events as they happen, oldest first: what is after a place in the audits of all shards.
//!
//! One shard has one order. Several are merged by their places, which are times of the Redis that has the shard: an event
//! is passed on when no shard can get an earlier one any more, because the clock of its Redis is past that time. So the
//! order is the same for every reader, and a place tells what came before it, in all shards. Clocks that differ only
//! delay events. If a clock is set back, or a replica whose clock is behind is promoted, an event may get a place that was passed: it
//! comes late, without a place.

use std::collections::BTreeMap;

use super::{Engine, Error, Event, EventPlace};
use crate::redis::entry_order;

/// How far the clock of a shard must be past an event, in milliseconds.
const PAST: u64 = 5;

/// A reader of events. It is after all events up to [`Self::done`].
pub struct Follower {
    done: EventPlace,
    /// Where the next read of each shard begins.
    next: Vec<String>,
    /// The time of each shard's Redis when it was last read, epoch milliseconds.
    clocks: Vec<u64>,
    /// What was read, and may be preceded by something that was not.
    waiting: BTreeMap<EventPlace, Event>,
}

/// What one read gave.
#[derive(Debug, Default)]
pub struct Followed {
    /// Events, the oldest first. The place of one that comes late is `None`.
    pub events: Vec<(Option<EventPlace>, Event)>,
    /// Whether more can be read at once.
    pub is_behind: bool,
}

impl Follower {
    /// What was passed on is up to here.
    pub fn done(&self) -> EventPlace {
        self.done
    }
}

impl Engine {
    /// A reader of what is after a place.
    pub fn follow(&self, after: EventPlace) -> Follower {
        let next: Vec<_> = self.layout.shards().iter().map(|shard| after.newer(shard.number)).collect();
        Follower { done: after, clocks: vec![0; next.len()], next, waiting: BTreeMap::new() }
    }

    /// A reader of what happens from now on.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn follow_from_now(&self) -> Result<Follower, Error> {
        let (shards, redis) = (self.layout.shards(), &self.reads.redis);
        let now = if self.layout.is_sharded() {
            let places: Vec<_> = shards.iter().map(|shard| (&*shard.audit, "+")).collect();
            let clocks = redis.entries_on_of(&places, 1).await.map_err(Error::retry_safe)?;
            let earliest = clocks.iter().map(|(_, clock)| *clock).min().unwrap_or(0);
            EventPlace::just_before(&self.layout, earliest.saturating_sub(PAST))
        } else {
            let newest = redis.entries_back(&shards[0].audit, "+", 1).await.map_err(Error::retry_safe)?;
            let order = newest.first().and_then(|(id, _)| entry_order(id)).unwrap_or((0, 0));
            EventPlace::of(&self.layout, 0, order)
        };
        Ok(self.follow(now))
    }

    /// Reads on, `count` events of each shard at most: up to a place before which nothing can be added any more, or with
    /// `None`, as far as is certain by now.
    ///
    /// # Errors
    /// See [`Error`]. Nothing is lost: the same reader may try again.
    pub async fn follow_on(
        &self,
        follower: &mut Follower,
        up_to: Option<EventPlace>,
        count: usize,
    ) -> Result<Followed, Error> {
        let shards = self.layout.shards();
        let places: Vec<_> = shards.iter().zip(&follower.next).map(|(shard, next)| (&*shard.audit, &**next)).collect();
        let read = self.reads.redis.entries_on_of(&places, count);
        // The reader of what happens now must not wait for those of what was.
        let pages = if up_to.is_some() { self.reads.gate.page(read).await } else { read.await };
        let pages = pages.map_err(Error::retry_safe)?;
        let (mut followed, mut bound) = (Followed::default(), None::<EventPlace>);
        for (at, (entries, clock)) in pages.into_iter().enumerate() {
            let shard = shards[at].number;
            let is_full = entries.len() == count;
            // Events that were added since this page was read are later than the clock of the page before.
            let mut certain = match up_to {
                Some(up_to) => Some(up_to),
                None if !self.layout.is_sharded() => None,
                None => Some(EventPlace::just_before(&self.layout, follower.clocks[at].saturating_sub(PAST))),
            };
            follower.clocks[at] = clock;
            for (id, fields) in entries {
                let Some(order) = entry_order(&id) else { continue };
                let place = EventPlace::of(&self.layout, shard, order);
                follower.next[at] = format!("({id}");
                certain = if is_full { Some(up_to.map_or(place, |up_to| up_to.min(place))) } else { certain };
                // What was added by hand, or by a later version, must not block what follows.
                let Ok(event) = Event::stored(&(id, fields)) else { continue };
                let event = self.reads.named(shard, event);
                if place > follower.done {
                    follower.waiting.insert(place, event);
                } else {
                    followed.events.push((None, event));
                }
            }
            followed.is_behind |= is_full;
            bound = [bound, certain].into_iter().flatten().min();
        }
        while let Some(first) = follower.waiting.first_entry() {
            let place = *first.key();
            if bound.is_some_and(|bound| place > bound) {
                break;
            }
            followed.events.push((Some(place), first.remove()));
            follower.done = place;
        }
        if let Some(bound) = bound {
            follower.done = follower.done.max(bound);
        }
        Ok(followed)
    }

    /// Whether events after a place may have been trimmed from the audit. If its first event is not after the place, none
    /// was. If it is, none was as long as there are fewer than the operator keeps, unless that was raised since.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn may_have_trimmed_after(&self, place: EventPlace) -> Result<bool, Error> {
        let streams: Vec<_> = self.layout.shards().iter().map(|shard| &*shard.audit).collect();
        let reaches = self.reads.redis.oldest_and_length_of(&streams).await.map_err(Error::retry_safe)?;
        // After the reads: a trim in between obeyed this setting, or one that was lower.
        let settings = self.settings().await?;
        let is_raised = settings.audit_max_raised_at_ms > place.order.0;
        let may_be = |(at, (oldest, length)): (usize, &(Option<String>, u64))| {
            let Some(order) = oldest.as_deref().and_then(entry_order) else { return false };
            let is_after = EventPlace::of(&self.layout, self.layout.shards()[at].number, order) > place;
            is_after && settings.audit_share(&self.layout).is_some_and(|most| is_raised || *length >= most)
        };
        Ok(reaches.iter().enumerate().any(may_be))
    }
}
