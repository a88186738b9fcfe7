//! Reads whose cost must not grow with what is stored.

use std::iter::once;

use stockhold::keys::StockKeys;

use super::{Bench, HOT};
use crate::measure::{Series, Side, Slice, alternate};
use crate::report::{Figure, Row, Target, Unit, grouped};
use crate::script_calls::{AMPLE, Scripts, TTL_MS, keys};
use crate::side::ours::Ours;
use crate::support::redis_server::RedisServer;

const CLIENTS: usize = 8;
const MOST: f64 = 1.5;

/// The counts of a SKU with 10 holds and of one with 10,000; then the lists of the latter.
pub async fn snapshot(bench: &mut Bench) {
    let redis = RedisServer::start();
    let mut scripts = Scripts::load(&redis).await;
    let skus = [keys("sku-few"), keys("sku-many")];
    scripts.seed(&skus, AMPLE).await;
    scripts.fill(&[&skus[0]; 10], TTL_MS).await;
    scripts.fill(&vec![&skus[1]; 10_000], TTL_MS).await;
    let ours = Ours::start(&redis, &[]);
    let get = |sku, limit| ours.get(CLIENTS, sku, limit);
    let sides = [
        Side::new("10 holds", &redis, |limit| get("/api/inventory/sku-few?active=0", limit)),
        Side::new("10,000 holds", &redis, |limit| get("/api/inventory/sku-many?active=0", limit)),
    ];
    let [few, many] = alternate(bench.effort, sides, &bench.bar).await;
    compare(bench, "snapshot", few, many);
    let sides = [
        Side::new("100 ids", &redis, |limit| get("/api/inventory/sku-many", limit)),
        Side::new("10,000 ids", &redis, |limit| get("/api/inventory/sku-many?active=10000", limit)),
    ];
    let lists = alternate(bench.effort, sides, &bench.bar).await;
    tell(bench, "snapshot", lists);
}

/// The last 50 events of a SKU in a stream of 1,000 entries, and of 1,000,000; then the last 1,000 of the long one: of a SKU
/// whose events are one in a hundred, and of all.
pub async fn audit(bench: &mut Bench) {
    let entries = if bench.effort.quick { 100_000 } else { 1_000_000 };
    let (short_redis, long_redis) = (RedisServer::start(), RedisServer::start());
    fill_audit(&short_redis, 1_000).await;
    fill_audit(&long_redis, entries).await;
    let short = Ours::start(&short_redis, &["--audit-max", "0"]);
    let long = Ours::start(&long_redis, &["--audit-max", "0"]);
    let target = format!("/api/audit?sku={HOT}&limit=50");
    let sides = [
        Side::new("1,000 entries", &short_redis, |limit| short.get(CLIENTS, &target, limit)),
        Side::new(format!("{} entries", grouped(entries)), &long_redis, |limit| long.get(CLIENTS, &target, limit)),
    ];
    let [few, many] = alternate(bench.effort, sides, &bench.bar).await;
    compare(bench, "audit", few, many);
    let sides = [
        Side::new("1,000 of a SKU", &long_redis, |limit| long.get(CLIENTS, "/api/audit?sku=sku-1&limit=1000", limit)),
        Side::new("1,000 of all", &long_redis, |limit| long.get(CLIENTS, "/api/audit?limit=1000", limit)),
    ];
    let largest = alternate(bench.effort, sides, &bench.bar).await;
    tell(bench, "audit", largest);
}

/// Holds until the stream has this number of entries: 60 of the SKU that is asked for, evenly spread, the others of 100 SKUs.
async fn fill_audit(redis: &RedisServer, entries: usize) {
    const ASKED_FOR: usize = 60;
    let mut scripts = Scripts::load(redis).await;
    let skus: Vec<StockKeys> = once(keys(HOT)).chain((1..=100).map(|number| keys(&format!("sku-{number}")))).collect();
    scripts.seed(&skus, AMPLE).await;
    let holds = entries - skus.len();
    let every = holds / ASKED_FOR;
    let sku = |hold: usize| if hold.is_multiple_of(every) { &skus[0] } else { &skus[1 + hold % (skus.len() - 1)] };
    let items: Vec<&StockKeys> = (0..holds).map(sku).collect();
    scripts.fill(&items, TTL_MS).await;
}

/// Large reads, which have no target: how many there may be is a matter of what holds leave them.
fn tell(bench: &mut Bench, scenario: &'static str, sides: [Series; 2]) {
    for side in &sides {
        let p50 = Figure::new(&side.name, side.total().tally.latency_ms(0.5), Unit::Milliseconds);
        bench.report.add(Row::of(scenario, "p50 of a large read, 8 clients", p50));
    }
    bench.report.measured(scenario, sides);
}

fn compare(bench: &mut Bench, scenario: &'static str, small: Series, large: Series) {
    let p50 = |slice: &Slice| slice.tally.latency_ms(0.5);
    let row = Row::compare(scenario, "p50 of a read, 8 clients", Unit::Milliseconds, p50, &large, &small);
    bench.report.add(row.target(Target::RatioAtMost(MOST)));
    let rate = |slice: &Slice| slice.tally.rate();
    let row = Row::compare(scenario, "reads, 8 clients", Unit::PerSecond, rate, &small, &large);
    bench.report.add(row.target(Target::RatioAtMost(MOST)));
    bench.report.measured(scenario, [small, large]);
}
