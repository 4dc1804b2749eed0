//! The fields of a client's message: either of one of the common shape, or of any object.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::message::fields::{self, Scalar, required};
use crate::message::flat::Flat;
use crate::message::{Invalid, TopicName, TopicPattern};

/// Every field of any client message, unchecked.
#[derive(Deserialize)]
pub(super) struct Fields<'a> {
    #[serde(borrow, default, rename = "type")]
    kind: Scalar<'a>,
    #[serde(borrow, default)]
    id: Scalar<'a>,
    #[serde(borrow, default)]
    content: Scalar<'a>,
    #[serde(borrow, default)]
    to: Scalar<'a>,
    #[serde(borrow, default, deserialize_with = "fields::even_null")]
    data: Option<&'a RawValue>,
    #[serde(borrow, default)]
    timestamp: Scalar<'a>,
    #[serde(borrow, default)]
    protocol_version: Scalar<'a>,
    #[serde(borrow, default)]
    client_name: Scalar<'a>,
    #[serde(borrow, default)]
    token: Scalar<'a>,
    #[serde(borrow, default)]
    compression: Option<&'a RawValue>,
    #[serde(borrow, default)]
    limit: Scalar<'a>,
    #[serde(borrow, default)]
    after: Scalar<'a>,
    #[serde(borrow, default)]
    topic: Scalar<'a>,
    #[serde(borrow, default)]
    since: Option<&'a RawValue>,
    #[serde(borrow, default)]
    since_time: Scalar<'a>,
    #[serde(borrow, default)]
    durable: Scalar<'a>,
    #[serde(borrow, default)]
    share: Scalar<'a>,
    #[serde(borrow, default)]
    ack: Scalar<'a>,
    #[serde(borrow, default)]
    ack_wait_ms: Scalar<'a>,
    #[serde(borrow, default)]
    max_in_flight: Scalar<'a>,
    #[serde(borrow, default)]
    max_deliver: Scalar<'a>,
    #[serde(borrow, default)]
    offset: Scalar<'a>,
    #[serde(borrow, default)]
    outcome: Scalar<'a>,
    #[serde(borrow, default)]
    delay_ms: Scalar<'a>,
    #[serde(borrow, default)]
    forget: Scalar<'a>,
    #[serde(borrow, default)]
    meta: Option<&'a RawValue>,
    #[serde(borrow, default)]
    state: Option<&'a RawValue>,
    #[serde(borrow, default)]
    filter: Option<&'a RawValue>,
    #[serde(borrow, default)]
    offsets: Option<&'a RawValue>,
    #[serde(borrow, default)]
    recent: Scalar<'a>,
    #[serde(borrow, default)]
    delivery: Scalar<'a>,
    #[serde(borrow, default)]
    lane: Scalar<'a>,
    #[serde(borrow, default)]
    presence: Scalar<'a>,
    #[serde(borrow, default)]
    key: Scalar<'a>,
    #[serde(borrow, default)]
    reverse: Scalar<'a>,
    #[serde(borrow, default)]
    code: Scalar<'a>,
    #[serde(borrow, default)]
    user: Scalar<'a>,
    #[serde(borrow, default)]
    timeout_ms: Scalar<'a>,
    #[serde(borrow, default)]
    re: Scalar<'a>,
    #[serde(borrow, default)]
    request: Scalar<'a>,
    #[serde(borrow, default)]
    error: Scalar<'a>,
    #[serde(borrow, default)]
    ttl_ms: Scalar<'a>,
    #[serde(borrow, default)]
    requests: Scalar<'a>,
    #[serde(borrow, default)]
    max_rate: Scalar<'a>,
    #[serde(borrow, default)]
    echo: Scalar<'a>,
    #[serde(borrow, default)]
    counts: Scalar<'a>,
    #[serde(borrow, default)]
    resume: Scalar<'a>,
    #[serde(borrow, default)]
    attach: Scalar<'a>,
    #[serde(borrow, default)]
    reason: Scalar<'a>,
}

