//! What servers say: one enum. Its reading and writing are in `wire`.

mod wire;

use std::borrow::Cow;

use bytestring::ByteString;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use uuid::Uuid;

pub use self::wire::{encode_binary_head, encode_echo};
use super::{Close, CloseCode, PROTOCOL_VERSION, Payload, RequestId};

/// A server's message with the id of the request that it answers.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Reply {
    /// The `id` of the request; absent where nothing was asked.
    pub re: Option<RequestId>,
    /// What it says.
    pub message: ServerMessage,
}

/// What a server may say.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum ServerMessage {
    /// Answers `handshake`.
    HandshakeResponse(HandshakeReply),
    /// The echo of `text`.
    Text {
        /// `Echo: ` and the request's text.
        content: ByteString,
        /// When, in Unix milliseconds.
        timestamp: Option<u64>,
    },
    /// The echo of `binary`; the attachment holds the bytes.
    Binary {
        /// The request's bytes.
        payload: Payload,
        /// When, in Unix milliseconds.
        timestamp: Option<u64>,
    },
    /// A client's word to all.
    Broadcast {
        /// Who sent it.
        from: Uuid,
        /// What it says.
        payload: Payload,
        /// When, in Unix milliseconds.
        timestamp: u64,
    },
    /// A client's word to this one.
    Direct {
        /// Who sent it.
        from: Uuid,
        /// What it says.
        payload: Payload,
        /// When, in Unix milliseconds.
        timestamp: u64,
    },
    /// WebRTC signalling from another client.
    Signal {
        /// Who sent it.
        from: Uuid,
        /// Its data, as sent.
        data: Box<RawValue>,
        /// When, in Unix milliseconds.
        timestamp: u64,
    },
    /// Answers `ping`.
    Pong {
        /// The ping's own.
        timestamp: Option<u64>,
        /// The server's clock, in Unix milliseconds.
        server_time: u64,
    },
    /// Asks an idle client for a `pong`.
    Ping {
        /// When, in Unix milliseconds.
        timestamp: u64,
    },
    /// A page of the connected clients.
    ClientList {
        /// The page, ordered by id.
        clients: Vec<ClientInfo>,
        /// How many are connected in all.
        total: u64,
        /// The `after` of the next page; absent on the last.
        next: Option<Uuid>,
    },
    /// Answers `subscribe`.
    Subscribed(Subscribed),
    /// The first message of a topic lane.
    Lane {
        /// The lane's number.
        lane: u64,
        /// 0 to 255, 255 the most urgent.
        priority: u8,
    },
    /// Messages that were dropped for this client.
    Gap {
        /// Of which topic.
        topic: String,
        /// Offset of the first one lost.
        first: u64,
        /// Offset of the last one lost.
        last: u64,
        /// Why.
        reason: Option<String>,
    },
    /// The server ended a subscription.
    Unsubscribed {
        /// The text that was subscribed to.
        topic: String,
        /// Why, as an error code.
        code: u16,
        /// Why, in words.
        reason: Option<String>,
    },
    /// A topic's message; nothing in it depends on the receiver.
    Message(TopicMessage),
    /// Answers `publish`.
    Published {
        /// Where to.
        topic: String,
        /// Which life of the log.
        epoch: String,
        /// The message's place in it.
        offset: u64,
        /// Whether its key was seen before.
        duplicate: bool,
    },
    /// A page of a topic's past.
    History {
        /// Of which topic.
        topic: String,
        /// Which life of the log.
        epoch: String,
        /// The newest in the log, where the server says so.
        offset: Option<u64>,
        /// Where `since` was asked, whether the log has all that came after it, where the server says so.
        recovered: Option<bool>,
        /// The page; attachments in `data`, base64.
        messages: Vec<Box<RawValue>>,
        /// Whether there is another page.
        more: bool,
    },
    /// Who is on a topic.
    Presence {
        /// Which topic.
        topic: String,
        /// Who: the first of them, by id, where there are very many.
        clients: Vec<Member>,
        /// How many there are in all.
        total: Option<u64>,
    },
    /// Somebody came to a topic.
    Join {
        /// Which topic.
        topic: String,
        /// Who.
        client: Member,
    },
    /// Somebody left a topic.
    Leave {
        /// Which topic.
        topic: String,
        /// Who.
        client: Member,
    },
    /// A request was carried out.
    Ok {
        /// To how many clients a `broadcast` went.
        delivered: Option<u64>,
        /// From what an `unsubscribe` unsubscribed.
        topic: Option<String>,
    },
    /// A request, or a body, was wrong.
    Error(ErrorReply),
    /// The token's time is nearly over: the connection closes then, unless another one comes in a `refresh`.
    Expiring {
        /// When, in Unix milliseconds.
        expires_at: u64,
    },
    /// Answers `refresh`.
    Refreshed {
        /// When the new token's time is over, in Unix milliseconds; `None` where it has no end.
        expires_at: Option<u64>,
        /// What it may send to other clients from now on; `None` if the server restricts nobody.
        permissions: Option<Permissions>,
    },
    /// The last message: the connection closes with this code.
    Close(ClosedBy),
}

