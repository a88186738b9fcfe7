//! Holds of one SKU while another client changes its stock without a pause: no hold is refused but for lack of units.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::{Bench, hot_sku};
use crate::load::{Limit, Tally};
use crate::measure::{Side, Slice, alternate};
use crate::report::{Figure, Row, Target, Unit};
use crate::side::HOT;
use crate::side::ours::{self, Ours};
use crate::support::redis_server::RedisServer;

const CLIENTS: usize = 32;

pub async fn run(bench: &mut Bench) {
    let redis = RedisServer::start();
    let skus = hot_sku();
    Ours::stock(&redis, &skus).await;
    let ours = Ours::start(&redis, &[]);
    let adjusted = RefCell::new(Tally::new());
    let beside = async |limit: Limit| {
        let done = Arc::new(AtomicBool::new(false));
        let holding = async {
            let holds = ours.hold(CLIENTS, &skus, limit).await;
            done.store(true, Ordering::Relaxed);
            holds
        };
        let adjusting = ours.adjust(HOT, Limit::Until(Arc::clone(&done)));
        let (holds, adjustments) = tokio::join!(holding, adjusting);
        adjusted.borrow_mut().add(&adjustments);
        holds
    };
    let sides = [
        Side::new("beside adjustments", &redis, beside),
        Side::new("alone", &redis, |limit| ours.hold(CLIENTS, &skus, limit)),
    ];
    let [beside, alone] = alternate(bench.effort, sides, &bench.bar).await;
    let rate = |slice: &Slice| slice.tally.rate();
    let what = "holds, one SKU, 32 clients, beside a client that adjusts it";
    bench.report.add(Row::compare("adjust", what, Unit::PerSecond, rate, &beside, &alone));
    let total = beside.total().tally;
    let refused = (total.contention + total.sold_out + total.failed) as f64;
    let row = Row::of("adjust", "holds refused or failed", Figure::new(ours::NAME, refused, Unit::Count));
    bench.report.add(row.target(Target::Exactly(0.0)));
    let adjusted = adjusted.borrow();
    let figure = Figure::new(ours::NAME, adjusted.rate(), Unit::PerSecond);
    bench.report.add(Row::of("adjust", "adjustments meanwhile", figure));
    bench.report.measured("adjust", [beside, alone]);
}
