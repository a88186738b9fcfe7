//! The operations: one typed method for each, one outcome enum for each script. No HTTP, no sockets.

mod amount;
mod books;
mod check;
mod error;
mod expiry;
mod gate;
mod group_commit;
mod history;
mod judge;
mod lapsed;
mod mend;
mod outcome;
mod read;
mod readiness;
mod settings;

use std::sync::Arc;

use crate::keys::{CartId, IdempotencyKey, Layout, ReservationId, ShardKeys, Sku, StockKeys};
use crate::redis::Redis;
use crate::scripts::{Catalogue, Reply, Scripts};

pub use amount::{ActiveLimit, AuditLimit, Options, Quantity, SeedQuantity, Ttl};
pub use check::{Census, Checked, Damage, Finding, Thoroughness};
pub use error::Error;
pub use expiry::Swept;
use expiry::{SWEPT_PER_CALL, Turns};
use gate::Gate;
pub use group_commit::MAX_BATCH;
use group_commit::{Call, GroupCommit, Item};
pub use mend::Mended;
pub use outcome::{Event, Hold, Reservation, ReservationState, Settle, Stock};
use outcome::{Seed, odd};
use read::Reads;
pub use readiness::Impairment;
use readiness::Looks;
pub use settings::{Change, Settings};

/// Times that a drain may get nowhere before that is taken for damage and not for a race.
const MAX_STALLS: u32 = 3;

/// Holds that one call of `seed` releases at most: the script takes no more.
const DRAINED_PER_CALL: usize = 100;

/// A request to hold units.
#[derive(Debug, Clone)]
pub struct HoldRequest {
    /// Who holds.
    pub cart: CartId,
    /// What.
    pub sku: Sku,
    /// How many units.
    pub quantity: Quantity,
    /// For how long.
    pub ttl: Ttl,
    /// Makes the request safe to repeat.
    pub idempotency_key: Option<IdempotencyKey>,
}

/// The inventory of one Redis.
pub struct Engine {
    redis: Redis,
    scripts: Arc<Scripts>,
    layout: Layout,
    holds: GroupCommit,
    confirms: GroupCommit,
    releases: GroupCommit,
    sweeps: Turns,
    looks: Looks,
    reads: Arc<Reads>,
    options: Options,
}

impl Engine {
    /// An engine on `redis`; nothing is sent yet.
    pub fn new(redis: Redis) -> Self {
        Self::with(redis, Options::default())
    }

    /// As [`Self::new`], with options.
    pub fn with(redis: Redis, options: Options) -> Self {
        Self::within(redis, options, Arc::default())
    }

    /// The same by connections of its own, for another thread. What reads may take is shared.
    pub fn apart(&self) -> Self {
        Self::within(self.redis.apart(), self.options, Arc::clone(&self.reads.gate))
    }

    fn within(redis: Redis, options: Options, gate: Arc<Gate>) -> Self {
        let Options { max_batch, replicas } = options;
        let layout = Layout::UNSHARDED;
        let scripts = Scripts::new(Catalogue::embedded(), redis.clone()).wait_for_replicas(replicas);
        let scripts = Arc::new(scripts);
        let ShardKeys { audit, due, settings, .. } = layout.first_shard();
        let group = |name, keys: &[&String]| {
            let keys = keys.iter().map(|key| (*key).clone()).collect();
            GroupCommit::new(Call { scripts: Arc::clone(&scripts), name, keys }, max_batch)
        };
        Self {
            holds: group("hold", &[&audit, &due]),
            confirms: group("confirm", &[&audit, &due, &settings]),
            releases: group("release", &[&audit, &due, &settings]),
            reads: Reads::apart(&redis, layout, gate),
            scripts,
            redis,
            layout,
            sweeps: Turns::default(),
            looks: Looks::default(),
            options,
        }
    }

    /// Sets a SKU's stock to `quantity`, all available, and releases every live hold; 0 takes it off sale. Script `seed`.
    ///
    /// # Errors
    /// See [`Error`]. After the first of several calls any failure is [`Error::Unknown`]: seed again to finish.
    pub async fn seed(&self, sku: &Sku, quantity: SeedQuantity) -> Result<Stock, Error> {
        let keys = self.layout.stock(sku);
        let quantity = quantity.to_string();
        let (mut least_left, mut stalled) = (u64::MAX, 0);
        loop {
            match self.seed_once(sku, &keys, &quantity).await {
                Ok(Seed::Draining { left }) if left < least_left => (least_left, stalled) = (left, 0),
                Ok(Seed::Draining { .. }) if stalled < MAX_STALLS => stalled += 1,
                Ok(Seed::Draining { .. }) => return Err(Error::Broken(format!("the holds of {sku} do not drain"))),
                Ok(Seed::Seeded(stock)) => return Ok(stock),
                Err(Error::Unavailable(why)) if least_left < u64::MAX => return Err(Error::Unknown(why)),
                Err(error) => return Err(error),
            }
        }
    }

    /// One call of `seed`, which releases the earliest holds first.
    async fn seed_once(&self, sku: &Sku, keys: &StockKeys, quantity: &str) -> Result<Seed, Error> {
        let holds = self.earliest_holds(keys, DRAINED_PER_CALL).await?;
        let shard = &keys.shard;
        let mut names =
            vec![&*shard.audit, &*shard.due, &*shard.skus, &*shard.settings, &*keys.inventory, &*keys.active];
        names.extend(holds.iter().map(String::as_str));
        let replies = self.scripts.call("seed", &names, &[quantity]).await?;
        match &*only(&replies)?.parts() {
            ["DRAINING", left] => Ok(Seed::Draining { left: outcome::number(left)? }),
            ["SEEDED", quantity, updated_at, _version] => Ok(Seed::Seeded(Stock::seeded(sku, quantity, updated_at)?)),
            _ => Err(odd("seed")),
        }
    }

