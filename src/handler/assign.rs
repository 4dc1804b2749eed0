//! Subscriptions that the server makes for a client: those in its token, and those of the operator. Announced on the
//! control lane by a `subscribed` that answers nothing, or an `unsubscribed` with the reason if there is none to be.

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use super::subscriptions::{self, framed, unsubscribed};
use super::{Caller, Context, Work, permit, refresh};
use crate::auth::Identity;
use crate::limits::Allowance;
use crate::message::{
    ConsumerName, ErrorCode, ErrorReply, Position, ServerMessage, Subscribe, TopicName, TopicPattern,
};
use crate::outbound::{Maker, Order};
use crate::topic::{Farewell, SubscribeRequest, Subscribed, TopicError};

/// Assigns the subscriptions in the client's token, from these positions: [`execute`] then makes them.
pub(crate) fn assign_first(by: &Caller, mut since: Vec<(TopicName, Position)>) {
    for text in by.identity().rights.subscriptions() {
        let at = since.iter().position(|(topic, _)| topic.as_str() == text.as_str());
        assign(by, text, at.map(|at| since.swap_remove(at).1));
    }
}

/// Assigns the subscriptions in a new token that were not in the one before.
pub(super) fn assign_new(by: &Caller, before: &Identity, now: &Identity) {
    let before = before.rights.subscriptions();
    now.rights.subscriptions().iter().filter(|text| !before.contains(text)).for_each(|text| assign(by, text, None));
}

/// Keeps the place of a subscription, so that the client cannot make it before the server does.
fn assign(by: &Caller, text: &TopicPattern, since: Option<Position>) {
    if !by.client.assign(text) {
        return;
    }
    let mut wanted = Subscribe::new(text.clone());
    wanted.since = since;
    let order = Order::Subscribe(Box::new(wanted), Maker::Token);
    if !by.client.outbound.order(order) {
        by.client.unassign(text);
        let reason = "topic: too many subscriptions are made for this client at once".to_owned();
        say(by, unsubscribed(text, ErrorCode::Unavailable.number(), reason));
    }
}

/// Carries out an order. Cancel safe: dropped, it has made or ended the subscription or not.
pub(crate) async fn execute(context: &Context, by: &Caller, order: Order) {
    match order {
        Order::Subscribe(wanted, maker) => {
            let text = wanted.topic.clone();
            if let Err(refused) = subscribe(context, by, *wanted, maker).await {
                let ErrorReply { code, message, .. } = refused;
                say(by, unsubscribed(&text, code, message));
            }
        }
        Order::Unsubscribe(text, reason) => {
            let farewell = Farewell::Notice(unsubscribed(&text, ErrorCode::Forbidden.number(), reason));
            // An error means that there is no such subscription.
            let _ = context.topics.unsubscribe(&by.client, &text, Some(farewell)).await;
        }
    }
}

async fn subscribe(context: &Context, by: &Caller, wanted: Subscribe, maker: Maker) -> Result<(), ErrorReply> {
    let (id, text, identity) = (by.client.id(), wanted.topic.clone(), by.identity());
    if maker == Maker::Token {
        let permitted = permit::work(context, &identity, &Work::Subscribe(wanted.clone()));
        // A refresh may have taken it back meanwhile.
        let is_wanted = identity.rights.subscriptions().contains(&text);
        if permitted.is_err() || !is_wanted {
            by.client.unassign(&text);
            return if is_wanted { permitted } else { Ok(()) };
        }
    }
    log_message!(context, client = %id, topic = text.as_str(), "The server subscribes {id} to {}", text.as_str());
    let may_publish = permit::is_read_only(context, &identity, &text).then_some(false);
    let announcement = |subscribed: &Subscribed| {
        let mut reply = subscriptions::reply(&text, subscribed.clone(), may_publish);
        reply.by_server = true;
        framed(&ServerMessage::Subscribed(reply), None)
    };
    // The issuer of its token or the operator chose the topic, not the client, so it counts against no rate.
    let allowance = Allowance::new(&context.config.rates, true, context.metrics.of(by.client.worker).clone());
    let no_offer = Mutex::default();
    // The server asks for no durable consumer.
    let take_over = |_: &ConsumerName| Bytes::new();
    let request = SubscribeRequest {
        who: &by.client,
        wanted,
        allowance: &allowance,
        announce: Some(&announcement),
        take_over: &take_over,
        sees_inboxes: subscriptions::sees_inboxes(context, &identity, &text),
        maker,
        offer: &no_offer,
    };
    let subscribed = context.topics.subscribe(&request).await;
    if !Arc::ptr_eq(&identity, &by.identity()) {
        refresh::revoke(context, by, vec![text.clone()]).await;
    }
    match subscribed {
        Ok(Some(subscribed)) => say(by, announcement(&subscribed)),
        Err(TopicError::Subscribed(_)) if maker == Maker::Operator => by.client.assign_to_operator(&text),
        // It is announced, the client has it already, or the client has left.
        Ok(None) | Err(TopicError::Subscribed(_) | TopicError::Closing) => {}
        Err(failure) => return Err(failure.into()),
    }
    Ok(())
}

fn say(by: &Caller, frame: Bytes) {
    by.client.outbound.put(&frame.into());
}
