//! `broadcast`, `direct` and `signal`: from one client to others. Encoded once, whatever the number of receivers.

use uuid::Uuid;

use super::{Context, error};
use crate::Printable;
use crate::envelope::EncodedMessage;
use crate::message::{ErrorCode, Payload, ServerMessage, now_ms};

/// Sends `payload` to every client, its sender included. If a reply is wanted, waits until it has gone out to all.
pub(super) async fn broadcast(
    context: &Context,
    from: Uuid,
    payload: Payload,
    wants_reply: bool,
) -> Option<ServerMessage> {
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
    if !wants_reply && !context.logs_messages() {
        return None;
    }
    let delivered = tally.delivered().await;
    log_message!(context, client = %from, clients = delivered, "Broadcast message sent to {delivered} clients");
    wants_reply.then_some(ServerMessage::Ok { delivered: Some(delivered), topic: None })
}

/// Sends a message to one client. A missing receiver is an error whether or not a reply is wanted.
pub(super) async fn to_one(
    context: &Context,
    to: Uuid,
    message: &ServerMessage,
    wants_reply: bool,
) -> Option<ServerMessage> {
    let gone =
        || Some(error(ErrorCode::NotFound, format!("to: no client {to} is connected; list_clients tells who is")));
    let Some(answer) = context.registry.direct(to, EncodedMessage::new(message, context.compress_min_bytes())).await
    else {
        return gone();
    };
    if !wants_reply {
        return None;
    }
    match answer.await {
        Ok(true) => Some(ServerMessage::Ok { delivered: None, topic: None }),
        _ => gone(),
    }
}
