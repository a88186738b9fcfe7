//! The program: everything it does is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    stockhold::cli::run().unwrap_or_else(|error| {
        stockhold::cli::complain(format_args!("{error:#}"));
        ExitCode::FAILURE
    })
}
