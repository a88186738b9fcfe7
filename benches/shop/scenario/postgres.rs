//! Holds over HTTP from 32 clients, against PostgreSQL, where both lose the same when the power fails.

use super::{Bench, hot_sku, many_skus};
use crate::load::{Limit, Tally};
use crate::measure::{Effort, Side, Slice, alternate};
use crate::report::{Row, Target, Unit};
use crate::script_calls::AMPLE;
use crate::side::ours::{self, Ours};
use crate::side::postgres::{self, Cluster};
use crate::side::served::Served;
use crate::support::redis_server::RedisServer;

const CLIENTS: usize = 32;

/// Connections to PostgreSQL that are tried: the size with which it is fastest is compared.
const POOLS: [usize; 5] = [2, 4, 8, 16, 32];

/// What is lost at most when the power fails, and which settings promise it: of `appendfsync`, of `synchronous_commit`.
const DURABILITIES: [(&str, &str, &str); 2] = [("a second", "everysec", "off"), ("nothing", "always", "on")];

/// What clients do over and over.
#[derive(Clone, Copy)]
enum Doing {
    Hold,
    /// And confirm.
    Buy,
}

pub async fn run(bench: &mut Bench) {
    let Some(cluster) = Cluster::start().await else {
        bench.report.note("`postgres` was left out: PostgreSQL is not installed.");
        return;
    };
    let (one, many) = (hot_sku().to_vec(), many_skus());
    for (loss, appendfsync, synchronous_commit) in DURABILITIES {
        for (doing, skus, spread, target) in [
            (Doing::Hold, &one, "one SKU", Some(10.0)),
            (Doing::Hold, &many, "1,000 SKUs", Some(3.0)),
            (Doing::Buy, &many, "1,000 SKUs", None),
        ] {
            let redis = RedisServer::start_with(&["--appendonly", "yes", "--appendfsync", appendfsync]);
            Ours::stock(&redis, skus).await;
            let ours = Ours::start(&redis, &[]);
            let connections = best_pool(bench, &cluster, synchronous_commit, doing, skus).await;
            cluster.stock(skus, AMPLE).await;
            let theirs = postgres::start(&cluster, synchronous_commit, connections);
            let operation = format!("{}, {spread}", doing.name());
            let sides = [
                Side::new(format!("{}: {operation}, {appendfsync}", ours::NAME), &redis, |limit| {
                    doing.ours(&ours, skus, limit)
                }),
                Side::new(
                    format!("{}: {operation}, {synchronous_commit}, {connections} connections", postgres::NAME),
                    &cluster,
                    |limit| doing.theirs(&theirs, skus, limit),
                ),
            ];
            let effort = Effort { rounds: bench.effort.rounds.div_ceil(2), ..bench.effort };
            let series = alternate(effort, sides, &bench.bar).await;
            let [holds, confirms] = cluster.audited(AMPLE).await;
            let stored = match doing {
                Doing::Hold => holds,
                Doing::Buy => confirms,
            };
            assert!(stored >= series[1].total().tally.accepted, "everything that was accepted is stored");
            let what = format!("{operation}, 32 clients, {loss} may be lost");
            let rate = |slice: &Slice| slice.tally.rate();
            let short = [ours::NAME.to_owned(), format!("{}, {connections} connections", postgres::NAME)];
            let row = Row::compare("postgres", what, Unit::PerSecond, rate, &series[0], &series[1]).named(short);
            bench.report.add(match target {
                Some(least) => row.target(Target::RatioAtLeast(least)),
                None => row,
            });
            bench.report.measured("postgres", series);
        }
    }
}

/// The size of the pool with which PostgreSQL does most.
async fn best_pool(bench: &Bench, cluster: &Cluster, synchronous_commit: &str, doing: Doing, skus: &[String]) -> usize {
    let slice = bench.effort.slice / 2;
    let mut best = (0.0, POOLS[0]);
    for connections in POOLS {
        bench.bar.set_message(format!("postgres: trying {connections} connections"));
        cluster.stock(skus, AMPLE).await;
        let theirs = postgres::start(cluster, synchronous_commit, connections);
        doing.theirs(&theirs, skus, Limit::For(slice / 2)).await;
        let rate = doing.theirs(&theirs, skus, Limit::For(slice)).await.rate();
        if rate > best.0 {
            best = (rate, connections);
        }
    }
    bench.bar.set_message("postgres");
    best.1
}

impl Doing {
    fn name(self) -> &'static str {
        match self {
            Self::Hold => "holds",
            Self::Buy => "hold and confirm",
        }
    }

    async fn ours(self, ours: &Ours, skus: &[String], limit: Limit) -> Tally {
        match self {
            Self::Hold => ours.hold(CLIENTS, skus, limit).await,
            Self::Buy => ours.buy(CLIENTS, skus, limit).await,
        }
    }

    async fn theirs(self, theirs: &Served, skus: &[String], limit: Limit) -> Tally {
        match self {
            Self::Hold => theirs.hold(CLIENTS, skus, limit).await,
            Self::Buy => theirs.buy(CLIENTS, skus, limit).await,
        }
    }
}
