//! Generates sequences of calls that affect each other: few names, short lifetimes, and mostly matching keys.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use crate::call::{
    AS_MANY_AS_FIT, Act, Adjustment, CART_OPERATIONS, CARTS, CHANGES, Change, Extension, IDS, Item, Line, METADATA,
    OPERATIONS, REASONS, RETURNS, Record, Restart, RulesOf, SEEDS, SKUS, STRANGERS, Sale, Step, TOKENS,
};
use crate::spoil::{self, Spoil};
use crate::state::Rules;

const LONGEST: usize = 200;
const FIRST_SEEDS: usize = 8;
const LONG_MS: u64 = 600_000;
const HOUR_MS: u64 = 3_600_000;
const TEN_YEARS_MS: u64 = 87_600 * HOUR_MS;
const IDS_OF_SKU: u8 = (*IDS.end() + 1) / SKUS.len() as u8;

/// With less, Redis may drop a record in the middle of the script that settles it.
const SHORTEST_KEPT_MS: u64 = 1;

pub fn sequence() -> impl Strategy<Value = Vec<Step>> {
    let unspoiled = |act| Step { act, spoil: None };
    let keep_ms = keep_ms().prop_map(move |keep_ms| vec![unspoiled(Act::Keep(keep_ms))]);
    let first = vec(seed().prop_map(unspoiled), 0..=FIRST_SEEDS);
    let then = prop_oneof![80 => step().prop_map(|step| vec![step]), 1 => sale_and_returns(), 1 => hold_and_changes(), 1 => short_hold_and_sales(), 2 => ruled_carts(), 1 => scarce_lines()];
    let shard = prop_oneof![1 => Just(Vec::new()), 1 => Just(vec![unspoiled(Act::OnShard)])];
    (shard, keep_ms, first, vec(then, 1..=LONGEST - FIRST_SEEDS))
        .prop_map(|(shard, keep_ms, first, then)| [shard, keep_ms, first, then.concat()].concat())
}

/// Something is sold and comes back, some of it twice or more; often its SKU is seeded in between, and often there is no
/// room left for it.
fn sale_and_returns() -> impl Strategy<Value = Vec<Step>> {
    let units = || prop_oneof![6 => 1..=2u64, 1 => 3..=5u64];
    let returns = vec((RETURNS, mostly(3), units(), mostly(4), any::<bool>()), 1..=4);
    (0..SKUS.len() as u8, IDS, any::<bool>(), any::<bool>(), returns).prop_map(
        |(n, id, is_seeded, is_full, returns)| {
            let (sku, id) = (SKUS[usize::from(n)], id - id % SKUS.len() as u8 + n);
            let ids: Vec<_> = (0..IDS_OF_SKU).map(|turn| id_of_sku(n, turn)).collect();
            let line = Line { sku, id, cart: CARTS[0], quantity: 4, ttl_ms: LONG_MS, metadata: "" };
            let items = vec![Item { sku, id, token: "" }];
            let seed =
                || Act::Seed { sku, quantity: Some(60), ids: ids.clone(), operation: *SEEDS.start(), once: false };
            let mut acts = vec![seed(), Act::Hold { mode: "each", lines: vec![line] }];
            acts.push(Act::Confirm { mode: "each", items });
            if is_seeded {
                acts.push(seed());
            }
            if is_full {
                let change = [AS_MANY_AS_FIT, 0, 0];
                acts.push(Act::Repair {
                    sku,
                    ids: Vec::new(),
                    found: 0,
                    restart: Restart::Nowhere,
                    change,
                    rules: RulesOf::Nowhere,
                });
            }
            for (operation, restock, quantity, once, again) in returns {
                let back = Act::Return { sku, id, operation, quantity, restock, once };
                acts.extend(again.then(|| back.clone()));
                acts.push(back);
            }
            acts.into_iter().map(|act| Step { act, spoil: None }).collect()
        },
    )
}

