//! Every key shape and every rule for a name that becomes part of one, once.
//!
//! The scripts cut SKUs and ids out of key names and check them again (`lua/*.lua`). The checks here only give the
//! caller an earlier answer, with the name of the field.

mod metadata;
mod name;
mod operation_id;
mod reservation_id;

use std::sync::Arc;

pub use metadata::Metadata;
pub use name::{CartId, IdempotencyKey, Reason, Sku};
pub use operation_id::OperationId;
pub use reservation_id::ReservationId;

/// Where the loader publishes script name -> SHA-1. There is one for the whole of Redis, for any number of shards.
pub const SCRIPTS: &str = "stockhold:scripts";

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

    /// `shards` shards, 2 to 4,096: the id of a reservation has 12 bits for its shard.
    ///
    /// # Errors
    /// When `shards` is out of that range.
    pub fn sharded(shards: u16) -> Result<Self, Invalid> {
        if (2..=4096).contains(&shards) {
            Ok(Self((0..shards).map(|number| Arc::new(Shard::new(number, format!("{{{number}}}:")))).collect()))
        } else {
            Err(Invalid { field: "shards", rule: "must be a whole number from 2 to 4096" })
        }
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
        const CRC16: crc::Crc<u16> = crc::Crc::<u16>::new(&crc::CRC_16_XMODEM);
        &self.0[usize::from(CRC16.checksum(sku.as_str().as_bytes())) % self.0.len()]
    }

    /// The keys of a SKU.
    pub fn stock(&self, sku: &Sku) -> StockKeys {
        let shard = Arc::clone(self.shard_of(sku));
        let inventory = format!("{}inventory:{sku}", shard.prefix);
        StockKeys { active: format!("{inventory}:active"), inventory, shard }
    }

    /// The key of a reservation: its id tells the shard.
    pub fn reservation(&self, id: &ReservationId) -> String {
        self.0[usize::from(id.shard()) % self.0.len()].reservation(id)
    }

    /// What a key of this layout is about; `None` for all other keys.
    pub fn read(&self, key: &str) -> Option<Subject> {
        let key = match key.strip_prefix('{') {
            Some(sharded) if self.0.len() > 1 => sharded.split_once("}:")?.1,
            Some(_) => return None,
            None => key,
        };
        if let Some(sku) = key.strip_prefix("inventory:") {
            return Sku::parse(sku).ok().map(Subject::Stock);
        }
        ReservationId::parse(key.strip_prefix("reservation:")?).ok().map(Subject::Reservation)
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

    /// The key of a reservation on this shard.
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
        assert_eq!(layout.reservation(&id), "reservation:018f0000-0000-8abc-8000-000000000001");
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
        assert!(layout.reservation(&id).starts_with("{3}:reservation:"));
        assert!(layout.shard_of(&sku).operation(&OperationId::mint()).starts_with("{3}:operation:"));
        assert_eq!(layout.shard_of(&sku).cart(&CartId::parse("a:{b}").unwrap()), "{3}:cart:a:{b}");
        assert_eq!(layout.shards().len(), 16);
    }

    #[test]
    fn a_key_tells_what_it_is_about() {
        let id = ReservationId::parse("018f0000-0000-8abc-8000-000000000001").unwrap();
        let sku = Sku::parse("tea").unwrap();
        for layout in [Layout::unsharded(), Layout::sharded(16).unwrap()] {
            assert_eq!(layout.read(&layout.stock(&sku).inventory), Some(Subject::Stock(sku.clone())));
            assert_eq!(layout.read(&layout.reservation(&id)), Some(Subject::Reservation(id)));
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
    }

    #[test]
    fn shards_have_limits() {
        for bad in [0, 1, 4097] {
            assert!(Layout::sharded(bad).is_err());
        }
        assert!(Layout::sharded(4096).is_ok());
    }
}
