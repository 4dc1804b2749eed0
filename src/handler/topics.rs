//! `subscribe`, `unsubscribe`, `publish`, `history` and `presence`: what clients ask of topics.

use std::sync::Arc;

use bytes::BytesMut;

use super::Context;
use crate::Printable;
use crate::frame::exact;
use crate::message::{
    ErrorReply, IdempotencyKey, Payload, RequestId, ServerMessage, Subscribe, TopicName, TopicPattern,
};
use crate::topic::{Client, Farewell, Publication, SubscribeRequest};

/// What is to be published, once it is in the log of the server.
pub(super) fn publication(
    context: &Context,
    from: &Client,
    topic: TopicName,
    payload: Payload,
    key: Option<IdempotencyKey>,
) -> Publication {
    let (from, to) = (from.id(), topic.as_str());
    match (&payload.content, &payload.attachment) {
        (Some(content), _) => {
            let content = Printable::excerpt(content);
            log_message!(context, client = %from, topic = to, "Publish from {from} to {to}: {content}");
        }
        (None, attachment) => {
            let bytes = attachment.as_ref().map_or(0, bytes::Bytes::len);
            log_message!(context, client = %from, topic = to, bytes, "Publish from {from} to {to}: {bytes} bytes");
        }
    }
    Publication { from: Some(from), topic, payload, key }
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
    from: &Arc<Client>,
    wanted: Subscribe,
    re: Option<&RequestId>,
    on_control: bool,
    is_read_only: bool,
) -> Option<ServerMessage> {
    let (id, topic) = (from.id(), wanted.topic.as_str());
    log_message!(context, client = %id, topic, "Client {id} subscribes to {topic}");
    let subscribed =
        context.topics.subscribe(&SubscribeRequest { who: from, wanted, re, on_control, is_read_only }).await;
    subscribed.unwrap_or_else(|refused| Some(ServerMessage::Error(refused)))
}

/// Gives the reply, or nothing where it is on the control lane already.
pub(super) async fn unsubscribe(
    context: &Context,
    from: &Arc<Client>,
    topic: &TopicPattern,
    re: Option<&RequestId>,
    on_control: bool,
) -> Option<ServerMessage> {
    let (id, text) = (from.id(), topic.as_str());
    log_message!(context, client = %id, topic = text, "Client {id} unsubscribes from {text}");
    let done = ServerMessage::Ok { delivered: None, topic: Some(text.to_owned()) };
    let farewell = on_control.then(|| {
        let mut frame = BytesMut::new();
        done.encode(re, &mut frame);
        Farewell::Reply(exact(frame))
    });
    match context.topics.unsubscribe(from, topic, farewell).await {
        Ok(()) if on_control => {
            // Who does not read is not read on; a lane that is gone ends the client elsewhere.
            let _ = from.outbound.passed().await;
            None
        }
        Ok(()) => Some(done),
        Err(refused) => Some(ServerMessage::Error(refused)),
    }
}