/// Three lines of one call want the last units of a SKU.
fn scarce_lines() -> impl Strategy<Value = Vec<Step>> {
    (0..SKUS.len() as u8, mode(), 1..=6u64, [1..=3u64, 1..=3u64, 1..=3u64], 0..IDS_OF_SKU).prop_map(
        |(n, mode, units, quantities, turn)| {
            let sku = SKUS[usize::from(n)];
            let ids: Vec<_> = (0..IDS_OF_SKU).map(|turn| id_of_sku(n, turn)).collect();
            let lines =
                [0, 1, 2].map(|more| (turn + more) % IDS_OF_SKU).into_iter().zip(quantities).map(|(turn, quantity)| {
                    Line { sku, id: id_of_sku(n, turn), cart: CARTS[0], quantity, ttl_ms: LONG_MS, metadata: "" }
                });
            let seed = Act::Seed { sku, quantity: Some(units), ids, operation: *SEEDS.start(), once: false };
            // Time for the records of earlier holds to be dropped.
            let acts = [seed, Act::WaitMs(3), Act::Hold { mode, lines: lines.collect() }];
            acts.into_iter().map(|act| Step { act, spoil: None }).collect()
        },
    )
}

/// Something is held and changed, often twice under one operation, as after a lost reply.
fn hold_and_changes() -> impl Strategy<Value = Vec<Step>> {
    let how = || select(vec!["set", "release"]);
    let units = || prop_oneof![6 => 1..=5u64, 1 => 61..=70u64];
    let changes = vec((how(), units(), CHANGES, mostly(4), any::<bool>()), 1..=4);
    (0..SKUS.len() as u8, IDS, prop::option::of(4..=12u64), changes).prop_map(|(n, id, few, changes)| {
        let (sku, id) = (SKUS[usize::from(n)], id - id % SKUS.len() as u8 + n);
        let ids = (0..IDS_OF_SKU).map(|turn| id_of_sku(n, turn)).collect();
        let line = Line { sku, id, cart: CARTS[0], quantity: 4, ttl_ms: LONG_MS, metadata: "" };
        // The same seed again under its operation does nothing.
        let operation = SEEDS.start() + 1 + n;
        let seed = Act::Seed { sku, quantity: Some(few.unwrap_or(60)), ids, operation, once: few.is_none() };
        let mut acts = vec![seed.clone(); if few.is_none() { 2 } else { 1 }];
        acts.push(Act::Hold { mode: "each", lines: vec![line] });
        for (how, quantity, operation, once, again) in changes {
            let change = Act::Change(Change { sku, id, how, quantity, operation, once, cart: None });
            acts.extend(again.then(|| change.clone()));
            acts.push(change);
        }
        acts.into_iter().map(|act| Step { act, spoil: None }).collect()
    })
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        30 => (act(), prop::option::weighted(0.07, spoil())),
        // Calls of these kinds are rare, and their errors must be covered too.
        2 => (prop_oneof![2 => read(), 1 => seed(), 1 => sweep(), 1 => repair(), 1 => returns(), 1 => change(), 1 => sale(), 1 => rules()], spoil().prop_map(Some)),
    ]
    .prop_map(|(act, spoil)| Step { act, spoil })
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        2 => (1..=15u64).prop_map(Act::WaitMs),
        1 => keep_ms().prop_map(Act::Keep),
        1 => extend_max_ms().prop_map(Act::ExtendMax),
        1 => (1..=40usize).prop_map(Act::Trim),
        3 => (IDS, select(vec![HOUR_MS, TEN_YEARS_MS])).prop_map(|(id, ms)| Act::Ahead { id, ms }),
        7 => seed(),
        36 => (mode(), some(line())).prop_map(|(mode, lines)| Act::Hold { mode, lines }),
        18 => (mode(), some(item())).prop_map(|(mode, items)| Act::Confirm { mode, items }),
        15 => (mode(), some(item())).prop_map(|(mode, items)| Act::Release { mode, items }),
        12 => (mode(), some(extension())).prop_map(|(mode, items)| Act::Extend { mode, items }),
        12 => (mode(), some(adjustment())).prop_map(|(mode, items)| Act::Adjust { mode, items }),
        16 => change(),
        16 => sale(),
        10 => returns(),
        14 => cart_hold(),
        3 => rules(),
        6 => (select(CARTS.to_vec()), 98..=100usize).prop_map(|(cart, most)| Act::FillCart { cart, most }),
        12 => sweep(),
        4 => repair(),
        2 => filling(),
        2 => filing(),
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
    let quantity = prop_oneof![1 => Just(None), 3 => (0..=9u64).prop_map(Some), 6 => (10..=60u64).prop_map(Some)];
    // Mostly what is usual for the operation, so that it may be repeated.
    (prop_oneof![sku_and_ids(), all_of_sku], quantity, SEEDS, any::<bool>(), any::<bool>()).prop_map(
        |((sku, ids), quantity, operation, is_usual, once)| {
            let n = operation % SKUS.len() as u8;
            let all = (0..IDS_OF_SKU).map(|turn| id_of_sku(n, turn)).collect();
            let (sku, ids, quantity) = match is_usual {
                true => (SKUS[usize::from(n)], all, quantity.map(|_| u64::from(operation))),
                false => (sku, ids, quantity),
            };
            Act::Seed { sku, quantity, ids, operation, once }
        },
    )
}

