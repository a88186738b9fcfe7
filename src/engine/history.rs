//! Events, newest first. Those of one SKU are a linked list through the stream of all SKUs: each names its
//! predecessor.
//!
//! If a SKU is hot its events are close together, and a piece of the stream has many of them. If it is not, script
//! `audit` follows the links. The events found so far show which way is cheaper.

use super::read::Reads;
use super::record::malformed;
use super::{Error, Event};
use crate::keys::StockKeys;
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

impl Reads {
    /// The newest events of all SKUs, `limit` at most. `None` when `before` is not the id of an event.
    pub(super) async fn stream(
        &self,
        audit: &str,
        limit: usize,
        before: Option<&str>,
    ) -> Result<Option<Vec<Event>>, Error> {
        let mut newest = match before.map(entry_order) {
            None => "+".to_owned(),
            Some(None) => return Ok(None),
            // Nothing is before the lowest id, and Redis refuses to read there.
            Some(Some((0, 0))) => return Ok(Some(Vec::new())),
            Some(Some((ms, sequence))) => format!("({ms}-{sequence}"),
        };
        let mut events = Vec::new();
        loop {
            let count = SCANNED_PER_PAGE.min(limit - events.len());
            let page = self.entries(audit, &newest, count).await?;
            let is_last = page.len() < count;
            for entry in &page {
                events.push(Event::stored(entry)?);
            }
            match events.last() {
                Some(last) if !is_last && events.len() < limit => newest = format!("({}", last.id),
                _ => return Ok(Some(events)),
            }
        }
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
