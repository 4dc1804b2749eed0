//! `subscribe` and `unsubscribe`.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::{Caller, Context, permit, refresh};
use crate::auth::Identity;
use crate::frame::exact;
use crate::message::{self, ErrorReply, RequestId, ServerMessage, Subscribe, TopicPattern};
use crate::topic::{Farewell, SubscribeRequest, Subscribed};

/// Gives the reply, or nothing if it is on the control lane already: ahead of the messages, which go there as well.
pub(super) async fn subscribe(
    context: &Context,
    by: &Caller,
    permitted: &Arc<Identity>,
    wanted: Subscribe,
    re: Option<&RequestId>,
    on_control: bool,
) -> Option<ServerMessage> {
    let (id, text) = (by.client.id(), wanted.topic.clone());
    log_message!(context, client = %id, topic = text.as_str(), "Client {id} subscribes to {}", text.as_str());
    let may_publish = permit::is_read_only(context, permitted, &text).then_some(false);
    let announce = |subscribed: &Subscribed| framed(&reply(&text, subscribed.clone(), may_publish), re);
    let announce = on_control.then_some(&announce as &(dyn Fn(&Subscribed) -> Bytes + Send + Sync));
    let request = SubscribeRequest { who: &by.client, wanted, allowance: &by.allowance, announce };
    let subscribed = context.topics.subscribe(&request).await;
    // Another token may have come meanwhile on another lane, and have looked at the subscriptions before this one.
    if !Arc::ptr_eq(permitted, &by.identity()) {
        refresh::revoke(context, by, vec![text.clone()]).await;
    }
    match subscribed {
        Ok(subscribed) => subscribed.map(|subscribed| reply(&text, subscribed, may_publish)),
        Err(refused) => Some(ServerMessage::Error(ErrorReply::from(refused))),
    }
}

fn reply(text: &TopicPattern, subscribed: Subscribed, may_publish: Option<bool>) -> ServerMessage {
    let Subscribed { position, recovered, lane } = subscribed;
    let mut reply = message::Subscribed::new(text.as_str());
    (reply.epoch, reply.offset) = position.map(|position| (position.epoch, position.offset)).unzip();
    reply.recovered = recovered.map(|recovered| recovered.is_ok());
    reply.lane = lane;
    reply.reason = recovered.and_then(Result::err).map(|lost| lost.to_string());
    reply.may_publish = may_publish;
    ServerMessage::Subscribed(reply)
}

/// Gives the reply, or nothing if it is on the control lane already.
pub(super) async fn unsubscribe(
    context: &Context,
    by: &Caller,
    topic: &TopicPattern,
    re: Option<&RequestId>,
    on_control: bool,
) -> Option<ServerMessage> {
    let (id, text) = (by.client.id(), topic.as_str());
    log_message!(context, client = %id, topic = text, "Client {id} unsubscribes from {text}");
    let done = ServerMessage::Ok { delivered: None, topic: Some(text.to_owned()) };
    let farewell = on_control.then(|| Farewell::Reply(framed(&done, re)));
    match context.topics.unsubscribe(&by.client, topic, farewell).await {
        Ok(()) if on_control => {
            // A client that does not read is not read either; a lane that is gone ends the client elsewhere.
            let _ = by.client.outbound.passed().await;
            None
        }
        Ok(()) => Some(done),
        Err(refused) => Some(ServerMessage::Error(ErrorReply::from(refused))),
    }
}

/// A reply that goes onto the control lane by way of the worker's inbox.
fn framed(reply: &ServerMessage, re: Option<&RequestId>) -> Bytes {
    let mut frame = BytesMut::new();
    reply.encode(re, &mut frame);
    exact(frame)
}
