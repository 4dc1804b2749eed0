//! Publishing: acknowledged, and made harmless to repeat where a key is given.

use std::future::IntoFuture;
use std::pin::Pin;

use crate::client::unexpected;
use crate::message::{ClientMessage, IdempotencyKey, Payload, Position, ServerMessage, TopicName};
use crate::{Client, ClientError};

impl Client {
    /// Publishes to a topic; await what is given. The server has it once that succeeds.
    ///
    /// ```no_run
    /// # async fn f(client: quic_websocket_client::Client) -> Result<(), quic_websocket_client::ClientError> {
    /// use quic_websocket_client::message::Payload;
    ///
    /// let published = client.publish("chat.lobby", Payload::text("hello")).await?;
    /// println!("message {} of its log", published.position.offset);
    /// // With a key, a lost connection in between does no harm.
    /// client.publish("orders", Payload::text("one tea")).key("order-4711-5b1e").await?;
    /// # Ok(()) }
    /// ```
    pub fn publish(&self, topic: impl Into<String>, payload: Payload) -> PublishBuilder<'_> {
        PublishBuilder { client: self, topic: topic.into(), payload, key: None }
    }

    /// Publishes without being told what became of it: returns once the connection has taken it. Where the server
    /// does not, an `error` comes as an [`Event`](crate::Event).
    ///
    /// # Errors
    /// [`ClientError::Invalid`] where the topic is out of its bounds; else as [`send`](Self::send).
    pub async fn publish_unacknowledged(&self, topic: &str, payload: Payload) -> Result<(), ClientError> {
        let topic = TopicName::new(topic)?;
        self.send(&ClientMessage::Publish { topic, payload, key: None }).await
    }
}

/// Where a published message is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// Its place in the topic's log.
    pub position: Position,
    /// Whether its key was seen before. Nothing was added then, and the position is that of the first.
    pub is_duplicate: bool,
}

/// A message to be published; awaiting it does it.
#[derive(Debug, Clone)]
#[must_use = "nothing is published until this is awaited"]
pub struct PublishBuilder<'a> {
    client: &'a Client,
    topic: String,
    payload: Payload,
    key: Option<String>,
}

impl<'a> PublishBuilder<'a> {
    /// Makes it idempotent: the server adds it once for each key, which is 1 to 128 bytes, however often it comes within the
    /// time that it remembers keys (two minutes by default). With a key it is sent again by itself where the connection is
    /// lost before the answer came. Keys belong to the topic, whoever sends them: choose them at random.
    pub fn key(mut self, key: impl Into<String>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// Publishes; the same as awaiting it.
    ///
    /// # Errors
    /// [`ClientError::Invalid`] where topic or key are out of their bounds; [`ClientError::Server`] with code 403 where
    /// it is forbidden, 503 where the topic has no room in time; else as [`Client::request`]. After
    /// [`ClientError::Lost`] and [`ClientError::Timeout`] it may have been published, or not.
    pub async fn send(self) -> Result<Published, ClientError> {
        let Self { client, topic, payload, key } = self;
        let topic = TopicName::new(&topic)?;
        let key = key.as_deref().map(IdempotencyKey::new).transpose()?;
        let is_repeatable = key.is_some();
        let message = ClientMessage::Publish { topic, payload, key };
        let reply = client.ask(&message, is_repeatable).await?;
        match reply {
            ServerMessage::Published { epoch, offset, duplicate, .. } => {
                Ok(Published { position: Position { epoch, offset }, is_duplicate: duplicate })
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
