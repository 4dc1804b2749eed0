//! The messages of servers: one enum. `wire` parses and encodes it.

mod tail;
mod wire;

use std::borrow::Cow;

use bytestring::ByteString;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use uuid::Uuid;

pub use self::tail::{encode_tail, encode_with_tail};
pub use self::wire::{encode_binary_head, encode_echo};
use super::{Close, CloseCode, Failure, Json, PROTOCOL_VERSION, Payload, RequestId, Sender, Stored};
use crate::frame::Compression;

/// A server's message, with the id of the request that it answers.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Reply {
    /// The `id` of the request, if the message is a reply.
    pub re: Option<RequestId>,
    /// The message.
    pub message: ServerMessage,
}

/// A message of a server.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum ServerMessage {
    /// Answers `handshake`.
    HandshakeResponse(Box<HandshakeReply>),
    /// The echo of `text`.
    Text {
        /// `Echo: ` and the request's text.
        content: ByteString,
        /// The server's time, in Unix milliseconds.
        timestamp: Option<u64>,
    },
    /// The echo of `binary`; the attachment holds the bytes.
    Binary {
        /// The request's bytes.
        payload: Payload,
        /// The server's time, in Unix milliseconds.
        timestamp: Option<u64>,
    },
    /// A client's message to all.
    Broadcast {
        /// The sender.
        from: Sender,
        /// The content.
        payload: Payload,
        /// The server's time, in Unix milliseconds.
        timestamp: u64,
    },
    /// A client's message to this one.
    Direct {
        /// The sender.
        from: Sender,
        /// The content.
        payload: Payload,
        /// The server's time, in Unix milliseconds.
        timestamp: u64,
    },
    /// WebRTC signalling from another client.
    Signal {
        /// The sender.
        from: Sender,
        /// The data, as it was sent.
        data: Json,
        /// The server's time, in Unix milliseconds.
        timestamp: u64,
    },
    /// A request of another client, to be answered by this one.
    Request(Box<Called>),
    /// The answer to a request.
    Reply(Box<Replied>),
    /// A request that this client has got needs no answer any more.
    Cancel {
        /// The request.
        request: String,
        /// The reason, for people.
        reason: Option<String>,
    },
    /// Answers `ping`.
    Pong {
        /// The timestamp of the ping.
        timestamp: Option<u64>,
        /// The server's clock, in Unix milliseconds.
        server_time: u64,
    },
    /// Requests a `pong` from an idle client.
    Ping {
        /// The server's time, in Unix milliseconds.
        timestamp: u64,
    },
    /// A page of the connected clients.
    ClientList {
        /// The page, ordered by id.
        clients: Vec<ClientInfo>,
        /// The number of connected clients.
        total: u64,
        /// The `after` of the next page; absent on the last page.
        next: Option<Uuid>,
    },
    /// Answers `subscribe`.
    Subscribed(Subscribed),
    /// The first message of a topic lane.
    Lane {
        /// Number of the lane.
        lane: u64,
        /// Priority from 0 to 255, 255 being the most urgent.
        priority: u8,
    },
    /// Messages were dropped for this client.
    Gap {
        /// The topic, or the pattern that was subscribed to.
        topic: String,
        /// The offset of the first one; 0 for a pattern.
        first: u64,
        /// The offset of the last one; 0 for a pattern.
        last: u64,
        /// The reason, for people.
        reason: Option<String>,
    },
    /// The server ended a subscription.
    Unsubscribed {
        /// The topic or pattern that was subscribed to.
        topic: String,
        /// The number of an [`ErrorCode`](super::ErrorCode).
        code: u16,
        /// The reason, for people.
        reason: Option<String>,
    },
    /// A topic's message; identical for all receivers.
    Message(TopicMessage),
    /// Answers `publish`.
    Published {
        /// The topic.
        topic: String,
        /// The epoch of the topic's log.
        epoch: String,
        /// The message's offset in it.
        offset: u64,
        /// Whether the server had seen its key before.
        duplicate: bool,
        /// How safe the message is; absent for a topic in memory.
        stored: Option<Stored>,
    },
    /// A page of a topic's past messages.
    History {
        /// The topic.
        topic: String,
        /// The epoch of the topic's log.
        epoch: String,
        /// The newest offset in the log; absent from older servers.
        offset: Option<u64>,
        /// Whether the log has everything after `since`; absent without it, and from older servers.
        recovered: Option<bool>,
        /// The page; attachments are in `data`, as base64.
        messages: Vec<Box<RawValue>>,
        /// Whether there is another page.
        more: bool,
    },
    /// The clients on a topic.
    Presence {
        /// The topic.
        topic: String,
        /// The clients, ordered by id; only the first if there are very many.
        clients: Vec<Member>,
        /// The number of members of the topic.
        total: Option<u64>,
        /// The number of different users among them; absent from older servers.
        users: Option<u64>,
        /// The `after` of the next page; absent on the last page.
        next: Option<Uuid>,
    },
    /// A member's state on a topic has changed.
    State {
        /// The topic.
        topic: String,
        /// The member, with its state.
        client: Member,
    },
    /// The numbers of a topic's members have changed.
    Occupancy {
        /// The topic.
        topic: String,
        /// The number of clients.
        clients: u64,
        /// The number of different users among them.
        users: u64,
    },
    /// A member whose connection was lost is back, with another id.
    Return {
        /// The topic.
        topic: String,
        /// The member.
        client: Member,
        /// The id that it had.
        was: Uuid,
    },
    /// A client came to a topic.
    Join {
        /// The topic.
        topic: String,
        /// The client.
        client: Member,
    },
    /// A client left a topic.
    Leave {
        /// The topic.
        topic: String,
        /// The client.
        client: Member,
    },
    /// A request succeeded.
    Ok {
        /// The number of receivers of a `broadcast`.
        delivered: Option<u64>,
        /// The number of messages for which an `ack` took effect.
        acked: Option<u64>,
        /// The topic or pattern that was unsubscribed.
        topic: Option<String>,
    },
    /// A request failed, or a body was invalid.
    Error(ErrorReply),
    /// The token expires soon: the connection closes then, unless a `refresh` brings another one.
    Expiring {
        /// The time at which it expires, in Unix milliseconds.
        expires_at: u64,
    },
    /// Answers `refresh`.
    Refreshed {
        /// The time at which the new token expires, in Unix milliseconds; `None` if it does not.
        expires_at: Option<u64>,
        /// What the client may send to other clients from now on; `None` if the server restricts nothing.
        permissions: Option<Permissions>,
    },
    /// The last message: the connection closes with this code.
    Close(ClosedBy),
}

