//! Encoding and decoding of a client's messages.

mod parts;
mod source;
mod subscribe;

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};
use bytestring::ByteString;
use serde::Deserialize;

pub(super) use self::parts::{bounded, optional_choice, payload};
use self::parts::{close, compression, page, positions, put_recipient, session, topic_with_members, version};
pub(super) use self::source::Source;
use self::source::{Common, Fields};
use super::request::{cancelled, recipient};
use super::{Ack, AckOutcome, Answer, Call, CallTarget, ClientMessage, Handshake, Position, Request, Subscribe};
use crate::frame::{Body, put_frame};
use crate::message::fields::{self, Scalar, required};
use crate::message::flat::Flat;
use crate::message::json::Object;
use crate::message::{
    ClientName, DEFAULT_PAGE, IdempotencyKey, Invalid, Json, MAX_INTEGER, MAX_PAGE, RequestId, Session, Token,
    mend_names,
};

/// Adds the request's id to an error about its body, if the id is readable although another field is not.
fn with_id(invalid: Invalid, json: &str) -> Invalid {
    #[derive(Deserialize)]
    struct Id<'a> {
        #[serde(borrow, default)]
        id: Scalar<'a>,
    }
    if invalid.malformed {
        return invalid;
    }
    let read = fields::read::<Id<'_>>(json).and_then(|fields| RequestId::from_scalar(&fields.id));
    Invalid { re: read.ok().flatten(), ..invalid }
}

impl Request {
    /// Decodes a client's message.
    ///
    /// # Errors
    /// [`Invalid`] describes the problem, and whether the body was JSON at all.
    pub fn parse(body: &Body) -> Result<Self, Invalid> {
        Self::from_body(body.clone())
    }

    /// Like [`parse`](Self::parse), for a body that is not needed any more: counts fewer references to its memory.
    ///
    /// # Errors
    /// The same.
    pub fn from_body(body: Body) -> Result<Self, Invalid> {
        let Body { json, attachment } = body;
        let json = fields::text(json)?;
        let has_attachment = attachment.is_some();
        let mut request = match Self::read_flat(&json, has_attachment) {
            Some(request) => request,
            None => Self::read_any(&json, has_attachment)?,
        };
        if let Some(bytes) = attachment {
            request.message.attach(bytes);
        }
        Ok(request)
    }

    /// Reads a valid message of the common shape, without its attachment.
    fn read_flat(json: &ByteString, has_attachment: bool) -> Option<Self> {
        let mut fields = Common::from(Flat::read(json)?);
        let id = RequestId::from_scalar(&fields.scalar("id")).ok()?;
        let message = ClientMessage::from_fields(&mut fields, json, has_attachment).ok()?;
        (!fields.is_structured).then_some(Self { id, message }).filter(|request| request.check_id().is_ok())
    }

    /// Reads any message without its attachment, or describes what is wrong with it.
    fn read_any(json: &ByteString, has_attachment: bool) -> Result<Self, Invalid> {
        match Self::read(json, has_attachment) {
            // Names of unknown fields may contain anything.
            Err(invalid) if !invalid.malformed => match mend_names(json) {
                Some(mended) => Self::read(&mended.into(), has_attachment),
                None => Err(invalid),
            },
            read => read,
        }
    }

    fn read(json: &ByteString, has_attachment: bool) -> Result<Self, Invalid> {
        let mut fields: Fields<'_> = fields::read(json).map_err(|invalid| with_id(invalid, json))?;
        let id = RequestId::from_scalar(&fields.scalar("id"))?;
        match ClientMessage::from_fields(&mut fields, json, has_attachment) {
            Ok(message) => {
                let request = Self { id, message };
                request.check_id().map(|()| request)
            }
            Err(invalid) => Err(Invalid { re: id, ..invalid }),
        }
    }

