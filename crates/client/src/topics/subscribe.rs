//! The options of a subscription.

use std::future::IntoFuture;
use std::pin::Pin;
use std::time::Duration;

use tokio::sync::oneshot;

use super::consumer::Consumer;
use super::queue::{Keep, Queue};
use super::routes::Added;
use super::subscription::Subscription;
use crate::message::{
    AckMode, ConsumerFields, ConsumerName, ConsumerRequest, DeliveryMode, Invalid, Json, LaneChoice, MAX_IN_FLIGHT,
    Position, Subscribe, TopicName, TopicPattern,
};
use crate::{Client, ClientError};

/// Default for the most events of one subscription that wait.
pub(super) const DEFAULT_QUEUE: usize = 1024;

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
            since_time: None,
            recent: None,
            presence: false,
            occupancy: false,
            state: None,
            requests: false,
            max_rate: None,
            echo: true,
            filter: None,
            delivery: DeliveryMode::Stream,
            lane: LaneChoice::Own,
            queue: DEFAULT_QUEUE,
            keep: Keep::All,
            durable: None,
            consumer: ConsumerFields::default(),
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
    since_time: Option<u64>,
    recent: Option<u64>,
    presence: bool,
    occupancy: bool,
    state: Option<Json>,
    requests: bool,
    max_rate: Option<u64>,
    echo: bool,
    filter: Option<Json>,
    delivery: DeliveryMode,
    lane: LaneChoice,
    queue: usize,
    keep: Keep,
    durable: Option<String>,
    /// Without the name, which is not checked yet.
    consumer: ConsumerFields,
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

    /// Begins with the first message from this time on, in Unix milliseconds, by the server's clock. If the server no
    /// longer has everything from then on, the first event is a [`Missed`](super::Missed). Not together with
    /// [`since`](Self::since), and not for patterns.
    pub fn since_time(mut self, unix_ms: u64) -> Self {
        self.since_time = Some(unix_ms);
        self
    }

    /// Takes the messages from a durable consumer of this name, which the server remembers: it delivers each message
    /// again until it is acknowledged, also to the next process that uses the same name. The name has 1 to 64 of
    /// `A-Z a-z 0-9 _ -` and belongs to its topic.
    ///
    /// The first subscription creates the consumer; [`since`](Self::since), [`since_time`](Self::since_time) and
    /// [`recent`](Self::recent) say where it begins, and have no effect later. Acknowledge each message once its work
    /// is done: by [`Subscription::ack`], or by a [`Consumer`] in other tasks. A message that comes again has
    /// [`tries`](crate::message::TopicMessage::tries), and may come after newer ones; so may every message after a
    /// reconnect.
    ///
    /// ```no_run
    /// # fn store(_: &str) -> Result<(), std::io::Error> { Ok(()) }
    /// # async fn f(client: quic_websocket_client::Client) -> Result<(), quic_websocket_client::ClientError> {
    /// use std::time::Duration;
    ///
    /// use quic_websocket_client::{Ended, TopicEvent};
    ///
    /// let mut orders = client.subscribe("orders.eu").durable("billing").recent(1000).await?;
    /// while let Some(event) = orders.next().await {
    ///     match event {
    ///         TopicEvent::Message(order) => match store(order.text().unwrap_or_default()) {
    ///             Ok(()) => drop(orders.ack(&order).await?),
    ///             Err(_) if order.tries.unwrap_or(1) < 5 => {
    ///                 orders.retry(&order, Duration::from_secs(10)).await?;
    ///             }
    ///             Err(_) => drop(orders.reject(&order).await?),
    ///         },
    ///         TopicEvent::Ended(Ended::TakenOver { .. }) => println!("another process does the billing now"),
    ///         other => println!("{other:?}"),
    ///     }
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// Without [`share`](Self::share) the consumer has one client: a newer subscription takes it over, and the older
    /// one ends with [`Ended::TakenOver`](super::Ended::TakenOver). Not for patterns, and not with
    /// [`datagrams`](Self::datagrams) or [`latest`](Self::latest).
    pub fn durable(mut self, name: impl Into<String>) -> Self {
        self.durable = Some(name.into());
        self
    }

    /// Shares the topic's messages with other subscriptions, so that each message goes to one of them: with
    /// [`durable`](Self::durable) with all clients of that consumer; without it with all subscriptions to the topic
    /// that share it, at most once and without acknowledgements, beginning with the next message. Not for patterns.
    pub fn share(mut self) -> Self {
        self.consumer.share = true;
        self
    }

    /// What one acknowledgement covers. Like all settings of a durable consumer, it is fixed when the consumer is
    /// created: another value later is refused with code 409, none means as it is. Default: [`AckMode::Each`].
    pub fn ack_mode(mut self, mode: AckMode) -> Self {
        self.consumer.ack = Some(mode);
        self
    }

    /// After how long a message that was not acknowledged is delivered again, from one second to one hour. Only with
    /// [`durable`](Self::durable). Default: 30 s.
    pub fn ack_wait(mut self, wait: Duration) -> Self {
        self.consumer.ack_wait_ms = Some(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX));
        self
    }

    /// Most messages that are delivered and not yet acknowledged, from 1 to 1,000. Only with
    /// [`durable`](Self::durable). Default: 100.
    pub fn max_in_flight(mut self, messages: u64) -> Self {
        self.consumer.max_in_flight = Some(messages);
        self
    }

    /// Most deliveries of one message, at most 1,000, before it goes to the dead-letter topic; 0 means any number. Only
    /// with [`durable`](Self::durable). Default: 0.
    pub fn max_deliver(mut self, deliveries: u64) -> Self {
        self.consumer.max_deliver = Some(deliveries);
        self
    }

    /// Whether to report members that come to the topic, change their state, and leave it. [`Client::members`] lists
    /// those that are there already, and [`Members`](crate::Members) keeps both together. Default: no.
    pub fn presence(mut self, presence: bool) -> Self {
        self.presence = presence;
        self
    }

    /// Reports the number of members when it changes, and no names: for topics with very many. Not together with
    /// [`presence`](Self::presence).
    pub fn occupancy(mut self) -> Self {
        self.occupancy = true;
        self
    }

    /// This client's first state on the topic, for the other members: any JSON value of at most 1 KiB (by default).
    /// [`Subscription::set_state`] changes it. Not for patterns.
    pub fn state(mut self, state: impl Into<Json>) -> Self {
        self.state = Some(state.into());
        self
    }

    /// Most messages per second of each topic, from 1 to 1,000: of those that come in one interval, the newest. What is
    /// left out is not reported. Not with [`durable`](Self::durable) and [`share`](Self::share).
    ///
    /// ```no_run
    /// # async fn f(client: quic_websocket_client::Client) -> Result<(), quic_websocket_client::ClientError> {
    /// use quic_websocket_client::serde_json::json;
    ///
    /// let filter = json!({ "host": { "prefix": "eu-" }, "core": 0 });
    /// let load = client.subscribe("metrics.cpu").max_rate(2).filter(&filter).await?;
    /// # Ok(()) }
    /// ```
    pub fn max_rate(mut self, per_second: u64) -> Self {
        self.max_rate = Some(per_second);
        self
    }

    /// Whether the client gets what it publishes itself. Not `false` with [`durable`](Self::durable) and
    /// [`share`](Self::share). Default: yes.
    pub fn echo(mut self, echo: bool) -> Self {
        self.echo = echo;
        self
    }

    /// Only messages whose [`meta`](crate::Payload::meta) has all fields of this object, at most 8: an equal text,
    /// number or boolean, or with `{"prefix": text}` a text that begins so. What is left out is not reported. Not with
    /// [`durable`](Self::durable) and [`share`](Self::share).
    pub fn filter(mut self, conditions: impl Into<Json>) -> Self {
        self.filter = Some(conditions.into());
        self
    }

    /// Gets requests to the topic.
    pub(crate) fn requests(mut self) -> Self {
        self.requests = true;
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

    /// Receives messages on the client's second WebSocket, if it has one when the subscription is made
    /// ([`bulk_socket`](crate::ClientBuilder::bulk_socket)): for long messages that must not hold up others. On QUIC,
    /// where each topic has a lane of its own, this changes nothing.
    pub fn on_bulk_lane(mut self) -> Self {
        self.lane = LaneChoice::Bulk;
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
    /// [`ClientError::Server`] if the server refuses, with code 403 if it is not permitted, 409 if a durable consumer
    /// has other settings or the topic cannot have one; [`ClientError::Timeout`]; [`ClientError::Closed`].
    pub async fn open(self) -> Result<Subscription, ClientError> {
        let mut request = Subscribe::new(TopicPattern::new(&self.topic)?);
        request.since = self.since;
        request.since_time = self.since_time;
        request.recent = self.recent;
        request.delivery = self.delivery;
        request.lane = self.lane;
        request.presence = self.presence;
        request.occupancy = self.occupancy;
        request.state = self.state;
        request.requests = self.requests;
        request.max_rate = self.max_rate;
        request.echo = self.echo;
        request.filter = self.filter;
        if self.presence && self.occupancy {
            return Err(Invalid::field("occupancy: not together with presence, which tells more").into());
        }
        let durable = self.durable.as_deref().map(ConsumerName::new).transpose()?;
        request.consumer = ConsumerFields { durable, ..self.consumer }.check()?;
        request.check()?;
        let durable = request.consumer.as_ref().and_then(ConsumerRequest::durable);
        if durable.is_some() && self.keep == Keep::Newest {
            return Err(Invalid::field("durable: not with latest, which drops messages").into());
        }
        let consumer = match durable {
            Some(durable) => {
                let topic = TopicName::new(request.topic.as_str())?;
                Some(Consumer::new(self.client.clone(), topic, durable.name.clone()))
            }
            None => None,
        };
        // What a consumer has in flight always has room.
        let least = durable.map_or(1, |durable| durable.max_in_flight.unwrap_or(*MAX_IN_FLIGHT.end()));
        let capacity = self.queue.max(usize::try_from(least).unwrap_or(usize::MAX));
        let queue = Queue::new(request.topic.as_str(), capacity, self.keep);
        let (opened, answer) = oneshot::channel();
        let number = match self.client.shared.topics.add(request, queue.clone(), opened)? {
            Added::New(number) => number,
            Added::Claimed(number, queue, position) => {
                let mut subscription = Subscription::new(self.client.clone(), number, self.topic, queue, None);
                subscription.begin_at(position);
                return Ok(subscription);
            }
        };
        // From here on, dropping it unsubscribes.
        let mut subscription = Subscription::new(self.client.clone(), number, self.topic, queue, consumer);
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
