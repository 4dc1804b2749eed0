//! Encoding of a server's messages.

use bytes::BytesMut;

use super::super::tail::put_tail;
use crate::frame::{put_frame, put_head};
use crate::message::json::Object;
use crate::message::{Reply, RequestId, ServerMessage, Stored};

impl Reply {
    /// Appends the frame of this message.
    pub fn encode(&self, out: &mut BytesMut) {
        self.message.encode(self.re.as_ref(), out);
    }
}

impl ServerMessage {
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
