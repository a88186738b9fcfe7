//! What a cluster costs: the same stock in 64 shards on one Redis, on a cluster of one primary, and on one of three. And what
//! the shards cost: the same on one Redis without them.
//!
//! All of them share the cores of this machine, so more primaries do not sell more here: what counts is their processor time.

use super::{Bench, many_skus};
use crate::load::Limit;
use crate::measure::{Side, Slice, alternate, cpu_of};
use crate::report::{Figure, Row, Target, Unit};
use crate::script_calls::AMPLE;
use crate::side::nodes::Nodes;
use crate::side::ours::Ours;
use crate::support::redis_server::RedisServer;

const CLIENTS: usize = 128;
const SHARDS: &str = "64";

pub async fn run(bench: &mut Bench) {
    let skus = many_skus();
    let (whole, parted) = (RedisServer::start(), RedisServer::start());
    let (one, three) = (Nodes::start(1).await, Nodes::start(3).await);
    let shops = [
        Ours::start(&whole, &[]),
        Ours::start(&parted, &["--shards", SHARDS]),
        Ours::at(&one.url(), &["--shards", SHARDS]),
        Ours::at(&three.url(), &["--shards", SHARDS]),
    ];
    for shop in &shops {
        for sku in &skus {
            shop.seed(sku, AMPLE).await;
        }
    }
    let [on_whole, on_parted, on_one, on_three] = &shops;
    let before = cpu_of(&three.0).await;
    let sides = [
        Side::new("one Redis", &whole, |limit: Limit| on_whole.hold(CLIENTS, &skus, limit)),
        Side::new("one Redis, 64 shards", &parted, |limit: Limit| on_parted.hold(CLIENTS, &skus, limit)),
        Side::new("a cluster of 1, 64 shards", &one, |limit: Limit| on_one.hold(CLIENTS, &skus, limit)),
        Side::new("a cluster of 3, 64 shards", &three, |limit: Limit| on_three.hold(CLIENTS, &skus, limit)),
    ];
    let [whole, parted, one, spread] = alternate(bench.effort, sides, &bench.bar).await;
    let cpu = "processor time of Redis per hold, 1,000 SKUs, 128 clients";
    for side in [&one, &spread] {
        let row = Row::compare("cluster", cpu, Unit::Microseconds, Slice::cpu_us, side, &parted);
        bench.report.add(row.target(Target::RatioAtMost(1.15)));
    }
    bench.report.add(Row::compare("cluster", cpu, Unit::Microseconds, Slice::cpu_us, &parted, &whole));
    let rate = |slice: &Slice| slice.tally.rate();
    bench.report.add(Row::compare(
        "cluster",
        "holds, 1,000 SKUs, 128 clients",
        Unit::PerSecond,
        rate,
        &spread,
        &parted,
    ));
    let used: Vec<f64> =
        cpu_of(&three.0).await.iter().zip(before).map(|(after, before)| (*after - before).as_secs_f64()).collect();
    let mean = used.iter().sum::<f64>() / used.len() as f64;
    let most = used.iter().copied().fold(0.0, f64::max);
    let row =
        Row::of("cluster", "the busiest of three primaries", Figure::new("its processor time", most, Unit::Seconds));
    let row = row.against(Figure::new("their mean", mean, Unit::Seconds)).ratio(most / mean);
    bench.report.add(row.target(Target::RatioAtMost(1.15)));
    bench.report.measured("cluster", [whole, parted, one, spread]);
}
