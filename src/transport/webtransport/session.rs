//! A WebTransport session, alone on its connection: the HTTP/3 streams below it, and its end on either side.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use parking_lot::Mutex;
use quic_websocket_lane::{Disconnected, Layer};
use quinn::{Connection, ConnectionError, RecvStream, SendStream, VarInt};
use tokio::sync::oneshot;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use web_transport_quinn::proto::{self, Frame, Settings, StreamUni};

use super::http3::{self, CLOSE, CODE_BYTES, Fault, Frames, NO_ERROR, STREAM_CREATION_ERROR, Trouble};
use crate::message::CloseCode;

/// Prefix of every datagram (RFC 9297 section 2.1): the session's id, a quarter of the CONNECT stream's.
const DATAGRAM: u8 = 0x00;

/// End of a session, set by whichever task notices it first.
type End = Arc<OnceLock<Disconnected>>;

/// A connection after the exchange of HTTP/3 settings.
pub(super) struct Http3 {
    connection: Connection,
    end: End,
    opened_forbidden_stream: CancellationToken,
    streams: AbortOnDropHandle<()>,
    /// The server's control stream, which must stay open.
    control: SendStream,
}

impl Http3 {
    pub(super) async fn begin(connection: Connection) -> Result<Self, Disconnected> {
        let (end, opened_forbidden_stream) = (End::default(), CancellationToken::new());
        let (taken, settings) = oneshot::channel();
        let streams = tokio::spawn(serve(connection.clone(), taken, Arc::clone(&end), opened_forbidden_stream.clone()));
        let streams = AbortOnDropHandle::new(streams);
        let lost = |error| disconnected(&end, error);
        let mut control = connection.open_uni().await.map_err(lost)?;
        let mut own = Settings::default();
        own.enable_webtransport(1);
        let mut frame = BytesMut::new();
        own.encode(&mut frame);
        // Fails only with the connection, which the next step reports.
        let _ = control.write_all(&frame).await;
        if settings.await.is_err() {
            return Err(lost(connection.closed().await));
        }
        Ok(Self { connection, end, opened_forbidden_stream, streams, control })
    }

    /// Waits for the first request and reads its field section.
    pub(super) async fn request(&self) -> Result<(SendStream, Frames<RecvStream>, Vec<u8>), Disconnected> {
        let lost = |error| disconnected(&self.end, error);
        let (send, receive) = self.connection.accept_bi().await.map_err(lost)?;
        let mut frames = Frames::new(receive);
        match http3::request(&mut frames).await {
            Ok(fields) => Ok((send, frames, fields)),
            Err(Trouble::Fault(fault)) => {
                broken(&self.connection, &self.end, fault);
                Err(lost(ConnectionError::LocallyClosed))
            }
            Err(Trouble::Reset | Trouble::Disconnected) => Err(Disconnected::Lost("its request was aborted".into())),
        }
    }

    /// Creates the session of an answered request.
    pub(super) fn session(self, send: SendStream, frames: Frames<RecvStream>) -> Session {
        let Self { connection, end, opened_forbidden_stream, streams, control } = self;
        let request = tokio::spawn(read_request(connection.clone(), frames, Arc::clone(&end)));
        Session {
            connection,
            request: Mutex::new(Some(send)),
            end,
            opened_forbidden_stream,
            _tasks: [streams, AbortOnDropHandle::new(request)],
            _control: control,
        }
    }
}

/// An open session.
#[derive(Debug)]
pub(crate) struct Session {
    connection: Connection,
    /// Sending half of the CONNECT stream, until the server closes the session.
    request: Mutex<Option<SendStream>>,
    end: End,
    /// Cancelled once the client has opened a unidirectional stream in the session.
    opened_forbidden_stream: CancellationToken,
    _tasks: [AbortOnDropHandle<()>; 2],
    _control: SendStream,
}

impl Session {
    /// The QUIC connection below.
    pub(crate) fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Waits until the client opens a unidirectional stream in the session. Cancel safe.
    pub(crate) async fn opened_forbidden_stream(&self) {
        self.opened_forbidden_stream.cancelled().await;
    }

