//! The operations that clients ask for. Each is a variant, so that the compiler names every place
//! that a new one needs: its right in `permit`, and its effect in `execute` or `page`.

use std::sync::Arc;

use serde_json::value::RawValue;
use uuid::Uuid;

use crate::auth::Identity;
use crate::message::{Payload, Position, RequestId, Subscribe, Token, TopicName, TopicPattern};
use crate::topic::Publication;

/// An operation that may have to wait for others.
#[derive(Debug)]
pub(crate) enum Work {
    Broadcast(Payload),
    Direct { to: Uuid, payload: Payload },
    Signal { to: Uuid, data: Box<RawValue> },
    Subscribe(Subscribe),
    Unsubscribe(TopicPattern),
    Publish(Publication),
    Refresh(Token),
}

impl Work {
    /// Whether its place in the order of effects is quickly had, so that earlier replies of the lane may still be
    /// pending when it is carried out. The others wait for them: they may take long, or put their reply on the lane
    /// themselves.
    fn is_brief(&self) -> bool {
        match self {
            Self::Broadcast(_) | Self::Direct { .. } | Self::Signal { .. } => true,
            Self::Subscribe(_) | Self::Unsubscribe(_) | Self::Publish(_) | Self::Refresh(_) => false,
        }
    }
}

/// A page of a list or a log. It waits for nothing but the client's rate.
#[derive(Debug)]
pub(crate) enum Page {
    Clients { limit: u64, after: Option<Uuid> },
    History { topic: TopicName, since: Option<Position>, limit: u64, reverse: bool },
    Members(TopicName),
}

/// An operation that was permitted and is still to be done.
#[derive(Debug)]
pub(crate) enum Deferred {
    /// To be carried out by [`execute`](super::execute).
    Work(Requested<Work>),
    /// To be made by [`make_page`](super::make_page), once the client may have one.
    Page(Requested<Page>),
}

impl Deferred {
    /// Whether it may be carried out while earlier replies of its lane are pending.
    pub(crate) fn is_brief(&self) -> bool {
        matches!(self, Self::Work(work) if work.operation.is_brief())
    }
}

/// An operation with the id of its request.
#[derive(Debug)]
pub(crate) struct Requested<T> {
    pub(super) id: Option<RequestId>,
    /// The client's identity when it was permitted; another token may come before it is carried out.
    pub(super) identity: Arc<Identity>,
    pub(super) operation: T,
}
