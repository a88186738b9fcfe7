//! The id under which something that must be done once is remembered.

use std::fmt;

use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::{CartId, IdempotencyKey, ReservationId, Sku};

/// They separate the ids of different kinds, and those of reservations: the same key may be used for all.
const ADJUST: &str = "adjust";
const CART_HOLD: &str = "cart hold";
const CHANGE: &str = "change";
const RETURN: &str = "return";
const SEED: &str = "seed";

/// A UUID.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct OperationId(Uuid);

impl OperationId {
    /// A new id, for an operation that is not remembered.
    pub fn mint() -> Self {
        Self(Uuid::new_v4())
    }

    /// The id of the adjustment that `key` stands for on a SKU. A request may adjust a SKU several times: `earlier` says how often it
    /// did before this time.
    pub fn from_idempotency_key(key: &IdempotencyKey, sku: &Sku, earlier: usize) -> Self {
        // No SKU contains the colon.
        let turn = if earlier > 0 { format!(":{earlier}") } else { String::new() };
        Self::of(ADJUST, key, &format!("{sku}{turn}"))
    }

    /// The id of the change that `key` stands for on a reservation.
    pub fn of_change(key: &IdempotencyKey, reservation: ReservationId) -> Self {
        Self::of(CHANGE, key, &reservation.to_string())
    }

    /// The id of the return that `key` stands for on a reservation.
    pub fn of_return(key: &IdempotencyKey, reservation: ReservationId) -> Self {
        Self::of(RETURN, key, &reservation.to_string())
    }

    /// The id of the seed that `key` stands for on a SKU.
    pub fn of_seed(key: &IdempotencyKey, sku: &Sku) -> Self {
        Self::of(SEED, key, sku.as_str())
    }

    /// The id of the hold of a cart that `key` stands for. With several shards it may be attempted more than once:
    /// `attempt` counts from 0.
    pub fn of_cart_hold(key: &IdempotencyKey, cart: &CartId, attempt: u32) -> Self {
        if attempt == 0 {
            return Self::of(CART_HOLD, key, cart.as_str());
        }
        Self::of(&format!("{CART_HOLD} {attempt}"), key, cart.as_str())
    }

    fn of(kind: &str, key: &IdempotencyKey, subject: &str) -> Self {
        let mut hash = Sha256::new();
        hash.update(kind);
        // All of one length: what follows is the subject, and no other key with another subject gives the same bytes.
        hash.update(key.digest());
        hash.update(subject);
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
        let reservation = ReservationId::of_hold(&one, &tea, 0);
        let returns = [OperationId::of_return(&one, reservation), OperationId::of_return(&other, reservation)];
        let seeds = [OperationId::of_seed(&one, &tea), OperationId::of_seed(&one, &cup)];
        let carts = ["tea", "box"].map(|cart| OperationId::of_cart_hold(&one, &CartId::parse(cart).unwrap(), 0));
        let again = OperationId::of_cart_hold(&one, &CartId::parse("tea").unwrap(), 1);
        let changes = [OperationId::of_change(&one, reservation), again];
        let returns = returns.into_iter().chain(seeds).chain(carts).chain(changes);
        let ids = ids.into_iter().chain([reservation.to_string()]).chain(returns.map(|id| id.to_string()));
        assert_eq!(ids.collect::<BTreeSet<_>>().len(), 14);
        assert_ne!(OperationId::mint(), OperationId::mint());
    }
}
