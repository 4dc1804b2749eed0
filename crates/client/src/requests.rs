//! Requests of a client: one message to the server, and its reply.

use std::time::{Duration, Instant};

use bytes::Bytes;
use serde::Serialize;

use crate::client::{Client, unexpected};
use crate::error::ClientError;
use crate::link::Failure;
use crate::message::{ClientInfo, ClientMessage, Invalid, Json, MAX_PAGE, Payload, Recipient, ServerMessage, Token};

impl Client {
    /// Sends a message without waiting for a reply. Returns once the connection has accepted the message; a reply or an
    /// error comes as an [`Event`](crate::Event).
    ///
    /// Not cancel safe: if the call times out or is dropped, the message may still be sent.
    ///
    /// # Errors
    /// [`ClientError::TooLarge`], [`ClientError::Closed`], [`ClientError::Lost`]; [`ClientError::Timeout`] after
    /// [`ClientBuilder::request_timeout`](crate::ClientBuilder::request_timeout).
    pub async fn send(&self, message: &ClientMessage) -> Result<(), ClientError> {
        self.bounded(async {
            loop {
                let link = self.link().await?;
                match link.send(message).await {
                    Err(Failure::Unsent) => self.until_replaced(&link).await,
                    Err(Failure::Error(error)) => return Err(error),
                    Ok(()) => return Ok(()),
                }
            }
        })
        .await
    }

    /// Sends a message of the protocol and waits for its reply. A request that exceeds the server's rate (429) is sent
    /// again when the server allows it, unless that is later than
    /// [`ClientBuilder::request_timeout`](crate::ClientBuilder::request_timeout).
    ///
    /// Not cancel safe: if the call is dropped, the server may still carry out the request.
    ///
    /// # Errors
    /// [`ClientError::Server`] if the server answers with an error; otherwise as [`send`](Self::send). After
    /// [`ClientError::Lost`] and [`ClientError::Timeout`] the request may have been carried out, or not.
    pub async fn call(&self, message: &ClientMessage) -> Result<ServerMessage, ClientError> {
        self.ask(message, false).await
    }

    /// The same. A repeatable request is sent again if the connection is lost before the reply comes.
    pub(crate) async fn ask(&self, message: &ClientMessage, is_repeatable: bool) -> Result<ServerMessage, ClientError> {
        let deadline = Instant::now() + self.shared.request_timeout;
        self.bounded(async {
            loop {
                let link = self.link().await?;
                match link.request(message, deadline).await {
                    Err(Failure::Unsent) => self.until_replaced(&link).await,
                    Err(Failure::Error(ClientError::Lost)) if is_repeatable => self.until_replaced(&link).await,
                    Err(Failure::Error(error)) => return Err(error),
                    Ok(reply) => return Ok(reply),
                }
            }
        })
        .await
    }

    /// Has the server echo a text, and returns the echo.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub async fn echo(&self, text: &str) -> Result<String, ClientError> {
        match self.call(&ClientMessage::Text { content: text.into() }).await? {
            ServerMessage::Text { content, .. } => Ok(content.to_string()),
            other => Err(unexpected("text", &other)),
        }
    }

    /// Has the server echo bytes, and returns the echo.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub async fn echo_bytes(&self, bytes: impl Into<Bytes>) -> Result<Bytes, ClientError> {
        match self.call(&ClientMessage::Binary { attachment: bytes.into() }).await? {
            ServerMessage::Binary { payload, .. } => Ok(payload.attachment.unwrap_or_default()),
            other => Err(unexpected("binary", &other)),
        }
    }

    /// Sends to every connected client, this one included. Returns the number of receivers.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub async fn broadcast(&self, payload: impl Into<Payload>) -> Result<u64, ClientError> {
        match self.call(&ClientMessage::Broadcast(payload.into())).await? {
            ServerMessage::Ok { delivered, .. } => Ok(delivered.unwrap_or(0)),
            other => Err(unexpected("broadcast", &other)),
        }
    }

    /// Sends to one client, or to all of a user's. Returns the number of receivers.
    ///
    /// # Errors
    /// [`ClientError::Server`] with code 404 if no such client is connected; otherwise as [`call`](Self::call).
    pub async fn direct(&self, to: impl Into<Recipient>, payload: impl Into<Payload>) -> Result<u64, ClientError> {
        let (to, payload) = (to.into(), payload.into());
        match self.call(&ClientMessage::Direct { to, payload }).await? {
            // To one client by its id the server does not count.
            ServerMessage::Ok { delivered, .. } => Ok(delivered.unwrap_or(1)),
            other => Err(unexpected("direct", &other)),
        }
    }

    /// Sends WebRTC signalling, any JSON, to one client, or to all of a user's. Returns the number of receivers.
    ///
    /// # Errors
    /// [`ClientError::Invalid`] if `data` cannot be written as JSON; otherwise as [`direct`](Self::direct).
    pub async fn signal(&self, to: impl Into<Recipient>, data: &impl Serialize) -> Result<u64, ClientError> {
        let (to, data) = (to.into(), Json::encode(data).map_err(|e| Invalid::field(format!("data: {e}")))?);
        match self.call(&ClientMessage::Signal { to, data }).await? {
            ServerMessage::Ok { delivered, .. } => Ok(delivered.unwrap_or(1)),
            other => Err(unexpected("signal", &other)),
        }
    }

    /// Sends a ping, and returns the time until the pong.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub async fn ping(&self) -> Result<Duration, ClientError> {
        let started = Instant::now();
        match self.call(&ClientMessage::Ping { timestamp: Some(crate::message::now_ms()) }).await? {
            ServerMessage::Pong { .. } => Ok(started.elapsed()),
            other => Err(unexpected("ping", &other)),
        }
    }

    /// Lists all connected clients, ordered by id. Makes a request for each page of 1,000.
    ///
    /// # Errors
    /// [`ClientError::Unexpected`] if a page does not lead to the next; otherwise as [`call`](Self::call).
    pub async fn list_clients(&self) -> Result<Vec<ClientInfo>, ClientError> {
        let (mut all, mut after) = (Vec::new(), None);
        loop {
            match self.call(&ClientMessage::ListClients { limit: MAX_PAGE, after }).await? {
                ServerMessage::ClientList { next, .. } if next.is_some() && next <= after => {
                    return Err(ClientError::Unexpected { asked: "list_clients", got: "a page that leads nowhere" });
                }
                ServerMessage::ClientList { clients, next, .. } => {
                    all.extend(clients);
                    after = next;
                }
                other => return Err(unexpected("list_clients", &other)),
            }
            if after.is_none() {
                return Ok(all);
            }
        }
    }

    /// Replaces the client's token by another one of the same user, before it expires:
    /// [`Event::Expiring`](crate::Event::Expiring) comes in time. The client also uses it when it reconnects. With
    /// [`token_from`](crate::ClientBuilder::token_from) the client does all of this by itself.
    ///
    /// Returns the time at which the new token expires, in Unix milliseconds; `None` if it does not.
    ///
    /// # Errors
    /// [`ClientError::Invalid`] if it is not a token; [`ClientError::Server`] with code 401 if the server rejects it,
    /// with 403 if it is another user's; otherwise as [`call`](Self::call). The current token stays valid then.
    pub async fn refresh(&self, token: &str) -> Result<Option<u64>, ClientError> {
        let token = Token::new(token.trim())?;
        match self.call(&ClientMessage::Refresh { token: token.clone() }).await? {
            ServerMessage::Refreshed { expires_at, .. } => {
                self.shared.tokens.keep(token);
                Ok(expires_at)
            }
            other => Err(unexpected("refresh", &other)),
        }
    }
}
