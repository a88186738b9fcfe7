//! `stockhold move`: a stopped shop, to another Redis.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Args;

use super::output::print;
use super::runtime;
use super::target::Target;
use crate::keys::MAX_SHARDS;
use crate::mover::{Moved, Mover};

#[derive(Debug, Args)]
pub(super) struct MoveArgs {
    /// Redis to move to: a URL as for --redis-url
    #[arg(long, value_name = "URL")]
    to: String,

    /// Password of that Redis, in the first line
    #[arg(long, value_name = "FILE")]
    to_password_file: Option<PathBuf>,

    /// Shards that it shall have there [default: as many as it has]
    #[arg(long, value_name = "SHARDS", value_parser = clap::value_parser!(u16).range(1..=i64::from(MAX_SHARDS)))]
    shards: Option<u16>,

    /// File for the reservations and events that stay behind when the number of shards changes, as lines of JSON
    #[arg(long, value_name = "FILE")]
    export: Option<PathBuf>,

    #[command(flatten)]
    target: Target,
}

/// # Errors
/// When it cannot be moved; then it is as it was, and the move can be made again.
pub(super) fn run(args: &MoveArgs) -> anyhow::Result<ExitCode> {
    let from = args.target.redis()?;
    let to = args.target.other(&args.to, args.to_password_file.clone()).context("--to")?;
    let addresses = [&from, &to].map(|redis| redis.address());
    let moved: anyhow::Result<Moved> = runtime()?.block_on(async {
        let mover = Mover::between(from, to, args.shards).await?;
        let mut file = match (&args.export, mover.is_whole()) {
            (_, true) => None,
            (Some(path), false) => {
                // Carts and metadata may be about people.
                let file = File::options().write(true).create(true).truncate(true).mode(0o600).open(path);
                let file = file.with_context(|| format!("cannot write {} (--export)", path.display()))?;
                Some(BufWriter::new(file))
            }
            (None, false) => bail!(
                "into another number of shards, settled reservations and the audit stay behind: name a file for them (--export)"
            ),
        };
        let mut keep = |line: &serde_json::Value| match &mut file {
            Some(file) => writeln!(file, "{line}"),
            None => Ok(()),
        };
        let moved = mover.run(&mut keep).await?;
        if let Some(mut file) = file {
            file.flush()?;
            file.get_ref().sync_all()?;
        }
        Ok(moved)
    });
    let [from, to] = addresses;
    let Moved { skus, keys, left_behind } = moved.with_context(|| format!("cannot move from {from} to {to}"))?;
    let how =
        if keys > 0 { format!("{keys} keys") } else { format!("{left_behind} reservations and events stayed behind") };
    print(format_args!("{skus} SKUs moved from {from} to {to}, and checked on both: {how}"))?;
    Ok(ExitCode::SUCCESS)
}
