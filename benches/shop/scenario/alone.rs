//! One client that has the server to itself: gathering holds into one call must not make it wait for company.

use super::{Bench, hot_sku};
use crate::measure::{Side, alternate};
use crate::report::{Row, Target, Unit};
use crate::side::ours::Ours;
use crate::support::redis_server::RedisServer;
use crate::support::stockhold::program;

pub async fn run(bench: &mut Bench) {
    let help = program(&["serve", "--help"]).output().expect("the program runs");
    if !String::from_utf8_lossy(&help.stdout).contains("--max-batch") {
        bench.report.note("`alone` was left out: this server gathers no holds, it has no `--max-batch`.");
        return;
    }
    let redis = RedisServer::start();
    Ours::stock(&redis, &hot_sku()).await;
    let gathering = Ours::start(&redis, &[]);
    let single = Ours::start(&redis, &["--max-batch", "1"]);
    let sku = hot_sku();
    let sides = [
        Side::new("gathering", &redis, |limit| gathering.hold(1, &sku, limit)),
        Side::new("not gathering", &redis, |limit| single.hold(1, &sku, limit)),
    ];
    let [gathering, single] = alternate(bench.effort, sides, &bench.bar).await;
    let p50 = |slice: &crate::measure::Slice| slice.tally.latency_ms(0.5);
    let row = Row::compare("alone", "p50 of a hold, 1 client", Unit::Milliseconds, p50, &gathering, &single);
    bench.report.add(row.target(Target::RatioAtMost(1.05)));
    bench.report.measured("alone", [gathering, single]);
}
