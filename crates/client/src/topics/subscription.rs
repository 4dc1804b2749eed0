//! A subscription in its reader's hands.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures_util::Stream;
use tokio::sync::oneshot;

use super::event::TopicEvent;
use super::queue::{Item, Queue, Seen};
use crate::client::unexpected;
use crate::message::{Position, ServerMessage};
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
/// It outlives connections: after a reconnect it goes on behind the last message it got, nothing lost and nothing
/// twice. Where that cannot be, [`TopicEvent::Missed`] says so in its place. Of a pattern it says so after
/// every reconnect, because a pattern has no position. Where the server does not take it back just then (error 429, 500
/// or 503), it is asked again until it does.
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
}

impl Subscription {
    pub(super) fn new(client: Client, number: u64, topic: String, queue: Arc<Queue>) -> Self {
        Self { client, number, topic, queue, position: None }
    }

    pub(super) fn begin_at(&mut self, position: Option<Seen>) {
        self.position = position;
    }

    /// Waits for the next event; `None` behind [`TopicEvent::Ended`]. Cancel safe.
    pub async fn next(&mut self) -> Option<TopicEvent> {
        let item = self.queue.next().await?;
        Some(self.take(item))
    }

    /// The next event, where there is one already.
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

    /// Behind the last event that was handed out: what to keep, and to give to
    /// [`since`](super::SubscribeBuilder::since), in order to go on there in another process. `None` for a pattern.
    pub fn position(&self) -> Option<Position> {
        let seen = self.position.as_ref()?;
        Some(Position { epoch: seen.epoch.as_ref().to_owned(), offset: seen.offset })
    }

    /// The topic or pattern that was subscribed to.
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// Ends it, and waits until the server has done so too. Events that were not handed out are dropped.
    ///
    /// # Errors
    /// [`ClientError::Server`] where the server answers with an error, [`ClientError::Timeout`] where it does not
    /// answer. The subscription has ended all the same.
    pub async fn unsubscribe(self) -> Result<(), ClientError> {
        let (reply, replied) = oneshot::channel();
        let client = self.client.clone();
        client.shared.topics.leave(self.number, Some(reply));
        client
            .bounded(async {
                match replied.await.map(crate::link::unless_error) {
                    Ok(Ok(ServerMessage::Ok { .. })) => Ok(()),
                    Ok(Ok(other)) => Err(unexpected("unsubscribe", &other)),
                    Ok(Err(e)) => Err(e),
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
        self.client.shared.topics.leave(self.number, None);
    }
}
