//! Carts of five SKUs, held at once, against five holds one after the other, and against `WATCH` over all five: where all
//! want the same few SKUs, as when something is released, and where two carts seldom meet.

use super::{Bench, many_skus};
use crate::http_client::LINES;
use crate::measure::{Side, Slice, alternate};
use crate::report::{Figure, Row, Target, Unit};
use crate::script_calls::AMPLE;
use crate::side::ours::{self, Ours};
use crate::side::watch;
use crate::support::redis_server::RedisServer;

const CLIENTS: usize = 32;
const SINGLE: &str = "five single holds";

pub async fn run(bench: &mut Bench) {
    compare(bench, "20", &many_skus()[..20], Some(Target::RatioAtLeast(3.0))).await;
    compare(bench, "1,000", &many_skus(), None).await;
}

async fn compare(bench: &mut Bench, number: &str, skus: &[String], target: Option<Target>) {
    let (our_redis, their_redis) = (RedisServer::start(), RedisServer::start());
    Ours::stock(&our_redis, skus).await;
    watch::stock(&their_redis, skus, AMPLE).await;
    let ours = Ours::start(&our_redis, &[]);
    let theirs = watch::start(&their_redis, CLIENTS);
    let name = |side: &str| format!("{side}, {number} SKUs");
    let sides = [
        Side::new(name(ours::NAME), &our_redis, |limit| ours.hold_carts(CLIENTS, skus, limit)),
        Side::new(name(SINGLE), &our_redis, |limit| ours.hold(CLIENTS, skus, limit)),
        Side::new(name(watch::NAME), &their_redis, |limit| theirs.hold_carts(CLIENTS, skus, limit)),
    ];
    let [carts, single, watch] = alternate(bench.effort, sides, &bench.bar).await;

    let rate = |slice: &Slice| slice.tally.rate();
    let what = format!("lines of carts of five of {number} SKUs, 32 clients");
    let short = |other: &str| [ours::NAME, other].map(str::to_owned);
    let row = Row::compare("cart", &what, Unit::PerSecond, rate, &carts, &watch).named(short(watch::NAME));
    bench.report.add(match target {
        Some(target) => row.target(target),
        None => row,
    });
    bench.report.add(Row::compare("cart", &what, Unit::PerSecond, rate, &carts, &single).named(short(SINGLE)));
    let [done, aborted] = watch::transactions(&their_redis, LINES as u64).await;
    let what = format!("transactions of `WATCH` for carts of {number} SKUs");
    let figure = |name: &str, count: u64| Figure::new(name, count as f64, Unit::Count);
    bench.report.add(Row::of("cart", what, figure("aborted", aborted)).against(figure("carried out", done)));
    bench.report.measured("cart", [carts, single, watch]);
}
