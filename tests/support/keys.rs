//! Where the servers of the tests keep what they know, for a test that looks behind them.
//!
//! They have one shard, and with `SHARDS=16` or `REDIS_CLUSTER=1` in the environment 16, unless a test says otherwise with `--shards`.

use std::sync::{Arc, LazyLock};

use stockhold::keys::{CartId, Layout, OperationId, ReservationId, Shard, Sku};

use super::redis_server::IS_CLUSTER;

/// The layout that the servers have.
pub static LAYOUT: LazyLock<Layout> = LazyLock::new(|| {
    let usual = if *IS_CLUSTER { 16 } else { 1 };
    let shards = std::env::var("SHARDS").map_or(usual, |shards| shards.parse().expect("SHARDS"));
    Layout::of(shards).expect("SHARDS")
});

/// All shards, for what each of them keeps a part of.
pub fn shards() -> &'static [Arc<Shard>] {
    LAYOUT.shards()
}

/// The shard of a SKU.
pub fn shard_of(sku: &str) -> &'static Shard {
    LAYOUT.shard_of(&named(sku))
}

/// The counts of a SKU.
pub fn inventory(sku: &str) -> String {
    LAYOUT.stock(&named(sku)).inventory
}

/// The active reservations of a SKU, by expiry.
pub fn active(sku: &str) -> String {
    LAYOUT.stock(&named(sku)).active
}

/// The stream that has the events of a SKU, among others.
pub fn audit_of(sku: &str) -> &'static str {
    &shard_of(sku).audit
}

/// The list that has a SKU while something of it is held.
pub fn due_of(sku: &str) -> &'static str {
    &shard_of(sku).due
}

/// The list that has a SKU since it was put on sale.
pub fn skus_of(sku: &str) -> &'static str {
    &shard_of(sku).skus
}

/// The settings that are obeyed for a SKU.
pub fn settings_of(sku: &str) -> &'static str {
    &shard_of(sku).settings
}

/// A record: its id tells the shard.
pub fn reservation(id: impl ToString) -> String {
    let id = ReservationId::parse(&id.to_string()).unwrap();
    LAYOUT.reservation(&id).unwrap_or_else(|| panic!("{id} is of no shard"))
}

/// The list of what a cart has of a SKU, and of others in the same shard.
pub fn cart_of(sku: &str, cart: &str) -> String {
    shard_of(sku).cart(&CartId::parse(cart).unwrap())
}

/// An operation on a SKU that is done once, and that nobody has done yet.
pub fn new_operation_on(sku: &str) -> String {
    shard_of(sku).operation(&OperationId::mint())
}

/// A new id for a reservation of a SKU.
pub fn new_id(sku: &str) -> String {
    ReservationId::mint(shard_of(sku).number).to_string()
}

/// The id of an event of a SKU as HTTP shows it.
pub fn shown_event(sku: &str, id: &str) -> String {
    if LAYOUT.is_sharded() { format!("{id}-{}", shard_of(sku).number) } else { id.to_owned() }
}

/// The entry in the audit of an event that HTTP shows.
pub fn entry(shown_event: &str) -> &str {
    if LAYOUT.is_sharded() { shown_event.rsplit_once('-').unwrap().0 } else { shown_event }
}

/// A word of a command that is written for one shard, as it is where a SKU is: a key has the prefix of its shard.
pub fn placed(word: &str, sku: &str) -> String {
    let is_key = ["inventory:", "reservation:", "stockhold:"].iter().any(|kind| word.starts_with(kind));
    let inventory = inventory(sku);
    let prefix = inventory.strip_suffix(&format!("inventory:{sku}")).unwrap();
    if is_key { format!("{prefix}{word}") } else { word.to_owned() }
}

/// SKUs of one shard, for a test of what is atomic there: the first of these names, and each other one with as much
/// added as it takes.
pub fn in_one_shard<const N: usize>(names: [&str; N]) -> [&'static str; N] {
    let shard = shard_of(names[0]).number;
    names.map(|name| {
        let mut others = (1..).map(|number| format!("{name}-{number}"));
        let fitting = std::iter::once(name.to_owned()).chain(&mut others).find(|sku| shard_of(sku).number == shard);
        &*fitting.unwrap().leak()
    })
}

fn named(sku: &str) -> Sku {
    Sku::parse(sku).unwrap()
}
