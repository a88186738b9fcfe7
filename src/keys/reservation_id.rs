//! The id of a reservation: a UUID that carries its shard and, for a request with an idempotency key, the identity of
//! that request.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::{CartId, IdempotencyKey, Invalid, Sku};

/// They separate the ids of holds and of the lines of a cart from each other.
const HOLD: &str = "hold";
const CART_LINE: &str = "cart line";
const CART_PART: &str = "cart part";

/// A version 8 UUID (RFC 9562): 48 bits of time in milliseconds, 4 of version, 12 of shard, 2 of variant, 62 random.
///
/// The time lets people sort ids by eye. Nothing is decided by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReservationId(Uuid);

impl ReservationId {
    /// A new id on `shard` (0 to 4,095).
    pub fn mint(shard: u16) -> Self {
        let ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
        let mut bytes = *Uuid::new_v4().as_bytes();
        bytes[..6].copy_from_slice(&ms.to_be_bytes()[10..]);
        Self::assemble(bytes, shard)
    }

    /// The id of the hold that `key` stands for on a SKU. Time and random bits come from a SHA-256 of both, so the same key
    /// finds the same reservation, and no other record of the request is needed.
    pub fn of_hold(key: &IdempotencyKey, sku: &Sku, shard: u16) -> Self {
        Self::of(HOLD, key, sku.as_str(), shard)
    }

    /// The id of a line of the cart that `key` stands for.
    pub fn of_cart_line(key: &IdempotencyKey, cart: &CartId, sku: &Sku, shard: u16) -> Self {
        // No SKU contains this character: other names give other bytes.
        Self::of(CART_LINE, key, &format!("{cart}:{sku}"), shard)
    }

    /// The same where a cart has lines in several shards: the id depends on what the whole request is, too.
    pub fn of_cart_part(key: &IdempotencyKey, cart: &CartId, sku: &Sku, whole: &str, shard: u16) -> Self {
        Self::of(CART_PART, key, &format!("{cart}:{sku}:{whole}"), shard)
    }

    fn of(kind: &str, key: &IdempotencyKey, subject: &str, shard: u16) -> Self {
        let mut hash = Sha256::new();
        hash.update(kind);
        // All of one length: what follows is the subject.
        hash.update(key.digest());
        hash.update(subject);
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&hash.finalize()[..16]);
        Self::assemble(bytes, shard)
    }

    /// An id on `shard` that no reservation has: its time and its random bits are zero.
    pub fn unused(shard: u16) -> Self {
        Self::assemble([0; 16], shard)
    }

    /// # Errors
    /// Unless `text` is a UUID in its hyphenated form, of any version: other services may generate their own ids.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        match Uuid::try_parse(text) {
            Ok(uuid) if text.len() == uuid::fmt::Hyphenated::LENGTH => Ok(Self(uuid)),
            _ => Err(Invalid {
                field: "reservationId",
                rule: "must be a UUID such as 018f3b9e-5c1a-8000-9f10-0242ac120002",
            }),
        }
    }

    /// The shard that the id carries.
    pub fn shard(&self) -> u16 {
        let bytes = self.0.as_bytes();
        u16::from_be_bytes([bytes[6], bytes[7]]) & 0x0fff
    }

    fn assemble(mut bytes: [u8; 16], shard: u16) -> Self {
        debug_assert!(shard < 4096);
        bytes[6..8].copy_from_slice(&shard.to_be_bytes());
        Self(Uuid::new_v8(bytes))
    }
}

/// Lower case with hyphens: the only form that the scripts accept.
impl fmt::Display for ReservationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn carries_version_variant_and_shard() {
        for shard in [0, 1, 4095] {
            let id = ReservationId::mint(shard);
            assert_eq!(id.0.get_version_num(), 8);
            assert_eq!(id.0.get_variant(), uuid::Variant::RFC4122);
            assert_eq!(id.shard(), shard);
            assert_eq!(ReservationId::parse(&id.to_string()).unwrap(), id);
        }
        assert_ne!(ReservationId::mint(0), ReservationId::mint(0));
    }

    #[test]
    fn the_same_key_gives_the_same_id() {
        let key = IdempotencyKey::parse("order-17").unwrap();
        let other = IdempotencyKey::parse("order-18").unwrap();
        let [tea, cup] = ["tea", "cup"].map(|sku| Sku::parse(sku).unwrap());
        let id = ReservationId::of_hold(&key, &tea, 7);
        assert_eq!(id, ReservationId::of_hold(&key, &tea, 7));
        assert_ne!(id, ReservationId::of_hold(&other, &tea, 7));
        assert_ne!(id, ReservationId::of_hold(&key, &cup, 7));
        assert_eq!((id.shard(), id.0.get_version_num()), (7, 8));
    }

    #[test]
    fn a_line_of_a_cart_has_an_id_of_its_own() {
        let [one, other] = ["order-1", "order-2"].map(|key| IdempotencyKey::parse(key).unwrap());
        let id = |key, cart, sku| {
            ReservationId::of_cart_line(key, &CartId::parse(cart).unwrap(), &Sku::parse(sku).unwrap(), 7)
        };
        let ids = [id(&one, "c", "tea"), id(&one, "c", "cup"), id(&one, "c:tea", "cup"), id(&other, "c", "tea")];
        let ids: std::collections::BTreeSet<_> =
            ids.into_iter().chain([ReservationId::of_hold(&one, &Sku::parse("tea").unwrap(), 7)]).collect();
        assert_eq!((ids.len(), id(&one, "c", "tea")), (5, id(&one, "c", "tea")));
        assert!(ids.iter().all(|id| id.shard() == 7));
    }

    #[test]
    fn parses_only_the_hyphenated_form() {
        let upper = ReservationId::parse("018F0000-0000-8ABC-8000-00000000000A").unwrap();
        assert_eq!(upper.to_string(), "018f0000-0000-8abc-8000-00000000000a");
        for bad in [
            "",
            "nope",
            "018f000000008abc800000000000000a",
            "{018f0000-0000-8abc-8000-00000000000a}",
            "urn:uuid:018f0000-0000-8abc-8000-00000000000a",
        ] {
            assert!(ReservationId::parse(bad).is_err(), "{bad:?}");
        }
    }
}
