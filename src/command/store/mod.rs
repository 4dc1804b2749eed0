//! `quic-websocket store`: looks at the directory of durable topics, checks it, and moves topics in and out. `line` is
//! the file format of exports.

mod export;
mod forget;
mod import;
mod line;
mod list;
mod print;
mod tail;
mod verify;

use std::fmt::Display;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::{Args, Subcommand, ValueEnum};
use quic_websocket::message::TopicName;
use quic_websocket_store::{Inspector, Level, OpenError, Options, Store};

use self::export::Export;
use self::forget::Forget;
use self::import::Import;
use self::list::List;
use self::tail::Tail;
use self::verify::Verify;

/// Subcommands of `store`.
#[derive(Debug, Subcommand)]
pub(crate) enum StoreCommand {
    /// List the topics; also while a server uses the store.
    Ls(List),
    /// Print the newest messages of a topic, one JSON object per line; also while a server uses the store.
    Tail(Tail),
    /// Write topics with their messages as JSON lines; also while a server uses the store.
    Export(Export),
    /// Add the messages of an export. No server may use the store.
    Import(Import),
    /// Check everything, also while a server uses the store. Exit code 0 if nothing is wrong, 1 for damage, with the
    /// topics and offsets that are lost, and 2 if the store cannot be read.
    Verify(Verify),
    /// Delete a topic, or one of its consumers. No server may use the store.
    Forget(Forget),
}

/// The store.
#[derive(Debug, Args)]
struct Directory {
    /// Directory of the store, as in the server's setting store.dir
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
}

/// A level as an argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Durability {
    /// Stored by the operating system: survives the end of the process
    Os,
    /// On the disk: survives a loss of power
    Fsync,
}

impl From<Durability> for Level {
    fn from(durability: Durability) -> Self {
        match durability {
            Durability::Os => Self::Os,
            Durability::Fsync => Self::Fsync,
        }
    }
}

/// Says something beside the result. If it cannot be written, it is left out.
fn warn(warning: impl Display) {
    let _ = writeln!(io::stderr(), "Warning: {warning}");
}

fn level_name(level: Level) -> &'static str {
    match level {
        Level::Os => "os",
        Level::Fsync => "fsync",
    }
}

fn topic_name(text: &str) -> Result<String, String> {
    TopicName::new(text).map(|name| name.as_str().to_owned()).map_err(|e| e.to_string())
}

pub(crate) fn run(command: StoreCommand) -> anyhow::Result<ExitCode> {
    // All segments are open at once. If the limit cannot be raised, opening them says so.
    let _ = rlimit::increase_nofile_limit(rlimit::INFINITY);
    match command {
        StoreCommand::Ls(list) => list.run(),
        StoreCommand::Tail(tail) => tail.run(),
        StoreCommand::Export(export) => export.run(),
        StoreCommand::Import(import) => import.run(),
        StoreCommand::Verify(verify) => Ok(verify.run()),
        StoreCommand::Forget(forget) => forget.run(),
    }
}

impl Directory {
    /// Looks at the store, beside a server or without one.
    fn inspect(&self) -> anyhow::Result<Inspector> {
        inspect(&self.dir)
    }

    /// Opens the store for changes.
    fn open(&self, options: Options) -> anyhow::Result<Store> {
        match Store::open(options, ()) {
            Err(OpenError::InUse(dir)) => {
                bail!(
                    "{} is in use; stop the server first, because only one process may write to a store",
                    dir.display()
                )
            }
            store => store.with_context(|| self.dir.display().to_string()),
        }
    }
}

fn inspect(dir: &Path) -> anyhow::Result<Inspector> {
    if !dir.is_dir() {
        bail!("{} is not a directory; give the server's store.dir", dir.display());
    }
    match Inspector::open(dir) {
        Err(error @ OpenError::NotAStore(_)) => bail!("{error}; give the server's store.dir"),
        inspector => inspector.with_context(|| dir.display().to_string()),
    }
}

/// The topic with this name.
fn find<'a>(inspector: &'a Inspector, name: &str) -> anyhow::Result<&'a quic_websocket_store::Topic> {
    inspector.find(name).with_context(|| format!("the store has no topic {name}; `store ls` lists its topics"))
}
