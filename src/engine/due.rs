//! One round over the list of what is due: many SKUs, a slice at a time.
//!
//! A slice is a number of calls that go to Redis together. Redis serves other clients between slices, so the size of a
//! slice is the sweeper's share of Redis (see `pace`). Redis reads at most 16 KB at a time from one connection. A
//! larger share sends more slices at a time, each on its own connection.

use std::ops::Range;
use std::time::{Duration, Instant};

use futures_util::future::try_join_all;

use super::error::is_of_one_key;
use super::expiry::{Expired, SWEPT_PER_CALL};
use super::{Engine, Error, Rounds};
use crate::keys::{Shard, Sku, StockKeys};
use crate::redis::{Failure, Redis};

/// SKUs that are read from the due list at once: the most overdue ones.
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
    started: Instant,
}

/// A SKU of the due list, with what lapsed on it.
struct Lapsed {
    sku: Sku,
    keys: StockKeys,
    /// The keys of its lapsed holds, or the result that is known without a call.
    holds: Result<Vec<String>, Fate>,
}

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
    /// See [`Error`]. Only when Redis itself cannot be used. What was expired before the error stays expired.
    pub async fn sweep_due(&self, rounds: &mut Rounds) -> Result<Swept, Error> {
        let now_ms = self.redis.now_ms(&self.layout.first().due).await.map_err(Error::retry_safe)?;
        let started = Instant::now();
        let mut round = Round { engine: self, rounds, swept: Swept::default(), now_ms, started };
        for shard in self.layout.shards() {
            round.sweep_shard(shard).await?;
        }
        let swept = round.swept;
        rounds.forget_before(started);
        Ok(swept)
    }

    /// Sends all of `items` together. If there is no reply although Redis is up, one item may be the cause: then sends
    /// each one alone.
    async fn each_answered<T, F>(
        &self,
        items: Range<usize>,
        send: impl Fn(Range<usize>) -> F,
    ) -> Result<Vec<Result<T, Failure>>, Error>
    where
        F: Future<Output = Result<Vec<Result<T, Failure>>, Failure>>,
    {
        match send(items.clone()).await {
            Err(Failure::NoReply(_)) => self.ask_after_redis().await?,
            outcomes => return outcomes.map_err(Error::retry_safe),
        }
        let mut outcomes = Vec::with_capacity(items.len());
        for item in items {
            match send(item..item + 1).await {
                Err(Failure::NoReply(why)) => {
                    self.ask_after_redis().await?;
                    outcomes.push(Err(Failure::NoReply(why)));
                }
                outcome => outcomes.append(&mut outcome.map_err(Error::retry_safe)?),
            }
        }
        Ok(outcomes)
    }

    async fn ask_after_redis(&self) -> Result<(), Error> {
        self.redis.now_ms(&self.layout.first().due).await.map(drop).map_err(Error::retry_safe)
    }

    /// The holds of each SKU that lapsed by `now_ms`.
    async fn look_up(&self, shard: &Shard, skus: Vec<Sku>, now_ms: u64) -> Result<Vec<Lapsed>, Error> {
        if skus.is_empty() {
            return Ok(Vec::new());
        }
        let count = SWEPT_PER_CALL * (CALLS_LOOKED_UP / skus.len()).max(1);
        let stocks: Vec<StockKeys> = skus.iter().map(|sku| self.layout.stock(sku)).collect();
        let pairs: Vec<_> = skus.iter().zip(&stocks).map(|(sku, keys)| (sku.as_str(), &*keys.active)).collect();
        let look = |some| self.redis.listed_up_to(&shard.due, &pairs[some], now_ms, count);
        let listed = self.each_answered(0..pairs.len(), look).await?;
        let lapsed = skus.into_iter().zip(stocks).zip(listed).map(|((sku, keys), ids)| {
            let holds = match ids {
                Ok(Some(ids)) => self.hold_keys(&keys, &ids).map_err(|error| Fate::Stuck(error.to_string())),
                // Another sweeper was faster.
                Ok(None) => Err(Fate::Swept),
                Err(failure) => Err(Fate::after(failure)?),
            };
            Ok(Lapsed { sku, keys, holds })
        });
        lapsed.collect()
    }
}

impl Fate {
    /// # Errors
    /// When the error is not about this SKU: no other SKU can be swept now.
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
    async fn sweep_shard(&mut self, shard: &Shard) -> Result<(), Error> {
        let redis = &self.engine.redis;
        // SKUs at the front of the list are set aside: skip them.
        let mut skip = 0;
        loop {
            let start = skip;
            let page = redis.up_to(&shard.due, self.now_ms, start, PAGE).await.map_err(Error::retry_safe)?;
            let is_last = page.len() < PAGE;
            let mut skus = Vec::with_capacity(page.len());
            let mut overdue_since = None;
            for (name, due_ms) in &page {
                match self.sku_of(name) {
                    Some(sku) => {
                        // The same obstacle would remain with any share.
                        if overdue_since.is_none() && !self.rounds.knows(sku.as_str()) {
                            overdue_since = Some(*due_ms);
                        }
                        skus.push(sku);
                    }
                    None if skus.is_empty() => skip += 1,
                    None => {}
                }
            }
            if let Some(due_ms) = overdue_since {
                self.note_overdue(due_ms);
            }
            if !self.sweep_page(shard, skus).await? {
                // Nothing moved, so the next read would give the same page.
                if is_last {
                    return Ok(());
                }
                skip = start + page.len();
            }
        }
    }

