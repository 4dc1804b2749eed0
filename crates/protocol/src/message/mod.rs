//! The messages of docs/PROTOCOL.md: those of clients ([`ClientMessage`]) and of servers ([`ServerMessage`]), the
//! bounds of every field, and the codes. Pure: no I/O, no runtime, no clock except [`now_ms`]. Parsed values are within
//! their bounds.

mod client;
mod codes;
#[cfg(test)]
mod documented;
mod fields;
mod flat;
mod json;
mod name;
mod payload;
#[cfg(test)]
mod proptests;
mod raw_json;
mod recipient;
mod sender;
mod server;
mod session;
mod stored;
mod surrogates;
mod token;
mod user;

use std::fmt;

use serde::Serialize;
use thiserror::Error;

use self::fields::Scalar;

pub use self::client::{
    ACK_WAIT_MS, Ack, AckMode, AckOutcome, Answer, Call, CallId, CallTarget, ClientMessage, Close, ConsumerFields,
    ConsumerName, ConsumerRequest, DEFAULT_ACK_WAIT_MS, DEFAULT_MAX_IN_FLIGHT, DEFAULT_REQUEST_TIMEOUT_MS,
    DeliveryMode, DurableConsumer, FAILURE_CODES, Failure, Handshake, LaneChoice, MAX_ACK_OFFSETS, MAX_CONSUMER_BYTES,
    MAX_DELAY_MS, MAX_DELIVER, MAX_FAILURE_BYTES, MAX_FILTER_BYTES, MAX_HANDSHAKE_POSITIONS, MAX_IN_FLIGHT, MAX_RATE,
    Offsets, Position, REQUEST_TIMEOUT_MS, Request, Subscribe,
};
pub use self::codes::{CloseCode, ErrorCode};
pub use self::name::{ClientName, NAME_BOUNDS};
pub use self::payload::Payload;
pub use self::raw_json::Json;
pub use self::recipient::{Recipient, UserName};
pub use self::sender::Sender;
pub use self::server::{
    Called, ClientInfo, ClosedBy, ErrorReply, HandshakeReply, Limits, Member, Permissions, Replied, Reply,
    ServerMessage, Subscribed, TopicMessage,
};
pub use self::server::{encode_binary_head, encode_echo, encode_tail, encode_with_tail};
pub use self::session::{MAX_SESSION_BYTES, Session};
pub use self::stored::Stored;
pub use self::surrogates::mend_names;
pub use self::token::Token;
pub use self::user::{USER_BOUNDS, is_user};
pub use crate::printable::Printable;

/// Protocol version of this crate; peers with the same major number are served.
pub const PROTOCOL_VERSION: &str = "1.0";
/// ALPN protocol id of native QUIC.
pub const ALPN: &[u8] = b"qws/1";
/// ALPN protocol id of WebTransport: HTTP/3 (RFC 9114).
pub const ALPN_WEBTRANSPORT: &[u8] = b"h3";
/// Deepest nesting of arrays and objects in a client's body.
pub const MAX_NESTING: usize = 64;
/// Deepest nesting in a server's body: a page of `history` wraps messages in two more.
pub const MAX_SERVER_NESTING: usize = MAX_NESTING + 2;
/// Largest integer of the protocol: the largest that every JSON implementation represents exactly (RFC 8259 section 6).
pub const MAX_INTEGER: u64 = (1 << 53) - 1;
/// Longest request id, in bytes.
pub const MAX_ID_BYTES: usize = 64;
/// Longest client name, in characters.
pub const MAX_NAME_CHARS: usize = 64;
/// Longest user name (a token's `sub`), in bytes.
pub const MAX_USER_BYTES: usize = 128;
/// Longest token, in bytes.
pub const MAX_TOKEN_BYTES: usize = 8192;
/// Longest topic, in bytes.
pub const MAX_TOPIC_BYTES: usize = 255;
/// Longest idempotency key, in bytes.
pub const MAX_KEY_BYTES: usize = 128;
/// Longest reason of a close, in bytes: the limit of a WebSocket close frame (RFC 6455 section 5.5).
pub const MAX_REASON_BYTES: usize = 123;
/// Largest page of clients or messages.
pub const MAX_PAGE: u64 = 1000;
/// Page size if the request does not set it.
pub const DEFAULT_PAGE: u64 = 100;

/// Longest error text about an invalid body, in characters.
const MAX_INVALID_CHARS: usize = 250;

/// The current time in the protocol's unit, Unix milliseconds.
pub fn now_ms() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |elapsed| u64::try_from(elapsed.as_millis()).unwrap_or(MAX_INTEGER))
}

