//! Holding a cart: all of its lines or none, with one expiry. Script `cart_hold`.

use std::sync::Arc;

use super::cart::EndedLine;
use super::expiry::Lapsed;
use super::hold::ttl_argument;
use super::record::{malformed, number};
use super::{Engine, Error, Hold, HoldRequest, Quantity, Reservation, ReservationState, Ttl};
use crate::keys::{CartId, IdempotencyKey, Metadata, OperationId, ReservationId, Shard, Sku, StockKeys};
use crate::scripts::Reply;

/// A request to hold a cart.
#[derive(Debug, Clone)]
pub struct CartHoldRequest {
    /// The cart.
    pub cart: CartId,
    /// What is in it: 1 to 100 SKUs, each once.
    pub lines: Vec<CartLine>,
    /// For how long; if that is left open, 10 minutes, or less when the rules of a SKU say so.
    pub ttl: Option<Ttl>,
    /// What each of the reservations keeps for its client.
    pub metadata: Option<Metadata>,
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
    /// The same idempotency key was used before with other lines, another time or other metadata.
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
        /// How many units can be held.
        available: u64,
    },
    /// The rules of the SKU allow no hold of this length.
    TooLong {
        /// The longest that they allow, milliseconds.
        max_ttl_ms: u64,
    },
    /// The rules of the SKU allow the cart no more units of it.
    CartLimit {
        /// How many units one cart may have.
        per_cart: u64,
        /// How many units this cart has, held or sold.
        units: u64,
    },
}

