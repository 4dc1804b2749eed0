//! A request lane of a client's own: requests on it are answered on it, in order, and nothing else travels there.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use quinn::SendStream;
use tokio::time::timeout;

use super::ClientError;
use super::link::{Link, unless_error};
use crate::frame::Body;
use crate::message::{ClientMessage, Reply, RequestId, ServerMessage};
use crate::transport::LaneReader;

/// A stream of requests beside the client's others: bulk on one lane never delays another.
///
/// It belongs to the connection it was opened on and ends with it: open another one after a reconnect. Dropping it
/// without [`finish`](Self::finish) resets it.
pub struct Lane {
    link: Arc<Link>,
    send: SendStream,
    reader: LaneReader,
    next_id: AtomicU64,
    request_timeout: Duration,
}

impl std::fmt::Debug for Lane {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lane").field("stream", &self.send.id()).finish_non_exhaustive()
    }
}

impl Lane {
    pub(super) async fn open(
        link: Arc<Link>,
        request_timeout: Duration,
        max_message_bytes: usize,
    ) -> Result<Self, ClientError> {
        let (send, receive) = link.connection.open_bi().await.map_err(|_| ClientError::Lost)?;
        let reader = LaneReader::new(receive, max_message_bytes);
        Ok(Self { link, send, reader, next_id: AtomicU64::new(1), request_timeout })
    }

    /// Sends a request and gives its id; replies come in the order of the requests.
    ///
    /// Not cancel safe: a dropped call may leave half a message on the lane. Then drop the lane as well.
    ///
    /// # Errors
    /// [`ClientError::TooLarge`] before anything is sent; [`ClientError::Lost`] where the lane has ended.
    pub async fn send(&mut self, message: &ClientMessage) -> Result<RequestId, ClientError> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let frame = self.link.encode(Some(id), message)?;
        self.send.write_chunk(frame).await.map_err(|_| ClientError::Lost)?;
        Ok(RequestId::Number(id))
    }

    /// Waits for the next reply; `None` once the server has ended the lane. Cancel safe.
    ///
    /// # Errors
    /// [`ClientError::Lost`] where the lane was reset or cannot be understood.
    pub async fn receive(&mut self) -> Result<Option<Reply>, ClientError> {
        let Some(body) = self.reader.next_body().await.map_err(|_| ClientError::Lost)? else { return Ok(None) };
        let body = Body::parse(body, self.link.compression(), self.reader.max_message_bytes());
        Ok(Some(Reply::parse(&body.map_err(|_| ClientError::Lost)?)?))
    }

    /// Sends one request and waits for its reply. Not cancel safe, as [`send`](Self::send).
    ///
    /// # Errors
    /// [`ClientError::Server`] where the server answers with an error; [`ClientError::Timeout`] where it does not.
    pub async fn request(&mut self, message: &ClientMessage) -> Result<ServerMessage, ClientError> {
        let within = self.request_timeout;
        let answered = async {
            let id = self.send(message).await?;
            while let Some(reply) = self.receive().await? {
                if reply.re.as_ref() == Some(&id) {
                    return unless_error(reply.message);
                }
            }
            Err(ClientError::Lost)
        };
        timeout(within, answered).await.unwrap_or(Err(ClientError::Timeout(within)))
    }

    /// Ends the lane: what was sent still arrives.
    pub fn finish(mut self) {
        // An error means that it has ended already.
        let _ = self.send.finish();
    }
}
