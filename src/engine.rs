//! The operations: one typed method for each, one outcome enum for each script. No HTTP, no sockets.

mod adjust;
mod amount;
mod by_id;
mod cart;
mod cart_hold;
mod cart_over_shards;
mod cart_settle;
mod change;
mod due;
mod error;
mod event_place;
mod expiry;
mod extend;
mod follow;
mod gate;
mod group_commit;
mod history;
mod hold;
mod known_skus;
mod lapsed;
mod layout;
mod list;
mod merge;
pub(crate) mod metrics;
mod pace;
mod read;
mod readiness;
mod record;
mod returns;
mod rounds;
mod rules;
mod seed;
mod sell;
mod settings;
mod settle;

use std::sync::Arc;

use crate::keys::{Layout, ReservationId, Shard, Sku, StockKeys};
use crate::redis::Redis;
use crate::scripts::{Catalogue, Reply, Scripts};

pub use adjust::{Adjusted, Adjustment, How, Mode};
pub use amount::{
    ActiveLimit, AvailableBelow, Delta, MaxTtl, Options, PageLimit, PerCart, Quantity, SafetyStock, SeedQuantity, Ttl,
    Version,
};
pub use cart::EndedLine;
pub use cart_hold::{CartHold, CartHoldRequest, CartLine, Shortage};
pub use cart_settle::{CartExtend, CartSettle, LapsingLine, LimitedLine};
pub use change::{Changed, NewQuantity};
use due::Lanes;
pub use due::Swept;
pub use error::Error;
pub use event_place::EventPlace;
use expiry::Turns;
pub use extend::Extend;
pub use follow::{Followed, Follower};
use gate::Gate;
pub use group_commit::MAX_BATCH;
use group_commit::{Call, GroupCommit, Item};
pub use hold::{Hold, HoldRequest};
use known_skus::KnownSkus;
pub use layout::{claim_layout, standing_layout, written_layout};
pub use list::{Page, Place};
use read::Reads;
pub use readiness::Impairment;
use readiness::Looks;
pub(crate) use record::malformed;
pub use record::{Event, EventKind, Reservation, ReservationState, Stock};
pub use returns::{Return, ReturnRequest};
pub use rounds::Rounds;
pub use rules::Rules;
pub use seed::Seed;
pub use sell::{Sale, SaleRequest};
pub use settings::{Change, Settings};
pub use settle::Settle;

/// The inventory of one Redis.
pub struct Engine {
    redis: Redis,
    scripts: Arc<Scripts>,
    layout: Layout,
    /// One for each shard, like those below.
    holds: Vec<GroupCommit>,
    holds_with_metadata: Vec<GroupCommit>,
    confirms: Vec<GroupCommit>,
    releases: Vec<GroupCommit>,
    extends: Vec<GroupCommit>,
    sweeps: Turns,
    looks: Looks,
    reads: Arc<Reads>,
    known_skus: Arc<KnownSkus>,
    options: Options,
    lanes: Lanes,
}

impl Engine {
    /// An engine on `redis`, which has one shard; nothing is sent yet.
    pub fn new(redis: Redis) -> Self {
        Self::on(Layout::unsharded(), redis, Options::default())
    }

    /// The same on the layout that `redis` has: [`standing_layout`] tells it.
    pub fn on(layout: Layout, redis: Redis, options: Options) -> Self {
        Self::within(layout, redis, options, Arc::default(), Arc::default())
    }

    /// The shards, which determine the shape of every key.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The same with separate connections, for another thread. The limits of reads are shared, and so is what is known.
    pub fn with_own_connection(&self) -> Self {
        let (gate, known_skus) = (Arc::clone(&self.reads.gate), Arc::clone(&self.known_skus));
        Self::within(self.layout.clone(), self.redis.with_own_connection(), self.options, gate, known_skus)
    }

    fn within(layout: Layout, redis: Redis, options: Options, gate: Arc<Gate>, known_skus: Arc<KnownSkus>) -> Self {
        let Options { max_batch, replicas } = options;
        let scripts = Scripts::new(Catalogue::embedded(), redis.clone()).wait_for_replicas(replicas);
        let scripts = Arc::new(scripts);
        // One for each shard: calls that are sent together are in one hash slot.
        let group = |name, keys: fn(&Shard) -> Vec<String>| {
            let call = |shard: &Arc<Shard>| Call::new(&scripts, name, keys(shard));
            layout.shards().iter().map(|shard| GroupCommit::new(call(shard), max_batch)).collect()
        };
        let holding = |shard: &Shard| vec![shard.audit.clone(), shard.due.clone()];
        let settling = |shard: &Shard| vec![shard.audit.clone(), shard.due.clone(), shard.settings.clone()];
        Self {
            holds: group("hold", holding),
            holds_with_metadata: group("hold_with_metadata", holding),
            confirms: group("confirm", settling),
            releases: group("release", settling),
            extends: group("extend", settling),
            reads: Reads::on_own_connection(&redis, layout.clone(), gate),
            known_skus,
            lanes: Lanes::new(&redis),
            scripts,
            redis,
            layout,
            sweeps: Turns::default(),
            looks: Looks::default(),
            options,
        }
    }

    /// Expires everything that is due on a SKU. Returns the number of expired reservations.
    ///
    /// # Errors
    /// See [`Error`]. What was expired before the error stays expired.
    pub async fn expire_due(&self, sku: &Sku) -> Result<u64, Error> {
        self.sweep_all(&self.layout.stock(sku)).await
    }

    /// The events of a SKU before one of its events, newest first, 1 to 100: one page, which does not wait for other
    /// reads. `None` when `event` is not an event of this SKU.
    pub(crate) async fn events_linked_before(&self, sku: &Sku, event: &str, count: usize) -> Result<Vec<Event>, Error> {
        let events = self.reads.linked(&self.layout.stock(sku), count, Some(event)).await?;
        Ok(events.unwrap_or_default())
    }
}

/// What a request about a reservation adds to a call.
fn item(keys: &StockKeys, id: ReservationId, arguments: Vec<String>) -> Item {
    Item { keys: [keys.inventory.clone(), keys.active.clone(), keys.shard.reservation(&id)], arguments }
}

/// The group commit of a shard.
fn of_shard<'a>(each: &'a [GroupCommit], keys: &StockKeys) -> &'a GroupCommit {
    &each[usize::from(keys.shard.number)]
}

/// The reply of a call that was about one thing.
fn only(replies: &[Reply]) -> Result<&Reply, Error> {
    match replies {
        [reply] => Ok(reply),
        _ => Err(malformed("a script")),
    }
}
