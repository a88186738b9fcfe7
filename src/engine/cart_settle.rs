//! Confirming, releasing and extending a cart: all of it or nothing. The scripts `confirm`, `release` and `extend`, in
//! mode `all`, with the reservations that the cart has.

use std::collections::{BTreeMap, BTreeSet};

use super::cart::{EndedLine, Listed, in_order};
use super::cart_over_shards::TRIES;
use super::record::{malformed, number};
use super::{Engine, Error, Reservation, ReservationState, Ttl};
use crate::keys::{CartId, IdempotencyKey, OperationId, ReservationId, Sku, StockKeys};
use crate::scripts::Reply;

/// The reasons of reservations whose units went back without a request of their client.
const LAPSED: &str = "reservation_ttl_elapsed";
const RESEEDED: &str = "inventory_reseeded";

/// The outcome of a confirm or a release of a cart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CartSettle {
    /// Done now.
    Settled(Vec<Reservation>),
    /// Done before, with the same idempotency key.
    Replayed(Vec<Reservation>),
    /// Nothing was done, because of these.
    NotActive(Vec<EndedLine>),
    /// Nothing was done: the cart is in several shards, and these would lapse before all of them are surely done.
    Lapsing(Vec<LapsingLine>),
    /// The cart is in several shards, and in some of them it was refused, because of these. The others are done.
    Partly {
        /// What was settled.
        done: Vec<Reservation>,
        /// What was not.
        ended: Vec<EndedLine>,
    },
    /// Nothing was held for the cart as a whole.
    UnknownCart,
}

/// A reservation that lapses soon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LapsingLine {
    /// Its id.
    pub id: ReservationId,
    /// The SKU.
    pub sku: Sku,
    /// When it lapses, epoch milliseconds.
    pub expires_at_ms: u64,
}

/// The outcome of an extension of a cart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CartExtend {
    /// All of it lapses at the new time, or later.
    Extended(Vec<Reservation>),
    /// Nothing was done: the operator does not allow these that much time. With several shards, the others may have it.
    Limited(Vec<LimitedLine>),
    /// Nothing was done, because of these. With several shards, the others may have more time.
    NotActive(Vec<EndedLine>),
    /// Nothing was held for the cart as a whole.
    UnknownCart,
}

/// A reservation that cannot be extended as far as was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimitedLine {
    /// Its id.
    pub id: ReservationId,
    /// The SKU.
    pub sku: Sku,
    /// The latest expiry that it can have, epoch milliseconds.
    pub max_expires_at_ms: u64,
}

/// How long what is sold in several shards must have left, so that the last of them is reached in time.
const TIME_FOR_ALL_SHARDS_MS: u64 = 2000;

/// What a request for a cart is about.
enum About {
    /// Reservations to call the script with, the first first.
    Lines(Lines),
    /// Nothing can be done: these have ended.
    Ended(Vec<EndedLine>),
    Nothing,
}

struct Lines {
    records: Vec<Reservation>,
    /// The token of an earlier attempt that settled some of them.
    noted: Option<String>,
    /// Redis's clock when they were read, epoch milliseconds.
    now_ms: u64,
}

/// The reply for one reservation of a cart.
enum Line {
    Done(Reservation),
    Replayed(Reservation),
    Ended(EndedLine),
    Limited(LimitedLine),
    Withdrawn,
}

