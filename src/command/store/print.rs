//! Messages of one topic as lines, with what is missing between them.

use std::io::Write;

use anyhow::Context;
use quic_websocket_store::{Inspector, Record, Room, Topic};

use super::line::{self, Line};

pub(super) const DAMAGED: &str = "damaged on disk";

/// Prints messages in the order of their offsets.
pub(super) struct Printer<'a, W> {
    topic: &'a str,
    /// The next offset.
    expected: u64,
    pub(super) out: W,
    /// Messages printed, and missing.
    pub(super) messages: u64,
    pub(super) missing: u64,
}

impl<'a, W: Write> Printer<'a, W> {
    /// Begins with this offset.
    pub(super) fn new(topic: &'a str, first: u64, out: W) -> Self {
        Self { topic, expected: first, out, messages: 0, missing: 0 }
    }

    /// Prints the messages of a view from the next offset on, page by page.
    pub(super) fn print_kept(&mut self, inspector: &Inspector, topic: &Topic) -> anyhow::Result<()> {
        let last = topic.head().newest;
        let mut next = (self.expected <= last).then_some(self.expected);
        while let Some(from) = next {
            let page = inspector.read(topic, from, false, Room { records: 1000, bytes: 1 << 20 })?;
            for record in &page.records {
                self.print(record, DAMAGED)?;
            }
            next = page.next;
        }
        self.skip_to(last + 1, DAMAGED)
    }

    pub(super) fn print(&mut self, record: &Record, reason: &str) -> anyhow::Result<()> {
        self.skip_to(record.offset, reason)?;
        let line = line::message(self.topic, record)
            .with_context(|| format!("offset {} of {} is not a message of a server", record.offset, self.topic))?;
        writeln!(self.out, "{line}")?;
        self.expected = record.offset + 1;
        self.messages += 1;
        Ok(())
    }

    /// The topic was made again: its offsets begin again.
    pub(super) fn begin_again(&mut self) {
        self.expected = 1;
    }

    /// Says that messages are missing, if any are.
    fn skip_to(&mut self, offset: u64, reason: &str) -> anyhow::Result<()> {
        if offset > self.expected {
            let (first, last) = (self.expected, offset - 1);
            self.missing += offset - first;
            self.expected = offset;
            let gap = Line::Gap { topic: self.topic.to_owned(), first, last, reason: reason.to_owned() };
            put(&mut self.out, &gap)?;
        }
        Ok(())
    }
}

pub(super) fn put(out: &mut impl Write, line: &Line) -> anyhow::Result<()> {
    Ok(writeln!(out, "{}", serde_json::to_string(line)?)?)
}
