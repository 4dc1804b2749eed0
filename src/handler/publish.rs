//! `publish`: a client's message to a topic.

use super::{Caller, Context};
use crate::Printable;
use crate::message::{ErrorReply, ServerMessage};
use crate::topic::{Draft, Publication, Published, TopicError};

/// Publishes if that is possible at once, and returns the reply; otherwise `None`, and the caller uses [`wait`].
pub(super) fn now(
    context: &Context,
    by: &Caller,
    publication: &Publication,
    wants_reply: bool,
) -> Option<Option<ServerMessage>> {
    log(context, publication);
    let published = context.topics.publish_now(publication, &by.allowance)?;
    Some(reply(publication, published, wants_reply))
}

/// Publishes; waits until the topic accepts the message.
pub(super) async fn wait(
    context: &Context,
    by: &Caller,
    publication: &Publication,
    wants_reply: bool,
) -> Option<ServerMessage> {
    let published = context.topics.publish(publication, &by.allowance).await;
    reply(publication, published, wants_reply)
}

/// The reply to a publish. An error is always sent, even if no reply was requested.
fn reply(
    publication: &Publication,
    published: Result<Published, TopicError>,
    wants_reply: bool,
) -> Option<ServerMessage> {
    match published {
        Ok(Published { epoch, offset, duplicate }) => wants_reply.then(|| {
            let (topic, epoch) = (publication.topic.as_str().to_owned(), epoch.as_str().to_owned());
            ServerMessage::Published { topic, epoch, offset, duplicate, stored: None }
        }),
        Err(refused) => Some(ServerMessage::Error(ErrorReply::from(refused))),
    }
}

fn log(context: &Context, Publication { topic, draft: Draft { from, payload, .. } }: &Publication) {
    let (Some(from), to) = (from, topic.as_str()) else { return };
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
}
