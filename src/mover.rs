//! Moves a stopped shop to another Redis, from any layout to any other.
//!
//! Into as many shards as it had, everything moves as it is stored, key by key. Into another number, the keys and the
//! shards in the ids of reservations would be others: what is available moves, with its rules, and becomes a new seed;
//! everything else is told to the caller, to be kept elsewhere.
//!
//! Until a move is complete, its goal says so, and no server serves from there. A move that was interrupted is made
//! again; what is there already does no harm.

use std::collections::HashMap;

use futures_util::{StreamExt, TryStreamExt, stream};
use serde_json::{Value, json};

use crate::check::{Checker, Limits};
use crate::engine::{Change, Engine, Error, Options, PageLimit, Rules, SeedQuantity, Settings, Stock, standing_layout};
use crate::keys::{self, IdempotencyKey, LAYOUT, Layout, Sku};
use crate::redis::{Failure, Redis};

/// SKUs that are moved and checked at the same time.
const IN_FLIGHT: usize = 8;

/// Entries of the audit that are read together.
const EVENTS_PER_PAGE: usize = 500;

/// Why a shop was not moved.
#[derive(Debug, thiserror::Error)]
pub enum MoveError {
    /// One of the two cannot be moved from or to as it is.
    #[error("{0}")]
    Unfit(String),
    /// A Redis failed. The move can be made again.
    #[error(transparent)]
    Engine(#[from] Error),
    /// What is left behind could not be kept.
    #[error("cannot write what stays behind: {0}")]
    Export(#[from] std::io::Error),
}

impl From<Failure> for MoveError {
    fn from(failure: Failure) -> Self {
        Self::Engine(Error::retry_safe(failure))
    }
}

/// What was moved.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Moved {
    /// SKUs.
    pub skus: u64,
    /// Keys, when everything moved as it was stored.
    pub keys: u64,
    /// Reservations and events that stayed behind.
    pub left_behind: u64,
}

/// A shop and where it shall be.
pub struct Mover {
    from: Side,
    to: Side,
}

struct Side {
    redis: Redis,
    engine: Engine,
}

impl Mover {
    /// Looks at both. `shards` is the number of shards that the goal shall have; by default, as many as there are.
    ///
    /// # Errors
    /// When there is no shop, or the goal has one of its own or another number of shards.
    pub async fn between(from: Redis, to: Redis, shards: Option<u16>) -> Result<Self, MoveError> {
        let unfit = |why: String| Err(MoveError::Unfit(why));
        let Some(layout) = standing_layout(&from).await? else {
            return unfit(format!("there is no stock in the Redis at {}", from.address()));
        };
        let goal = match shards {
            Some(shards) => Layout::of(shards).map_err(|invalid| MoveError::Unfit(invalid.to_string()))?,
            None => layout.clone(),
        };
        if to.is_cluster_node().await? && !goal.is_sharded() {
            return unfit("a Redis Cluster wants shards (--shards): 64 is a good number".to_owned());
        }
        let begun = to.hash_field(LAYOUT, keys::LAYOUT_MOVING).await?;
        if let Some(source) = begun.as_ref().filter(|source| **source != from.address()) {
            let (from, to) = (from.address(), to.address());
            return unfit(format!("the Redis at {to} has a part of the stock at {source}, not {from}: empty it first"));
        }
        let is_begun = begun.is_some();
        if let Some(standing) = standing_layout(&to).await?
            && (standing != goal || !is_begun && Self::has_stock(&to, &standing).await?)
        {
            let shards = standing.shards().len();
            return unfit(format!("the Redis at {} has a stock of its own, in {shards} shards", to.address()));
        }
        let side = |redis: Redis, layout| Side { engine: Engine::on(layout, redis.clone(), Options::default()), redis };
        Ok(Self { from: side(from, layout), to: side(to, goal) })
    }

    async fn has_stock(redis: &Redis, layout: &Layout) -> Result<bool, MoveError> {
        let lists: Vec<&str> = layout.shards().iter().map(|shard| &*shard.skus).collect();
        Ok(redis.first_members(lists).await?.iter().any(Option::is_some))
    }

    /// Whether everything moves as it is stored.
    pub fn is_whole(&self) -> bool {
        self.from.engine.layout() == self.to.engine.layout()
    }

