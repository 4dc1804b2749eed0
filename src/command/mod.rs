//! The small subcommands of the binary: what they ask of the library, and what they print.

pub(crate) mod token;

use std::fmt::Display;
use std::io::{self, Write};

use anyhow::Context;

/// Prints a line. A reader that has heard enough is no error; a disk that is full is one.
pub(crate) fn say(line: impl Display) -> anyhow::Result<()> {
    match writeln!(io::stdout(), "{line}") {
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written.context("cannot write to the standard output"),
    }
}
