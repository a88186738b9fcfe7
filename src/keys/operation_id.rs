//! The id under which an adjustment of stock is remembered.

use std::fmt;

use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::{IdempotencyKey, Sku};

/// Separates these ids from those of reservations: the same key may be used for both.
const SPACE: &str = "adjust";

/// A UUID.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct OperationId(Uuid);

impl OperationId {
    /// A new id, for an operation that is not remembered.
    pub fn mint() -> Self {
        Self(Uuid::new_v4())
    }

    /// The id of what `key` stands for on a SKU. A request may adjust a SKU several times: `earlier` says how often it
    /// did before this time.
    pub fn from_idempotency_key(key: &IdempotencyKey, sku: &Sku, earlier: usize) -> Self {
        let mut hash = Sha256::new();
        hash.update(SPACE);
        // All of one length: what follows is the SKU, and no other key with another SKU gives the same bytes.
        hash.update(key.digest());
        hash.update(sku.as_str());
        if earlier > 0 {
            // No SKU contains this character.
            hash.update(format!(":{earlier}"));
        }
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&hash.finalize()[..16]);
        Self(Uuid::new_v8(bytes))
    }
}

/// Lower case with hyphens: the only form that the scripts accept.
impl fmt::Display for OperationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::keys::ReservationId;

    #[test]
    fn a_key_a_sku_and_a_turn_give_one_id_and_no_other() {
        let [one, other] = ["order-1", "order-2"].map(|key| IdempotencyKey::parse(key).unwrap());
        let [tea, cup] = ["tea", "cup"].map(|sku| Sku::parse(sku).unwrap());
        let id = |key, sku, earlier| OperationId::from_idempotency_key(key, sku, earlier).to_string();
        assert_eq!(id(&one, &tea, 0), id(&one, &tea, 0));
        let ids = [id(&one, &tea, 0), id(&other, &tea, 0), id(&one, &cup, 0), id(&one, &tea, 1), id(&one, &tea, 11)];
        let ids = ids.into_iter().chain([ReservationId::from_idempotency_key(&one, 0).to_string()]);
        assert_eq!(ids.collect::<BTreeSet<_>>().len(), 6);
        assert_ne!(OperationId::mint(), OperationId::mint());
    }
}
