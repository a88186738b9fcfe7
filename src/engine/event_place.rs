//! Where an event stands among those of all shards.

use std::cmp::{Ordering, Reverse};
use std::fmt;

use crate::keys::Layout;
use crate::redis::entry_order;

/// A number that no event of a millisecond has.
const PAST_ALL: u64 = u32::MAX as u64;

/// The place of an event: later ones are greater. Of those of the same millisecond and number, the one of the lower shard
/// is the newer one. Its text is the id of the entry, with the shard where there are several.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventPlace {
    pub(super) order: (u64, u64),
    pub(super) shard: u16,
    is_sharded: bool,
}

impl EventPlace {
    /// Reads its text; `None` when it is none of this layout.
    pub fn parse(layout: &Layout, text: &str) -> Option<Self> {
        let is_sharded = layout.is_sharded();
        if !is_sharded {
            return Some(Self { order: entry_order(text)?, shard: 0, is_sharded });
        }
        let (entry, shard) = text.rsplit_once('-')?;
        let number = layout.shards().iter().map(|shard| shard.number).find(|number| number.to_string() == shard)?;
        Some(Self { order: entry_order(entry)?, shard: number, is_sharded })
    }

    /// That of an entry in a shard's stream.
    pub(super) fn of(layout: &Layout, shard: u16, order: (u64, u64)) -> Self {
        Self { order, shard, is_sharded: layout.is_sharded() }
    }

    /// After every event before a millisecond, and before all others.
    pub(super) fn just_before(layout: &Layout, ms: u64) -> Self {
        Self::of(layout, 0, (ms.saturating_sub(1), PAST_ALL))
    }

    /// The id of its entry.
    pub(super) fn entry(self) -> String {
        let (ms, sequence) = self.order;
        format!("{ms}-{sequence}")
    }

    /// Where the events of a shard that are older begin; `None` if there can be none.
    pub(super) fn older(self, shard: u16) -> Option<String> {
        match self.order {
            _ if shard > self.shard => Some(self.entry()),
            // Nothing is before the lowest id, and Redis refuses to read there.
            (0, 0) => None,
            _ => Some(format!("({}", self.entry())),
        }
    }

    /// Where the events of a shard that are newer begin.
    pub(super) fn newer(self, shard: u16) -> String {
        if shard < self.shard { self.entry() } else { format!("({}", self.entry()) }
    }
}

impl Ord for EventPlace {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.order, Reverse(self.shard)).cmp(&(other.order, Reverse(other.shard)))
    }
}

impl PartialOrd for EventPlace {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for EventPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (ms, sequence) = self.order;
        if self.is_sharded { write!(f, "{ms}-{sequence}-{}", self.shard) } else { write!(f, "{ms}-{sequence}") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is newer and what is older share no place, and leave out only the place itself.
    #[test]
    fn newer_and_older_meet_at_the_place() {
        let layout = Layout::sharded(3).unwrap();
        let place = EventPlace::parse(&layout, "5-1-1").unwrap();
        assert_eq!(place.to_string(), "5-1-1");
        for shard in 0..3 {
            let same_entry = EventPlace::of(&layout, shard, (5, 1));
            assert_eq!(same_entry > place, place.newer(shard) == "5-1", "{shard}");
            assert_eq!(same_entry < place, place.older(shard).unwrap() == "5-1", "{shard}");
        }
        let before = EventPlace::just_before(&layout, 5);
        assert!(before > EventPlace::of(&layout, 0, (4, 9)) && before < EventPlace::of(&layout, 2, (5, 0)));
        for text in ["5-1", "5-1-3", "5-1-01", "x-1-1", ""] {
            assert_eq!(EventPlace::parse(&layout, text), None, "{text}");
        }
    }
}
