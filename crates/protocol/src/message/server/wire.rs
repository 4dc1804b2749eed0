//! Encoding and decoding of a server's messages.

use std::borrow::Cow;

use bytes::BytesMut;
use bytestring::ByteString;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::tail::put_tail;
use super::{Called, ClosedBy, ErrorReply, HandshakeReply, Replied, Reply, ServerMessage, Subscribed, TopicMessage};
use crate::frame::{Body, Compression, put_frame, put_head};
use crate::message::fields::{self, Scalar, required, structured};
use crate::message::json::Object;
use crate::message::{CloseCode, Failure, Invalid, Json, MAX_SERVER_NESTING, Payload, RequestId, Sender, Stored};

/// Every field of any server message, unchecked.
#[derive(Deserialize)]
struct Fields<'a> {
    #[serde(borrow, default, rename = "type")]
    kind: Scalar<'a>,
    #[serde(borrow, default)]
    re: Scalar<'a>,
    #[serde(borrow, default)]
    content: Scalar<'a>,
    #[serde(borrow, default)]
    from: Scalar<'a>,
    #[serde(borrow, default)]
    timestamp: Scalar<'a>,
    #[serde(borrow, default, deserialize_with = "fields::even_null")]
    data: Option<&'a RawValue>,
    #[serde(borrow, default)]
    accepted: Scalar<'a>,
    #[serde(borrow, default)]
    client_id: Scalar<'a>,
    #[serde(borrow, default)]
    server_name: Scalar<'a>,
    #[serde(borrow, default)]
    protocol_version: Scalar<'a>,
    #[serde(borrow, default)]
    reason: Scalar<'a>,
    #[serde(borrow, default)]
    limits: Option<&'a RawValue>,
    #[serde(borrow, default)]
    compression: Scalar<'a>,
    #[serde(borrow, default)]
    server_time: Scalar<'a>,
    #[serde(borrow, default)]
    clients: Option<&'a RawValue>,
    #[serde(borrow, default)]
    client: Option<&'a RawValue>,
    #[serde(borrow, default)]
    total: Scalar<'a>,
    #[serde(borrow, default)]
    next: Scalar<'a>,
    #[serde(borrow, default)]
    topic: Scalar<'a>,
    #[serde(borrow, default)]
    epoch: Scalar<'a>,
    #[serde(borrow, default)]
    offset: Scalar<'a>,
    #[serde(borrow, default)]
    recovered: Scalar<'a>,
    #[serde(borrow, default)]
    lane: Scalar<'a>,
    #[serde(borrow, default)]
    priority: Scalar<'a>,
    #[serde(borrow, default)]
    first: Scalar<'a>,
    #[serde(borrow, default)]
    last: Scalar<'a>,
    #[serde(borrow, default)]
    duplicate: Scalar<'a>,
    #[serde(borrow, default)]
    meta: Option<&'a RawValue>,
    #[serde(borrow, default)]
    info: Option<&'a RawValue>,
    #[serde(borrow, default)]
    subscriptions: Option<&'a RawValue>,
    #[serde(borrow, default)]
    messages: Option<&'a RawValue>,
    #[serde(borrow, default)]
    more: Scalar<'a>,
    #[serde(borrow, default)]
    delivered: Scalar<'a>,
    #[serde(borrow, default)]
    code: Scalar<'a>,
    #[serde(borrow, default)]
    message: Scalar<'a>,
    #[serde(borrow, default)]
    retry_after_ms: Scalar<'a>,
    #[serde(borrow, default)]
    reconnect_after_ms: Scalar<'a>,
    #[serde(borrow, default)]
    user: Scalar<'a>,
    #[serde(borrow, default)]
    client_name: Scalar<'a>,
    #[serde(borrow, default)]
    expires_at: Scalar<'a>,
    #[serde(borrow, default)]
    permissions: Option<&'a RawValue>,
    #[serde(borrow, default)]
    may_publish: Scalar<'a>,
    #[serde(borrow, default)]
    durable: Scalar<'a>,
    #[serde(borrow, default)]
    acked: Scalar<'a>,
    #[serde(borrow, default)]
    pending: Scalar<'a>,
    #[serde(borrow, default)]
    tries: Scalar<'a>,
    #[serde(borrow, default)]
    stored: Scalar<'a>,
    #[serde(borrow, default)]
    name: Scalar<'a>,
    #[serde(borrow, default)]
    timeout_ms: Scalar<'a>,
    #[serde(borrow, default)]
    request: Scalar<'a>,
    #[serde(borrow, default)]
    error: Scalar<'a>,
    #[serde(borrow, default)]
    session: Scalar<'a>,
    #[serde(borrow, default)]
    by: Scalar<'a>,
    #[serde(borrow, default)]
    users: Scalar<'a>,
    #[serde(borrow, default)]
    was: Scalar<'a>,
    #[serde(borrow, default)]
    inbox: Scalar<'a>,
}

