//! The pump: moves messages between a socket and its client's lane, and closes the socket as RFC 6455 requires.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{Sink, SinkExt, StreamExt};
use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, timeout};
use tokio_tungstenite::tungstenite::handshake::client::Request;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

use super::super::failure::{Disconnected, ReadFailure};
use super::metered::{Metered, is_wrong_length};
use super::{Next, Socket};
use quic_websocket_protocol::frame::{FrameDecoder, FrameError};
use quic_websocket_protocol::message::CloseCode;

/// Read and write buffer of a socket, in bytes; every idle client has both.
pub(super) const BUFFER_BYTES: usize = 4096;
/// Messages longer than this are sent in fragments: a frame is copied before it is sent, and the memory for the largest
/// is kept while the socket lives.
const FRAGMENT_BYTES: usize = 16 * 1024;
/// Longest reason in a close frame, in bytes (RFC 6455 section 5.5); the `close` message before it has the whole text.
const MAX_REASON_BYTES: usize = 123;
/// Code that stands for a close frame without a code (RFC 6455 section 7.1.5).
const NO_STATUS: u16 = 1005;
/// Bytes of a broken socket that are read and dropped so that the peer receives our last message: unread data is
/// answered with a reset, which discards what was sent (RFC 9293 section 3.10.7).
const LINGER_BYTES: u64 = 1 << 20;

/// Wraps a server-side socket whose opening handshake was answered. The future is its pump: it ends when the socket has
/// ended, at most `linger` after the close frame.
pub async fn open<S>(
    stream: S,
    peer: SocketAddr,
    certificate: Option<CertificateDer<'static>>,
    max_message_bytes: usize,
    linger: Duration,
) -> (Arc<Socket>, impl Future<Output = ()> + Send)
where
    S: AsyncRead + AsyncWrite + Send + Unpin,
{
    let socket = Socket::new(peer, certificate);
    let stream = Metered::new(stream, Some(Arc::clone(&socket)));
    let stream = WebSocketStream::from_raw_socket(stream, Role::Server, Some(config(max_message_bytes))).await;
    (Arc::clone(&socket), pump(stream, socket, max_message_bytes, linger))
}

/// Opens a WebSocket as a client, on a stream on which nothing was sent yet. Returns the socket and its pump.
///
/// # Errors
/// The server's refusal, or the failure of the stream.
pub async fn connect<S>(
    request: Request,
    stream: S,
    peer: SocketAddr,
    max_message_bytes: usize,
    linger: Duration,
) -> Result<(Arc<Socket>, impl Future<Output = ()> + Send + use<S>), Error>
where
    S: AsyncRead + AsyncWrite + Send + Unpin,
{
    let socket = Socket::new(peer, None);
    let mut stream = Metered::new(stream, Some(Arc::clone(&socket)));
    // The response is not a frame, and a server's lengths need no check.
    stream.stop_checking();
    let (stream, _) = client_async_with_config(request, stream, Some(config(max_message_bytes))).await?;
    // The bytes so far were not a message.
    socket.control(usize::MAX);
    Ok((Arc::clone(&socket), pump(stream, socket, max_message_bytes, linger)))
}

fn config(max_message_bytes: usize) -> WebSocketConfig {
    let max = Some(max_message_bytes);
    let config = WebSocketConfig::default().read_buffer_size(BUFFER_BYTES).write_buffer_size(BUFFER_BYTES);
    // More than is ever buffered: one of our fragments, and one answer to a ping.
    config.max_message_size(max).max_frame_size(max).max_write_buffer_size(4 * FRAGMENT_BYTES)
}

/// Ends the socket when its pump ends or is dropped, so that no task waits longer than the pump lives.
struct EndOnDrop(Arc<Socket>);

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        self.0.end(Disconnected::Lost("the connection was given up".into()));
        self.0.is_over.cancel();
    }
}