    /// Refuses a message that needs an id and has none.
    fn check_id(&self) -> Result<(), Invalid> {
        match &self.message {
            ClientMessage::Request(_) => required(self.id.as_ref().map(|_| ()), "id"),
            _ => Ok(()),
        }
    }

    /// Whether a body claims to be of this type, whatever else is wrong with it.
    pub fn is_of_type(body: &Body, kind: &str) -> bool {
        #[derive(Deserialize)]
        struct Kind<'a> {
            #[serde(borrow, default, rename = "type")]
            kind: Scalar<'a>,
        }
        let is_of = |json: &str| {
            fields::read::<Kind<'_>>(json).is_ok_and(|f| matches!(f.kind, Scalar::Text(text) if text == kind))
        };
        let Ok(json) = fields::text(body.json.clone()) else { return false };
        is_of(&json) || mend_names(&json).is_some_and(|mended| is_of(&mended))
    }

    /// Appends the frame of this message.
    pub fn encode(&self, out: &mut BytesMut) {
        self.message.encode(self.id.as_ref(), out);
    }
}

impl From<ClientMessage> for Request {
    fn from(message: ClientMessage) -> Self {
        Self { id: None, message }
    }
}

impl ClientMessage {
    /// The message's `type` on the wire.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Handshake(_) => "handshake",
            Self::Text { .. } => "text",
            Self::Binary { .. } => "binary",
            Self::Broadcast(_) => "broadcast",
            Self::Direct { .. } => "direct",
            Self::Signal { .. } => "signal",
            Self::Request(_) => "request",
            Self::Reply(_) => "reply",
            Self::Cancel { .. } => "cancel",
            Self::Ping { .. } => "ping",
            Self::Pong => "pong",
            Self::ListClients { .. } => "list_clients",
            Self::Subscribe(_) => "subscribe",
            Self::Ack(_) => "ack",
            Self::Unsubscribe { .. } => "unsubscribe",
            Self::Publish { .. } => "publish",
            Self::History { .. } => "history",
            Self::Presence { .. } => "presence",
            Self::State { .. } => "state",
            Self::Refresh { .. } => "refresh",
            Self::Close(_) => "close",
        }
    }

    /// Reads a message whose attachment, if it has one, is still to be [attached](Self::attach).
    fn from_fields<'a>(f: &mut impl Source<'a>, json: &ByteString, has_attachment: bool) -> Result<Self, Invalid> {
        let kind = required(f.text("type")?, "type")?;
        let carries_attachment = matches!(&*kind, "binary" | "broadcast" | "direct" | "publish" | "request" | "reply");
        if has_attachment && !carries_attachment {
            return Err(Invalid::field("attachment: a message of this type carries none; send the JSON object alone"));
        }
        Ok(match &*kind {
            "handshake" => Self::Handshake(Handshake {
                protocol_version: version(f.scalar("protocol_version"))?,
                client_name: f.text("client_name")?.map(|name| ClientName::new(&name)).transpose()?,
                token: f.text("token")?.map(|token| Token::new(&token)).transpose()?,
                compression: compression(f.raw("compression"))?,
                requests: f.boolean("requests")?.unwrap_or(false),
                resume: session(f, "resume")?,
                attach: session(f, "attach")?,
                since: positions(f.raw("since"))?,
            }),
            "text" => Self::Text { content: required(f.scalar("content").shared_text("content", json)?, "content")? },
            "binary" => {
                required(has_attachment.then_some(()), "attachment")?;
                Self::Binary { attachment: Bytes::new() }
            }
            "broadcast" => Self::Broadcast(payload(f, json, has_attachment)?),
            "direct" => Self::Direct { to: recipient(f)?, payload: payload(f, json, has_attachment)? },
            "signal" => Self::Signal { to: recipient(f)?, data: Json::shared(required(f.raw("data"), "data")?, json) },
            "request" => Self::Request(Box::new(Call::read(f, json, has_attachment)?)),
            "reply" => Self::Reply(Box::new(Answer::read(f, json, has_attachment)?)),
            "cancel" => Self::Cancel { re: cancelled(&f.scalar("re"))? },
            "ping" => Self::Ping { timestamp: f.integer("timestamp")? },
            "pong" => Self::Pong,
            "list_clients" => {
                Self::ListClients { limit: page(f.scalar("limit"), DEFAULT_PAGE)?, after: f.uuid("after")? }
            }
            "subscribe" => {
                let subscribe = Subscribe::read(f, json)?;
                subscribe.check()?;
                Self::Subscribe(subscribe)
            }
            "ack" => Self::Ack(Ack::read(f)?),
            "unsubscribe" => Self::Unsubscribe { topic: f.pattern()?, forget: f.boolean("forget")?.unwrap_or(false) },
            "publish" => Self::Publish {
                topic: f.topic()?,
                payload: payload(f, json, has_attachment)?,
                key: f.text("key")?.map(|key| IdempotencyKey::new(&key)).transpose()?,
                ttl_ms: {
                    let ttl_ms = f.integer("ttl_ms")?;
                    bounded(ttl_ms, "ttl_ms", &(1..=MAX_INTEGER))?;
                    ttl_ms
                },
            },
            "history" => {
                let topic = f.topic()?;
                let since = fields::position(f.raw("since"), "since")?;
                let since_time = f.integer("since_time")?;
                if since.is_some() && since_time.is_some() {
                    return Err(Invalid::field("since_time: not together with since; send one of them"));
                }
                let (limit, reverse) = (page(f.scalar("limit"), DEFAULT_PAGE)?, f.boolean("reverse")?.unwrap_or(false));
                Self::History { topic, since, since_time, limit, reverse }
            }
            "presence" => Self::Presence {
                topic: topic_with_members(f)?,
                limit: page(f.scalar("limit"), MAX_PAGE)?,
                after: f.uuid("after")?,
                counts: f.boolean("counts")?.unwrap_or(false),
            },
            "state" => {
                Self::State { topic: topic_with_members(f)?, state: f.raw("state").map(|raw| Json::shared(raw, json)) }
            }
            "refresh" => Self::Refresh { token: Token::new(&required(f.text("token")?, "token")?)? },
            "close" => Self::Close(close(f.scalar("code"), f.scalar("reason"))?),
            other => return Err(Invalid::unknown_type(other)),
        })
    }

    /// Adds the attachment to a message that may have one.
    fn attach(&mut self, bytes: Bytes) {
        match self {
            Self::Binary { attachment } => *attachment = bytes,
            Self::Broadcast(payload) | Self::Direct { payload, .. } | Self::Publish { payload, .. } => {
                payload.attachment = Some(bytes);
            }
            Self::Request(call) => call.payload.attachment = Some(bytes),
            Self::Reply(answer) => answer.payload.attachment = Some(bytes),
            // `from_fields` refuses it.
            _ => {}
        }
    }

    /// Appends this message's frame, with `id` as its request id.
    pub fn encode(&self, id: Option<&RequestId>, out: &mut BytesMut) {
        let attachment = match self {
            Self::Binary { attachment } => Some(attachment),
            Self::Broadcast(payload) | Self::Direct { payload, .. } | Self::Publish { payload, .. } => {
                payload.attachment.as_ref()
            }
            Self::Request(call) => call.payload.attachment.as_ref(),
            Self::Reply(answer) => answer.payload.attachment.as_ref(),
            _ => None,
        };
        put_frame(out, attachment.map(|bytes| &bytes[..]), |out| self.encode_json(id, out));
    }

    fn encode_json(&self, id: Option<&RequestId>, out: &mut BytesMut) {
        let mut o = Object::message(out, self.type_name());
        o.optional("id", id);
        match self {
            Self::Handshake(handshake) => {
                o.text("protocol_version", &handshake.protocol_version);
                o.optional_text("client_name", handshake.client_name.as_ref().map(ClientName::as_str));
                o.optional_text("token", handshake.token.as_ref().map(Token::as_str));
                let offered: Vec<_> = handshake.compression.names().collect();
                o.optional("compression", (!offered.is_empty()).then_some(&offered));
                if handshake.requests {
                    o.boolean("requests", true);
                }
                o.optional_text("resume", handshake.resume.as_ref().map(Session::as_str));
                o.optional_text("attach", handshake.attach.as_ref().map(Session::as_str));
                let since: BTreeMap<&str, &Position> =
                    handshake.since.iter().map(|(topic, position)| (topic.as_str(), position)).collect();
                o.optional("since", Some(&since).filter(|since| !since.is_empty()));
            }
            Self::Text { content } => o.text("content", content),
            Self::Binary { .. } | Self::Pong => {}
            Self::Broadcast(payload) => o.payload(payload),
            Self::Direct { to, payload } => {
                put_recipient(&mut o, to);
                o.payload(payload);
            }
            Self::Signal { to, data } => {
                put_recipient(&mut o, to);
                o.json("data", data);
            }
            Self::Request(call) => {
                match &call.to {
                    CallTarget::Topic(topic) => o.text("topic", topic.as_str()),
                    CallTarget::Recipient(to) => put_recipient(&mut o, to),
                }
                o.payload(&call.payload);
                o.optional_integer("timeout_ms", call.timeout_ms);
            }
            Self::Reply(answer) => {
                o.text("request", answer.request.as_str());
                o.payload(&answer.payload);
                if let Some(failure) = &answer.failure {
                    o.text("error", &failure.message);
                    o.integer("code", failure.code.into());
                }
            }
            Self::Cancel { re } => o.value("re", re),
            Self::Ping { timestamp } => o.optional_integer("timestamp", *timestamp),
            Self::ListClients { limit, after } => {
                o.integer("limit", *limit);
                o.optional("after", after.as_ref());
            }
            Self::Subscribe(subscribe) => subscribe.put(&mut o),
            Self::Ack(ack) => {
                o.text("topic", ack.topic.as_str());
                o.text("durable", ack.durable.as_str());
                match ack.offsets.as_slice() {
                    [offset] => o.integer("offset", *offset),
                    offsets => o.value("offsets", offsets),
                }
                if ack.outcome != AckOutcome::Done {
                    o.text("outcome", ack.outcome.as_str());
                }
                if let AckOutcome::Retry { delay_ms } = ack.outcome {
                    o.optional_integer("delay_ms", delay_ms);
                }
            }
            Self::Unsubscribe { topic, forget } => {
                o.text("topic", topic.as_str());
                if *forget {
                    o.boolean("forget", true);
                }
            }
            Self::Publish { topic, payload, key, ttl_ms } => {
                o.text("topic", topic.as_str());
                o.payload(payload);
                o.optional_text("key", key.as_ref().map(IdempotencyKey::as_str));
                o.optional_integer("ttl_ms", *ttl_ms);
            }
            Self::History { topic, since, since_time, limit, reverse } => {
                o.text("topic", topic.as_str());
                o.optional("since", since.as_ref());
                o.optional_integer("since_time", *since_time);
                o.integer("limit", *limit);
                o.boolean("reverse", *reverse);
            }
            Self::Presence { topic, limit, after, counts } => {
                o.text("topic", topic.as_str());
                o.optional_integer("limit", Some(*limit).filter(|&limit| limit != MAX_PAGE));
                o.optional("after", after.as_ref());
                if *counts {
                    o.boolean("counts", true);
                }
            }
            Self::State { topic, state } => {
                o.text("topic", topic.as_str());
                o.optional_json("state", state.as_ref());
            }
            Self::Refresh { token } => o.text("token", token.as_str()),
            Self::Close(close) => {
                o.integer("code", close.code().0.into());
                o.text("reason", close.reason());
            }
        }
        o.end();
    }
}

#[cfg(test)]
mod tests;