/// The fields of a message, each of which is taken at most once.
pub(in crate::message::client) trait Source<'a> {
    /// The value of a field that is not structured.
    fn scalar(&mut self, name: &'static str) -> Scalar<'a>;

    /// The value of a structured field.
    fn raw(&mut self, name: &'static str) -> Option<&'a RawValue>;

    /// Whether a field that is not structured is there and not `null`.
    fn has(&mut self, name: &'static str) -> bool;

    fn text(&mut self, name: &'static str) -> Result<Option<Cow<'a, str>>, Invalid> {
        self.scalar(name).text(name)
    }

    fn integer(&mut self, name: &'static str) -> Result<Option<u64>, Invalid> {
        self.scalar(name).integer(name)
    }

    fn boolean(&mut self, name: &'static str) -> Result<Option<bool>, Invalid> {
        self.scalar(name).boolean(name)
    }

    fn uuid(&mut self, name: &'static str) -> Result<Option<Uuid>, Invalid> {
        self.scalar(name).uuid(name)
    }

    fn topic(&mut self) -> Result<TopicName, Invalid> {
        TopicName::new(&required(self.text("topic")?, "topic")?)
    }

    fn pattern(&mut self) -> Result<TopicPattern, Invalid> {
        TopicPattern::new(&required(self.text("topic")?, "topic")?)
    }
}

impl<'a> Fields<'a> {
    /// A field that is not structured.
    fn field(&mut self, name: &'static str) -> Option<&mut Scalar<'a>> {
        Some(match name {
            "type" => &mut self.kind,
            "id" => &mut self.id,
            "content" => &mut self.content,
            "to" => &mut self.to,
            "timestamp" => &mut self.timestamp,
            "protocol_version" => &mut self.protocol_version,
            "client_name" => &mut self.client_name,
            "token" => &mut self.token,
            "limit" => &mut self.limit,
            "after" => &mut self.after,
            "topic" => &mut self.topic,
            "since_time" => &mut self.since_time,
            "durable" => &mut self.durable,
            "share" => &mut self.share,
            "ack" => &mut self.ack,
            "ack_wait_ms" => &mut self.ack_wait_ms,
            "max_in_flight" => &mut self.max_in_flight,
            "max_deliver" => &mut self.max_deliver,
            "offset" => &mut self.offset,
            "outcome" => &mut self.outcome,
            "delay_ms" => &mut self.delay_ms,
            "forget" => &mut self.forget,
            "recent" => &mut self.recent,
            "delivery" => &mut self.delivery,
            "lane" => &mut self.lane,
            "presence" => &mut self.presence,
            "key" => &mut self.key,
            "reverse" => &mut self.reverse,
            "code" => &mut self.code,
            "user" => &mut self.user,
            "timeout_ms" => &mut self.timeout_ms,
            "re" => &mut self.re,
            "request" => &mut self.request,
            "error" => &mut self.error,
            "ttl_ms" => &mut self.ttl_ms,
            "requests" => &mut self.requests,
            "max_rate" => &mut self.max_rate,
            "echo" => &mut self.echo,
            "counts" => &mut self.counts,
            "resume" => &mut self.resume,
            "attach" => &mut self.attach,
            "reason" => &mut self.reason,
            _ => return None,
        })
    }
}

impl<'a> Source<'a> for Fields<'a> {
    fn scalar(&mut self, name: &'static str) -> Scalar<'a> {
        self.field(name).map(std::mem::take).unwrap_or_default()
    }

    fn has(&mut self, name: &'static str) -> bool {
        self.field(name).is_some_and(|field| !matches!(field, Scalar::Absent))
    }

    fn raw(&mut self, name: &'static str) -> Option<&'a RawValue> {
        match name {
            "data" => self.data,
            "compression" => self.compression,
            "since" => self.since,
            "meta" => self.meta,
            "state" => self.state,
            "filter" => self.filter,
            "offsets" => self.offsets,
            _ => None,
        }
    }
}

/// The fields of a message of the common shape.
pub(super) struct Common<'a> {
    flat: Flat<'a>,
    /// Whether the message has a structured field that it uses, and so is not of the common shape after all.
    pub(super) is_structured: bool,
}

impl<'a> From<Flat<'a>> for Common<'a> {
    fn from(flat: Flat<'a>) -> Self {
        Self { flat, is_structured: false }
    }
}

impl<'a> Source<'a> for Common<'a> {
    fn scalar(&mut self, name: &'static str) -> Scalar<'a> {
        self.flat.take(name)
    }

    fn has(&mut self, name: &'static str) -> bool {
        self.flat.has(name)
    }

    fn raw(&mut self, name: &'static str) -> Option<&'a RawValue> {
        let raw = self.flat.raw(name);
        self.is_structured |= raw.is_none() && self.flat.has(name);
        // `null` is a value of `data` alone.
        raw.filter(|raw| name == "data" || raw.get() != "null")
    }
}
