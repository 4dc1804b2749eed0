//! Why topics refuse an operation, in words for its user. `handler` makes `error` replies of these.

use std::time::Duration;

use quic_websocket_store::Refusal;
use thiserror::Error;

use crate::message::{ConsumerName, TopicName, TopicPattern};
use crate::narrow::FilterError;

/// A refused operation. It had no effect.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum TopicError {
    /// The server has as many topics as its settings allow.
    #[error("this server has {0} topics and takes no more")]
    TooManyTopics(usize),
    /// The topic does not exist yet, and the client creates topics faster than it may.
    #[error(
        "{} would be new, and this client creates more topics than it may; send this again in {retry_after_ms} ms",
        topic.as_str()
    )]
    TooManyNewTopics { topic: TopicName, retry_after_ms: u64 },
    /// Under the policy `block`, a subscriber had no room in time.
    #[error(
        "a subscriber of {} does not read, and had no room within {within:?}: nothing was published",
        topic.as_str()
    )]
    Blocked { topic: TopicName, within: Duration },
    /// The store takes nothing at present.
    #[error("{} takes nothing at present: {refusal}", topic.as_str())]
    NotStored { topic: TopicName, refusal: Refusal },
    /// The store took a message, and could not store it, or does not know whether it did.
    #[error("not stored in {}, or not known to be: {cause}; repeat it, if it has a key with the same", topic.as_str())]
    Unsure { topic: TopicName, cause: String },
    /// The store could not read.
    #[error("{} cannot be read: {cause}", topic.as_str())]
    NotRead { topic: TopicName, cause: String },
    /// The store has as many topics as its settings allow.
    #[error("this server keeps {0} topics on its disk and takes no more")]
    TooManyStored(u64),
    /// The topic's rule turns presence off.
    #[error("{} does not list its members", .0.as_str())]
    NoMembers(TopicName),
    /// The topic's rule shows only the number of members.
    #[error("{} shows only how many members it has, not what they are or do", .0.as_str())]
    OnlyCounts(TopicName),
    /// The client is already subscribed to this text.
    #[error("already subscribed to {}; unsubscribe first", .0.as_str())]
    Subscribed(TopicPattern),
    /// The client has as many subscriptions as it may.
    #[error("a client may have {0} subscriptions; one to a pattern can take the place of many")]
    TooManySubscriptions(usize),
    /// The client is not subscribed to this text.
    #[error("not subscribed to {}", .0.as_str())]
    NotSubscribed(TopicPattern),
    /// The topic's rule allows no durable consumers.
    #[error("{} has no durable consumers", .0.as_str())]
    NoConsumers(TopicName),
    /// The topic keeps nothing that a consumer could get later.
    #[error("{} keeps no messages, so it has no durable consumers", .0.as_str())]
    NoHistory(TopicName),
    /// The topic has no consumer of this name.
    #[error("{} has no consumer {durable}; subscribe with durable to make one", topic.as_str())]
    NoConsumer { topic: TopicName, durable: ConsumerName },
    /// The consumer was made with other settings.
    #[error(
        "the consumer {durable} of {} was made with {field} {value}; send that, or use another name",
        topic.as_str()
    )]
    OtherConsumer { topic: TopicName, durable: ConsumerName, field: &'static str, value: String },
    /// What a consumer knows cannot be read from the disk.
    #[error("the consumer {durable} of {} cannot be read ({cause}); forget it, or use another name", topic.as_str())]
    ConsumerUnreadable { topic: TopicName, durable: ConsumerName, cause: String },
    /// A new consumer could not be stored.
    #[error("the consumer {durable} of {} could not be made ({cause}); try again", topic.as_str())]
    ConsumerNotMade { topic: TopicName, durable: ConsumerName, cause: String },
    /// What a consumer knows could not be stored.
    #[error(
        "the consumer {durable} of {} goes on, and is not known to be stored ({cause}): after a restart, messages may \
         come again",
        topic.as_str()
    )]
    ConsumerUnsure { topic: TopicName, durable: ConsumerName, cause: String },
    /// The topic has as many consumers as its settings allow.
    #[error("{} has {most} durable consumers and takes no more; forget one first", topic.as_str())]
    TooManyConsumers { topic: TopicName, most: usize },
    /// The server has as many consumers as its settings allow.
    #[error("this server has {0} durable consumers and takes no more")]
    ServerFullOfConsumers(usize),
    /// The consumer has as many members as its settings allow.
    #[error("the consumer {durable} of {} has {most} clients and takes no more", topic.as_str())]
    TooManyMembers { topic: TopicName, durable: ConsumerName, most: usize },
    /// A subscription's filter cannot be applied.
    #[error("{0}")]
    Filter(#[from] FilterError),
    /// The client is leaving.
    #[error("the connection is closing")]
    Closing,
}

impl TopicError {
    /// Whether the request named a durable consumer that cannot be had, and not a topic.
    pub(crate) fn is_about_consumers(&self) -> bool {
        matches!(
            self,
            Self::NoConsumers(_)
                | Self::NoHistory(_)
                | Self::NoConsumer { .. }
                | Self::OtherConsumer { .. }
                | Self::ConsumerUnreadable { .. }
                | Self::ConsumerUnsure { .. }
                | Self::ConsumerNotMade { .. }
                | Self::TooManyConsumers { .. }
                | Self::ServerFullOfConsumers(_)
                | Self::TooManyMembers { .. }
        )
    }
}
