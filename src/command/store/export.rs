//! `store export`: topics as JSON lines.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use quic_websocket_store::{Inspector, Topic};

use super::line::{self, FORMAT, Line};
use super::print::{Printer, put};
use super::{Directory, find, topic_name, warn};

/// Flags of `store export`.
#[derive(Debug, Args)]
pub(crate) struct Export {
    #[command(flatten)]
    directory: Directory,
    /// Topics to export [default: all]
    #[arg(value_parser = topic_name)]
    topics: Vec<String>,
    /// Write to this file, which is replaced once everything is written [default: standard output]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

impl Export {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let inspector = self.directory.inspect()?;
        let topics: Vec<&Topic> = if self.topics.is_empty() {
            inspector.topics().iter().collect()
        } else {
            self.topics.iter().map(|name| find(&inspector, name)).collect::<anyhow::Result<_>>()?
        };
        let missing = match &self.output {
            Some(path) => write_file(path, |out| write(&inspector, &topics, out))
                .with_context(|| format!("cannot write {}", path.display()))?,
            None => {
                let mut out = BufWriter::new(io::stdout().lock());
                let missing = write(&inspector, &topics, &mut out)?;
                out.flush().context("cannot write to standard output")?;
                missing
            }
        };
        if missing > 0 {
            warn(format_args!(
                "{missing} messages are damaged and not in the export, which says so in lines of type gap"
            ));
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Writes beside the file and renames at the end, so that an export that fails replaces none that is whole.
fn write_file(path: &Path, write: impl FnOnce(&mut BufWriter<File>) -> anyhow::Result<u64>) -> anyhow::Result<u64> {
    let mut name: OsString = path.as_os_str().to_owned();
    name.push(".part");
    let part = PathBuf::from(name);
    let written = || {
        let mut out = BufWriter::new(File::create(&part)?);
        let missing = write(&mut out)?;
        out.flush()?;
        out.get_ref().sync_all()?;
        fs::rename(&part, path)?;
        Ok(missing)
    };
    let written = written();
    if written.is_err() {
        // It may not be there.
        let _ = fs::remove_file(&part);
    }
    written
}

/// Writes topics; returns how many messages are missing.
fn write(inspector: &Inspector, topics: &[&Topic], out: &mut impl Write) -> anyhow::Result<u64> {
    let (mut messages, mut missing) = (0_u64, 0_u64);
    put(out, &Line::Export { format: FORMAT, topics: topics.len() as u64 })?;
    for topic in topics {
        let (name, head) = (topic.name(), topic.head());
        let (first, last) = (head.trimmed_through + 1, head.newest);
        let (level, epoch) = (topic.level().into(), head.epoch.to_string());
        put(out, &Line::Topic { topic: name.to_string(), level, epoch, first, last })?;
        let mut printer = Printer::new(name, first, &mut *out);
        printer.print_kept(inspector, topic)?;
        messages += printer.messages;
        missing += printer.missing;
        for (consumer, state) in topic.consumers() {
            put(out, &line::consumer(name, &consumer, &state))?;
        }
    }
    put(out, &Line::End { messages })?;
    Ok(missing)
}