impl Reply {
    /// Decodes a server's message.
    ///
    /// # Errors
    /// [`Invalid`] describes the problem; an unknown type is one.
    pub fn parse(body: &Body) -> Result<Self, Invalid> {
        let json = fields::text(body.json.clone())?;
        let fields: Fields<'_> = fields::read_within(&json, MAX_SERVER_NESTING)?;
        let re = RequestId::from_scalar(&fields.re)?;
        match ServerMessage::from_fields(fields, &json, body) {
            Ok(message) => Ok(Self { re, message }),
            Err(invalid) => Err(Invalid { re, ..invalid }),
        }
    }

    /// Appends the frame of this message.
    pub fn encode(&self, out: &mut BytesMut) {
        self.message.encode(self.re.as_ref(), out);
    }
}

impl ServerMessage {
    /// The message's `type` on the wire.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::HandshakeResponse(_) => "handshake_response",
            Self::Text { .. } => "text",
            Self::Binary { .. } => "binary",
            Self::Broadcast { .. } => "broadcast",
            Self::Direct { .. } => "direct",
            Self::Signal { .. } => "signal",
            Self::Request(_) => "request",
            Self::Reply(_) => "reply",
            Self::Cancel { .. } => "cancel",
            Self::Pong { .. } => "pong",
            Self::Ping { .. } => "ping",
            Self::ClientList { .. } => "client_list",
            Self::Subscribed(_) => "subscribed",
            Self::Lane { .. } => "lane",
            Self::Gap { .. } => "gap",
            Self::Unsubscribed { .. } => "unsubscribed",
            Self::Message(_) => "message",
            Self::Published { .. } => "published",
            Self::History { .. } => "history",
            Self::Presence { .. } => "presence",
            Self::Join { .. } => "join",
            Self::Leave { .. } => "leave",
            Self::State { .. } => "state",
            Self::Occupancy { .. } => "occupancy",
            Self::Return { .. } => "return",
            Self::Ok { .. } => "ok",
            Self::Error(_) => "error",
            Self::Expiring { .. } => "expiring",
            Self::Refreshed { .. } => "refreshed",
            Self::Close(_) => "close",
        }
    }

    fn from_fields(f: Fields<'_>, json: &ByteString, body: &Body) -> Result<Self, Invalid> {
        let kind = required(f.kind.text("type")?, "type")?;
        let timestamp = f.timestamp.integer("timestamp")?;
        let (data, meta) = (f.data, f.meta.filter(|raw| raw.get() != "null"));
        let payload = |content: Scalar<'_>| -> Result<Payload, Invalid> {
            let [data, meta] = [data, meta].map(|raw| raw.map(|raw| Json::shared(raw, json)));
            let content = content.shared_text("content", json)?;
            Ok(Payload { content, data, meta, attachment: body.attachment.clone() })
        };
        let sender = |from: Scalar<'_>, user: Scalar<'_>, name: Scalar<'_>| -> Result<Option<Sender>, Invalid> {
            let Some(id) = from.uuid("from")? else { return Ok(None) };
            Ok(Some(Sender::new(id, user.shared_text("user", json)?, name.shared_text("name", json)?)))
        };
        let owned = |text: Scalar<'_>, field: &str| Ok::<_, Invalid>(text.text(field)?.map(Cow::into_owned));
        let topic = |topic: Scalar<'_>| required(owned(topic, "topic")?, "topic");
        Ok(match &*kind {
            "handshake_response" => Self::HandshakeResponse(Box::new(HandshakeReply {
                accepted: required(f.accepted.boolean("accepted")?, "accepted")?,
                client_id: f.client_id.uuid("client_id")?,
                server_name: required(owned(f.server_name, "server_name")?, "server_name")?,
                protocol_version: owned(f.protocol_version, "protocol_version")?,
                reason: owned(f.reason, "reason")?,
                limits: structured(f.limits, "limits")?,
                compression: f
                    .compression
                    .text("compression")?
                    .as_deref()
                    .map_or(Compression::None, Compression::from_name),
                user: owned(f.user, "user")?,
                client_name: owned(f.client_name, "client_name")?,
                expires_at: f.expires_at.integer("expires_at")?,
                permissions: structured(f.permissions, "permissions")?,
                inbox: owned(f.inbox, "inbox")?,
                info: f.info.filter(|raw| raw.get() != "null").map(|raw| Json::shared(raw, json)),
                session: owned(f.session, "session")?,
                subscriptions: structured(f.subscriptions, "subscriptions")?.unwrap_or_default(),
            })),
            "text" => Self::Text { content: required(payload(f.content)?.content, "content")?, timestamp },
            "binary" => Self::Binary { payload: payload(f.content)?, timestamp },
            "broadcast" => Self::Broadcast {
                from: required(sender(f.from, f.user, f.name)?, "from")?,
                payload: payload(f.content)?,
                timestamp: required(timestamp, "timestamp")?,
            },
            "direct" => Self::Direct {
                from: required(sender(f.from, f.user, f.name)?, "from")?,
                payload: payload(f.content)?,
                timestamp: required(timestamp, "timestamp")?,
            },
            "signal" => Self::Signal {
                from: required(sender(f.from, f.user, f.name)?, "from")?,
                data: Json::shared(required(f.data, "data")?, json),
                timestamp: required(timestamp, "timestamp")?,
            },
            "request" => Self::Request(Box::new(Called {
                request: required(owned(f.request, "request")?, "request")?,
                topic: owned(f.topic, "topic")?,
                from: sender(f.from, f.user, f.name)?,
                payload: payload(f.content)?,
                timestamp: required(timestamp, "timestamp")?,
                timeout_ms: required(f.timeout_ms.integer("timeout_ms")?, "timeout_ms")?,
            })),
            "reply" => Self::Reply(Box::new(Replied {
                from: sender(f.from, f.user, f.name)?,
                payload: payload(f.content)?,
                failure: match owned(f.error, "error")? {
                    Some(message) => Some(Failure { code: small(f.code, "code")?, message }),
                    None => None,
                },
                timestamp: required(timestamp, "timestamp")?,
            })),
            "cancel" => Self::Cancel {
                request: required(owned(f.request, "request")?, "request")?,
                reason: owned(f.reason, "reason")?,
            },
            "pong" => {
                Self::Pong { timestamp, server_time: required(f.server_time.integer("server_time")?, "server_time")? }
            }
            "ping" => Self::Ping { timestamp: required(timestamp, "timestamp")? },
            "client_list" => Self::ClientList {
                clients: required(structured(f.clients, "clients")?, "clients")?,
                total: required(f.total.integer("total")?, "total")?,
                next: f.next.uuid("next")?,
            },
            "subscribed" => Self::Subscribed(Subscribed {
                topic: topic(f.topic)?,
                epoch: owned(f.epoch, "epoch")?,
                offset: f.offset.integer("offset")?,
                recovered: f.recovered.boolean("recovered")?,
                lane: f.lane.integer("lane")?,
                reason: owned(f.reason, "reason")?,
                may_publish: f.may_publish.boolean("may_publish")?,
                durable: owned(f.durable, "durable")?,
                acked: f.acked.integer("acked")?,
                pending: f.pending.integer("pending")?,
                by_server: f.by.text("by")?.as_deref() == Some("server"),
            }),
            "lane" => Self::Lane {
                lane: required(f.lane.integer("lane")?, "lane")?,
                priority: small(f.priority, "priority")?,
            },
            "gap" => Self::Gap {
                topic: topic(f.topic)?,
                first: required(f.first.integer("first")?, "first")?,
                last: required(f.last.integer("last")?, "last")?,
                reason: owned(f.reason, "reason")?,
            },
            "unsubscribed" => Self::Unsubscribed {
                topic: topic(f.topic)?,
                code: small(f.code, "code")?,
                reason: owned(f.reason, "reason")?,
            },
            "message" => Self::Message(TopicMessage {
                topic: topic(f.topic)?,
                offset: required(f.offset.integer("offset")?, "offset")?,
                durable: owned(f.durable, "durable")?,
                tries: f.tries.integer("tries")?,
                from: sender(f.from, f.user, f.name)?,
                payload: payload(f.content)?,
                timestamp: required(timestamp, "timestamp")?,
                expires_at: f.expires_at.integer("expires_at")?,
            }),
            "published" => Self::Published {
                topic: topic(f.topic)?,
                epoch: required(owned(f.epoch, "epoch")?, "epoch")?,
                offset: required(f.offset.integer("offset")?, "offset")?,
                duplicate: f.duplicate.boolean("duplicate")?.unwrap_or(false),
                stored: f.stored.text("stored")?.and_then(|stored| Stored::from_text(&stored)),
            },
            "history" => Self::History {
                topic: topic(f.topic)?,
                epoch: required(owned(f.epoch, "epoch")?, "epoch")?,
                offset: f.offset.integer("offset")?,
                recovered: f.recovered.boolean("recovered")?,
                messages: required(structured(f.messages, "messages")?, "messages")?,
                more: f.more.boolean("more")?.unwrap_or(false),
            },
            "presence" => Self::Presence {
                topic: topic(f.topic)?,
                clients: required(structured(f.clients, "clients")?, "clients")?,
                total: f.total.integer("total")?,
                users: f.users.integer("users")?,
                next: f.next.uuid("next")?,
            },
            "state" => {
                Self::State { topic: topic(f.topic)?, client: required(structured(f.client, "client")?, "client")? }
            }
            "occupancy" => Self::Occupancy {
                topic: topic(f.topic)?,
                clients: required(structured(f.clients, "clients")?, "clients")?,
                users: required(f.users.integer("users")?, "users")?,
            },
            "return" => Self::Return {
                topic: topic(f.topic)?,
                client: required(structured(f.client, "client")?, "client")?,
                was: required(f.was.uuid("was")?, "was")?,
            },
            "join" => {
                Self::Join { topic: topic(f.topic)?, client: required(structured(f.client, "client")?, "client")? }
            }
            "leave" => {
                Self::Leave { topic: topic(f.topic)?, client: required(structured(f.client, "client")?, "client")? }
            }
            "ok" => Self::Ok {
                delivered: f.delivered.integer("delivered")?,
                acked: f.acked.integer("acked")?,
                topic: owned(f.topic, "topic")?,
            },
            "error" => Self::Error(ErrorReply {
                code: small(f.code, "code")?,
                message: required(owned(f.message, "message")?, "message")?,
                retry_after_ms: f.retry_after_ms.integer("retry_after_ms")?,
            }),
            "expiring" => Self::Expiring { expires_at: required(f.expires_at.integer("expires_at")?, "expires_at")? },
            "refreshed" => Self::Refreshed {
                expires_at: f.expires_at.integer("expires_at")?,
                permissions: structured(f.permissions, "permissions")?,
            },
            "close" => Self::Close(ClosedBy {
                code: CloseCode(small(f.code, "code")?),
                reason: owned(f.reason, "reason")?.unwrap_or_default(),
                reconnect_after_ms: f.reconnect_after_ms.integer("reconnect_after_ms")?,
            }),
            other => return Err(Invalid::unknown_type(other)),
        })
    }

    /// Appends this message's frame, as a reply to request `re` if any.
    pub fn encode(&self, re: Option<&RequestId>, out: &mut BytesMut) {
        let attachment = match self {
            Self::Binary { payload, .. } | Self::Broadcast { payload, .. } | Self::Direct { payload, .. } => {
                payload.attachment.as_ref()
            }
            Self::Message(message) => message.payload.attachment.as_ref(),
            Self::Request(called) => called.payload.attachment.as_ref(),
            Self::Reply(replied) => replied.payload.attachment.as_ref(),
            _ => None,
        };
        put_frame(out, attachment.map(|bytes| &bytes[..]), |out| self.encode_json(re, out));
    }

    fn encode_json(&self, re: Option<&RequestId>, out: &mut BytesMut) {
        let mut o = Object::message(out, self.type_name());
        o.optional("re", re);
        match self {
            Self::HandshakeResponse(reply) => {
                o.boolean("accepted", reply.accepted);
                o.optional("client_id", reply.client_id.as_ref());
                o.text("server_name", &reply.server_name);
                o.optional_text("protocol_version", reply.protocol_version.as_deref());
                o.optional_text("reason", reply.reason.as_deref());
                o.optional("limits", reply.limits.as_ref());
                o.optional_text("compression", reply.compression.is_some().then(|| reply.compression.name()));
                o.optional_text("user", reply.user.as_deref());
                o.optional_text("client_name", reply.client_name.as_deref());
                o.optional_integer("expires_at", reply.expires_at);
                o.optional("permissions", reply.permissions.as_ref());
                o.optional_text("inbox", reply.inbox.as_deref());
                o.optional_json("info", reply.info.as_ref());
                o.optional_text("session", reply.session.as_deref());
                o.optional("subscriptions", Some(&reply.subscriptions).filter(|texts| !texts.is_empty()));
            }
            Self::Text { content, timestamp } => {
                o.text("content", content);
                o.optional_integer("timestamp", *timestamp);
            }
            Self::Binary { payload, timestamp } => {
                o.payload(payload);
                o.optional_integer("timestamp", *timestamp);
            }
            Self::Broadcast { from, payload, timestamp } | Self::Direct { from, payload, timestamp } => {
                o.sender(from);
                o.payload(payload);
                o.integer("timestamp", *timestamp);
            }
            Self::Signal { from, data, timestamp } => {
                o.sender(from);
                o.json("data", data);
                o.integer("timestamp", *timestamp);
            }
            Self::Request(called) => {
                o.text("request", &called.request);
                o.optional_text("topic", called.topic.as_deref());
                if let Some(from) = &called.from {
                    o.sender(from);
                }
                o.payload(&called.payload);
                o.integer("timestamp", called.timestamp);
                o.integer("timeout_ms", called.timeout_ms);
            }
            Self::Reply(replied) => {
                if let Some(from) = &replied.from {
                    o.sender(from);
                }
                o.payload(&replied.payload);
                if let Some(failure) = &replied.failure {
                    o.text("error", &failure.message);
                    o.integer("code", failure.code.into());
                }
                o.integer("timestamp", replied.timestamp);
            }
            Self::Cancel { request, reason } => {
                o.text("request", request);
                o.optional_text("reason", reason.as_deref());
            }
            Self::Pong { timestamp, server_time } => {
                o.optional_integer("timestamp", *timestamp);
                o.integer("server_time", *server_time);
            }
            Self::Ping { timestamp } => o.integer("timestamp", *timestamp),
            Self::ClientList { clients, total, next } => {
                o.value("clients", clients);
                o.integer("total", *total);
                o.optional("next", next.as_ref());
            }
            Self::Subscribed(subscribed) => {
                o.text("topic", &subscribed.topic);
                o.optional_text("epoch", subscribed.epoch.as_deref());
                o.optional_integer("offset", subscribed.offset);
                o.optional("recovered", subscribed.recovered.as_ref());
                o.optional_integer("lane", subscribed.lane);
                o.optional_text("reason", subscribed.reason.as_deref());
                o.optional("may_publish", subscribed.may_publish.as_ref());
                o.optional_text("durable", subscribed.durable.as_deref());
                o.optional_integer("acked", subscribed.acked);
                o.optional_integer("pending", subscribed.pending);
                o.optional_text("by", subscribed.by_server.then_some("server"));
            }
            Self::Lane { lane, priority } => {
                o.integer("lane", *lane);
                o.integer("priority", (*priority).into());
            }
            Self::Gap { topic, first, last, reason } => {
                o.text("topic", topic);
                o.integer("first", *first);
                o.integer("last", *last);
                o.optional_text("reason", reason.as_deref());
            }
            Self::Unsubscribed { topic, code, reason } => {
                o.text("topic", topic);
                o.integer("code", (*code).into());
                o.optional_text("reason", reason.as_deref());
            }
            Self::Message(message) => {
                o.text("topic", &message.topic);
                o.integer("offset", message.offset);
                o.optional_text("durable", message.durable.as_deref());
                o.optional_integer("tries", message.tries);
                put_tail(&mut o, message);
            }
            Self::Published { topic, epoch, offset, duplicate, stored } => {
                o.text("topic", topic);
                o.text("epoch", epoch);
                o.integer("offset", *offset);
                if *duplicate {
                    o.boolean("duplicate", true);
                }
                o.optional_text("stored", stored.map(Stored::as_str));
            }
            Self::History { topic, epoch, offset, recovered, messages, more } => {
                o.text("topic", topic);
                o.text("epoch", epoch);
                o.optional_integer("offset", *offset);
                o.optional("recovered", recovered.as_ref());
                o.value("messages", messages);
                o.boolean("more", *more);
            }
            Self::Presence { topic, clients, total, users, next } => {
                o.text("topic", topic);
                o.value("clients", clients);
                o.optional_integer("total", *total);
                o.optional_integer("users", *users);
                o.optional("next", next.as_ref());
            }
            Self::Occupancy { topic, clients, users } => {
                o.text("topic", topic);
                o.integer("clients", *clients);
                o.integer("users", *users);
            }
            Self::Return { topic, client, was } => {
                o.text("topic", topic);
                o.value("client", client);
                o.uuid("was", *was);
            }
            Self::Join { topic, client } | Self::Leave { topic, client } | Self::State { topic, client } => {
                o.text("topic", topic);
                o.value("client", client);
            }
            Self::Ok { delivered, acked, topic } => {
                o.optional_integer("delivered", *delivered);
                o.optional_integer("acked", *acked);
                o.optional_text("topic", topic.as_deref());
            }
            Self::Expiring { expires_at } => o.integer("expires_at", *expires_at),
            Self::Refreshed { expires_at, permissions } => {
                o.optional_integer("expires_at", *expires_at);
                o.optional("permissions", permissions.as_ref());
            }
            Self::Error(error) => {
                o.integer("code", error.code.into());
                o.text("message", &error.message);
                o.optional_integer("retry_after_ms", error.retry_after_ms);
            }
            Self::Close(close) => {
                o.integer("code", close.code.0.into());
                o.text("reason", &close.reason);
                o.optional_integer("reconnect_after_ms", close.reconnect_after_ms);
            }
        }
        o.end();
    }
}

/// Appends the echo of a `text`: `Echo: ` and its content, without building the string in between.
pub fn encode_echo(content: &str, re: Option<&RequestId>, timestamp: u64, out: &mut BytesMut) {
    put_frame(out, None, |out| {
        let mut o = Object::message(out, "text");
        o.optional("re", re);
        o.text_with_prefix("content", "Echo: ", content);
        o.integer("timestamp", timestamp);
        o.end();
    });
}

/// Appends the frame of a `binary` echo up to its attachment of `len` bytes.
pub fn encode_binary_head(len: usize, re: Option<&RequestId>, timestamp: u64, out: &mut BytesMut) {
    put_head(out, Some(len), |out| {
        let mut o = Object::message(out, "binary");
        o.optional("re", re);
        o.integer("timestamp", timestamp);
        o.end();
    });
}

fn small<T: TryFrom<u64>>(value: Scalar<'_>, field: &str) -> Result<T, Invalid> {
    T::try_from(required(value.integer(field)?, field)?)
        .map_err(|_| Invalid::field(format!("{field}: the number is too large")))
}
