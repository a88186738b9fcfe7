//! Carts of five SKUs, held at once, against five holds one after the other, and against `WATCH` over all five.

use super::{Bench, many_skus};
use crate::measure::{Side, Slice, alternate};
use crate::report::{Row, Target, Unit};
use crate::script_calls::AMPLE;
use crate::side::ours::{self, Ours};
use crate::side::watch;
use crate::support::redis_server::RedisServer;

const CLIENTS: usize = 32;
const SINGLE: &str = "five single holds";

pub async fn run(bench: &mut Bench) {
    let skus = many_skus();
    let (our_redis, their_redis) = (RedisServer::start(), RedisServer::start());
    Ours::stock(&our_redis, &skus).await;
    watch::stock(&their_redis, &skus, AMPLE).await;
    let ours = Ours::start(&our_redis, &[]);
    let theirs = watch::start(&their_redis, CLIENTS);
    let sides = [
        Side::new(ours::NAME, &our_redis, |limit| ours.hold_carts(CLIENTS, &skus, limit)),
        Side::new(SINGLE, &our_redis, |limit| ours.hold(CLIENTS, &skus, limit)),
        Side::new(watch::NAME, &their_redis, |limit| theirs.hold_carts(CLIENTS, &skus, limit)),
    ];
    let [carts, single, watch] = alternate(bench.effort, sides, &bench.bar).await;
    let rate = |slice: &Slice| slice.tally.rate();
    let what = "lines of carts of five of 1,000 SKUs, 32 clients";
    bench.report.add(Row::compare("cart", what, Unit::PerSecond, rate, &carts, &single));
    let row = Row::compare("cart", what, Unit::PerSecond, rate, &carts, &watch);
    bench.report.add(row.target(Target::RatioAtLeast(3.0)));
    bench.report.measured("cart", [carts, single, watch]);
}
