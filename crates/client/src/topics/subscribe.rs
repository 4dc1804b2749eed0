//! The options of a subscription.

use std::future::IntoFuture;
use std::pin::Pin;

use tokio::sync::oneshot;

use super::queue::{Keep, Queue};
use super::subscription::Subscription;
use crate::message::{DeliveryMode, Invalid, LaneChoice, Position, Subscribe, TopicPattern};
use crate::{Client, ClientError};

/// Default for the most events of one subscription that wait.
const DEFAULT_QUEUE: usize = 1024;

impl Client {
    /// Subscribes to a topic, such as `chat.lobby`, or to all topics that match a pattern: `*` stands for one level, a
    /// last `>` for one or more, as in `sensors.*.temperature` and `chat.>`. Set options on the returned builder, and
    /// await it:
    ///
    /// ```no_run
    /// # async fn f(client: quic_websocket_client::Client) -> Result<(), quic_websocket_client::ClientError> {
    /// use quic_websocket_client::TopicEvent;
    ///
    /// let mut lobby = client.subscribe("chat.lobby").recent(10).await?;
    /// while let Some(event) = lobby.next().await {
    ///     match event {
    ///         TopicEvent::Message(message) => println!("{:?}", message.text()),
    ///         TopicEvent::Missed(missed) => println!("(messages are missing: {})", missed.reason),
    ///         TopicEvent::Ended(ended) => println!("the subscription ended: {ended}"),
    ///         _ => {}
    ///     }
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// If several subscriptions of this client match a message, it goes to the one that names the topic exactly,
    /// otherwise to the pattern that was subscribed to first.
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

/// The options of a subscription; awaiting it subscribes. By default it begins with the next message that is published.
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
    /// Begins with so many of the newest messages, as far as the server keeps them. Together with
    /// [`since`](Self::since), only if that position cannot be resumed.
    pub fn recent(mut self, messages: u64) -> Self {
        self.recent = Some(messages);
        self
    }

    /// Begins behind a stored position, from [`Subscription::position`]. If the server no longer has everything that
    /// came after it, the first event is a [`Missed`](super::Missed). Not for patterns.
    pub fn since(mut self, position: Position) -> Self {
        self.since = Some(position);
        self
    }

    /// Whether to report clients that come to the topic and leave it. [`Client::presence`] lists those that are there
    /// already; ask again after a reconnect. Default: no.
    pub fn presence(mut self, presence: bool) -> Self {
        self.presence = presence;
        self
    }

    /// Receives messages as datagrams, for state of which only the newest value matters: each arrives at once or not at
    /// all. Late messages of a topic are dropped; those of a pattern are not, and the reader compares offsets.
    ///
    /// Losses are not reported, neither on the network nor over a reconnect nor in a full queue, which drops the oldest
    /// message of the topic that has most waiting ([`latest`](Self::latest) keeps only the newest). After a reconnect
    /// offsets may start again, which is not reported either: a smaller offset with a newer timestamp is a new start.
    pub fn datagrams(mut self) -> Self {
        self.delivery = DeliveryMode::Datagram;
        self
    }

    /// Queues only the newest message of each topic, for state of which only the newest value matters. A message
    /// replaces the one of its topic that waits, so topics are read in turn and a busy one delays no other. Neither
    /// replaced messages nor losses at the server are reported, and nothing waits for the reader.
    /// [`queue`](Self::queue) needs room for all topics that match.
    ///
    /// ```no_run
    /// # async fn f(client: quic_websocket_client::Client) -> Result<(), quic_websocket_client::ClientError> {
    /// let mut sensors = client.subscribe("sensors.*").datagrams().latest().await?;
    /// while let Some(event) = sensors.next().await {
    ///     println!("{event:?}"); // However long this takes, the next event is new.
    /// }
    /// # Ok(()) }
    /// ```
    pub fn latest(mut self) -> Self {
        self.keep = Keep::Newest;
        self
    }

    /// Receives messages on the control lane, in order with everything else there, instead of on a lane of the topic's
    /// own. Nothing may hold up that lane: a full queue drops the oldest message of the topic that has most waiting,
    /// and reports it by [`Missed`](super::Missed). A WebSocket has one lane, so this applies to all messages there.
    pub fn on_control_lane(mut self) -> Self {
        self.lane = LaneChoice::Control;
        self
    }

    /// Most events that wait to be read. Beyond that, the client stops reading the topic's lane; other lanes and
    /// replies continue, and the server applies its policy for slow readers to this subscription. From the 17th
    /// subscription of a client on, subscriptions share lanes, and one that is not read holds up the others on its
    /// lane. Default: 1,024; at least 1.
    pub fn queue(mut self, events: usize) -> Self {
        self.queue = events.max(1);
        self
    }

    /// Subscribes; the same as awaiting it.
    ///
    /// # Errors
    /// [`ClientError::Invalid`] if the topic or an option is out of its bounds; [`ClientError::AlreadySubscribed`];
    /// [`ClientError::Server`] if the server refuses, with code 403 if it is not permitted; [`ClientError::Timeout`];
    /// [`ClientError::Closed`].
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
        // From here on, dropping it unsubscribes.
        let mut subscription = Subscription::new(self.client.clone(), number, self.topic, queue);
        let topics = &self.client.shared.topics;
        let first = match self.client.bounded(async { answer.await.unwrap_or(Err(ClientError::Lost)) }).await {
            // The repeated refusal explains the timeout.
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
