//! `make bench`: how fast a shop is that holds its stock with this project, and what others do in its place.
//!
//! Each scenario starts real servers, puts them under load over TCP on loopback, and lets the sides take turns. The load
//! comes from one thread of this process, as it shares the machine with what it measures.

mod http_client;
mod load;
mod measure;
mod plot;
mod report;
mod scenario;
mod script_calls;
mod side;
#[path = "../../tests/support/mod.rs"]
mod support;
mod tutorial;

use std::net::SocketAddr;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};

use measure::Effort;
use report::{Folder, Report, write_into_document};
use scenario::{Bench, Scenario};
use side::postgres::{self, PostgresServer};
use side::watch::{self, WatchServer};

/// Measures this project against what others do in its place.
#[derive(Debug, Parser)]
#[command(bin_name = "cargo bench --bench shop --", args_conflicts_with_subcommands = true)]
struct Options {
    #[command(subcommand)]
    command: Option<Command>,

    /// A first impression in about two minutes: short slices, few of them, and less data
    #[arg(long)]
    quick: bool,

    /// Only these scenarios
    #[arg(long, value_enum, num_args = 1.., value_name = "SCENARIO")]
    only: Vec<Scenario>,

    /// Length of a slice
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    seconds: Option<Duration>,

    /// Put the load of `hot` on this server instead, such as that of benches/tutorial
    #[arg(long, value_name = "URL", value_parser = tutorial::address, conflicts_with_all = ["only", "write"])]
    tutorial: Option<SocketAddr>,

    /// Write the results into BENCHMARKS.md, and the plot into docs/
    #[arg(long, conflicts_with_all = ["quick", "only"])]
    write: bool,

    /// Given by cargo to every benchmark
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serves the other side of a comparison; started by this program
    #[command(hide = true)]
    WatchServer(WatchServer),
    /// The same
    #[command(hide = true)]
    PostgresServer(PostgresServer),
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().filter(|seconds| (0.1..=60.0).contains(seconds));
    seconds.map(Duration::from_secs_f64).ok_or_else(|| "must be a number from 0.1 to 60".to_owned())
}

fn main() {
    let options = Options::parse();
    match &options.command {
        Some(Command::WatchServer(server)) => watch::run(server),
        Some(Command::PostgresServer(server)) => postgres::run(server),
        None => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime needs no more than a thread").block_on(bench(&options));
        }
    }
}

async fn bench(options: &Options) {
    let (rounds, slice) =
        if options.quick { (2, Duration::from_millis(700)) } else { (6, Duration::from_millis(1500)) };
    let slice = options.seconds.unwrap_or(slice);
    let effort = Effort { rounds, slice, quick: options.quick };
    if let Some(address) = options.tutorial {
        return tutorial::run(address, effort).await;
    }
    let scenarios = if options.only.is_empty() { Scenario::value_variants() } else { &options.only };
    let style = ProgressStyle::with_template("{wide_bar} {pos}/{len} {elapsed} {msg:45}").expect("a good template");
    let bar = ProgressBar::new(scenarios.len() as u64).with_style(style);
    bar.enable_steady_tick(Duration::from_millis(500));
    let mut bench = Bench { effort, bar, report: Report::default() };
    for scenario in scenarios {
        bench.bar.set_message(scenario.name());
        // Where nobody watches, a bar is not drawn: a line tells how far it is.
        if bench.bar.is_hidden() {
            eprintln!("{}", scenario.name());
        }
        scenario.run(&mut bench).await;
        bench.bar.inc(1);
    }
    bench.bar.finish_and_clear();
    let folder = Folder::write(&bench.report);
    println!("{}\nWritten to {}", folder.markdown, folder.path().display());
    if options.write {
        write_into_document(&folder);
    }
}
