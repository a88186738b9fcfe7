//! The command line: parses it, wires the layers together, prints.

mod check;
mod environment;
mod keys;
mod log;
mod manual;
mod mover;
mod output;
mod ready;
mod scripts;
mod serve;
mod settings;
mod target;

use std::ffi::OsString;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;

use clap::builder::BoolishValueParser;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::engine::MAX_BATCH;
use crate::http::{DEFAULT_KEEP_ALIVE, HostName, PageOrigin};
use crate::keys::MAX_SHARDS;
use crate::sweeper;
use target::Target;

/// Inventory reservations, decided atomically inside Redis.
///
/// Without --redis-url, `serve` starts a private redis-server and keeps its data in ./stockhold-data.
#[derive(Debug, Parser)]
#[command(version, after_help = "Without a command it serves; stockhold serve --help tells of its settings.")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve HTTP (the default)
    Serve(Box<ServeArgs>),
    /// List, load, verify or export the scripts
    Scripts(scripts::ScriptsArgs),
    /// Check that all stock is as the scripts left it, on a live system; exit status 0 if so, 1 if not, 2 if the check
    /// could not finish
    Check(check::CheckArgs),
    /// Show or change the settings that all servers and callers obey
    Settings(settings::SettingsArgs),
    /// Show where a SKU or a reservation is: its shard, its keys, and in a cluster its slot and its node
    Keys(keys::KeysArgs),
    /// Move a stopped shop to another Redis, or into another number of shards
    Move(mover::MoveArgs),
    /// Ask a running server whether it is ready; exit status 0 if so, 1 if not
    Ready(ReadyArgs),
    /// Print what makes a shell complete the arguments
    Completions(manual::CompletionsArgs),
    /// Print the manual page, or write those of all commands
    Man(manual::ManArgs),
}

#[derive(Debug, Args)]
struct ServeArgs {
    /// Address to listen on; 0.0.0.0 or :: for all
    #[arg(long, env = "STOCKHOLD_HOST", default_value = "127.0.0.1", value_name = "ADDRESS")]
    host: IpAddr,

    /// Port to listen on (also PORT); 0 picks a free one
    #[arg(long, env = "STOCKHOLD_PORT", default_value_t = 8080)]
    port: u16,

    /// File of bearer tokens, one line `read TOKEN` or `write TOKEN` for each; without it every client may do
    /// everything
    #[arg(long, env = "STOCKHOLD_TOKEN_FILE", value_name = "FILE")]
    token_file: Option<PathBuf>,

    /// Listen on other addresses than loopback even without a token file
    #[arg(long, env = "STOCKHOLD_INSECURE_BIND", value_parser = BoolishValueParser::new())]
    insecure_bind: bool,

    /// Names by which clients may call this server, besides those of loopback; * for any. By default any; on loopback
    /// without a token file, only those of loopback
    #[arg(long, env = "STOCKHOLD_ALLOWED_HOSTS", value_name = "NAME,...", value_delimiter = ',')]
    allowed_hosts: Vec<HostName>,

    /// Origins whose pages a browser lets call this server, such as https://shop.example; * for any. By default none
    #[arg(long, env = "STOCKHOLD_CORS_ORIGIN", value_name = "ORIGIN,...", value_delimiter = ',')]
    cors_origin: Vec<PageOrigin>,