/// The fields of `handshake_response`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct HandshakeReply {
    /// Whether the server accepts the client.
    pub accepted: bool,
    /// The client's id for this connection.
    pub client_id: Option<Uuid>,
    /// The server's name.
    pub server_name: String,
    /// Protocol version of the server.
    pub protocol_version: Option<String>,
    /// The reason for a refusal.
    pub reason: Option<String>,
    /// The server's limits for this connection.
    pub limits: Option<Limits>,
    /// The compression that the server has chosen.
    pub compression: Compression,
    /// The user that the client has authenticated as.
    pub user: Option<String>,
    /// The name that others see, if the client did not ask for it.
    pub client_name: Option<String>,
    /// The time at which the client's token expires, in Unix milliseconds.
    pub expires_at: Option<u64>,
    /// What the client may send to other clients; `None` if the server restricts nothing.
    pub permissions: Option<Permissions>,
    /// The user's own topic, for messages that wait while no client of the user is connected.
    pub inbox: Option<String>,
    /// What others see about the user, from the client's token.
    pub info: Option<Json>,
    /// The secret of the client's session, for `resume` and `attach`.
    pub session: Option<String>,
    /// The subscriptions that the server makes for the client.
    pub subscriptions: Vec<String>,
}

impl HandshakeReply {
    /// A refusal: `accepted` is false, and the fields for an accepted client are absent.
    pub fn new(server_name: impl Into<String>) -> Self {
        Self {
            accepted: false,
            client_id: None,
            server_name: server_name.into(),
            protocol_version: Some(PROTOCOL_VERSION.into()),
            reason: None,
            limits: None,
            compression: Compression::None,
            user: None,
            client_name: None,
            expires_at: None,
            permissions: None,
            inbox: None,
            info: None,
            session: None,
            subscriptions: Vec::new(),
        }
    }
}

/// Permissions for messages to other clients; by default none. Topics have their own permissions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Permissions {
    /// `broadcast`.
    pub broadcast: bool,
    /// `direct`.
    pub direct: bool,
    /// `signal`.
    pub signal: bool,
    /// `list_clients`.
    pub list_clients: bool,
}

