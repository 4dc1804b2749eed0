//! A request lane: requests on it are answered on it, in order, and nothing else is sent there.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use quic_websocket_lane::{LaneReader, Layer};
use quinn::SendStream;
use tokio::time::{sleep, timeout};

use super::ClientError;
use super::link::{Link, unless_error};
use super::pace::ConnectionEnded;
use super::topics::refused_for;
use crate::message::{ClientMessage, Reply, RequestId, ServerMessage};
use quic_websocket_protocol::frame::{Body, Compression};

/// A separate stream of requests, opened by [`Client::open_lane`](crate::Client::open_lane): bulk on one lane never
/// delays another.
///
/// It belongs to the connection on which it was opened, and ends with it: open another one after a reconnect.
/// [`finish`](Self::finish) ends it gracefully. If it is dropped instead, outstanding requests may not be carried out.
pub struct Lane {
    link: Arc<Link>,
    stream: SendStream,
    /// The rest of the last request that the stream has not accepted. It is sent before anything else, so that a call
    /// that was dropped or timed out leaves no partial message behind.
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

    /// Sends a request, and returns its id. Replies come in the order of the requests.
    ///
    /// The server stops reading the lane while its replies are not read: to send more requests than fit into the
    /// buffers, call [`receive`](Self::receive) in between.
    ///
    /// If the call is dropped, the lane stays usable, but the request may still be sent: the next call sends the rest
    /// of it. The server waits a minute for that (default), then it closes the client with 4408. Drop the lane if there
    /// is no next call.
    ///
    /// # Errors
    /// [`ClientError::TooLarge`] before anything is sent; [`ClientError::Timeout`] if the lane does not accept the
    /// request in time, which may still be sent; [`ClientError::Lost`] if the lane has ended.
    pub async fn send(&mut self, message: &ClientMessage) -> Result<RequestId, ClientError> {
        let id = self.next_id;
        let frame = self.link.encode(Some(id), message)?;
        let within = self.request_timeout;
        let sent = async {
            self.link.pace.next(None).await.map_err(|ConnectionEnded| ClientError::Lost)?;
            self.flush().await?;
            self.next_id += 1;
            self.unsent = frame;
            self.flush().await
        };
        timeout(within, sent).await.unwrap_or(Err(ClientError::Timeout(within)))?;
        Ok(RequestId::Number(id))
    }

    /// Sends the rest of the last request. Cancel safe.
    async fn flush(&mut self) -> Result<(), ClientError> {
        while !self.unsent.is_empty() {
            // Removes from the front what it has written.
            let rest = std::slice::from_mut(&mut self.unsent);
            self.stream.write_chunks(rest).await.map_err(|_| ClientError::Lost)?;
        }
        Ok(())
    }

    /// Reads a body, or sends the rest of a request whose call was dropped: its reply may be the next. Cancel safe.
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

    /// Waits for the next reply; `None` once the server has ended the lane. There is no time limit. Messages of an
    /// unknown type, from a newer server, are ignored.
    ///
    /// Cancel safe: if the call is dropped, no reply is lost.
    ///
    /// # Errors
    /// [`ClientError::Lost`] if the lane was reset or cannot be decoded; [`ClientError::Invalid`] if a reply is out of
    /// its bounds.
    pub async fn receive(&mut self) -> Result<Option<Reply>, ClientError> {
        let reply = loop {
            let body = match self.step().await? {
                Step::Wrote => continue,
                Step::Read(Some(body)) => body,
                Step::Read(None) => return Ok(None),
            };
            if let Some(reply) = parse(body, self.link.compression(), self.reader.max_message_bytes())? {
                break reply;
            }
        };
        if let Some(retry_after) = refused_for(&reply.message) {
            self.link.pace.refused(retry_after);
        }
        Ok(Some(reply))
    }

    /// Sends a request and waits for its reply, within [`ClientBuilder::request_timeout`](crate::ClientBuilder).
    /// Replies to earlier requests that come before it are dropped. If the call is dropped, the same holds as for
    /// [`send`](Self::send).
    ///
    /// # Errors
    /// [`ClientError::Server`] if the server answers with an error; [`ClientError::Timeout`] if it does not answer in
    /// time; otherwise as [`send`](Self::send).
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

    /// Ends the lane gracefully. Returns once the server has carried out every request; their replies are dropped.
    ///
    /// # Errors
    /// [`ClientError::Lost`] if the lane ended before that; [`ClientError::Timeout`] if the server does not end it in
    /// time.
    pub async fn finish(mut self) -> Result<(), ClientError> {
        let within = self.request_timeout;
        let ended = async {
            while !self.unsent.is_empty() {
                // Reading lets the server continue to read.
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

/// `None` for a message of an unknown type.
fn parse(body: Bytes, compression: Compression, max_message_bytes: usize) -> Result<Option<Reply>, ClientError> {
    let body = Body::parse(body, compression, max_message_bytes).map_err(|_| ClientError::Lost)?;
    match Reply::parse(&body) {
        Ok(reply) => Ok(Some(reply)),
        Err(invalid) if invalid.unknown_type => Ok(None),
        Err(invalid) => Err(invalid.into()),
    }
}

/// The result of one step on a lane.
enum Step {
    /// Something was written.
    Wrote,
    /// A body, or the lane's end.
    Read(Option<Bytes>),
}

impl Drop for Lane {
    fn drop(&mut self) {
        if !self.unsent.is_empty() {
            // A dropped stream is finished, which would leave a partial message.
            let _ = self.stream.reset(0_u8.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_of_an_unknown_type_are_ignored_and_broken_ones_are_errors() {
        let parse = |json: &'static str| parse(Bytes::from_static(json.as_bytes()), Compression::None, 1000);
        assert!(matches!(parse(r#"{"type":"new","re":1}"#), Ok(None)));
        assert!(matches!(parse(r#"{"type":"ok","re":1}"#), Ok(Some(_))));
        assert!(matches!(parse(r#"{"type":"published","re":1,"offset":"x"}"#), Err(ClientError::Invalid(_))));
        assert!(matches!(parse("x"), Err(ClientError::Lost)));
    }
}
