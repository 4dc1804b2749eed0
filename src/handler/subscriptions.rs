//! `subscribe` and `unsubscribe`. Their replies go onto the control lane ahead of the topic's messages.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;

use super::{Caller, Context, permit, refresh};
use crate::auth::Identity;
use crate::frame::exact;
use crate::message::{
    self, ConsumerName, ErrorCode, ErrorReply, LaneChoice, RequestId, ServerMessage, Subscribe, TopicPattern,
};
use crate::outbound::Maker;
use crate::request::Offer;
use crate::topic::{Farewell, SubscribeRequest, Subscribed};

/// Subscribes. Returns the reply, or `None` if it is already on the control lane, ahead of the topic's messages there.
pub(super) async fn subscribe(
    context: &Context,
    by: &Caller,
    permitted: &Arc<Identity>,
    wanted: Subscribe,
    re: Option<&RequestId>,
    on_control: bool,
) -> Option<ServerMessage> {
    let (id, text, is_bulk) = (by.client.id(), wanted.topic.clone(), wanted.lane == LaneChoice::Bulk);
    log_message!(context, client = %id, topic = text.as_str(), "Client {id} subscribes to {}", text.as_str());
    let may_publish = permit::is_read_only(context, permitted, &text).then_some(false);
    let announce =
        |subscribed: &Subscribed| framed(&ServerMessage::Subscribed(reply(&text, subscribed.clone(), may_publish)), re);
    let announce = on_control.then_some(&announce as &(dyn Fn(&Subscribed) -> Bytes + Send + Sync));
    let sees_inboxes = sees_inboxes(context, permitted, &text);
    let taken = |durable: &ConsumerName| {
        let reason = format!("durable: another client has taken over the consumer {durable} of {}", text.as_str());
        unsubscribed(&text, ErrorCode::Conflict.number(), reason)
    };
    let (who, allowance, take_over) = (&by.client, &by.allowance, &taken);
    // Made before the client knows of the subscription: a request that is sent then waits for it.
    let offer = if wanted.requests { by.offer(context, &text) } else { None };
    let (offers, offer) = (offer.as_ref().map(Offer::id), Mutex::new(offer));
    let maker = Maker::Client;
    let request = SubscribeRequest { who, wanted, allowance, announce, take_over, sees_inboxes, maker, offer: &offer };
    let subscribed = context.topics.subscribe(&request).await;
    // Now that it is announced: requests on the control lane come behind that.
    if let (Ok(_), Some(offer)) = (&subscribed, offers) {
        by.client.begin_offer(&text, offer);
    }
    // The token may have been refreshed meanwhile on another lane, which checked the subscriptions before this one
    // existed.
    if !Arc::ptr_eq(permitted, &by.identity()) {
        refresh::revoke(context, by, vec![text.clone()]).await;
    }
    if is_bulk {
        context.topics.end_if_lane_lost(&by.client, &text, lane_ended).await;
    }
    match subscribed {
        Ok(subscribed) => subscribed.map(|subscribed| ServerMessage::Subscribed(reply(&text, subscribed, may_publish))),
        Err(refused) => Some(ServerMessage::Error(ErrorReply::from(refused))),
    }
}

/// Whether a pattern also brings what is in the inboxes of users.
pub(super) fn sees_inboxes(context: &Context, by: &Identity, text: &TopicPattern) -> bool {
    text.is_wildcard() && context.topics.has_inboxes() && by.rights.inboxes(text)
}

/// The reply to a subscription that has begun.
pub(super) fn reply(text: &TopicPattern, subscribed: Subscribed, may_publish: Option<bool>) -> message::Subscribed {
    let Subscribed { position, recovered, lane, progress } = subscribed;
    let mut reply = message::Subscribed::new(text.as_str());
    if let Some((durable, progress)) = progress {
        reply.durable = Some(durable.as_str().to_owned());
        (reply.acked, reply.pending) = (Some(progress.acked), Some(progress.pending));
    }
    (reply.epoch, reply.offset) = position.map(|position| (position.epoch, position.offset)).unzip();
    reply.recovered = recovered.map(|recovered| recovered.is_ok());
    reply.lane = lane;
    reply.reason = recovered.and_then(Result::err).map(|lost| lost.to_string());
    reply.may_publish = may_publish;
    reply
}

/// Unsubscribes. Returns the reply, or `None` if it is already on the control lane.
pub(super) async fn unsubscribe(
    context: &Context,
    by: &Caller,
    topic: &TopicPattern,
    forget: bool,
    re: Option<&RequestId>,
    on_control: bool,
) -> Option<ServerMessage> {
    let (id, text) = (by.client.id(), topic.as_str());
    log_message!(context, client = %id, topic = text, "Client {id} unsubscribes from {text}");
    let done = ServerMessage::Ok { delivered: None, acked: None, topic: Some(text.to_owned()) };
    if forget {
        let forgotten = |durable: &ConsumerName| {
            let reason = format!("durable: another client has forgotten the consumer {durable} of {text}");
            unsubscribed(topic, ErrorCode::NotFound.number(), reason)
        };
        if let Err(failure) = context.topics.forget_consumer(&by.client, topic, forgotten).await {
            return Some(ServerMessage::Error(ErrorReply::from(failure)));
        }
    }
    let farewell = on_control.then(|| Farewell::Reply(framed(&done, re)));
    match context.topics.unsubscribe(&by.client, topic, farewell).await {
        Ok(()) if on_control => {
            // Waits, so that the server does not read from a client that does not read. If the lane has ended, the
            // client ends elsewhere.
            let _ = by.client.outbound.passed().await;
            None
        }
        Ok(()) => Some(done),
        Err(refused) => Some(ServerMessage::Error(ErrorReply::from(refused))),
    }
}

/// The notice that a subscription has ended with the lane of the client's second WebSocket.
pub(crate) fn lane_ended(topic: &TopicPattern) -> Bytes {
    unsubscribed(topic, ErrorCode::Unavailable.number(), "the second connection has ended; subscribe again".into())
}

/// The notice of a subscription's end, for a client that has not asked for it.
pub(super) fn unsubscribed(topic: &TopicPattern, code: u16, reason: String) -> Bytes {
    let (topic, reason) = (topic.as_str().to_owned(), Some(reason));
    framed(&ServerMessage::Unsubscribed { topic, code, reason }, None)
}

/// Encodes a reply that reaches the control lane through the worker's inbox.
pub(super) fn framed(reply: &ServerMessage, re: Option<&RequestId>) -> Bytes {
    let mut frame = BytesMut::new();
    reply.encode(re, &mut frame);
    exact(frame)
}
