//! One round over the list of what is due: many SKUs, a slice at a time.
//!
//! A slice is a number of calls that go to Redis together. Redis serves other clients between slices, so the size of a
//! slice is the sweeper's share of Redis (see `pace`). Redis reads at most 16 KB at a time from one connection. A
//! larger share sends more slices at a time, each on its own connection.

mod answers;
mod front;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use futures_util::future::{FutureExt, join_all, select_ok};

use super::error::is_of_one_key;
use super::expiry::{Expired, SWEPT_PER_CALL};
use super::{Engine, Error, Rounds, metrics};
use crate::keys::{Sku, StockKeys};
use crate::redis::{Failure, Redis};

/// Shards whose clock is asked for: the first answer counts.
const CLOCKS: usize = 8;

/// SKUs that are read from the due lists at once: the most overdue ones of each.
const PAGE: usize = 600;

/// Holds for this number of calls are looked up together: with few SKUs, more holds of each SKU.
const CALLS_LOOKED_UP: usize = 25;

/// What a slice may cost, as `pace` counts: about 16 KB, and about a millisecond of Redis.
const SLICE: u64 = 100;

/// The number of slices in the largest share, when each SKU has one hold.
const LANES: usize = 6;

/// Connections for the sweeper alone, opened when they are needed.
pub(super) struct Lanes([Redis; LANES]);

impl Lanes {
    pub(super) fn new(redis: &Redis) -> Self {
        Self(std::array::from_fn(|_| redis.with_own_connection()))
    }
}

/// What a round of sweeping did.
#[derive(Debug, Default)]
pub struct Swept {
    /// Reservations that were expired.
    pub expired: u64,
    /// How overdue the most overdue hold was.
    pub overdue: Duration,
}

struct Round<'a> {
    engine: &'a Engine,
    rounds: &'a mut Rounds,
    swept: Swept,
    /// Later expiries belong to the next round.
    now_ms: u64,
    /// The earliest expiry that was due when the round began, also of a SKU that cannot be swept.
    earliest_ms: u64,
    started: Instant,
    /// Shards whose Redis cannot be used now.
    away: BTreeSet<u16>,
    /// Why the first of them cannot.
    failure: Option<Error>,
}

/// A SKU of the due list, with what lapsed on it.
struct Lapsed {
    sku: Sku,
    keys: StockKeys,
    /// The keys of its lapsed holds, or the result that is known without a call.
    holds: Result<Vec<String>, Fate>,
}

/// What was looked up, and the shards where nothing could be.
type LookedUp = (Vec<Lapsed>, Vec<(u16, Error)>);

/// What happened to a SKU. With several calls for it, the highest value counts.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Fate {
    /// It is still due: another sweeper works on it, its shard is moving, or its scores are damaged.
    Waiting,
    /// Something was expired, or there is nothing to expire.
    Swept,
    /// It cannot be swept, for this reason.
    Stuck(String),
}

/// A call: the position of the SKU in the list that was looked up, and some of its holds.
struct Call<'a> {
    place: usize,
    holds: &'a [String],
}

impl Engine {
    /// Expires everything that is due now, roughly the most overdue first. A SKU that cannot be swept is left for a
    /// later round, and `rounds` reports it.
    ///
    /// # Errors
    /// See [`Error`]. Only when Redis itself cannot be used, or the Redis of some shards: the others are swept. What was
    /// expired stays expired.
    pub async fn sweep_due(&self, rounds: &mut Rounds) -> Result<Swept, Error> {
        let now_ms = self.clock().await?;
        let (started, swept) = (Instant::now(), Swept::default());
        let (earliest_ms, away, failure) = (now_ms, BTreeSet::new(), None);
        let mut round = Round { engine: self, rounds, swept, now_ms, earliest_ms, started, away, failure };
        round.sweep().await;
        let Round { swept, earliest_ms, failure, .. } = round;
        rounds.forget_before(started);
        metrics::OLDEST_LAPSED_MS.set(now_ms - earliest_ms);
        metrics::STUCK_SKUS.set(rounds.stuck_skus());
        failure.map_or(Ok(swept), Err)
    }

    /// Redis's clock, that of any node of a cluster: another clock only finds holds a little later or earlier, and what
    /// is due is decided by that of the node itself.
    async fn clock(&self) -> Result<u64, Error> {
        let shards = self.layout.shards();
        let asked =
            shards.iter().step_by(shards.len().div_ceil(CLOCKS)).map(|shard| self.redis.now_ms(&shard.due).boxed());
        let (now_ms, _) = select_ok(asked).await.map_err(Error::retry_safe)?;
        Ok(now_ms)
    }

