//! `broadcast`, `direct` and `signal`: messages from one client to others. Encoded once, whatever the number of
//! receivers.

use uuid::Uuid;

use super::Context;
use super::pending::{Pending, PendingOn, Reply, not_connected};
use crate::Printable;
use crate::envelope::EncodedMessage;
use crate::message::{Payload, RequestId, ServerMessage, now_ms};

/// Sends `payload` to every client, including its sender. The reply has the number of receivers.
pub(super) async fn broadcast(context: &Context, from: Uuid, payload: Payload, id: Option<RequestId>) -> Reply {
    match (&payload.content, &payload.attachment) {
        (Some(content), _) => {
            log_message!(context, client = %from, "Broadcast message from {from}: {}", Printable::excerpt(content));
        }
        (None, attachment) => {
            let bytes = attachment.as_ref().map_or(0, bytes::Bytes::len);
            log_message!(context, client = %from, bytes, "Broadcast message from {from}: {bytes} bytes");
        }
    }
    let message = ServerMessage::Broadcast { from, payload, timestamp: now_ms() };
    let tally = context.registry.broadcast(EncodedMessage::new(&message, context.compress_min_bytes())).await;
    if id.is_none() && !context.logs_messages() {
        return Reply::Ready(None, None);
    }
    Reply::Pending(Pending { id, on: PendingOn::Broadcast { from, tally } })
}

/// Sends a message to one client. A missing receiver is an error; if no reply is wanted, it is reported only if it is
/// known at once.
pub(super) async fn to_one(context: &Context, to: Uuid, message: &ServerMessage, id: Option<RequestId>) -> Reply {
    match context.registry.direct(to, EncodedMessage::new(message, context.compress_min_bytes())).await {
        None => Reply::Ready(id, Some(not_connected(to))),
        Some(_) if id.is_none() => Reply::Ready(None, None),
        Some(taken) => Reply::Pending(Pending { id, on: PendingOn::Receiver { to, taken } }),
    }
}
