//! How much of Redis's memory it takes to sell: of a SKU, of what is on hold, and of what is settled.
//!
//! Everything is made by the scripts. What is measured is the difference of `used_memory` before and after.

use redis::aio::MultiplexedConnection;
use redis::{cmd, pipe};
use stockhold::keys::{Layout, ReservationId, StockKeys};

use super::Bench;
use crate::report::{Figure, Row, Target, Unit, grouped};
use crate::script_calls::{AMPLE, CART, Item, Scripts, TTL_MS, keys};
use crate::side::ours;
use crate::support::redis_server::RedisServer;

/// More than 128, from which on Redis stores an active set in its larger form.
const HOLDS_OF_A_SKU: usize = 1000;

/// A settled reservation and its two events, in bytes.
const MOST: f64 = 450.0;

/// Hashes of each kind whose encoding is looked at.
const LOOKED_AT: usize = 1000;

const LOOK_UPS_IN_FLIGHT: usize = 10_000;

pub async fn run(bench: &mut Bench) {
    let number = if bench.effort.quick { 100_000 } else { 1_000_000 };
    let sku = sku_at_rest(number).await;
    let reservation = Reservation::measure(number).await;
    let of = grouped(number);
    for (what, bytes, target) in [
        (format!("SKU at rest, of {of}"), sku.at_rest, None),
        (format!("active hold with its event, of {of}"), reservation.active, None),
        (format!("settled reservation with its two events, of {of}"), reservation.settled, Some(MOST)),
        (format!("settled reservation without its events, of {of}"), reservation.record, None),
        ("entry of the audit: the event of a seed".to_owned(), sku.event, None),
        ("entry of the audit: the events of a hold and of its confirm, on average".to_owned(), reservation.event, None),
    ] {
        let row = Row::of("memory", what, Figure::new(ours::NAME, bytes, Unit::Bytes));
        bench.report.add(match target {
            Some(most) => row.target(Target::AtMost(most)),
            None => row,
        });
    }
    for (what, others) in [
        ("SKUs", sku.no_listpacks),
        ("active holds", reservation.no_listpacks[0]),
        ("settled reservations", reservation.no_listpacks[1]),
    ] {
        let what = format!("of {} {what}, hashes that are no listpack", grouped(LOOKED_AT));
        let row = Row::of("memory", what, Figure::new(ours::NAME, others as f64, Unit::Count));
        bench.report.add(row.target(Target::Exactly(0.0)));
    }
    bench.report.note(format!(
        "`memory`: `used_memory` of Redis with its default settings. SKUs are named like `{}`, carts like `{CART}`, the \
         quantity is 1, {} holds are of the same SKU, and the confirm has no token. A SKU at rest is its hash and its \
         name in the set of all SKUs; a settled reservation has its time to live.",
        sku_name(number),
        grouped(HOLDS_OF_A_SKU),
    ));
}

/// In bytes.
struct SkuAtRest {
    at_rest: f64,
    event: f64,
    no_listpacks: usize,
}

async fn sku_at_rest(number: usize) -> SkuAtRest {
    let server = redis();
    let mut scripts = Scripts::load(&server).await;
    let skus = skus(number);
    let empty = used(&mut scripts.connection).await;
    scripts.seed(&skus, AMPLE).await;
    settle_tables(&mut scripts.connection, &skus, number).await;
    let seeded = used(&mut scripts.connection).await;
    let first = skus.iter().take(LOOKED_AT).map(|sku| sku.inventory.clone());
    let no_listpacks = no_listpacks(&mut scripts.connection, first).await;
    delete_audit(&mut scripts.connection, &skus[0]).await;
    let without_events = used(&mut scripts.connection).await;
    let each = |from: f64, to: f64| (to - from) / number as f64;
    SkuAtRest { at_rest: each(empty, without_events), event: each(without_events, seeded), no_listpacks }
}

/// In bytes.
struct Reservation {
    active: f64,
    settled: f64,
    record: f64,
    event: f64,
    no_listpacks: [usize; 2],
}

