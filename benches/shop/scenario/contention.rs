//! Holds over HTTP from 32 clients, against `WATCH`: the fewer SKUs, the more often two want the same one.

use super::{Bench, hot_sku};
use crate::measure::{Series, Side, Slice, alternate};
use crate::report::{Figure, Row, Target, Unit};
use crate::script_calls::AMPLE;
use crate::side::HOT;
use crate::side::ours::{self, Ours};
use crate::side::watch::{self, Watch};
use crate::support::redis_server::RedisServer;

const CLIENTS: usize = 32;
const MANY: usize = 1000;

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
    let skus: Vec<_> = (1..=MANY).map(|number| format!("sku-{number:04}")).collect();
    let [ours, watch] = holds(bench, &skus).await;
    let row = Row::compare("many", "holds, 1,000 SKUs, 32 clients", Unit::PerSecond, rate, &ours, &watch);
    bench.report.add(row.target(Target::RatioAtLeast(2.0)));
    bench.report.measured("many", [ours, watch]);
}

async fn holds(bench: &Bench, skus: &[String]) -> [Series; 2] {
    let (our_redis, their_redis) = (RedisServer::start(), RedisServer::start());
    Ours::stock(&our_redis, skus).await;
    Watch::stock(&their_redis, skus, AMPLE).await;
    let ours = Ours::start(&our_redis, &[]);
    let watch = Watch::start(&their_redis, CLIENTS);
    let sides = [
        Side::new(ours::NAME, &our_redis, |limit| ours.hold(CLIENTS, skus, limit)),
        Side::new(watch::NAME, &their_redis, |limit| watch.hold(CLIENTS, skus, limit)),
    ];
    alternate(bench.effort, sides, &bench.bar).await
}

pub async fn lifecycle(bench: &mut Bench) {
    let (our_redis, their_redis) = (RedisServer::start(), RedisServer::start());
    Ours::stock(&our_redis, &hot_sku()).await;
    Watch::stock(&their_redis, &hot_sku(), AMPLE).await;
    let ours = Ours::start(&our_redis, &[]);
    let watch = Watch::start(&their_redis, CLIENTS);
    let sides = [
        Side::new(ours::NAME, &our_redis, |limit| ours.buy(CLIENTS, HOT, limit)),
        Side::new(watch::NAME, &their_redis, |limit| watch.buy(CLIENTS, HOT, limit)),
    ];
    let [ours, watch] = alternate(bench.effort, sides, &bench.bar).await;
    let what = "hold and confirm, one SKU, 32 clients";
    bench.report.add(Row::compare("lifecycle", what, Unit::PerSecond, rate, &ours, &watch));
    bench.report.measured("lifecycle", [ours, watch]);
}

fn rate(slice: &Slice) -> f64 {
    slice.tally.rate()
}
