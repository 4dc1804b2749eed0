//! Requests of a client: one message to the server, and its reply.

use std::time::{Duration, Instant};

use bytes::Bytes;
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::client::{Client, unexpected};
use crate::error::ClientError;
use crate::link::Failure;
use crate::message::{ClientInfo, ClientMessage, MAX_PAGE, Payload, ServerMessage, Token};

impl Client {
    /// Sends a message and asks for no reply; returns once the connection has taken it.
    ///
    /// Where that takes too long the message may still be sent, and where the call is dropped as well.
    ///
    /// # Errors
    /// [`ClientError::TooLarge`], [`ClientError::Closed`], [`ClientError::Lost`], [`ClientError::Timeout`].
    pub async fn send(&self, message: &ClientMessage) -> Result<(), ClientError> {
        self.bounded(async {
            loop {
                let link = self.link().await?;
                match link.send(message).await {
                    Err(Failure::Unsent) => self.until_gone(&link).await,
                    Err(Failure::Error(error)) => return Err(error),
                    Ok(()) => return Ok(()),
                }
            }
        })
        .await
    }

    /// Sends a request and waits for its reply. Where the server says that it is too much at once (429), it is sent again as
    /// told; so the error comes only where that would take longer than [`ClientBuilder::request_timeout`].
    ///
    /// # Errors
    /// [`ClientError::Server`] where the server answers with an error; else as [`send`](Self::send).
    pub async fn request(&self, message: &ClientMessage) -> Result<ServerMessage, ClientError> {
        self.ask(message, false).await
    }

    /// The same, again where the connection was lost before the reply came and that does no harm.
    pub(crate) async fn ask(&self, message: &ClientMessage, is_repeatable: bool) -> Result<ServerMessage, ClientError> {
        let deadline = Instant::now() + self.shared.request_timeout;
        self.bounded(async {
            loop {
                let link = self.link().await?;
                match link.request(message, deadline).await {
                    Err(Failure::Unsent) => self.until_gone(&link).await,
                    Err(Failure::Error(ClientError::Lost)) if is_repeatable => self.until_gone(&link).await,
                    Err(Failure::Error(error)) => return Err(error),
                    Ok(reply) => return Ok(reply),
                }
            }
        })
        .await
    }

    /// Has a text echoed, and gives what came back.
    ///
    /// # Errors
    /// As [`request`](Self::request).
    pub async fn echo(&self, text: &str) -> Result<String, ClientError> {
        match self.request(&ClientMessage::Text { content: text.into() }).await? {
            ServerMessage::Text { content, .. } => Ok(content.to_string()),
            other => Err(unexpected("text", &other)),
        }
    }

    /// Has bytes echoed, and gives what came back.
    ///
    /// # Errors
    /// As [`request`](Self::request).
    pub async fn echo_bytes(&self, bytes: impl Into<Bytes>) -> Result<Bytes, ClientError> {
        match self.request(&ClientMessage::Binary { attachment: bytes.into() }).await? {
            ServerMessage::Binary { payload, .. } => Ok(payload.attachment.unwrap_or_default()),
            other => Err(unexpected("binary", &other)),
        }
    }

    /// Sends to every connected client, this one included; gives to how many it went.
    ///
    /// # Errors
    /// As [`request`](Self::request).
    pub async fn broadcast(&self, payload: Payload) -> Result<u64, ClientError> {
        match self.request(&ClientMessage::Broadcast(payload)).await? {
            ServerMessage::Ok { delivered, .. } => Ok(delivered.unwrap_or(0)),
            other => Err(unexpected("broadcast", &other)),
        }
    }

    /// Sends to one client.
    ///
    /// # Errors
    /// [`ClientError::Server`] with code 404 where it is not connected; else as [`request`](Self::request).
    pub async fn direct(&self, to: Uuid, payload: Payload) -> Result<(), ClientError> {
        match self.request(&ClientMessage::Direct { to, payload }).await? {
            ServerMessage::Ok { .. } => Ok(()),
            other => Err(unexpected("direct", &other)),
        }
    }

    /// Sends WebRTC signalling, any JSON, to one client.
    ///
    /// # Errors
    /// As [`direct`](Self::direct).
    pub async fn signal(&self, to: Uuid, data: Box<RawValue>) -> Result<(), ClientError> {
        match self.request(&ClientMessage::Signal { to, data }).await? {
            ServerMessage::Ok { .. } => Ok(()),
            other => Err(unexpected("signal", &other)),
        }
    }

    /// Asks for a pong, and gives how long it took.
    ///
    /// # Errors
    /// As [`request`](Self::request).
    pub async fn ping(&self) -> Result<Duration, ClientError> {
        let begun = Instant::now();
        match self.request(&ClientMessage::Ping { timestamp: Some(crate::message::now_ms()) }).await? {
            ServerMessage::Pong { .. } => Ok(begun.elapsed()),
            other => Err(unexpected("ping", &other)),
        }
    }

    /// Everybody who is connected, page by page, ordered by id.
    ///
    /// # Errors
    /// [`ClientError::Unexpected`] where a page does not lead further; else as [`request`](Self::request).
    pub async fn list_clients(&self) -> Result<Vec<ClientInfo>, ClientError> {
        let (mut all, mut after) = (Vec::new(), None);
        loop {
            match self.request(&ClientMessage::ListClients { limit: MAX_PAGE, after }).await? {
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

    /// Shows the server another token, of the same user, before the first one expires: an
    /// [`Event::Expiring`](crate::Event::Expiring) tells when that is. It is shown again after a reconnect as well, unless the program is asked each time
    /// ([`ClientBuilder::token_from`]), which does this by itself. Gives when it expires, in Unix
    /// milliseconds; `None` where it does not.
    ///
    /// # Errors
    /// [`ClientError::Invalid`] where it can be no token; [`ClientError::Server`] with code 401 where it is not taken, with
    /// 403 where it is another user's; else as [`request`](Self::request). The first one holds on then.
    pub async fn refresh(&self, token: &str) -> Result<Option<u64>, ClientError> {
        let token = Token::new(token.trim())?;
        match self.request(&ClientMessage::Refresh { token: token.clone() }).await? {
            ServerMessage::Refreshed { expires_at, .. } => {
                self.shared.tokens.keep(token);
                Ok(expires_at)
            }
            other => Err(unexpected("refresh", &other)),
        }
    }
}
