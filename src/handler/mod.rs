//! The effect of each message, one file for each kind of operation. Lower layers return results of their own, which
//! become replies here. Knows clients by their ids and the registry, never by their carrier, so that every carrier and
//! the HTTP API get the same effects. Called by `session` and `http`.

/// Logs one message, at the level that `log.messages` sets, with its fields first.
macro_rules! log_message {
    ($context:expr, $($event:tt)+) => {
        match $context.config.log.messages {
            crate::config::MessageLog::Debug => tracing::debug!($($event)+),
            crate::config::MessageLog::Info => tracing::info!($($event)+),
        }
    };
}

mod ack;
mod assign;
mod deliver;
mod errors;
mod operate;
mod pages;
mod pending;
mod permit;
mod publish;
mod refresh;
mod replies;
mod request;
mod state;
mod subscriptions;
mod work;

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};

use tokio::sync::watch;

pub(crate) use self::assign::{assign_first, execute as execute_order};
pub(crate) use self::errors::error;
pub(crate) use self::operate::{Target, disconnect, next_page, page, publish, subscribe, unsubscribe};
pub(crate) use self::pending::{Pending, Reply, Resolved};
pub(crate) use self::permit::may_signal;
pub(crate) use self::replies::{Before, Replies};
use self::request::Exchange;
pub(crate) use self::request::{leave, offer, serve_requests};
pub(crate) use self::subscriptions::lane_ended;
use self::work::Work;
pub(crate) use self::work::{Deferred, Page, Requested};
use crate::Printable;
use crate::auth::{Auth, Identity, Sessions};
use crate::config::{Config, Live, MessageLog};
use crate::limits::{Addresses, Allowance};
use crate::message::{ClientMessage, Close, ErrorCode, Request, RequestId, ServerMessage, now_ms};
use crate::metrics::Metrics;
use crate::registry::Registry;
use crate::request::{Requests, Responder};
use crate::tls::Expiry;
use crate::topic::{Client, Draft, Publication, Topics};

/// The parts of the server that messages act on.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) config: Arc<Config>,
    /// The settings that may change while the server runs.
    pub(crate) live: Arc<Live>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) topics: Arc<Topics>,
    pub(crate) requests: Arc<Requests>,
    pub(crate) addresses: Arc<Addresses>,
    pub(crate) auth: Arc<Auth>,
    pub(crate) sessions: Sessions,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) expiry: Expiry,
}

/// The client whose message is handled, and its rights.
#[derive(Debug)]
pub(crate) struct Caller {
    pub(crate) client: Arc<Client>,
    /// Its rate limits.
    pub(crate) allowance: Allowance,
    identity: watch::Sender<Arc<Identity>>,
    /// The client as one that answers requests, once it does.
    responder: OnceLock<Arc<Responder>>,
    /// Whether it has sent a request to another client, and whether it leaves, and sends no more.
    has_asked: AtomicBool,
    has_left: AtomicBool,
}

impl Caller {
    pub(crate) fn new(client: Arc<Client>, allowance: Allowance, identity: Identity) -> Self {
        let (identity, responder) = (watch::Sender::new(Arc::new(identity)), OnceLock::new());
        let (has_asked, has_left) = (AtomicBool::new(false), AtomicBool::new(false));
        Self { client, allowance, identity, responder, has_asked, has_left }
    }

    /// The current identity; `refresh` may change it.
    pub(crate) fn identity(&self) -> Arc<Identity> {
        Arc::clone(&self.identity.borrow())
    }

    /// Watches the identity.
    pub(crate) fn identities(&self) -> watch::Receiver<Arc<Identity>> {
        self.identity.subscribe()
    }
}

/// Immediate outcome of a message.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// Answered, or needs no answer.
    Done,
    /// Has to wait.
    Deferred(Box<Deferred>),
    /// The client asked to close the connection.
    Leave(Close),
}