    /// Largest body of a datagram, in bytes; `None` if the client accepts none.
    pub(crate) fn max_datagram(&self) -> Option<usize> {
        self.connection.max_datagram_size()?.checked_sub(size_of_val(&DATAGRAM))
    }

    /// Encodes a body as a datagram of the session.
    pub(crate) fn datagram(body: &Bytes) -> Bytes {
        let mut datagram = BytesMut::with_capacity(size_of_val(&DATAGRAM) + body.len());
        datagram.put_u8(DATAGRAM);
        datagram.put_slice(body);
        datagram.freeze()
    }

    /// The body of a datagram. `None` if the datagram belongs to no session, or to another one.
    pub(crate) fn body(mut datagram: Bytes) -> Option<Bytes> {
        let session = proto::VarInt::decode(&mut datagram).ok()?;
        (session.into_inner() == u64::from(DATAGRAM)).then_some(datagram)
    }

    /// Translates the end of the connection into that of the session.
    pub(crate) fn disconnected(&self, error: ConnectionError) -> Disconnected {
        disconnected(&self.end, error)
    }

    /// Closes the session with a code and reason, then the connection, once the client has done so or `within` has
    /// passed.
    pub(crate) async fn close(&self, code: u16, reason: &str, within: Duration) {
        let request = self.request.lock().take();
        let _ = self.end.set(Disconnected::Closed { code: code.into(), reason: reason.to_owned() });
        let mut is_delivered = false;
        let closed = async {
            if let Some(mut request) = request {
                let is_sent = request.write_all(&closing(code, reason)).await.is_ok() && request.finish().is_ok();
                is_delivered = is_sent && matches!(request.stopped().await, Ok(None));
            }
            self.connection.closed().await;
        };
        let _ = timeout(within, closed).await;
        // If the client did not get the reason, this is the last chance.
        let code = if is_delivered { VarInt::from_u32(NO_ERROR) } else { Layer::WebTransport.code(code) };
        self.connection.close(code, reason.as_bytes());
    }
}

/// Encodes a CLOSE capsule in a DATA frame.
fn closing(code: u16, reason: &str) -> Vec<u8> {
    let integer = |value: usize| proto::VarInt::from_u32(u32::try_from(value).unwrap_or(u32::MAX));
    let mut capsule = Vec::new();
    integer(usize::try_from(CLOSE).unwrap_or(usize::MAX)).encode(&mut capsule);
    integer(CODE_BYTES + reason.len()).encode(&mut capsule);
    capsule.put_u32(code.into());
    capsule.put_slice(reason.as_bytes());
    let mut frame = Vec::new();
    Frame::DATA.encode(&mut frame);
    integer(capsule.len()).encode(&mut frame);
    frame.extend_from_slice(&capsule);
    frame
}

/// The end of a session without a code: a page that was left, reported as WebSocket does (1001).
fn left() -> Disconnected {
    Disconnected::Closed { code: CloseCode::GOING_AWAY.0.into(), reason: "page left".into() }
}

fn disconnected(end: &End, error: ConnectionError) -> Disconnected {
    match error {
        ConnectionError::LocallyClosed => end.get().cloned().unwrap_or_else(left),
        ConnectionError::ApplicationClosed(close) => {
            let (code, reason) = (close.error_code.into_inner(), String::from_utf8_lossy(&close.reason).into_owned());
            match proto::error_from_http3(code) {
                Some(0) if reason.is_empty() => left(),
                None if code == u64::from(NO_ERROR) => left(),
                mapped => Disconnected::Closed { code: mapped.map_or(code, u64::from), reason },
            }
        }
        other => Disconnected::Lost(other.to_string()),
    }
}

/// Closes the connection of a client that broke HTTP/3.
fn broken(connection: &Connection, end: &End, fault: Fault) {
    if end.set(Disconnected::Broken(fault.why)).is_ok() {
        connection.close(VarInt::from_u32(fault.code), fault.why.as_bytes());
    }
}