    /// How long an idle connection is kept; clients are told this time
    #[arg(long, env = "STOCKHOLD_KEEP_ALIVE_SECONDS", default_value_t = DEFAULT_KEEP_ALIVE.as_secs(), value_name = "SECONDS",
          value_parser = clap::value_parser!(u64).range(1..=3600))]
    keep_alive_seconds: u64,

    /// How long the server still serves after SIGTERM, while /readyz says that it is draining: longer than a load balancer
    /// takes to notice; 0 ends it at once, as SIGINT and a second SIGTERM do
    #[arg(long, env = "STOCKHOLD_DRAIN_SECONDS", default_value_t = 5, value_name = "SECONDS",
          value_parser = clap::value_parser!(u64).range(0..=3600))]
    drain_seconds: u64,

    #[command(flatten)]
    target: Target,

    /// Program to start as private Redis
    #[arg(long, env = "STOCKHOLD_REDIS_SERVER", default_value = "redis-server", value_name = "PROGRAM")]
    redis_server: PathBuf,

    /// Memory that the private Redis may use, such as 512mb or 4gb; beyond it, holds are refused; 0 for no limit [default: three
    /// quarters of what this machine, or container, has]
    #[arg(long, env = "STOCKHOLD_REDIS_MAXMEMORY", value_name = "BYTES", value_parser = maxmemory)]
    redis_maxmemory: Option<u64>,

    /// Where the private Redis keeps its data
    #[arg(long, env = "STOCKHOLD_DATA_DIR", default_value = "stockhold-data", value_name = "FOLDER")]
    data_dir: PathBuf,

    /// In how many parts the stock is in Redis, each with its own prefix of keys, 1 to 4096; the first server decides it for
    /// good
    #[arg(long, env = "STOCKHOLD_SHARDS", default_value_t = 1, value_name = "SHARDS",
          value_parser = clap::value_parser!(u16).range(1..=i64::from(MAX_SHARDS)))]
    shards: u16,

    /// How often lapsed holds are looked for
    #[arg(long, env = "STOCKHOLD_SWEEP_INTERVAL_MS", default_value_t = sweeper::DEFAULT_INTERVAL.as_millis() as u64, value_name = "MILLISECONDS",
          value_parser = clap::value_parser!(u64).range(10..=60_000))]
    sweep_interval_ms: u64,

    #[command(flatten)]
    decisions: settings::Decisions,

    /// Maximum number of requests of one kind in one call to Redis; 1 sends each alone
    #[arg(long, env = "STOCKHOLD_MAX_BATCH", default_value_t = MAX_BATCH as u64, value_name = "REQUESTS",
          value_parser = clap::value_parser!(u64).range(1..=MAX_BATCH as u64))]
    max_batch: u64,

    /// What an answer promises: redis, what Redis's own settings do; wait:N, that N replicas have the change
    #[arg(long, env = "STOCKHOLD_DURABILITY", default_value = "redis", value_name = "redis|wait:N")]
    durability: Durability,

    /// What is logged to standard error (also RUST_LOG): off, error, warn, info, debug, trace; requests are logged at debug, and
    /// info,stockhold::access=debug logs them without the rest of that level
    #[arg(long, env = "STOCKHOLD_LOG", default_value = "info", value_name = "FILTER")]
    log: String,

    /// How it is logged: text, or an object of JSON for each message, on a line of its own
    #[arg(
        long,
        env = "STOCKHOLD_LOG_FORMAT",
        default_value = "text",
        hide_possible_values = true,
        value_name = "text|json"
    )]
    log_format: log::Format,
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

/// Less than this is a mistake, such as a number without its unit: even an empty Redis needs some megabytes.
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
    #[arg(long, env = "STOCKHOLD_HOST", default_value = "127.0.0.1", value_name = "ADDRESS")]
    host: IpAddr,

    /// Port of the server (also PORT)
    #[arg(long, env = "STOCKHOLD_PORT", default_value_t = 8080)]
    port: u16,
}

pub use output::complain;

/// Runs the command line that the process was given.
///
/// # Errors
/// With what went wrong, and what to do about it.
pub fn run() -> anyhow::Result<ExitCode> {
    let command = environment::read_by(Cli::command());
    let matches = command.get_matches_from(with_a_command(std::env::args_os().collect()));
    match Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit()).command {
        Command::Serve(args) => start(*args),
        Command::Scripts(args) => scripts::run(args),
        Command::Check(args) => Ok(check::run(&args)),
        Command::Settings(args) => settings::run(&args),
        Command::Move(args) => mover::run(&args),
        Command::Keys(args) => keys::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Completions(args) => manual::completions(&args, Cli::command()),
        Command::Man(args) => manual::man(&args, Cli::command()),
        Command::Ready(args) => runtime()?.block_on(ready::ask(args.host, args.port)),
    }
}

/// Adds `serve` to arguments that name no command, so that its settings are read then, and only then.
fn with_a_command(mut arguments: Vec<OsString>) -> Vec<OsString> {
    const OF_ALL: [&str; 4] = ["-h", "--help", "-V", "--version"];
    let first = arguments.get(1).map(|first| first.to_string_lossy());
    if first.is_none_or(|first| first.starts_with('-') && !OF_ALL.contains(&&*first)) {
        arguments.insert(arguments.len().min(1), "serve".into());
    }
    arguments
}

fn start(args: ServeArgs) -> anyhow::Result<ExitCode> {
    let format = args.log_format;
    log::to_stderr(&args.log, format)?;
    match runtime()?.block_on(serve::run(args)) {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(error) if format == log::Format::Json && log::shows_errors() => {
            tracing::error!("{error:#}");
            Ok(ExitCode::FAILURE)
        }
        Err(error) => Err(error),
    }
}

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn without_a_command_it_serves() {
        let given = |arguments: &str| arguments.split_whitespace().map(OsString::from).collect::<Vec<_>>();
        for (arguments, expected) in [
            ("stockhold", "stockhold serve"),
            ("stockhold --port 0", "stockhold serve --port 0"),
            ("stockhold -x", "stockhold serve -x"),
            ("stockhold serve --port 0", "stockhold serve --port 0"),
            ("stockhold --help", "stockhold --help"),
            ("stockhold -V", "stockhold -V"),
            ("stockhold help serve", "stockhold help serve"),
            ("stockhold check --json", "stockhold check --json"),
        ] {
            assert_eq!(with_a_command(given(arguments)), given(expected));
        }
    }
}
