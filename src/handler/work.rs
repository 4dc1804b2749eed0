//! Requests that cannot be answered at once. Each operation is a variant, so that the compiler reports every place that
//! a new one needs: its right in `permit`, and its effect in `execute` or `page`.

use std::sync::Arc;

use uuid::Uuid;

use super::request::Exchange;
use crate::auth::Identity;
use crate::message::{Ack, Json, Payload, Position, Recipient, RequestId, Subscribe, Token, TopicName, TopicPattern};
use crate::topic::Publication;

/// An operation that may have to wait for others.
#[derive(Debug)]
pub(crate) enum Work {
    Broadcast(Payload),
    Direct {
        to: Recipient,
        payload: Payload,
    },
    Signal {
        to: Recipient,
        data: Json,
    },
    Subscribe(Subscribe),
    Ack(Ack),
    Unsubscribe {
        topic: TopicPattern,
        forget: bool,
    },
    Publish(Publication),
    Refresh(Token),
    /// Concerns a request that another client answers.
    Exchange(Exchange),
}

impl Work {
    /// Whether it takes its place in the order of effects quickly, so that earlier replies of the lane may still be
    /// pending when it is executed. The others wait for those replies: they may take long, or put their own reply on
    /// the lane.
    fn is_brief(&self) -> bool {
        match self {
            Self::Broadcast(_) | Self::Direct { .. } | Self::Signal { .. } | Self::Exchange(_) => true,
            Self::Subscribe(_) | Self::Ack(_) | Self::Unsubscribe { .. } | Self::Publish(_) | Self::Refresh(_) => false,
        }
    }
}

/// A page of a list or of a log. It waits only for the client's rate.
#[derive(Debug)]
pub(crate) enum Page {
    Clients { limit: u64, after: Option<Uuid> },
    History { topic: TopicName, since: Option<Position>, since_time: Option<u64>, limit: u64, reverse: bool },
    Members { topic: TopicName, limit: u64, after: Option<Uuid> },
}

/// A permitted request that is still to be executed.
#[derive(Debug)]
pub(crate) enum Deferred {
    /// Executed by [`execute`](super::execute).
    Work(Requested<Work>),
    /// Produced by [`make_page`](super::make_page), once the client's rate allows it.
    Page(Requested<Page>),
}

impl Deferred {
    /// Whether it may be executed while earlier replies of its lane are pending.
    pub(crate) fn is_brief(&self) -> bool {
        matches!(self, Self::Work(work) if work.operation.is_brief())
    }
}

/// An operation with the id of its request.
#[derive(Debug)]
pub(crate) struct Requested<T> {
    pub(super) id: Option<RequestId>,
    /// The client's identity when the operation was permitted; a `refresh` may change it before it is executed.
    pub(super) identity: Arc<Identity>,
    pub(super) operation: T,
}