/// The limits of a server, as its clients have to keep them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Limits {
    /// Largest body, in bytes, compressed and decompressed.
    pub max_message_bytes: u64,
    /// Idle milliseconds until the server pings.
    pub ping_interval_ms: u64,
    /// Milliseconds after a ping without a sign of life until the server closes the connection.
    pub ping_timeout_ms: u64,
    /// Maximum number of open request lanes, without the control lane.
    pub max_request_lanes: u64,
    /// Most bytes of incomplete messages, on all lanes together; `None` from older servers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_unfinished_bytes: Option<u64>,
    /// Most requests of one lane whose replies are pending while the lane is read; `None` from older servers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_pending_replies: Option<u64>,
    /// Longest `meta` of a message, in bytes; `None` from older servers, which know neither `meta` nor `data`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_meta_bytes: Option<u64>,
    /// Most requests to other clients that may be open at once; `None` from older servers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_open_requests: Option<u64>,
}

/// The defaults of docs/PROTOCOL.md, "Limits".
impl Default for Limits {
    fn default() -> Self {
        Self {
            max_message_bytes: 1 << 20,
            ping_interval_ms: 25_000,
            ping_timeout_ms: 10_000,
            max_request_lanes: 32,
            max_unfinished_bytes: Some(8 << 20),
            max_pending_replies: Some(256),
            max_meta_bytes: Some(1024),
            max_open_requests: Some(256),
        }
    }
}

/// A connected client in `client_list`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ClientInfo {
    /// Id of the client.
    pub id: Uuid,
    /// Its name, if any.
    pub name: Option<String>,
    /// The user that it has authenticated as, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// What its token says about the user, for others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub info: Option<Json>,
    /// The time of its handshake, in Unix milliseconds.
    pub connected_at: u64,
    /// Its transport: `quic`, `webtransport` or `websocket`.
    pub transport: Cow<'static, str>,
}

impl ClientInfo {
    /// Creates the entry of a client connected since `connected_at`, in Unix milliseconds, over `transport`.
    pub fn new(client: Member, connected_at: u64, transport: impl Into<Cow<'static, str>>) -> Self {
        let Member { id, name, user, info, .. } = client;
        Self { id, name, user, info, connected_at, transport: transport.into() }
    }
}

/// A client on a topic, or a user with all its clients there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Member {
    /// Id of the client; of a user's clients that of the first.
    pub id: Uuid,
    /// Its name, if any.
    pub name: Option<String>,
    /// The user that it has authenticated as, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// What its token says about the user, for others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub info: Option<Json>,
    /// Its state on the topic, as it has set it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<Json>,
    /// The number of the user's clients on the topic; absent for the entry of a single client.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clients: Option<u64>,
    /// Whether its connection is lost and it may come back.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub away: bool,
}

impl Member {
    /// Creates a member from its id, name and user.
    pub fn new(id: Uuid, name: Option<String>, user: Option<String>) -> Self {
        Self { id, name, user, info: None, state: None, clients: None, away: false }
    }
}

/// The fields of `subscribed`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Subscribed {
    /// The topic or pattern that was subscribed to.
    pub topic: String,
    /// The epoch of the topic's log; absent for a pattern.
    pub epoch: Option<String>,
    /// The newest offset in it; absent for a pattern.
    pub offset: Option<u64>,
    /// Whether every message after `since` follows.
    pub recovered: Option<bool>,
    /// Lane of the messages; absent for the control lane.
    pub lane: Option<u64>,
    /// The reason why it was not recovered.
    pub reason: Option<String>,
    /// `Some(false)` if the client may not publish to this topic; `None` for a pattern.
    pub may_publish: Option<bool>,
    /// The durable consumer that the messages come from.
    pub durable: Option<String>,
    /// The offset up to which all its messages are acknowledged.
    pub acked: Option<u64>,
    /// The number of its messages that are not yet acknowledged.
    pub pending: Option<u64>,
    /// Whether the server made the subscription, and not the client.
    pub by_server: bool,
}

impl Subscribed {
    /// Creates a reply without a position, for messages on the control lane.
    pub fn new(topic: impl Into<String>) -> Self {
        Self {
            topic: topic.into(),
            epoch: None,
            offset: None,
            recovered: None,
            lane: None,
            reason: None,
            may_publish: None,
            durable: None,
            acked: None,
            pending: None,
            by_server: false,
        }
    }
}

