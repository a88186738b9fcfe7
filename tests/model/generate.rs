//! Sequences of calls that get into each other's way: few names, short lives, and mostly what fits together.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use crate::call::{Act, CARTS, IDS, Item, Keep, Line, Record, Restart, SKUS, Step, TOKENS};
use crate::spoil::{self, Spoil};

const LONGEST: usize = 200;
const FIRST_SEEDS: usize = 8;
const LONG_MS: u64 = 600_000;
const IDS_OF_SKU: u8 = (*IDS.end() + 1) / SKUS.len() as u8;

/// With less, Redis may drop a record in the middle of the script that settles it.
const SHORTEST_KEPT_MS: u64 = 1;

/// At least as many as one call can add, so that no entry goes before its id was seen.
const AUDIT_MAX: u64 = 20;

pub fn sequence() -> impl Strategy<Value = Vec<Step>> {
    let first = vec(seed().prop_map(|act| Step { act, spoil: None }), 0..=FIRST_SEEDS);
    (first, vec(step(), 1..=LONGEST - FIRST_SEEDS)).prop_map(|(first, then)| [first, then].concat())
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        30 => (act(), prop::option::weighted(0.07, spoil())),
        // These are few, and what is wrong with them is to be seen too.
        2 => (prop_oneof![2 => read(), 1 => seed(), 1 => sweep(), 1 => repair()], spoil().prop_map(Some)),
    ]
    .prop_map(|(act, spoil)| Step { act, spoil })
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        2 => (1..=15u64).prop_map(Act::WaitMs),
        7 => seed(),
        36 => (mode(), some(line()), audit_max())
            .prop_map(|(mode, lines, audit_max)| Act::Hold { mode, lines, audit_max }),
        18 => (mode(), some(item()), keep()).prop_map(|(mode, items, keep)| Act::Confirm { mode, items, keep }),
        15 => (mode(), some(item()), keep()).prop_map(|(mode, items, keep)| Act::Release { mode, items, keep }),
        12 => sweep(),
        4 => repair(),
        9 => read(),
    ]
}

fn read() -> impl Strategy<Value = Act> {
    prop_oneof![
        (sku(), select(vec![0, 1, 2, 100])).prop_map(|(sku, limit)| Act::Inventory { sku, limit }),
        (prop::option::weighted(0.7, sku()), select(vec![1, 2, 5, 100]), prop::option::of(0..30usize))
            .prop_map(|(sku, limit, before)| Act::Audit { sku, limit, before }),
    ]
}

fn seed() -> impl Strategy<Value = Act> {
    let all_of_sku =
        (0..SKUS.len() as u8).prop_map(|n| (SKUS[usize::from(n)], (0..IDS_OF_SKU).map(|i| id_of_sku(n, i)).collect()));
    (prop_oneof![sku_and_ids(), all_of_sku], prop_oneof![1 => 1..=9u64, 2 => 10..=60u64], keep())
        .prop_map(|((sku, ids), quantity, keep)| Act::Seed { sku, quantity, ids, keep })
}

fn sweep() -> impl Strategy<Value = Act> {
    (sku_and_ids(), keep()).prop_map(|((sku, ids), keep)| Act::Sweep { sku, ids, keep })
}

/// Of what is in order: what a repair does with damage is another test's. So nothing here takes reserved units away from
/// the reservations that hold them.
fn repair() -> impl Strategy<Value = Act> {
    let ids = sku_and_ids().prop_flat_map(|(sku, ids)| {
        let ids: std::collections::BTreeSet<_> = ids.into_iter().collect();
        let record = || {
            prop_oneof![
                4 => Just(Record::LeaveAsItIs),
                4 => Just(Record::MakeFromItsLastEvent),
                1 => Just(Record::MakeFromTheLastEventOfAll)
            ]
        };
        let ids: Vec<_> = ids.into_iter().map(|id| record().prop_map(move |record| (id, record))).collect();
        ids.prop_map(move |ids| (sku, ids))
    });
    let found = prop_oneof![5 => Just(0), 3 => 1..=6usize];
    let restart = prop_oneof![
        8 => Just(Restart::Nowhere),
        1 => Just(Restart::Here),
        1 => Just(Restart::AfterTheLastEvent)
    ];
    const TOO_MANY: i64 = -1_000_000_000_000;
    let available = prop_oneof![6 => Just(0), 1 => Just(TOO_MANY), 3 => -2..=3i64];
    let confirmed = prop_oneof![6 => Just(0), 1 => -1..=2i64];
    (ids, found, restart, available, confirmed, keep()).prop_map(
        |((sku, ids), found, restart, available, confirmed, keep)| Act::Repair {
            sku,
            ids,
            found,
            restart,
            change: [available, 0, confirmed],
            keep,
        },
    )
}

