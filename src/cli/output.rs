//! What the commands print.

use std::fmt::Display;
use std::io::{self, ErrorKind, Write};

/// Prints a line. A closed reader, as in `stockhold scripts | head -1`, is not a failure: the command continues, for
/// its effect and its exit status.
///
/// # Errors
/// When it cannot be written for any other reason, such as a full disk.
pub(super) fn print(line: impl Display) -> io::Result<()> {
    match writeln!(io::stdout().lock(), "{line}") {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        done => done,
    }
}

/// Says why a command failed. If even that cannot be written, only the exit status tells.
pub fn complain(why: impl Display) {
    let _ = writeln!(io::stderr().lock(), "stockhold: {why}");
}
