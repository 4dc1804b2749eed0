//! The lines of an export, one JSON object each. Pure.
//!
//! ```text
//! {"type":"export","format":1,"topics":1}
//! {"type":"topic","topic":"chat","level":"fsync","epoch":"6d0e...","first":1,"last":2}
//! {"type":"message","topic":"chat","offset":1,"from":"...","content":"hello","timestamp":1,"key":"k"}
//! {"type":"message","topic":"chat","offset":2,"timestamp":2,"data":"AQID"}
//! {"type":"consumer","topic":"chat","name":"mailer","state":"..."}
//! {"type":"end","messages":2}
//! ```
//!
//! A message has the fields that it has on the wire, then `data` (its attachment as base64) and `key`. Fields that this
//! release does not know stay as they are, so an import loses nothing of a newer one's.

use std::fmt;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use quic_websocket::frame::Body;
use quic_websocket::message::{IdempotencyKey, Reply, ServerMessage, TopicName};
use quic_websocket_store::{Level, NewRecord, Record};
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// The format that this release writes, and the newest one that it reads.
pub(super) const FORMAT: u32 = 1;

/// A line of an export other than a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub(super) enum Line {
    /// The first line.
    Export { format: u32, topics: u64 },
    /// A topic; its messages follow. Those up to `first` had been dropped, and `last` is its newest offset.
    Topic { topic: String, level: LevelName, epoch: String, first: u64, last: u64 },
    /// Messages that could not be read.
    Gap { topic: String, first: u64, last: u64, reason: String },
    /// A consumer of the topic.
    Consumer { topic: String, name: String, state: String },
    /// The last line.
    End { messages: u64 },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum LevelName {
    Os,
    Fsync,
}

impl From<Level> for LevelName {
    fn from(level: Level) -> Self {
        match level {
            Level::Os => Self::Os,
            Level::Fsync => Self::Fsync,
        }
    }
}

impl From<LevelName> for Level {
    fn from(level: LevelName) -> Self {
        match level {
            LevelName::Os => Self::Os,
            LevelName::Fsync => Self::Fsync,
        }
    }
}

/// A message of an export.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) topic: String,
    pub(super) offset: u64,
    pub(super) record: NewRecord,
}

/// A line as it was read.
#[derive(Debug)]
pub(super) enum Parsed {
    Line(Line),
    Message(Message),
}

/// A stored message as a line, without its end. `None` if the record is none of a server's.
pub(super) fn message(topic: &str, record: &Record) -> Option<String> {
    let fields = str::from_utf8(&record.tail).ok()?.strip_suffix('}')?;
    let topic = serde_json::to_string(topic).ok()?;
    let mut line = format!("{{\"type\":\"message\",\"topic\":{topic},\"offset\":{},{fields}", record.offset);
    let tail = format!("{{{fields}}}");
    let has_value = serde_json::from_str::<Fields<'_>>(&tail).ok()?.0.iter().any(|(name, _)| name == "data");
    if has_value {
        line.push_str(",\"encoding\":\"json\"");
    }
    if let Some(attachment) = &record.attachment {
        line.push_str(if has_value { ",\"attachment\":\"" } else { ",\"data\":\"" });
        BASE64.encode_string(attachment, &mut line);
        line.push('"');
    }
    if let Some(key) = &record.key {
        line.push_str(",\"key\":");
        line.push_str(&serde_json::to_string(&**key).ok()?);
    }
    line.push('}');
    // Of the white space in a value; inside a string none stands as it is.
    let line = line.replace(['\n', '\r'], " ");
    serde_json::from_str::<IgnoredAny>(&line).is_ok().then_some(line)
}

/// Encodes the state of a consumer.
pub(super) fn consumer(topic: &str, name: &str, state: &[u8]) -> Line {
    Line::Consumer { topic: topic.to_owned(), name: name.to_owned(), state: BASE64.encode(state) }
}