impl Engine {
    /// Sells all that a cart holds, or nothing: also when something of it has lapsed and was not held again. Script
    /// `confirm`.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn confirm_cart(&self, cart: &CartId, key: Option<&IdempotencyKey>) -> Result<CartSettle, Error> {
        self.settle_cart("confirm", ReservationState::Confirmed, cart, key).await
    }

    /// Gives back all that a cart holds. What has lapsed is given back already. Script `release`.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn release_cart(&self, cart: &CartId, key: Option<&IdempotencyKey>) -> Result<CartSettle, Error> {
        self.settle_cart("release", ReservationState::Released, cart, key).await
    }

    /// Makes all that a cart holds lapse `ttl` from now, unless it lapses later anyway, or nothing: also when something
    /// of it has lapsed and was not held again. Script `extend`. Safe to repeat: the time begins again.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn extend_cart(&self, cart: &CartId, ttl: Ttl) -> Result<CartExtend, Error> {
        let lines = match self.about(cart, true, |_| false).await? {
            About::Lines(lines) => lines.records,
            About::Ended(ended) => return Ok(CartExtend::NotActive(ended)),
            About::Nothing => return Ok(CartExtend::UnknownCart),
        };
        let (mut extended, mut limited, mut ended) = (Vec::new(), Vec::new(), Vec::new());
        for line in self.call_cart("extend", &lines, &ttl.as_ms().to_string()).await? {
            match line {
                Line::Done(record) | Line::Replayed(record) => extended.push(record),
                Line::Limited(line) => limited.push(line),
                Line::Ended(line) => ended.push(line),
                Line::Withdrawn => {}
            }
        }
        Ok(if !ended.is_empty() {
            CartExtend::NotActive(ended)
        } else if !limited.is_empty() {
            CartExtend::Limited(limited)
        } else {
            CartExtend::Extended(extended)
        })
    }

    async fn settle_cart(
        &self,
        script: &'static str,
        state: ReservationState,
        cart: &CartId,
        key: Option<&IdempotencyKey>,
    ) -> Result<CartSettle, Error> {
        let token = key.map(|key| key.cart_token(cart)).unwrap_or_default();
        let is_repeated = |Listed { record, token: noted }: &Listed| {
            let is_noted =
                !token.is_empty() && (*noted == token || part_of(noted).is_some_and(|(own, _)| own == token));
            is_noted && record.as_ref().is_some_and(|record| record.state == state)
        };
        let is_confirm = state == ReservationState::Confirmed;
        let Lines { records: lines, noted, now_ms } = match self.about(cart, is_confirm, is_repeated).await? {
            About::Lines(lines) => lines,
            About::Ended(ended) => return Ok(CartSettle::NotActive(ended)),
            About::Nothing => return Ok(CartSettle::UnknownCart),
        };
        let is_over_shards = self.is_over_shards(&lines);
        if is_confirm && is_over_shards && noted.is_none() {
            let lapses = |line: &&Reservation| line.is_active() && line.expires_at_ms < now_ms + TIME_FOR_ALL_SHARDS_MS;
            let lapsing = lines.iter().filter(lapses).map(|line| LapsingLine {
                id: line.id,
                sku: line.sku.clone(),
                expires_at_ms: line.expires_at_ms,
            });
            let lapsing: Vec<_> = lapsing.collect();
            if !lapsing.is_empty() {
                return Ok(CartSettle::Lapsing(lapsing));
            }
        }
        let token = match noted {
            Some(noted) => noted,
            // A retry knows from it how many there are.
            None if is_over_shards && !token.is_empty() => format!("{token}/{}", lines.len()),
            // So that each call can be repeated.
            None if is_over_shards => OperationId::mint().to_string(),
            None => token,
        };
        let (mut done, mut ended, mut is_replay) = (Vec::new(), Vec::new(), true);
        for line in self.call_cart(script, &lines, &token).await? {
            match line {
                Line::Done(record) => {
                    is_replay = false;
                    done.push(record);
                }
                Line::Replayed(record) => done.push(record),
                Line::Ended(line) => ended.push(line),
                Line::Withdrawn => {}
                Line::Limited(_) => return Err(malformed(script)),
            }
        }
        Ok(match (ended.is_empty(), is_replay) {
            (false, _) if is_over_shards && !done.is_empty() => CartSettle::Partly { done, ended },
            (false, _) => CartSettle::NotActive(ended),
            (true, true) => CartSettle::Replayed(done),
            (true, false) => CartSettle::Settled(done),
        })
    }

    /// The reservations that a request for a cart is about: if some were settled by an earlier attempt, exactly these.
    /// Otherwise those that are active. A request that `needs_all` is also about those whose units went back without
    /// their client, unless the cart has held the SKU again since: with them it is refused, whoever expired them.
    async fn about(
        &self,
        cart: &CartId,
        needs_all: bool,
        is_repeated: impl Fn(&Listed) -> bool,
    ) -> Result<About, Error> {
        let ids = self.index(&self.redis, &self.lists(cart)).await?;
        let (listed, now_ms) = self.stored_each(&self.redis, &ids).await?;
        let (mut repeated, mut noted) = (Vec::new(), None);
        let mut records = Vec::new();
        for line in listed {
            let is_repeated = is_repeated(&line);
            if let Some(record) = line.record {
                if is_repeated {
                    noted = Some(line.token);
                    repeated.push(record);
                } else {
                    records.push(record);
                }
            }
        }
        let records = in_order(records);
        let went_back = |record: &Reservation| record.is_due(now_ms) || [LAPSED, RESEEDED].contains(&&*record.reason);
        if !repeated.is_empty() {
            // An attempt over several shards may have been interrupted: the rest of it are the oldest in the others.
            let all = noted.as_deref().and_then(part_of).map_or(0, |(_, lines)| lines);
            let done: BTreeSet<u16> = repeated.iter().map(|record| record.id.shard()).collect();
            let rest = records
                .into_iter()
                .filter(|record| !done.contains(&record.id.shard()) && (record.is_active() || went_back(record)));
            repeated.extend(rest.take(all.saturating_sub(repeated.len())).collect::<Vec<_>>());
            return Ok(About::Lines(Lines { records: in_order(repeated), noted, now_ms }));
        }
        if records.is_empty() {
            return Ok(About::Nothing);
        }
        let is_live = |record: &Reservation| record.is_active() && !record.is_due(now_ms);
        if !records.iter().any(is_live) {
            return Ok(About::Ended(records.iter().map(|record| ended(record, now_ms)).collect()));
        }
        // Of two that were made at once, nobody knows which was the first.
        let is_later = |later: &Reservation, record: &Reservation| {
            later.created_at_ms > record.created_at_ms
                || later.created_at_ms == record.created_at_ms && !went_back(later)
        };
        let is_missed = |record: &Reservation| {
            let of_sku = || records.iter().filter(|other| other.sku == record.sku);
            went_back(record) && !of_sku().any(|other| is_later(other, record))
        };
        let about = records.iter().filter(|record| is_live(record) || needs_all && is_missed(record));
        let records: Vec<Reservation> = about.cloned().collect();
        // No script sees all of it, and what is known to be refused must not begin in another shard.
        if self.is_over_shards(&records) && !records.iter().all(is_live) {
            let missed = records.iter().filter(|record| !is_live(record));
            return Ok(About::Ended(missed.map(|record| ended(record, now_ms)).collect()));
        }
        Ok(About::Lines(Lines { records, noted: None, now_ms }))
    }

    fn is_over_shards(&self, lines: &[Reservation]) -> bool {
        self.layout.is_sharded() && lines.iter().any(|line| line.id.shard() != lines[0].id.shard())
    }

    /// Calls a script in mode `all`, with the same argument for each reservation: all of a shard or none of them. With
    /// several shards the lowest is the first, and if that refuses, no other is called. A call without a reply is
    /// repeated until it is decided.
    async fn call_cart(&self, script: &'static str, lines: &[Reservation], argument: &str) -> Result<Vec<Line>, Error> {
        let stocks: Vec<StockKeys> = lines.iter().map(|line| self.layout.stock(&line.sku)).collect();
        let mut by_shard: BTreeMap<u16, Vec<usize>> = BTreeMap::new();
        for (place, keys) in stocks.iter().enumerate() {
            by_shard.entry(keys.shard.number).or_default().push(place);
        }
        let tries = if by_shard.len() > 1 { TRIES } else { 1 };
        let mut outcomes: Vec<Line> = lines.iter().map(|_| Line::Withdrawn).collect();
        for places in by_shard.into_values() {
            let is_begun = outcomes.iter().any(Line::is_done);
            if !is_begun && !outcomes.iter().all(|line| matches!(line, Line::Withdrawn)) {
                break;
            }
            let named: Vec<_> = places.iter().map(|place| (&stocks[*place], lines[*place].id)).collect();
            let mut replies = self.settle_lines(script, "all", &named, argument).await;
            for _ in 1..tries {
                if matches!(replies, Err(Error::Unknown(_))) {
                    replies = self.settle_lines(script, "all", &named, argument).await;
                }
            }
            let replies = replies.map_err(|error| match error {
                error if is_begun => Error::Unknown(format!("other shards are done: {error}")),
                error => error,
            })?;
            for (place, reply) in places.into_iter().zip(&replies) {
                outcomes[place] = Line::read(&lines[place], reply)?;
            }
        }
        Ok(outcomes)
    }

    /// Calls a script with the same argument for some reservations of one shard.
    pub(super) async fn settle_lines(
        &self,
        script: &'static str,
        mode: &str,
        lines: &[(&StockKeys, ReservationId)],
        argument: &str,
    ) -> Result<Vec<Reply>, Error> {
        let shard = &lines[0].0.shard;
        let reservations: Vec<String> = lines.iter().map(|(_, id)| shard.reservation(id)).collect();
        let mut names = vec![&*shard.audit, &*shard.due, &*shard.settings];
        for ((stock, _), reservation) in lines.iter().zip(&reservations) {
            names.extend([&*stock.inventory, &*stock.active, &**reservation]);
        }
        let mut arguments = vec![mode];
        arguments.extend(lines.iter().map(|_| argument));
        self.reads.gate.sells();
        let replies = self.scripts.call(script, &names, &arguments).await?;
        if replies.len() == lines.len() { Ok(replies) } else { Err(malformed(script)) }
    }
}

