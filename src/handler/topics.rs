//! `subscribe`, `unsubscribe`, `publish`, `history` and `presence`: what clients ask of topics.

use std::sync::Arc;

use super::Context;
use crate::message::{
    ErrorReply, IdempotencyKey, Payload, RequestId, ServerMessage, Subscribe, TopicName, TopicPattern,
};
use crate::printable::Printable;
use crate::topic::{Publication, Subscriber, Wish};

/// What is to be published, once it is in the log of the server.
pub(super) fn publication(
    context: &Context,
    from: &Subscriber,
    topic: TopicName,
    payload: Payload,
    key: Option<IdempotencyKey>,
) -> Publication {
    let from = from.id();
    match (&payload.content, &payload.attachment) {
        (Some(content), _) => context.log_message(format_args!(
            "Publish from {from} to {}: {}",
            topic.as_str(),
            Printable::excerpt(content)
        )),
        (None, attachment) => {
            let bytes = attachment.as_ref().map_or(0, bytes::Bytes::len);
            context.log_message(format_args!("Publish from {from} to {}: {bytes} bytes", topic.as_str()));
        }
    }
    Publication { from, topic, payload, key }
}

/// The reply to a publish: an error whether or not a reply is wanted.
pub(super) fn published(published: Result<ServerMessage, ErrorReply>, wants_reply: bool) -> Option<ServerMessage> {
    match published {
        Ok(published) => wants_reply.then_some(published),
        Err(refused) => Some(ServerMessage::Error(refused)),
    }
}

pub(super) async fn subscribe(
    context: &Context,
    from: &Arc<Subscriber>,
    wanted: Subscribe,
    re: Option<&RequestId>,
    on_control: bool,
) -> Option<ServerMessage> {
    context.log_message(format_args!("Client {} subscribes to {}", from.id(), wanted.topic.as_str()));
    let subscribed = context.topics.subscribe(&Wish { who: from, wanted, re, on_control }).await;
    subscribed.unwrap_or_else(|refused| Some(ServerMessage::Error(refused)))
}

pub(super) async fn unsubscribe(context: &Context, from: &Arc<Subscriber>, topic: &TopicPattern) -> ServerMessage {
    context.log_message(format_args!("Client {} unsubscribes from {}", from.id(), topic.as_str()));
    context.topics.unsubscribe(from, topic).await.unwrap_or_else(ServerMessage::Error)
}
