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
    /// For how long.
    pub ttl: Ttl,
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
        /// How many units are available.
        available: u64,
    },
}

impl Engine {
    /// Moves units from available to reserved. Script `hold`, or `hold_with_metadata`. Before a refusal for lack of units, it sweeps what has
    /// lapsed on the SKU.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn hold(&self, request: HoldRequest) -> Result<Hold, Error> {
        let keys = self.layout.stock(&request.sku);
        let id = match &request.idempotency_key {
            Some(key) => ReservationId::from_idempotency_key(key, keys.shard.number),
            None => ReservationId::mint(keys.shard.number),
        };
        let mut before = Lapsed::default();
        loop {
            let (outcome, lapsed) = self.hold_once(&keys, id, &request).await?;
            before.note(lapsed);
            if !before.may_suffice() {
                return Ok(outcome);
            }
            self.sweep_for(&keys, &mut before).await?;
        }
    }

    async fn hold_once(
        &self,
        keys: &StockKeys,
        id: ReservationId,
        request: &HoldRequest,
    ) -> Result<(Hold, u64), Error> {
        let (cart, ttl_ms) = (request.cart.as_str().to_owned(), request.ttl.as_ms());
        let mut arguments = vec![cart, request.quantity.to_string(), ttl_ms.to_string()];
        let holds = match &request.metadata {
            Some(metadata) => {
                arguments.push(metadata.to_json());
                &self.holds_with_metadata
            }
            None => &self.holds,
        };
        self.reads.gate.sells();
        let reply = of_shard(holds, keys).submit(item(keys, id, arguments)).await?;
        Ok(match &*reply.parts() {
            ["HELD", expires_at, created_at] => {
                self.known_skus.remember(id, &request.sku);
                (Hold::Held(Reservation::held(id, request, expires_at, created_at)?), 0)
            }
            ["REPLAYED", record @ ..] => {
                // The script has compared the metadata.
                let metadata = request.metadata.clone();
                let record = Reservation { metadata, ..Reservation::read(id, record)? };
                // The script ignores the time, but a request for another time is another request.
                if !self.is_held_for(&record, ttl_ms).await? {
                    return Ok((Hold::Conflict { field: "ttlSeconds".to_owned() }, 0));
                }
                // A reservation that is shown as active may be due. The hold stands, whether this read succeeds or not.
                let now =
                    if record.is_active() { self.reservation_by(&self.redis, id).await.ok().flatten() } else { None };
                (Hold::Replayed(now.unwrap_or(record)), 0)
            }
            ["CONFLICT", field] => (Hold::Conflict { field: (*field).to_owned() }, 0),
            ["UNKNOWN_SKU"] => (Hold::UnknownSku, 0),
            ["INSUFFICIENT", available, lapsed] => {
                (Hold::Insufficient { available: number(available)? }, number(lapsed)?)
            }
            _ => return Err(malformed("hold")),
        })
    }

    /// Whether a reservation was held for this time. Its expiry does not say so once it was extended: from then on its
    /// record keeps the time.
    async fn is_held_for(&self, record: &Reservation, ttl_ms: u64) -> Result<bool, Error> {
        if record.ttl_ms() == ttl_ms && record.updated_at_ms == record.created_at_ms {
            return Ok(true);
        }
        let key = self.layout.reservation(&record.id);
        let kept = self.redis.hash_field(&key, "ttlMs").await.map_err(Error::retry_safe)?;
        Ok(kept.map_or(Ok(record.ttl_ms()), |kept| number(&kept))? == ttl_ms)
    }
}
