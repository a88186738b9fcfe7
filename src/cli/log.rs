//! What is logged, and where to.

use std::io::{self, IsTerminal};

use anyhow::{Context, ensure};
use tracing::{Level, enabled};
use tracing_subscriber::EnvFilter;

const HELP: &str = "--log (STOCKHOLD_LOG, RUST_LOG) takes off, error, warn, info, debug or trace, or for one part of the \
                    program as in info,stockhold::http=debug";

/// Logs to standard error what `filter` lets through, from now on.
///
/// # Errors
/// When it is no filter, or one that keeps back everything that this program has to say and is not `off`.
pub(super) fn to_stderr(filter: &str) -> anyhow::Result<()> {
    let parsed = EnvFilter::try_new(filter).with_context(|| format!("{filter:?} is no filter: {HELP}"))?;
    let ansi = io::stderr().is_terminal();
    let logger = tracing_subscriber::fmt().with_env_filter(parsed).with_ansi(ansi).with_writer(io::stderr);
    // It would complain to standard error, and panic, when nobody reads that any more.
    logger.log_internal_errors(false).init();
    // A word that is no level is taken for a part of the program, of which there is none.
    let is_silent = !enabled!(target: "stockhold", Level::ERROR);
    ensure!(!is_silent || filter.trim().eq_ignore_ascii_case("off"), "{filter:?} lets not even errors through: {HELP}");
    Ok(())
}
