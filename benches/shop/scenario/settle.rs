//! Confirms alone: what they settle is held beforehand, and that does not count.

use super::{Bench, hot_sku, many_skus};
use crate::http_client::{Held, Id};
use crate::load::Limit;
use crate::measure::{Side, Slice, alternate};
use crate::report::{Row, Unit};
use crate::script_calls::AMPLE;
use crate::side::ours::{self, Ours};
use crate::side::watch;
use crate::support::redis_server::RedisServer;

const CLIENTS: usize = 32;

/// Reservations that lie ready for each second of a slice: more than are confirmed. If they are used up, the slice ends.
const HELD_PER_SECOND: f64 = 60_000.0;

pub async fn run(bench: &mut Bench) {
    confirm(bench, "one SKU", &hot_sku()).await;
    confirm(bench, "1,000 SKUs", &many_skus()).await;
}

async fn confirm(bench: &mut Bench, spread: &str, skus: &[String]) {
    let (our_redis, their_redis) = (RedisServer::start(), RedisServer::start());
    Ours::stock(&our_redis, skus).await;
    watch::stock(&their_redis, skus, AMPLE).await;
    let ours = Ours::start(&our_redis, &[]);
    let theirs = watch::start(&their_redis, CLIENTS);
    let ready = (bench.effort.slice.as_secs_f64() * HELD_PER_SECOND) as usize;
    let (our_held, their_held) = (Held::default(), Held::default());
    let missing = |held: &Held| ready.saturating_sub(held.lock().expect("no caller panicked").len());
    let add = |held: &Held, mut ids: Vec<Id>| {
        let mut held = held.lock().expect("no caller panicked");
        // What an earlier slice has left is confirmed first: nothing lapses meanwhile.
        ids.append(&mut held);
        *held = ids;
    };
    let sides = [
        Side::new(format!("{}, {spread}", ours::NAME), &our_redis, |limit: Limit| {
            ours.confirm(CLIENTS, &our_held, limit)
        })
        .prepared(async || add(&our_held, Ours::fill(&our_redis, skus, missing(&our_held)).await)),
        Side::new(format!("{}, {spread}", watch::NAME), &their_redis, |limit: Limit| {
            theirs.confirm(CLIENTS, &their_held, limit)
        })
        .prepared(async || add(&their_held, watch::fill(&their_redis, skus, missing(&their_held)).await)),
    ];
    let [ours, watch] = alternate(bench.effort, sides, &bench.bar).await;
    let what = format!("confirms, {spread}, 32 clients");
    let rate = |slice: &Slice| slice.tally.rate();
    bench.report.add(Row::compare("settle", what, Unit::PerSecond, rate, &ours, &watch));
    let what = format!("p50 of a confirm, {spread}, 32 clients");
    let p50 = |slice: &Slice| slice.tally.latency_ms(0.5);
    bench.report.add(Row::compare("settle", what, Unit::Milliseconds, p50, &ours, &watch));
    let what = format!("processor time of Redis per confirm, {spread}");
    bench.report.add(Row::compare("settle", what, Unit::Microseconds, Slice::cpu_us, &ours, &watch));
    bench.report.measured("settle", [ours, watch]);
}
