//! The small subcommands of the binary: what they ask of the library, and what they print.

pub(crate) mod token;
