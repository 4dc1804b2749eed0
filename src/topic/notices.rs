//! Notices to a topic's subscribers, besides its messages: joins, leaves, and dropped messages.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use quic_websocket_lane::DropNotice;

use super::topic::Topic;
use crate::envelope::EncodedMessage;
use crate::frame::exact;
use crate::message::{Member, ServerMessage, TopicName, TopicPattern};

/// A change among a topic's members.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    Join,
    Leave,
}

impl Change {
    pub(super) fn notice(self, topic: &TopicName, client: Member, compress_min_bytes: usize) -> Arc<EncodedMessage> {
        let topic = topic.as_str().to_owned();
        let message = match self {
            Self::Join => ServerMessage::Join { topic, client },
            Self::Leave => ServerMessage::Leave { topic, client },
        };
        EncodedMessage::new(&message, compress_min_bytes)
    }
}

impl DropNotice for Topic {
    fn name(&self) -> &str {
        self.name.as_str()
    }

    fn gap(&self, first: u64, last: u64) -> Bytes {
        gap(self.name.as_str(), first, last, "not read fast enough")
    }
}

/// Messages of a topic that its store does not give.
#[derive(Debug)]
pub(super) struct LossNotice {
    topic: Arc<Topic>,
    reason: &'static str,
}

impl LossNotice {
    /// They cannot be read.
    pub(super) fn damage(topic: &Arc<Topic>) -> Arc<dyn DropNotice> {
        Arc::new(Self { topic: Arc::clone(topic), reason: "damaged on disk" })
    }

    /// They could not be read this time.
    pub(super) fn unread(topic: &Arc<Topic>) -> Arc<dyn DropNotice> {
        Arc::new(Self { topic: Arc::clone(topic), reason: "could not be read from disk" })
    }

    /// The bounds of the topic's history have passed them.
    pub(super) fn retention(topic: &Arc<Topic>) -> Arc<dyn DropNotice> {
        Arc::new(Self { topic: Arc::clone(topic), reason: "no longer kept" })
    }
}

impl DropNotice for LossNotice {
    fn name(&self) -> &str {
        self.topic.name.as_str()
    }

    fn gap(&self, first: u64, last: u64) -> Bytes {
        gap(self.name(), first, last, self.reason)
    }
}

/// All topics that one subscription to a pattern brings.
#[derive(Debug)]
pub(super) struct PatternNotice(TopicPattern);

impl PatternNotice {
    /// `None` for a subscription to a single topic.
    pub(super) fn of(pattern: &TopicPattern) -> Option<Arc<dyn DropNotice>> {
        pattern.is_wildcard().then(|| Arc::new(Self(pattern.clone())) as Arc<dyn DropNotice>)
    }
}

impl DropNotice for PatternNotice {
    fn name(&self) -> &str {
        self.0.as_str()
    }

    /// The topics of these messages are not named, so neither are offsets.
    fn gap(&self, _first: u64, _last: u64) -> Bytes {
        gap(self.0.as_str(), 0, 0, "not read fast enough: messages of several topics")
    }
}

pub(super) fn gap(topic: &str, first: u64, last: u64, reason: &str) -> Bytes {
    let mut frame = BytesMut::new();
    let (topic, reason) = (topic.to_owned(), Some(reason.to_owned()));
    ServerMessage::Gap { topic, first, last, reason }.encode(None, &mut frame);
    exact(frame)
}
