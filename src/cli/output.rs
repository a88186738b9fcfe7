//! What the commands print.

use std::fmt::Display;
use std::io::{self, ErrorKind, Write};

/// Prints a line. It is no failure when nobody reads any more, as in `stockhold scripts | head -1`: the command goes on, for
/// what it does and its exit status.
///
/// # Errors
/// When it cannot be written for any other reason, such as a full disk.
pub(super) fn print(line: impl Display) -> io::Result<()> {
    match writeln!(io::stdout().lock(), "{line}") {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        done => done,
    }
}

/// Says why a command failed. Where that cannot be said either, the exit status has to do.
pub fn complain(why: impl Display) {
    let _ = writeln!(io::stderr().lock(), "stockhold: {why}");
}
