//! `store ls`: the topics of a store.

use std::process::ExitCode;

use clap::Args;
use quic_websocket_store::Topic;
use serde::Serialize;

use super::{Directory, level_name};
use crate::command::say;

/// Flags of `store ls`.
#[derive(Debug, Args)]
pub(crate) struct List {
    #[command(flatten)]
    directory: Directory,
    /// One JSON object per topic
    #[arg(long)]
    json: bool,
}

/// A topic as JSON.
#[derive(Debug, Serialize)]
struct Row {
    topic: String,
    level: &'static str,
    epoch: String,
    /// The newest offset, 0 before the first message.
    newest: u64,
    /// The largest offset that was dropped.
    trimmed_through: u64,
    messages: u64,
    bytes: u64,
    consumers: Vec<String>,
}

impl From<&Topic> for Row {
    fn from(topic: &Topic) -> Self {
        let head = topic.head();
        Self {
            topic: topic.name().to_string(),
            level: level_name(topic.level()),
            epoch: head.epoch.to_string(),
            newest: head.newest,
            trimmed_through: head.trimmed_through,
            messages: head.count,
            bytes: head.bytes,
            consumers: topic.consumers().into_iter().map(|(name, _)| name.to_string()).collect(),
        }
    }
}

impl List {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let inspector = self.directory.inspect()?;
        let rows: Vec<Row> = inspector.topics().iter().map(Row::from).collect();
        if self.json {
            for row in rows {
                say(serde_json::to_string(&row)?)?;
            }
        } else {
            table(rows)?;
        }
        let damaged = inspector.damage().len();
        if damaged > 0 {
            super::warn(format_args!("{damaged} parts of the store are damaged; `store verify` says what is lost"));
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// The first column is as wide as the longest name; numbers are aligned to the right.
fn table(rows: Vec<Row>) -> anyhow::Result<()> {
    const HEAD: [&str; 8] = ["TOPIC", "LEVEL", "OLDEST", "NEWEST", "MESSAGES", "BYTES", "CONSUMERS", "EPOCH"];
    let cells = rows.into_iter().map(|row| {
        let oldest = if row.messages == 0 { "-".to_owned() } else { (row.trimmed_through + 1).to_string() };
        let [newest, messages, bytes] = [row.newest, row.messages, row.bytes].map(|number| number.to_string());
        let consumers = row.consumers.len().to_string();
        [row.topic, row.level.to_owned(), oldest, newest, messages, bytes, consumers, row.epoch]
    });
    let rows: Vec<[String; 8]> = std::iter::once(HEAD.map(str::to_owned)).chain(cells).collect();
    let mut widths = [0; 8];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.len());
        }
    }
    for row in rows {
        let mut line = String::new();
        for (n, (cell, width)) in row.iter().zip(widths).enumerate() {
            let cell = if matches!(n, 0 | 1 | 7) { format!("{cell:<width$}") } else { format!("{cell:>width$}") };
            line.push_str(&cell);
            line.push_str("  ");
        }
        say(line.trim_end())?;
    }
    Ok(())
}