pub(super) fn decode(base64: &str) -> Result<Bytes, String> {
    BASE64.decode(base64).map(Bytes::from).map_err(|e| format!("it is not base64: {e}"))
}

/// The fields of an object in their order, as they are written.
struct Fields<'a>(Vec<(String, &'a RawValue)>);

impl<'de> Deserialize<'de> for Fields<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Fields<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields<'de>, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(Fields(fields))
            }
        }
        deserializer.deserialize_map(Object)
    }
}

/// Reads a line, or says what is wrong with it.
pub(super) fn parse(line: &str) -> Result<Parsed, String> {
    let fields: Fields<'_> = serde_json::from_str(line).map_err(|e| format!("it is not a JSON object: {e}"))?;
    let is_message = fields.0.iter().any(|(name, value)| name == "type" && value.get() == "\"message\"");
    if is_message { parse_message(fields).map(Parsed::Message) } else { parse_other(line).map(Parsed::Line) }
}

fn parse_other(line: &str) -> Result<Line, String> {
    serde_json::from_str(line).map_err(|e| e.to_string())
}

fn parse_message(fields: Fields<'_>) -> Result<Message, String> {
    let mut tail = String::new();
    let (mut data, mut key) = (None, None);
    let has_value = fields.0.iter().any(|(name, value)| name == "encoding" && value.get() == "\"json\"");
    // For the checks of the protocol: the message as it was on the wire.
    let mut wire = String::from("{\"type\":\"message\"");
    for (name, value) in fields.0 {
        match &*name {
            "type" => {}
            "topic" | "offset" => wire.push_str(&format!(",\"{name}\":{}", value.get())),
            "encoding" => {}
            "data" if !has_value => data = Some(value),
            "attachment" if has_value => data = Some(value),
            "key" => key = Some(value),
            _ => {
                if !tail.is_empty() {
                    tail.push(',');
                }
                tail.push_str(&serde_json::to_string(&name).map_err(|e| e.to_string())?);
                tail.push(':');
                tail.push_str(value.get());
            }
        }
    }
    tail.push('}');
    wire.push(',');
    wire.push_str(&tail);
    let text = |value: Option<&RawValue>, name: &str| -> Result<Option<String>, String> {
        let text = value.map(|value| serde_json::from_str(value.get()));
        text.transpose().map_err(|_| format!("{name} is not a string"))
    };
    let attachment = text(data, "data")?.map(|data| decode(&data).map_err(|e| format!("data: {e}"))).transpose()?;
    let key = text(key, "key")?;
    if let Some(key) = &key {
        IdempotencyKey::new(key).map_err(|e| e.to_string())?;
    }
    let body = Body { json: Bytes::from(wire), attachment: attachment.clone() };
    let reply = Reply::parse(&body).map_err(|e| e.to_string())?;
    let ServerMessage::Message(message) = reply.message else { return Err("it is not a message".to_owned()) };
    if message.payload.content.is_none() && attachment.is_none() && !has_value {
        return Err("it has neither content nor data".to_owned());
    }
    TopicName::new(&message.topic).map_err(|e| e.to_string())?;
    if message.offset == 0 {
        return Err("offsets begin with 1".to_owned());
    }
    let record = NewRecord { at_ms: message.timestamp, tail: tail.into(), attachment, key: key.map(Arc::from) };
    Ok(Message { topic: message.topic, offset: message.offset, record })
}

#[cfg(test)]
mod tests {
    use super::*;
    use quic_websocket::message::{Json, Payload, TopicMessage, encode_tail};
    use uuid::Uuid;

    fn record(payload: Payload, from: Option<Uuid>, key: Option<&str>) -> Record {
        let mut message = TopicMessage::new("ignored", 0, payload.clone(), 99);
        message.from = from.map(Into::into);
        let (tail, key) = (encode_tail(&message), key.map(Arc::from));
        Record { offset: 17, at_ms: 99, tail, attachment: payload.attachment, key }
    }

