//! How a subscription is to be.

use std::future::IntoFuture;
use std::pin::Pin;

use tokio::sync::oneshot;

use super::queue::{Keep, Queue};
use super::subscription::Subscription;
use crate::message::{DeliveryMode, Invalid, LaneChoice, Position, Subscribe, TopicPattern};
use crate::{Client, ClientError};

/// Events of one subscription that wait where nothing else was said.
const DEFAULT_QUEUE: usize = 1024;

impl Client {
    /// Subscribes to a topic, such as `chat.lobby`, or to all that match a pattern: `*` stands for one level, a last
    /// `>` for one or more, as in `sensors.*.temperature` and `chat.>`. Await what is given, after setting
    /// options where needed:
    ///
    /// ```no_run
    /// # async fn f(client: quic_websocket_client::Client) -> Result<(), quic_websocket_client::ClientError> {
    /// use quic_websocket_client::TopicEvent;
    ///
    /// let mut lobby = client.subscribe("chat.lobby").recent(10).await?;
    /// while let Some(event) = lobby.next().await {
    ///     match event {
    ///         TopicEvent::Message(message) => println!("{:?}", message.payload.content),
    ///         TopicEvent::Missed(missed) => println!("(messages are missing: {})", missed.reason),
    ///         TopicEvent::Ended(ended) => println!("the subscription ended: {ended}"),
    ///         _ => {}
    ///     }
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// Where several subscriptions of this client match a message, it goes to the one that names its topic exactly, else
    /// to the first pattern that was subscribed to.
    pub fn subscribe(&self, topic: impl Into<String>) -> SubscribeBuilder<'_> {
        SubscribeBuilder {
            client: self,
            topic: topic.into(),
            since: None,
            recent: None,
            presence: false,
            delivery: DeliveryMode::Stream,
            lane: LaneChoice::Own,
            queue: DEFAULT_QUEUE,
            keep: Keep::All,
        }
    }
}

/// A subscription to be; awaiting it makes it. By default it begins with the next message that is published.
#[derive(Debug, Clone)]
#[must_use = "nothing is subscribed to until this is awaited"]
pub struct SubscribeBuilder<'a> {
    client: &'a Client,
    topic: String,
    since: Option<Position>,
    recent: Option<u64>,
    presence: bool,
    delivery: DeliveryMode,
    lane: LaneChoice,
    queue: usize,
    keep: Keep,
}

impl<'a> SubscribeBuilder<'a> {
    /// Begins with so many of the newest messages, as far as the server has them. Beside [`since`](Self::since), only
    /// where that cannot be recovered.
    pub fn recent(mut self, messages: u64) -> Self {
        self.recent = Some(messages);
        self
    }

    /// Begins behind a position that was kept: [`Subscription::position`]. Where the server has not everything any more
    /// that came after, the first event is a [`Missed`](super::Missed). Not for patterns.
    pub fn since(mut self, position: Position) -> Self {
        self.since = Some(position);
        self
    }

    /// Whether to be told of who comes and leaves. Who is there already is told by [`Client::presence`]; ask anew after a
    /// reconnect. Default: no.
    pub fn presence(mut self, presence: bool) -> Self {
        self.presence = presence;
        self
    }

    /// Takes messages as datagrams: each comes at once or not at all, and of a topic late ones are dropped (of a pattern they
    /// are not, and the reader compares offsets). For state of which the newest value is all that matters. What is lost is
    /// not told, neither on the way nor over a reconnect nor in a full queue, where the oldest of the topic go that has most
    /// waiting ([`latest`](Self::latest) keeps the newest alone); offsets that jump show it.
    /// After a reconnect offsets may begin anew, which is not told either: whoever compares them takes a smaller one with a
    /// newer timestamp for a new beginning.
    pub fn datagrams(mut self) -> Self {
        self.delivery = DeliveryMode::Datagram;
        self
    }

    /// Keeps of each topic the newest message alone while the reader is busy with others: for state of which the newest
    /// value is all that matters. A message takes the place of the one of its topic that waits, so topics are read in turn
    /// and a busy one holds up no other. What is replaced is not told, nor is what the server dropped; nothing waits for
    /// the reader. [`queue`](Self::queue) has to have room for as many topics as match.
    ///
    /// ```no_run
    /// # async fn f(client: quic_websocket_client::Client) -> Result<(), quic_websocket_client::ClientError> {
    /// let mut sensors = client.subscribe("sensors.*").datagrams().latest().await?;
    /// while let Some(event) = sensors.next().await {
    ///     println!("{event:?}"); // However long this takes, what comes next is new.
    /// }
    /// # Ok(()) }
    /// ```
    pub fn latest(mut self) -> Self {
        self.keep = Keep::Newest;
        self
    }

    /// Takes messages on the control lane, in order with everything else there, in place of a lane of the topic's own.
    /// Nothing may hold up that lane: of a full queue the oldest messages are dropped, of the topic that has most waiting,
    /// and told by [`Missed`](super::Missed). Over a WebSocket, which has one lane, all messages come so.
    pub fn on_control_lane(mut self) -> Self {
        self.lane = LaneChoice::Control;
        self
    }

    /// How many events may wait to be read. With more, the topic's lane is read no further: other lanes and all replies go
    /// on, and the server treats this subscription as its policy for slow readers says. From the 17th subscription of a
    /// client on, subscriptions share lanes, and one that is not read holds up those on its lane. Default: 1,024; at
    /// least 1.
    pub fn queue(mut self, events: usize) -> Self {
        self.queue = events.max(1);
        self
    }

    /// Subscribes; the same as awaiting it.
    ///
    /// # Errors
    /// [`ClientError::Invalid`] where the topic or an option is out of its bounds; [`ClientError::AlreadySubscribed`];
    /// [`ClientError::Server`] where the server does not let it, with code 403 where that is forbidden;
    /// [`ClientError::Timeout`]; [`ClientError::Closed`].
    pub async fn open(self) -> Result<Subscription, ClientError> {
        let topic = TopicPattern::new(&self.topic)?;
        if topic.is_wildcard() && self.since.is_some() {
            return Err(Invalid::field("since: a pattern has no position; subscribe to each topic").into());
        }
        let queue = Queue::new(topic.as_str(), self.queue, self.keep);
        let mut request = Subscribe::new(topic);
        request.since = self.since;
        request.recent = self.recent;
        request.delivery = self.delivery;
        request.lane = self.lane;
        request.presence = self.presence;
        let (opened, answer) = oneshot::channel();
        let number = self.client.shared.topics.add(request, queue.clone(), opened)?;
        // From here on, giving up is dropping it.
        let mut subscription = Subscription::new(self.client.clone(), number, self.topic, queue);
        let topics = &self.client.shared.topics;
        let first = match self.client.bounded(async { answer.await.unwrap_or(Err(ClientError::Lost)) }).await {
            // Refused again and again: that is why it took so long.
            Err(late @ ClientError::Timeout(_)) => {
                return Err(topics.refusal(number).map_or(late, ClientError::Server));
            }
            first => first?,
        };
        subscription.begin_at(first);
        Ok(subscription)
    }
}

impl<'a> IntoFuture for SubscribeBuilder<'a> {
    type Output = Result<Subscription, ClientError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send + 'a>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.open())
    }
}
