//! The answering side of requests: handlers for topics ([`Client::serve`]) and for the client itself
//! ([`ClientBuilder::on_request`](crate::ClientBuilder::on_request)).

use std::collections::HashMap;
use std::future::IntoFuture;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::client::Client;
use crate::error::ClientError;
use crate::link::{Failure as Unsent, Link};
use crate::message::{
    Answer as Reply, CallId, Called, ClientMessage, ErrorCode, Failure, MAX_FAILURE_BYTES, Payload, Sender,
};
use crate::topics::{Ended, SubscribeBuilder, Subscription, TopicEvent, Topics};

/// Requests of one handler that wait for it. A server gives a client at most 1,000 at once by default.
const MOST_WAITING: usize = 1024;
/// Handlers of one service that run at once, if it does not say.
const DEFAULT_CONCURRENCY: usize = 64;

/// A request of another client, for a handler.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Asked {
    /// The topic that it was sent to; `None` if it was addressed to this client or its user.
    pub topic: Option<String>,
    /// The client that asks; `None` if the server's operator does.
    pub from: Option<Sender>,
    /// What it asks.
    pub payload: Payload,
    /// The time at which the server received it, in Unix milliseconds.
    pub timestamp: u64,
    /// When the other client gives it up.
    pub deadline: Instant,
}

impl Asked {
    /// The text of the request, if it has one.
    pub fn text(&self) -> Option<&str> {
        self.payload.as_text()
    }

    /// The JSON value of the request, if it has one.
    ///
    /// # Errors
    /// If the value does not have the shape of `T`.
    pub fn data<T: serde::de::DeserializeOwned>(&self) -> serde_json::Result<Option<T>> {
        self.payload.data()
    }
}

/// Why a handler does not answer: a code from 400 to 599, and a reason for the client that asks.
///
/// Every error becomes one with code 500 and its text, so a handler may use `?`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    code: u16,
    message: String,
}

impl Refusal {
    /// A refusal with a code, which is set to the nearest of 400 to 599, and a reason.
    pub fn new(code: u16, message: impl Into<String>) -> Self {
        Self { code: code.clamp(400, 599), message: message.into() }
    }

    fn into_failure(self) -> Option<Failure> {
        let Self { code, mut message } = self;
        let most = (0..=MAX_FAILURE_BYTES.min(message.len())).rev().find(|&at| message.is_char_boundary(at));
        message.truncate(most.unwrap_or(0));
        if message.is_empty() {
            "the handler failed".clone_into(&mut message);
        }
        Failure::new(code, message).ok()
    }
}

impl<E: std::error::Error> From<E> for Refusal {
    fn from(error: E) -> Self {
        Self::new(500, error.to_string())
    }
}

/// A function that answers requests. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Handler(Arc<dyn Fn(Asked) -> BoxFuture<'static, Result<Payload, Refusal>> + Send + Sync>);

impl Handler {
    pub(crate) fn new<F, T, P>(answer: F) -> Self
    where
        F: Fn(Asked) -> T + Send + Sync + 'static,
        T: Future<Output = Result<P, Refusal>> + Send + 'static,
        P: Into<Payload>,
    {
        Self(Arc::new(move |asked| answer(asked).map(|answered| answered.map(Into::into)).boxed()))
    }
}

impl std::fmt::Debug for Handler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Handler(..)")
    }
}

/// The handlers of a client, by topic; under `None` that of the client itself.
#[derive(Debug, Default)]
pub(crate) struct Handlers(Mutex<HashMap<Option<Box<str>>, mpsc::Sender<Open>>>);

impl Handlers {
    fn lock(&self) -> MutexGuard<'_, HashMap<Option<Box<str>>, mpsc::Sender<Open>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands a request to its handler, or refuses it. Does not wait.
    pub(crate) fn asked(&self, link: &Arc<Link>, called: Called) {
        let sender = self.lock().get(&called.topic.as_deref().map(Box::from)).cloned();
        let mut open = Open::new(link, called);
        let refusal = match sender.map(|sender| sender.try_reserve_owned()) {
            Some(Ok(place)) => return drop(place.send(open)),
            Some(Err(mpsc::error::TrySendError::Full(_))) => Refusal::new(503, "too many requests wait here"),
            Some(Err(_)) | None => Refusal::new(404, "no handler answers here any more"),
        };
        open.refuse(refusal);
    }
}

/// A request of another client that has no answer yet. Dropping it says so.
struct Open {
    link: Arc<Link>,
    called: Called,
    /// Cancelled when it needs no answer any more.
    stop: CancellationToken,
    is_answered: bool,
}