fn sweep() -> impl Strategy<Value = Act> {
    sku_and_ids().prop_map(|(sku, ids)| Act::Sweep { sku, ids })
}

/// For sound data only: another test covers the repair of damage. So nothing here takes reserved units away from the
/// reservations that hold them.
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
    let rules = prop_oneof![
        6 => Just(RulesOf::Nowhere),
        2 => Just(RulesOf::TheLastThatWereTold),
        1 => Just(RulesOf::TheLastEvent),
        1 => Just(RulesOf::None)
    ];
    (ids, found, restart, available, confirmed, rules).prop_map(
        |((sku, ids), found, restart, available, confirmed, rules)| Act::Repair {
            sku,
            ids,
            found,
            restart,
            change: [available, 0, confirmed],
            rules,
        },
    )
}

/// A repair that leaves no room for further units.
fn filling() -> impl Strategy<Value = Act> {
    let (ids, restart, change) = (Vec::new(), Restart::Nowhere, [AS_MANY_AS_FIT, 0, 0]);
    sku().prop_map(move |sku| Act::Repair { sku, ids: ids.clone(), found: 0, restart, change, rules: RulesOf::Nowhere })
}

/// A repair that looks at all reservations of a SKU, and leaves their records as they are.
fn filing() -> impl Strategy<Value = Act> {
    (0..SKUS.len() as u8).prop_map(|n| Act::Repair {
        sku: SKUS[usize::from(n)],
        ids: (0..IDS_OF_SKU).map(|turn| (id_of_sku(n, turn), Record::LeaveAsItIs)).collect(),
        found: 0,
        restart: Restart::Nowhere,
        change: [0; 3],
        rules: RulesOf::Nowhere,
    })
}

