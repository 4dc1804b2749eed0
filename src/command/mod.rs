//! The binary's subcommands: each calls the library and prints the result. No server runs here.

pub(crate) mod store;
pub(crate) mod token;

use std::fmt::Display;
use std::io::{self, Write};

use anyhow::Context;

/// Prints a line. A closed pipe is not an error, because a reader may stop early; a full disk is one.
pub(crate) fn say(line: impl Display) -> anyhow::Result<()> {
    match writeln!(io::stdout(), "{line}") {
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written.context("cannot write to standard output"),
    }
}