impl Open {
    fn new(link: &Arc<Link>, called: Called) -> Self {
        let stop = link.begin_serving(&called.request);
        Self { link: Arc::clone(link), called, stop, is_answered: false }
    }

    /// Has a handler answer it, unless the other client gives it up.
    async fn answer(mut self, handler: Handler) {
        let Called { topic, from, payload, timestamp, timeout_ms, .. } = self.called.clone();
        let deadline = Instant::now() + Duration::from_millis(timeout_ms);
        let answered = tokio::select! {
            answered = (handler.0)(Asked { topic, from, payload, timestamp, deadline }) => answered,
            () = self.stop.cancelled() => return self.is_answered = true,
        };
        match answered {
            Ok(payload) => self.send(payload, deadline).await,
            Err(refusal) => self.refuse(refusal),
        }
    }

    async fn send(&mut self, payload: Payload, deadline: Instant) {
        let Ok(id) = CallId::new(&self.called.request) else { return };
        let reply = ClientMessage::Reply(Box::new(Reply::new(id, payload)));
        let sent = tokio::select! {
            sent = self.link.request(&reply, deadline) => sent,
            () = self.stop.cancelled() => return self.is_answered = true,
        };
        match sent {
            Err(Unsent::Error(error @ ClientError::TooLarge { .. })) => self.refuse(error.into()),
            Err(Unsent::Error(ClientError::Server(error))) if error.code == ErrorCode::BadRequest.number() => {
                self.refuse(Refusal::new(500, format!("the answer was refused: {}", error.message)));
            }
            // It is too late for another answer.
            _ => self.is_answered = true,
        }
    }

    fn refuse(&mut self, refusal: Refusal) {
        self.is_answered = true;
        let Ok(id) = CallId::new(&self.called.request) else { return };
        if let Some(failure) = refusal.into_failure() {
            self.link.tell(&ClientMessage::Reply(Box::new(Reply::failed(id, failure))));
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        if !self.is_answered && !self.stop.is_cancelled() {
            self.refuse(Refusal::new(500, "the handler ended without an answer"));
        }
        self.link.end_serving(&self.called.request);
    }
}

/// The requests under one key of [`Handlers`], until it is dropped.
struct Requests {
    topics: Arc<Topics>,
    key: Option<Box<str>>,
    waiting: mpsc::Receiver<Open>,
}

impl Requests {
    /// Those to a topic, unless it has a handler; `None` for those to the client itself.
    fn to(topics: &Arc<Topics>, topic: Option<&str>) -> Option<Self> {
        let (sender, waiting) = mpsc::channel(MOST_WAITING);
        let key = topic.map(Box::from);
        let mut handlers = topics.handlers.lock();
        if handlers.get(&key).is_some_and(|sender| !sender.is_closed()) {
            return None;
        }
        handlers.insert(key.clone(), sender);
        drop(handlers);
        Some(Self { topics: Arc::clone(topics), key, waiting })
    }

    /// Has a handler answer them, so many at once. Never returns; the handlers that run end with it.
    async fn serve(&mut self, handler: &Handler, concurrency: usize) {
        let mut running = JoinSet::new();
        loop {
            tokio::select! {
                Some(_) = running.join_next() => {}
                Some(open) = self.waiting.recv(), if running.len() < concurrency => {
                    running.spawn(open.answer(handler.clone()));
                }
                else => std::future::pending().await,
            }
        }
    }
}

impl Drop for Requests {
    fn drop(&mut self) {
        self.waiting.close();
        let mut handlers = self.topics.handlers.lock();
        if handlers.get(&self.key).is_some_and(mpsc::Sender::is_closed) {
            handlers.remove(&self.key);
        }
    }
}

/// Answers requests that are addressed to the client itself, for as long as the task lives.
pub(crate) fn serve_client(topics: &Arc<Topics>, handler: Handler) -> AbortOnDropHandle<()> {
    let requests = Requests::to(topics, None);
    let serve = async move {
        if let Some(mut requests) = requests {
            requests.serve(&handler, DEFAULT_CONCURRENCY).await;
        }
    };
    AbortOnDropHandle::new(tokio::spawn(serve))
}

impl Client {
    /// Answers requests to a topic, in turn with other clients that do: another client asks by
    /// [`request`](Self::request), and the handler's result is the answer. An error is answered as a failure, with code
    /// 500 and its text; a [`Refusal`] with a code of its own. Set options on the returned builder, and await it.
    ///
    /// ```no_run
    /// # async fn f(client: quic_websocket_client::Client) -> Result<(), quic_websocket_client::ClientError> {
    /// use quic_websocket_client::serde_json::json;
    /// use quic_websocket_client::Refusal;
    ///
    /// let service = client
    ///     .serve("rpc.sum", async |asked| {
    ///         let numbers: Vec<u64> = asked.data()?.ok_or_else(|| Refusal::new(400, "send numbers"))?;
    ///         Ok(json!(numbers.iter().sum::<u64>()))
    ///     })
    ///     .concurrency(16)
    ///     .await?;
    /// println!("ended: {}", service.ended().await);
    /// # Ok(()) }
    /// ```
    ///
    /// Many requests are answered at once. A handler whose request was given up is dropped where it waits. The client
    /// can have no other subscription to the topic meanwhile; what is published to the topic is dropped.
    pub fn serve<F, T, P>(&self, topic: impl Into<String>, answer: F) -> ServeBuilder<'_>
    where
        F: Fn(Asked) -> T + Send + Sync + 'static,
        T: Future<Output = Result<P, Refusal>> + Send + 'static,
        P: Into<Payload>,
    {
        ServeBuilder {
            client: self,
            topic: topic.into(),
            handler: Handler::new(answer),
            concurrency: DEFAULT_CONCURRENCY,
            share: false,
        }
    }
}

/// A handler for the requests to a topic; awaiting it begins to answer.
#[derive(Debug)]
#[must_use = "nothing is answered until this is awaited"]
pub struct ServeBuilder<'a> {
    client: &'a Client,
    topic: String,
    handler: Handler,
    concurrency: usize,
    share: bool,
}