async fn pump<S>(stream: WebSocketStream<Metered<S>>, socket: Arc<Socket>, max: usize, linger: Duration)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let _end = EndOnDrop(Arc::clone(&socket));
    let (mut sink, mut stream) = stream.split();
    let end = {
        let (reads, writes) = (read(&mut stream, &socket, max), write(&mut sink, &socket));
        tokio::pin!(reads, writes);
        tokio::select! {
            end = &mut reads => match end {
                // The session closes the connection; until then its remaining messages are sent.
                ReadEnd::Broken => writes.await,
                ReadEnd::Disconnected(cause) => cause,
            },
            cause = &mut writes => match cause {
                // The peer's close frame completes the closing handshake.
                Disconnected::Closed { .. } => match timeout(linger, reads).await {
                    Ok(ReadEnd::Disconnected(cause)) => cause,
                    Ok(ReadEnd::Broken) | Err(_) => cause,
                },
                lost => lost,
            },
        }
    };
    socket.end(end);
    if let Ok(stream) = stream.reunite(sink) {
        shut_down(stream, linger).await;
    }
}

/// Ends the connection below the WebSocket.
async fn shut_down<S: AsyncRead + AsyncWrite + Unpin>(mut stream: WebSocketStream<Metered<S>>, linger: Duration) {
    let ending = async {
        // At most the answer to the peer's close frame is unsent.
        let _ = stream.flush().await;
        let raw = stream.get_mut();
        raw.stop_checking();
        raw.shutdown().await?;
        tokio::io::copy(&mut raw.take(LINGER_BYTES), &mut tokio::io::sink()).await
    };
    // Either way the connection has ended.
    let _ = timeout(linger, ending).await;
}

/// Control frames that a peer may send in each [`CONTROL_PERIOD`]; keep-alives need only a few.
const MAX_CONTROL_FRAMES: u32 = 100;
const CONTROL_PERIOD: Duration = Duration::from_secs(10);
/// Header of a client's control frame, in bytes (RFC 6455 section 5.2).
const CONTROL_HEADER_BYTES: usize = 6;

/// Number of recent control frames. They are answered below the layer that limits clients' messages.
#[derive(Debug, Default)]
struct ControlFrames {
    since: Option<Instant>,
    count: u32,
}

impl ControlFrames {
    /// Counts one more; false if it is too many.
    fn allow(&mut self) -> bool {
        let now = Instant::now();
        if self.since.is_none_or(|since| now.duration_since(since) >= CONTROL_PERIOD) {
            (self.since, self.count) = (Some(now), 0);
        }
        self.count += 1;
        self.count <= MAX_CONTROL_FRAMES
    }
}

/// Reason why nothing more is read.
enum ReadEnd {
    /// The peer closed the connection, or it was lost.
    Disconnected(Disconnected),
    /// The peer broke the protocol; the session has been told.
    Broken,
}

