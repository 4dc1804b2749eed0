//! What each message does: one file, or one short arm, for each. The only room that knows them all. It knows clients by
//! their ids and the registry, never by their carrier, so that every carrier and the HTTP API get the same effects.

/// Writes the line about one message, at the level that the configuration gives these, with its fields before it.
macro_rules! log_message {
    ($context:expr, $($event:tt)+) => {
        match $context.config.log.messages {
            crate::config::MessageLog::Debug => tracing::debug!($($event)+),
            crate::config::MessageLog::Info => tracing::info!($($event)+),
        }
    };
}

mod deliver;
mod list_clients;
mod operate;
mod permit;
mod refresh;
mod replies;
mod topics;

use std::sync::Arc;

use tokio::sync::watch;

pub(crate) use self::operate::{disconnect, publish};
pub(crate) use self::permit::may_signal;
pub(crate) use self::replies::Replies;
use crate::Printable;
use crate::auth::{Auth, Identity};
use crate::config::{Config, Live, MessageLog};
use crate::limits::Addresses;
use crate::message::{ClientMessage, Close, ErrorCode, ErrorReply, Request, RequestId, ServerMessage, now_ms};
use crate::metrics::Metrics;
use crate::registry::Registry;
use crate::tls::Expiry;
use crate::topic::{Client, Publication, Topics};

/// What handling a message needs of the server.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) config: Arc<Config>,
    /// Of these, the ones that may change while the server runs.
    pub(crate) live: Arc<Live>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) topics: Arc<Topics>,
    pub(crate) addresses: Arc<Addresses>,
    pub(crate) auth: Arc<Auth>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) expiry: Expiry,
}

/// Who asks: a client, and what it may do.
#[derive(Debug)]
pub(crate) struct Caller {
    pub(crate) subscriber: Arc<Client>,
    identity: watch::Sender<Arc<Identity>>,
}

impl Caller {
    pub(crate) fn new(subscriber: Arc<Client>, identity: Identity) -> Self {
        Self { subscriber, identity: watch::Sender::new(Arc::new(identity)) }
    }

    /// What holds at present; a `refresh` may change it.
    pub(crate) fn identity(&self) -> Arc<Identity> {
        Arc::clone(&self.identity.borrow())
    }

    /// Tells when that changes.
    pub(crate) fn identities(&self) -> watch::Receiver<Arc<Identity>> {
        self.identity.subscribe()
    }
}

/// What comes of a message that can be answered without waiting.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// It was answered, or needs no answer.
    Done,
    /// It has to wait for others: see [`execute`].
    Deferred(Deferred),
    /// The client wants to leave.
    Leave(Close),
}

/// What has to wait for others, and the request's id.
#[derive(Debug)]
pub(crate) struct Deferred {
    id: Option<RequestId>,
    /// As which client it was allowed; another token may come before it is carried out.
    identity: Arc<Identity>,
    work: Work,
}

#[derive(Debug)]
enum Work {
    Message(ClientMessage),
    Publish(Publication),
    /// A request for a page, which waits for the client's rate.
    Page(ClientMessage),
}

impl Deferred {
    /// Whether it is to be carried out by [`make_page`], once the client may have one.
    pub(crate) fn is_page(&self) -> bool {
        matches!(self.work, Work::Page(_))
    }
}

/// Answers what can be answered at once, into `replies`.
pub(crate) fn answer(context: &Context, by: &Caller, request: Request, replies: &mut Replies) -> Outcome {
    let Request { id, message, .. } = request;
    let by_whom = &by.subscriber;
    let from = by_whom.id();
    let deferred = |work| Outcome::Deferred(Deferred { id: id.clone(), identity: by.identity(), work });
    let allowance = &by_whom.allowance;
    if let Err(refused) = permit::permit(context, &by.identity.borrow(), &message) {
        replies.put(id.as_ref(), &ServerMessage::Error(refused));
        return Outcome::Done;
    }
    match message {
        ClientMessage::Text { content } => {
            log_message!(context, client = %from, "Text message from {from}: {}", Printable::excerpt(&content));
            replies.echo_text(&content, id.as_ref(), now_ms());
        }
        ClientMessage::Binary { attachment } => {
            let bytes = attachment.len();
            log_message!(context, client = %from, bytes, "Binary message from {from}: {bytes} bytes");
            replies.echo_binary(&attachment, id.as_ref(), now_ms());
        }
        ClientMessage::Ping { timestamp } => {
            log_message!(context, client = %from, "Ping from {from}");
            replies.put(id.as_ref(), &ServerMessage::Pong { timestamp, server_time: now_ms() });
        }
        // A sign of life, which its arrival already was.
        ClientMessage::Pong => {}
        ClientMessage::Close(close) => return Outcome::Leave(close),
        ClientMessage::Handshake(_) => {
            let message = "handshake: done already on this connection; open another one to start anew";
            replies.put(id.as_ref(), &error(ErrorCode::Conflict, message));
        }
        ClientMessage::Publish { topic, payload, key } => {
            let publication = topics::publication(context, by_whom, topic, payload, key);
            let Some(published) = context.topics.publish_now(&publication, allowance) else {
                return deferred(Work::Publish(publication));
            };
            if let Some(reply) = topics::published(published, id.is_some()) {
                replies.put(id.as_ref(), &reply);
            }
        }
        message @ (ClientMessage::ListClients { .. }
        | ClientMessage::History { .. }
        | ClientMessage::Presence { .. }) => {
            let Some(_turn) = allowance.page_now() else { return deferred(Work::Page(message)) };
            if let Some(page) = page(context, &message) {
                put_page(by, id.as_ref(), &page, replies);
            }
        }
        message @ (ClientMessage::Broadcast(_)
        | ClientMessage::Direct { .. }
        | ClientMessage::Signal { .. }
        | ClientMessage::Subscribe(_)
        | ClientMessage::Unsubscribe { .. }
        | ClientMessage::Refresh { .. }) => {
            return deferred(Work::Message(message));
        }
    }
    Outcome::Done
}

