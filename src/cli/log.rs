//! What is logged, how, and where to.

use std::fmt::Display;
use std::io::{self, IsTerminal};
use std::panic;

use anyhow::{Context, ensure};
use clap::ValueEnum;
use jiff::Timestamp;
use serde_json::json;
use tracing::{Level, enabled, error};
use tracing_subscriber::EnvFilter;

use super::output::print;

const HELP: &str = "--log (STOCKHOLD_LOG, RUST_LOG) takes off, error, warn, info, debug or trace, or for one part of the \
                    program as in info,stockhold::access=debug";

/// How a message is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// For people.
    Text,
    /// For programs: an object for each message, on a line of its own.
    Json,
}

impl Format {
    /// Prints a line to standard output, which others may read together with the log.
    ///
    /// # Errors
    /// See [`print`].
    pub(super) fn announce(self, what: impl Display) -> io::Result<()> {
        match self {
            Self::Text => print(what),
            Self::Json => {
                let (timestamp, message) = (Timestamp::now().to_string(), what.to_string());
                print(json!({ "timestamp": timestamp, "level": "INFO", "message": message, "target": "stockhold" }))
            }
        }
    }
}

/// From now on, logs to standard error what `filter` lets through.
///
/// # Errors
/// When it is not a filter, or when it hides every message of this program and is not `off`.
pub(super) fn to_stderr(filter: &str, format: Format) -> anyhow::Result<()> {
    let parsed = EnvFilter::try_new(filter).with_context(|| format!("{filter:?} is no filter: {HELP}"))?;
    let ansi = io::stderr().is_terminal();
    let logger = tracing_subscriber::fmt().with_env_filter(parsed).with_writer(io::stderr);
    // Otherwise it complains to standard error, and panics, when nobody reads standard error any more.
    let logger = logger.log_internal_errors(false);
    match format {
        Format::Text => logger.with_ansi(ansi).init(),
        Format::Json => {
            logger.json().flatten_event(true).with_current_span(false).with_span_list(false).init();
            // Standard error has objects only, also when the program is wrong.
            panic::set_hook(Box::new(|panic| error!("{panic}")));
        }
    }
    // A word that is not a level is taken for a part of the program, and no such part exists.
    ensure!(
        shows_errors() || filter.trim().eq_ignore_ascii_case("off"),
        "{filter:?} lets not even errors through: {HELP}"
    );
    Ok(())
}

/// Whether errors of this program are logged.
pub(super) fn shows_errors() -> bool {
    enabled!(target: "stockhold", Level::ERROR)
}