fn spoil() -> impl Strategy<Value = Spoil> {
    let place = || 0..24usize;
    let (key, arg) = (|| select(spoil::KEYS), || select(spoil::ARGS));
    prop_oneof![
        6 => (place(), key()).prop_map(|(place, key)| Spoil::Key(place, key)),
        8 => (place(), arg()).prop_map(|(place, arg)| Spoil::Arg(place, arg)),
        6 => (place(), select(spoil::SHARDS)).prop_map(|(place, prefix)| Spoil::Shard(place, prefix)),
        6 => (place(), select(spoil::NUMBERS)).prop_map(|(place, number)| Spoil::IdOfShard(place, number)),
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

/// As many as one call takes here; often so few that all of them may be valid.
fn some<T: std::fmt::Debug>(item: impl Strategy<Value = T> + Clone) -> impl Strategy<Value = Vec<T>> {
    prop_oneof![vec(item.clone(), 1..=2), vec(item, 1..=6)]
}

fn line() -> impl Strategy<Value = Line> + Clone {
    // One id in five has metadata, mostly the same.
    let metadata = (mostly(9), select([&[""], &METADATA[..]].concat()));
    (reservation(), mostly(9), select(CARTS.to_vec()), mostly(9), 1..=8u64, ttl_ms(), metadata).prop_map(
        |((sku, id), usual_cart, other_cart, usual_quantity, other_quantity, ttl_ms, (usual_metadata, other))| {
            let cart = if usual_cart { CARTS[usize::from(id / 3) % CARTS.len()] } else { other_cart };
            let quantity = if usual_quantity { u64::from(id % 4) + 1 } else { other_quantity };
            let metadata = match id % 5 {
                _ if !usual_metadata => other,
                0 => METADATA[usize::from(id / 5) % METADATA.len()],
                _ => "",
            };
            Line { sku, id, cart, quantity, ttl_ms, metadata }
        },
    )
}

/// Mostly what is usual for the operation, so that it may be repeated.
fn adjustment() -> impl Strategy<Value = Adjustment> + Clone {
    let units = prop_oneof![
        5 => (-8..=8i64).prop_map(|units| ("add", if units == 0 { 9 } else { units })),
        3 => Just(("add", 1_000_000_000)),
        3 => (0..=40i64).prop_map(|units| ("set", units)),
    ];
    let usual = |operation: u8| match operation {
        0..=1 => ("set", 30 + i64::from(operation)),
        _ => ("add", if operation.is_multiple_of(2) { i64::from(operation) } else { -i64::from(operation) }),
    };
    let if_version = prop::option::weighted(0.25, select(vec![-1, 0, 0, 0, 1]));
    let [create, once] = [0.3, 0.7].map(prop::bool::weighted);
    (OPERATIONS, mostly(8), sku(), mostly(3), units, if_version, (create, once, select(REASONS.to_vec()))).prop_map(
        move |(operation, usual_sku, other_sku, is_usual, other_units, if_version, (create, once, reason))| {
            let sku = if usual_sku { SKUS[usize::from(operation) % SKUS.len()] } else { other_sku };
            let (how, units) = if is_usual { usual(operation) } else { other_units };
            let (if_version, create, reason) =
                if is_usual { (None, operation.is_multiple_of(2), REASONS[0]) } else { (if_version, create, reason) };
            Adjustment { sku, operation, how, units, if_version, create, reason, once }
        },
    )
}

/// Mostly what is usual for the operation, so that it may be repeated; each SKU and each id is in one line.
fn cart_hold() -> impl Strategy<Value = Act> {
    let line = (reservation(), mostly(6), 1..=8u64);
    let some = vec(prop_oneof![1 => IDS, 3 => STRANGERS], 1..=4);
    let others = prop_oneof![Just(Vec::new()), some];
    let all: Vec<u8> = IDS.chain(STRANGERS.take(88)).collect();
    let others = prop_oneof![3 => others, 1 => Just(all)];
    let other = (select(CARTS.to_vec()), ttl_ms(), vec(line, 1..=3));
    (CART_OPERATIONS, any::<bool>(), mostly(3), other, others).prop_map(
        |(operation, once, is_usual, (other_cart, other_ttl_ms, other_lines), others)| {
            let turn = operation % IDS_OF_SKU;
            let (cart, ttl_ms) = if is_usual {
                (CARTS[usize::from(turn) % CARTS.len()], [7, LONG_MS][usize::from(operation) % 2])
            } else {
                (other_cart, other_ttl_ms)
            };
            let usual_lines = (0..=operation % SKUS.len() as u8).map(|n| {
                let id = id_of_sku(n, turn);
                (SKUS[usize::from(n)], id, u64::from(id % 4) + 1)
            });
            let other_lines = other_lines.into_iter().map(|((sku, id), usual_quantity, quantity)| {
                (sku, id, if usual_quantity { u64::from(id % 4) + 1 } else { quantity })
            });
            let lines: Vec<_> = if is_usual { usual_lines.collect() } else { other_lines.collect() };
            let mut kept: Vec<(&'static str, u8, u64)> = Vec::new();
            for line in lines {
                if kept.iter().all(|(sku, id, _)| *sku != line.0 && *id != line.1) {
                    kept.push(line);
                }
            }
            let metadata = if operation.is_multiple_of(4) { METADATA[0] } else { "" };
            Act::CartHold { cart, operation, once, ttl_ms, metadata, lines: kept, others }
        },
    )
}

fn sale() -> impl Strategy<Value = Act> {
    let quantity = prop_oneof![5 => Just(0), 6 => 1..=3u64, 1 => Just(1_000_000_000)];
    (item(), quantity, any::<bool>(), named()).prop_map(|(Item { sku, id, token }, quantity, late, cart)| {
        Act::Sell(Sale { sku, id, token, quantity, late, cart })
    })
}

/// Something is held for a moment, and sold in part or late; often its units are gone by then.
fn short_hold_and_sales() -> impl Strategy<Value = Vec<Step>> {
    let sales = vec((0..=4u64, prop::bool::weighted(0.8), select(TOKENS.to_vec()), any::<bool>()), 1..=3);
    let waits = (1..=8u64, any::<bool>(), prop::option::of(0..=3i64), sales);
    (0..SKUS.len() as u8, IDS, waits).prop_map(|(n, id, (ttl_ms, is_swept, left, sales))| {
        let (sku, id) = (SKUS[usize::from(n)], id - id % SKUS.len() as u8 + n);
        let ids: Vec<_> = (0..IDS_OF_SKU).map(|turn| id_of_sku(n, turn)).collect();
        let seed = Act::Seed { sku, quantity: Some(9), ids: ids.clone(), operation: *SEEDS.start(), once: false };
        let line = Line { sku, id, cart: CARTS[0], quantity: 3, ttl_ms, metadata: "" };
        let mut acts = vec![Act::Keep(Some(300)), seed, Act::Hold { mode: "each", lines: vec![line] }, Act::WaitMs(4)];
        if is_swept {
            acts.push(Act::Sweep { sku, ids });
        }
        if let Some(left) = left {
            let (how, if_version, create, reason, once) = ("set", None, false, "", false);
            let item = Adjustment { sku, operation: 0, how, units: left, if_version, create, reason, once };
            acts.push(Act::Adjust { mode: "each", items: vec![item] });
        }
        for (quantity, late, token, again) in sales {
            let sale = Act::Sell(Sale { sku, id, token, quantity, late, cart: None });
            acts.extend(again.then(|| sale.clone()));
            acts.push(sale);
        }
        acts.push(Act::Keep(Some(15)));
        acts.into_iter().map(|act| Step { act, spoil: None }).collect()
    })
}

/// Often what is usual for the operation, so that it may be repeated.
fn change() -> impl Strategy<Value = Act> {
    let how = select(vec!["set", "release"]);
    let quantity = prop_oneof![7 => 1..=6u64, 4 => 7..=60u64, 1 => Just(1_000_000_000)];
    (reservation(), how, quantity, CHANGES, mostly(4), prop::bool::weighted(0.6), named()).prop_map(
        |((sku, id), how, quantity, operation, is_usual, once, cart)| {
            if is_usual && once {
                let id = operation % (*IDS.end() + 1);
                let how = if operation.is_multiple_of(3) { "release" } else { "set" };
                let quantity = u64::from(operation % 2) + 1;
                return Act::Change(Change { sku: usual_sku(id), id, how, quantity, operation, once, cart });
            }
            Act::Change(Change { sku, id, how, quantity, operation, once, cart })
        },
    )
}

/// Mostly none, and seldom many: with rules, most holds are refused.
fn rules() -> impl Strategy<Value = Act> {
    let some = || prop::option::weighted(0.4, 1..=9u64);
    let max_ttl_ms = prop::option::weighted(0.4, prop_oneof![8..=20u64, Just(LONG_MS), Just(2_592_000_000)]);
    (sku(), mostly(3), some(), some(), max_ttl_ms).prop_map(|(sku, is_none, per_cart, safety_stock, max_ttl_ms)| {
        let rules = if is_none { Rules::default() } else { Rules { per_cart, safety_stock, max_ttl_ms } };
        Act::Rules { sku, rules }
    })
}

/// A cart that a call names, or none.
fn named() -> impl Strategy<Value = Option<&'static str>> {
    prop::option::weighted(0.3, select(CARTS.to_vec()))
}

/// A SKU has a limit for each cart, and a cart holds it, buys it, changes it and is late, often beyond the limit.
fn ruled_carts() -> impl Strategy<Value = Vec<Step>> {
    let rules = (2..=6u64, prop::option::of(1..=55u64), prop::option::of(select(vec![6, LONG_MS])));
    let turn =
        (1..=4u64, prop_oneof![1..=6u64, Just(0), Just(LONG_MS)], 0..=5u8, any::<bool>(), prop::bool::weighted(0.8));
    (0..SKUS.len() as u8, select(CARTS.to_vec()), rules, vec(turn, 2..=IDS_OF_SKU as usize)).prop_map(
        |(n, cart, (per_cart, safety_stock, max_ttl_ms), turns)| {
            let sku = SKUS[usize::from(n)];
            let ids: Vec<_> = (0..IDS_OF_SKU).map(|turn| id_of_sku(n, turn)).collect();
            let seed = Act::Seed { sku, quantity: Some(60), ids, operation: *SEEDS.start(), once: false };
            let rules = Rules { per_cart: Some(per_cart), safety_stock, max_ttl_ms };
            let mut acts = vec![Act::Keep(Some(LONG_MS)), seed, Act::Rules { sku, rules }];
            for (turn, (quantity, ttl_ms, what, is_part, is_named)) in turns.into_iter().enumerate() {
                let id = id_of_sku(n, turn as u8);
                let hold = |id, quantity, ttl_ms, is_named: bool| Act::CartHold {
                    cart,
                    operation: *CART_OPERATIONS.start(),
                    once: false,
                    ttl_ms,
                    metadata: "",
                    lines: vec![(sku, id, quantity)],
                    others: if is_named { IDS.chain(STRANGERS.take(88)).collect() } else { Vec::new() },
                };
                acts.push(hold(id, quantity, ttl_ms, is_named));
                let named = is_named.then_some(cart);
                let change = |how, quantity| {
                    Act::Change(Change {
                        sku,
                        id,
                        how,
                        quantity,
                        operation: *CHANGES.start(),
                        once: false,
                        cart: named,
                    })
                };
                let sale = |late| {
                    let quantity = if is_part { 1 } else { 0 };
                    Act::Sell(Sale { sku, id, token: "", quantity, late, cart: named })
                };
                match what {
                    0 => acts.push(sale(false)),
                    1 => {
                        acts.push(Act::WaitMs(ttl_ms.min(6) + 1));
                        // By then the cart may have what it may have.
                        let other = id_of_sku(n, (turn as u8 + 1) % IDS_OF_SKU);
                        acts.extend(is_part.then(|| hold(other, per_cart, LONG_MS, true)));
                        acts.push(sale(true));
                    }
                    2 => acts.push(change("set", quantity + 1)),
                    3 => acts.push(Act::Extend { mode: "each", items: vec![Extension { sku, id, ttl_ms: LONG_MS }] }),
                    4 => acts.push(Act::Release { mode: "each", items: vec![Item { sku, id, token: "" }] }),
                    _ => {
                        let operation = *RETURNS.start();
                        acts.push(sale(false));
                        acts.push(Act::Return { sku, id, operation, quantity: 1, restock: is_part, once: false });
                    }
                }
            }
            acts.extend([Act::Rules { sku, rules: Rules::default() }, Act::Keep(Some(15))]);
            acts.into_iter().map(|act| Step { act, spoil: None }).collect()
        },
    )
}

/// Mostly what is usual for the operation, so that it may be repeated.
fn returns() -> impl Strategy<Value = Act> {
    (RETURNS, reservation(), mostly(3), prop_oneof![4 => 1..=3u64, 1 => Just(1_000_000_000)], any::<bool>(), mostly(3))
        .prop_map(|(operation, (other_sku, other_id), is_usual, other_quantity, other_restock, once)| {
            let id = operation % (*IDS.end() + 1);
            let (sku, id, quantity, restock) = if is_usual {
                (usual_sku(id), id, u64::from(id % 2) + 1, operation % 2 == 0)
            } else {
                (other_sku, other_id, other_quantity, other_restock)
            };
            Act::Return { sku, id, operation, quantity, restock, once }
        })
}

fn item() -> impl Strategy<Value = Item> + Clone {
    (reservation(), any::<bool>(), select(TOKENS.to_vec())).prop_map(|((sku, id), usual, other)| {
        let token = if usual { TOKENS[usize::from(id / 3) % TOKENS.len()] } else { other };
        Item { sku, id, token }
    })
}

fn extension() -> impl Strategy<Value = Extension> + Clone {
    (reservation(), ttl_ms()).prop_map(|((sku, id), ttl_ms)| Extension { sku, id, ttl_ms: ttl_ms.max(1) })
}

/// An id with a SKU: its usual SKU, so that calls agree about it, or any SKU.
fn reservation() -> impl Strategy<Value = (&'static str, u8)> + Clone {
    (IDS, mostly(14), sku()).prop_map(|(id, usual, other)| (if usual { usual_sku(id) } else { other }, id))
}

/// A SKU with some ids, most of which are its own.
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

/// A short time, or one that never ends within a test.
fn ttl_ms() -> impl Strategy<Value = u64> + Clone {
    prop_oneof![10 => 1..=20u64, 7 => Just(LONG_MS), 1 => Just(0), 2 => Just(2_592_000_000)]
}

/// Mostly short: an id can be used again when its record is gone.
fn keep_ms() -> impl Strategy<Value = Option<u64>> {
    prop_oneof![1 => Just(None), 2 => Just(Some(0)), 1 => Just(Some(LONG_MS)), 27 => (SHORTEST_KEPT_MS..=15).prop_map(Some)]
}

/// Mostly more than the times of holds.
fn extend_max_ms() -> impl Strategy<Value = Option<u64>> {
    prop_oneof![2 => Just(None), 1 => Just(Some(0)), 2 => (1..=50u64).prop_map(Some), 2 => Just(Some(2_592_000_000))]
}

/// True, except one time in `times`.
fn mostly(times: u32) -> impl Strategy<Value = bool> + Clone {
    prop_oneof![times - 1 => Just(true), 1 => Just(false)]
}
