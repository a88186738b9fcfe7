//! Events, newest first. Those of one SKU are a linked list through the stream of all SKUs: each names its
//! predecessor.
//!
//! If a SKU is hot its events are close together, and a piece of the stream has many of them. If it is not, script
//! `audit` follows the links. The events found so far show which way is cheaper.

use std::cmp::Ordering;

use super::merge::{Lists, Reading, merge};
use super::read::Reads;
use super::record::malformed;
use super::{Engine, Error, Event, EventPlace, PageLimit};
use crate::keys::{Sku, StockKeys};
use crate::redis::{Entry, Failure, entry_order};

/// Entries of the stream in a page: a tenth of a millisecond of Redis's time.
const SCANNED_PER_PAGE: usize = 100;

/// Entries in the first page, which shows whether scanning is worth it.
const FIRST_SCANNED: usize = 20;

/// Events in a page that follows the links: half a millisecond.
const LINKED_PER_PAGE: usize = 50;

/// Following a link takes about as long as reading this number of entries.
const ENTRIES_PER_LINK: usize = 4;

/// Pages that follow the links before both ways are compared again.
const LINKED_PAGES: usize = 4;

/// An entry of a stream; the newest is the first.
#[derive(Debug, Clone)]
struct Newest {
    order: (u64, u64),
    entry: Entry,
}

impl Newest {
    fn of(entry: Entry) -> Result<Self, Error> {
        let order = entry_order(&entry.0).ok_or_else(|| malformed("the audit"))?;
        Ok(Self { order, entry })
    }
}

impl PartialEq for Newest {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Newest {}

impl PartialOrd for Newest {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Newest {
    fn cmp(&self, other: &Self) -> Ordering {
        other.order.cmp(&self.order)
    }
}

/// The audits of all shards, before a place.
struct Streams<'a> {
    reads: &'a Reads,
    before: Option<EventPlace>,
}

impl Lists for Streams<'_> {
    type Item = Newest;

    fn number(&self) -> usize {
        self.reads.layout.shards().len()
    }

    async fn read(&self, readings: &[Reading<Newest>], count: usize) -> Result<Vec<Vec<Newest>>, Error> {
        let shards = self.reads.layout.shards();
        let (mut places, mut owners) = (Vec::new(), Vec::new());
        for (at, (shard, last)) in readings.iter().enumerate() {
            let newest = match (last, self.before) {
                (Some(last), _) => Some(format!("({}", last.entry.0)),
                (None, Some(before)) => before.older(shards[*shard].number),
                (None, None) => Some("+".to_owned()),
            };
            if let Some(newest) = newest {
                places.push((&*shards[*shard].audit, newest));
                owners.push(at);
            }
        }
        let mut pages = vec![Vec::new(); readings.len()];
        if !places.is_empty() {
            let found = self.reads.gate.page(self.reads.redis.entries_back_of(&places, count)).await;
            for (at, entries) in owners.into_iter().zip(found.map_err(Error::retry_safe)?) {
                pages[at] = entries.into_iter().map(Newest::of).collect::<Result<_, _>>()?;
            }
        }
        Ok(pages)
    }
}

impl Engine {
    /// Reads the newest events of a SKU, or of all, newest first; `before` is the id of the event to continue after.
    /// `None` when that is no event of this SKU. With several shards, an id names its shard, too.
    ///
    /// # Errors
    /// See [`Error`]; [`Error::Busy`] when many others read.
    pub async fn audit(
        &self,
        sku: Option<&Sku>,
        limit: PageLimit,
        before: Option<&str>,
    ) -> Result<Option<Vec<Event>>, Error> {
        let _place = self.reads.gate.large().await?;
        let before = match before.map(|text| EventPlace::parse(&self.layout, text)) {
            None => None,
            Some(Some(place)) => Some(place),
            Some(None) => return Ok(None),
        };
        let Some(sku) = sku else { return self.reads.all(limit.get(), before).await.map(Some) };
        let keys = self.layout.stock(sku);
        if before.is_some_and(|before| before.shard != keys.shard.number) {
            return Ok(None);
        }
        let before = before.map(EventPlace::entry);
        let events = self.reads.chain(sku.as_str(), &keys, limit.get(), before.as_deref()).await?;
        let named = |event| self.reads.named(keys.shard.number, event);
        Ok(events.map(|events| events.into_iter().map(named).collect()))
    }
}

impl Reads {
    /// The newest events of all SKUs before a place, `limit` at most.
    async fn all(&self, limit: usize, before: Option<EventPlace>) -> Result<Vec<Event>, Error> {
        let entries = merge(&Streams { reads: self, before }, limit, SCANNED_PER_PAGE).await?;
        let shards = self.layout.shards();
        let event = |(shard, Newest { entry, .. }): &(usize, Newest)| {
            Ok(self.named(shards[*shard].number, Event::stored(entry)?))
        };
        entries.iter().map(event).collect()
    }

