//! Confirming, releasing and extending a cart: all of it or nothing. The scripts `confirm`, `release` and `extend`, in
//! mode `all`, with the reservations that the cart has.

use super::cart::{EndedLine, Listed, in_order};
use super::record::{malformed, number};
use super::{Engine, Error, Reservation, ReservationState, Ttl};
use crate::keys::{CartId, IdempotencyKey, ReservationId, Sku};
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
    /// Nothing was held for the cart as a whole.
    UnknownCart,
}

/// The outcome of an extension of a cart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CartExtend {
    /// All of it lapses at the new time, or later.
    Extended(Vec<Reservation>),
    /// Nothing was done: the operator does not allow these that much time.
    Limited(Vec<LimitedLine>),
    /// Nothing was done, because of these.
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

/// What a request for a cart is about.
enum About {
    /// Reservations to call the script with, the first first.
    Lines(Vec<Reservation>),
    /// None is active: these are there.
    Ended(Vec<EndedLine>),
    Nothing,
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
            About::Lines(lines) => lines,
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
        let is_repeated = |Listed { record, token: noted, .. }: &Listed| {
            !token.is_empty() && *noted == token && record.as_ref().is_some_and(|record| record.state == state)
        };
        let lines = match self.about(cart, state == ReservationState::Confirmed, is_repeated).await? {
            About::Lines(lines) => lines,
            About::Ended(ended) => return Ok(CartSettle::NotActive(ended)),
            About::Nothing => return Ok(CartSettle::UnknownCart),
        };
        let (mut records, mut ended, mut is_replay) = (Vec::new(), Vec::new(), true);
        for line in self.call_cart(script, &lines, &token).await? {
            match line {
                Line::Done(record) => {
                    is_replay = false;
                    records.push(record);
                }
                Line::Replayed(record) => records.push(record),
                Line::Ended(line) => ended.push(line),
                Line::Withdrawn => {}
                Line::Limited(_) => return Err(malformed(script)),
            }
        }
        Ok(match (ended.is_empty(), is_replay) {
            (false, _) => CartSettle::NotActive(ended),
            (true, true) => CartSettle::Replayed(records),
            (true, false) => CartSettle::Settled(records),
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
        let ids = self.index(&self.redis, cart).await?;
        let (listed, now_ms) = self.stored_each(&self.redis, &ids).await?;
        let mut repeated = Vec::new();
        let mut records = Vec::new();
        for line in listed {
            let is_repeated = is_repeated(&line);
            if let Some(record) = line.record {
                if is_repeated { repeated.push(record) } else { records.push(record) }
            }
        }
        if !repeated.is_empty() {
            return Ok(About::Lines(in_order(repeated)));
        }
        let records = in_order(records);
        if records.is_empty() {
            return Ok(About::Nothing);
        }
        let is_live = |record: &Reservation| record.is_active() && !record.is_due(now_ms);
        if !records.iter().any(is_live) {
            return Ok(About::Ended(records.iter().map(|record| ended(record, now_ms)).collect()));
        }
        let went_back = |record: &Reservation| record.is_due(now_ms) || [LAPSED, RESEEDED].contains(&&*record.reason);
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
        Ok(About::Lines(about.cloned().collect()))
    }

    /// Calls a script in mode `all`, with the same argument for each reservation.
    async fn call_cart(&self, script: &'static str, lines: &[Reservation], argument: &str) -> Result<Vec<Line>, Error> {
        // The reservations of a cart are of one shard: there is only one.
        let shard = self.layout.first();
        let keys: Vec<_> =
            lines.iter().map(|line| (self.layout.stock(&line.sku), shard.reservation(&line.id))).collect();
        let mut names = vec![&*shard.audit, &*shard.due, &*shard.settings];
        for (stock, reservation) in &keys {
            names.extend([&*stock.inventory, &*stock.active, &**reservation]);
        }
        let mut arguments = vec!["all"];
        arguments.extend(lines.iter().map(|_| argument));
        self.reads.gate.sells();
        let replies = self.scripts.call(script, &names, &arguments).await?;
        if replies.len() != lines.len() {
            return Err(malformed(script));
        }
        lines.iter().zip(&replies).map(|(line, reply)| Line::read(line, reply)).collect()
    }
}

impl Line {
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