    /// Moves all of it, and compares both. `keep` is given what stays behind.
    ///
    /// # Errors
    /// See [`MoveError`]. The shop is as it was, and the move can be made again.
    pub async fn run(&self, keep: &mut dyn FnMut(&Value) -> std::io::Result<()>) -> Result<Moved, MoveError> {
        let marks = self.marks().await?;
        let mut moved = Moved::default();
        if !self.is_whole() {
            self.refuse_live_holds().await?;
        }
        self.to.engine.load_scripts().await?;
        let shards = self.to.engine.layout().shards().len().to_string();
        let moving = [(keys::LAYOUT_SHARDS, shards), (keys::LAYOUT_MOVING, self.from.redis.address())];
        self.to.redis.set_fields(LAYOUT, &moving).await?;
        if self.is_whole() {
            moved.keys = self.copy().await?;
        } else {
            self.seed_all().await?;
            moved.left_behind = self.export(keep).await?;
        }
        moved.skus = self.compare().await?;
        if self.marks().await? != marks {
            return Err(MoveError::Unfit("the stock changed while it was moved: stop all that changes it".to_owned()));
        }
        self.to.redis.remove_field(LAYOUT, keys::LAYOUT_MOVING).await?;
        Ok(moved)
    }

    /// The newest event of each shard: whatever changes the stock adds one.
    async fn marks(&self) -> Result<Vec<Option<String>>, MoveError> {
        let shards = self.from.engine.layout().shards().iter();
        let places: Vec<_> = shards.map(|shard| (&*shard.audit, "+".to_owned())).collect();
        let newest = self.from.redis.entries_back_of(&places, 1).await?;
        Ok(newest.into_iter().map(|page| page.into_iter().next().map(|(id, _)| id)).collect())
    }

    /// Copies every key, with its time to live.
    async fn copy(&self) -> Result<u64, MoveError> {
        let mut copied = 0;
        for node in self.from.redis.primaries().await? {
            let mut cursor = 0;
            loop {
                let (next, mut names) = node.scan(cursor).await?;
                names.retain(|name| self.from.engine.layout().has(name));
                copied += self.to.redis.restore(&node.dump(&names).await?).await?;
                if next == 0 {
                    break;
                }
                cursor = next;
            }
        }
        self.remove_what_is_gone().await?;
        Ok(copied)
    }

    /// Removes keys that an earlier attempt has copied and that are gone since where they came from.
    async fn remove_what_is_gone(&self) -> Result<(), MoveError> {
        for node in self.to.redis.primaries().await? {
            let mut cursor = 0;
            loop {
                let (next, mut names) = node.scan(cursor).await?;
                names.retain(|name| self.to.engine.layout().has(name));
                let gone = self.from.redis.missing(names).await?;
                self.to.redis.remove(&gone).await?;
                if next == 0 {
                    break;
                }
                cursor = next;
            }
        }
        Ok(())
    }

    /// The SKUs after one, with their counts.
    async fn page(side: &Side, after: Option<&Sku>) -> Result<(Vec<Stock>, Option<Sku>), MoveError> {
        let page = side.engine.skus(after, PageLimit::MAX, None).await?;
        Ok((page.items, page.next))
    }

    /// # Errors
    /// When something is held: an id tells its shard, so nothing that is held can move into another number of them.
    async fn refuse_live_holds(&self) -> Result<(), MoveError> {
        let mut after = None;
        loop {
            let (stocks, next) = Self::page(&self.from, after.as_ref()).await?;
            for stock in stocks.iter().filter(|stock| stock.reserved > 0) {
                self.from.engine.expire_due(&stock.sku).await?;
                let left = self.from.engine.active(&stock.sku, None, PageLimit::MAX).await?.items;
                if let Some(last) = left.iter().map(|hold| hold.expires_at_ms).max() {
                    let (sku, count, more) = (&stock.sku, left.len(), if left.len() == 1000 { " or more" } else { "" });
                    return Err(MoveError::Unfit(format!(
                        "{count}{more} holds of {sku} are active, and ids of reservations belong to their number of \
                         shards: let them be settled, or release them, or wait until they lapse (epoch ms {last})"
                    )));
                }
            }
            match next {
                Some(next) => after = Some(next),
                None => return Ok(()),
            }
        }
    }

