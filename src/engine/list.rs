//! Lists, a page at a time: all SKUs in alphabetical order, and the active reservations of a SKU, the earliest expiry
//! first. Each page is read in steps of bounded Redis time.

use std::fmt;

use super::merge::{Lists, Reading, merge};
use super::read::Reads;
use super::{AvailableBelow, Engine, Error, PageLimit, Reservation, Stock};
use crate::keys::{Invalid, ReservationId, Sku};

/// Hashes that are read in one step: a quarter of a millisecond of Redis's time.
const READ_TOGETHER: usize = 100;

/// Entries that are looked at for one page. A page may have fewer than its limit, and more follow.
const LOOKED_AT: usize = 1000;

/// A page of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<T, Next> {
    /// What was found, in the order of the list.
    pub items: Vec<T>,
    /// After which place the next page begins; `None` at the end of the list.
    pub next: Option<Next>,
}

/// A place in the list of the active reservations of a SKU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    expires_at_ms: u64,
    id: ReservationId,
}

impl Place {
    /// # Errors
    /// Unless `text` is a place as it is shown.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let place = text.split_once('-').and_then(|(expires_at, id)| {
            let is_time = (1..=13).contains(&expires_at.len()) && expires_at.bytes().all(|byte| byte.is_ascii_digit());
            let expires_at_ms = expires_at.parse().ok().filter(|_| is_time)?;
            Some(Self { expires_at_ms, id: ReservationId::parse(id).ok()? })
        });
        place.ok_or(Invalid { field: "after", rule: "must be the next of an earlier page" })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.expires_at_ms, self.id)
    }
}

/// The names that the shards list after one.
struct NamesAfter<'a> {
    reads: &'a Reads,
    after: &'a [u8],
}

impl Lists for NamesAfter<'_> {
    type Item = Vec<u8>;

    fn number(&self) -> usize {
        self.reads.layout.shards().len()
    }

    async fn read(&self, readings: &[Reading<Vec<u8>>], count: usize) -> Result<Vec<Vec<Vec<u8>>>, Error> {
        let shards = self.reads.layout.shards();
        let place = |at: usize| {
            let (shard, last) = &readings[at];
            (&*shards[*shard].skus, last.as_deref().unwrap_or(self.after))
        };
        let places: Vec<(&str, &[u8])> = (0..readings.len()).map(place).collect();
        self.reads.gate.page(self.reads.redis.members_after(&places, count)).await.map_err(Error::retry_safe)
    }
}

impl Engine {
    /// Lists the SKUs after `after`, in the order of their bytes, with their counts as they are stored: units of lapsed
    /// holds are still reserved until they are swept. With `below`, only SKUs with fewer available units. A SKU whose
    /// counts cannot be read is left out.
    ///
    /// # Errors
    /// See [`Error`]; [`Error::Busy`] when many others read.
    pub async fn skus(
        &self,
        after: Option<&Sku>,
        limit: PageLimit,
        below: Option<AvailableBelow>,
    ) -> Result<Page<Stock, Sku>, Error> {
        const FIELDS: [&str; 5] = ["available", "reserved", "confirmed", "updatedAt", "version"];
        let (reads, limit) = (&self.reads, limit.get());
        let _place = reads.gate.large().await?;
        let (mut items, mut looked_at) = (Vec::new(), 0);
        let mut last = after.cloned();
        let mut from = after.map_or(Vec::new(), |sku| sku.as_str().as_bytes().to_vec());
        loop {
            // One more than are read: it tells whether anything follows.
            let count = READ_TOGETHER.min(limit - items.len());
            let names = merge(&NamesAfter { reads, after: &from }, count + 1, READ_TOGETHER + 1).await?;
            let mut names: Vec<Vec<u8>> = names.into_iter().map(|(_, name)| name).collect();
            let is_last = names.len() <= count;
            names.truncate(count);
            if let Some(name) = names.last() {
                from.clone_from(name);
            }
            // A name that is no SKU is damage, and for a check to find.
            let skus: Vec<Sku> =
                names.iter().filter_map(|name| Sku::parse(std::str::from_utf8(name).ok()?).ok()).collect();
            let keys: Vec<String> = skus.iter().map(|sku| self.layout.stock(sku).inventory).collect();
            let counts = reads.gate.page(reads.redis.fields(&keys, &FIELDS)).await.map_err(Error::retry_safe)?;
            looked_at += names.len();
            for (sku, fields) in skus.iter().zip(counts) {
                let fields: Option<Vec<String>> = fields.into_iter().collect();
                let fields = fields.unwrap_or_default();
                let Ok(stock) = Stock::counted(sku, &fields.iter().map(String::as_str).collect::<Vec<_>>()) else {
                    continue;
                };
                if below.is_none_or(|below| stock.available < below.get()) {
                    items.push(stock);
                }
            }
            last = skus.into_iter().next_back().or(last);
            if is_last {
                return Ok(Page { items, next: None });
            }
            if last.is_some() && (items.len() == limit || looked_at >= LOOKED_AT) {
                return Ok(Page { items, next: last });
            }
        }
    }