/// Reads the CONNECT stream until the client ends the session.
async fn read_request(connection: Connection, frames: Frames<RecvStream>, end: End) {
    let lost = match http3::closing(frames).await {
        // A page that closes without code and reason.
        Ok(Some((0, reason))) if reason.is_empty() => left(),
        Ok(Some((code, reason))) => Disconnected::Closed { code: code.into(), reason },
        Ok(None) | Err(Trouble::Reset | Trouble::Disconnected) => left(),
        Err(Trouble::Fault(fault)) => return broken(&connection, &end, fault),
    };
    // If the server closed the session, the connection is closed by the client, or by `close`.
    if end.set(lost).is_ok() {
        connection.close(VarInt::from_u32(NO_ERROR), b"");
    }
}

/// Progress of a client's unidirectional stream.
enum Step {
    /// Its type was read.
    Typed(u64, RecvStream),
    /// Nothing more can be read from it.
    Ended(Trouble),
}

/// Serves the client's HTTP/3 streams for the life of the connection.
async fn serve(
    connection: Connection,
    settings: oneshot::Sender<()>,
    end: End,
    opened_forbidden_stream: CancellationToken,
) {
    let mut settings = Some(settings);
    let mut qpack = Vec::new();
    let mut reading = FuturesUnordered::<BoxFuture<'static, Step>>::new();
    loop {
        let step = tokio::select! {
            accepted = connection.accept_uni() => match accepted {
                Ok(stream) => {
                    reading.push(Box::pin(begin(stream)));
                    continue;
                }
                Err(_) => return,
            },
            Some(step) = reading.next() => step,
        };
        let fault = match step {
            Step::Typed(kind, stream) => match StreamUni(proto::VarInt::from_u64(kind).unwrap_or(proto::VarInt::MAX)) {
                StreamUni::CONTROL => match settings.take() {
                    Some(settings) => {
                        reading.push(Box::pin(async { Step::Ended(http3::control(stream, settings).await) }));
                        continue;
                    }
                    None => Fault::new(STREAM_CREATION_ERROR, "a second control stream"),
                },
                StreamUni::QPACK_ENCODER | StreamUni::QPACK_DECODER if !qpack.contains(&kind) => {
                    qpack.push(kind);
                    reading.push(Box::pin(async { Step::Ended(Frames::new(stream).drain().await) }));
                    continue;
                }
                StreamUni::QPACK_ENCODER | StreamUni::QPACK_DECODER => {
                    Fault::new(STREAM_CREATION_ERROR, "a second stream for QPACK")
                }
                StreamUni::PUSH => Fault::new(STREAM_CREATION_ERROR, "a push stream, which only servers may open"),
                StreamUni::WEBTRANSPORT => {
                    opened_forbidden_stream.cancel();
                    continue;
                }
                // Unknown types are ignored (RFC 9114 section 6.2.3); dropping the stream tells the client so.
                _ => continue,
            },
            Step::Ended(Trouble::Fault(fault)) => fault,
            // A stream without a type has no effect.
            Step::Ended(Trouble::Reset | Trouble::Disconnected) => continue,
        };
        return broken(&connection, &end, fault);
    }
}

/// Reads the type of a stream.
async fn begin(mut stream: RecvStream) -> Step {
    match Frames::new(&mut stream).integer().await {
        Ok(Some(kind)) => Step::Typed(kind, stream),
        // A stream that ends without a type is harmless.
        Ok(None) | Err(_) => Step::Ended(Trouble::Disconnected),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_datagram_without_the_sessions_id_is_ignored() {
        let without = |bytes: &[u8]| Session::body(Bytes::copy_from_slice(bytes));
        assert_eq!(without(b"\x00{}").as_deref(), Some(&b"{}"[..]));
        assert_eq!(without(&[0x00]).as_deref(), Some(&b""[..]));
        for foreign in [&[][..], &[0x01, b'{'], &[0x40], &[0xff, 0x00]] {
            assert_eq!(without(foreign), None, "{foreign:?}");
        }
    }
}
