//! Holding a cart: all of its lines or none, with one expiry. Script `cart_hold`.

use super::cart::EndedLine;
use super::expiry::Lapsed;
use super::record::{malformed, number};
use super::{Engine, Error, Quantity, Reservation, ReservationState, Ttl};
use crate::keys::{CartId, IdempotencyKey, OperationId, ReservationId, Sku, StockKeys};
use crate::scripts::Reply;

/// Other reservations of the cart that a call names at most.
const NAMED_AT_MOST: usize = 100;

/// A request to hold a cart.
#[derive(Debug, Clone)]
pub struct CartHoldRequest {
    /// The cart.
    pub cart: CartId,
    /// What is in it: 1 to 100 SKUs, each once.
    pub lines: Vec<CartLine>,
    /// For how long.
    pub ttl: Ttl,
    /// Makes the request safe to repeat.
    pub idempotency_key: Option<IdempotencyKey>,
}

/// A line of a cart.
#[derive(Debug, Clone)]
pub struct CartLine {
    /// The SKU.
    pub sku: Sku,
    /// How many units.
    pub quantity: Quantity,
}

/// The outcome of the hold of a cart. What it lists is in the order of the lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CartHold {
    /// All lines are reserved.
    Held(Vec<Reservation>),
    /// The same request was made before, and all of it is held or sold: its reservations, as they are now.
    Replayed(Vec<Reservation>),
    /// The same request was made before, and of it these hold nothing any more.
    Ended(Vec<EndedLine>),
    /// The same idempotency key was used before with other lines, or another time.
    Conflict,
    /// Some lines cannot be held, for these reasons, and nothing was.
    Short(Vec<Option<Shortage>>),
    /// The cart lists as many reservations as it can, and none of them has ended.
    Full,
}

/// Why a line of a cart cannot be held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shortage {
    /// The SKU was never seeded.
    UnknownSku,
    /// Too few units, and none on lapsed holds.
    Insufficient {
        /// How many units are available.
        available: u64,
    },
}

/// A line on its way.
struct Line {
    keys: StockKeys,
    id: ReservationId,
    quantity: String,
    shortage: Option<Shortage>,
    lapsed: Lapsed,
}