    /// Lists the active reservations of a SKU after `after`, the earliest expiry first. A walk through all pages has
    /// each reservation once that is active and is not extended meanwhile; one that is extended is where its new expiry
    /// is. A SKU that was never seeded has none, and a record that cannot be read is left out.
    ///
    /// # Errors
    /// See [`Error`]; [`Error::Busy`] when many others read.
    pub async fn active(
        &self,
        sku: &Sku,
        after: Option<Place>,
        limit: PageLimit,
    ) -> Result<Page<Reservation, Place>, Error> {
        let (reads, limit, keys) = (&self.reads, limit.get(), self.layout.stock(sku));
        let _place = reads.gate.large().await?;
        let now_ms = reads.redis.now_ms(&keys.active).await.map_err(Error::retry_safe)?;
        let (mut items, mut looked_at) = (Vec::new(), 0);
        let mut last = after.filter(|place| place.expires_at_ms > now_ms);
        // Entries of the millisecond in which the last step ended are read again.
        let mut again = 0;
        loop {
            let from = last.map_or(now_ms + 1, |place| place.expires_at_ms);
            let wanted = READ_TOGETHER.min(limit - items.len());
            // One more, as above.
            let count = wanted + again + 1;
            let page = reads.gate.page(reads.redis.scored_from(&keys.active, from as f64, count)).await;
            let page = page.map_err(Error::retry_safe)?;
            let is_last = page.len() < count;
            again = page.last().map_or(0, |(_, end)| page.iter().filter(|(_, score)| score == end).count());
            let places = page.iter().filter_map(|(id, score)| {
                Some(Place { expires_at_ms: *score as u64, id: ReservationId::parse(id).ok()? })
            });
            let places = places.filter(|place| keys.shard.has(&place.id));
            let mut places: Vec<Place> = places.filter(|place| last.is_none_or(|last| *place > last)).collect();
            if places.is_empty() {
                // All of them were listed before, or are no ids: the next step must look further.
                again = page.len() + READ_TOGETHER;
            }
            let more = places.len() > wanted;
            places.truncate(wanted);
            let records = places.iter().map(|place| keys.shard.reservation(&place.id));
            let records = reads.gate.page(reads.redis.hashes(records)).await.map_err(Error::retry_safe)?;
            looked_at += places.len();
            for (place, fields) in places.iter().zip(records) {
                let is_here = |record: &Reservation| {
                    record.is_active() && record.sku == *sku && record.expires_at_ms == place.expires_at_ms
                };
                items.extend(Reservation::stored(place.id, &fields).ok().flatten().filter(is_here));
            }
            last = places.last().copied().or(last);
            if is_last && !more {
                return Ok(Page { items, next: None });
            }
            if more && (items.len() == limit || looked_at >= LOOKED_AT) {
                return Ok(Page { items, next: last });
            }
        }
    }
}
