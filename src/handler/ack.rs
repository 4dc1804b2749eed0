//! `ack`: what became of messages of a durable consumer.

use super::{Caller, Context};
use crate::message::{Ack, ErrorReply, ServerMessage};
use crate::topic::TopicError;

/// Acknowledges if that is possible at once, and returns the reply; otherwise `None`, and the caller uses [`wait`].
pub(super) fn now(context: &Context, by: &Caller, ack: &Ack, wants_reply: bool) -> Option<Option<ServerMessage>> {
    let acked = context.topics.acknowledge_now(&by.client, ack, wants_reply)?;
    Some(reply(acked, wants_reply))
}

/// Acknowledges; waits until that is as safe as the topic promises.
pub(super) async fn wait(context: &Context, by: &Caller, ack: &Ack, wants_reply: bool) -> Option<ServerMessage> {
    let acked = context.topics.acknowledge(&by.client, ack, wants_reply).await;
    reply(acked, wants_reply)
}

/// The reply to an acknowledgement. An error is always sent, even if no reply was requested.
fn reply(acked: Result<u64, TopicError>, wants_reply: bool) -> Option<ServerMessage> {
    match acked {
        Ok(acked) => wants_reply.then(|| ServerMessage::Ok { delivered: None, acked: Some(acked), topic: None }),
        Err(refused) => Some(ServerMessage::Error(ErrorReply::from(refused))),
    }
}
