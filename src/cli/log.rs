//! What is logged, and where to.

use std::io::{self, IsTerminal};

use anyhow::{Context, ensure};
use tracing::{Level, enabled};
use tracing_subscriber::EnvFilter;

const HELP: &str = "--log (STOCKHOLD_LOG, RUST_LOG) takes off, error, warn, info, debug or trace, or for one part of the \
                    program as in info,stockhold::http=debug";

/// From now on, logs to standard error what `filter` lets through.
///
/// # Errors
/// When it is not a filter, or when it hides every message of this program and is not `off`.
pub(super) fn to_stderr(filter: &str) -> anyhow::Result<()> {
    let parsed = EnvFilter::try_new(filter).with_context(|| format!("{filter:?} is no filter: {HELP}"))?;
    let ansi = io::stderr().is_terminal();
    let logger = tracing_subscriber::fmt().with_env_filter(parsed).with_ansi(ansi).with_writer(io::stderr);
    // Otherwise it complains to standard error, and panics, when nobody reads standard error any more.
    logger.log_internal_errors(false).init();
    // A word that is not a level is taken for a part of the program, and no such part exists.
    let is_silent = !enabled!(target: "stockhold", Level::ERROR);
    ensure!(!is_silent || filter.trim().eq_ignore_ascii_case("off"), "{filter:?} lets not even errors through: {HELP}");
    Ok(())
}
