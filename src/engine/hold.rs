//! Holding: a cart reserves available units for a time. Script `hold`.

use super::expiry::Lapsed;
use super::record::{malformed, number};
use super::{Engine, Error, Quantity, Reservation, Ttl, item, of_shard};
use crate::keys::{CartId, IdempotencyKey, Metadata, ReservationId, Sku, StockKeys};

/// A request to hold units.
#[derive(Debug, Clone)]
pub struct HoldRequest {
    /// The cart.
    pub cart: CartId,
    /// The SKU.
    pub sku: Sku,
    /// How many units.
    pub quantity: Quantity,
    /// For how long; if that is left open, 10 minutes, or less when the rules of the SKU say so.
    pub ttl: Option<Ttl>,
    /// What the reservation keeps for its client.
    pub metadata: Option<Metadata>,
    /// Makes the request safe to repeat.
    pub idempotency_key: Option<IdempotencyKey>,
}

/// The outcome of a hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hold {
    /// The units are reserved.
    Held(Reservation),
    /// The same request was made before: its reservation, as it is now.
    Replayed(Reservation),
    /// The same idempotency key was used before with another request.
    Conflict {
        /// The first field that differs.
        field: String,
    },
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
    /// The SKU has a limit for each cart, and the cart lists as many reservations as it can.
    CartFull,
}

impl Engine {
    /// Moves units from available to reserved. Script `hold`, or `hold_with_metadata`; of a SKU with a limit for each
    /// cart, `cart_hold`. Before a refusal for lack of units, it sweeps what has lapsed on the SKU.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn hold(&self, request: HoldRequest) -> Result<Hold, Error> {
        let keys = self.layout.stock(&request.sku);
        let id = match &request.idempotency_key {
            Some(key) => ReservationId::of_hold(key, &request.sku, keys.shard.number),
            None => ReservationId::mint(keys.shard.number),
        };
        let mut before = Lapsed::default();
        loop {
            let Some((outcome, lapsed)) = self.hold_once(&keys, id, &request).await? else {
                // Boxed: a rare request must not make the state of every request larger.
                match Box::pin(self.hold_by_cart(&keys, id, &request)).await? {
                    Some(outcome) => return Ok(outcome),
                    None => continue,
                }
            };
            before.note(lapsed);
            if !before.may_suffice() {
                return Ok(outcome);
            }
            self.sweep_for(&keys, &mut before).await?;
        }
    }

    /// The outcome of one call, and how many holds of the SKU are due. `None` when the SKU has a limit for each cart.
    async fn hold_once(
        &self,
        keys: &StockKeys,
        id: ReservationId,
        request: &HoldRequest,
    ) -> Result<Option<(Hold, u64)>, Error> {
        let mut arguments =
            vec![request.cart.as_str().to_owned(), request.quantity.to_string(), ttl_argument(request.ttl)];
        let holds = match &request.metadata {
            Some(metadata) => {
                arguments.push(metadata.to_json());
                &self.holds_with_metadata
            }
            None => &self.holds,
        };
        self.reads.gate.sells();
        let reply = of_shard(holds, keys).submit(item(keys, id, arguments)).await?;
        Ok(Some(match &*reply.parts() {
            ["HELD", expires_at, created_at] => {
                self.known_skus.remember(id, &request.sku);
                (Hold::Held(Reservation::held(id, request, expires_at, created_at)?), 0)
            }
            ["REPLAYED", record @ ..] => {
                // The script has compared the metadata.
                let metadata = request.metadata.clone();
                let record = Reservation { metadata, ..Reservation::read(id, record)? };
                // The script ignores the time, but a request for another time is another request.
                if !self.is_held_for(&record, request.ttl).await? {
                    return Ok(Some((Hold::Conflict { field: "ttlSeconds".to_owned() }, 0)));
                }
                // A reservation that is shown as active may be due. The hold stands, whether this read succeeds or not.
                let now =
                    if record.is_active() { self.reservation_by(&self.redis, id).await.ok().flatten() } else { None };
                (Hold::Replayed(now.unwrap_or(record)), 0)
            }
            ["CONFLICT", field] => (Hold::Conflict { field: (*field).to_owned() }, 0),
            ["UNKNOWN_SKU"] => (Hold::UnknownSku, 0),
            ["BY_CART"] => return Ok(None),
            ["TOO_LONG", max_ttl_ms] => (Hold::TooLong { max_ttl_ms: number(max_ttl_ms)? }, 0),
            ["INSUFFICIENT", available, lapsed] => {
                (Hold::Insufficient { available: number(available)? }, number(lapsed)?)
            }
            _ => return Err(malformed("hold")),
        }))
    }

    /// Whether a reservation was held for this time. Its expiry does not say so once it was extended: from then on its
    /// record keeps the time.
    async fn is_held_for(&self, record: &Reservation, ttl: Option<Ttl>) -> Result<bool, Error> {
        let is_asked = |held_ms| match ttl {
            Some(ttl) => held_ms == ttl.as_ms(),
            // The rules of the SKU may have made it shorter.
            None => held_ms <= Ttl::DEFAULT.as_ms(),
        };
        if is_asked(record.ttl_ms()) && record.updated_at_ms == record.created_at_ms {
            return Ok(true);
        }
        let key = self.layout.shard_of(&record.sku).reservation(&record.id);
        let kept = self.redis.hash_field(&key, "ttlMs").await.map_err(Error::retry_safe)?;
        Ok(is_asked(kept.map_or(Ok(record.ttl_ms()), |kept| number(&kept))?))
    }
}

/// The argument of the scripts for how long a hold lasts.
pub(super) fn ttl_argument(ttl: Option<Ttl>) -> String {
    ttl.map_or_else(|| "default".to_owned(), |ttl| ttl.as_ms().to_string())
}
