//! Lines for people and for pipes, each of them written at once.

use std::io::{self, ErrorKind, IsTerminal};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use quic_websocket::message::{Member, Position, TopicMessage};
use quic_websocket::{Printable, Published, TopicEvent};
use serde_json::{Value, json};

use super::common::show;

/// How lines are shown.
pub(crate) struct Output {
    json: bool,
    /// Whether a message's topic stands before it.
    topics: bool,
    /// What a terminal would act on is escaped there; a pipe gets it as it is.
    is_terminal: bool,
}

impl Output {
    pub(crate) fn new(json: bool, topics: bool) -> Self {
        Self { json, topics, is_terminal: io::stdout().is_terminal() }
    }

    /// Shows an event. False where nobody reads any more.
    pub(crate) fn event(&mut self, event: &TopicEvent, position: Option<&Position>) -> io::Result<bool> {
        if self.json {
            return write(&in_json(event, position).to_string());
        }
        match event {
            TopicEvent::Message(message) => write(&self.text(message)),
            // Beside the messages, so that a pipe gets these alone.
            TopicEvent::Missed(missed) => {
                let which = missed.offsets.as_ref().map_or(String::new(), |o| format!(" {} to {}", o.start(), o.end()));
                let (topic, reason) = (Printable::new(&missed.topic), Printable::new(&missed.reason));
                note!("Messages{which} of {topic} are missing: {reason}");
                Ok(true)
            }
            TopicEvent::Join { .. } | TopicEvent::Leave { .. } | TopicEvent::Ended { .. } => Ok(true),
        }
    }

    fn text(&self, message: &TopicMessage) -> String {
        let said = match (&message.payload.content, &message.payload.attachment) {
            (Some(content), _) if self.is_terminal => Printable::new(content).to_string(),
            (Some(content), _) => content.to_string(),
            (None, attachment) => format!("({} bytes)", attachment.as_ref().map_or(0, |bytes| bytes.len())),
        };
        if self.topics { format!("{} {said}", Printable::new(&message.topic)) } else { said }
    }

    /// Shows what was published; for people the end alone is of interest. False where nobody reads any more.
    pub(crate) fn published(&mut self, topic: &str, published: &Published) -> io::Result<bool> {
        let Position { epoch, offset } = &published.position;
        if !self.json {
            return Ok(true);
        }
        let duplicate = published.is_duplicate;
        let line =
            json!({"type": "published", "topic": topic, "epoch": epoch, "offset": offset, "duplicate": duplicate});
        write(&line.to_string())
    }
}

/// The event with the fields that the protocol gives it; an attachment stands in `data`, as base64.
fn in_json(event: &TopicEvent, position: Option<&Position>) -> Value {
    let member = |kind: &str, topic: &str, member: &Member| json!({"type": kind, "topic": topic, "client": member});
    match event {
        TopicEvent::Message(message) => {
            let mut line = json!({
                "type": "message", "topic": message.topic, "offset": message.offset, "timestamp": message.timestamp,
            });
            if let Some(position) = position {
                line["epoch"] = json!(position.epoch);
            }
            if let Some(from) = message.from {
                line["from"] = json!(from);
            }
            if let Some(content) = &message.payload.content {
                line["content"] = json!(content);
            }
            if let Some(attachment) = &message.payload.attachment {
                line["data"] = json!(STANDARD.encode(attachment));
            }
            line
        }
        TopicEvent::Missed(missed) => {
            let (first, last) = (missed.offsets.as_ref().map(|o| o.start()), missed.offsets.as_ref().map(|o| o.end()));
            json!({"type": "missed", "topic": missed.topic, "first": first, "last": last, "reason": missed.reason})
        }
        TopicEvent::Join { topic, member: who } => member("join", topic, who),
        TopicEvent::Leave { topic, member: who } => member("leave", topic, who),
        TopicEvent::Ended { code, reason } => json!({"type": "ended", "code": code, "reason": reason}),
    }
}

/// Waits until nobody reads what is written any more: so `pubsub sub t | head -1` does not wait for another message.
#[cfg(target_os = "linux")]
pub(crate) async fn unread() {
    // Opened once more, so that it is not the shared one that no longer blocks. What is no pipe always has a reader.
    if let Ok(pipe) = tokio::net::unix::pipe::OpenOptions::new().open_sender("/proc/self/fd/1")
        && pipe.ready(tokio::io::Interest::ERROR).await.is_ok()
    {
        return;
    }
    std::future::pending().await
}

/// Where that cannot be waited for, the next line tells.
#[cfg(not(target_os = "linux"))]
pub(crate) async fn unread() {
    std::future::pending().await
}

/// Writes a line, and has it leave at once. False where nobody reads any more.
fn write(line: &str) -> io::Result<bool> {
    match show(line) {
        Err(e) if e.kind() == ErrorKind::BrokenPipe => Ok(false),
        other => other.map(|()| true),
    }
}
