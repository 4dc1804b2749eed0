//! Acknowledgements of a durable consumer's messages.

use std::time::Duration;

use crate::client::unexpected;
use crate::message::{Ack, AckOutcome, ClientMessage, ConsumerName, Offsets, ServerMessage, TopicName};
use crate::{Client, ClientError};

impl Client {
    /// A handle that acknowledges messages of a durable consumer, for parts of a program that do not have the
    /// [`Subscription`](super::Subscription). Nothing is sent.
    ///
    /// # Errors
    /// [`ClientError::Invalid`] if the topic or the name is out of its bounds.
    pub fn consumer(&self, topic: &str, name: &str) -> Result<Consumer, ClientError> {
        Ok(Consumer { client: self.clone(), topic: TopicName::new(topic)?, name: ConsumerName::new(name)? })
    }
}

/// A durable consumer of a topic, for acknowledgements. Cheap to clone, and independent of the subscription that reads:
/// give each worker of a pool one.
///
/// A message is acknowledged by its offset, or by itself:
///
/// ```no_run
/// # async fn work(_: &str) -> Result<(), std::io::Error> { Ok(()) }
/// # async fn f(client: quic_websocket_client::Client) -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::Duration;
///
/// use quic_websocket_client::TopicEvent;
///
/// let mut jobs = client.subscribe("jobs").durable("resizer").share().max_in_flight(8).await?;
/// let consumer = client.consumer("jobs", "resizer")?;
/// while let Some(event) = jobs.next().await {
///     let TopicEvent::Message(job) = event else { continue };
///     let consumer = consumer.clone();
///     tokio::spawn(async move {
///         match work(job.text().unwrap_or_default()).await {
///             Ok(()) => consumer.ack(&job).await,
///             Err(_) => consumer.retry(&job, Duration::from_secs(30)).await,
///         }
///     });
/// }
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct Consumer {
    client: Client,
    topic: TopicName,
    name: ConsumerName,
}

impl Consumer {
    pub(super) fn new(client: Client, topic: TopicName, name: ConsumerName) -> Self {
        Self { client, topic, name }
    }

    /// The name of the consumer.
    pub fn name(&self) -> &str {
        self.name.as_str()
    }

    /// The topic.
    pub fn topic(&self) -> &str {
        self.topic.as_str()
    }

    /// Says that messages are done, and waits until the server has stored that: from then on they are never delivered
    /// again. Returns the number of messages for which it took effect. The others are not in flight to this client any
    /// more, because they were acknowledged before or the time to acknowledge them is over; in the latter case they are
    /// delivered again, perhaps to another client.
    ///
    /// If the consumer has [`AckMode::UpTo`](crate::message::AckMode::UpTo), all messages before are done as well.
    ///
    /// # Errors
    /// [`ClientError::Server`] with code 404 if the topic has no such consumer; otherwise as [`Client::call`]. After
    /// [`ClientError::Lost`] and [`ClientError::Timeout`] the messages may be delivered again, or not.
    pub async fn ack(&self, messages: impl Into<Offsets>) -> Result<u64, ClientError> {
        self.settle(messages.into(), AckOutcome::Done).await
    }

    /// The same without waiting for the server: returns once the connection has accepted the message. If the server or
    /// the machine fails shortly after, the messages may be delivered again. If the server refuses it, an
    /// [`Event::Error`](crate::Event::Error) follows.
    ///
    /// # Errors
    /// As [`Client::send`].
    pub async fn ack_unconfirmed(&self, messages: impl Into<Offsets>) -> Result<(), ClientError> {
        self.client.send(&self.message(messages.into(), AckOutcome::Done)).await
    }

    /// Has messages delivered again after a while, which may be zero: to this client, or to another one that shares
    /// the consumer. The delay is at most a day, in whole milliseconds.
    ///
    /// # Errors
    /// As [`ack`](Self::ack); [`ClientError::Invalid`] if the delay is longer than a day.
    pub async fn retry(&self, messages: impl Into<Offsets>, delay: Duration) -> Result<u64, ClientError> {
        let delay_ms = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
        let outcome = AckOutcome::Retry { delay_ms: Some(delay_ms).filter(|&delay_ms| delay_ms > 0) };
        outcome.check()?;
        self.settle(messages.into(), outcome).await
    }

    /// Gives messages up: they are never delivered again, and go to the dead-letter topic, if the server has one for
    /// this topic.
    ///
    /// # Errors
    /// As [`ack`](Self::ack).
    pub async fn reject(&self, messages: impl Into<Offsets>) -> Result<u64, ClientError> {
        self.settle(messages.into(), AckOutcome::Reject).await
    }

    fn message(&self, offsets: Offsets, outcome: AckOutcome) -> ClientMessage {
        ClientMessage::Ack(Ack::new(self.topic.clone(), self.name.clone(), offsets).with_outcome(outcome))
    }

    async fn settle(&self, offsets: Offsets, outcome: AckOutcome) -> Result<u64, ClientError> {
        match self.client.call(&self.message(offsets, outcome)).await? {
            ServerMessage::Ok { acked, .. } => Ok(acked.unwrap_or(0)),
            other => Err(unexpected("ack", &other)),
        }
    }
}
