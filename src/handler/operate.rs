//! Operations of the operator, through the admin API. They check no client's rights: the caller has authorised them.

use tracing::info;
use uuid::Uuid;

use super::Context;
use crate::Printable;
use crate::limits::Allowance;
use crate::message::{Close, ClosedBy, Payload, TopicName};
use crate::topic::{Draft, Publication, Published, TopicError};

/// Publishes a text. Waits as any publish does, for a durable topic until it is stored.
pub(crate) async fn publish(
    context: &Context,
    worker: usize,
    topic: TopicName,
    payload: Payload,
) -> Result<Published, TopicError> {
    let (to, content) = (topic.as_str(), payload.content.as_deref().unwrap_or_default());
    log_message!(context, topic = to, "Publish by the operator to {to}: {}", Printable::excerpt(content));
    let allowance = Allowance::new(&context.config.rates, true, context.metrics.of(worker).clone());
    let publication = Publication { topic, draft: Draft { from: None, payload, key: None } };
    context.topics.publish(&publication, &allowance).await?.done().await
}

/// Disconnects a client. False if no client has this id.
pub(crate) async fn disconnect(context: &Context, client: Uuid, close: Close) -> bool {
    let (code, reason) = (close.code(), Printable::excerpt(close.reason()));
    info!(client = %client, code = code.0, %reason, "The operator disconnects client {client}: {code} - {reason}");
    let closed = ClosedBy::new(code, close.reason());
    context.registry.end(client, closed).await
}
