//! Every key shape and every rule for a name that becomes part of one, once.
//!
//! The scripts cut SKUs and ids out of key names and check them again (`lua/*.lua`). The checks here only give the
//! caller an earlier answer, with the name of the field.

mod metadata;
mod name;
mod operation_id;
mod reservation_id;

use std::sync::Arc;

use crate::redis::crc16;

pub use metadata::Metadata;
pub use name::{CartId, IdempotencyKey, Reason, Sku};
pub use operation_id::OperationId;
pub use reservation_id::ReservationId;

/// Where the loader publishes script name -> SHA-1. There is one for the whole of Redis, for any number of shards.
pub const SCRIPTS: &str = "stockhold:scripts";

/// Where the number of shards stands, in the field [`LAYOUT_SHARDS`]: written once, by the first server. There is one for
/// the whole of Redis.
pub const LAYOUT: &str = "stockhold:layout";

/// The field of [`LAYOUT`] with the number.
pub const LAYOUT_SHARDS: &str = "shards";

/// The field of [`LAYOUT`] that says from where a stock is being moved here, until all of it is here.
pub const LAYOUT_MOVING: &str = "moving";

/// The maximum number of shards: the id of a reservation has 12 bits for its shard.
pub const MAX_SHARDS: u16 = 4096;

/// A value that breaks the rule of its field.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {rule}")]
pub struct Invalid {
    /// The field, by the name that the caller used.
    pub field: &'static str,
    /// The rule, in words for the caller.
    pub rule: &'static str,
}

/// How SKUs are spread over hash slots: the shards, which determine the shape of every key. Clones share them.
///
/// Without sharding there is one shard, and keys have no prefix. With `n` shards, every key that one script touches has
/// the prefix `{shard}:`, so that Redis Cluster keeps these keys in one slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout(Arc<[Arc<Shard>]>);

impl Layout {
    /// One shard, keys without a prefix: standalone Redis.
    pub fn unsharded() -> Self {
        Self([Arc::new(Shard::new(0, String::new()))].into())
    }

    /// `shards` shards, 2 to [`MAX_SHARDS`].
    ///
    /// # Errors
    /// When `shards` is out of that range.
    pub fn sharded(shards: u16) -> Result<Self, Invalid> {
        if (2..=MAX_SHARDS).contains(&shards) {
            Ok(Self((0..shards).map(|number| Arc::new(Shard::new(number, format!("{{{number}}}:")))).collect()))
        } else {
            Err(Invalid { field: "shards", rule: "must be a whole number from 2 to 4096" })
        }
    }

    /// `shards` shards: 1 is [`Self::unsharded`].
    ///
    /// # Errors
    /// Unless `shards` is 1 to [`MAX_SHARDS`].
    pub fn of(shards: u16) -> Result<Self, Invalid> {
        if shards == 1 { Ok(Self::unsharded()) } else { Self::sharded(shards) }
    }

    /// Whether keys have the prefix of a shard.
    pub fn is_sharded(&self) -> bool {
        self.0.len() > 1
    }

    /// All shards, in the order of their numbers.
    pub fn shards(&self) -> &[Arc<Shard>] {
        &self.0
    }

    /// The first shard: what is the same in all shards is read from there.
    pub fn first(&self) -> &Shard {
        &self.0[0]
    }

    /// The shard of a SKU: CRC16 of the SKU, as Redis Cluster computes it, modulo the number of shards.
    pub fn shard_of(&self, sku: &Sku) -> &Arc<Shard> {
        if !self.is_sharded() {
            return &self.0[0];
        }
        &self.0[usize::from(crc16(sku.as_str().as_bytes())) % self.0.len()]
    }

    /// The keys of a SKU.
    pub fn stock(&self, sku: &Sku) -> StockKeys {
        let shard = Arc::clone(self.shard_of(sku));
        let inventory = format!("{}inventory:{sku}", shard.prefix);
        StockKeys { active: format!("{inventory}:active"), inventory, shard }
    }