/// The reason why a body is not a message; a server sends it as `error`.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{message}")]
#[non_exhaustive]
pub struct Invalid {
    /// The `id` of the request, if it could still be read.
    pub re: Option<RequestId>,
    /// The problem, the field, and the expected value.
    pub message: String,
    /// Whether the body is not a JSON object at all: three of these in a row close the connection (1007).
    pub malformed: bool,
    /// Whether the only problem is an unknown `type`: it comes from a newer peer, and a client ignores it.
    pub unknown_type: bool,
}

impl Invalid {
    /// An invalid field; the message names the field and what is expected.
    pub fn field(message: impl Into<String>) -> Self {
        Self { re: None, message: cut(message.into()), malformed: false, unknown_type: false }
    }

    pub(crate) fn unknown_type(kind: &str) -> Self {
        let kind: String = kind.chars().take(64).flat_map(char::escape_debug).collect();
        Self { unknown_type: true, ..Self::field(format!("type: \"{kind}\" is not known")) }
    }

    pub(crate) fn malformed(message: impl Into<String>) -> Self {
        Self { malformed: true, ..Self::field(message) }
    }
}

/// Truncates an error text, which may repeat parts of the peer's message.
fn cut(mut message: String) -> String {
    if let Some((end, _)) = message.char_indices().nth(MAX_INVALID_CHARS) {
        message.truncate(end);
        message.push_str("...");
    }
    message
}

/// The `id` of a request, repeated as `re` in every reply to it: 1 to 64 bytes of text, or a 53-bit unsigned integer.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
#[serde(untagged)]
pub enum RequestId {
    /// An integer of at most [`MAX_INTEGER`].
    Number(u64),
    /// Text of 1 to [`MAX_ID_BYTES`] bytes.
    Text(Box<str>),
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Text(text) => text.fmt(f),
        }
    }
}

impl RequestId {
    /// Creates an id from text, if it is within bounds.
    ///
    /// # Errors
    /// [`Invalid`] names the field and its bounds.
    pub fn text(text: &str) -> Result<Self, Invalid> {
        if (1..=MAX_ID_BYTES).contains(&text.len()) { Ok(Self::Text(text.into())) } else { Err(Self::out_of_bounds()) }
    }

    fn out_of_bounds() -> Invalid {
        Invalid::field(format!("id: text of 1 to {MAX_ID_BYTES} bytes or an unsigned 53-bit integer is allowed"))
    }

    pub(crate) fn from_scalar(scalar: &Scalar<'_>) -> Result<Option<Self>, Invalid> {
        match scalar {
            Scalar::Absent => Ok(None),
            Scalar::Text(text) => Self::text(text).map(Some),
            Scalar::Integer(number) if *number <= MAX_INTEGER => Ok(Some(Self::Number(*number))),
            _ => Err(Self::out_of_bounds()),
        }
    }
}

/// A topic's name: levels of `A-Z a-z 0-9 _ -` separated by `.`, 1 to 255 bytes in total.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct TopicName(Box<str>);

