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

const COUNTS: &str = "/api/inventory/sku-hot?active=0";
const LIST: &str = "/api/inventory/sku-hot";
const LONG_LIST: &str = "/api/inventory/sku-hot?active=10000";
const EVENTS: &str = "/api/audit?sku=sku-hot&limit=1000";

/// The readers of a SKU with 10,000 holds: how many read what.
const READERS: [(&str, &[(usize, &str)]); 9] = [
    ("32 readers of the counts", &[(32, COUNTS)]),
    ("128 readers of the counts", &[(128, COUNTS)]),
    ("32 readers of 100 ids", &[(32, LIST)]),
    ("128 readers of 100 ids", &[(128, LIST)]),
    ("32 readers of 10,000 ids", &[(32, LONG_LIST)]),
    ("128 readers of 10,000 ids", &[(128, LONG_LIST)]),
    ("32 readers of 1,000 events", &[(32, EVENTS)]),
    ("128 readers of 1,000 events", &[(128, EVENTS)]),
    ("32 readers of each of these", &[(32, COUNTS), (32, LIST), (32, LONG_LIST), (32, EVENTS)]),
];

pub async fn run(bench: &mut Bench) {
    let redis = RedisServer::start();
    let mut scripts = Scripts::load(&redis).await;
    let skus = [keys(HOT), keys(OTHER)];
    scripts.seed(&skus, AMPLE).await;
    scripts.fill(&vec![&skus[0]; HOLDS], TTL_MS).await;
    let ours = Ours::start(&redis, &[]);
    let other = [OTHER.to_owned()];
    let reads: [RefCell<Tally>; READERS.len()] = std::array::from_fn(|_| RefCell::new(Tally::new()));
    let beside = async |number: usize, limit: Limit| {
        let done = Arc::new(AtomicBool::new(false));
        let holding = async {
            let holds = ours.hold(CLIENTS, &other, limit).await;
            done.store(true, Ordering::Relaxed);
            holds
        };
        let crowds = READERS[number].1.iter().map(|(readers, target)| {
            let done = Limit::Until(Arc::clone(&done));
            ours.get(*readers, target, done)
        });
        let (holds, answers) = tokio::join!(holding, futures_util::future::join_all(crowds));
        let mut reads = reads[number].borrow_mut();
        let seconds = reads.elapsed + holds.elapsed;
        answers.iter().for_each(|answers| reads.add(answers));
        reads.elapsed = seconds;
        holds
    };
    let side = |number: usize| Side::new(READERS[number].0, &redis, move |limit| beside(number, limit));
    let sides = [
        Side::new("alone", &redis, |limit| ours.hold(CLIENTS, &other, limit)),
        side(0),
        side(1),
        side(2),
        side(3),
        side(4),
        side(5),
        side(6),
        side(7),
        side(8),
    ];
    let effort = Effort { rounds: bench.effort.rounds.div_ceil(2), ..bench.effort };
    let series = alternate(effort, sides, &bench.bar).await;
    let rate = |slice: &Slice| slice.tally.rate();
    let (alone, disturbed) = series.split_first().expect("one holds alone");
    for (series, reads) in disturbed.iter().zip(&reads) {
        let what = format!("holds, 8 clients, beside {}", series.name);
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
