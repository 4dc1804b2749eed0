//! The events of a subscription.

use std::fmt;
use std::ops::RangeInclusive;

use uuid::Uuid;

use crate::message::{ClosedBy, ErrorReply, Member, TopicMessage};

/// An event of a subscription, in the order of the topic.
///
/// Decide in every `match` about [`Missed`](Self::Missed) and [`Ended`](Self::Ended): an application that keeps state
/// has to fetch it again after the former, and to stop or to subscribe again after the latter.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum TopicEvent {
    /// A message was published.
    Message(TopicMessage),
    /// Messages are missing at this point.
    Missed(Missed),
    /// A client subscribed to the topic; only with [`presence`](super::SubscribeBuilder::presence).
    #[non_exhaustive]
    Join {
        /// The topic.
        topic: String,
        /// The client.
        member: Member,
    },
    /// A client left the topic; only with [`presence`](super::SubscribeBuilder::presence).
    #[non_exhaustive]
    Leave {
        /// The topic.
        topic: String,
        /// The client.
        member: Member,
    },
    /// The state of a member has changed; only with [`presence`](super::SubscribeBuilder::presence).
    #[non_exhaustive]
    State {
        /// The topic.
        topic: String,
        /// The member, with its state.
        member: Member,
    },
    /// A member whose connection was lost is back with another id, without a [`Leave`](Self::Leave) and a
    /// [`Join`](Self::Join); only with [`presence`](super::SubscribeBuilder::presence).
    #[non_exhaustive]
    Return {
        /// The topic.
        topic: String,
        /// The member.
        member: Member,
        /// The id that it had.
        was: Uuid,
    },
    /// The number of members has changed; only with [`occupancy`](super::SubscribeBuilder::occupancy), or with
    /// [`presence`](super::SubscribeBuilder::presence) where the server names no members.
    #[non_exhaustive]
    Occupancy {
        /// The topic.
        topic: String,
        /// The number of clients.
        clients: u64,
        /// The number of different users among them.
        users: u64,
    },
    /// The subscription has ended; nothing follows.
    Ended(Ended),
}

/// Messages that a subscription did not get. Those of a topic are available from
/// [`Client::history`](crate::Client::history) while its log keeps them.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Missed {
    /// The topic; or the subscription's pattern, if it is not known which of its topics are concerned.
    pub topic: String,
    /// Offsets of the first and the last of them, if known. Offsets do not always grow by one, so the range does not
    /// tell how many messages are missing. Unknown after a reconnect that could not resume.
    pub offsets: Option<RangeInclusive<u64>>,
    /// The reason, for people.
    pub reason: String,
}

/// Why a subscription ended.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ended {
    /// The server ended it, or refused it after a reconnect, for instance with code 403 because a new token no longer
    /// allows it.
    ByServer(ErrorReply),
    /// Another client has subscribed to its durable consumer, which is not shared. Do not subscribe again by yourself:
    /// the two would take the consumer from each other forever.
    #[non_exhaustive]
    TakenOver {
        /// The reason, for people.
        reason: String,
    },
    /// The client could not ask for it again after a reconnect.
    #[non_exhaustive]
    NotResumed {
        /// The reason, for people.
        reason: String,
    },
    /// The client was closed for good.
    Closed(ClosedBy),
}

impl Ended {
    pub(crate) fn of(reason: &str) -> Self {
        Self::NotResumed { reason: reason.to_owned() }
    }

    /// The reason, for people.
    pub fn reason(&self) -> &str {
        match self {
            Self::ByServer(error) => &error.message,
            Self::TakenOver { reason } | Self::NotResumed { reason } => reason,
            Self::Closed(closed) => &closed.reason,
        }
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ByServer(error) => write!(f, "{} - {}", error.code, error.message),
            Self::TakenOver { reason } | Self::NotResumed { reason } => f.write_str(reason),
            Self::Closed(closed) => write!(f, "{} - {}", closed.code, closed.reason),
        }
    }
}
