//! What a subscription hands out.

use std::ops::RangeInclusive;

use crate::message::{Member, TopicMessage};

/// What happens on a topic, in order.
///
/// Exhaustive on purpose: whoever matches on it decides about [`Missed`] and [`Ended`](Self::Ended) as well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TopicEvent {
    /// Somebody published.
    Message(TopicMessage),
    /// Here messages are missing.
    Missed(Missed),
    /// Somebody came; only where [`presence`](super::SubscribeBuilder::presence) was asked for.
    Join {
        /// To which topic.
        topic: String,
        /// Who.
        member: Member,
    },
    /// Somebody left; only where [`presence`](super::SubscribeBuilder::presence) was asked for.
    Leave {
        /// Which topic.
        topic: String,
        /// Who.
        member: Member,
    },
    /// The subscription is over; nothing follows.
    Ended {
        /// An [`ErrorCode`](crate::message::ErrorCode)'s number where the server ended it, a
        /// [`CloseCode`](crate::message::CloseCode)'s (1000 and above) where the client was closed for good.
        code: u16,
        /// Why, in words.
        reason: String,
    },
}

/// Messages that a subscription did not get. Of a topic they can be had by
/// [`Client::history`](crate::Client::history) while its log lasts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missed {
    /// The topic; or the pattern that was subscribed to, where it is not known which of its topics are concerned.
    pub topic: String,
    /// Offsets of the first and the last one, where these are known. Unknown after a reconnect that could not be bridged.
    pub offsets: Option<RangeInclusive<u64>>,
    /// Why, in words.
    pub reason: String,
}
