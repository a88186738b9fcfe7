//! A server starts and finds 100,000 lapsed holds. While it sweeps them, shoppers hold other SKUs: they should not notice.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use redis::aio::MultiplexedConnection;
use redis::{cmd, pipe};
use stockhold::keys::StockKeys;
use stockhold::scripts::Catalogue;
use tokio::time::sleep;

use super::Bench;
use crate::load::{Limit, Tally};
use crate::report::{Figure, Row, Target, Unit, grouped};
use crate::script_calls::{AMPLE, Scripts, connect, keys, now_ms};
use crate::side::ours::{self, Ours};
use crate::support::redis_server::RedisServer;

const CLIENTS: usize = 8;

/// Calls that Redis's slow log takes down: every one that sweeps a page, and hardly any other.
const SLOW_US: u64 = 100;

/// More than will be.
const SLOW_CALLS: u64 = 100_000;

/// What shoppers and Redis saw.
struct Seen {
    undisturbed: Tally,
    meanwhile: Tally,
    /// Of the calls of `sweep`, in microseconds.
    calls: Histogram<u64>,
    swept_in: Duration,
}

pub async fn run(bench: &mut Bench) {
    let holds = if bench.effort.quick { 20_000 } else { 100_000 };
    for (skus, spread) in [(100, "over 100 SKUs"), (1, "of one SKU")] {
        let seen = lapse(bench, holds, skus).await;
        let lapsed = format!("{} lapsed holds {spread}", grouped(holds));
        compare_p99(bench, &lapsed, &seen);
        let call = |quantile| {
            let took_ms = seen.calls.value_at_quantile(quantile) as f64 / 1e3;
            Figure::new(ours::NAME, took_ms, Unit::Milliseconds)
        };
        let row = Row::of("sweep", format!("p99 of one call of the script, {lapsed}"), call(0.99));
        bench.report.add(row.target(Target::AtMost(5.0)));
        bench.report.add(Row::of("sweep", format!("slowest call of the script, {lapsed}"), call(1.0)));

        let swept_in = Figure::new(ours::NAME, seen.swept_in.as_secs_f64(), Unit::Seconds);
        bench.report.add(Row::of("sweep", format!("time until {lapsed} are swept"), swept_in));
    }

    let lapsed = format!("{} lapsed holds of as many SKUs", grouped(holds));
    let seen = lapse(bench, holds, holds).await;
    compare_p99(bench, &lapsed, &seen);
    let rate = |tally: &Tally, name| Figure::new(name, tally.rate(), Unit::PerSecond);
    let what = format!("new holds, 8 clients, while {lapsed} are swept");
    let row = Row::of("sweep", what, rate(&seen.meanwhile, "meanwhile"));
    let row = row.against(rate(&seen.undisturbed, "before and after"));
    bench.report.add(row.ratio(seen.meanwhile.rate() / seen.undisturbed.rate()));
    let skus = |took: Duration, name| Figure::new(name, holds as f64 / took.as_secs_f64(), Unit::PerSecond);
    let alone_in = sweep_alone(holds).await;
    let row = Row::of("sweep", format!("SKUs swept, {lapsed}"), skus(alone_in, "nobody buys"));
    let row = row.against(skus(seen.swept_in, "8 clients buy"));
    bench.report.add(row.ratio(seen.swept_in.as_secs_f64() / alone_in.as_secs_f64()));
}

fn compare_p99(bench: &mut Bench, lapsed: &str, seen: &Seen) {
    let p99 = |tally: &Tally, name| Figure::new(name, tally.latency_ms(0.99), Unit::Milliseconds);
    let ratio = seen.meanwhile.latency_ms(0.99) / seen.undisturbed.latency_ms(0.99);
    let what = format!("p99 of new holds, 8 clients, while {lapsed} are swept");
    let row = Row::of("sweep", what, p99(&seen.meanwhile, "meanwhile"));
    let row = row.against(p99(&seen.undisturbed, "before and after")).ratio(ratio);
    bench.report.add(row.target(Target::RatioAtMost(3.0)));
}