impl<'a> ServeBuilder<'a> {
    /// Most requests that are answered at once; further ones wait. Default: 64; at least 1.
    pub fn concurrency(mut self, requests: usize) -> Self {
        self.concurrency = requests.max(1);
        self
    }

    /// Joins the topic's queue group: of the messages that are published to the topic, those for this client are
    /// dropped, so that no other member gets them. Requests go to all clients that answer, members or not.
    pub fn share(mut self) -> Self {
        self.share = true;
        self
    }

    /// Begins to answer; the same as awaiting it.
    ///
    /// # Errors
    /// As [`SubscribeBuilder::open`].
    pub async fn open(self) -> Result<Service, ClientError> {
        let Self { client, topic, handler, concurrency, share } = self;
        let Some(mut requests) = Requests::to(&client.shared.topics, Some(&topic)) else {
            return Err(ClientError::AlreadySubscribed { topic });
        };
        let subscribe = client.subscribe(topic).requests();
        let subscribe: SubscribeBuilder<'_> = if share { subscribe.share() } else { subscribe };
        let mut subscription = subscribe.await?;
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let task = tokio::spawn(async move {
            let ended = tokio::select! {
                ended = end_of(&mut subscription) => Some(ended),
                () = requests.serve(&handler, concurrency) => None,
                () = stopped.cancelled() => None,
            };
            match ended {
                Some(ended) => Err(ended),
                None => Ok(subscription.unsubscribe().await),
            }
        });
        Ok(Service { task: AbortOnDropHandle::new(task), stop })
    }
}

impl<'a> IntoFuture for ServeBuilder<'a> {
    type Output = Result<Service, ClientError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send + 'a>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.open())
    }
}

/// Reads a subscription to its end, and drops its messages.
async fn end_of(subscription: &mut Subscription) -> Ended {
    loop {
        match subscription.next().await {
            Some(TopicEvent::Ended(ended)) => return ended,
            Some(_) => {}
            None => return Ended::of("it has ended"),
        }
    }
}

/// A handler that answers requests to a topic, made by [`Client::serve`]. It outlives connections, and keeps the client
/// connected. Dropping it ends it, and the requests that it has not answered.
#[derive(Debug)]
#[must_use = "dropping it ends it"]
pub struct Service {
    task: AbortOnDropHandle<Result<Result<(), ClientError>, Ended>>,
    stop: CancellationToken,
}

impl Service {
    /// Waits until the server has ended it, or the client is closed; gives the reason.
    pub async fn ended(self) -> Ended {
        match self.task.await {
            Ok(Err(ended)) => ended,
            Ok(Ok(_)) | Err(_) => Ended::of("it was stopped"),
        }
    }

    /// Ends it, and waits until the server sends no more requests. Requests that it has not answered fail.
    ///
    /// # Errors
    /// As [`Subscription::unsubscribe`].
    pub async fn stop(self) -> Result<(), ClientError> {
        self.stop.cancel();
        match self.task.await {
            Ok(Ok(unsubscribed)) => unsubscribed,
            Ok(Err(_)) | Err(_) => Ok(()),
        }
    }
}
