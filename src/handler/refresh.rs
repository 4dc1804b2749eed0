//! `refresh`: another token in place of one that expires. What it no longer allows ends.

use std::sync::Arc;

use bytes::BytesMut;
use tracing::debug;

use super::{Caller, Context, permit};
use crate::auth::Denied;
use crate::message::{ErrorCode, ErrorReply, ServerMessage, Token};
use crate::topic::Subscription;

/// Checks a token, and goes by it from now on.
pub(super) async fn refresh(context: &Context, by: &Caller, token: &Token) -> ServerMessage {
    let id = by.subscriber.id();
    if !context.auth.is_on() {
        return ServerMessage::Refreshed { expires_at: None };
    }
    // Signatures take their time, which is not this client's alone.
    tokio::task::yield_now().await;
    let identity = match context.auth.renew(token, &by.identity()).await {
        Ok(identity) => identity,
        Err(denied) => {
            debug!(client = %id, "Client {id} sent a token that is not taken: {denied}");
            return ServerMessage::Error(denied.into());
        }
    };
    let expires_at = identity.expires_at;
    by.subscriber.allowance.set_message_rate(identity.max_rate);
    by.identity.send_replace(Arc::new(identity));
    revoke(context, by).await;
    ServerMessage::Refreshed { expires_at }
}

/// Ends the subscriptions that a client may no longer have.
pub(super) async fn revoke(context: &Context, by: &Caller) {
    for text in by.subscriber.subscribed() {
        // As it is by now: ending one takes its time.
        let Some(Subscription { presence, replays }) = by.subscriber.subscription(&text) else { continue };
        let identity = by.identity();
        let may = permit::may_hear(context, &identity, &text, presence)
            .and_then(|()| permit::may_have_replayed(&identity, &text, replays.then_some("since")));
        let Err(refused) = may else { continue };
        let (topic, reason) = (text.as_str().to_owned(), Some(refused.message));
        let mut frame = BytesMut::new();
        ServerMessage::Unsubscribed { topic, code: refused.code, reason }.encode(None, &mut frame);
        // An error says that it has ended already.
        let _ = context.topics.unsubscribe(&by.subscriber, &text, Some(frame.freeze())).await;
    }
}

impl From<Denied> for ErrorReply {
    fn from(denied: Denied) -> Self {
        let code = match denied {
            Denied::Nothing(_) | Denied::BadToken(_) | Denied::BadCertificate | Denied::UsedBefore => {
                ErrorCode::Unauthorized
            }
            Denied::AnotherUser => ErrorCode::Forbidden,
            Denied::Unavailable => ErrorCode::Unavailable,
        };
        Self::new(code, denied.to_string())
    }
}