fn spoil() -> impl Strategy<Value = Spoil> {
    let place = || 0..24usize;
    let (key, arg) = (|| select(spoil::KEYS), || select(spoil::ARGS));
    prop_oneof![
        6 => (place(), key()).prop_map(|(place, key)| Spoil::Key(place, key)),
        8 => (place(), arg()).prop_map(|(place, arg)| Spoil::Arg(place, arg)),
        2 => (place(), place()).prop_map(|(one, other)| Spoil::SwapKeys(one, other)),
        1 => place().prop_map(Spoil::DropKey),
        1 => place().prop_map(Spoil::DropArg),
        1 => key().prop_map(Spoil::MoreKeys),
        1 => arg().prop_map(Spoil::MoreArgs),
        1 => (0..8usize).prop_map(Spoil::KeepKeys),
        1 => (0..5usize).prop_map(Spoil::KeepArgs),
        1 => (99..=101usize).prop_map(Spoil::Items),
    ]
}

/// As many as one call takes here; often so few that they may all be in order.
fn some<T: std::fmt::Debug>(item: impl Strategy<Value = T> + Clone) -> impl Strategy<Value = Vec<T>> {
    prop_oneof![vec(item.clone(), 1..=2), vec(item, 1..=6)]
}

fn line() -> impl Strategy<Value = Line> + Clone {
    (reservation(), mostly(9), select(CARTS.to_vec()), mostly(9), 1..=8u64, ttl_ms()).prop_map(
        |((sku, id), usual_cart, other_cart, usual_quantity, other_quantity, ttl_ms)| {
            let cart = if usual_cart { CARTS[usize::from(id / 3) % CARTS.len()] } else { other_cart };
            let quantity = if usual_quantity { u64::from(id % 4) + 1 } else { other_quantity };
            Line { sku, id, cart, quantity, ttl_ms }
        },
    )
}

fn item() -> impl Strategy<Value = Item> + Clone {
    (reservation(), any::<bool>(), select(TOKENS.to_vec())).prop_map(|((sku, id), usual, other)| {
        let token = if usual { TOKENS[usize::from(id / 3) % TOKENS.len()] } else { other };
        Item { sku, id, token }
    })
}

/// An id with a SKU: its usual one, so that calls agree about it, or any.
fn reservation() -> impl Strategy<Value = (&'static str, u8)> + Clone {
    (IDS, mostly(14), sku()).prop_map(|(id, usual, other)| (if usual { usual_sku(id) } else { other }, id))
}

/// A SKU with some ids that are mostly its own.
fn sku_and_ids() -> impl Strategy<Value = (&'static str, Vec<u8>)> {
    (0..SKUS.len() as u8, vec((0..IDS_OF_SKU, mostly(9), IDS), 0..=6)).prop_map(|(n, ids)| {
        let ids = ids.into_iter().map(|(turn, own, other)| if own { id_of_sku(n, turn) } else { other });
        (SKUS[usize::from(n)], ids.collect())
    })
}

fn id_of_sku(n: u8, turn: u8) -> u8 {
    turn * SKUS.len() as u8 + n
}

fn usual_sku(id: u8) -> &'static str {
    SKUS[usize::from(id) % SKUS.len()]
}

fn sku() -> impl Strategy<Value = &'static str> + Clone {
    select(SKUS.to_vec())
}

fn mode() -> impl Strategy<Value = &'static str> {
    select(vec!["each", "all"])
}

/// Soon over, or never within a test.
fn ttl_ms() -> impl Strategy<Value = u64> + Clone {
    prop_oneof![5 => 1..=20u64, 4 => Just(LONG_MS), 1 => Just(2_592_000_000)]
}

/// Mostly soon over: an id can be used again when its record is gone.
fn keep() -> impl Strategy<Value = Keep> {
    (audit_max(), prop_oneof![2 => Just(0), 1 => Just(LONG_MS), 27 => SHORTEST_KEPT_MS..=15])
        .prop_map(|(audit_max, ms)| Keep { audit_max, ms })
}

fn audit_max() -> impl Strategy<Value = u64> {
    prop_oneof![6 => Just(0), 2 => Just(1_000_000), 1 => Just(AUDIT_MAX)]
}

/// True but for one time in so many.
fn mostly(times: u32) -> impl Strategy<Value = bool> + Clone {
    prop_oneof![times - 1 => Just(true), 1 => Just(false)]
}
