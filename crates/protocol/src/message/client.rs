//! The messages of clients: one enum. `wire` parses and encodes it.

mod ack;
mod consumer;
mod request;
mod wire;

use bytes::Bytes;
use bytestring::ByteString;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::frame::CompressionOffer;

pub use self::ack::{Ack, AckOutcome, MAX_ACK_OFFSETS, MAX_DELAY_MS, Offsets};
pub use self::consumer::{
    ACK_WAIT_MS, AckMode, ConsumerFields, ConsumerName, ConsumerRequest, DEFAULT_ACK_WAIT_MS, DEFAULT_MAX_IN_FLIGHT,
    DurableConsumer, MAX_CONSUMER_BYTES, MAX_DELIVER, MAX_IN_FLIGHT,
};
pub use self::request::{
    Answer, Call, CallId, CallTarget, DEFAULT_REQUEST_TIMEOUT_MS, FAILURE_CODES, Failure, MAX_FAILURE_BYTES,
    REQUEST_TIMEOUT_MS,
};
use super::{
    ClientName, CloseCode, IdempotencyKey, Invalid, Json, MAX_REASON_BYTES, PROTOCOL_VERSION, Payload, Recipient,
    RequestId, Session, Token, TopicName, TopicPattern,
};

/// Most positions in a `handshake`.
pub const MAX_HANDSHAKE_POSITIONS: usize = 32;
/// Bounds of `max_rate` of a subscription, in messages per second.
pub const MAX_RATE: std::ops::RangeInclusive<u64> = 1..=1000;
/// Longest `filter`, in bytes.
pub const MAX_FILTER_BYTES: usize = 1024;

/// A client's message, with the id that replies repeat.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Request {
    /// The id that replies repeat as `re`, if any.
    pub id: Option<RequestId>,
    /// The message.
    pub message: ClientMessage,
}