async fn read<S>(stream: &mut SplitStream<WebSocketStream<S>>, socket: &Socket, max: usize) -> ReadEnd
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut closed = None;
    let mut control_frames = ControlFrames::default();
    loop {
        socket.has_room().await;
        let failure = match stream.next().await {
            Some(Ok(Message::Text(text))) => {
                socket.receive(text.into());
                continue;
            }
            Some(Ok(Message::Binary(body))) => {
                socket.receive(body);
                continue;
            }
            Some(Ok(Message::Close(frame))) => {
                let (code, reason) =
                    frame.map_or((NO_STATUS, String::new()), |frame| (frame.code.into(), frame.reason.to_string()));
                let cause = Disconnected::Closed { code: code.into(), reason };
                // The session need not wait until the answer is sent.
                socket.end(cause.clone());
                closed = Some(cause);
                continue;
            }
            Some(Ok(control)) if control_frames.allow() => {
                socket.control(CONTROL_HEADER_BYTES + control.len());
                if control.is_ping() {
                    socket.pong();
                }
                continue;
            }
            Some(Ok(_)) => broken(CloseCode::RATE_LIMITED, "too many pings or pongs".into()),
            None | Some(Err(Error::ConnectionClosed | Error::AlreadyClosed)) => {
                return ReadEnd::Disconnected(
                    closed.unwrap_or_else(|| Disconnected::Lost("the connection ended".into())),
                );
            }
            Some(Err(Error::Io(e))) if closed.is_none() && is_wrong_length(&e) => {
                broken(CloseCode::PROTOCOL_ERROR, e.to_string())
            }
            Some(Err(e)) if closed.is_some() || matches!(e, Error::Io(_) | Error::Tls(_)) => {
                return ReadEnd::Disconnected(closed.unwrap_or_else(|| Disconnected::Lost(reason(&e))));
            }
            Some(Err(Error::Protocol(e))) if is_cut_off(&e) => {
                return ReadEnd::Disconnected(Disconnected::Lost(e.to_string()));
            }
            Some(Err(Error::Capacity(_))) => FrameError::TooBig { max }.into(),
            Some(Err(Error::Utf8(_))) => broken(
                CloseCode::INVALID_PAYLOAD,
                "a text message, or the reason of a close frame, that is not UTF-8".into(),
            ),
            Some(Err(e)) => broken(CloseCode::PROTOCOL_ERROR, e.to_string()),
        };
        socket.fail(failure);
        return ReadEnd::Broken;
    }
}

/// Reason for a lost connection. For an end without `close_notify` the TLS library's text is the address of its manual.
fn reason(error: &Error) -> String {
    match error {
        Error::Io(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => "the connection ended without a close".into(),
        other => other.to_string(),
    }
}

fn is_cut_off(error: &tokio_tungstenite::tungstenite::error::ProtocolError) -> bool {
    matches!(error, tokio_tungstenite::tungstenite::error::ProtocolError::ResetWithoutClosingHandshake)
}

fn broken(code: CloseCode, reason: String) -> ReadFailure {
    ReadFailure::Broken { code: code.0, reason }
}

/// Sends what is queued, until the close frame is sent (`Disconnected::Closed`) or a write fails.
async fn write<S>(sink: &mut SplitSink<WebSocketStream<S>, Message>, socket: &Socket) -> Disconnected
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let lost = |e: Error| Disconnected::Lost(reason(&e));
    let mut frames = FrameDecoder::new(usize::MAX);
    let mut flushed = true;
    loop {
        match socket.next_outgoing(flushed) {
            Some(Next::Frames(piece)) => {
                let bytes = piece.len();
                flushed = false;
                frames.push(piece);
                loop {
                    match frames.next_body() {
                        Ok(Some(body)) => {
                            if let Err(e) = feed(sink, body).await {
                                return lost(e);
                            }
                        }
                        Ok(None) => break,
                        // Cannot happen: our own frames are valid.
                        Err(e) => return Disconnected::Lost(e.to_string()),
                    }
                }
                socket.passed(bytes);
            }
            Some(Next::Pong) => {
                if let Err(e) = sink.flush().await {
                    return lost(e);
                }
                flushed = true;
                socket.ponged();
            }
            Some(Next::Close(code, reason)) => {
                let frame = CloseFrame { code: code.into(), reason: truncated(&reason).into() };
                return match sink.send(Message::Close(Some(frame))).await {
                    Ok(()) => Disconnected::Closed { code: code.into(), reason },
                    Err(e) => lost(e),
                };
            }
            None if !flushed => {
                if let Err(e) = sink.flush().await {
                    return lost(e);
                }
                flushed = true;
            }
            None => socket.wanted.notified().await,
        }
    }
}

/// Truncates a reason to what a close frame holds.
fn truncated(reason: &str) -> &str {
    let end = (0..=MAX_REASON_BYTES.min(reason.len())).rev().find(|&end| reason.is_char_boundary(end));
    &reason[..end.unwrap_or(0)]
}

