//! `store verify`: whether everything in a store is whole.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Args;
use quic_websocket_store::{Finding, Report};
use serde::Serialize;

use super::{Directory, warn};
use crate::command::say;

/// Flags of `store verify`.
#[derive(Debug, Args)]
pub(crate) struct Verify {
    #[command(flatten)]
    directory: Directory,
    /// One JSON object per line
    #[arg(long)]
    json: bool,
}

/// A line of the result.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum Line<'a> {
    Damaged { file: &'a str, from: u64, to: u64, what: &'a str },
    Lost { topic: &'a str, first: u64, last: u64 },
    Note { file: &'a str, from: u64, to: u64, what: &'a str },
    Verified { good: bool, topics: usize, messages: u64, segments: usize, bytes: u64 },
}

impl Verify {
    /// The exit code 2 says that nothing is known, so this has no other way to fail.
    pub(super) fn run(self) -> ExitCode {
        let report = self.directory.inspect().and_then(|inspector| Ok(inspector.verify()?));
        let printed = report.and_then(|report| {
            self.print(&report)?;
            Ok(report.is_good())
        });
        match printed {
            Ok(true) => ExitCode::SUCCESS,
            Ok(false) => ExitCode::FAILURE,
            Err(e) => {
                // If this cannot be written either, the exit code remains.
                let _ = writeln!(io::stderr(), "Error: {e:#}");
                ExitCode::from(2)
            }
        }
    }

    fn print(&self, report: &Report) -> anyhow::Result<()> {
        let finding = |finding: &Finding| {
            let place = if finding.to > finding.from {
                format!(" bytes {} to {}", finding.from, finding.to - 1)
            } else {
                String::new()
            };
            format!("{}{place}: {}", finding.file, finding.what)
        };
        if self.json {
            return print_json(report);
        }
        for damage in &report.damage {
            say(format_args!("damaged: {}", finding(damage)))?;
        }
        for lost in &report.lost {
            let (first, last) = (lost.first, lost.last);
            let offsets = if first == last { format!("offset {first}") } else { format!("offsets {first} to {last}") };
            say(format_args!("lost: {} {offsets}", lost.topic))?;
        }
        for note in &report.notes {
            warn(format_args!("{}", finding(note)));
        }
        if !report.damage.is_empty() && report.lost.is_empty() {
            say("No message that is kept is lost.")?;
        }
        let Report { topics, records, segments, bytes, .. } = report;
        let verdict = if report.is_good() { "good" } else { "damaged" };
        say(format_args!("{verdict}: {topics} topics, {records} messages, {segments} segments, {bytes} bytes"))
    }
}

fn print_json(report: &Report) -> anyhow::Result<()> {
    let put = |line: Line<'_>| say(serde_json::to_string(&line)?);
    for Finding { file, from, to, what } in &report.damage {
        put(Line::Damaged { file, from: *from, to: *to, what })?;
    }
    for lost in &report.lost {
        put(Line::Lost { topic: &lost.topic, first: lost.first, last: lost.last })?;
    }
    for Finding { file, from, to, what } in &report.notes {
        put(Line::Note { file, from: *from, to: *to, what })?;
    }
    let Report { topics, records, segments, bytes, .. } = *report;
    put(Line::Verified { good: report.is_good(), topics, messages: records, segments, bytes })
}