/// The token and the number of lines in the token of a settlement over several shards.
fn part_of(noted: &str) -> Option<(&str, usize)> {
    let (token, lines) = noted.split_once('/')?;
    Some((token, lines.parse().ok()?))
}

impl Line {
    fn is_done(&self) -> bool {
        matches!(self, Self::Done(_) | Self::Replayed(_))
    }

    fn read(of: &Reservation, reply: &Reply) -> Result<Self, Error> {
        let ended = |state, reason: &str| {
            Self::Ended(EndedLine { id: of.id, sku: of.sku.clone(), state, reason: reason.to_owned() })
        };
        Ok(match &*reply.parts() {
            ["CONFIRMED" | "RELEASED" | "EXTENDED", record @ ..] => Self::Done(Reservation::read(of.id, record)?),
            ["REPLAYED", record @ ..] => Self::Replayed(Reservation::read(of.id, record)?),
            ["EXPIRED"] => ended(Some(ReservationState::Released), LAPSED),
            ["NOT_ACTIVE", state, reason] => ended(Some(ReservationState::read(state)?), reason),
            // Dropped since it was read, and the id may be used again.
            ["NOT_FOUND"] | ["CONFLICT", _] => ended(None, ""),
            ["LIMITED", latest] => {
                let max_expires_at_ms = number(latest)?;
                Self::Limited(LimitedLine { id: of.id, sku: of.sku.clone(), max_expires_at_ms })
            }
            ["WITHDRAWN"] => Self::Withdrawn,
            _ => return Err(malformed("confirm, release or extend")),
        })
    }
}

/// What is due is shown as it will be when it was swept.
fn ended(record: &Reservation, now_ms: u64) -> EndedLine {
    if record.is_due(now_ms) {
        let (state, reason) = (Some(ReservationState::Released), LAPSED.to_owned());
        return EndedLine { id: record.id, sku: record.sku.clone(), state, reason };
    }
    record.into()
}
