//! Encoding and decoding of a client's messages.

use std::borrow::Cow;

use bytes::BytesMut;
use bytestring::ByteString;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{ClientMessage, Close, DeliveryMode, Handshake, LaneChoice, Request, Subscribe};
use crate::frame::{Body, put_frame};
use crate::message::fields::{self, Scalar, required, structured};
use crate::message::json::Object;
use crate::message::{
    ClientName, CloseCode, DEFAULT_PAGE, IdempotencyKey, Invalid, MAX_PAGE, Payload, RequestId, Token, TopicName,
    TopicPattern, mend_names,
};

/// Every field of any client message, unchecked.
#[derive(Deserialize)]
struct Fields<'a> {
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
    reason: Scalar<'a>,
}

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
        let json = fields::text(&body.json)?;
        match Self::read(&json, body) {
            // Names of unknown fields may contain anything.
            Err(invalid) if !invalid.malformed => match mend_names(&json) {
                Some(mended) => Self::read(&mended.into(), body),
                None => Err(invalid),
            },
            read => read,
        }
    }

    fn read(json: &ByteString, body: &Body) -> Result<Self, Invalid> {
        let fields: Fields<'_> = fields::read(json).map_err(|invalid| with_id(invalid, json))?;
        let id = RequestId::from_scalar(&fields.id)?;
        match ClientMessage::from_fields(fields, json, body) {
            Ok(message) => Ok(Self { id, message }),
            Err(invalid) => Err(Invalid { re: id, ..invalid }),
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
        let Ok(json) = fields::text(&body.json) else { return false };
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
            Self::Ping { .. } => "ping",
            Self::Pong => "pong",
            Self::ListClients { .. } => "list_clients",
            Self::Subscribe(_) => "subscribe",
            Self::Unsubscribe { .. } => "unsubscribe",
            Self::Publish { .. } => "publish",
            Self::History { .. } => "history",
            Self::Presence { .. } => "presence",
            Self::Refresh { .. } => "refresh",
            Self::Close(_) => "close",
        }
    }

    fn from_fields(f: Fields<'_>, json: &ByteString, body: &Body) -> Result<Self, Invalid> {
        let kind = required(f.kind.text("type")?, "type")?;
        let carries_attachment = matches!(&*kind, "binary" | "broadcast" | "direct" | "publish");
        if body.attachment.is_some() && !carries_attachment {
            return Err(Invalid::field("attachment: a message of this type carries none; send the JSON object alone"));
        }
        let payload = |content: Scalar<'_>| -> Result<Payload, Invalid> {
            let content = content.shared_text("content", json)?;
            if content.is_none() && body.attachment.is_none() {
                return Err(Invalid::field("content: required here, unless the message has an attachment"));
            }
            Ok(Payload { content, attachment: body.attachment.clone() })
        };
        let topic = |topic: Scalar<'_>| TopicName::new(&required(topic.text("topic")?, "topic")?);
        let pattern = |topic: Scalar<'_>| TopicPattern::new(&required(topic.text("topic")?, "topic")?);
        Ok(match &*kind {
            "handshake" => Self::Handshake(Handshake {
                protocol_version: version(f.protocol_version)?,
                client_name: f.client_name.text("client_name")?.map(|name| ClientName::new(&name)).transpose()?,
                token: f.token.text("token")?.map(|token| Token::new(&token)).transpose()?,
                zstd: structured::<Vec<Cow<'_, str>>>(f.compression, "compression")?
                    .is_some_and(|offered| offered.iter().any(|name| name == "zstd")),
            }),
            "text" => Self::Text { content: required(f.content.shared_text("content", json)?, "content")? },
            "binary" => Self::Binary { attachment: required(body.attachment.clone(), "attachment")? },
            "broadcast" => Self::Broadcast(payload(f.content)?),
            "direct" => Self::Direct { to: required(f.to.uuid("to")?, "to")?, payload: payload(f.content)? },
            "signal" => {
                Self::Signal { to: required(f.to.uuid("to")?, "to")?, data: required(f.data, "data")?.to_owned() }
            }
            "ping" => Self::Ping { timestamp: f.timestamp.integer("timestamp")? },
            "pong" => Self::Pong,
            "list_clients" => Self::ListClients { limit: page(f.limit)?, after: f.after.uuid("after")? },
            "subscribe" => {
                let topic = pattern(f.topic)?;
                let since = fields::position(f.since, "since")?;
                if topic.is_wildcard() && since.is_some() {
                    return Err(Invalid::field("since: a pattern has no position; subscribe to each topic"));
                }
                Self::Subscribe(Subscribe {
                    topic,
                    since,
                    recent: f.recent.integer("recent")?,
                    delivery: choice(
                        f.delivery,
                        "delivery",
                        [("stream", DeliveryMode::Stream), ("datagram", DeliveryMode::Datagram)],
                    )?,
                    lane: choice(f.lane, "lane", [("own", LaneChoice::Own), ("control", LaneChoice::Control)])?,
                    presence: f.presence.boolean("presence")?.unwrap_or(false),
                })
            }
            "unsubscribe" => Self::Unsubscribe { topic: pattern(f.topic)? },
            "publish" => Self::Publish {
                topic: topic(f.topic)?,
                payload: payload(f.content)?,
                key: f.key.text("key")?.map(|key| IdempotencyKey::new(&key)).transpose()?,
            },
            "history" => Self::History {
                topic: topic(f.topic)?,
                since: fields::position(f.since, "since")?,
                limit: page(f.limit)?,
                reverse: f.reverse.boolean("reverse")?.unwrap_or(false),
            },
            "presence" => Self::Presence { topic: topic(f.topic)? },
            "refresh" => Self::Refresh { token: Token::new(&required(f.token.text("token")?, "token")?)? },
            "close" => Self::Close(close(f.code, f.reason)?),
            other => return Err(Invalid::unknown_type(other)),
        })
    }

    /// Appends this message's frame, with `id` as its request id.
    pub fn encode(&self, id: Option<&RequestId>, out: &mut BytesMut) {
        let attachment = match self {
            Self::Binary { attachment } => Some(attachment),
            Self::Broadcast(payload) | Self::Direct { payload, .. } | Self::Publish { payload, .. } => {
                payload.attachment.as_ref()
            }
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
                o.optional("compression", handshake.zstd.then_some(&["zstd"]));
            }
            Self::Text { content } => o.text("content", content),
            Self::Binary { .. } | Self::Pong => {}
            Self::Broadcast(payload) => o.optional_text("content", payload.content.as_deref()),
            Self::Direct { to, payload } => {
                o.uuid("to", *to);
                o.optional_text("content", payload.content.as_deref());
            }
            Self::Signal { to, data } => {
                o.uuid("to", *to);
                o.value("data", data);
            }
            Self::Ping { timestamp } => o.optional_integer("timestamp", *timestamp),
            Self::ListClients { limit, after } => {
                o.integer("limit", *limit);
                o.optional("after", after.as_ref());
            }
            Self::Subscribe(subscribe) => {
                o.text("topic", subscribe.topic.as_str());
                o.optional("since", subscribe.since.as_ref());
                o.optional_integer("recent", subscribe.recent);
                if subscribe.delivery == DeliveryMode::Datagram {
                    o.text("delivery", "datagram");
                }
                if subscribe.lane == LaneChoice::Control {
                    o.text("lane", "control");
                }
                if subscribe.presence {
                    o.boolean("presence", true);
                }
            }
            Self::Unsubscribe { topic } => o.text("topic", topic.as_str()),
            Self::Publish { topic, payload, key } => {
                o.text("topic", topic.as_str());
                o.optional_text("content", payload.content.as_deref());
                o.optional_text("key", key.as_ref().map(IdempotencyKey::as_str));
            }
            Self::History { topic, since, limit, reverse } => {
                o.text("topic", topic.as_str());
                o.optional("since", since.as_ref());
                o.integer("limit", *limit);
                o.boolean("reverse", *reverse);
            }
            Self::Presence { topic } => o.text("topic", topic.as_str()),
            Self::Refresh { token } => o.text("token", token.as_str()),
            Self::Close(close) => {
                o.integer("code", close.code().0.into());
                o.text("reason", close.reason());
            }
        }
        o.end();
    }
}