    /// With the shard in the ids where there are several.
    pub(super) fn named(&self, shard: u16, mut event: Event) -> Event {
        if self.layout.is_sharded() {
            for id in [&mut event.id, &mut event.previous] {
                if !id.is_empty() {
                    id.push_str(&format!("-{shard}"));
                }
            }
        }
        event
    }

    /// The newest events of a SKU, `limit` at most: its chain, as far as the stream has it. `None` when `before` is not
    /// the id of an event, or is the id of another SKU's event.
    pub(super) async fn chain(
        &self,
        sku: &str,
        keys: &StockKeys,
        limit: usize,
        before: Option<&str>,
    ) -> Result<Option<Vec<Event>>, Error> {
        let audit = &keys.shard.audit;
        let mut next = match before {
            None => {
                let last = self.redis.hash_field(&keys.inventory, "lastEvent").await.map_err(Error::retry_safe)?;
                last.unwrap_or_default()
            }
            Some(before) => match entry_order(before) {
                None => return Ok(None),
                Some((0, 0)) => return Ok(Some(Vec::new())),
                Some(_) => match self.redis.entry(audit, before).await.map_err(Error::retry_safe)? {
                    Some((_, fields)) if fields.get("sku").is_none_or(|other| other != sku) => return Ok(None),
                    Some((_, mut fields)) => fields.remove("previous").unwrap_or_default(),
                    None => return Ok(Some(Vec::new())),
                },
            },
        };
        let mut events: Vec<Event> = Vec::new();
        let (mut count, mut linked_pages) = (FIRST_SCANNED, 0);
        while !next.is_empty() && events.len() < limit {
            let known = events.len();
            if entry_order(&next).is_none() {
                return Err(malformed("the chain of events"));
            }
            if linked_pages == 0 {
                let page = self.entries(audit, &next, count).await?;
                let Some(found) = follow(&page, &mut next, &mut events, limit)? else { return Ok(Some(events)) };
                count = SCANNED_PER_PAGE;
                linked_pages = if found * ENTRIES_PER_LINK < page.len() { LINKED_PAGES } else { 0 };
            } else {
                let count = LINKED_PER_PAGE.min(limit - known);
                let last = events.last().map(|event| event.id.as_str());
                let page = self.gate.page(self.linked(keys, count, last)).await?.unwrap_or_default();
                let is_whole = page.len() == count;
                events.extend(page);
                match events.last() {
                    Some(last) if is_whole => next.clone_from(&last.previous),
                    _ => return Ok(Some(events)),
                }
                linked_pages -= 1;
            }
        }
        Ok(Some(events))
    }

    /// The newest events of a SKU by one call of script `audit`. `None` when `before` is not an event of the SKU.
    pub(super) async fn linked(
        &self,
        keys: &StockKeys,
        count: usize,
        before: Option<&str>,
    ) -> Result<Option<Vec<Event>>, Error> {
        let (count, names) = (count.to_string(), [&*keys.shard.audit, &*keys.inventory]);
        match self.scripts.call("audit", &names, &[&count, before.unwrap_or_default()]).await {
            // The only argument that cannot be validated before the call: whether `before` is the id of an event of
            // this SKU.
            Err(Failure::Refused { code, message }) if code == "BADARGS" && message.starts_with("before") => Ok(None),
            replies => {
                let replies = replies.map_err(Error::retry_safe)?;
                replies.iter().map(|reply| Event::read(&reply.parts())).collect::<Result<_, _>>().map(Some)
            }
        }
    }

    async fn entries(&self, audit: &str, newest: &str, count: usize) -> Result<Vec<Entry>, Error> {
        self.gate.page(self.redis.entries_back(audit, newest, count)).await.map_err(Error::retry_safe)
    }
}

/// Takes the events of the chain that begins with `next` out of a piece of the stream that begins there too. Returns
/// how many there are. `None` when the chain ends here: it was trimmed, or an event is missing.
fn follow(page: &[Entry], next: &mut String, events: &mut Vec<Event>, limit: usize) -> Result<Option<usize>, Error> {
    let known = events.len();
    for entry in page {
        if entry_order(&entry.0) == entry_order(next) {
            let event = Event::stored(entry)?;
            next.clone_from(&event.previous);
            events.push(event);
            if next.is_empty() || events.len() == limit {
                break;
            }
        } else if entry_order(&entry.0) < entry_order(next) {
            return Ok(None);
        }
    }
    let found = events.len() - known;
    Ok((found > 0).then_some(found))
}
