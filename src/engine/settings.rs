//! Settings of the operator that servers and callers of scripts obey: kept in Redis, in the hash `stockhold:settings`
//! of each shard.

use std::collections::HashMap;

use super::{Engine, Error, metrics};
use crate::keys::Layout;

/// How much history is kept, and how long holds can be extended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// Milliseconds that a settled reservation is kept: field `keepMs`, which the scripts obey. 0 keeps it forever.
    pub keep_ms: u64,
    /// About how many entries the audit keeps, that of all shards together: field `auditMax`, to which the sweeper trims.
    /// 0 keeps all.
    pub audit_max: u64,
    /// When `audit_max` was last raised, epoch milliseconds, 0 for never: field `auditMaxRaisedAt`. Entries trimmed
    /// before that do not return.
    pub audit_max_raised_at_ms: u64,
    /// Milliseconds from a hold to the latest end of its extensions: field `extendMaxMs`, which the scripts obey. With 0
    /// no hold is extended.
    pub extend_max_ms: u64,
}

impl Settings {
    /// How many entries the audit of a shard keeps; `None` for all.
    pub fn audit_share(&self, layout: &Layout) -> Option<u64> {
        (self.audit_max > 0).then(|| self.audit_max.div_ceil(layout.shards().len() as u64))
    }

    /// From the stored fields.
    fn read(stored: &HashMap<String, String>) -> Result<Self, Error> {
        let number = |name: &str, default| match stored.get(name) {
            None => Ok(default),
            Some(text) => text.parse().map_err(|_| Error::Broken(format!("the setting {name} is not a number"))),
        };
        let Self { keep_ms, audit_max, audit_max_raised_at_ms, extend_max_ms } = Self::default();
        Ok(Self {
            keep_ms: number("keepMs", keep_ms)?,
            audit_max: number("auditMax", audit_max)?,
            audit_max_raised_at_ms: number("auditMaxRaisedAt", audit_max_raised_at_ms)?,
            extend_max_ms: number("extendMaxMs", extend_max_ms)?,
        })
    }
}

/// The defaults: settled reservations for 30 days, the last 1,000,000 entries of the audit, and an hour for a hold with
/// its extensions.
impl Default for Settings {
    fn default() -> Self {
        const HOUR_MS: u64 = 60 * 60 * 1000;
        Self { keep_ms: 30 * 24 * HOUR_MS, audit_max: 1_000_000, audit_max_raised_at_ms: 0, extend_max_ms: HOUR_MS }
    }
}

/// The settings to change; `None` keeps a setting.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Change {
    /// See [`Settings::keep_ms`].
    pub keep_ms: Option<u64>,
    /// See [`Settings::audit_max`].
    pub audit_max: Option<u64>,
    /// See [`Settings::extend_max_ms`].
    pub extend_max_ms: Option<u64>,
}

impl Change {
    /// Whether it changes nothing.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    fn fields(self) -> impl Iterator<Item = (&'static str, String)> {
        let fields = [("keepMs", self.keep_ms), ("auditMax", self.audit_max), ("extendMaxMs", self.extend_max_ms)];
        fields.into_iter().filter_map(|(name, value)| Some((name, value?.to_string())))
    }
}

impl Engine {
    /// Reads the settings, with defaults for those that are not set.
    ///
    /// # Errors
    /// See [`Error`]. A value that is not a number is [`Error::Broken`].
    pub async fn settings(&self) -> Result<Settings, Error> {
        let stored = self.redis.hash(&self.layout.first().settings).await.map_err(Error::retry_safe)?;
        Settings::read(&stored.fields)
    }

    /// Writes `change` in every shard, only where it differs.
    ///
    /// # Errors
    /// See [`Error`]. It is safe to repeat.
    pub async fn set(&self, change: Change) -> Result<(), Error> {
        let shards = self.layout.shards();
        let keys = shards.iter().map(|shard| shard.settings.clone());
        let (each, now_ms) = self.redis.hashes_now(keys).await.map_err(Error::retry_safe)?;
        for (shard, stored) in shards.iter().zip(each) {
            let differs = |(name, value): &(&'static str, String)| stored.get(*name) != Some(value);
            let mut fields: Vec<_> = change.fields().filter(differs).collect();
            if change.audit_max.is_some_and(|audit_max| raises(&stored, audit_max)) {
                fields.push(("auditMaxRaisedAt", now_ms.to_string()));
            }
            if !fields.is_empty() {
                self.redis.set_fields(&shard.settings, &fields).await.map_err(Error::retry_safe)?;
            }
        }
        Ok(())
    }

    /// Trims the audit to the operator's setting, oldest first, in bounded steps: that of each shard to its share. With
    /// many shards, `turn` says which of them have their turn. Returns the number of removed entries.
    ///
    /// # Errors
    /// See [`Error`]. It is safe to repeat.
    pub async fn trim_audit(&self, turn: usize) -> Result<u64, Error> {
        /// Each step takes 10,000 entries at most, less than a millisecond.
        const MOST_STEPS: usize = 20;
        /// Shards in a turn.
        const SHARDS: usize = 16;
        let most = self.settings().await?.audit_share(&self.layout);
        let mut trimmed = 0;
        let turns: Vec<_> = self.layout.shards().chunks(SHARDS).collect();
        for shard in turns[turn % turns.len()] {
            if let Some(most) = most {
                for _ in 0..MOST_STEPS {
                    match self.redis.trim(&shard.audit, most).await.map_err(Error::retry_safe)? {
                        0 => break,
                        gone => trimmed += gone,
                    }
                }
            }
            let left = self.redis.stream_length(&shard.audit).await.map_err(Error::retry_safe)?;
            metrics::AUDIT_ENTRIES[usize::from(shard.number)].set(left);
        }
        metrics::AUDIT_TRIMMED.add(trimmed);
        Ok(trimmed)
    }
}

/// Whether `audit_max` keeps more than the stored setting, which may be unreadable.
fn raises(stored: &HashMap<String, String>, audit_max: u64) -> bool {
    let entries = |most| if most == 0 { u64::MAX } else { most };
    Settings::read(stored).map_or(true, |before| entries(audit_max) > entries(before.audit_max))
}