fn version(version: Scalar<'_>) -> Result<String, Invalid> {
    let version = required(version.text("protocol_version")?, "protocol_version")?;
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    match version.split_once('.') {
        Some((major, minor)) if is_number(major) && is_number(minor) => Ok(version.into()),
        _ => Err(Invalid::field("protocol_version: two numbers are expected, MAJOR.MINOR")),
    }
}

fn page(limit: Scalar<'_>) -> Result<u64, Invalid> {
    match limit.integer("limit")? {
        None => Ok(DEFAULT_PAGE),
        Some(limit @ 1..=MAX_PAGE) => Ok(limit),
        Some(_) => Err(Invalid::field(format!("limit: 1 to {MAX_PAGE} is allowed"))),
    }
}

fn choice<T: Default, const N: usize>(value: Scalar<'_>, field: &str, names: [(&str, T); N]) -> Result<T, Invalid> {
    let Some(text) = value.text(field)? else { return Ok(T::default()) };
    let allowed = names.each_ref().map(|(name, _)| *name).join(" or ");
    names
        .into_iter()
        .find_map(|(name, choice)| (name == text).then_some(choice))
        .ok_or_else(|| Invalid::field(format!("{field}: {allowed} is allowed")))
}

fn close(code: Scalar<'_>, reason: Scalar<'_>) -> Result<Close, Invalid> {
    let code = match code.integer("code")? {
        None => CloseCode::NORMAL,
        // A number outside `u16` is not a sendable code either.
        Some(number) => CloseCode(u16::try_from(number).unwrap_or(0)),
    };
    Close::new(code, reason.text("reason")?.unwrap_or_default())
}