/// A message of a client.
///
/// Exhaustive on purpose: a server handles each of them.
#[derive(Debug, Clone)]
pub enum ClientMessage {
    /// The first message of a connection.
    Handshake(Handshake),
    /// Requests an echo of its text.
    Text {
        /// The text.
        content: ByteString,
    },
    /// Requests an echo of its bytes.
    Binary {
        /// The bytes.
        attachment: Bytes,
    },
    /// Sends to every connected client, the sender included.
    Broadcast(Payload),
    /// Sends to one client, or to all of a user's.
    Direct {
        /// The receivers.
        to: Recipient,
        /// The content.
        payload: Payload,
    },
    /// Sends WebRTC signalling to one client, or to all of a user's.
    Signal {
        /// The receivers.
        to: Recipient,
        /// Any JSON, forwarded as it is.
        data: Json,
    },
    /// Asks another client, which answers with [`Reply`](Self::Reply).
    Request(Box<Call>),
    /// Answers a request that the server has passed on.
    Reply(Box<Answer>),
    /// Gives up an open request.
    Cancel {
        /// The id of that request.
        re: RequestId,
    },
    /// Requests a `pong`.
    Ping {
        /// Returned in the `pong`.
        timestamp: Option<u64>,
    },
    /// Answers the server's `ping`.
    Pong,
    /// Requests the connected clients.
    ListClients {
        /// Maximum number of clients on the page, 1 to [`MAX_PAGE`](super::MAX_PAGE).
        limit: u64,
        /// The page starts after this client.
        after: Option<Uuid>,
    },
    /// Subscribes to a topic or pattern.
    Subscribe(Subscribe),
    /// Says what became of messages of a durable consumer.
    Ack(Ack),
    /// Ends a subscription.
    Unsubscribe {
        /// The topic or pattern that was subscribed to.
        topic: TopicPattern,
        /// Whether the durable consumer of the subscription ends for good as well.
        forget: bool,
    },
    /// Publishes a message to a topic.
    Publish {
        /// The topic.
        topic: TopicName,
        /// The content.
        payload: Payload,
        /// Makes the publish idempotent.
        key: Option<IdempotencyKey>,
        /// Milliseconds after which the message is not delivered any more.
        ttl_ms: Option<u64>,
    },
    /// Requests a topic's past messages.
    History {
        /// The topic.
        topic: TopicName,
        /// Only messages after this position; with `reverse`, before it.
        since: Option<Position>,
        /// Only messages from this time on, in Unix milliseconds; with `reverse`, before it. Never beside `since`.
        since_time: Option<u64>,
        /// Maximum number of messages on the page, 1 to [`MAX_PAGE`](super::MAX_PAGE).
        limit: u64,
        /// Whether the newest message comes first.
        reverse: bool,
    },
    /// Requests the members of a topic.
    Presence {
        /// The topic.
        topic: TopicName,
        /// Maximum number of members on the page, 1 to [`MAX_PAGE`](super::MAX_PAGE).
        limit: u64,
        /// The page starts after this member.
        after: Option<Uuid>,
        /// Whether only the numbers are wanted, and no members.
        counts: bool,
    },
    /// Sets the client's state on a topic, for the other members.
    State {
        /// The topic.
        topic: TopicName,
        /// Any JSON; `None` removes it.
        state: Option<Json>,
    },
    /// Replaces the client's token, before it expires.
    Refresh {
        /// A token of the same user.
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
    /// Name shown to others.
    pub client_name: Option<ClientName>,
    /// The client's token.
    pub token: Option<Token>,
    /// The compressions that the client offers.
    pub compression: CompressionOffer,
    /// Whether the client answers requests that are addressed to it or to its user.
    pub requests: bool,
    /// The session that this connection continues: that of the client's previous connection.
    pub resume: Option<Session>,
    /// The session that this connection adds a lane to.
    pub attach: Option<Session>,
    /// Positions from which the subscriptions that the server makes begin: at most [`MAX_HANDSHAKE_POSITIONS`].
    pub since: Vec<(TopicName, Position)>,
}

impl Handshake {
    /// Creates a handshake for [`PROTOCOL_VERSION`], without a name, a token or compression.
    pub fn new() -> Self {
        Self {
            protocol_version: PROTOCOL_VERSION.into(),
            client_name: None,
            token: None,
            compression: CompressionOffer::default(),
            requests: false,
            resume: None,
            attach: None,
            since: Vec::new(),
        }
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
    /// Replay the messages after this position.
    pub since: Option<Position>,
    /// Replay the messages from this time on, in Unix milliseconds. Never beside `since`.
    pub since_time: Option<u64>,
    /// Number of the newest messages to replay.
    pub recent: Option<u64>,
    /// How messages are sent.
    pub delivery: DeliveryMode,
    /// The lane on which they are sent.
    pub lane: LaneChoice,
    /// Whether to send `join` and `leave` as well.
    pub presence: bool,
    /// Whether to send the numbers of members instead of `join` and `leave`. Never beside `presence`.
    pub occupancy: bool,
    /// The client's first state on the topic.
    pub state: Option<Json>,
    /// A durable consumer or queue group to take the messages from.
    pub consumer: Option<ConsumerRequest>,
    /// Whether the client answers requests to the topic.
    pub requests: bool,
    /// Most messages per second, within [`MAX_RATE`]: the newest of each interval.
    pub max_rate: Option<u64>,
    /// Whether the client gets what it publishes itself.
    pub echo: bool,
    /// Conditions on `meta`, an object of at most [`MAX_FILTER_BYTES`].
    pub filter: Option<Json>,
}

impl Subscribe {
    /// Creates a subscription to messages published from now on, delivered reliably on a lane of the topic's own.
    pub fn new(topic: impl Into<TopicPattern>) -> Self {
        Self {
            topic: topic.into(),
            since: None,
            since_time: None,
            recent: None,
            delivery: DeliveryMode::Stream,
            lane: LaneChoice::Own,
            presence: false,
            occupancy: false,
            state: None,
            consumer: None,
            requests: false,
            max_rate: None,
            echo: true,
            filter: None,
        }
    }
}

/// How a subscription's messages are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DeliveryMode {
    /// Reliably and in order.
    #[default]
    Stream,
    /// As datagrams; when the buffer is full, the oldest are dropped.
    Datagram,
}

/// The lane on which a subscription's messages are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LaneChoice {
    /// A lane of the topic's own, while any are left.
    #[default]
    Own,
    /// The control lane.
    Control,
    /// The lane of a second WebSocket, if there is one; on QUIC, as [`Own`](Self::Own).
    Bulk,
}

/// A position in a topic's log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// The epoch of the log.
    pub epoch: String,
    /// Offset of the last message seen.
    pub offset: u64,
}

/// The fields of a client's `close`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Close {
    code: CloseCode,
    reason: String,
}

impl Close {
    /// A close with this code and a reason for people.
    ///
    /// # Errors
    /// [`Invalid`] if a client may not send the code ([`CloseCode::is_sendable`]), or if the reason is longer than
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
