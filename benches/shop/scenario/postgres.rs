//! Holds over HTTP from 32 clients, against PostgreSQL, where both lose the same when the power fails.

use super::{Bench, hot_sku, many_skus};
use crate::load::{Limit, Tally};
use crate::measure::{Effort, Side, Slice, alternate};
use crate::report::{Row, Target, Unit, grouped};
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
            let operation = format!("{}, {spread}", doing.name());
            let tried = try_pools(bench, &cluster, synchronous_commit, doing, skus).await;
            let (connections, _) = *tried.iter().max_by(|a, b| a.1.total_cmp(&b.1)).expect("some are tried");
            let tried = tried.map(|(connections, rate)| format!("{connections}: {}/s", grouped(rate as usize)));
            bench.report.note(format!(
                "`postgres`, {operation}, `synchronous_commit={synchronous_commit}`, by the number of connections: {}",
                tried.join(", ")
            ));
            cluster.stock(skus, AMPLE).await;
            let theirs = postgres::start(&cluster, synchronous_commit, connections);
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

/// How much PostgreSQL does in a second with each size of the pool.
async fn try_pools(
    bench: &Bench,
    cluster: &Cluster,
    synchronous_commit: &str,
    doing: Doing,
    skus: &[String],
) -> [(usize, f64); POOLS.len()] {
    let slice = bench.effort.slice / 2;
    let mut tried = POOLS.map(|connections| (connections, 0.0));
    for (connections, rate) in &mut tried {
        bench.bar.set_message(format!("postgres: trying {connections} connections"));
        cluster.stock(skus, AMPLE).await;
        let theirs = postgres::start(cluster, synchronous_commit, *connections);
        doing.theirs(&theirs, skus, Limit::For(slice / 2)).await;
        *rate = doing.theirs(&theirs, skus, Limit::For(slice)).await.rate();
    }
    bench.bar.set_message("postgres");
    tried
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