/// The fields of `message`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TopicMessage {
    /// The topic.
    pub topic: String,
    /// Offset in the topic's log.
    pub offset: u64,
    /// The durable consumer that delivers it and expects an `ack`, if any.
    pub durable: Option<String>,
    /// The number of this delivery by that consumer; absent for the first.
    pub tries: Option<u64>,
    /// The client that published it; absent if none did.
    pub from: Option<Sender>,
    /// The content.
    pub payload: Payload,
    /// The server's time, in Unix milliseconds.
    pub timestamp: u64,
    /// The time from which on it is not delivered any more, in Unix milliseconds, if its publisher set one.
    pub expires_at: Option<u64>,
}

impl TopicMessage {
    /// Creates a message at `offset` of the topic's log, published at `timestamp`, in Unix milliseconds; without a
    /// sender.
    pub fn new(topic: impl Into<String>, offset: u64, payload: Payload, timestamp: u64) -> Self {
        Self {
            topic: topic.into(),
            offset,
            durable: None,
            tries: None,
            from: None,
            payload,
            timestamp,
            expires_at: None,
        }
    }

    /// The text of its payload, if there is one.
    pub fn text(&self) -> Option<&str> {
        self.payload.as_text()
    }

    /// The JSON value of its payload, decoded, if there is one.
    ///
    /// # Errors
    /// If the value does not have the shape of `T`.
    pub fn data<T: DeserializeOwned>(&self) -> serde_json::Result<Option<T>> {
        self.payload.data()
    }
}

/// The fields of the server's `request`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Called {
    /// The request's own number, opaque; a reply repeats it.
    pub request: String,
    /// The topic that it was sent to; absent if it was addressed to this client or its user.
    pub topic: Option<String>,
    /// The client that asks; absent if it is the server's operator.
    pub from: Option<Sender>,
    /// The content.
    pub payload: Payload,
    /// The server's time, in Unix milliseconds.
    pub timestamp: u64,
    /// How long the reply may take, in milliseconds.
    pub timeout_ms: u64,
}

impl Called {
    /// A request without a sender, addressed to the client itself.
    pub fn new(request: impl Into<String>, payload: Payload, timestamp: u64, timeout_ms: u64) -> Self {
        Self { request: request.into(), topic: None, from: None, payload, timestamp, timeout_ms }
    }
}

/// The fields of the server's `reply`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Replied {
    /// The client that answered; absent if the server's operator did.
    pub from: Option<Sender>,
    /// The content; it may be empty for a failure.
    pub payload: Payload,
    /// Why the request failed, if the client that answered says so.
    pub failure: Option<Failure>,
    /// The server's time, in Unix milliseconds.
    pub timestamp: u64,
}

impl Replied {
    /// An answer with a content.
    pub fn new(from: Option<Sender>, payload: Payload, timestamp: u64) -> Self {
        Self { from, payload, failure: None, timestamp }
    }
}

/// The fields of `error`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ErrorReply {
    /// Code, like an HTTP status; [`ErrorCode`](super::ErrorCode) names the known ones.
    pub code: u16,
    /// The problem, its subject, and what to do; for people.
    pub message: String,
    /// Milliseconds until the next attempt, for codes 429 and 503.
    pub retry_after_ms: Option<u64>,
}

impl ErrorReply {
    /// Creates an error with the number of an [`ErrorCode`](super::ErrorCode), without `retry_after_ms`.
    pub fn new(code: impl Into<u16>, message: impl Into<String>) -> Self {
        Self { code: code.into(), message: message.into(), retry_after_ms: None }
    }

    /// Sets the time to wait before trying again, in milliseconds.
    #[must_use]
    pub fn with_retry_after_ms(mut self, after: u64) -> Self {
        self.retry_after_ms = Some(after);
        self
    }
}

/// The fields of the server's `close`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClosedBy {
    /// The code with which the connection closes.
    pub code: CloseCode,
    /// The reason, for people.
    pub reason: String,
    /// Milliseconds until a reconnect, if the server drains.
    pub reconnect_after_ms: Option<u64>,
}

impl ClosedBy {
    /// Creates a close with a code and reason, without `reconnect_after_ms`.
    pub fn new(code: CloseCode, reason: impl Into<String>) -> Self {
        Self { code, reason: reason.into(), reconnect_after_ms: None }
    }

    /// Sets the time to wait before reconnecting, in milliseconds.
    #[must_use]
    pub fn with_reconnect_after_ms(mut self, after: u64) -> Self {
        self.reconnect_after_ms = Some(after);
        self
    }
}

impl From<Close> for ClosedBy {
    fn from(close: Close) -> Self {
        Self::new(close.code(), close.reason())
    }
}