/// Sends a body as one message: as text if it is JSON, otherwise as binary (docs/PROTOCOL.md, "Carriers and frames").
async fn feed(sink: &mut (impl Sink<Message, Error = Error> + Unpin), body: Bytes) -> Result<(), Error> {
    let kind = if body.first() == Some(&b'{') { Data::Text } else { Data::Binary };
    feed_as(kind, sink, body).await
}

async fn feed_as(
    mut kind: Data,
    sink: &mut (impl Sink<Message, Error = Error> + Unpin),
    mut body: Bytes,
) -> Result<(), Error> {
    loop {
        let fragment = body.split_to(body.len().min(FRAGMENT_BYTES));
        let is_last = body.is_empty();
        sink.feed(Message::Frame(Frame::message(fragment, OpCode::Data(kind), is_last))).await?;
        if is_last {
            return Ok(());
        }
        kind = Data::Continue;
    }
}

/// Echoes every message until the peer closes the connection, breaks the protocol, or is idle or does not read for
/// `patience`. For conformance tests of the framing.
pub async fn echo<S>(stream: S, max_message_bytes: usize, patience: Duration, linger: Duration)
where
    S: AsyncRead + AsyncWrite + Send + Unpin,
{
    let stream = Metered::new(stream, None);
    let mut stream = WebSocketStream::from_raw_socket(stream, Role::Server, Some(config(max_message_bytes))).await;
    let code = loop {
        let Ok(received) = timeout(patience, stream.next()).await else { break CloseCode::TIMEOUT };
        let answer = match received {
            Some(Ok(Message::Text(text))) => Some((Data::Text, Bytes::from(text))),
            Some(Ok(Message::Binary(body))) => Some((Data::Binary, body)),
            // The library has queued the answer.
            Some(Ok(_)) => None,
            Some(Err(Error::Capacity(_))) => break CloseCode::TOO_BIG,
            Some(Err(Error::Utf8(_))) => break CloseCode::INVALID_PAYLOAD,
            Some(Err(Error::Protocol(e))) if !is_cut_off(&e) => break CloseCode::PROTOCOL_ERROR,
            Some(Err(Error::Io(e))) if is_wrong_length(&e) => break CloseCode::PROTOCOL_ERROR,
            None | Some(Err(_)) => return shut_down(stream, linger).await,
        };
        let answered = async {
            if let Some((kind, body)) = answer {
                feed_as(kind, &mut stream, body).await?;
            }
            stream.flush().await
        };
        match timeout(patience, answered).await {
            Ok(Ok(())) => {}
            // Both sides have sent their close frames.
            Ok(Err(Error::ConnectionClosed)) => return shut_down(stream, linger).await,
            Ok(Err(_)) | Err(_) => return,
        }
    };
    let frame = CloseFrame { code: code.0.into(), reason: "".into() };
    if let Ok(Ok(())) = timeout(linger, stream.send(Message::Close(Some(frame)))).await {
        shut_down(stream, linger).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_without_a_close_is_reported_without_the_librarys_link() {
        let manual = "peer closed connection without sending TLS close_notify: https://docs.rs/rustls/";
        let error = Error::Io(std::io::Error::new(std::io::ErrorKind::UnexpectedEof, manual));
        assert_eq!(reason(&error), "the connection ended without a close");
    }

    #[test]
    fn a_reason_is_cut_between_characters() {
        for (reason, fits) in [("", 0), ("short", 5), (&*"x".repeat(123), 123), (&*"x".repeat(124), 123)] {
            assert_eq!(truncated(reason), &reason[..fits]);
        }
        for (reason, fits) in [("ü".repeat(62), 122), ("x".to_owned() + &"ü".repeat(62), 123), ("🚀".repeat(31), 120)]
        {
            assert_eq!(truncated(&reason), &reason[..fits]);
        }
    }
}
