//! The command line: parses it, wires the layers together, prints.

mod check;
mod ready;
mod scripts;
mod serve;

use std::io::IsTerminal;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;

use clap::{Args, Parser, Subcommand};
use tracing_subscriber::EnvFilter;

use crate::engine::{MAX_BATCH, Retention};
use crate::sweeper;

/// Inventory reservations, decided atomically inside Redis.
///
/// Without REDIS_URL, `serve` starts a redis-server of its own and keeps its data in ./stockhold-data.
#[derive(Debug, Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: ServeArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve HTTP (the default)
    Serve(ServeArgs),
    /// List, load, verify or export the scripts
    Scripts(scripts::ScriptsArgs),
    /// Check that all stock is as the scripts left it, on a live system; exit status 0 if so, 1 if not, 2 if it could not be
    /// found out
    Check(check::CheckArgs),
    /// Ask a running server whether it is ready; exit status 0 if so, 1 if not
    Ready(ReadyArgs),
}

#[derive(Debug, Args)]
struct ServeArgs {
    /// Address to listen on; 0.0.0.0 or :: for all
    #[arg(long, env = "BIND_ADDRESS", default_value = "127.0.0.1", value_name = "ADDRESS")]
    host: IpAddr,

    /// Port to listen on; 0 picks a free one
    #[arg(long, env = "PORT", default_value_t = 8080)]
    port: u16,

    /// File of the bearer tokens that let a client in, a line `read TOKEN` or `write TOKEN` for each; without it all may
    /// do everything
    #[arg(long, env = "TOKEN_FILE", value_name = "FILE")]
    token_file: Option<PathBuf>,

    /// Listen on other addresses than loopback though there is no token file
    #[arg(long, env = "INSECURE_BIND")]
    insecure_bind: bool,

    /// Redis to use (redis:// or unix://), instead of a private one
    #[arg(long, env = "REDIS_URL", value_name = "URL", hide_env_values = true)]
    redis_url: Option<String>,

    /// Program to start as private Redis
    #[arg(long, env = "REDIS_SERVER", default_value = "redis-server", value_name = "PROGRAM")]
    redis_server: PathBuf,

    /// Loopback port of the private Redis; 0 picks a free one
    #[arg(long, env = "REDIS_PORT", default_value_t = 6390, value_name = "PORT")]
    redis_port: u16,

    /// Memory that the private Redis may use, such as 512mb or 4gb; beyond it, holds are refused; 0 for no limit [default: three
    /// quarters of what this machine, or container, has]
    #[arg(long, env = "REDIS_MAXMEMORY", value_name = "BYTES", value_parser = maxmemory)]
    redis_maxmemory: Option<u64>,

    /// Where the private Redis keeps its data
    #[arg(long, env = "DATA_DIR", default_value = "stockhold-data", value_name = "FOLDER")]
    data_dir: PathBuf,

    /// How often lapsed holds are looked for
    #[arg(long, env = "SWEEP_INTERVAL_MS", default_value_t = sweeper::DEFAULT_INTERVAL.as_millis() as u64, value_name = "MILLISECONDS",
          value_parser = clap::value_parser!(u64).range(10..=60_000))]
    sweep_interval_ms: u64,

    /// Entries that the audit keeps, about; 0 keeps for ever
    #[arg(long, env = "AUDIT_MAX", default_value_t = Retention::default().audit_max, value_name = "ENTRIES",
          value_parser = clap::value_parser!(u64).range(0..=1_000_000_000_000))]
    audit_max: u64,

    /// How long settled reservations are kept; 0 keeps for ever
    #[arg(long, env = "KEEP_SECONDS", default_value_t = Retention::default().keep_ms / 1000, value_name = "SECONDS",
          value_parser = clap::value_parser!(u64).range(0..=1_000_000_000))]
    keep_seconds: u64,

    /// Requests of a kind that go to Redis in one call at most; 1 sends each by itself
    #[arg(long, env = "MAX_BATCH", default_value_t = MAX_BATCH as u64, value_name = "REQUESTS",
          value_parser = clap::value_parser!(u64).range(1..=MAX_BATCH as u64))]
    max_batch: u64,

    /// What an answer promises: redis, what Redis's own settings do; wait:N, that N replicas have the change
    #[arg(long, env = "DURABILITY", default_value = "redis", value_name = "redis|wait:N")]
    durability: Durability,

    /// What is logged to standard error: error, warn, info, debug (one line for each request), trace
    #[arg(long, env = "RUST_LOG", default_value = "info", value_name = "FILTER")]
    log: String,
}

/// When a change is acknowledged.
#[derive(Debug, Clone, Copy)]
struct Durability {
    replicas: u32,
}

impl FromStr for Durability {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let replicas = match text.strip_prefix("wait:") {
            None if text == "redis" => Some(0),
            None => None,
            Some(count) => count.parse().ok().filter(|replicas| (1..=100).contains(replicas)),
        };
        replicas.map(|replicas| Self { replicas }).ok_or("must be redis, or wait:N with N from 1 to 100")
    }
}

/// Less than this is a mistake, such as a number without its unit: an empty Redis alone takes some megabytes.
const LEAST_MAXMEMORY: u64 = 16 << 20;

/// Bytes, written as Redis's own settings write them.
fn maxmemory(text: &str) -> Result<u64, &'static str> {
    let lower = text.to_ascii_lowercase();
    let units = [("kb", 10), ("mb", 20), ("gb", 30), ("", 0)];
    let bytes =
        units.iter().find_map(|(unit, power)| Some((lower.strip_suffix(unit)?, power))).and_then(|(digits, power)| {
            let number = digits.parse::<u64>().ok().filter(|_| digits.bytes().all(|byte| byte.is_ascii_digit()))?;
            number.checked_mul(1 << power)
        });
    bytes
        .filter(|bytes| *bytes == 0 || *bytes >= LEAST_MAXMEMORY)
        .ok_or("must be 0, or at least 16mb; in bytes, kb, mb or gb")
}

#[derive(Debug, Args)]
struct ReadyArgs {
    /// Address of the server
    #[arg(long, env = "BIND_ADDRESS", default_value = "127.0.0.1", value_name = "ADDRESS")]
    host: IpAddr,

    /// Port of the server
    #[arg(long, env = "PORT", default_value_t = 8080)]
    port: u16,
}

/// Runs the command line that the process was given.
///
/// # Errors
/// With what went wrong, and what to do about it.
pub fn run() -> anyhow::Result<ExitCode> {
    let cli = Cli::parse();
    match cli.command {
        None => start(cli.serve),
        Some(Command::Serve(args)) => start(args),
        Some(Command::Scripts(args)) => scripts::run(args),
        Some(Command::Check(args)) => Ok(check::run(&args)),
        Some(Command::Ready(args)) => runtime()?.block_on(ready::ask(args.host, args.port)),
    }
}

fn start(args: ServeArgs) -> anyhow::Result<ExitCode> {
    let filter = EnvFilter::try_new(&args.log)?;
    let ansi = std::io::stderr().is_terminal();
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(ansi).with_writer(std::io::stderr).init();
    runtime()?.block_on(serve::run(args))?;
    Ok(ExitCode::SUCCESS)
}

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        super::Cli::command().debug_assert();
    }
}
