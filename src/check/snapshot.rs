//! A snapshot of one SKU: all its data, read from a live system, as of one moment.
//!
//! Sales continue while it is read. The audit brings what was read in small steps to the moment of the last step. If
//! an event since the first step concerns a value, the event gives the value. Other values have not changed.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use crate::engine::{Engine, Error, Event, EventKind};
use crate::keys::{Layout, ReservationId, Sku, StockKeys};
use crate::redis::{Entry, IndexLook, Look, Redis, entry_order};

/// Reservations read in one call.
const LOOKS_PER_CALL: usize = 50;

/// Events read in one call: the script allows more, but other clients wait during the call.
const EVENTS_PER_CALL: usize = 100;

/// Entries of the stream read in one call, when an event is searched for.
const ENTRIES_PER_CALL: usize = 500;

/// Events during the reading after which it stops: it would never catch up.
const MAX_PASSED: usize = 20_000;

/// Everything that is known of a SKU.
pub(super) struct Snapshot {
    /// The fields of its hash.
    pub stock: HashMap<String, String>,
    /// Its events, oldest first: from its last seed, if that was reached, to the newest.
    pub history: Vec<Event>,
    pub reach: Reach,
    /// Whether the newest event is the one that the hash names.
    pub is_linked: bool,
    /// The reservations that did not change meanwhile: those in the history, in the active set, and suspects.
    pub looks: BTreeMap<String, Look>,
    /// The reservations that changed meanwhile, each with its last event.
    pub changed: BTreeMap<String, Event>,
    /// Members of the active set that are not ids.
    pub foreign: Vec<String>,
    pub index: IndexLook,
    /// Redis's clock after all reads, epoch milliseconds.
    pub now_ms: u64,
}

/// How far back a history goes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// To a seed, or to the adjustment that made the SKU: the history has every hold since then.
    Seed,
    /// As far as it was read, or as far as events were kept.
    Part,
    /// To an event whose predecessor is missing, although it was not trimmed; with the id of the predecessor.
    Gap(String),
}

struct Chain {
    /// Newest first.
    events: Vec<Event>,
    reach: Reach,
}

/// Reads snapshots.
pub(super) struct Reader {
    pub engine: Arc<Engine>,
    pub redis: Redis,
    pub layout: Layout,
}

impl Reader {
    /// Reads a SKU, `reach` events back at most; `suspects` are read too. `None` when the SKU changes faster than it
    /// can be read.
    pub(super) async fn snapshot(
        &self,
        sku: &Sku,
        suspects: &[String],
        reach: usize,
    ) -> Result<Option<Snapshot>, Error> {
        let keys = self.layout.stock(sku);
        let before = self.redis.hash(&keys.inventory).await.map_err(Error::retry_safe)?.fields;
        let (mut ids, foreign) = self.members(&keys).await?;
        let link = before.get("lastEvent").map_or("", String::as_str);
        let mut chain = self.chain(sku, &keys, link, reach, is_seed).await?;
        let is_linked = match chain.events.first() {
            Some(newest) => before.get("version") == Some(&newest.version.to_string()),
            None => !link.is_empty() && chain.reach == Reach::Part,
        };
        if !is_linked && let Some(entry) = self.newest_event(sku, &keys).await? {
            chain = self.chain(sku, &keys, &entry.0, reach, is_seed).await?;
        }
        ids.extend(suspects.iter().cloned());
        ids.extend(chain.events.iter().map(|event| event.reservation_id.clone()).filter(|id| !id.is_empty()));
        let mut looks = self.looks(&keys, ids).await?;
        let index = self.redis.index_look(sku.as_str(), &keys.shard.due, &keys.active, &keys.shard.skus).await;
        let index = index.map_err(Error::retry_safe)?;

        let after = self.redis.hash(&keys.inventory).await.map_err(Error::retry_safe)?;
        let mut changed = BTreeMap::new();
        let mut history = chain.events;
        let last = after.fields.get("lastEvent").map_or("", String::as_str);
        if after.fields.get("version") != before.get("version") || last != link {
            let until = link.to_owned();
            let since = self.chain(sku, &keys, last, MAX_PASSED, move |event| event.previous == until).await?;
            let joins = is_linked && since.events.last().is_some_and(|event| event.previous == link);
            if !joins || since.events.iter().any(starts_anew) {
                return Ok(None);
            }
            for event in since.events.iter().rev().filter(|event| !event.reservation_id.is_empty()) {
                looks.remove(&event.reservation_id);
                changed.insert(event.reservation_id.clone(), event.clone());
            }
            history.splice(0..0, since.events);
        }
        history.reverse();
        let (stock, now_ms) = (after.fields, after.now_ms);
        Ok(Some(Snapshot { stock, history, reach: chain.reach, is_linked, looks, changed, foreign, index, now_ms }))
    }