    /// The key of a reservation: its id tells the shard. `None` for an id with the number of no shard: it is no
    /// reservation of this layout.
    pub fn reservation(&self, id: &ReservationId) -> Option<String> {
        let shard = if self.is_sharded() { self.0.get(usize::from(id.shard()))? } else { &self.0[0] };
        Some(shard.reservation(id))
    }

    /// Whether a key is one of this layout.
    pub fn has(&self, key: &str) -> bool {
        let bare = match key.strip_prefix('{').and_then(|rest| rest.split_once("}:")) {
            Some((number, bare)) if self.is_sharded() => {
                let is_shard = self.0.iter().any(|shard| shard.number.to_string() == number);
                if !is_shard {
                    return false;
                }
                bare
            }
            None if !self.is_sharded() => key,
            _ => return false,
        };
        ["inventory:", "reservation:", "operation:", "cart:"].iter().any(|kind| bare.starts_with(kind))
            || ["stockhold:due", "stockhold:skus", "stockhold:settings"].contains(&bare)
    }

    /// What a key of this layout is about; `None` for all other keys.
    pub fn read(&self, key: &str) -> Option<Subject> {
        let bare = if self.is_sharded() { key.strip_prefix('{')?.split_once("}:")?.1 } else { key };
        if let Some(sku) = bare.strip_prefix("inventory:") {
            let sku = Sku::parse(sku).ok()?;
            return (self.stock(&sku).inventory == key).then_some(Subject::Stock(sku));
        }
        let id = ReservationId::parse(bare.strip_prefix("reservation:")?).ok()?;
        (self.reservation(&id).as_deref() == Some(key)).then_some(Subject::Reservation(id))
    }
}

/// A part of the stock whose keys are in one hash slot, with the keys that its SKUs have in common.
#[derive(Debug, PartialEq, Eq)]
pub struct Shard {
    /// Its number, which the ids of its reservations carry.
    pub number: u16,
    prefix: String,
    /// Stream: one entry for each state change.
    pub audit: String,
    /// Sorted set: SKU -> lower bound of its earliest expiry, epoch milliseconds.
    pub due: String,
    /// Set: every SKU ever seeded.
    pub skus: String,
    /// Hash: the settings of the operator, which scripts obey.
    pub settings: String,
}

impl Shard {
    fn new(number: u16, prefix: String) -> Self {
        Self {
            number,
            audit: format!("{prefix}inventory:audit"),
            due: format!("{prefix}stockhold:due"),
            skus: format!("{prefix}stockhold:skus"),
            settings: format!("{prefix}stockhold:settings"),
            prefix,
        }
    }

    /// Whether an id may be that of a reservation on this shard.
    pub fn has(&self, id: &ReservationId) -> bool {
        self.prefix.is_empty() || id.shard() == self.number
    }

    /// The key of a reservation on this shard, which must [have](Self::has) the id.
    pub fn reservation(&self, id: &ReservationId) -> String {
        format!("{}reservation:{id}", self.prefix)
    }

    /// The key under which this shard lists the reservations of a cart.
    pub fn cart(&self, id: &CartId) -> String {
        format!("{}cart:{id}", self.prefix)
    }

    /// The key under which this shard remembers an operation.
    pub fn operation(&self, id: &OperationId) -> String {
        format!("{}operation:{id}", self.prefix)
    }
}

impl StockKeys {
    /// The key of a reservation of this SKU; `None` for an id of another shard.
    pub fn reservation(&self, id: &ReservationId) -> Option<String> {
        self.shard.has(id).then(|| self.shard.reservation(id))
    }
}

/// What a key is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// The counts of this SKU.
    Stock(Sku),
    /// The record of this reservation.
    Reservation(ReservationId),
}

/// The keys that every script call for a SKU names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StockKeys {
    /// The keys that the shard's SKUs have in common.
    pub shard: Arc<Shard>,
    /// Hash: the SKU's counts.
    pub inventory: String,
    /// Sorted set: ids of its active reservations, scored by expiry, epoch milliseconds.
    pub active: String,
}