/// Answers a request at once if possible, into `replies`. `now` returns the time in Unix milliseconds.
pub(crate) fn answer(
    context: &Context,
    by: &Caller,
    request: Request,
    replies: &mut Replies,
    now: impl FnOnce() -> u64,
) -> Outcome {
    let Request { id, message, .. } = request;
    let from = by.client.id();
    let work = match message {
        // These affect no other client and no topic, so they need no permission.
        ClientMessage::Text { content } => {
            log_message!(context, client = %from, "Text message from {from}: {}", Printable::excerpt(&content));
            replies.echo_text(&content, id.as_ref(), now());
            return Outcome::Done;
        }
        ClientMessage::Binary { attachment } => {
            let bytes = attachment.len();
            log_message!(context, client = %from, bytes, "Binary message from {from}: {bytes} bytes");
            replies.echo_binary(&attachment, id.as_ref(), now());
            return Outcome::Done;
        }
        ClientMessage::Ping { timestamp } => {
            log_message!(context, client = %from, "Ping from {from}");
            replies.pong(id.as_ref(), &ServerMessage::Pong { timestamp, server_time: now() });
            return Outcome::Done;
        }
        // Its arrival was the sign of life.
        ClientMessage::Pong => return Outcome::Done,
        ClientMessage::Close(close) => return Outcome::Leave(close),
        ClientMessage::Handshake(_) => {
            let message = "handshake: already done on this connection; open another one to start again";
            replies.put(id.as_ref(), &error(ErrorCode::Conflict, message));
            return Outcome::Done;
        }
        ClientMessage::ListClients { limit, after } => {
            return answer_page(context, by, id, Page::Clients { limit, after }, replies);
        }
        ClientMessage::History { topic, since, since_time, limit, reverse } => {
            return answer_page(context, by, id, Page::History { topic, since, since_time, limit, reverse }, replies);
        }
        ClientMessage::Presence { topic, limit, after, counts } => {
            let limit = if counts { 0 } else { limit };
            return answer_page(context, by, id, Page::Members { topic, limit, after }, replies);
        }
        ClientMessage::Broadcast(payload) => Work::Broadcast(payload),
        ClientMessage::Direct { to, payload } => Work::Direct { to, payload },
        ClientMessage::Signal { to, data } => Work::Signal { to, data },
        ClientMessage::Subscribe(wanted) => match state::of_subscription(context, wanted) {
            Ok(wanted) => Work::Subscribe(wanted),
            Err(refused) => {
                replies.put(id.as_ref(), &ServerMessage::Error(refused));
                return Outcome::Done;
            }
        },
        ClientMessage::Ack(ack) => Work::Ack(ack),
        ClientMessage::Unsubscribe { topic, forget } => Work::Unsubscribe { topic, forget },
        ClientMessage::Publish { topic, payload, key, ttl_ms } => {
            let from = Some(by.client.sender().clone());
            Work::Publish(Publication { topic, draft: Draft { from, payload, key, ttl_ms } })
        }
        ClientMessage::State { topic, state } => {
            // Earlier messages come first.
            replies.deliver();
            if let Some(reply) = state::set(context, by, topic, state, id.is_some()) {
                replies.put(id.as_ref(), &reply);
            }
            return Outcome::Done;
        }
        ClientMessage::Refresh { token } => Work::Refresh(token),
        ClientMessage::Request(call) => match replies.lane() {
            Some(lane) => Work::Exchange(Exchange::Call(call, lane)),
            None => {
                let message = "request: not as a datagram, which has no lane for the reply; send it on a lane";
                replies.put(id.as_ref(), &error(ErrorCode::BadRequest, message));
                return Outcome::Done;
            }
        },
        ClientMessage::Reply(answer) => Work::Exchange(Exchange::Answer(answer)),
        ClientMessage::Cancel { re } => Work::Exchange(Exchange::Cancel(re)),
    };
    let admitted = permit::payload(context, &work).and_then(|()| permit::work(context, &by.identity.borrow(), &work));
    if let Err(mut refused) = admitted {
        if matches!(work, Work::Exchange(Exchange::Answer(_))) {
            // A reply that goes nowhere counts as a message.
            refused = by.allowance.take(0).err().unwrap_or(refused);
        }
        replies.put(id.as_ref(), &ServerMessage::Error(refused));
        return Outcome::Done;
    }
    let (work, id) = if matches!(work, Work::Direct { .. } | Work::Signal { .. }) {
        let Some(waiting) = deliver::now(context, by, work, id, replies, now) else { return Outcome::Done };
        waiting
    } else if let Work::Exchange(exchange) = work {
        match request::now(context, by, exchange, id, replies, now) {
            Some((exchange, id)) => (Work::Exchange(exchange), id),
            None => return Outcome::Done,
        }
    } else {
        (work, id)
    };
    // Earlier messages come first.
    replies.deliver();
    if let Work::Publish(publication) = &work {
        publish::log(context, publication);
    }
    if let Work::Publish(publication) = &work
        && (replies.accepts_pending || !context.topics.rule_of(&publication.topic).is_durable())
        && let Some(reply) = publish::now(context, by, publication, id.as_ref())
    {
        replies.put_reply(reply);
        return Outcome::Done;
    }
    if let Work::Ack(ack) = &work
        && let Some(reply) = ack::now(context, by, ack, id.is_some())
    {
        if let Some(reply) = reply {
            replies.put(id.as_ref(), &reply);
        }
        return Outcome::Done;
    }
    Outcome::Deferred(Box::new(Deferred::Work(Requested { id, identity: by.identity(), operation: work })))
}

