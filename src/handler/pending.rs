//! Pending replies. The effect of such a request is settled, in the order of its lane; only the result in its reply
//! still depends on other workers. Meanwhile the lane continues.

use std::sync::Arc;

use tokio::sync::oneshot;
use uuid::Uuid;

use super::{Context, Replies, error, publish};
use crate::message::{ErrorCode, RequestId, ServerMessage, TopicName};
use crate::registry::Tally;
use crate::topic::{Published, Receipt, TopicError};

/// The reply that [`execute`](super::execute) leaves, with the request's id.
#[derive(Debug)]
pub(crate) enum Reply {
    /// `None` if the request wants no reply.
    Ready(Option<RequestId>, Option<ServerMessage>),
    Pending(Pending),
}

/// Replies whose content is not known yet.
#[derive(Debug)]
pub(crate) enum Pending {
    /// To a `broadcast`: the number of clients reached.
    Broadcast { id: Option<RequestId>, from: Uuid, tally: Arc<Tally> },
    /// To a message to a user: the number of its connections reached.
    User { id: RequestId, tally: Arc<Tally> },
    /// To messages to one client: how many of them it accepted before its connection ended. The ids are of those that
    /// want a reply, with their number among the messages.
    Direct { to: Uuid, ids: Vec<(usize, RequestId)>, accepted: oneshot::Receiver<usize> },
    /// To a `publish` to a topic on a disk: once the message is stored.
    Publish { id: Option<RequestId>, topic: TopicName, receipt: Receipt },
}

/// The result that pending replies depend on.
#[derive(Debug)]
pub(crate) enum Resolved {
    /// Number of clients.
    Count(u64),
    Published(Result<Published, TopicError>),
}

impl Pending {
    /// Waits for the result. Call it only until it has resolved; it is cancel safe until then.
    pub(crate) async fn resolve(&mut self, context: &Context) -> Resolved {
        match self {
            Self::Broadcast { from, tally, .. } => {
                let delivered = tally.delivered().await;
                log_message!(
                    context,
                    client = %from,
                    clients = delivered,
                    "Broadcast message sent to {delivered} clients"
                );
                Resolved::Count(delivered)
            }
            Self::User { tally, .. } => Resolved::Count(tally.delivered().await),
            // A worker that has ended has no clients left.
            Self::Direct { accepted, .. } => Resolved::Count(accepted.await.unwrap_or(0) as u64),
            Self::Publish { receipt, .. } => Resolved::Published(receipt.resolve().await),
        }
    }

    /// Adds the replies that are wanted.
    pub(crate) fn put(&self, resolved: Resolved, replies: &mut Replies) {
        match (self, resolved) {
            (Self::Broadcast { id: Some(id), .. }, Resolved::Count(delivered)) => {
                replies.put(Some(id), &ServerMessage::Ok { delivered: Some(delivered), acked: None, topic: None });
            }
            // All have left meanwhile.
            (Self::User { id, .. }, Resolved::Count(0)) => {
                replies.put(Some(id), &no_connection());
            }
            (Self::User { id, .. }, Resolved::Count(delivered)) => {
                replies.put(Some(id), &ServerMessage::Ok { delivered: Some(delivered), acked: None, topic: None });
            }
            (Self::Direct { to, ids, .. }, Resolved::Count(accepted)) => put_direct(*to, ids, accepted, replies),
            (Self::Publish { id, topic, .. }, Resolved::Published(published)) => {
                if let Some(reply) = publish::reply(topic, published, id.is_some()) {
                    replies.put(id.as_ref(), &reply);
                }
            }
            // A broadcast without an id; each kind has its own result.
            _ => {}
        }
    }

    /// Whether it waits for a disk.
    pub(crate) fn is_storing(&self) -> bool {
        matches!(self, Self::Publish { .. })
    }

    /// Number of replies, at least one.
    pub(crate) fn replies(&self) -> usize {
        match self {
            Self::Broadcast { .. } | Self::User { .. } | Self::Publish { .. } => 1,
            Self::Direct { ids, .. } => ids.len().max(1),
        }
    }
}

/// Adds the replies to messages to one client that accepted so many of them.
pub(super) fn put_direct(to: Uuid, ids: &[(usize, RequestId)], accepted: u64, replies: &mut Replies) {
    for (number, id) in ids {
        let was_accepted = (*number as u64) < accepted;
        let reply = if was_accepted {
            ServerMessage::Ok { delivered: None, acked: None, topic: None }
        } else {
            not_connected(to)
        };
        replies.put(Some(id), &reply);
    }
}

/// The error for a receiver that is not connected.
pub(super) fn not_connected(to: Uuid) -> ServerMessage {
    error(ErrorCode::NotFound, format!("to: no client {to} is connected; list_clients returns those that are"))
}

/// The error for a user without a connection.
pub(super) fn no_connection() -> ServerMessage {
    error(ErrorCode::NotFound, "user: no client of this user is connected")
}
