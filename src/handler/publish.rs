//! `publish`: a client's message to a topic.

use super::{Caller, Context, Pending, Reply};
use crate::Printable;
use crate::message::{ErrorReply, RequestId, Sender, ServerMessage, TopicName};
use crate::topic::{Draft, Publication, Published, Publishing, TopicError};

/// Publishes if that is possible at once, and returns the reply; otherwise `None`, and the caller uses [`wait`].
pub(super) fn now(context: &Context, by: &Caller, publication: &Publication, id: Option<&RequestId>) -> Option<Reply> {
    let published = context.topics.publish_now(publication, &by.allowance)?;
    Some(answer(publication, published, id.cloned()))
}

/// Publishes; waits until the topic accepts the message.
pub(super) async fn wait(context: &Context, by: &Caller, publication: &Publication, id: Option<RequestId>) -> Reply {
    let published = context.topics.publish(publication, &by.allowance).await;
    answer(publication, published, id)
}

fn answer(publication: &Publication, published: Result<Publishing, TopicError>, id: Option<RequestId>) -> Reply {
    let published = match published {
        Ok(Publishing::Pending(receipt)) => {
            let topic = publication.topic.clone();
            return Reply::Pending(Pending::Publish { id, topic, receipt });
        }
        Ok(Publishing::Done(published)) => Ok(published),
        Err(refused) => Err(refused),
    };
    let reply = reply(&publication.topic, published, id.is_some());
    Reply::Ready(id, reply)
}

/// The reply to a publish. An error is always sent, even if no reply was requested.
pub(super) fn reply(
    topic: &TopicName,
    published: Result<Published, TopicError>,
    wants_reply: bool,
) -> Option<ServerMessage> {
    match published {
        Ok(Published { epoch, offset, duplicate, stored }) => wants_reply.then(|| {
            let (topic, epoch) = (topic.as_str().to_owned(), epoch.as_str().to_owned());
            ServerMessage::Published { topic, epoch, offset, duplicate, stored }
        }),
        Err(refused) => Some(ServerMessage::Error(ErrorReply::from(refused))),
    }
}

pub(super) fn log(context: &Context, Publication { topic, draft: Draft { from, payload, .. } }: &Publication) {
    let (Some(Sender { id: from, .. }), to) = (from, topic.as_str()) else { return };
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
