//! Settings from the environment, which other programs share: variables for other programs are not read.

use std::env;
use std::ffi::OsStr;

use clap::builder::Resettable;
use clap::{Arg, Command};

/// Variables with names that other programs read too. Each is used when our own variable is not set.
const SHARED: [(&str, &str); 3] =
    [("STOCKHOLD_PORT", "PORT"), ("STOCKHOLD_REDIS_URL", "REDIS_URL"), ("STOCKHOLD_LOG", "RUST_LOG")];

/// Kubernetes sets such variables in every container of a namespace, for each Service. For a Service named `stockhold`,
/// `STOCKHOLD_PORT` is `tcp://10.0.0.1:8080`.
const SERVICES: [&[u8]; 3] = [b"tcp://", b"udp://", b"sctp://"];

/// A command whose settings come from the variables that are set.
pub(super) fn read_by(command: Command) -> Command {
    command.mut_args(read_from_what_is_set).mut_subcommands(read_by)
}

fn read_from_what_is_set(setting: Arg) -> Arg {
    let Some(own) = setting.get_env().map(OsStr::to_owned) else { return setting };
    let shared = SHARED.iter().find(|(name, _)| own == **name).map(|(_, shared)| *shared);
    match shared {
        _ if is_set(&own) => setting,
        Some(shared) if is_set(shared.as_ref()) => setting.env(shared),
        // So that the help names it, which does no harm.
        _ if env::var_os(&own).is_none() => setting,
        _ => setting.env(Resettable::Reset),
    }
}

/// An empty variable counts as not set: compose passes variables that nobody has set as empty ones.
fn is_set(name: &OsStr) -> bool {
    let Some(value) = env::var_os(name) else { return false };
    let value = value.as_encoded_bytes();
    let is_service = name.as_encoded_bytes().ends_with(b"_PORT") && SERVICES.iter().any(|way| value.starts_with(way));
    !value.is_empty() && !is_service
}
