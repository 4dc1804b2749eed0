//! A subscription as its reader holds it.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_core::Stream;
use tokio::sync::oneshot;

use super::consumer::Consumer;
use super::event::TopicEvent;
use super::queue::{Item, Queue, Seen};
use crate::client::unexpected;
use crate::message::{ClientMessage, Invalid, Json, Offsets, Position, ServerMessage, TopicName};
use crate::{Client, ClientError};

/// The messages of a topic, or of all topics that match a pattern; made by [`Client::subscribe`]. Read it by
/// [`next`](Self::next), or as a [`Stream`]:
///
/// ```no_run
/// # async fn f(client: quic_websocket_client::Client) -> Result<(), quic_websocket_client::ClientError> {
/// use futures_util::{StreamExt, stream};
///
/// let (a, b) = (client.subscribe("a").await?, client.subscribe("b").await?);
/// let mut both = stream::select(a, b);
/// while let Some(event) = both.next().await {
///     println!("{event:?}");
/// }
/// # Ok(()) }
/// ```
///
/// It outlives connections: after a reconnect it resumes behind the last message that came, with nothing lost and
/// nothing twice; with [`durable`](super::SubscribeBuilder::durable), with every message that was not acknowledged. If
/// that is not possible, [`TopicEvent::Missed`] reports it at that point; for a pattern after every
/// reconnect, because a pattern has no position. If the server refuses it for the moment (error 429, 500 or 503), the
/// client asks again until the server accepts it.
///
/// It keeps the client connected, and has to be read: see [`SubscribeBuilder::queue`](super::SubscribeBuilder::queue).
/// Dropping it unsubscribes.
#[derive(Debug)]
#[must_use = "dropping it unsubscribes"]
pub struct Subscription {
    client: Client,
    number: u64,
    topic: String,
    queue: Arc<Queue>,
    position: Option<Seen>,
    consumer: Option<Consumer>,
}

impl Subscription {
    pub(super) fn new(
        client: Client,
        number: u64,
        topic: String,
        queue: Arc<Queue>,
        consumer: Option<Consumer>,
    ) -> Self {
        Self { client, number, topic, queue, position: None, consumer }
    }

    pub(super) fn begin_at(&mut self, position: Option<Seen>) {
        self.position = position;
    }

    /// Waits for the next event; `None` after [`TopicEvent::Ended`].
    ///
    /// Cancel safe: if the call is dropped, no event is lost.
    pub async fn next(&mut self) -> Option<TopicEvent> {
        let item = self.queue.next().await?;
        Some(self.take(item))
    }

    /// The next event, if one is waiting.
    pub fn try_next(&mut self) -> Option<TopicEvent> {
        let item = self.queue.try_next()?;
        Some(self.take(item))
    }

    fn take(&mut self, Item { event, position }: Item) -> TopicEvent {
        if position.is_some() {
            self.position = position;
        }
        event
    }

    /// The position behind the last event that was handed out. Store it, and pass it to
    /// [`since`](super::SubscribeBuilder::since) to resume there in another process. `None` for a pattern, before the
    /// first message of a subscription with [`recent`](super::SubscribeBuilder::recent) ones, and with
    /// [`durable`](super::SubscribeBuilder::durable) or [`share`](super::SubscribeBuilder::share), where the server
    /// knows what is next.
    pub fn position(&self) -> Option<Position> {
        let seen = self.position.as_ref()?;
        Some(Position { epoch: seen.epoch.as_ref().to_owned(), offset: seen.offset })
    }

    /// The topic or pattern that was subscribed to.
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// Sets this client's state on the topic, for the other members: any JSON value of at most 1 KiB (by default),
    /// `None` for none. It is set again after a reconnect.
    ///
    /// # Errors
    /// [`ClientError::Invalid`] for a pattern, whose subscribers are no members; [`ClientError::Server`] with code 404
    /// if presence is off for the topic; otherwise as [`Client::call`].
    pub async fn set_state(&self, state: Option<Json>) -> Result<(), ClientError> {
        let topic = TopicName::new(&self.topic)?;
        self.client.shared.topics.keep_state(self.number, state.clone());
        match self.client.ask(&ClientMessage::State { topic, state }, true).await? {
            ServerMessage::Ok { .. } => Ok(()),
            other => Err(unexpected("state", &other)),
        }
    }