    /// The holds of each SKU that lapsed by `now_ms`.
    async fn look_up(&self, skus: Vec<Sku>, now_ms: u64) -> LookedUp {
        if skus.is_empty() {
            return LookedUp::default();
        }
        let count = SWEPT_PER_CALL * (CALLS_LOOKED_UP / skus.len()).max(1);
        let stocks: Vec<StockKeys> = skus.iter().map(|sku| self.layout.stock(sku)).collect();
        let member = |at: usize| (&*stocks[at].shard.due, skus[at].as_str(), &*stocks[at].active);
        let members: Vec<_> = (0..skus.len()).map(member).collect();
        let look = |some| self.redis.listed_up_to(&members[some], now_ms, count);
        let listed = self.each_answered(0..members.len(), |item| stocks[item].shard.number, look).await;
        let mut found = LookedUp::default();
        for ((sku, keys), ids) in skus.iter().zip(&stocks).zip(listed) {
            let holds = match ids {
                Ok(Some(ids)) => self.hold_keys(keys, &ids).map_err(|error| Fate::Stuck(error.to_string())),
                // Another sweeper was faster.
                Ok(None) => Err(Fate::Swept),
                Err(failure) => match Fate::after(failure) {
                    Ok(fate) => Err(fate),
                    Err(away) => {
                        found.1.push((keys.shard.number, away));
                        continue;
                    }
                },
            };
            found.0.push(Lapsed { sku: sku.clone(), keys: keys.clone(), holds });
        }
        found
    }
}

impl Fate {
    /// # Errors
    /// When the error is not about this SKU: no other SKU of its shard can be swept now.
    fn after(failure: Failure) -> Result<Self, Error> {
        if let Failure::Refused { code, .. } = &failure
            && is_of_one_key(code)
        {
            return Ok(Self::Waiting);
        }
        match Error::from(failure) {
            Error::Broken(why) | Error::Unknown(why) => Ok(Self::Stuck(why)),
            away => Err(away),
        }
    }
}

