//! Decoding of a server's messages; `encode` encodes them.

mod encode;
mod source;

use std::borrow::Cow;

use bytestring::ByteString;

pub use self::encode::{encode_binary_head, encode_echo};
use self::source::Fields;
use super::{Called, ClosedBy, ErrorReply, HandshakeReply, Replied, Reply, ServerMessage, Subscribed, TopicMessage};
use crate::frame::{Body, Compression};
use crate::message::fields::{self, Scalar, required, structured};
use crate::message::{CloseCode, Failure, Invalid, Json, MAX_SERVER_NESTING, Payload, RequestId, Sender, Stored};

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
}

fn small<T: TryFrom<u64>>(value: Scalar<'_>, field: &str) -> Result<T, Invalid> {
    T::try_from(required(value.integer(field)?, field)?)
        .map_err(|_| Invalid::field(format!("{field}: the number is too large")))
}
