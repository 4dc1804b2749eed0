//! Operations of the operator, through the admin API. They check no client's rights: the caller has authorised them.

use bytes::{Bytes, BytesMut};
use tokio::time::{Duration, Instant, sleep};
use tracing::info;
use uuid::Uuid;

use super::{Context, Page, pages};
use crate::Printable;
use crate::frame::PREFIX_BYTES;
use crate::limits::Allowance;
use crate::message::{
    Close, ClosedBy, ErrorCode, ErrorReply, Payload, Position, ServerMessage, Subscribe, TopicName, TopicPattern,
};
use crate::outbound::{Maker, Order};
use crate::topic::{Draft, Publication, Published, TopicError};

/// A topic is looked at so often while the operator waits for its next message: so it costs its publishers nothing.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

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
    let publication = Publication { topic, draft: Draft { from: None, payload, key: None, ttl_ms: None } };
    context.topics.publish(&publication, &allowance).await?.done().await
}

/// The clients that an operation is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    Client(Uuid),
    /// All connections of a user.
    User(String),
}

impl Target {
    /// The ids of the clients; one that is not connected may be among them.
    fn clients(&self, context: &Context) -> Vec<Uuid> {
        match self {
            Self::Client(client) => vec![*client],
            Self::User(user) => context.registry.clients_of(user),
        }
    }
}

/// Disconnects clients. Returns the number of those that were connected; `None` if none was.
pub(crate) async fn disconnect(context: &Context, target: &Target, close: Close) -> Option<usize> {
    let (code, reason) = (close.code(), Printable::excerpt(close.reason()));
    let mut disconnected = 0;
    for client in target.clients(context) {
        info!(client = %client, code = code.0, %reason, "The operator disconnects client {client}: {code} - {reason}");
        let closed = ClosedBy::new(code, close.reason());
        disconnected += usize::from(context.registry.end(client, closed).await);
    }
    (disconnected > 0).then_some(disconnected)
}

/// Subscribes clients to a topic or pattern, whatever their permissions are. Returns the number of those that will get
/// to it, which is 0 if too much waits for them already; `None` if none is connected.
pub(crate) fn subscribe(context: &Context, target: &Target, topic: &TopicPattern) -> Option<usize> {
    order(context, target, |client| {
        info!(client = %client, topic = topic.as_str(), "The operator subscribes {client} to {}", topic.as_str());
        Order::Subscribe(Box::new(Subscribe::new(topic.clone())), Maker::Operator)
    })
}

/// Ends a subscription of clients, whether they or the server made it. Returns as [`subscribe`] does.
pub(crate) fn unsubscribe(context: &Context, target: &Target, topic: &TopicPattern, reason: &str) -> Option<usize> {
    order(context, target, |client| {
        info!(client = %client, topic = topic.as_str(), "The operator unsubscribes {client} from {}", topic.as_str());
        Order::Unsubscribe(topic.clone(), reason.to_owned())
    })
}

fn order(context: &Context, target: &Target, order: impl Fn(Uuid) -> Order) -> Option<usize> {
    let clients = target.clients(context).into_iter().filter_map(|id| context.registry.outbound(id));
    let told: Vec<bool> = clients.map(|client| client.order(order(client.id))).collect();
    (!told.is_empty()).then(|| told.into_iter().filter(|is_told| *is_told).count())
}

/// A page of a topic's log or of its members, as a body of the protocol.
pub(crate) async fn page(context: &Context, page: &Page) -> Result<Bytes, ErrorReply> {
    body(made(context, page).await)
}

/// The same for a log, once there is something behind the position at which the page begins, or the time is over.
pub(crate) async fn next_page(context: &Context, page: &Page, until: Instant) -> Result<Bytes, ErrorReply> {
    loop {
        let made = made(context, page).await;
        let is_over = Instant::now() + LOOK_AGAIN > until;
        match (&made, page) {
            (
                ServerMessage::History { epoch, offset: Some(offset), .. },
                Page::History { since: Some(Position { epoch: own, offset: seen }), .. },
            ) if epoch == own && offset <= seen && !is_over => sleep(LOOK_AGAIN).await,
            _ => return body(made),
        }
    }
}

async fn made(context: &Context, page: &Page) -> ServerMessage {
    if let Some(made) = pages::stored(context, page).await.or_else(|| pages::now(context, page)) {
        return made;
    }
    super::error(ErrorCode::Internal, "the page could not be made")
}

fn body(made: ServerMessage) -> Result<Bytes, ErrorReply> {
    if let ServerMessage::Error(refused) = made {
        return Err(refused);
    }
    let mut frame = BytesMut::new();
    made.encode(None, &mut frame);
    Ok(frame.freeze().split_off(PREFIX_BYTES))
}