impl TopicName {
    /// Creates a topic name, if it is valid.
    ///
    /// # Errors
    /// [`Invalid`] names the field and its bounds.
    pub fn new(name: &str) -> Result<Self, Invalid> {
        if name.len() > MAX_TOPIC_BYTES || !name.split('.').all(is_level) {
            return Err(Invalid::field(format!(
                "topic: use A-Z a-z 0-9 _ -, with dots between levels, at most {MAX_TOPIC_BYTES} bytes"
            )));
        }
        Ok(Self(name.into()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A topic, or a pattern in which `*` matches one level and a final `>` one or more levels.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct TopicPattern(Box<str>);

impl TopicPattern {
    /// Creates a pattern, if it is valid.
    ///
    /// # Errors
    /// [`Invalid`] names the field and its bounds.
    pub fn new(pattern: &str) -> Result<Self, Invalid> {
        let levels = pattern.strip_suffix(".>").or_else(|| (pattern == ">").then_some("*")).unwrap_or(pattern);
        if pattern.len() > MAX_TOPIC_BYTES || !levels.split('.').all(|level| level == "*" || is_level(level)) {
            return Err(Invalid::field(format!(
                "topic: use A-Z a-z 0-9 _ - or * (one level), with dots between levels and > (all below) only at the \
                 end, at most {MAX_TOPIC_BYTES} bytes"
            )));
        }
        Ok(Self(pattern.into()))
    }

    /// The pattern as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it can match more than one topic.
    pub fn is_wildcard(&self) -> bool {
        self.0.split('.').any(|level| matches!(level, "*" | ">"))
    }

    /// Whether it matches a topic. Compares level by level and allocates nothing.
    pub fn matches(&self, topic: &str) -> bool {
        let mut levels = topic.split('.');
        for wanted in self.0.split('.') {
            match (wanted, levels.next()) {
                // Always the last level.
                (">", Some(_)) => return true,
                ("*", Some(_)) => {}
                (wanted, Some(level)) if wanted == level => {}
                _ => return false,
            }
        }
        levels.next().is_none()
    }

    /// Whether it matches every topic that the other one matches.
    pub fn covers(&self, other: &Self) -> bool {
        self.covers_text(&other.0)
    }

    /// Like [`covers`](Self::covers), for the text of a topic or pattern.
    pub fn covers_text(&self, other: &str) -> bool {
        // A final `>` matches any number of levels, so only another one covers it.
        self.matches(other) && (!other.ends_with('>') || self.0.ends_with('>'))
    }

    /// The pattern that matches every topic: `>`.
    pub fn everything() -> Self {
        Self(">".into())
    }
}

impl std::borrow::Borrow<str> for TopicPattern {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl From<TopicName> for TopicPattern {
    fn from(topic: TopicName) -> Self {
        Self(topic.0)
    }
}

fn is_level(level: &str) -> bool {
    !level.is_empty() && level.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'))
}

/// A publisher's idempotency key: 1 to 128 bytes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
#[serde(transparent)]
pub struct IdempotencyKey(Box<str>);

impl IdempotencyKey {
    /// Creates a key, if it is within bounds.
    ///
    /// # Errors
    /// [`Invalid`] names the field and its bounds.
    pub fn new(key: &str) -> Result<Self, Invalid> {
        if !(1..=MAX_KEY_BYTES).contains(&key.len()) {
            return Err(Invalid::field(format!("key: 1 to {MAX_KEY_BYTES} bytes are allowed")));
        }
        Ok(Self(key.into()))
    }

    /// The key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_and_patterns_accept_only_their_alphabet() {
        for good in ["a", "a.b", "A-Z_9.x", &"x".repeat(255)] {
            assert!(TopicName::new(good).is_ok(), "{good} is a topic");
        }
        for bad in ["", ".", "a.", ".a", "a..b", "a b", "ä", "a.*", ">", &"x".repeat(256)] {
            assert!(TopicName::new(bad).is_err(), "{bad} is not a topic");
        }
        for good in ["*", ">", "a.*", "*.b", "a.>", "a.*.>", "a"] {
            assert!(TopicPattern::new(good).is_ok(), "{good} is a pattern");
        }
        for bad in ["", ">.a", "a.>.b", "a*", "a.>>", ".>", "a..>"] {
            assert!(TopicPattern::new(bad).is_err(), "{bad} is not a pattern");
        }
        assert!(TopicPattern::new("a.>").is_ok_and(|p| p.is_wildcard()));
        assert!(TopicPattern::new("a.b").is_ok_and(|p| !p.is_wildcard()));
    }

    #[test]
    fn a_pattern_matches_whole_levels_and_a_final_wildcard_all_below() {
        let matches = |pattern: &str, topic: &str| TopicPattern::new(pattern).is_ok_and(|p| p.matches(topic));
        for (pattern, topic) in [
            ("a", "a"),
            ("a.b", "a.b"),
            ("*", "a"),
            ("a.*", "a.b"),
            ("*.b", "a.b"),
            ("a.*.c", "a.b.c"),
            (">", "a"),
            (">", "a.b.c"),
            ("a.>", "a.b"),
            ("a.>", "a.b.c"),
            ("*.>", "a.b"),
            ("a.*.>", "a.b.c.d"),
        ] {
            assert!(matches(pattern, topic), "{pattern} matches {topic}");
        }
        for (pattern, topic) in [
            ("a", "b"),
            ("a", "a.b"),
            ("a.b", "a"),
            ("a", "A"),
            ("a", "ab"),
            ("*", "a.b"),
            ("a.*", "a"),
            ("a.*", "a.b.c"),
            ("*.b", "a.c"),
            ("a.>", "a"),
            ("a.>", "ab.c"),
            ("*.>", "a"),
            ("a.*.>", "a.b"),
        ] {
            assert!(!matches(pattern, topic), "{pattern} does not match {topic}");
        }
    }

    #[test]
    fn a_pattern_covers_patterns_no_wider_than_itself() {
        let covers = |one: &str, other: &str| {
            TopicPattern::new(one).expect("a pattern").covers(&TopicPattern::new(other).expect("a pattern"))
        };
        for (one, other) in
            [(">", ">"), (">", "*"), ("a.>", "a.*"), ("a.>", "a.b.>"), ("*.>", "a.>"), ("*", "*"), ("*", "a")]
        {
            assert!(covers(one, other), "{one} covers {other}");
        }
        for (one, other) in [("a", "*"), ("a.*", "a.>"), ("*", ">"), ("a.b.>", "a.>"), ("a.*.>", "a.>"), ("a.b", "a.*")]
        {
            assert!(!covers(one, other), "{one} does not cover {other}");
        }
    }
}