/// A line on its way.
pub(super) struct Line<'a> {
    pub asked: &'a CartLine,
    pub keys: StockKeys,
    pub id: ReservationId,
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
        if self.layout.is_sharded() {
            return self.hold_cart_over_shards(request).await;
        }
        let CartHoldRequest { cart, idempotency_key, .. } = request;
        let lines = request.lines.iter().map(|line| {
            let keys = self.layout.stock(&line.sku);
            let id = match idempotency_key {
                Some(key) => ReservationId::of_cart_line(key, cart, &line.sku, keys.shard.number),
                None => ReservationId::mint(keys.shard.number),
            };
            Line::new(keys, id, line)
        });
        let mut lines: Vec<Line> = lines.collect();
        let operation = match idempotency_key {
            Some(key) => OperationId::of_cart_hold(key, cart, 0),
            None => OperationId::mint(),
        };
        self.hold_lines(request, &mut lines, operation).await
    }

    /// Holds a SKU that has a limit for each cart. `None` when the id is in use by now: the script `hold` tells of what.
    pub(super) async fn hold_by_cart(
        &self,
        keys: &StockKeys,
        id: ReservationId,
        request: &HoldRequest,
    ) -> Result<Option<Hold>, Error> {
        let HoldRequest { cart, sku, quantity, ttl, metadata, .. } = request.clone();
        let asked = CartLine { sku, quantity };
        let mut line = [Line::new(keys.clone(), id, &asked)];
        // The id makes it safe to repeat.
        let request = CartHoldRequest { cart, lines: Vec::new(), ttl, metadata, idempotency_key: None };
        let outcome = self.hold_lines(&request, &mut line, OperationId::mint()).await?;
        let shortage = match outcome {
            CartHold::Held(mut records) => return Ok(records.pop().map(Hold::Held)),
            CartHold::Full => return Ok(Some(Hold::CartFull)),
            CartHold::Short(shortages) => shortages.into_iter().next().flatten(),
            CartHold::Replayed(_) | CartHold::Ended(_) | CartHold::Conflict => None,
        };
        Ok(shortage.map(|shortage| match shortage {
            Shortage::UnknownSku => Hold::UnknownSku,
            Shortage::Insufficient { available } => Hold::Insufficient { available },
            Shortage::TooLong { max_ttl_ms } => Hold::TooLong { max_ttl_ms },
            Shortage::CartLimit { per_cart, units } => Hold::CartLimit { per_cart, units },
        }))
    }

    /// Holds lines of a cart, all of one shard.
    pub(super) async fn hold_lines(
        &self,
        request: &CartHoldRequest,
        lines: &mut [Line<'_>],
        operation: OperationId,
    ) -> Result<CartHold, Error> {
        let shard = Arc::clone(&lines[0].keys.shard);
        let mut others: Option<Vec<String>> = None;
        loop {
            let named = others.as_deref().unwrap_or_default();
            let replies = self.call_cart_hold(request, lines, operation, named).await?;
            let parts: Vec<Vec<&str>> = replies.iter().map(Reply::parts).collect();
            let says = |word: &str| parts.iter().any(|parts| parts[0] == word);
            if says("HELD") {
                return self.held_lines(request, lines, &parts).map(CartHold::Held);
            } else if says("CONFLICT") {
                return Ok(CartHold::Conflict);
            } else if says("FULL") && others.is_some() {
                return Ok(CartHold::Full);
            } else if says("FULL") || says("UNSEEN") {
                others = Some(self.listed(&shard, &request.cart).await?);
            } else if says("REPLAYED") || says("NOT_FOUND") {
                return self.replayed_lines(request, lines, &parts).await;
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
        lines: &[Line<'_>],
        operation: OperationId,
        others: &[String],
    ) -> Result<Vec<Reply>, Error> {
        let shard = &lines[0].keys.shard;
        let (cart, operation) = (shard.cart(&request.cart), shard.operation(&operation));
        let reservations: Vec<String> = lines.iter().map(|line| shard.reservation(&line.id)).collect();
        let mut names = vec![&*shard.audit, &*shard.due, &*shard.settings, &*cart, &*operation];
        for (line, reservation) in lines.iter().zip(&reservations) {
            names.extend([&*line.keys.inventory, &*line.keys.active, &**reservation]);
        }
        names.extend(others.iter().map(String::as_str));
        let ttl = ttl_argument(request.ttl);
        let metadata = request.metadata.as_ref().map(Metadata::to_json).unwrap_or_default();
        let once = if request.idempotency_key.is_some() { "once" } else { "" };
        let mut arguments = vec![once, &*ttl, &*metadata];
        arguments.extend(lines.iter().map(|line| line.quantity.as_str()));
        self.reads.gate.sells();
        let replies = self.scripts.call("cart_hold", &names, &arguments).await?;
        let is_understood = replies.len() == lines.len() && replies.iter().all(|reply| !reply.parts().is_empty());
        if is_understood { Ok(replies) } else { Err(malformed("cart_hold")) }
    }

    fn held_lines(
        &self,
        request: &CartHoldRequest,
        lines: &[Line<'_>],
        parts: &[Vec<&str>],
    ) -> Result<Vec<Reservation>, Error> {
        let held = lines.iter().zip(parts).map(|(line, parts)| {
            let ["HELD", expires_at, created_at] = parts[..] else { return Err(malformed("cart_hold")) };
            let asked = line.asked;
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
                metadata: request.metadata.clone(),
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
        lines: &[Line<'_>],
        parts: &[Vec<&str>],
    ) -> Result<CartHold, Error> {
        let ids: Vec<ReservationId> = lines.iter().map(|line| line.id).collect();
        let told = ids.iter().zip(parts).map(|(id, parts)| match &parts[..] {
            ["REPLAYED", record @ ..] => {
                // The script has compared the metadata.
                let metadata = request.metadata.clone();
                Reservation::read(*id, record).map(|record| Some(Reservation { metadata, ..record }))
            }
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
        let ended = lines.iter().zip(&records).filter_map(|(line, record)| match record {
            Some(record) if record.state == ReservationState::Released => Some(record.into()),
            Some(_) => None,
            None => Some(EndedLine { id: line.id, sku: line.asked.sku.clone(), state: None, reason: String::new() }),
        });
        let ended: Vec<EndedLine> = ended.collect();
        Ok(if ended.is_empty() {
            CartHold::Replayed(records.into_iter().flatten().collect())
        } else {
            CartHold::Ended(ended)
        })
    }

    /// The keys of the reservations that a cart lists in a shard, 100 at most; those that are due are expired first.
    pub(super) async fn listed(&self, shard: &Shard, cart: &CartId) -> Result<Vec<String>, Error> {
        let ids = self.index(&self.redis, &[shard.cart(cart)]).await?;
        self.records(&self.redis, &ids).await?;
        Ok(ids.iter().map(|id| shard.reservation(id)).collect())
    }
}

impl<'a> Line<'a> {
    pub(super) fn new(keys: StockKeys, id: ReservationId, asked: &'a CartLine) -> Self {
        Self { asked, keys, id, quantity: asked.quantity.to_string(), shortage: None, lapsed: Lapsed::default() }
    }

    fn take(&mut self, parts: &[&str]) -> Result<(), Error> {
        let mut due = 0;
        self.shortage = match parts {
            ["WITHDRAWN"] => None,
            ["UNKNOWN_SKU"] => Some(Shortage::UnknownSku),
            ["INSUFFICIENT", available, lapsed] => {
                due = number(lapsed)?;
                Some(Shortage::Insufficient { available: number(available)? })
            }
            ["TOO_LONG", max_ttl_ms] => Some(Shortage::TooLong { max_ttl_ms: number(max_ttl_ms)? }),
            ["CART_LIMIT", per_cart, units] => {
                Some(Shortage::CartLimit { per_cart: number(per_cart)?, units: number(units)? })
            }
            _ => return Err(malformed("cart_hold")),
        };
        self.lapsed.note(due);
        Ok(())
    }
}
