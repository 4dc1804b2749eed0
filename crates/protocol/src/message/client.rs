//! What clients say: one enum. Its reading and writing are in `wire`.

mod wire;

use bytes::Bytes;
use bytestring::ByteString;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use uuid::Uuid;

use super::{
    ClientName, CloseCode, IdempotencyKey, Invalid, MAX_REASON_BYTES, PROTOCOL_VERSION, Payload, RequestId, Token,
    TopicName, TopicPattern,
};

/// A client's message with the id that its replies repeat.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Request {
    /// The id, where the client wants to tell replies apart.
    pub id: Option<RequestId>,
    /// What it asks.
    pub message: ClientMessage,
}

/// What a client may say.
///
/// Exhaustive on purpose: a server decides about each of them.
#[derive(Debug, Clone)]
pub enum ClientMessage {
    /// The first message of a connection.
    Handshake(Handshake),
    /// Asks for its text back.
    Text {
        /// The text.
        content: ByteString,
    },
    /// Asks for its bytes back.
    Binary {
        /// The bytes.
        attachment: Bytes,
    },
    /// For every connected client, its sender included.
    Broadcast(Payload),
    /// For one client.
    Direct {
        /// The receiver's id.
        to: Uuid,
        /// What it gets.
        payload: Payload,
    },
    /// For one client: WebRTC signalling.
    Signal {
        /// The receiver's id.
        to: Uuid,
        /// Any JSON, handed on as it is.
        data: Box<RawValue>,
    },
    /// Asks for a `pong`.
    Ping {
        /// Returned in the `pong`.
        timestamp: Option<u64>,
    },
    /// Answers the server's `ping`.
    Pong,
    /// Asks who is connected.
    ListClients {
        /// Most clients on the page, 1 to [`MAX_PAGE`](super::MAX_PAGE).
        limit: u64,
        /// The page begins behind this client.
        after: Option<Uuid>,
    },
    /// Asks for a topic's messages.
    Subscribe(Subscribe),
    /// Ends a subscription.
    Unsubscribe {
        /// The text that was subscribed to.
        topic: TopicPattern,
    },
    /// Adds a message to a topic.
    Publish {
        /// Where to.
        topic: TopicName,
        /// What.
        payload: Payload,
        /// Makes a repeated publish harmless.
        key: Option<IdempotencyKey>,
    },
    /// Asks for a topic's past messages.
    History {
        /// Of which topic.
        topic: TopicName,
        /// Only what came after.
        since: Option<Position>,
        /// Most messages on the page, 1 to [`MAX_PAGE`](super::MAX_PAGE).
        limit: u64,
        /// The newest first.
        reverse: bool,
    },
    /// Asks who is on a topic.
    Presence {
        /// Which topic.
        topic: TopicName,
    },
    /// Brings another token, before the first one expires.
    Refresh {
        /// Of the same user.
        token: Token,
    },
    /// Asks the server to close the connection.
    Close(Close),
}

/// The fields of `handshake`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Handshake {
    /// `MAJOR.MINOR`; the major number must be the server's.
    pub protocol_version: String,
    /// The name shown to others.
    pub client_name: Option<ClientName>,
    /// Proof of who the client is.
    pub token: Option<Token>,
    /// Whether the client takes and may send zstd bodies.
    pub zstd: bool,
}

impl Handshake {
    /// A handshake for [`PROTOCOL_VERSION`], without a name, a token or compression.
    pub fn new() -> Self {
        Self { protocol_version: PROTOCOL_VERSION.into(), client_name: None, token: None, zstd: false }
    }
}

impl Default for Handshake {
    fn default() -> Self {
        Self::new()
    }
}

/// The fields of `subscribe`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Subscribe {
    /// A topic, or a pattern.
    pub topic: TopicPattern,
    /// Replay what came after this position.
    pub since: Option<Position>,
    /// Replay this many of the newest messages.
    pub recent: Option<u64>,
    /// How messages travel.
    pub delivery: DeliveryMode,
    /// On which lane they travel.
    pub lane: LaneChoice,
    /// Tell of joins and leaves as well.
    pub presence: bool,
}

impl Subscribe {
    /// A subscription to the messages that are published from now on: reliably, on a lane of the topic's own.
    pub fn new(topic: impl Into<TopicPattern>) -> Self {
        Self {
            topic: topic.into(),
            since: None,
            recent: None,
            delivery: DeliveryMode::Stream,
            lane: LaneChoice::Own,
            presence: false,
        }
    }
}

/// How a subscription's messages travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DeliveryMode {
    /// Reliably and in order.
    #[default]
    Stream,
    /// As datagrams; when the buffer is full, the oldest are dropped.
    Datagram,
}

/// On which lane a subscription's messages travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LaneChoice {
    /// A lane of the topic's own while there are any left.
    #[default]
    Own,
    /// The control lane.
    Control,
}

/// A place in a topic's log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// Which life of the log.
    pub epoch: String,
    /// The last offset seen.
    pub offset: u64,
}

/// The fields of a client's `close`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Close {
    code: CloseCode,
    reason: String,
}

impl Close {
    /// With which code the server is to close, and why, in words for people.
    ///
    /// # Errors
    /// [`Invalid`] where a client may not send the code ([`CloseCode::is_sendable`]), or where the reason is longer than
    /// [`MAX_REASON_BYTES`].
    pub fn new(code: CloseCode, reason: impl Into<String>) -> Result<Self, Invalid> {
        let reason = reason.into();
        if !code.is_sendable() {
            return Err(Invalid::field("code: 1000-1003, 1007-1014 and 3000-4999 are allowed"));
        }
        if reason.len() > MAX_REASON_BYTES {
            return Err(Invalid::field(format!("reason: at most {MAX_REASON_BYTES} bytes are allowed")));
        }
        Ok(Self { code, reason })
    }

    /// The code.
    pub fn code(&self) -> CloseCode {
        self.code
    }

    /// The reason.
    pub fn reason(&self) -> &str {
        &self.reason
    }
}

impl Default for Close {
    fn default() -> Self {
        Self { code: CloseCode::NORMAL, reason: String::new() }
    }
}