    /// Seeds what is available of each SKU, once, and sets its rules.
    async fn seed_all(&self) -> Result<(), MoveError> {
        let Settings { keep_ms, audit_max, extend_max_ms, .. } = self.from.engine.settings().await?;
        let settings = [Some(keep_ms), Some(audit_max), Some(extend_max_ms)];
        let [keep_ms, audit_max, extend_max_ms] = settings;
        self.to.engine.set(Change { keep_ms, audit_max, extend_max_ms }).await?;
        let mut after = None;
        loop {
            let (stocks, next) = Self::page(&self.from, after.as_ref()).await?;
            stream::iter(&stocks).map(Ok).try_for_each_concurrent(IN_FLIGHT, |stock| self.seed(stock)).await?;
            match next {
                Some(next) => after = Some(next),
                None => return Ok(()),
            }
        }
    }

    async fn seed(&self, stock: &Stock) -> Result<(), MoveError> {
        let broken = |why: &str| MoveError::Unfit(format!("{}: {why}", stock.sku));
        let quantity = SeedQuantity::new(stock.available).map_err(|invalid| broken(invalid.rule))?;
        let key = IdempotencyKey::parse(&format!("move-{}", stock.version)).map_err(|invalid| broken(invalid.rule))?;
        self.to.engine.seed(&stock.sku, quantity, Some(&key)).await?;
        let keys = self.from.engine.layout().stock(&stock.sku);
        let rules = self.from.redis.hash_field(&keys.inventory, "rules").await?;
        let rules = rules.map_or(Ok(Rules::default()), |rules| Rules::stored(&rules))?;
        // Also if there are none: an earlier attempt may have set some. The same rules again change nothing.
        self.to.engine.rule(&stock.sku, rules).await?;
        Ok(())
    }

    /// Tells every reservation and every event.
    async fn export(&self, keep: &mut dyn FnMut(&Value) -> std::io::Result<()>) -> Result<u64, MoveError> {
        let mut told = 0;
        for node in self.from.redis.primaries().await? {
            let mut cursor = 0;
            loop {
                let (next, mut names) = node.scan(cursor).await?;
                names.retain(|name| self.from.engine.layout().has(name) && name.contains("reservation:"));
                let records = node.hashes(names.iter().cloned()).await?;
                for (name, fields) in names.iter().zip(records) {
                    keep(
                        &json!({ "reservation": name.rsplit_once(':').map_or(&**name, |(_, id)| id), "fields": fields }),
                    )?;
                    told += 1;
                }
                if next == 0 {
                    break;
                }
                cursor = next;
            }
        }
        for shard in self.from.engine.layout().shards() {
            let mut newest = "+".to_owned();
            loop {
                let page = self.from.redis.entries_back(&shard.audit, &newest, EVENTS_PER_PAGE).await?;
                let Some((last, _)) = page.last() else { break };
                newest = format!("({last}");
                for (id, fields) in &page {
                    keep(&json!({ "event": id, "shard": shard.number, "fields": fields }))?;
                    told += 1;
                }
            }
        }
        Ok(told)
    }

    /// Checks both sides, and whether they have the same stock. Returns the number of SKUs.
    async fn compare(&self) -> Result<u64, MoveError> {
        let checkers =
            [&self.from, &self.to].map(|side| Checker::new(side.engine.layout().clone(), side.redis.clone()));
        let (mut count, mut after) = (0, None);
        loop {
            let (stocks, next) = Self::page(&self.from, after.as_ref()).await?;
            let (found, _) = Self::page(&self.to, after.as_ref()).await?;
            let found: HashMap<&str, &Stock> = found.iter().map(|stock| (stock.sku.as_str(), stock)).collect();
            for stock in &stocks {
                let same = found.get(stock.sku.as_str()).is_some_and(|other| {
                    other.available == stock.available && (!self.is_whole() || other.version == stock.version)
                });
                if !same {
                    return Err(MoveError::Unfit(format!("{} is not the same in both: move it again", stock.sku)));
                }
            }
            let each = stocks.iter().flat_map(|stock| checkers.iter().map(move |checker| (checker, &stock.sku)));
            let checks = stream::iter(each).map(|(checker, sku)| checker.check(sku, &[], LIMITS)).buffered(IN_FLIGHT);
            let checked: Vec<_> = checks.try_collect().await?;
            if let Some(bad) = checked.iter().find(|checked| !checked.findings.is_empty()) {
                let what = &bad.findings[0].what;
                return Err(MoveError::Unfit(format!("{} is damaged, see stockhold check: {what}", bad.sku)));
            }
            count += stocks.len() as u64;
            match next {
                Some(next) => after = Some(next),
                None => return Ok(count),
            }
        }
    }
}

/// A stopped shop has no sweeper: what is overdue is no finding.
const LIMITS: Limits = Limits { events: 10_000, overdue_ms: u64::MAX };
