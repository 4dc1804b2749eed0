//! Pending replies. The effect of such a request is settled, in the order of its lane; only the result in its reply
//! still depends on other workers. Meanwhile the lane continues.

use std::sync::Arc;

use tokio::sync::oneshot;
use uuid::Uuid;

use super::{Context, Replies, error};
use crate::message::{ErrorCode, RequestId, ServerMessage};
use crate::registry::Tally;

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
    /// To messages to one client: how many of them it accepted before its connection ended. The ids are of those that
    /// want a reply, with their number among the messages.
    Direct { to: Uuid, ids: Vec<(usize, RequestId)>, accepted: oneshot::Receiver<usize> },
}

/// The result that pending replies depend on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Resolved(u64);

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
                Resolved(delivered)
            }
            // A worker that has ended has no clients left.
            Self::Direct { accepted, .. } => Resolved(accepted.await.unwrap_or(0) as u64),
        }
    }

    /// Adds the replies that are wanted.
    pub(crate) fn put(&self, Resolved(result): Resolved, replies: &mut Replies) {
        match self {
            Self::Broadcast { id: Some(id), .. } => {
                replies.put(Some(id), &ServerMessage::Ok { delivered: Some(result), acked: None, topic: None });
            }
            Self::Broadcast { id: None, .. } => {}
            Self::Direct { to, ids, .. } => put_direct(*to, ids, result, replies),
        }
    }

    /// Number of replies, at least one.
    pub(crate) fn replies(&self) -> usize {
        match self {
            Self::Broadcast { .. } => 1,
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
