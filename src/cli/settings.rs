//! `stockhold settings`: shows what the operator has decided for all servers and callers, or changes it.

use std::process::ExitCode;

use anyhow::Context;
use clap::Args;

use super::output::print;
use super::runtime;
use super::target::Target;
use crate::engine::{Change, Engine, Options, Settings, written_layout};
use crate::keys::Layout;

/// What can be set, by `serve` at its start and by `stockhold settings` at any time.
#[derive(Debug, Clone, Copy, Args)]
pub(super) struct Decisions {
    /// How long settled reservations and adjustments with a key are kept, and with them the keys of their requests; 0 keeps
    /// them forever
    #[arg(long, env = "STOCKHOLD_KEEP_SECONDS", value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(0..=1_000_000_000))]
    keep_seconds: Option<u64>,

    /// About how many entries the audit keeps; 0 keeps all
    #[arg(long, env = "STOCKHOLD_AUDIT_MAX", value_name = "ENTRIES", value_parser = clap::value_parser!(u64).range(0..=1_000_000_000_000))]
    audit_max: Option<u64>,

    /// How long after a hold was made its extensions may end, at most 30 days; 0 allows no extension
    #[arg(long, env = "STOCKHOLD_EXTEND_MAX_SECONDS", value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(0..=2_592_000))]
    extend_max_seconds: Option<u64>,
}

impl Decisions {
    pub(super) fn change(self) -> Change {
        let ms = |seconds: Option<u64>| seconds.map(|seconds| seconds * 1000);
        Change { keep_ms: ms(self.keep_seconds), audit_max: self.audit_max, extend_max_ms: ms(self.extend_max_seconds) }
    }
}

#[derive(Debug, Args)]
pub(super) struct SettingsArgs {
    #[command(flatten)]
    decisions: Decisions,

    #[command(flatten)]
    target: Target,
}

pub(super) fn run(args: &SettingsArgs) -> anyhow::Result<ExitCode> {
    let redis = args.target.redis()?;
    let address = redis.address();
    let settings: anyhow::Result<Settings> = runtime()?.block_on(async {
        let layout = written_layout(&redis).await?.unwrap_or_else(Layout::unsharded);
        let engine = Engine::on(layout, redis, Options::default());
        let change = args.decisions.change();
        if !change.is_empty() {
            engine.set(change).await?;
        }
        Ok(engine.settings().await?)
    });
    let Settings { keep_ms, audit_max, extend_max_ms, .. } =
        settings.with_context(|| format!("cannot use the settings at {address}"))?;
    let [keep, extend_max] = [keep_ms, extend_max_ms].map(|ms| ms as f64 / 1000.0);
    print(format_args!("keep-seconds       {keep}\naudit-max          {audit_max}\nextend-max-seconds {extend_max}"))?;
    Ok(ExitCode::SUCCESS)
}
