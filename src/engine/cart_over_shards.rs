//! Holding a cart whose SKUs are in several shards. No script can hold in two of them, so they are held one after
//! another, the lowest first, each all or nothing; when one refuses, what was held before is released.
//!
//! Two carts that want the same SKUs meet at the lowest shard: one of them gets all. A hold without a reply is repeated
//! until it is decided, because a release that overtakes it would leave it behind. A server that dies in between leaves
//! holds that lapse in their time; a client that retries with the same key has them completed. Until then a reader may
//! see a part of a cart.

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};

use super::cart_hold::Line;
use super::hold::ttl_argument;
use super::{CartHold, CartHoldRequest, Engine, Error};
use crate::keys::{Metadata, OperationId, ReservationId, StockKeys};

/// How often a call without a reply is repeated.
pub(super) const TRIES: u32 = 3;

/// How often one key can be tried again after it was refused.
const MAX_ATTEMPTS: u32 = 100;

/// The lines of one shard, each with its place in the request.
type Part<'a> = (Vec<usize>, Vec<Line<'a>>);

/// What an attempt came to.
enum Attempt {
    Done(CartHold),
    /// An earlier request made it. It was refused in some shard, and what it held was released. Its ids are used up.
    Withdrawn(CartHold),
}

impl Engine {
    pub(super) async fn hold_cart_over_shards(&self, request: &CartHoldRequest) -> Result<CartHold, Error> {
        let mut attempt = 0;
        loop {
            match self.attempt(request, attempt).await? {
                Attempt::Done(outcome) => return Ok(outcome),
                Attempt::Withdrawn(outcome) if attempt == MAX_ATTEMPTS => return Ok(outcome),
                Attempt::Withdrawn(_) => attempt += 1,
            }
        }
    }

    async fn attempt(&self, request: &CartHoldRequest, attempt: u32) -> Result<Attempt, Error> {
        let operation = match &request.idempotency_key {
            Some(key) => OperationId::of_cart_hold(key, &request.cart, attempt),
            None => OperationId::mint(),
        };
        let mut parts = self.parts(request, attempt);
        if request.idempotency_key.is_some() && self.is_known_elsewhere(operation, &parts).await? {
            return Ok(Attempt::Done(CartHold::Conflict));
        }
        let mut records = Vec::with_capacity(request.lines.len());
        // The shards that were held, and those of them that were not held before.
        let (mut held, mut new) = (Vec::new(), Vec::new());
        let numbers: Vec<u16> = parts.keys().copied().collect();
        for number in numbers {
            let (places, lines) = parts.get_mut(&number).expect("a part");
            let outcome = match self.hold_part(request, lines, operation).await {
                Ok(CartHold::Held(of_part)) => {
                    records.extend(places.iter().copied().zip(of_part));
                    new.push(number);
                    held.push(number);
                    continue;
                }
                Ok(CartHold::Replayed(of_part)) => {
                    records.extend(places.iter().copied().zip(of_part));
                    held.push(number);
                    continue;
                }
                Ok(CartHold::Ended(of_part)) => {
                    let ended = CartHold::Ended(of_part);
                    if !self.is_withdrawn(&lines[0], operation).await? {
                        return Ok(Attempt::Done(ended));
                    }
                    let all: Vec<u16> = parts.keys().copied().collect();
                    self.withdraw(&parts, &all, operation).await?;
                    return Ok(Attempt::Withdrawn(ended));
                }
                Ok(CartHold::Conflict) => {
                    self.withdraw(&parts, &new, operation).await?;
                    return Ok(Attempt::Done(CartHold::Conflict));
                }
                Ok(CartHold::Short(of_part)) => {
                    let mut shortages = vec![None; request.lines.len()];
                    for (place, shortage) in places.iter().zip(of_part) {
                        shortages[*place] = shortage;
                    }
                    Ok(CartHold::Short(shortages))
                }
                Ok(CartHold::Full) => Ok(CartHold::Full),
                Err(Error::Unknown(why)) => return Err(Error::Unknown(why)),
                Err(error) => Err(error),
            };
            self.withdraw(&parts, &held, operation).await?;
            return outcome.map(Attempt::Done);
        }
        records.sort_by_key(|(place, _)| *place);
        let records = records.into_iter().map(|(_, record)| record).collect();
        Ok(Attempt::Done(if new.is_empty() { CartHold::Replayed(records) } else { CartHold::Held(records) }))
    }

