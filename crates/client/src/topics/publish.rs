//! Publishing: acknowledged, and idempotent if a key is given.

use std::future::IntoFuture;
use std::pin::Pin;
use std::time::Duration;

use crate::client::unexpected;
use crate::message::{
    ClientMessage, IdempotencyKey, Json, MAX_INTEGER, Payload, Position, ServerMessage, Stored, TopicName,
};
use crate::{Client, ClientError};

impl Client {
    /// Publishes to a topic. Set options on the returned builder, and await it; once it returns, the server has added
    /// the message to the topic's log, and stored it as safely as the topic promises ([`Published::stored`]).
    ///
    /// ```no_run
    /// # async fn f(client: quic_websocket_client::Client) -> Result<(), quic_websocket_client::ClientError> {
    /// let published = client.publish("chat.lobby", "hello").await?;
    /// println!("message {} of its log", published.position.offset);
    /// // With a key, the client repeats it after a lost connection, and the server adds it once.
    /// client.publish("orders", "one tea").key("order-4711-5b1e").await?;
    /// # Ok(()) }
    /// ```
    pub fn publish(&self, topic: impl Into<String>, payload: impl Into<Payload>) -> PublishBuilder<'_> {
        PublishBuilder { client: self, topic: topic.into(), payload: payload.into(), key: None, ttl: None }
    }

    /// Publishes without an acknowledgement: returns once the connection has accepted the message. If the server
    /// refuses it, an [`Event::Error`](crate::Event::Error) follows. Messages arrive in the order in which they were
    /// sent, except over a move to QUIC: see [`Event::Moved`](crate::Event::Moved).
    ///
    /// # Errors
    /// [`ClientError::Invalid`] if the topic is out of its bounds; otherwise as [`send`](Self::send).
    pub async fn publish_unacknowledged(&self, topic: &str, payload: impl Into<Payload>) -> Result<(), ClientError> {
        let topic = TopicName::new(topic)?;
        self.send(&ClientMessage::Publish { topic, payload: payload.into(), key: None, ttl_ms: None }).await
    }
}

/// The result of a publish.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Published {
    /// The message's place in the topic's log.
    pub position: Position,
    /// Whether the server had seen the key before. Nothing was added then, and the position is that of the first
    /// message.
    pub is_duplicate: bool,
    /// How safe the message is; `None` for a topic that the server keeps in memory.
    pub stored: Option<Stored>,
}

/// A message to publish; awaiting it publishes.
#[derive(Debug, Clone)]
#[must_use = "nothing is published until this is awaited"]
pub struct PublishBuilder<'a> {
    client: &'a Client,
    topic: String,
    payload: Payload,
    key: Option<String>,
    ttl: Option<Duration>,
}

impl<'a> PublishBuilder<'a> {
    /// Makes the publish idempotent: the server adds one message for each key, of 1 to 128 bytes, however often it
    /// comes while the server remembers the key (two minutes by default). With a key, the client sends it again if the
    /// connection is lost before the reply. All publishers of a topic share its keys: choose them at random.
    pub fn key(mut self, key: impl Into<String>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// Data about the message, for receivers and their filters: a JSON object within the server's bound.
    ///
    /// ```no_run
    /// # async fn f(client: quic_websocket_client::Client) -> Result<(), quic_websocket_client::ClientError> {
    /// use quic_websocket_client::serde_json::json;
    ///
    /// client.publish("metrics.cpu", json!({ "load": 0.25 })).meta(&json!({ "host": "eu-1", "core": 0 })).await?;
    /// # Ok(()) }
    /// ```
    pub fn meta(mut self, meta: impl Into<Json>) -> Self {
        self.payload = self.payload.with_meta(meta);
        self
    }

    /// The time after which the message is worth nothing: it is not delivered any more, and in no history. At least a
    /// millisecond. Default: none.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = Some(ttl);
        self
    }

    /// Publishes; the same as awaiting it.
    ///
    /// # Errors
    /// [`ClientError::Invalid`] if the topic or the key is out of its bounds; [`ClientError::Server`] with code 403 if
    /// it is not permitted, 503 if slow subscribers block the topic for too long, or if a durable topic cannot store
    /// it; otherwise as [`Client::call`]. After a 503 of a durable topic, [`ClientError::Lost`] and
    /// [`ClientError::Timeout`] the message may have been published, or not: with a key it is safe to publish again.
    pub async fn send(self) -> Result<Published, ClientError> {
        let Self { client, topic, payload, key, ttl } = self;
        let topic = TopicName::new(&topic)?;
        let key = key.as_deref().map(IdempotencyKey::new).transpose()?;
        let is_repeatable = key.is_some();
        let ttl_ms = ttl.map(|ttl| u64::try_from(ttl.as_millis()).unwrap_or(MAX_INTEGER).clamp(1, MAX_INTEGER));
        let message = ClientMessage::Publish { topic, payload, key, ttl_ms };
        let reply = client.ask(&message, is_repeatable).await?;
        match reply {
            ServerMessage::Published { epoch, offset, duplicate, stored, .. } => {
                Ok(Published { position: Position { epoch, offset }, is_duplicate: duplicate, stored })
            }
            other => Err(unexpected("publish", &other)),
        }
    }
}

impl<'a> IntoFuture for PublishBuilder<'a> {
    type Output = Result<Published, ClientError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send + 'a>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.send())
    }
}
