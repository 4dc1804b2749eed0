//! Notices to a topic's subscribers, besides its messages: events among its members, and dropped messages.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use quic_websocket_lane::DropNotice;
use uuid::Uuid;

use super::topic::Topic;
use crate::envelope::EncodedMessage;
use crate::frame::exact;
use crate::message::{Member, ServerMessage, TopicName, TopicPattern};
use crate::presence::{Event, Occupancy, Seen};

/// An event among a topic's members, encoded for its watchers.
#[derive(Debug)]
pub(super) struct PresenceNotice {
    /// The client that is not told: the event is about itself.
    pub(super) except: Option<Uuid>,
    pub(super) encoded: Arc<EncodedMessage>,
}

impl PresenceNotice {
    pub(super) fn new(topic: &TopicName, event: &Event, compress_min_bytes: usize) -> Self {
        let name = || topic.as_str().to_owned();
        let (except, message) = match event {
            Event::Join(seen) => (Some(seen.who.id), ServerMessage::Join { topic: name(), client: member(seen) }),
            Event::Leave(seen) => (Some(seen.who.id), ServerMessage::Leave { topic: name(), client: member(seen) }),
            Event::Return { seen, was } => {
                (Some(seen.who.id), ServerMessage::Return { topic: name(), client: member(seen), was: *was })
            }
            Event::State { seen, by } => (Some(*by), ServerMessage::State { topic: name(), client: member(seen) }),
            Event::Occupancy(count) => (None, occupancy(topic, *count)),
        };
        Self { except, encoded: EncodedMessage::new(&message, compress_min_bytes) }
    }

    /// Whether it is about the number of members alone: all others are about one of them.
    pub(super) fn is_count(&self) -> bool {
        self.except.is_none()
    }
}

/// A member as it is shown on the wire.
pub(super) fn member(seen: &Seen) -> Member {
    let mut member = Member::clone(&seen.who);
    (member.state, member.away, member.clients) = (seen.state.clone(), seen.is_away, seen.clients);
    member
}

pub(super) fn occupancy(topic: &TopicName, count: Occupancy) -> ServerMessage {
    let Occupancy { clients, users } = count;
    ServerMessage::Occupancy { topic: topic.as_str().to_owned(), clients, users }
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