    /// The lines by shard, in the order of the shards.
    fn parts<'a>(&self, request: &'a CartHoldRequest, attempt: u32) -> BTreeMap<u16, Part<'a>> {
        let whole = fingerprint(request, attempt);
        let mut parts: BTreeMap<u16, Part> = BTreeMap::new();
        for (place, asked) in request.lines.iter().enumerate() {
            let keys = self.layout.stock(&asked.sku);
            let number = keys.shard.number;
            let id = match &request.idempotency_key {
                Some(key) => ReservationId::of_cart_part(key, &request.cart, &asked.sku, &whole, number),
                None => ReservationId::mint(number),
            };
            let (places, lines) = parts.entry(number).or_default();
            places.push(place);
            lines.push(Line::new(keys, id, asked));
        }
        parts
    }

    /// Whether the same key has held anything in a shard that this request does not need: then it was another request.
    async fn is_known_elsewhere(&self, operation: OperationId, parts: &BTreeMap<u16, Part<'_>>) -> Result<bool, Error> {
        let others = self.layout.shards().iter().filter(|shard| !parts.contains_key(&shard.number));
        let keys: Vec<String> = others.map(|shard| shard.operation(&operation)).collect();
        let found = self.redis.fields(&keys, &["cartId"]).await.map_err(Error::retry_safe)?;
        Ok(found.iter().flatten().any(Option::is_some))
    }

    /// Holds the lines of one shard, and repeats the call while its outcome is unknown.
    async fn hold_part(
        &self,
        request: &CartHoldRequest,
        lines: &mut [Line<'_>],
        operation: OperationId,
    ) -> Result<CartHold, Error> {
        for _ in 1..TRIES {
            match self.hold_lines(request, lines, operation).await {
                Err(Error::Unknown(_)) => {}
                decided => return decided,
            }
        }
        self.hold_lines(request, lines, operation).await
    }

    /// Releases what was held in some shards.
    ///
    /// # Errors
    /// [`Error::Unknown`], because something may be held until it lapses.
    async fn withdraw(
        &self,
        parts: &BTreeMap<u16, Part<'_>>,
        numbers: &[u16],
        operation: OperationId,
    ) -> Result<(), Error> {
        let token = withdrawal(operation);
        for number in numbers {
            let lines: Vec<(&StockKeys, ReservationId)> =
                parts[number].1.iter().map(|line| (&line.keys, line.id)).collect();
            let mut outcome = self.settle_lines("release", "each", &lines, &token).await;
            for _ in 1..TRIES {
                if outcome.is_ok() {
                    break;
                }
                outcome = self.settle_lines("release", "each", &lines, &token).await;
            }
            outcome
                .map_err(|error| Error::Unknown(format!("a part of the cart may be held until it lapses: {error}")))?;
        }
        Ok(())
    }

    /// Whether a line was released because another shard refused.
    async fn is_withdrawn(&self, line: &Line<'_>, operation: OperationId) -> Result<bool, Error> {
        let key = line.keys.shard.reservation(&line.id);
        let token = self.redis.hash_field(&key, "token").await.map_err(Error::retry_safe)?;
        Ok(token == Some(withdrawal(operation)))
    }
}

/// The token with which what another shard refused is released.
fn withdrawal(operation: OperationId) -> String {
    format!("withdrawn {operation}")
}

/// Says what the whole request is, to each of its shards: the ids of the lines come from it, so a shard that knows the
/// key from another request has other ids.
fn fingerprint(request: &CartHoldRequest, attempt: u32) -> String {
    let mut lines: Vec<String> = request.lines.iter().map(|line| format!("{} {}", line.sku, line.quantity)).collect();
    lines.sort_unstable();
    let metadata = request.metadata.as_ref().map(Metadata::to_json).unwrap_or_default();
    let whole = [&[attempt.to_string(), ttl_argument(request.ttl), metadata][..], &lines].concat().join("\n");
    Sha256::digest(whole).iter().map(|byte| format!("{byte:02x}")).collect()
}
