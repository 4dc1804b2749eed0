//! `subscribed` and `message`.

use serde::de::DeserializeOwned;

use crate::message::{Payload, Sender};

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