fn answer_page(context: &Context, by: &Caller, id: Option<RequestId>, page: Page, replies: &mut Replies) -> Outcome {
    if let Err(refused) = permit::page(context, &by.identity.borrow(), &page) {
        replies.put(id.as_ref(), &ServerMessage::Error(refused));
        return Outcome::Done;
    }
    if let Some(_turn) = by.allowance.page_now()
        && let Some(made) = pages::now(context, &page)
    {
        put_page(by, id.as_ref(), &made, replies);
        return Outcome::Done;
    }
    Outcome::Deferred(Box::new(Deferred::Page(Requested { id, identity: by.identity(), operation: page })))
}

fn put_page(by: &Caller, re: Option<&RequestId>, made: &ServerMessage, replies: &mut Replies) {
    let bytes = replies.put(re, made);
    by.allowance.gave_page(bytes);
}

/// Reads from the disk what the page that [`answer`] deferred needs; `None` if it needs nothing, or is refused.
pub(crate) async fn read_page(context: &Context, by: &Caller, page: &Requested<Page>) -> Option<ServerMessage> {
    permit::page(context, &by.identity(), &page.operation).ok()?;
    pages::stored(context, &page.operation).await
}

/// Produces the page that [`answer`] deferred, into `replies`, from what [`read_page`] has read. The caller has waited
/// for the client's rate.
pub(crate) fn make_page(
    context: &Context,
    by: &Caller,
    page: Requested<Page>,
    read: Option<ServerMessage>,
    replies: &mut Replies,
) {
    let Requested { id, identity, operation: page } = page;
    let now = by.identity();
    if !Arc::ptr_eq(&identity, &now)
        && let Err(refused) = permit::page(context, &now, &page)
    {
        replies.put(id.as_ref(), &ServerMessage::Error(refused));
        return;
    }
    if let Some(made) = read.or_else(|| pages::now(context, &page)) {
        put_page(by, id.as_ref(), &made, replies);
    }
}

/// Executes the work that [`answer`] deferred. Returns once its effects have their place in the order of all others;
/// the reply may still be pending. `on_control`: the reply will go on the control lane.
pub(crate) async fn execute(context: &Context, by: &Caller, work: Requested<Work>, on_control: bool) -> Reply {
    let Requested { id, identity, operation: work } = work;
    let now = by.identity();
    if !Arc::ptr_eq(&identity, &now)
        && let Err(refused) = permit::work(context, &now, &work)
    {
        return Reply::Ready(id, Some(ServerMessage::Error(refused)));
    }
    let reply = match work {
        Work::Broadcast(payload) => {
            context.metrics.of(by.client.worker).broadcasts.add(1);
            return deliver::broadcast(context, by, payload, id).await;
        }
        Work::Direct { to, payload } => {
            let bytes = payload.len();
            let message = deliver::direct(context, by, &to, payload, now_ms());
            return deliver::to_one(context, &to, &message, bytes, id).await;
        }
        Work::Signal { to, data } => {
            let bytes = data.len();
            let message = deliver::signal(context, by, &to, data, now_ms());
            return deliver::to_one(context, &to, &message, bytes, id).await;
        }
        Work::Subscribe(wanted) => subscriptions::subscribe(context, by, &now, wanted, id.as_ref(), on_control).await,
        Work::Ack(ack) => ack::wait(context, by, &ack, id.is_some()).await,
        Work::Unsubscribe { topic, forget } => {
            subscriptions::unsubscribe(context, by, &topic, forget, id.as_ref(), on_control).await
        }
        Work::Publish(publication) => return publish::wait(context, by, &publication, id).await,
        Work::Refresh(token) => Some(refresh::refresh(context, by, &token).await),
        Work::Exchange(exchange) => request::wait(context, by, exchange, id.as_ref()).await,
    };
    Reply::Ready(id, reply)
}

impl Context {
    /// Whether single messages are logged at all.
    pub(crate) fn logs_messages(&self) -> bool {
        self.config.log.messages == MessageLog::Info || tracing::enabled!(tracing::Level::DEBUG)
    }

    pub(crate) fn compress_min_bytes(&self) -> usize {
        usize::try_from(self.config.limits.compress_min_bytes).unwrap_or(usize::MAX)
    }
}
