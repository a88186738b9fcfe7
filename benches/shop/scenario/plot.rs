//! Throughput and latency of holds of one SKU, from one client to 256.

use super::{Bench, hot_sku};
use crate::measure::{Effort, Side, alternate};
use crate::plot::{Curve, Point};
use crate::script_calls::AMPLE;
use crate::side::ours::{self, Ours};
use crate::side::watch;
use crate::support::redis_server::RedisServer;

const CLIENTS: [usize; 9] = [1, 2, 4, 8, 16, 32, 64, 128, 256];

pub async fn run(bench: &mut Bench) {
    // Its points are many, and a curve shows by itself how noisy it is.
    let effort = Effort { rounds: bench.effort.rounds.div_ceil(3), ..bench.effort };
    let mut curves = [ours::NAME, watch::NAME].map(|name| Curve { name, points: Vec::new() });
    for clients in CLIENTS {
        let (our_redis, their_redis) = (RedisServer::start(), RedisServer::start());
        let sku = hot_sku();
        Ours::stock(&our_redis, &sku).await;
        watch::stock(&their_redis, &sku, AMPLE).await;
        let ours = Ours::start(&our_redis, &[]);
        let theirs = watch::start(&their_redis, clients);
        let sides = [
            Side::new(ours::NAME, &our_redis, |limit| ours.hold(clients, &sku, limit)),
            Side::new(watch::NAME, &their_redis, |limit| theirs.hold(clients, &sku, limit)),
        ];
        let series = alternate(effort, sides, &bench.bar).await;
        for (curve, series) in curves.iter_mut().zip(series) {
            let tally = series.total().tally;
            curve.points.push(Point { clients, rate: tally.rate(), p99_ms: tally.latency_ms(0.99) });
        }
    }
    bench.report.curves = Some(curves);
}