/// A page of a list or a log. `None` for any other message.
fn page(context: &Context, message: &ClientMessage) -> Option<ServerMessage> {
    Some(match message {
        ClientMessage::ListClients { limit, after } => list_clients::list_clients(context, *limit, *after),
        ClientMessage::History { topic, since, limit, reverse } => {
            context.topics.history(topic, since.as_ref(), *limit, *reverse)
        }
        ClientMessage::Presence { topic } => context.topics.presence(topic).unwrap_or_else(ServerMessage::Error),
        _ => return None,
    })
}

fn put_page(by: &Caller, re: Option<&RequestId>, page: &ServerMessage, replies: &mut Replies) {
    let bytes = replies.put(re, page);
    by.subscriber.allowance.gave_page(bytes);
}

/// Makes the page that [`answer`] put off, into `replies`. Its caller has waited for the client's rate.
pub(crate) fn make_page(context: &Context, by: &Caller, deferred: Deferred, replies: &mut Replies) {
    let Deferred { id, identity, work } = deferred;
    let now = by.identity();
    if !Arc::ptr_eq(&identity, &now)
        && let Err(refused) = permit::recheck(context, &now, &work)
    {
        replies.put(id.as_ref(), &ServerMessage::Error(refused));
        return;
    }
    if let Work::Page(message) = work
        && let Some(page) = page(context, &message)
    {
        put_page(by, id.as_ref(), &page, replies);
    }
}

/// Carries out what [`answer`] put off, and gives the reply, with the request's id, where there is one. `on_control` tells
/// that the reply will go on the control lane.
pub(crate) async fn execute(
    context: &Context,
    by: &Caller,
    deferred: Deferred,
    on_control: bool,
) -> Option<(Option<RequestId>, ServerMessage)> {
    let Deferred { id, identity, work } = deferred;
    let now = by.identity();
    if !Arc::ptr_eq(&identity, &now)
        && let Err(refused) = permit::recheck(context, &now, &work)
    {
        return Some((id, ServerMessage::Error(refused)));
    }
    let (from, wants_reply) = (by.subscriber.id(), id.is_some());
    let message = match work {
        Work::Message(message) | Work::Page(message) => message,
        Work::Publish(publication) => {
            let published = context.topics.publish(&publication, &by.subscriber.allowance).await;
            return topics::published(published, wants_reply).map(|reply| (id, reply));
        }
    };
    let reply = match message {
        ClientMessage::Broadcast(payload) => {
            context.metrics.of(by.subscriber.worker).broadcasts.add(1);
            deliver::broadcast(context, from, payload, wants_reply).await
        }
        ClientMessage::Direct { to, payload } => {
            log_message!(context, client = %from, to = %to, "Direct message from {from} to {to}");
            let message = ServerMessage::Direct { from, payload, timestamp: now_ms() };
            deliver::to_one(context, to, &message, wants_reply).await
        }
        ClientMessage::Signal { to, data } => {
            log_message!(context, client = %from, to = %to, "Signal from {from} to {to}");
            let message = ServerMessage::Signal { from, data, timestamp: now_ms() };
            deliver::to_one(context, to, &message, wants_reply).await
        }
        ClientMessage::Subscribe(wanted) => {
            let text = wanted.topic.clone();
            let is_read_only = permit::is_read_only(context, &now, &wanted.topic);
            let reply = topics::subscribe(context, &by.subscriber, wanted, id.as_ref(), on_control, is_read_only).await;
            // Another token may have come meanwhile on another lane, and have looked at the subscriptions before this one.
            if !Arc::ptr_eq(&now, &by.identity()) {
                refresh::revoke(context, by, vec![text]).await;
            }
            reply
        }
        ClientMessage::Unsubscribe { topic } => {
            topics::unsubscribe(context, &by.subscriber, &topic, id.as_ref(), on_control).await
        }
        ClientMessage::Refresh { token } => Some(refresh::refresh(context, by, &token).await),
        _ => None,
    };
    reply.map(|reply| (id, reply))
}

/// An `error` reply.
pub(crate) fn error(code: ErrorCode, message: impl Into<String>) -> ServerMessage {
    ServerMessage::Error(ErrorReply::new(code, message))
}

impl Context {
    /// Whether the lines about single messages are written at all.
    pub(crate) fn logs_messages(&self) -> bool {
        self.config.log.messages == MessageLog::Info || tracing::enabled!(tracing::Level::DEBUG)
    }

    pub(crate) fn compress_min_bytes(&self) -> usize {
        usize::try_from(self.config.limits.compress_min_bytes).unwrap_or(usize::MAX)
    }
}