    #[test]
    fn a_message_is_read_as_it_was_written() {
        let text = Payload::text("with \"quotes\",\nlines and \u{1f600}");
        let binary = Payload::binary(Bytes::from_static(&[0, 1, 255]));
        let both = Payload::text("a").with_attachment(Bytes::new());
        let json = |text: &str| Json::parse(text.to_owned()).expect("JSON");
        let value = Payload::json(json("{\"a\" : 1e400}")).with_meta(json("{}"));
        let all = value.clone().with_attachment(Bytes::from_static(b"x"));
        for payload in [text, binary, both, value, all] {
            for from in [None, Some(Uuid::from_u128(7))] {
                for key in [None, Some("a \"key\"")] {
                    let stored = record(payload.clone(), from, key);
                    let line = message("chat.lobby", &stored).expect("a message");
                    let Ok(Parsed::Message(read)) = parse(&line) else { panic!("{line}") };
                    assert_eq!((&*read.topic, read.offset), ("chat.lobby", 17));
                    let NewRecord { at_ms, tail, attachment, key } = read.record;
                    let read = Record { offset: 17, at_ms, tail, attachment, key };
                    assert_eq!(read, stored, "{line}");
                }
            }
        }
    }

    #[test]
    fn a_value_over_several_lines_comes_in_one() {
        let payload = Payload::json(Json::parse("[1,\r\n  \"a\\nb\"]").expect("JSON"));
        let line = message("t", &record(payload, None, None)).expect("a message");
        let Ok(Parsed::Message(read)) = parse(&line) else { panic!("{line}") };
        assert_eq!(read.record.tail, "\"data\":[1,    \"a\\nb\"],\"timestamp\":99}");
    }

    #[test]
    fn a_field_of_a_newer_release_stays() {
        let line = r#"{"type":"message","topic":"t","offset":1,"content":"a","new":{"b" : [1]},"timestamp":5}"#;
        let Ok(Parsed::Message(read)) = parse(line) else { panic!("{line}") };
        assert_eq!(read.record.tail, r#""content":"a","new":{"b" : [1]},"timestamp":5}"#);
    }

    #[test]
    fn what_is_no_message_is_refused_with_a_reason() {
        for (line, reason) in [
            ("", "not a JSON object"),
            ("[1]", "not a JSON object"),
            (r#"{"type":"message","topic":"t","offset":1,"content":"a","timestamp":5"#, "not a JSON object"),
            (r#"{"type":"message","topic":"t","offset":1,"content":"a"}"#, "timestamp"),
            (r#"{"type":"message","topic":"t","content":"a","timestamp":5}"#, "offset"),
            (r#"{"type":"message","topic":"t","offset":0,"content":"a","timestamp":5}"#, "begin with 1"),
            (r#"{"type":"message","topic":"t.*","offset":1,"content":"a","timestamp":5}"#, "topic"),
            (r#"{"type":"message","topic":"t","offset":1,"timestamp":5}"#, "neither content nor data"),
            (r#"{"type":"message","topic":"t","offset":1,"timestamp":5,"data":"?"}"#, "base64"),
            (r#"{"type":"message","topic":"t","offset":1,"timestamp":5,"data":"","key":""}"#, "key"),
            (r#"{"type":"message","topic":"t","offset":1,"content":7,"timestamp":5}"#, "content"),
            (r#"{"type":"massage","topic":"t"}"#, "massage"),
            (r#"{"topic":"t"}"#, "type"),
        ] {
            let error = parse(line).err().unwrap_or_else(|| panic!("{line} is accepted"));
            assert!(error.contains(reason), "{line}: {error}");
        }
    }

    #[test]
    fn a_record_that_no_server_wrote_is_noticed() {
        for tail in ["", "}", "text", "\"content\":\"a\"", "\"content\":}"] {
            let tail = Bytes::from_static(tail.as_bytes());
            let stored = Record { offset: 1, at_ms: 1, tail, attachment: None, key: None };
            assert_eq!(message("t", &stored), None);
        }
    }
}