impl Engine {
    /// Reserves all lines of a cart, or none. Script `cart_hold`. Before a refusal for lack of units, it sweeps what has
    /// lapsed on the SKUs. When the cart is full, it forgets the reservations that have ended.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn hold_cart(&self, request: &CartHoldRequest) -> Result<CartHold, Error> {
        let CartHoldRequest { cart, idempotency_key, .. } = request;
        let line = |CartLine { sku, quantity }: &CartLine| {
            let keys = self.layout.stock(sku);
            let id = match idempotency_key {
                Some(key) => ReservationId::of_cart_line(key, cart, sku, keys.shard.number),
                None => ReservationId::mint(keys.shard.number),
            };
            Line { id, quantity: quantity.to_string(), keys, shortage: None, lapsed: Lapsed::default() }
        };
        let mut lines: Vec<Line> = request.lines.iter().map(line).collect();
        let operation = match idempotency_key {
            Some(key) => OperationId::of_cart_hold(key, cart),
            None => OperationId::mint(),
        };
        let mut others = Vec::new();
        loop {
            let replies = self.call_cart_hold(request, &lines, operation, &others).await?;
            let parts: Vec<Vec<&str>> = replies.iter().map(Reply::parts).collect();
            let says = |word: &str| parts.iter().any(|parts| parts[0] == word);
            if says("HELD") {
                return self.held_lines(request, &lines, &parts).map(CartHold::Held);
            } else if says("CONFLICT") {
                return Ok(CartHold::Conflict);
            } else if says("FULL") {
                if !others.is_empty() {
                    return Ok(CartHold::Full);
                }
                others = self.ended(cart).await?;
                if others.is_empty() {
                    return Ok(CartHold::Full);
                }
            } else if says("REPLAYED") || says("NOT_FOUND") {
                return self.replayed_lines(request, &lines, &parts).await;
            } else {
                for (line, parts) in lines.iter_mut().zip(&parts) {
                    line.take(parts)?;
                }
                if !lines.iter().any(|line| line.lapsed.may_suffice()) {
                    return Ok(CartHold::Short(lines.iter().map(|line| line.shortage).collect()));
                }
                for Line { keys, lapsed, .. } in lines.iter_mut().filter(|line| line.lapsed.may_suffice()) {
                    self.sweep_for(keys, lapsed).await?;
                }
            }
        }
    }

    async fn call_cart_hold(
        &self,
        request: &CartHoldRequest,
        lines: &[Line],
        operation: OperationId,
        others: &[String],
    ) -> Result<Vec<Reply>, Error> {
        // The SKUs of a call are of one shard: there is only one.
        let shard = self.layout.first();
        let (cart, operation) = (shard.cart(&request.cart), shard.operation(&operation));
        let reservations: Vec<String> = lines.iter().map(|line| shard.reservation(&line.id)).collect();
        let mut names = vec![&*shard.audit, &*shard.due, &*shard.settings, &*cart, &*operation];
        for (line, reservation) in lines.iter().zip(&reservations) {
            names.extend([&*line.keys.inventory, &*line.keys.active, &**reservation]);
        }
        names.extend(others.iter().map(String::as_str));
        let ttl_ms = request.ttl.as_ms().to_string();
        let mut arguments = vec![if request.idempotency_key.is_some() { "once" } else { "" }, &*ttl_ms];
        arguments.extend(lines.iter().map(|line| line.quantity.as_str()));
        self.reads.gate.sells();
        let replies = self.scripts.call("cart_hold", &names, &arguments).await?;
        let is_understood = replies.len() == lines.len() && replies.iter().all(|reply| !reply.parts().is_empty());
        if is_understood { Ok(replies) } else { Err(malformed("cart_hold")) }
    }

    fn held_lines(
        &self,
        request: &CartHoldRequest,
        lines: &[Line],
        parts: &[Vec<&str>],
    ) -> Result<Vec<Reservation>, Error> {
        let held = request.lines.iter().zip(lines).zip(parts).map(|((asked, line), parts)| {
            let ["HELD", expires_at, created_at] = parts[..] else { return Err(malformed("cart_hold")) };
            self.known_skus.remember(line.id, &asked.sku);
            let created_at_ms = number(created_at)?;
            Ok(Reservation {
                id: line.id,
                cart: request.cart.clone(),
                sku: asked.sku.clone(),
                quantity: asked.quantity,
                state: ReservationState::Active,
                reason: String::new(),
                expires_at_ms: number(expires_at)?,
                created_at_ms,
                updated_at_ms: created_at_ms,
                metadata: None,
                initial_quantity: None,
                returned: 0,
                confirmed_at_ms: None,
            })
        });
        held.collect()
    }

    /// The lines of a replay. What is shown as active may be due. The hold stands, whether it can be read again or not.
    async fn replayed_lines(
        &self,
        request: &CartHoldRequest,
        lines: &[Line],
        parts: &[Vec<&str>],
    ) -> Result<CartHold, Error> {
        let ids: Vec<ReservationId> = lines.iter().map(|line| line.id).collect();
        let told = ids.iter().zip(parts).map(|(id, parts)| match &parts[..] {
            ["REPLAYED", record @ ..] => Reservation::read(*id, record).map(Some),
            ["NOT_FOUND"] => Ok(None),
            _ => Err(malformed("cart_hold")),
        });
        let mut records = told.collect::<Result<Vec<_>, _>>()?;
        if records.iter().flatten().any(Reservation::is_active)
            && let Ok(now) = self.records(&self.redis, &ids).await
        {
            for (record, now) in records.iter_mut().zip(now) {
                // An id whose record was dropped may be another reservation's now.
                if record.is_some() && now.is_some() {
                    *record = now;
                }
            }
        }
        let ended = request.lines.iter().zip(&ids).zip(&records).filter_map(|((line, id), record)| match record {
            Some(record) if record.state == ReservationState::Released => Some(record.into()),
            Some(_) => None,
            None => Some(EndedLine { id: *id, sku: line.sku.clone(), state: None, reason: String::new() }),
        });
        let ended: Vec<EndedLine> = ended.collect();
        Ok(if ended.is_empty() {
            CartHold::Replayed(records.into_iter().flatten().collect())
        } else {
            CartHold::Ended(ended)
        })
    }

    /// The keys of the reservations of a cart that have ended, as far as they can be forgotten.
    async fn ended(&self, cart: &CartId) -> Result<Vec<String>, Error> {
        let is_over = |record: &Reservation| record.state == ReservationState::Released;
        let ids = self.index(&self.redis, cart).await?;
        let records = self.records(&self.redis, &ids).await?;
        let ended = ids.iter().zip(&records).filter(|(_, record)| record.as_ref().is_none_or(is_over));
        Ok(ended.map(|(id, _)| self.layout.reservation(id)).take(NAMED_AT_MOST).collect())
    }
}

impl Line {
    fn take(&mut self, parts: &[&str]) -> Result<(), Error> {
        let mut due = 0;
        self.shortage = match parts {
            ["WITHDRAWN"] => None,
            ["UNKNOWN_SKU"] => Some(Shortage::UnknownSku),
            ["INSUFFICIENT", available, lapsed] => {
                due = number(lapsed)?;
                Some(Shortage::Insufficient { available: number(available)? })
            }
            _ => return Err(malformed("cart_hold")),
        };
        self.lapsed.note(due);
        Ok(())
    }
}