    /// The SKU of an entry of the due list, unless it is set aside.
    fn sku_of(&mut self, name: &[u8]) -> Option<Sku> {
        let Ok(name) = std::str::from_utf8(name) else {
            let name = name.escape_ascii().to_string();
            if !self.rounds.is_aside(&name) {
                self.rounds.put_aside(&name, "its name is no text".to_owned());
            }
            return None;
        };
        if self.rounds.is_aside(name) {
            return None;
        }
        Sku::parse(name).map_err(|invalid| self.rounds.put_aside(name, invalid.to_string())).ok()
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

    /// Sweeps the SKUs of a page. Returns whether any could be swept.
    async fn sweep_page(&mut self, shard: &Shard, mut skus: Vec<Sku>) -> Result<bool, Error> {
        skus.sort_by_cached_key(|sku| self.rounds.place(sku.as_str()));
        let (engine, now_ms) = (self.engine, self.now_ms);
        // The number that goes to Redis together, if each has one hold.
        let together = (self.rounds.pace.share() / 2) as usize;
        let mut moved = false;
        let mut next = || skus.drain(..skus.len().min(together)).collect();
        let mut lapsed = engine.look_up(shard, next(), now_ms).await?;
        while !lapsed.is_empty() {
            // While these are swept the next ones are looked up, so that Redis does not wait for this process.
            let ahead = engine.look_up(shard, next(), now_ms);
            let (swept, ahead) = tokio::join!(self.sweep_lapsed_of(&lapsed), ahead);
            moved |= swept?;
            lapsed = ahead?;
        }
        Ok(moved)
    }

    /// Sweeps what was looked up. Returns whether any could be swept.
    async fn sweep_lapsed_of(&mut self, lapsed: &[Lapsed]) -> Result<bool, Error> {
        let mut calls = Vec::with_capacity(lapsed.len());
        for (place, Lapsed { holds, .. }) in lapsed.iter().enumerate() {
            match holds {
                // Its bound in the list is too low. Only that has to be corrected.
                Ok(holds) if holds.is_empty() => calls.push(Call { place, holds }),
                Ok(holds) => calls.extend(holds.chunks(SWEPT_PER_CALL).map(|holds| Call { place, holds })),
                Err(_) => {}
            }
        }
        let mut fates: Vec<Fate> = lapsed.iter().map(|it| it.holds.clone().err().unwrap_or(Fate::Waiting)).collect();
        let engine = self.engine;
        let requests: Vec<_> = calls.iter().map(|call| (&lapsed[call.place].keys, call.holds)).collect();
        let mut done = 0;
        while done < calls.len() {
            let first = done;
            let (mut slices, mut left) = (Vec::new(), self.rounds.pace.share());
            while left > 0 && done < calls.len() {
                let (count, cost) = slice_of(&calls[done..], left.min(SLICE));
                let lane = &engine.lanes.0[slices.len() % LANES];
                let sweep = |some| engine.sweep_each(lane, &requests[some]);
                slices.push(engine.each_answered(done..done + count, sweep));
                (left, done) = (left.saturating_sub(cost), done + count);
            }
            let answers = try_join_all(slices).await?;
            for (call, replies) in calls[first..done].iter().zip(answers.into_iter().flatten()) {
                let fate = match replies.map(|replies| Expired::read(&replies)) {
                    Ok(Ok(Expired { count, next_ms })) => {
                        self.swept.expired += count;
                        let is_done = count > 0 || next_ms.is_none_or(|next_ms| next_ms > self.now_ms);
                        if is_done { Fate::Swept } else { Fate::Waiting }
                    }
                    Ok(Err(error)) => Fate::Stuck(error.to_string()),
                    Err(failure) => Fate::after(failure)?,
                };
                let known = &mut fates[call.place];
                *known = fate.max(std::mem::replace(known, Fate::Waiting));
            }
        }
        let mut moved = false;
        for (Lapsed { sku, .. }, fate) in lapsed.iter().zip(fates) {
            match fate {
                Fate::Waiting => self.rounds.pass_over(sku.as_str()),
                Fate::Swept => {
                    self.rounds.is_sound(sku.as_str());
                    moved = true;
                }
                Fate::Stuck(why) => self.rounds.put_aside(sku.as_str(), why),
            }
        }
        Ok(moved)
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