/// The fields of `handshake_response`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct HandshakeReply {
    /// Whether the client is in.
    pub accepted: bool,
    /// The client's id for this connection.
    pub client_id: Option<Uuid>,
    /// The server's name.
    pub server_name: String,
    /// The version that the server speaks.
    pub protocol_version: Option<String>,
    /// Why it was refused.
    pub reason: Option<String>,
    /// The bounds that hold on this connection.
    pub limits: Option<Limits>,
    /// Whether zstd was agreed on.
    pub zstd: bool,
    /// Who the client has proved to be.
    pub user: Option<String>,
    /// The name that others see, where it is not the one that the client asked for.
    pub client_name: Option<String>,
    /// When its token's time is over, in Unix milliseconds.
    pub expires_at: Option<u64>,
    /// What it may send to other clients; `None` if the server restricts nobody.
    pub permissions: Option<Permissions>,
}

impl HandshakeReply {
    /// A reply that refuses: `accepted` is false, and all that a client is told when it is accepted is absent.
    pub fn new(server_name: impl Into<String>) -> Self {
        Self {
            accepted: false,
            client_id: None,
            server_name: server_name.into(),
            protocol_version: Some(PROTOCOL_VERSION.into()),
            reason: None,
            limits: None,
            zstd: false,
            user: None,
            client_name: None,
            expires_at: None,
            permissions: None,
        }
    }
}

/// What a client may send to other clients; by default nothing. Topics have permissions of their own.
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

/// The bounds that a server tells its clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Limits {
    /// Largest body, in bytes, before and after inflating.
    pub max_message_bytes: u64,
    /// After this many idle milliseconds the server pings.
    pub ping_interval_ms: u64,
    /// And closes after this many without a sign of life.
    pub ping_timeout_ms: u64,
    /// Most request lanes open at once, the control lane not counted.
    pub max_request_lanes: u64,
    /// Most bytes of messages that are begun and not finished, on all lanes together; `None` where the server tells no bound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_unfinished_bytes: Option<u64>,
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
        }
    }
}

/// A connected client, as `client_list` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ClientInfo {
    /// Its id.
    pub id: Uuid,
    /// Its name, where it gave one.
    pub name: Option<String>,
    /// Who it has proved to be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Since when, in Unix milliseconds.
    pub connected_at: u64,
    /// Over which carrier: `quic`, `webtransport` or `websocket`.
    pub transport: Cow<'static, str>,
}

impl ClientInfo {
    /// A client that has been connected since `connected_at`, in Unix milliseconds, over `transport`.
    pub fn new(client: Member, connected_at: u64, transport: impl Into<Cow<'static, str>>) -> Self {
        let Member { id, name, user } = client;
        Self { id, name, user, connected_at, transport: transport.into() }
    }
}

/// A client on a topic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Member {
    /// Its id.
    pub id: Uuid,
    /// Its name, where it gave one.
    pub name: Option<String>,
    /// Who it has proved to be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
}

impl Member {
    /// A client by its id, its name and its user.
    pub fn new(id: Uuid, name: Option<String>, user: Option<String>) -> Self {
        Self { id, name, user }
    }
}

/// The fields of `subscribed`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Subscribed {
    /// The text that was subscribed to.
    pub topic: String,
    /// Which life of the log; absent for a pattern.
    pub epoch: Option<String>,
    /// The newest offset; absent for a pattern.
    pub offset: Option<u64>,
    /// Whether every message after `since` follows.
    pub recovered: Option<bool>,
    /// The lane on which messages come; absent for the control lane.
    pub lane: Option<u64>,
    /// Why it was not recovered.
    pub reason: Option<String>,
    /// `Some(false)` if the client may not publish to this topic; `None` for a pattern.
    pub may_publish: Option<bool>,
}

impl Subscribed {
    /// A subscription without a position, of which the messages come on the control lane.
    pub fn new(topic: impl Into<String>) -> Self {
        Self {
            topic: topic.into(),
            epoch: None,
            offset: None,
            recovered: None,
            lane: None,
            reason: None,
            may_publish: None,
        }
    }
}

/// The fields of `message`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TopicMessage {
    /// Which topic.
    pub topic: String,
    /// Its place in the topic's log.
    pub offset: u64,
    /// Who published it; absent where no client did.
    pub from: Option<Uuid>,
    /// What it says.
    pub payload: Payload,
    /// When, in Unix milliseconds.
    pub timestamp: u64,
}

impl TopicMessage {
    /// A message at `offset` of the topic's log, published at `timestamp`, in Unix milliseconds; without a sender.
    pub fn new(topic: impl Into<String>, offset: u64, payload: Payload, timestamp: u64) -> Self {
        Self { topic: topic.into(), offset, from: None, payload, timestamp }
    }
}

/// The fields of `error`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ErrorReply {
    /// After HTTP; [`ErrorCode`](super::ErrorCode) names the known ones.
    pub code: u16,
    /// What happened, on what, and what to do.
    pub message: String,
    /// When to try again, where the rate was limited.
    pub retry_after_ms: Option<u64>,
}

impl ErrorReply {
    /// An error with the number of an [`ErrorCode`](super::ErrorCode), and no time to try again.
    pub fn new(code: impl Into<u16>, message: impl Into<String>) -> Self {
        Self { code: code.into(), message: message.into(), retry_after_ms: None }
    }

    /// The same, to be tried again after so many milliseconds.
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
    /// Why.
    pub reason: String,
    /// When to come back, where the server drains.
    pub reconnect_after_ms: Option<u64>,
}

impl ClosedBy {
    /// A close with this code, and no time to come back.
    pub fn new(code: CloseCode, reason: impl Into<String>) -> Self {
        Self { code, reason: reason.into(), reconnect_after_ms: None }
    }

    /// The same, to be followed by a reconnect after so many milliseconds.
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
