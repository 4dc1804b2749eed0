//! The messages of servers: one enum. `wire` parses and encodes it.

mod handshake;
mod member;
mod request;
mod tail;
mod topic;
mod wire;

use bytestring::ByteString;
use serde_json::value::RawValue;
use uuid::Uuid;

pub use self::handshake::{HandshakeReply, Limits, Permissions};
pub use self::member::{ClientInfo, Member};
pub use self::request::{Called, Replied};
pub use self::tail::{encode_tail, encode_with_tail};
pub use self::topic::{Subscribed, TopicMessage};
pub use self::wire::{encode_binary_head, encode_echo};
use super::{Close, CloseCode, Json, Payload, RequestId, Sender, Stored};

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
