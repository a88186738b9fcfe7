//! 10,000 buyers for 100 units, over and over: how long until everybody has an answer, and is every unit sold?

use std::cell::Cell;

use super::Bench;
use crate::load::Limit;
use crate::measure::{Series, Side, Slice, take_turns};
use crate::report::{Figure, Row, Target, Unit};
use crate::side::ours::{self, Ours};
use crate::side::watch;
use crate::support::invariants::{History, assert_invariants};
use crate::support::redis_server::RedisServer;

const BUYERS: u64 = 10_000;
const UNITS: u64 = 100;
const CLIENTS: usize = 256;

pub async fn run(bench: &mut Bench) {
    let (our_redis, their_redis) = (RedisServer::start(), RedisServer::start());
    let ours = Ours::start(&our_redis, &[]);
    let theirs = watch::start(&their_redis, CLIENTS);
    // Every time another SKU: nothing is left over from the last.
    let number = Cell::new(0);
    let next_sku = || {
        number.set(number.get() + 1);
        [format!("sku-{}", number.get())]
    };
    let sides = [
        Side::new(ours::NAME, &our_redis, async |limit| {
            let sku = next_sku();
            ours.seed(&sku[0], UNITS).await;
            ours.hold(CLIENTS, &sku, limit).await
        }),
        Side::new(watch::NAME, &their_redis, async |limit| {
            let sku = next_sku();
            watch::stock(&their_redis, &sku, UNITS).await;
            theirs.hold(CLIENTS, &sku, limit).await
        }),
    ];
    let limit = Limit::Calls(BUYERS);
    let [ours, watch] = take_turns(bench.effort.rounds, limit.clone(), limit, sides, &bench.bar).await;
    assert_invariants(&mut our_redis.connection().await, History::Whole).await;

    let what = "time until 10,000 buyers have an answer, 256 clients";
    bench.report.add(Row::compare("stampede", what, Unit::Seconds, seconds_for_all, &ours, &watch));
    let sold = Row::of("stampede", "of 100 units, sold", sold(&ours, ours::NAME)).spread(sold_in_rounds(&ours));
    bench.report.add(sold.against(self::sold(&watch, watch::NAME)).target(Target::Exactly(UNITS as f64)));
    bench.report.measured("stampede", [ours, watch]);
}

fn seconds_for_all(slice: &Slice) -> f64 {
    let tally = &slice.tally;
    let answers = tally.accepted + tally.sold_out + tally.contention;
    tally.elapsed.as_secs_f64() * BUYERS as f64 / answers as f64
}

/// Units sold each time, on average.
fn sold(series: &Series, name: &str) -> Figure {
    Figure::new(name, series.total().tally.accepted as f64 / series.slices.len() as f64, Unit::Count)
}

fn sold_in_rounds(series: &Series) -> impl Iterator<Item = f64> {
    series.slices.iter().map(|slice| slice.tally.accepted as f64)
}
