//! Shoppers hold what they can, each for a second only: does the sweeper keep up with them, and what does that cost them?

use std::time::Duration;

use redis::cmd;

use super::Bench;
use crate::load::{Limit, Tally};
use crate::report::{Figure, Row, Target, Unit, grouped};
use crate::script_calls::{connect, keys, now_ms};
use crate::side::ours::{self, Ours};
use crate::support::redis_server::RedisServer;

const CLIENTS: usize = 32;
const SKUS: usize = 50_000;

/// As long as a hold lasts by default.
const LONG_SECONDS: u64 = 600;

pub async fn run(bench: &mut Bench) {
    let length = Duration::from_secs(if bench.effort.quick { 5 } else { 30 });
    let skus: Vec<String> = (1..=SKUS).map(|number| format!("sku-{number}")).collect();
    let (undisturbed, _) = hold(LONG_SECONDS, &skus, length / 3).await;
    let (meanwhile, overdue) = hold(1, &skus, length).await;

    let what = format!("{} clients, {} SKUs, held for 1 s : for {LONG_SECONDS} s", CLIENTS, grouped(SKUS));
    let rate = |tally: &Tally, name| Figure::new(name, tally.rate(), Unit::PerSecond);
    let row = Row::of("lag", format!("holds, {what}"), rate(&meanwhile, "swept meanwhile"));
    let row = row.against(rate(&undisturbed, "nothing lapses"));
    bench.report.add(row.ratio(meanwhile.rate() / undisturbed.rate()));
    let p99 = |tally: &Tally, name| Figure::new(name, tally.latency_ms(0.99), Unit::Milliseconds);
    let row = Row::of("lag", format!("p99 of holds, {what}"), p99(&meanwhile, "swept meanwhile"));
    let row = row.against(p99(&undisturbed, "nothing lapses"));
    bench.report.add(row.ratio(meanwhile.latency_ms(0.99) / undisturbed.latency_ms(0.99)));
    // It may be a second late before it takes a larger share of Redis, and then needs some time to find the right one.
    let target = Target::AtMost(3.0);
    let what = format!("how long the oldest hold is overdue after {} s of that", length.as_secs());
    bench
        .report
        .add(Row::of("lag", what, Figure::new(ours::NAME, overdue.as_secs_f64(), Unit::Seconds)).target(target));
}

/// What shoppers saw, and how long the oldest hold that lapsed meanwhile is overdue.
async fn hold(seconds: u64, skus: &[String], length: Duration) -> (Tally, Duration) {
    let redis = RedisServer::start();
    Ours::stock(&redis, skus).await;
    let ours = Ours::start(&redis, &[]);
    let tally = ours.hold_for(seconds, CLIENTS, skus, Limit::For(length)).await;
    let mut observer = connect(&redis.url()).await;
    let mut oldest = cmd("ZRANGE");
    oldest.arg(&keys("sku").shard.due).arg(0).arg(0).arg("WITHSCORES");
    let oldest: Vec<(String, f64)> = oldest.query_async(&mut observer).await.expect("Redis lists what is due");
    let now_ms = now_ms(&mut observer).await as f64;
    let overdue_ms = oldest.first().map_or(0.0, |(_, expires_at_ms)| now_ms - expires_at_ms).max(0.0);
    (tally, Duration::from_secs_f64(overdue_ms / 1e3))
}
