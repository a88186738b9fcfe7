//! Holds of one SKU while others read another: selling comes first.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::{Bench, HOT};
use crate::load::{Limit, Tally};
use crate::measure::{Effort, Side, Slice, alternate};
use crate::report::{Figure, Row, Target, Unit};
use crate::script_calls::{AMPLE, Scripts, TTL_MS, keys};
use crate::side::ours::Ours;
use crate::support::redis_server::RedisServer;

const CLIENTS: usize = 8;
const OTHER: &str = "sku-other";
const HOLDS: usize = 10_000;
const LEAST: f64 = 0.5;

/// Reads of a SKU with 10,000 holds: what its name is in the report, its query, and how many readers.
const READS: [(&str, &str, usize); 6] = [
    ("32 × 100 ids", "inventory/sku-hot", 32),
    ("128 × 100 ids", "inventory/sku-hot", 128),
    ("32 × 10,000 ids", "inventory/sku-hot?active=10000", 32),
    ("128 × 10,000 ids", "inventory/sku-hot?active=10000", 128),
    ("32 × 1,000 events", "audit?sku=sku-hot&limit=1000", 32),
    ("128 × 1,000 events", "audit?sku=sku-hot&limit=1000", 128),
];

pub async fn run(bench: &mut Bench) {
    let redis = RedisServer::start();
    let mut scripts = Scripts::load(&redis).await;
    let skus = [keys(HOT), keys(OTHER)];
    scripts.seed(&skus, AMPLE).await;
    scripts.fill(&vec![&skus[0]; HOLDS], TTL_MS).await;
    let ours = Ours::start(&redis, &[]);
    let other = [OTHER.to_owned()];
    let reads: [RefCell<Tally>; READS.len()] = std::array::from_fn(|_| RefCell::new(Tally::new()));
    let beside = async |number: usize, limit: Limit| {
        let (_, query, readers) = READS[number];
        let done = Arc::new(AtomicBool::new(false));
        let holding = async {
            let holds = ours.hold(CLIENTS, &other, limit).await;
            done.store(true, Ordering::Relaxed);
            holds
        };
        let target = format!("/api/{query}");
        let reading = ours.get(readers, &target, Limit::Until(Arc::clone(&done)));
        let (holds, tally) = tokio::join!(holding, reading);
        reads[number].borrow_mut().add(&tally);
        holds
    };
    let side = |number: usize| Side::new(READS[number].0, &redis, move |limit| beside(number, limit));
    let sides = [
        Side::new("alone", &redis, |limit| ours.hold(CLIENTS, &other, limit)),
        side(0),
        side(1),
        side(2),
        side(3),
        side(4),
        side(5),
    ];
    let effort = Effort { rounds: bench.effort.rounds.div_ceil(2), ..bench.effort };
    let series = alternate(effort, sides, &bench.bar).await;
    let rate = |slice: &Slice| slice.tally.rate();
    let (alone, disturbed) = series.split_first().expect("one holds alone");
    for (series, reads) in disturbed.iter().zip(&reads) {
        let what = format!("holds, 8 clients, beside {} of another SKU", series.name);
        let row = Row::compare("readers", what, Unit::PerSecond, rate, series, alone);
        bench.report.add(row.target(Target::RatioAtLeast(LEAST)));
        let reads = reads.borrow();
        let row = Row::of(
            "readers",
            format!("reads meanwhile, {}", series.name),
            Figure::new("answered", reads.rate(), Unit::PerSecond),
        );
        let refused = Figure::new("refused", reads.failed as f64 / reads.elapsed.as_secs_f64(), Unit::PerSecond);
        bench.report.add(row.against(refused));
    }
    let failed = series.iter().map(|series| series.total().tally.failed).sum::<u64>() as f64;
    let row = Row::of("readers", "holds that failed", Figure::new("stockhold", failed, Unit::Count));
    bench.report.add(row.target(Target::Exactly(0.0)));
    bench.report.measured("readers", series);
}
