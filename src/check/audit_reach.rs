//! How far back the audit reaches, and whether events are missing that the operator's setting keeps.
//!
//! The sweeper removes the oldest entries, but never leaves fewer than the setting says. If the oldest are missing and
//! fewer are left, another program removed them. Raising the setting restores nothing: only entries added since then
//! can be missing.

use super::findings::{Damage, Finding};
use crate::engine::{Engine, Error};
use crate::keys::{Layout, Shard, Sku};
use crate::redis::{Redis, StreamInfo, entry_order};

/// The audit as a whole, that of all shards together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditReach {
    /// Entries that it has.
    pub events: u64,
    /// Entries that were ever added to it.
    pub added: u64,
    /// When its oldest entry was added, epoch milliseconds; nothing when the audit is empty. With several shards, since
    /// when nothing is missing.
    pub since_ms: Option<u64>,
    /// Whether older entries are gone.
    is_cut: bool,
    /// About how many entries it should keep; 0 keeps all forever.
    pub audit_max: u64,
    /// The newest id among entries that were deleted individually, by hand, from the part that it has. Their SKUs have
    /// a gap. With several shards, that of the first shard that has any.
    pub deleted_up_to: Option<String>,
    /// The finding. It cannot be repaired: the events are gone.
    pub finding: Option<Finding>,
}

impl AuditReach {
    pub(super) async fn look(engine: &Engine, redis: &Redis, layout: &Layout) -> Result<Self, Error> {
        let mut whole: Option<Self> = None;
        for shard in layout.shards() {
            let part = Self::look_at(engine, redis, layout, shard).await?;
            whole = Some(match whole {
                None => part,
                Some(whole) => whole.and(part),
            });
        }
        Ok(whole.expect("there is a shard"))
    }

    /// Both together.
    fn and(self, other: Self) -> Self {
        let since_ms = match (self.is_cut, other.is_cut) {
            (true, false) => self.since_ms,
            (false, true) => other.since_ms,
            (true, true) => self.since_ms.max(other.since_ms),
            (false, false) => [self.since_ms, other.since_ms].into_iter().flatten().min(),
        };
        Self {
            events: self.events + other.events,
            added: self.added + other.added,
            since_ms,
            is_cut: self.is_cut || other.is_cut,
            audit_max: self.audit_max,
            deleted_up_to: self.deleted_up_to.or(other.deleted_up_to),
            finding: self.finding.or(other.finding),
        }
    }

    async fn look_at(engine: &Engine, redis: &Redis, layout: &Layout, shard: &Shard) -> Result<Self, Error> {
        // Before the read: a first seed in between causes no false finding.
        let is_expected = is_anything_seeded(redis, layout, &shard.skus).await?;
        let info = match redis.stream_info(&shard.audit).await.map_err(Error::retry_safe) {
            // A key of another type.
            Err(Error::Broken(why)) => {
                let nothing = Self::of(None, 0, 0, 0, true);
                return Ok(Self { finding: Some(Finding::overall(Damage::Unreadable, why)), ..nothing });
            }
            info => info?,
        };
        // After the read: a setting that is raised in between makes the check milder, not stricter.
        let settings = match engine.settings().await {
            Err(Error::Broken(why)) => {
                let nothing = Self::of(info, 0, 0, u64::MAX, is_expected);
                return Ok(Self { finding: Some(Finding::overall(Damage::Unreadable, why)), ..nothing });
            }
            settings => settings?,
        };
        let share = settings.audit_share(layout).unwrap_or_default();
        let mut reach = Self::of(info, settings.audit_max, share, settings.audit_max_raised_at_ms, is_expected);
        if layout.is_sharded() {
            reach.finding = reach.finding.map(|finding| finding.in_shard(shard.number));
        }
        Ok(reach)
    }

    /// `share` is how many entries this shard keeps of the `audit_max`; 0 keeps all.
    fn of(info: Option<StreamInfo>, audit_max: u64, share: u64, raised_at_ms: u64, is_expected: bool) -> Self {
        let Some(info) = info else {
            let finding = is_expected
                .then(|| Finding::overall(Damage::History, "there is no audit, and there is stock: it was deleted"));
            return Self {
                events: 0,
                added: 0,
                since_ms: None,
                is_cut: false,
                audit_max,
                deleted_up_to: None,
                finding,
            };
        };
        let StreamInfo { length: events, entries_added: added, first, max_deleted } = info;
        let (first, previous) = match first {
            Some((id, mut fields)) => (entry_order(&id), fields.remove("previous").unwrap_or_default()),
            None => (None, String::new()),
        };
        let since_ms = first.map(|(ms, _)| ms);
        // Whatever was deleted before the oldest entry would have been trimmed by now, or is missing at that end.
        let deleted_up_to = max_deleted.filter(|id| first.is_some() && entry_order(id) > first);
        // The oldest entry may follow one that is gone. If it does not, it is the first event of its SKU, and the number of
        // entries tells whether others are gone, unless some were deleted elsewhere.
        let is_cut = !previous.is_empty() || (added > events && deleted_up_to.is_none());
        let has_too_few = share == 0 || events < share;
        let is_beyond_setting = is_cut && has_too_few && since_ms.is_none_or(|since_ms| since_ms > raised_at_ms);
        let finding = is_beyond_setting.then(|| {
            let has = if added > events { format!("it has {events} of {added}") } else { "it began anew".to_owned() };
            let keeps = if share == 0 { "all".to_owned() } else { share.to_string() };
            let what = format!("events were taken out of the audit beyond the setting: {has}, and should keep {keeps}");
            Finding::overall(Damage::History, what)
        });
        Self { events, added, since_ms, is_cut, audit_max, deleted_up_to, finding }
    }
}

/// Whether an audit must exist: a listed SKU has had an event. One page of the list answers this.
async fn is_anything_seeded(redis: &Redis, layout: &Layout, skus: &str) -> Result<bool, Error> {
    let (_, skus) = redis.scan_members(skus, 0).await.map_err(Error::retry_safe)?;
    let skus = skus.iter().filter_map(|sku| Sku::parse(sku).ok());
    let stocks: Vec<_> = skus.map(|sku| layout.stock(&sku).inventory).collect();
    let fields = redis.fields(&stocks, &["lastEvent"]).await.map_err(Error::retry_safe)?;
    Ok(fields.iter().flatten().any(Option::is_some))
}