    /// The durable consumer that the messages come from; clone it to acknowledge in other tasks. `None` without
    /// [`durable`](super::SubscribeBuilder::durable).
    pub fn consumer(&self) -> Option<&Consumer> {
        self.consumer.as_ref()
    }

    fn durable(&self) -> Result<&Consumer, ClientError> {
        self.consumer.as_ref().ok_or_else(|| {
            Invalid::field("durable: this subscription has none, so its messages cannot be acknowledged").into()
        })
    }

    /// Says that messages are done: [`Consumer::ack`].
    ///
    /// # Errors
    /// As there; [`ClientError::Invalid`] without [`durable`](super::SubscribeBuilder::durable).
    pub async fn ack(&self, messages: impl Into<Offsets>) -> Result<u64, ClientError> {
        self.durable()?.ack(messages).await
    }

    /// Has messages delivered again after a while: [`Consumer::retry`].
    ///
    /// # Errors
    /// As there; [`ClientError::Invalid`] without [`durable`](super::SubscribeBuilder::durable).
    pub async fn retry(&self, messages: impl Into<Offsets>, delay: Duration) -> Result<u64, ClientError> {
        self.durable()?.retry(messages, delay).await
    }

    /// Gives messages up: [`Consumer::reject`].
    ///
    /// # Errors
    /// As there; [`ClientError::Invalid`] without [`durable`](super::SubscribeBuilder::durable).
    pub async fn reject(&self, messages: impl Into<Offsets>) -> Result<u64, ClientError> {
        self.durable()?.reject(messages).await
    }

    /// Ends the subscription and its durable consumer for good, for all clients of the consumer, and waits until the
    /// server has ended them. A later subscription with the same name begins where it says.
    ///
    /// # Errors
    /// As [`unsubscribe`](Self::unsubscribe); [`ClientError::Invalid`] without
    /// [`durable`](super::SubscribeBuilder::durable). If the connection is lost before the server has answered, the
    /// consumer may remain: [`ClientError::Lost`].
    pub async fn forget(self) -> Result<(), ClientError> {
        self.durable()?;
        self.end(true).await
    }

    /// Ends the subscription, and waits until the server has ended it as well. Events that were not handed out are
    /// dropped.
    ///
    /// # Errors
    /// [`ClientError::Server`] if the server answers with an error, [`ClientError::Timeout`] if it does not answer
    /// within [`ClientBuilder::request_timeout`](crate::ClientBuilder::request_timeout). The subscription has ended all
    /// the same.
    pub async fn unsubscribe(self) -> Result<(), ClientError> {
        self.end(false).await
    }

    async fn end(self, forget: bool) -> Result<(), ClientError> {
        let (reply, replied) = oneshot::channel();
        let client = self.client.clone();
        client.shared.topics.leave(self.number, Some(reply), forget);
        client
            .bounded(async {
                match replied.await.map(crate::link::unless_error) {
                    Ok(Ok(ServerMessage::Ok { .. })) => Ok(()),
                    Ok(Ok(other)) => Err(unexpected("unsubscribe", &other)),
                    Ok(Err(e)) => Err(e),
                    Err(_) if forget => Err(ClientError::Lost),
                    // With a connection its subscriptions end.
                    Err(_) => Ok(()),
                }
            })
            .await
    }
}

impl Stream for Subscription {
    type Item = TopicEvent;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<TopicEvent>> {
        let this = self.get_mut();
        let item = ready!(this.queue.poll_next(cx));
        Poll::Ready(item.map(|item| this.take(item)))
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.client.shared.topics.leave(self.number, None, false);
    }
}