    /// The ids in the active set, and the members that are not ids.
    async fn members(&self, keys: &StockKeys) -> Result<(BTreeSet<String>, Vec<String>), Error> {
        let (mut ids, mut foreign, mut cursor) = (BTreeSet::new(), Vec::new(), 0);
        loop {
            let (next, members) = self.redis.scan_members(&keys.active, cursor).await.map_err(Error::retry_safe)?;
            for member in members {
                if ReservationId::parse(&member).is_ok_and(|id| id.to_string() == member && keys.shard.has(&id)) {
                    ids.insert(member);
                } else {
                    foreign.push(member);
                }
            }
            if next == 0 {
                return Ok((ids, foreign));
            }
            cursor = next;
        }
    }

    async fn looks(&self, keys: &StockKeys, ids: BTreeSet<String>) -> Result<BTreeMap<String, Look>, Error> {
        let record = |id: String| Some((id.clone(), keys.reservation(&ReservationId::parse(&id).ok()?)?));
        let ids: Vec<(String, String)> = ids.into_iter().filter_map(record).collect();
        let mut looks = BTreeMap::new();
        for page in ids.chunks(LOOKS_PER_CALL) {
            let seen = self.redis.looks(&keys.active, page).await.map_err(Error::retry_safe)?;
            looks.extend(page.iter().map(|(id, _)| id.clone()).zip(seen));
        }
        Ok(looks)
    }

    /// The SKU's events from `newest` back to the first for which `is_last` holds, `limit` at most.
    async fn chain(
        &self,
        sku: &Sku,
        keys: &StockKeys,
        newest: &str,
        limit: usize,
        is_last: impl Fn(&Event) -> bool,
    ) -> Result<Chain, Error> {
        let audit = &keys.shard.audit;
        let mut chain = Chain { events: Vec::new(), reach: Reach::Part };
        let mut next = newest.to_owned();
        let mut page = Vec::new();
        if let Some(entry) = self.event_entry(audit, newest).await? {
            page.extend(Event::stored(&entry).ok().filter(|event| event.sku == sku.as_str()));
        }
        loop {
            if page.is_empty() {
                let trimmed = next.is_empty() || self.is_trimmed(audit, &next).await?;
                chain.reach = if trimmed { Reach::Part } else { Reach::Gap(next) };
                return Ok(chain);
            }
            for event in page.drain(..) {
                let found = is_last(&event);
                let seeded = event.event == EventKind::Seed || makes_a_sku(&event);
                next.clone_from(&event.previous);
                chain.events.push(event);
                if found || next.is_empty() {
                    chain.reach = if seeded { Reach::Seed } else { Reach::Part };
                    return Ok(chain);
                }
                if chain.events.len() >= limit {
                    return Ok(chain);
                }
            }
            let count = EVENTS_PER_CALL.min(limit - chain.events.len());
            if let Some(last) = chain.events.last() {
                page = self.engine.events_linked_before(sku, &last.id, count).await?;
            }
        }
    }

    /// Whether an event is missing because the audit was trimmed to its setting.
    async fn is_trimmed(&self, audit: &str, id: &str) -> Result<bool, Error> {
        let oldest = self.redis.oldest_entry(audit).await.map_err(Error::retry_safe)?;
        Ok(oldest.is_some_and(|oldest| entry_order(id) < entry_order(&oldest)))
    }

    async fn event_entry(&self, audit: &str, id: &str) -> Result<Option<Entry>, Error> {
        if entry_order(id).is_none() {
            return Ok(None);
        }
        self.redis.entry(audit, id).await.map_err(Error::retry_safe)
    }

    /// The newest event of the SKU in the stream, found by a scan.
    async fn newest_event(&self, sku: &Sku, keys: &StockKeys) -> Result<Option<Entry>, Error> {
        let mut newest = "+".to_owned();
        loop {
            let page = self
                .redis
                .entries_back(&keys.shard.audit, &newest, ENTRIES_PER_CALL)
                .await
                .map_err(Error::retry_safe)?;
            let Some((oldest, _)) = page.last() else { return Ok(None) };
            newest = format!("({oldest}");
            if let Some(found) = page.into_iter().find(|(_, fields)| fields.get("sku") == Some(&sku.to_string())) {
                return Ok(Some(found));
            }
        }
    }
}

/// Whether an event begins a new life of the SKU: nothing that was held before it is still active.
fn is_seed(event: &Event) -> bool {
    event.state == "seeded"
}

/// Whether it is the adjustment with which the SKU came into being.
pub(super) fn makes_a_sku(event: &Event) -> bool {
    event.event == EventKind::Adjust && event.previous.is_empty()
}

/// Whether an event states the counts independently of the events before it.
pub(super) fn starts_anew(event: &Event) -> bool {
    is_seed(event) || event.event == EventKind::Repair && event.reservation_id.is_empty()
}
