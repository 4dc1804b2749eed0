//! `broadcast`, `direct` and `signal`: messages from one client to others. Encoded once, whatever the number of
//! receivers.

use super::pending::{Pending, Reply, no_connection, not_connected};
use super::{Caller, Context, Replies, Work};
use crate::Printable;
use crate::envelope::{EncodedBatch, EncodedMessage};
use crate::message::{Json, Payload, Recipient, RequestId, ServerMessage, UserName, now_ms};
use crate::registry::{DirectBatch, Found};

/// Sends `payload` to every client, including its sender. The reply has the number of receivers.
pub(super) async fn broadcast(context: &Context, by: &Caller, payload: Payload, id: Option<RequestId>) -> Reply {
    let from = by.client.id();
    match (&payload.content, &payload.attachment) {
        (Some(content), _) => {
            log_message!(context, client = %from, "Broadcast message from {from}: {}", Printable::excerpt(content));
        }
        (None, attachment) => {
            let bytes = attachment.as_ref().map_or(0, bytes::Bytes::len);
            log_message!(context, client = %from, bytes, "Broadcast message from {from}: {bytes} bytes");
        }
    }
    let message = ServerMessage::Broadcast { from: by.client.sender().clone(), payload, timestamp: now_ms() };
    let tally = context.registry.broadcast(EncodedMessage::new(&message, context.compress_min_bytes())).await;
    if id.is_none() && !context.logs_messages() {
        return Reply::Ready(None, None);
    }
    Reply::Pending(Pending::Broadcast { id, from, tally })
}

/// The message that a `direct` becomes, with a time in Unix milliseconds.
pub(super) fn direct(
    context: &Context,
    by: &Caller,
    to: &Recipient,
    payload: Payload,
    timestamp: u64,
) -> ServerMessage {
    let from = by.client.id();
    log_message!(context, client = %from, to = %to, "Direct message from {from} to {to}");
    ServerMessage::Direct { from: by.client.sender().clone(), payload, timestamp }
}

/// The message that a `signal` becomes, with a time in Unix milliseconds.
pub(super) fn signal(context: &Context, by: &Caller, to: &Recipient, data: Json, timestamp: u64) -> ServerMessage {
    let from = by.client.id();
    log_message!(context, client = %from, to = %to, "Signal from {from} to {to}");
    ServerMessage::Signal { from: by.client.sender().clone(), data, timestamp }
}

/// Sends a `direct` or `signal` if that is possible at once: it joins those to the same client that leave with the
/// replies. Returns other work, and what has to wait: for room in an inbox or, if it is for its own sender, for the
/// replies before it. `timestamp` returns the time in Unix milliseconds.
pub(super) fn now(
    context: &Context,
    by: &Caller,
    work: Work,
    id: Option<RequestId>,
    replies: &mut Replies,
    timestamp: impl FnOnce() -> u64,
) -> Option<(Work, Option<RequestId>)> {
    let (from, worker) = (by.client.id(), by.client.worker);
    let (to, bytes) = match &work {
        Work::Direct { to: Recipient::Client(to), payload } => (*to, payload.len()),
        Work::Signal { to: Recipient::Client(to), data } => (*to, data.len()),
        _ => return Some((work, id)),
    };
    if to == from || !replies.accepts_pending {
        return Some((work, id));
    }
    if !replies.batch().is_some_and(|batch| batch.takes(&context.registry, worker, to, None, bytes)) {
        replies.deliver();
        match context.registry.route(worker, to) {
            Found::Route(route) => replies.begin(DirectBatch::new(to, route, context.compress_min_bytes())),
            Found::Full => return Some((work, id)),
            Found::NotConnected => {
                replies.put(id.as_ref(), &not_connected(to));
                return None;
            }
        }
    }
    let message = match work {
        Work::Direct { to, payload } => direct(context, by, &to, payload, timestamp()),
        Work::Signal { to, data } => signal(context, by, &to, data, timestamp()),
        other => return Some((other, id)),
    };
    replies.join(&message, bytes, id);
    None
}

/// Sends a message with so many bytes of content to its receivers, and may wait. A missing receiver is an error; if no
/// reply is wanted, it is reported only if it is known at once.
pub(super) async fn to_one(
    context: &Context,
    to: &Recipient,
    message: &ServerMessage,
    bytes: usize,
    id: Option<RequestId>,
) -> Reply {
    let to = match to {
        Recipient::Client(to) => *to,
        Recipient::User(user) => return to_user(context, user, message, id).await,
    };
    let mut batch = EncodedBatch::new(context.compress_min_bytes());
    batch.put(message, bytes);
    match (context.registry.direct(to, batch).await, id) {
        (None, id) => Reply::Ready(id, Some(not_connected(to))),
        (Some(_), None) => Reply::Ready(None, None),
        (Some(accepted), Some(id)) => Reply::Pending(Pending::Direct { to, ids: vec![(0, id)], accepted }),
    }
}

/// Sends a message to all connections of a user, the sender's own included. The reply has their number.
async fn to_user(context: &Context, user: &UserName, message: &ServerMessage, id: Option<RequestId>) -> Reply {
    let encoded = EncodedMessage::new(message, context.compress_min_bytes());
    match (context.registry.to_user(user.as_str(), encoded).await, id) {
        (None, id) => Reply::Ready(id, Some(no_connection())),
        (Some(_), None) => Reply::Ready(None, None),
        (Some(tally), Some(id)) => Reply::Pending(Pending::User { id, tally }),
    }
}