/// A key to try a server with. Whoever may write reservations may write it, and no reservation has such a name.
pub fn trial() -> String {
    format!("reservation:stockhold-trial:{}", ReservationId::mint(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unsharded_keys_have_no_prefix() {
        let layout = Layout::unsharded();
        let keys = layout.stock(&Sku::parse("sku-1").unwrap());
        assert_eq!(keys.inventory, "inventory:sku-1");
        assert_eq!(keys.active, "inventory:sku-1:active");
        assert_eq!(keys.shard.audit, "inventory:audit");
        assert_eq!(keys.shard.due, "stockhold:due");
        assert_eq!(keys.shard.skus, "stockhold:skus");
        assert_eq!(keys.shard.settings, "stockhold:settings");
        let id = ReservationId::parse("018f0000-0000-8abc-8000-000000000001").unwrap();
        assert_eq!(layout.reservation(&id).unwrap(), "reservation:018f0000-0000-8abc-8000-000000000001");
        assert_eq!(layout, Layout::of(1).unwrap());
    }

    #[test]
    fn a_sku_and_its_reservations_share_a_shard() {
        let layout = Layout::sharded(16).unwrap();
        let sku = Sku::parse("123456789").unwrap();
        // 0x31C3 is the check value of this CRC16 for this input.
        assert_eq!(layout.shard_of(&sku).number, 0x31C3 % 16);
        assert_eq!(layout.stock(&sku).inventory, "{3}:inventory:123456789");
        assert_eq!(layout.stock(&sku).shard.audit, "{3}:inventory:audit");
        let id = ReservationId::mint(layout.shard_of(&sku).number);
        assert!(layout.reservation(&id).unwrap().starts_with("{3}:reservation:"));
        assert_eq!(layout.stock(&sku).reservation(&id), layout.reservation(&id));
        assert_eq!(layout.stock(&sku).reservation(&ReservationId::mint(4)), None, "of another shard");
        assert_eq!(layout.reservation(&ReservationId::mint(16)), None, "of no shard");
        assert!(layout.reservation(&ReservationId::mint(15)).is_some());
        assert!(layout.shard_of(&sku).operation(&OperationId::mint()).starts_with("{3}:operation:"));
        assert_eq!(layout.shard_of(&sku).cart(&CartId::parse("a:{b}").unwrap()), "{3}:cart:a:{b}");
        assert_eq!(layout.shards().len(), 16);
    }

    #[test]
    fn a_key_tells_what_it_is_about() {
        let id = ReservationId::parse("018f0000-0000-800a-8000-000000000001").unwrap();
        let sku = Sku::parse("tea").unwrap();
        for layout in [Layout::unsharded(), Layout::sharded(16).unwrap()] {
            assert_eq!(layout.read(&layout.stock(&sku).inventory), Some(Subject::Stock(sku.clone())));
            assert_eq!(layout.read(&layout.reservation(&id).unwrap()), Some(Subject::Reservation(id)));
            for other in [
                "inventory:audit",
                "inventory:tea:active",
                "reservation:tea",
                "operation:tea",
                "cart:tea",
                "stockhold:due",
                "tea",
            ] {
                assert_eq!(layout.read(other), None, "{other}");
            }
        }
        assert_eq!(Layout::unsharded().read("{3}:inventory:tea"), None);
        let layout = Layout::sharded(16).unwrap();
        let own = layout.stock(&sku).inventory;
        for other in ["inventory:tea".to_owned(), format!("{{16}}:{}", &own[own.find("inv").unwrap()..])] {
            assert_eq!(layout.read(&other), None, "{other}");
        }
        for other in ["reservation", "{9}:reservation", "{010}:reservation"] {
            assert_eq!(layout.read(&format!("{other}:{id}")), None, "{other}");
        }
    }

    #[test]
    fn shards_have_limits() {
        for bad in [0, 1, 4097] {
            assert!(Layout::sharded(bad).is_err());
        }
        assert!(Layout::sharded(4096).is_ok());
        assert!(Layout::of(0).is_err() && Layout::of(2).unwrap().is_sharded());
    }
}
