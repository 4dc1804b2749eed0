//! `refresh`: replaces a token before it expires. Subscriptions that the new token does not allow end, and those that
//! it makes begin.

use std::sync::Arc;

use bytes::BytesMut;
use tracing::debug;

use super::{Caller, Context, assign, permit};
use crate::frame::exact;
use crate::message::{ErrorCode, ErrorReply, ServerMessage, Token, TopicPattern};
use crate::outbound::Maker;
use crate::topic::{Farewell, Granted, Left};

/// Checks a token, and applies it if it is valid.
pub(super) async fn refresh(context: &Context, by: &Caller, token: &Token) -> ServerMessage {
    let id = by.client.id();
    if !context.auth.is_on() {
        return ServerMessage::Refreshed { expires_at: None, permissions: None };
    }
    // Yields first, because checking a signature takes time that other clients share.
    tokio::task::yield_now().await;
    let identity = match context.auth.renew(token, &by.identity()).await {
        Ok(identity) => identity,
        Err(denied) => {
            debug!(client = %id, "Client {id} sent a token that was not accepted: {denied}");
            return ServerMessage::Error(denied.into());
        }
    };
    let (expires_at, permissions) = (identity.expires_at, identity.rights.told());
    by.allowance.set_message_rate(identity.max_rate);
    let now = Arc::new(identity);
    let before = by.identity.send_replace(Arc::clone(&now));
    // Equal rights allow the same subscriptions.
    if before.rights != now.rights {
        revoke_all(context, by).await;
        assign::assign_new(by, &before, &now);
    }
    ServerMessage::Refreshed { expires_at, permissions }
}

/// Ends all subscriptions that the client may no longer have.
async fn revoke_all(context: &Context, by: &Caller) {
    let (subscribed, mut refused) = (by.client.subscribed(), Vec::new());
    let mut slices = context.topics.long_work(&by.client, subscribed.len()).await;
    for text in subscribed {
        if refusal(context, by, &text).is_some() {
            refused.push(text);
        }
        if slices.is_over() {
            slices.rest().await;
        }
    }
    drop(slices);
    revoke(context, by, refused).await;
}

/// Ends the given subscriptions, unless the client may keep them.
pub(super) async fn revoke(context: &Context, by: &Caller, texts: Vec<TopicPattern>) {
    let mut left = Left::default();
    for text in texts {
        // Checked again, because ending the previous one took time.
        let Some(refused) = refusal(context, by, &text) else { continue };
        let (topic, reason) = (text.as_str().to_owned(), Some(refused.message));
        let mut frame = BytesMut::new();
        ServerMessage::Unsubscribed { topic, code: refused.code, reason }.encode(None, &mut frame);
        // An error means that it has already ended.
        let farewell = Farewell::Notice(exact(frame));
        let _ = context.topics.end_one(&by.client, &text, Some(farewell), &mut left).await;
    }
    context.topics.forget(&by.client, left).await;
}

/// Reason why the client may no longer have a subscription; `None` if it may, or has no such subscription.
fn refusal(context: &Context, by: &Caller, text: &TopicPattern) -> Option<ErrorReply> {
    let Granted { presence, replays, inboxes, maker } = by.client.subscription(text)?;
    let identity = by.identity();
    match maker {
        // Whatever the token says: the operator also ends it.
        Maker::Operator => return None,
        Maker::Token if !identity.rights.subscriptions().contains(text) => {
            return Some(ErrorReply::new(ErrorCode::Forbidden, "topic: the new token has no such subscription"));
        }
        Maker::Token | Maker::Client => {}
    }
    let may = permit::may_subscribe(context, &identity, text, presence);
    may.and_then(|()| permit::may_have_replayed(context, &identity, text, replays.then_some("since")))
        .and_then(|()| permit::may_keep_inboxes(&identity, text, inboxes))
        .err()
}
