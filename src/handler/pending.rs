//! Pending replies. The effect of such a request is settled, in the order of its lane; only the result in its reply
//! still depends on other workers. Meanwhile the lane continues.

use std::sync::Arc;

use tokio::sync::oneshot;
use uuid::Uuid;

use super::{Context, error};
use crate::message::{ErrorCode, RequestId, ServerMessage};
use crate::registry::Tally;

/// The reply that [`execute`](super::execute) leaves, with the request's id.
#[derive(Debug)]
pub(crate) enum Reply {
    /// `None` if the request wants no reply.
    Ready(Option<RequestId>, Option<ServerMessage>),
    Pending(Pending),
}

/// A reply whose content is not known yet.
#[derive(Debug)]
pub(crate) struct Pending {
    pub(super) id: Option<RequestId>,
    pub(super) on: PendingOn,
}

/// The result that a reply depends on.
#[derive(Debug)]
pub(super) enum PendingOn {
    /// The number of clients reached by a broadcast.
    Broadcast { from: Uuid, tally: Arc<Tally> },
    /// Whether the receiver of a `direct` or `signal` was still connected.
    Receiver { to: Uuid, taken: oneshot::Receiver<bool> },
}

impl Pending {
    /// Waits for the reply; `None` if none is wanted. Call it only until it has resolved; it is cancel safe until then.
    pub(crate) async fn resolve(&mut self, context: &Context) -> Option<ServerMessage> {
        match &mut self.on {
            PendingOn::Broadcast { from, tally } => {
                let delivered = tally.delivered().await;
                log_message!(
                    context,
                    client = %from,
                    clients = delivered,
                    "Broadcast message sent to {delivered} clients"
                );
                self.id.is_some().then_some(ServerMessage::Ok { delivered: Some(delivered), topic: None })
            }
            PendingOn::Receiver { to, taken } => Some(match taken.await {
                Ok(true) => ServerMessage::Ok { delivered: None, topic: None },
                _ => not_connected(*to),
            }),
        }
    }

    /// The id of the request.
    pub(crate) fn id(&self) -> Option<&RequestId> {
        self.id.as_ref()
    }
}

/// The error for a receiver that is not connected.
pub(super) fn not_connected(to: Uuid) -> ServerMessage {
    error(ErrorCode::NotFound, format!("to: no client {to} is connected; list_clients returns those that are"))
}