/// How long it takes when nobody buys meanwhile, the start of the server included.
async fn sweep_alone(skus: usize) -> Duration {
    let redis = RedisServer::start();
    make_lapsed(&redis, skus, skus).await;
    let started = Instant::now();
    let _ours = Ours::start(&redis, &[]);
    wait_until_swept(&mut connect(&redis.url()).await).await;
    started.elapsed()
}

async fn lapse(bench: &Bench, holds: usize, skus: usize) -> Seen {
    let effort = bench.effort;
    let redis = RedisServer::start();
    let others: Vec<String> = (1..=100).map(|number| format!("sku-{number}")).collect();
    Ours::stock(&redis, &others).await;
    let ours = Ours::start(&redis, &[]);
    ours.hold(CLIENTS, &others, Limit::For(effort.slice / 2)).await;
    let mut undisturbed = ours.hold(CLIENTS, &others, Limit::For(effort.slice * 2)).await;
    drop(ours);

    make_lapsed(&redis, holds, skus).await;
    let mut observer = connect(&redis.url()).await;
    log_slow_calls(&mut observer).await;

    let ours = Ours::start(&redis, &[]);
    let started = Instant::now();
    let done = Arc::new(AtomicBool::new(false));
    let watched = async {
        wait_until_swept(&mut observer).await;
        done.store(true, Ordering::Relaxed);
        started.elapsed()
    };
    let limit = Limit::Until(Arc::clone(&done));
    let (meanwhile, swept_in) = tokio::join!(ours.hold(CLIENTS, &others, limit), watched);
    undisturbed.add(&ours.hold(CLIENTS, &others, Limit::For(effort.slice * 2)).await);
    Seen { undisturbed, meanwhile, calls: sweep_calls(&mut observer).await, swept_in }
}

/// Holds that lapse as soon as they are made, while no server sweeps.
async fn make_lapsed(redis: &RedisServer, holds: usize, skus: usize) {
    let lapsing: Vec<StockKeys> = (1..=skus).map(|number| keys(&format!("sku-lapsing-{number}"))).collect();
    let mut scripts = Scripts::load(redis).await;
    scripts.seed(&lapsing, AMPLE).await;
    let items: Vec<&StockKeys> = lapsing.iter().cycle().take(holds).collect();
    scripts.fill(&items, 1).await;
}

/// A SKU with a lapsed hold is listed as due.
async fn wait_until_swept(redis: &mut MultiplexedConnection) {
    let now_ms = now_ms(redis).await;
    let due = keys("sku").shard.due.clone();
    loop {
        let left: u64 = cmd("ZCOUNT").arg(&due).arg("-inf").arg(now_ms).query_async(redis).await.expect("Redis counts");
        if left == 0 {
            return;
        }
        sleep(Duration::from_millis(10)).await;
    }
}

async fn log_slow_calls(redis: &mut MultiplexedConnection) {
    let mut set_up = pipe();
    set_up.cmd("CONFIG").arg("SET").arg("slowlog-log-slower-than").arg(SLOW_US);
    set_up.arg("slowlog-max-len").arg(SLOW_CALLS);
    set_up.cmd("SLOWLOG").arg("RESET");
    set_up.exec_async(redis).await.expect("Redis keeps a slow log");
}

/// How long each call of `sweep` took that is in the slow log.
async fn sweep_calls(redis: &mut MultiplexedConnection) -> Histogram<u64> {
    type Entry = (u64, u64, u64, Vec<String>, String, String);
    let catalogue = Catalogue::embedded();
    let sha1 = &catalogue.get("sweep").expect("the catalogue has it").sha1;
    let log: Vec<Entry> = cmd("SLOWLOG").arg("GET").arg(-1).query_async(redis).await.expect("Redis kept a slow log");
    let mut calls = Histogram::new(3).expect("three significant digits are allowed");
    for (_, _, took_us, command, _, _) in log {
        if command.get(1) == Some(sha1) {
            calls.record(took_us).expect("the histogram resizes itself");
        }
    }
    calls
}
