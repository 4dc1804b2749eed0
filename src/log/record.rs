//! A message on its way into a log and in it. A [`Draft`] is everything that its publisher said; a store that writes to
//! a disk or to other nodes writes that. A [`Record`] is a draft with its place in the log, and what subscribers get of
//! it.

use std::sync::Arc;

use quic_websocket_store::NewRecord;
use serde::Deserialize;

use crate::envelope::EncodedMessage;
use crate::message::{
    IdempotencyKey, MAX_INTEGER, Payload, Sender, ServerMessage, TopicMessage, TopicName, encode_tail, now_ms,
};

/// A message without a place in a log.
#[derive(Debug, Clone)]
pub(crate) struct Draft {
    /// The client that published it; `None` for the admin API.
    pub(crate) from: Option<Sender>,
    pub(crate) payload: Payload,
    /// A second message with the same key is not added.
    pub(crate) key: Option<IdempotencyKey>,
    /// Milliseconds after which it is not delivered any more.
    pub(crate) ttl_ms: Option<u64>,
}

/// A message with its place in a log. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Record {
    pub(crate) offset: u64,
    /// Arrival time, on the monotonic clock that measures ages.
    pub(super) at_ms: u64,
    /// The `message` that every subscriber gets; it does not depend on the receiver. Encoded once, with the offset,
    /// however often it is delivered and replayed.
    pub(crate) encoded: Arc<EncodedMessage>,
}

impl Draft {
    /// The message as a store keeps it.
    pub(crate) fn to_store(&self) -> NewRecord {
        // The topic and the offset are not in the tail.
        let message = self.message("", 0);
        NewRecord {
            at_ms: message.timestamp,
            tail: encode_tail(&message),
            attachment: self.payload.attachment.clone(),
            key: self.key.as_ref().map(|key| key.as_str().into()),
        }
    }

    /// The message with its place in a topic, accepted now.
    fn message(&self, topic: &str, offset: u64) -> TopicMessage {
        let mut message = TopicMessage::new(topic, offset, self.payload.clone(), now_ms());
        message.from = self.from.clone();
        message.expires_at = self.ttl_ms.map(|ttl_ms| message.timestamp.saturating_add(ttl_ms).min(MAX_INTEGER));
        message
    }
}

impl Record {
    /// Its time in Unix milliseconds, as subscribers see it.
    pub(super) fn timestamp(&self) -> Option<u64> {
        #[derive(Deserialize)]
        struct Times {
            timestamp: u64,
        }
        let body = self.encoded.body().ok()?;
        serde_json::from_slice(&body.json).ok().map(|Times { timestamp }| timestamp)
    }

    /// Whether its publisher's `ttl_ms` is over, at a time in Unix milliseconds.
    pub(crate) fn is_expired(&self, now_ms: u64) -> bool {
        self.encoded.expires_at().is_some_and(|expires_at| expires_at <= now_ms)
    }

    /// A message that a store has kept.
    pub(crate) fn stored(
        topic: &TopicName,
        record: &quic_websocket_store::Record,
        at_ms: u64,
        compress_min_bytes: usize,
    ) -> Self {
        let content = (&record.tail[..], record.attachment.as_deref());
        let encoded = EncodedMessage::with_tail((topic.as_str(), record.offset), content, compress_min_bytes);
        Self { offset: record.offset, at_ms, encoded }
    }

    pub(super) fn new(topic: &TopicName, offset: u64, at_ms: u64, draft: &Draft, compress_min_bytes: usize) -> Self {
        let message = draft.message(topic.as_str(), offset);
        Self { offset, at_ms, encoded: EncodedMessage::new(&ServerMessage::Message(message), compress_min_bytes) }
    }
}