impl Round<'_> {
    /// Goes through the due lists of all shards at once, a page at a time.
    async fn sweep(&mut self) {
        let mut fronts = self.fronts().await;
        while !fronts.is_empty() {
            let count = (PAGE / fronts.len()).max(1);
            let places: Vec<_> = fronts.iter().map(|front| (&*front.shard.due, front.skip)).collect();
            let engine = self.engine;
            let (now_ms, shards) = (self.now_ms, places.len());
            let pages = match engine.redis.up_to(&places, now_ms, count).await {
                Ok(pages) => pages,
                Err(failure) => vec![Err(failure); shards],
            };
            let mut skus = Vec::with_capacity(count);
            for (front, page) in fronts.iter_mut().zip(pages) {
                match page {
                    Ok(page) => self.take(front, &page, count, &mut skus),
                    Err(failure) => self.leave(front.shard.number, Error::retry_safe(failure)),
                }
            }
            let moved = self.sweep_page(skus).await;
            fronts.retain_mut(|front| {
                let number = front.shard.number;
                if self.away.contains(&number) {
                    return false;
                }
                // If nothing moved, the next read would give the same page.
                let is_stuck = !moved.contains(&number);
                if is_stuck {
                    front.skip = front.end;
                }
                !(is_stuck && front.is_last)
            });
        }
    }

    /// The Redis of a shard cannot be used: nothing of it can be swept in this round.
    fn leave(&mut self, shard: u16, why: Error) {
        self.away.insert(shard);
        self.failure.get_or_insert(why);
    }

    /// Records that the most overdue hold lapsed at `due_ms`.
    fn note_overdue(&mut self, due_ms: f64) {
        let elapsed = self.started.elapsed();
        // A damaged bound, which is not a time, tells nothing.
        let overdue = if due_ms > 0.0 { self.now_ms.saturating_sub(due_ms as u64) } else { 0 };
        let overdue = Duration::from_millis(overdue) + elapsed;
        self.swept.overdue = self.swept.overdue.max(overdue);
        self.rounds.pace.note(self.started + elapsed, overdue);
    }

    /// Sweeps the SKUs of a page. Returns the shards of which any could be swept.
    async fn sweep_page(&mut self, mut skus: Vec<Sku>) -> BTreeSet<u16> {
        skus.sort_by_cached_key(|sku| self.rounds.place(sku.as_str()));
        let (engine, now_ms) = (self.engine, self.now_ms);
        // The number that goes to Redis together, if each has one hold.
        let together = (self.rounds.pace.share() / 2) as usize;
        let mut moved = BTreeSet::new();
        let mut next = || skus.drain(..skus.len().min(together)).collect::<Vec<_>>();
        let mut found = engine.look_up(next(), now_ms).await;
        loop {
            let (lapsed, away) = found;
            for (shard, why) in away {
                self.leave(shard, why);
            }
            let ahead = next();
            if lapsed.is_empty() && ahead.is_empty() {
                return moved;
            }
            // While these are swept the next ones are looked up, so that Redis does not wait for this process.
            let ahead = engine.look_up(ahead, now_ms);
            let (swept, ahead) = tokio::join!(self.sweep_lapsed_of(&lapsed), ahead);
            moved.extend(swept);
            found = ahead;
        }
    }

    /// Sweeps what was looked up. Returns the shards of which any could be swept.
    async fn sweep_lapsed_of(&mut self, lapsed: &[Lapsed]) -> BTreeSet<u16> {
        let mut calls = Vec::with_capacity(lapsed.len());
        for (place, Lapsed { holds, keys, .. }) in lapsed.iter().enumerate() {
            match holds {
                Ok(_) if self.away.contains(&keys.shard.number) => {}
                // Its bound in the list is too low. Only that has to be corrected.
                Ok(holds) if holds.is_empty() => calls.push(Call { place, holds }),
                Ok(holds) => calls.extend(holds.chunks(SWEPT_PER_CALL).map(|holds| Call { place, holds })),
                Err(_) => {}
            }
        }
        let mut fates: Vec<Fate> = lapsed.iter().map(|it| it.holds.clone().err().unwrap_or(Fate::Waiting)).collect();
        let engine = self.engine;
        let requests: Vec<_> = calls.iter().map(|call| (&lapsed[call.place].keys, call.holds)).collect();
        let shard_of = |call: usize| lapsed[calls[call].place].keys.shard.number;
        let mut done = 0;
        while done < calls.len() {
            let first = done;
            let (mut slices, mut left) = (Vec::new(), self.rounds.pace.share());
            while left > 0 && done < calls.len() {
                let (count, cost) = slice_of(&calls[done..], left.min(SLICE));
                let lane = &engine.lanes.0[slices.len() % LANES];
                let sweep = |some| engine.sweep_each(lane, &requests[some]);
                slices.push(engine.each_answered(done..done + count, shard_of, sweep));
                (left, done) = (left.saturating_sub(cost), done + count);
            }
            let answers = join_all(slices).await;
            for (call, replies) in calls[first..done].iter().zip(answers.into_iter().flatten()) {
                let fate = match replies.map(|replies| Expired::read(&replies)) {
                    Ok(Ok(Expired { count, next_ms })) => {
                        self.swept.expired += count;
                        let is_done = count > 0 || next_ms.is_none_or(|next_ms| next_ms > self.now_ms);
                        if is_done { Fate::Swept } else { Fate::Waiting }
                    }
                    Ok(Err(error)) => Fate::Stuck(error.to_string()),
                    Err(failure) => match Fate::after(failure) {
                        Ok(fate) => fate,
                        Err(away) => {
                            self.leave(lapsed[call.place].keys.shard.number, away);
                            continue;
                        }
                    },
                };
                let known = &mut fates[call.place];
                *known = fate.max(std::mem::replace(known, Fate::Waiting));
            }
            if calls[done..].iter().all(|call| self.away.contains(&lapsed[call.place].keys.shard.number)) {
                break;
            }
        }
        let mut moved = BTreeSet::new();
        for (Lapsed { sku, keys, .. }, fate) in lapsed.iter().zip(fates) {
            match fate {
                // It is not to blame.
                _ if self.away.contains(&keys.shard.number) => {}
                Fate::Waiting => self.rounds.pass_over(sku.as_str()),
                Fate::Swept => {
                    self.rounds.is_sound(sku.as_str());
                    moved.insert(keys.shard.number);
                }
                Fate::Stuck(why) => self.rounds.put_aside(sku.as_str(), why),
            }
        }
        moved
    }
}

/// The number of calls for a slice that costs at most `most`, but at least one call, and their cost.
fn slice_of(calls: &[Call], most: u64) -> (usize, u64) {
    let (mut count, mut sum) = (0, 0);
    for call in calls {
        let cost = 1 + call.holds.len() as u64;
        if count > 0 && sum + cost > most {
            break;
        }
        (count, sum) = (count + 1, sum + cost);
    }
    (count, sum)
}
