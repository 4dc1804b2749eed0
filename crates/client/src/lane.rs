//! A request lane of a client's own: requests on it are answered on it, in order, and nothing else travels there.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use quic_websocket_lane::{LaneReader, Layer};
use quinn::SendStream;
use tokio::time::{sleep, timeout};

use super::ClientError;
use super::link::{Link, unless_error};
use super::pace::Over;
use super::topics::refused_for;
use crate::message::{ClientMessage, Reply, RequestId, ServerMessage};
use quic_websocket_protocol::frame::Body;

/// A stream of requests beside the client's others: bulk on one lane never delays another.
///
/// It belongs to the connection it was opened on and ends with it: open another one after a reconnect.
/// [`finish`](Self::finish) ends it in order. Where it is dropped instead, requests without a reply yet may not be
/// carried out.
pub struct Lane {
    link: Arc<Link>,
    stream: SendStream,
    /// What the stream has not taken of the last request: sent before anything else, so that a call that was dropped or
    /// timed out leaves no half of a message behind.
    unsent: Bytes,
    reader: LaneReader,
    next_id: u64,
    request_timeout: Duration,
}

impl std::fmt::Debug for Lane {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lane").field("stream", &self.stream.id()).finish_non_exhaustive()
    }
}

impl Lane {
    pub(super) async fn open(
        link: Arc<Link>,
        request_timeout: Duration,
        max_message_bytes: usize,
    ) -> Result<Self, ClientError> {
        let connection = link.connection.quic().ok_or(ClientError::OneLane)?;
        let (stream, receive) = connection.open_bi().await.map_err(|_| ClientError::Lost)?;
        let reader = LaneReader::new(receive, Layer::Native, max_message_bytes);
        Ok(Self { link, stream, unsent: Bytes::new(), reader, next_id: 1, request_timeout })
    }

    /// Sends a request and gives its id; replies come in the order of the requests.
    ///
    /// A server reads no further while its replies are not read: with more requests than fit on the way,
    /// [`receive`](Self::receive) in between. Cancel safe in that the lane stays usable; the request may still be sent, and
    /// what the stream has not taken of it goes on with the next call: a server waits a minute for it (default), then it
    /// closes the client with 4408. Drop the lane where there is no next call.
    ///
    /// # Errors
    /// [`ClientError::TooLarge`] before anything is sent; [`ClientError::Timeout`] where the lane takes it not in time
    /// (it may still be sent); [`ClientError::Lost`] where the lane has ended.
    pub async fn send(&mut self, message: &ClientMessage) -> Result<RequestId, ClientError> {
        let id = self.next_id;
        let frame = self.link.encode(Some(id), message)?;
        let within = self.request_timeout;
        let turn = timeout(within, self.link.pace.next(None)).await;
        turn.map_err(|_| ClientError::Timeout(within))?.map_err(|Over| ClientError::Lost)?;
        timeout(within, self.flush()).await.unwrap_or(Err(ClientError::Timeout(within)))?;
        self.next_id += 1;
        self.unsent = frame;
        timeout(within, self.flush()).await.unwrap_or(Err(ClientError::Timeout(within)))?;
        Ok(RequestId::Number(id))
    }

    /// Has the stream take what is left of the last request. Cancel safe.
    async fn flush(&mut self) -> Result<(), ClientError> {
        while !self.unsent.is_empty() {
            // Takes off the front what is written.
            let rest = std::slice::from_mut(&mut self.unsent);
            self.stream.write_chunks(rest).await.map_err(|_| ClientError::Lost)?;
        }
        Ok(())
    }

    /// Reads a body, or has the stream take what a dropped call left: its reply may be what is waited for. Cancel safe.
    async fn step(&mut self) -> Result<Step, ClientError> {
        let Self { stream, unsent, reader, .. } = self;
        let is_unsent = !unsent.is_empty();
        tokio::select! {
            body = reader.next_body() => body.map(Step::Read).map_err(|_| ClientError::Lost),
            written = stream.write_chunks(std::slice::from_mut(unsent)), if is_unsent => {
                written.map(|_| Step::Wrote).map_err(|_| ClientError::Lost)
            }
        }
    }

    /// Waits for the next reply; `None` once the server has ended the lane. Cancel safe.
    ///
    /// # Errors
    /// [`ClientError::Lost`] where the lane was reset or cannot be understood.
    pub async fn receive(&mut self) -> Result<Option<Reply>, ClientError> {
        let body = loop {
            match self.step().await? {
                Step::Wrote => {}
                Step::Read(body) => break body,
            }
        };
        let Some(body) = body else { return Ok(None) };
        let body = Body::parse(body, self.link.compression(), self.reader.max_message_bytes())
            .map_err(|_| ClientError::Lost)?;
        let reply = Reply::parse(&body)?;
        if let Some(retry_after) = refused_for(&reply.message) {
            self.link.pace.refused(retry_after);
        }
        Ok(Some(reply))
    }

    /// Sends one request and waits for its reply; replies to earlier ones that come before it are dropped.
    /// Cancel safe as [`send`](Self::send).
    ///
    /// # Errors
    /// [`ClientError::Server`] where the server answers with an error; [`ClientError::Timeout`] where it does not.
    pub async fn request(&mut self, message: &ClientMessage) -> Result<ServerMessage, ClientError> {
        let within = self.request_timeout;
        let deadline = Instant::now() + within;
        let answered = async {
            let mut id = self.send(message).await?;
            while let Some(reply) = self.receive().await? {
                if reply.re.as_ref() != Some(&id) {
                    continue;
                }
                match refused_for(&reply.message) {
                    Some(wait) if Instant::now() + wait < deadline => {
                        sleep(wait).await;
                        id = self.send(message).await?;
                    }
                    _ => return unless_error(reply.message),
                }
            }
            Err(ClientError::Lost)
        };
        timeout(within, answered).await.unwrap_or(Err(ClientError::Timeout(within)))
    }

    /// Ends the lane in order: returns once the server has carried out every request. Replies are dropped.
    ///
    /// # Errors
    /// [`ClientError::Lost`] where the lane ended before; [`ClientError::Timeout`] where the server does not end it too.
    pub async fn finish(mut self) -> Result<(), ClientError> {
        let within = self.request_timeout;
        let ended = async {
            while !self.unsent.is_empty() {
                // Reading is what lets the server read on.
                if let Step::Read(None) = self.step().await? {
                    return Err(ClientError::Lost);
                }
            }
            self.stream.finish().map_err(|_| ClientError::Lost)?;
            while self.reader.next_body().await.map_err(|_| ClientError::Lost)?.is_some() {}
            Ok(())
        };
        timeout(within, ended).await.unwrap_or(Err(ClientError::Timeout(within)))
    }
}

/// What one step on a lane came to.
enum Step {
    /// Something was written.
    Wrote,
    /// A body, or the lane's end.
    Read(Option<Bytes>),
}

impl Drop for Lane {
    fn drop(&mut self) {
        if !self.unsent.is_empty() {
            // A stream that is dropped ends as if all were said, and this would be half a message.
            let _ = self.stream.reset(0_u8.into());
        }
    }
}
