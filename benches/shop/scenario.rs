//! What is measured. Each scenario starts its own servers, measures, and adds rows to the report.

mod adjust;
mod alone;
mod cart;
mod cluster;
mod contention;
mod cpu;
mod direct;
mod lag;
mod memory;
mod million;
mod plot;
mod postgres;
mod readers;
mod reads;
mod settle;
mod stampede;
mod sweep;

use clap::ValueEnum;
use indicatif::ProgressBar;

use crate::measure::Effort;
use crate::report::Report;
use crate::side::HOT;

/// What a scenario is handed.
pub struct Bench {
    pub effort: Effort,
    pub bar: ProgressBar,
    pub report: Report,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Scenario {
    /// One SKU that everybody wants
    Hot,
    /// 1,000 SKUs
    Many,
    /// Hold, then confirm, one SKU
    Lifecycle,
    /// Hold, then confirm, 1,000 SKUs
    Checkout,
    /// Confirm what is held already
    Settle,
    /// Carts of five SKUs
    Cart,
    /// Holding a SKU while its stock is adjusted
    Adjust,
    /// 10,000 buyers for 100 units
    Stampede,
    /// HTTP as against calling the script
    Direct,
    /// What a hold costs Redis
    Cpu,
    /// Reading a SKU with few and with many holds
    Snapshot,
    /// Reading a SKU's history in a short and in a long stream
    Audit,
    /// Holding one SKU while others read another
    Readers,
    /// One client, with and without gathering calls
    Alone,
    /// 100,000 holds that lapse at once
    Sweep,
    /// As many holds as there can be, each for a second
    Lag,
    /// Bytes of Redis's memory for each SKU and reservation
    Memory,
    /// One Redis, and clusters of one and of three primaries
    Cluster,
    /// 1,000,000 SKUs in 256 shards on three primaries
    Million,
    /// Against PostgreSQL, at equal durability
    Postgres,
    /// Throughput and p99 over the number of clients
    Plot,
}

impl Scenario {
    pub async fn run(self, bench: &mut Bench) {
        match self {
            Self::Hot => contention::hot(bench).await,
            Self::Many => contention::many(bench).await,
            Self::Lifecycle => contention::lifecycle(bench).await,
            Self::Checkout => contention::checkout(bench).await,
            Self::Settle => settle::run(bench).await,
            Self::Cart => cart::run(bench).await,
            Self::Adjust => adjust::run(bench).await,
            Self::Stampede => stampede::run(bench).await,
            Self::Direct => direct::run(bench).await,
            Self::Cpu => cpu::run(bench).await,
            Self::Snapshot => reads::snapshot(bench).await,
            Self::Audit => reads::audit(bench).await,
            Self::Readers => readers::run(bench).await,
            Self::Alone => alone::run(bench).await,
            Self::Sweep => sweep::run(bench).await,
            Self::Lag => lag::run(bench).await,
            Self::Memory => memory::run(bench).await,
            Self::Cluster => cluster::run(bench).await,
            Self::Million => million::run(bench).await,
            Self::Postgres => postgres::run(bench).await,
            Self::Plot => plot::run(bench).await,
        }
    }

    /// As on the command line.
    pub fn name(self) -> String {
        self.to_possible_value().expect("none is hidden").get_name().to_owned()
    }
}

fn hot_sku() -> [String; 1] {
    [HOT.to_owned()]
}

fn many_skus() -> Vec<String> {
    (1..=1000).map(|number| format!("sku-{number:04}")).collect()
}
