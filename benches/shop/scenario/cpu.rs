//! What a hold costs Redis, as against the bare writes: called for one item, for 32 of one SKU, and for 32 of 32 SKUs.
//!
//! All sides make the same number of holds in each slice, so that what they add to is of the same size.

use super::Bench;
use crate::load::Limit;
use crate::measure::{Side, Slice, take_turns};
use crate::report::{Row, Target, Unit};
use crate::side::direct::Direct;
use crate::side::floor::{self, Floor};
use crate::support::redis_server::RedisServer;

const ITEMS: usize = 32;
/// SKUs that the items of a call are of, in turn.
const SKUS: usize = 1024;
/// Holds in flight on each side.
const IN_FLIGHT: usize = 128;

pub async fn run(bench: &mut Bench) {
    let redis: [_; 4] = std::array::from_fn(|_| RedisServer::start());
    let one = Direct::start(&redis[0]).await;
    let many = Direct::start(&redis[1]).await;
    let spread = Direct::of_many(&redis[2], SKUS).await;
    let floor = Floor::start(&redis[3]).await;
    let calls_of_many = if bench.effort.quick { 200 } else { 600 };
    let calls = calls_of_many * ITEMS as u64;
    let sides = [
        Side::new("one item a call", &redis[0], |limit| one.hold(IN_FLIGHT, 1, limit)),
        Side::new("32 items a call", &redis[1], |_| many.hold(IN_FLIGHT / ITEMS, ITEMS, Limit::Calls(calls_of_many))),
        Side::new("32 items of 32 SKUs a call", &redis[2], |_| {
            spread.hold(IN_FLIGHT / ITEMS, ITEMS, Limit::Calls(calls_of_many))
        }),
        Side::new(floor::NAME, &redis[3], |limit| floor.write(IN_FLIGHT, limit)),
    ];
    let limit = Limit::Calls(calls);
    let [one, many, spread, floor] = take_turns(bench.effort.rounds, limit.clone(), limit, sides, &bench.bar).await;
    for (series, most) in [(&one, 2.0), (&many, 1.15), (&spread, 1.8)] {
        let row =
            Row::compare("cpu", "processor time of Redis per hold", Unit::Microseconds, Slice::cpu_us, series, &floor);
        bench.report.add(row.target(Target::RatioAtMost(most)));
    }
    bench.report.measured("cpu", [one, many, spread, floor]);
}
