//! Output for terminals and pipes; each line is flushed.

use std::io::{self, ErrorKind, IsTerminal};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use quic_websocket::message::{Json, Member, Position, TopicMessage};
use quic_websocket::{Printable, Published, TopicEvent};
use serde_json::{Value, json};

use super::common::show;

/// Writes events as text or JSON.
pub(crate) struct Output {
    json: bool,
    /// Whether each message starts with its topic.
    topics: bool,
    /// On a terminal, control characters are escaped; a pipe gets the text unchanged.
    is_terminal: bool,
}

impl Output {
    pub(crate) fn new(json: bool, topics: bool) -> Self {
        Self { json, topics, is_terminal: io::stdout().is_terminal() }
    }

    /// Writes an event. Returns false if the output is closed.
    pub(crate) fn event(&mut self, event: &TopicEvent, position: Option<&Position>) -> io::Result<bool> {
        if self.json {
            return in_json(event, position).map_or(Ok(true), |line| write(&with_values(line, event)));
        }
        match event {
            TopicEvent::Message(message) => {
                if let Some(tries) = message.tries {
                    note!("Message {} comes again: delivery {tries}", message.offset);
                }
                write(&self.text(message))
            }
            // On standard error, so that a pipe gets only messages.
            TopicEvent::Missed(missed) => {
                let which = missed.offsets.as_ref().map_or(String::new(), |o| format!(" {} to {}", o.start(), o.end()));
                let (topic, reason) = (Printable::new(&missed.topic), Printable::new(&missed.reason));
                note!("Messages{which} of {topic} are missing: {reason}");
                Ok(true)
            }
            _ => Ok(true),
        }
    }

    fn text(&self, message: &TopicMessage) -> String {
        // A JSON value is printed as it was sent.
        let text = message.text().or(message.payload.data.as_ref().map(Json::as_str));
        let text = match (text, &message.payload.attachment) {
            (Some(text), _) if self.is_terminal => Printable::new(text).to_string(),
            (Some(text), _) => text.to_owned(),
            (None, attachment) => format!("({} bytes)", attachment.as_ref().map_or(0, |bytes| bytes.len())),
        };
        if self.topics { format!("{} {text}", Printable::new(&message.topic)) } else { text }
    }

    /// Writes the position of a published message, in JSON only. Returns false if the output is closed.
    pub(crate) fn published(&mut self, topic: &str, published: &Published) -> io::Result<bool> {
        let Position { epoch, offset } = &published.position;
        if !self.json {
            return Ok(true);
        }
        let duplicate = published.is_duplicate;
        let mut line =
            json!({"type": "published", "topic": topic, "epoch": epoch, "offset": offset, "duplicate": duplicate});
        if let Some(stored) = published.stored {
            line["stored"] = json!(stored);
        }
        write(&line.to_string())
    }
}

/// The line of an event with the values of its message as they were sent: `Value` would round large numbers.
fn with_values(line: Value, event: &TopicEvent) -> String {
    let mut line = line.to_string();
    if let TopicEvent::Message(TopicMessage { payload, .. }) = event {
        for (name, value) in [("data", &payload.data), ("meta", &payload.meta)] {
            let Some(value) = value else { continue };
            line.pop();
            // Of the white space in a value; inside a string none stands as it is.
            let value = value.as_str().replace(['\n', '\r'], " ");
            line.push_str(&format!(",\"{name}\":{value}}}"));
        }
    }
    line
}

/// The event with its fields from the protocol but values; an attachment is where `history` has it.
fn in_json(event: &TopicEvent, position: Option<&Position>) -> Option<Value> {
    let presence = |kind: &str, topic: &str, member: &Member| json!({"type": kind, "topic": topic, "client": member});
    Some(match event {
        TopicEvent::Message(message) => {
            let mut line = json!({
                "type": "message", "topic": message.topic, "offset": message.offset, "timestamp": message.timestamp,
            });
            if let Some(position) = position {
                line["epoch"] = json!(position.epoch);
            }
            if let Some(durable) = &message.durable {
                line["durable"] = json!(durable);
            }
            if let Some(tries) = message.tries {
                line["tries"] = json!(tries);
            }
            if let Some(from) = &message.from {
                line["from"] = json!(from.id);
                for (field, text) in [("user", &from.user), ("name", &from.name)] {
                    if let Some(text) = text {
                        line[field] = json!(&**text);
                    }
                }
            }
            if let Some(content) = &message.payload.content {
                line["content"] = json!(content);
            }
            if message.payload.data.is_some() {
                line["encoding"] = json!("json");
            }
            if let Some(attachment) = &message.payload.attachment {
                let field = if message.payload.data.is_some() { "attachment" } else { "data" };
                line[field] = json!(STANDARD.encode(attachment));
            }
            line
        }
        TopicEvent::Missed(missed) => {
            let (first, last) = (missed.offsets.as_ref().map(|o| o.start()), missed.offsets.as_ref().map(|o| o.end()));
            json!({"type": "missed", "topic": missed.topic, "first": first, "last": last, "reason": missed.reason})
        }
        TopicEvent::Join { topic, member, .. } => presence("join", topic, member),
        TopicEvent::Leave { topic, member, .. } => presence("leave", topic, member),
        TopicEvent::Ended(ended) => json!({"type": "ended", "reason": ended.reason()}),
        _ => return None,
    })
}

/// Waits until standard output is closed, so that `pubsub sub t | head -1` does not wait for another message.
#[cfg(target_os = "linux")]
pub(crate) async fn output_closed() {
    // Opened a second time: the shared file description must not become non-blocking. Only a pipe can lose its reader.
    if let Ok(pipe) = tokio::net::unix::pipe::OpenOptions::new().open_sender("/proc/self/fd/1")
        && pipe.ready(tokio::io::Interest::ERROR).await.is_ok()
    {
        return;
    }
    std::future::pending().await
}

/// On other systems a closed output is noticed with the next line.
#[cfg(not(target_os = "linux"))]
pub(crate) async fn output_closed() {
    std::future::pending().await
}

/// Writes and flushes a line. Returns false if the output is closed.
fn write(line: &str) -> io::Result<bool> {
    match show(line) {
        Err(e) if e.kind() == ErrorKind::BrokenPipe => Ok(false),
        other => other.map(|()| true),
    }
}
