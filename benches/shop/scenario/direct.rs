//! What HTTP costs: 128 clients that call the server, against a service that calls the script with 128 calls in flight.

use super::{Bench, hot_sku};
use crate::measure::{Side, alternate};
use crate::report::{Row, Target, Unit};
use crate::side::direct::{self, Direct};
use crate::side::ours::{self, Ours};
use crate::support::redis_server::RedisServer;

const CLIENTS: usize = 128;

pub async fn run(bench: &mut Bench) {
    let (our_redis, their_redis) = (RedisServer::start(), RedisServer::start());
    Ours::stock(&our_redis, &hot_sku()).await;
    let ours = Ours::start(&our_redis, &[]);
    let direct = Direct::start(&their_redis).await;
    let sku = hot_sku();
    let sides = [
        Side::new(ours::NAME, &our_redis, |limit| ours.hold(CLIENTS, &sku, limit)),
        Side::new(direct::NAME, &their_redis, |limit| direct.hold(CLIENTS, 1, limit)),
    ];
    let [ours, direct] = alternate(bench.effort, sides, &bench.bar).await;
    let what = "holds, one SKU, 128 over HTTP : 128 in flight without HTTP";
    let row = Row::compare("direct", what, Unit::PerSecond, |slice| slice.tally.rate(), &ours, &direct);
    bench.report.add(row.target(Target::RatioAtLeast(1.0)));
    bench.report.measured("direct", [ours, direct]);
}