impl Reservation {
    async fn measure(number: usize) -> Self {
        let server = redis();
        let mut scripts = Scripts::load(&server).await;
        let skus = skus(number / HOLDS_OF_A_SKU);
        scripts.seed(&skus, AMPLE).await;
        // The seeds' own events are not of a hold.
        delete_audit(&mut scripts.connection, &skus[0]).await;
        let stocked = used(&mut scripts.connection).await;

        let named: Vec<&StockKeys> = skus.iter().cycle().take(number).collect();
        let ids = scripts.fill(&named, TTL_MS).await;
        settle_tables(&mut scripts.connection, &skus, number).await;
        let held = used(&mut scripts.connection).await;
        let active_listpacks = no_listpacks(&mut scripts.connection, records(&ids)).await;

        let items: Vec<Item> = named.iter().zip(&ids).map(|(stock, id)| Item { stock, id: *id }).collect();
        scripts.confirm_all(&items).await;
        settle_tables(&mut scripts.connection, &skus, number).await;
        let settled = used(&mut scripts.connection).await;
        let settled_listpacks = no_listpacks(&mut scripts.connection, records(&ids)).await;

        delete_audit(&mut scripts.connection, &skus[0]).await;
        let without_events = used(&mut scripts.connection).await;
        let each = |from: f64, to: f64| (to - from) / number as f64;
        Self {
            active: each(stocked, held),
            settled: each(stocked, settled),
            record: each(stocked, without_events),
            event: each(without_events, settled) / 2.0,
            no_listpacks: [active_listpacks, settled_listpacks],
        }
    }
}

/// Valkey would free what is deleted only later.
fn redis() -> RedisServer {
    RedisServer::start_with(&["--lazyfree-lazy-user-del", "no"])
}

fn skus(number: usize) -> Vec<StockKeys> {
    (1..=number).map(|number| keys(&sku_name(number))).collect()
}

fn sku_name(number: usize) -> String {
    format!("sku-{number:07}")
}

fn records(ids: &[ReservationId]) -> impl Iterator<Item = String> {
    ids.iter().take(LOOKED_AT).map(|id| Layout::unsharded().reservation(id).expect("any id"))
}

/// Without the buffers of connections.
async fn used(redis: &mut MultiplexedConnection) -> f64 {
    let info: String = cmd("INFO").arg("memory").query_async(redis).await.expect("Redis answers INFO");
    let bytes = |name: &str| {
        let bytes = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')?.parse::<f64>().ok());
        bytes.unwrap_or_else(|| panic!("INFO has {name}"))
    };
    bytes("used_memory") - bytes("mem_clients_normal")
}

async fn delete_audit(redis: &mut MultiplexedConnection, sku: &StockKeys) {
    cmd("DEL").arg(&sku.shard.audit).exec_async(redis).await.expect("Redis deletes the stream");
}

/// Ends the growing of hash tables, in which a table has its old and its new size at the same time: each look-up in one
/// moves a part of it. There are as many look-ups of each kind as there may be entries.
async fn settle_tables(redis: &mut MultiplexedConnection, skus: &[StockKeys], number: usize) {
    let mut sku = skus.iter().cycle();
    for _ in 0..number.div_ceil(LOOK_UPS_IN_FLIGHT) {
        let mut look_ups = pipe();
        for StockKeys { shard, inventory, active } in sku.by_ref().take(LOOK_UPS_IN_FLIGHT) {
            look_ups.cmd("EXISTS").arg(inventory).ignore();
            look_ups.cmd("ZSCORE").arg(&shard.skus).arg("none").ignore();
            look_ups.cmd("ZSCORE").arg(&shard.due).arg("none").ignore();
            look_ups.cmd("ZSCORE").arg(active).arg("none").ignore();
        }
        look_ups.exec_async(redis).await.expect("Redis looks it up");
    }
}

/// How many of these hashes Redis stores otherwise than as a listpack, its compact form.
async fn no_listpacks(redis: &mut MultiplexedConnection, hashes: impl Iterator<Item = String>) -> usize {
    let mut encodings = pipe();
    for key in hashes {
        encodings.cmd("OBJECT").arg("ENCODING").arg(key);
    }
    let encodings: Vec<String> = encodings.query_async(redis).await.expect("the hashes are there");
    assert_eq!(encodings.len(), LOOKED_AT, "there are enough of them");
    encodings.iter().filter(|encoding| *encoding != "listpack").count()
}
