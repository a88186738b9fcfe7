//! The operations: one typed method for each, one outcome enum for each script. No HTTP, no sockets.

mod amount;
mod error;
mod expiry;
mod gate;
mod group_commit;
mod history;
mod hold;
mod lapsed;
mod read;
mod readiness;
mod record;
mod seed;
mod settings;
mod settle;

use std::sync::Arc;

use crate::keys::{Layout, ReservationId, ShardKeys, Sku, StockKeys};
use crate::redis::Redis;
use crate::scripts::{Catalogue, Reply, Scripts};

pub use amount::{ActiveLimit, AuditLimit, Options, Quantity, Ttl};
pub use error::Error;
pub use expiry::Swept;
use expiry::Turns;
use gate::Gate;
pub use group_commit::MAX_BATCH;
use group_commit::{Call, GroupCommit, Item};
pub use hold::{Hold, HoldRequest};
use read::Reads;
pub use readiness::Impairment;
use readiness::Looks;
pub(crate) use record::malformed;
pub use record::{Event, EventKind, Reservation, ReservationState, Stock};
pub use settings::{Change, Settings};
pub use settle::Settle;

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

    /// Expires everything that is due on a SKU. How many reservations that were.
    ///
    /// # Errors
    /// See [`Error`]. What was expired until then stays so.
    pub async fn expire_due(&self, sku: &Sku) -> Result<u64, Error> {
        self.sweep_all(&self.layout.stock(sku)).await
    }

    /// The events of a SKU before one of its events, newest first, 1 to 100: one page, which waits for no other reads. None
    /// when it is no event of this SKU.
    pub(crate) async fn events_linked_before(&self, sku: &Sku, event: &str, count: usize) -> Result<Vec<Event>, Error> {
        let events = self.reads.linked(&self.layout.stock(sku), count, Some(event)).await?;
        Ok(events.unwrap_or_default())
    }

    fn item(&self, keys: &StockKeys, id: ReservationId, arguments: Vec<String>) -> Item {
        Item { keys: [keys.inventory.clone(), keys.active.clone(), self.layout.reservation(&id)], arguments }
    }
}

/// The reply of a call that was about one thing.
fn only(replies: &[Reply]) -> Result<&Reply, Error> {
    match replies {
        [reply] => Ok(reply),
        _ => Err(malformed("a script")),
    }
}
