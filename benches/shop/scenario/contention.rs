//! Holds over HTTP from 32 clients, against `WATCH`: the fewer SKUs, the more often two want the same one.

use super::{Bench, hot_sku, many_skus};
use crate::measure::{Series, Side, Slice, alternate};
use crate::report::{Figure, Row, Target, Unit};
use crate::script_calls::AMPLE;
use crate::side::ours::{self, Ours};
use crate::side::watch;
use crate::support::redis_server::RedisServer;

const CLIENTS: usize = 32;

pub async fn hot(bench: &mut Bench) {
    let [ours, watch] = holds(bench, &hot_sku()).await;
    let row = Row::compare("hot", "holds, one SKU, 32 clients", Unit::PerSecond, rate, &ours, &watch);
    bench.report.add(row.target(Target::RatioAtLeast(10.0)));
    let refused = |series: &Series| series.total().tally.contention as f64;
    let row = Row::of("hot", "refused for contention", Figure::new(ours::NAME, refused(&ours), Unit::Count));
    let against = Figure::new(watch::NAME, refused(&watch), Unit::Count);
    bench.report.add(row.against(against).target(Target::Exactly(0.0)));
    bench.report.measured("hot", [ours, watch]);
}

pub async fn many(bench: &mut Bench) {
    let [ours, watch] = holds(bench, &many_skus()).await;
    let row = Row::compare("many", "holds, 1,000 SKUs, 32 clients", Unit::PerSecond, rate, &ours, &watch);
    bench.report.add(row.target(Target::RatioAtLeast(2.0)));
    bench.report.measured("many", [ours, watch]);
}

async fn holds(bench: &Bench, skus: &[String]) -> [Series; 2] {
    let (our_redis, their_redis) = (RedisServer::start(), RedisServer::start());
    Ours::stock(&our_redis, skus).await;
    watch::stock(&their_redis, skus, AMPLE).await;
    let ours = Ours::start(&our_redis, &[]);
    let theirs = watch::start(&their_redis, CLIENTS);
    let sides = [
        Side::new(ours::NAME, &our_redis, |limit| ours.hold(CLIENTS, skus, limit)),
        Side::new(watch::NAME, &their_redis, |limit| theirs.hold(CLIENTS, skus, limit)),
    ];
    alternate(bench.effort, sides, &bench.bar).await
}

pub async fn lifecycle(bench: &mut Bench) {
    purchases(bench, "lifecycle", "hold and confirm, one SKU, 32 clients", &hot_sku()).await;
}

pub async fn checkout(bench: &mut Bench) {
    purchases(bench, "checkout", "hold and confirm, 1,000 SKUs, 32 clients", &many_skus()).await;
}

async fn purchases(bench: &mut Bench, scenario: &'static str, what: &str, skus: &[String]) {
    let (our_redis, their_redis) = (RedisServer::start(), RedisServer::start());
    Ours::stock(&our_redis, skus).await;
    watch::stock(&their_redis, skus, AMPLE).await;
    let ours = Ours::start(&our_redis, &[]);
    let theirs = watch::start(&their_redis, CLIENTS);
    let sides = [
        Side::new(ours::NAME, &our_redis, |limit| ours.buy(CLIENTS, skus, limit)),
        Side::new(watch::NAME, &their_redis, |limit| theirs.buy(CLIENTS, skus, limit)),
    ];
    let [ours, watch] = alternate(bench.effort, sides, &bench.bar).await;
    bench.report.add(Row::compare(scenario, what, Unit::PerSecond, rate, &ours, &watch));
    bench.report.measured(scenario, [ours, watch]);
}

fn rate(slice: &Slice) -> f64 {
    slice.tally.rate()
}
