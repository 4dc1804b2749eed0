//! Requests that another client answers: [`Client::request`].

use std::future::IntoFuture;
use std::pin::Pin;
use std::time::{Duration, Instant};

use tokio::time::timeout;
use uuid::Uuid;

use crate::client::{Client, unexpected};
use crate::error::{ClientError, FailedRequest};
use crate::link::Failure;
use crate::message::{
    Call, CallTarget, ClientMessage, DEFAULT_REQUEST_TIMEOUT_MS, Json, Payload, Recipient, Replied, Sender,
    ServerMessage, TopicName, UserName,
};

/// How long the server's word that no reply came in time may take.
const LAST_WORD: Duration = Duration::from_secs(1);
/// The shortest time that a request may have.
const LEAST: Duration = Duration::from_millis(100);

/// Who is asked: those that answer requests to a topic, one client, or one of a user's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// The clients that answer requests to this topic, in turn.
    Topic(String),
    /// A client, by its id.
    Client(Uuid),
    /// A user.
    User(String),
}

impl Target {
    fn checked(self) -> Result<CallTarget, ClientError> {
        Ok(match self {
            Self::Topic(topic) => CallTarget::Topic(TopicName::new(&topic)?),
            Self::Client(id) => CallTarget::Recipient(Recipient::Client(id)),
            Self::User(user) => CallTarget::Recipient(Recipient::User(UserName::new(&user)?)),
        })
    }
}

impl From<&str> for Target {
    fn from(topic: &str) -> Self {
        Self::Topic(topic.to_owned())
    }
}

impl From<String> for Target {
    fn from(topic: String) -> Self {
        Self::Topic(topic)
    }
}

impl From<Uuid> for Target {
    fn from(id: Uuid) -> Self {
        Self::Client(id)
    }
}

impl From<UserName> for Target {
    fn from(user: UserName) -> Self {
        Self::User(user.as_str().to_owned())
    }
}

impl Client {
    /// Asks another client, which answers by [`serve`](Self::serve) or
    /// [`ClientBuilder::on_request`](crate::ClientBuilder::on_request): a topic by its name, or a [`Target`]. Set
    /// options on the returned builder, and await it. Many requests may be open at once; each is answered as soon as
    /// its answer is there, and a slow one holds up no other call.
    ///
    /// ```no_run
    /// # async fn f(client: quic_websocket_client::Client) -> Result<(), Box<dyn std::error::Error>> {
    /// use quic_websocket_client::Target;
    /// use quic_websocket_client::serde_json::json;
    ///
    /// let answer = client.request("rpc.sum", json!([1, 2])).await?;
    /// let sum: Option<u64> = answer.data()?;
    /// let here = client.request(Target::User("ada".into()), "Are you there?").await?;
    /// println!("{sum:?}, {:?}", here.text());
    /// # Ok(()) }
    /// ```
    ///
    /// Dropping the call gives the request up, and the other client is told.
    pub fn request(&self, target: impl Into<Target>, payload: impl Into<Payload>) -> RequestBuilder<'_> {
        let within = Duration::from_millis(DEFAULT_REQUEST_TIMEOUT_MS);
        RequestBuilder { client: self, target: target.into(), payload: payload.into(), within }
    }
}

/// A request to another client; awaiting it sends it.
#[derive(Debug, Clone)]
#[must_use = "nothing is asked until this is awaited"]
pub struct RequestBuilder<'a> {
    client: &'a Client,
    target: Target,
    payload: Payload,
    within: Duration,
}

impl<'a> RequestBuilder<'a> {
    /// How long the answer may take, the wait for a connection included, from 100 ms to five minutes. Default: 10 s.
    pub fn timeout(mut self, within: Duration) -> Self {
        self.within = within;
        self
    }

    /// Data about the request, for the client that answers: a JSON object within the server's bound.
    pub fn meta(mut self, meta: impl Into<Json>) -> Self {
        self.payload = self.payload.with_meta(meta);
        self
    }

    /// Asks; the same as awaiting it.
    ///
    /// # Errors
    /// [`ClientError::Server`] with code 404 if no client answers there, 502 if the one that had it left, 503 if those
    /// that answer are busy, 504 if no answer came in time; [`ClientError::Failed`] if the other client says that the
    /// request has failed; [`ClientError::Invalid`] if the target or an option is out of its bounds;
    /// [`ClientError::Timeout`]. After [`ClientError::Lost`] the request may have been carried out, or not.
    pub async fn send(self) -> Result<Answer, ClientError> {
        let Self { client, target, payload, within } = self;
        let (to, until) = (target.checked()?, Instant::now() + within);
        let asked = async {
            loop {
                let link = client.link().await?;
                let mut call = Call::new(to.clone(), payload.clone());
                let left = until.saturating_duration_since(Instant::now()).max(LEAST.min(within));
                call.timeout_ms = Some(u64::try_from(left.as_millis()).unwrap_or(u64::MAX));
                match link.ask(&ClientMessage::Request(Box::new(call)), until).await {
                    Err(Failure::Unsent) => client.until_replaced(&link).await,
                    Err(Failure::Error(error)) => return Err(error),
                    Ok(reply) => return Ok(reply),
                }
            }
        };
        match timeout(within.saturating_add(LAST_WORD), asked).await.unwrap_or(Err(ClientError::Timeout(within)))? {
            ServerMessage::Reply(replied) => Answer::of(*replied),
            other => Err(unexpected("request", &other)),
        }
    }
}

impl<'a> IntoFuture for RequestBuilder<'a> {
    type Output = Result<Answer, ClientError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send + 'a>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.send())
    }
}

/// The answer of another client.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Answer {
    /// The client that answered.
    pub from: Option<Sender>,
    /// What it answered.
    pub payload: Payload,
    /// The time at which the server received it, in Unix milliseconds.
    pub timestamp: u64,
}

impl Answer {
    fn of(replied: Replied) -> Result<Self, ClientError> {
        let Replied { from, payload, failure, timestamp, .. } = replied;
        match failure {
            None => Ok(Self { from, payload, timestamp }),
            Some(failure) => Err(ClientError::Failed(Box::new(FailedRequest { failure, from, payload }))),
        }
    }

    /// The text of the answer, if it has one.
    pub fn text(&self) -> Option<&str> {
        self.payload.as_text()
    }

    /// The JSON value of the answer, if it has one.
    ///
    /// # Errors
    /// If the value does not have the shape of `T`.
    pub fn data<T: serde::de::DeserializeOwned>(&self) -> serde_json::Result<Option<T>> {
        self.payload.data()
    }
}