    /// Moves units from available to reserved. Script `hold`. Before it is refused for want of units, what has lapsed on
    /// the SKU is swept.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn hold(&self, request: HoldRequest) -> Result<Hold, Error> {
        let keys = self.layout.stock(&request.sku);
        let shard = self.layout.shard_of(&request.sku);
        let id = match &request.idempotency_key {
            Some(key) => ReservationId::from_idempotency_key(key, shard),
            None => ReservationId::mint(shard),
        };
        let (mut waited, mut left) = (false, None);
        loop {
            let (outcome, lapsed) = self.hold_once(&keys, id, &request).await?;
            // What lapses from now on does not count: there may be no end to it.
            let left = left.get_or_insert(lapsed);
            if lapsed == 0 || *left == 0 {
                return Ok(outcome);
            }
            // Only as many as one call takes: they may be enough.
            if self.in_turn(&keys, &mut waited, self.sweep_earliest(&keys)).await? {
                *left = left.saturating_sub(SWEPT_PER_CALL as u64);
            }
        }
    }

    async fn hold_once(
        &self,
        keys: &StockKeys,
        id: ReservationId,
        request: &HoldRequest,
    ) -> Result<(Hold, u64), Error> {
        let (cart, ttl_ms) = (request.cart.as_str().to_owned(), request.ttl.as_ms());
        let arguments = vec![cart, request.quantity.to_string(), ttl_ms.to_string()];
        self.reads.gate.sells();
        let reply = self.holds.submit(self.item(keys, id, arguments)).await?;
        Ok(match &*reply.parts() {
            ["HELD", expires_at, created_at] => {
                (Hold::Held(Reservation::held(id, request, expires_at, created_at)?), 0)
            }
            ["REPLAYED", record @ ..] => {
                let record = Reservation::read(id, record)?;
                // The script leaves the time out of account; a request for another time is another request all the same.
                if record.ttl_ms() != ttl_ms {
                    return Ok((Hold::Conflict { field: "ttlSeconds".to_owned() }, 0));
                }
                // What is shown as active may be due. The hold stands as it is, whether this look at it succeeds or not.
                let now =
                    if record.is_active() { self.reservation_by(&self.redis, id).await.ok().flatten() } else { None };
                (Hold::Replayed(now.unwrap_or(record)), 0)
            }
            ["CONFLICT", field] => (Hold::Conflict { field: (*field).to_owned() }, 0),
            ["UNKNOWN_SKU"] => (Hold::UnknownSku, 0),
            ["INSUFFICIENT", available, lapsed] => {
                (Hold::Insufficient { available: outcome::number(available)? }, outcome::number(lapsed)?)
            }
            _ => return Err(odd("hold")),
        })
    }

    /// Moves a reservation's units from reserved to confirmed, for good. Script `confirm`.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn confirm(&self, id: ReservationId, key: Option<&IdempotencyKey>) -> Result<Settle, Error> {
        self.settle(&self.confirms, id, key).await
    }

    /// Moves a reservation's units from reserved back to available. Script `release`.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn release(&self, id: ReservationId, key: Option<&IdempotencyKey>) -> Result<Settle, Error> {
        self.settle(&self.releases, id, key).await
    }

    async fn settle(
        &self,
        script: &GroupCommit,
        id: ReservationId,
        key: Option<&IdempotencyKey>,
    ) -> Result<Settle, Error> {
        self.reads.gate.sells();
        // A script may touch only the keys it is handed, so the SKU has to be known before the call.
        let reservation = self.layout.reservation(&id);
        let Some(sku) = self.redis.hash_field(&reservation, "sku").await.map_err(Error::without_doubt)? else {
            return Ok(Settle::NotFound);
        };
        let sku = Sku::parse(&sku).map_err(|_| odd("the SKU of a reservation"))?;
        let keys = self.layout.stock(&sku);
        let token = key.map(IdempotencyKey::token).unwrap_or_default();
        let reply = script.submit(self.item(&keys, id, vec![token])).await?;
        Ok(match &*reply.parts() {
            ["CONFIRMED" | "RELEASED", record @ ..] => Settle::Settled(Reservation::read(id, record)?),
            ["REPLAYED", record @ ..] => Settle::Replayed(Reservation::read(id, record)?),
            ["NOT_ACTIVE", state, reason] => {
                Settle::NotActive { state: ReservationState::read(state)?, reason: (*reason).to_owned() }
            }
            ["EXPIRED"] => Settle::Expired,
            ["NOT_FOUND"] => Settle::NotFound,
            _ => return Err(odd("confirm or release")),
        })
    }

    fn item(&self, keys: &StockKeys, id: ReservationId, arguments: Vec<String>) -> Item {
        Item { keys: [keys.inventory.clone(), keys.active.clone(), self.layout.reservation(&id)], arguments }
    }
}

/// The reply of a call that was about one thing.
fn only(replies: &[Reply]) -> Result<&Reply, Error> {
    match replies {
        [reply] => Ok(reply),
        _ => Err(odd("a script")),
    }
}
