//! A client's connection from the server's side: its lanes, its datagrams, its end. The only module that distinguishes
//! carriers.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use quic_websocket_lane::websocket::Socket;
use quic_websocket_lane::{Disconnected, Layer, ReceiveHalf, SendHalf};
use quinn::crypto::rustls::HandshakeData;
use quinn::{Connecting, Connection, ConnectionError, PathStats, SendStream};
use rustls::pki_types::CertificateDer;
use tokio::time::{sleep, timeout};

use super::webtransport::Session;
use crate::message::ALPN_WEBTRANSPORT;

/// Pause between the end of a session's lanes and that of the session. Chromium 148 crashes if one follows the other
/// within a few milliseconds; with 200 ms no crash was seen.
const AFTER_LANES: Duration = Duration::from_millis(200);

/// Protocol of a connection, as negotiated by TLS (ALPN).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    Native,
    WebTransport,
}

impl Protocol {
    /// Waits for the client's protocol, which is known before the handshake is complete. Call it once.
    pub(crate) async fn of(connecting: &mut Connecting) -> Result<Self, ConnectionError> {
        let negotiated = connecting.handshake_data().await?.downcast::<HandshakeData>().ok();
        let is_http3 = negotiated.and_then(|data| data.protocol).as_deref() == Some(ALPN_WEBTRANSPORT);
        Ok(if is_http3 { Self::WebTransport } else { Self::Native })
    }
}

/// Measurements of the path to a client.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Path {
    /// Round-trip time.
    pub(crate) rtt: Duration,
    /// Packets sent to the client, including lost ones.
    pub(crate) sent: u64,
    /// Packets lost on the way to the client.
    pub(crate) lost: u64,
}

/// The connection of one client.
#[derive(Debug, Clone)]
pub(crate) enum Carrier {
    /// Native QUIC: streams are lanes.
    Native(Connection),
    /// A WebTransport session, alone on its connection. In an `Arc` because it is large.
    WebTransport(Arc<Session>),
    /// A WebSocket, which has only one lane.
    WebSocket(Arc<Socket>),
}

impl Carrier {
    /// The QUIC connection below. `None` for a WebSocket.
    pub(crate) fn quic(&self) -> Option<&Connection> {
        match self {
            Self::Native(connection) => Some(connection),
            Self::WebTransport(session) => Some(session.connection()),
            Self::WebSocket(_) => None,
        }
    }

    /// Name in messages and statistics.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Native(_) => "quic",
            Self::WebTransport(_) => "webtransport",
            Self::WebSocket(_) => "websocket",
        }
    }

    /// The layer between its lanes and QUIC.
    pub(crate) fn layer(&self) -> Layer {
        match self {
            Self::Native(_) | Self::WebSocket(_) => Layer::Native,
            Self::WebTransport(_) => Layer::WebTransport,
        }
    }

    /// Current address of the client.
    pub(crate) fn remote_address(&self) -> SocketAddr {
        match self {
            Self::Native(connection) => connection.remote_address(),
            Self::WebTransport(session) => session.connection().remote_address(),
            Self::WebSocket(socket) => socket.peer(),
        }
    }

    /// Round-trip time as measured by QUIC; zero for a WebSocket.
    pub(crate) fn rtt(&self) -> Duration {
        self.quic().map(Connection::rtt).unwrap_or_default()
    }

    /// QUIC's measurements of the path to the client; `None` for a WebSocket.
    pub(crate) fn path(&self) -> Option<Path> {
        let PathStats { rtt, lost_packets, sent_packets, .. } = self.quic()?.stats().path;
        Some(Path { rtt, lost: lost_packets, sent: sent_packets })
    }

    /// Counter of the carrier's own signs of life: it changes when bytes arrive, even of an incomplete message, or when
    /// the client accepts waiting bytes. Always 0 on QUIC.
    pub(crate) fn moved(&self) -> usize {
        match self {
            Self::Native(_) | Self::WebTransport(_) => 0,
            Self::WebSocket(socket) => socket.moved(),
        }
    }

    /// The client's certificate, verified by TLS.
    pub(crate) fn certificate(&self) -> Option<CertificateDer<'static>> {
        if let Self::WebSocket(socket) = self {
            return socket.certificate();
        }
        let chain = self.quic()?.peer_identity()?.downcast::<Vec<CertificateDer<'static>>>().ok()?;
        chain.into_iter().next()
    }

    /// Waits for the next lane that the client opens. Cancel safe.
    ///
    /// # Errors
    /// The connection has ended.
    pub(crate) async fn accept_lane(&self) -> Result<(SendHalf, ReceiveHalf), Disconnected> {
        let accepted = match self {
            Self::Native(connection) => connection.accept_bi().await,
            Self::WebTransport(session) => session.connection().accept_bi().await,
            Self::WebSocket(socket) => {
                return match socket.lane() {
                    Some((outlet, inlet)) => Ok((outlet.into(), inlet.into())),
                    None => Err(socket.closed().await),
                };
            }
        };
        let (send, receive) = accepted.map_err(|e| self.disconnected(e))?;
        Ok((send.into(), receive.into()))
    }

    /// Waits until the client opens a unidirectional stream that it must not open. Cancel safe.
    pub(crate) async fn opened_forbidden_stream(&self) {
        let is_opened = match self {
            Self::Native(connection) => connection.accept_uni().await.is_ok(),
            // Only streams of the session count, not those of HTTP/3 itself. There is stream credit for one only if the
            // client opens fewer of its own.
            Self::WebTransport(session) => return session.opened_forbidden_stream().await,
            Self::WebSocket(_) => false,
        };
        if !is_opened {
            std::future::pending().await
        }
    }

    /// Opens a unidirectional stream. `None` if the client grants no more streams or has disconnected, or the carrier
    /// has only one lane.
    pub(crate) fn open_lane(&self) -> Option<SendStream> {
        self.quic()?.open_uni().now_or_never()?.ok()
    }

    /// Waits for the next datagram from the client. Cancel safe.
    ///
    /// # Errors
    /// The connection has ended.
    pub(crate) async fn read_datagram(&self) -> Result<Bytes, Disconnected> {
        loop {
            match self {
                Self::Native(connection) => return connection.read_datagram().await.map_err(|e| self.disconnected(e)),
                Self::WebTransport(session) => {
                    let datagram = session.connection().read_datagram().await.map_err(|e| self.disconnected(e))?;
                    if let Some(body) = Session::body(datagram) {
                        return Ok(body);
                    }
                }
                Self::WebSocket(socket) => return Err(socket.closed().await),
            }
        }
    }

    /// Whether a body of `bytes` fits into a datagram on this path, and the client accepts datagrams.
    pub(crate) fn takes_datagram(&self, bytes: usize) -> bool {
        match self {
            Self::Native(connection) => connection.max_datagram_size().is_some_and(|most| bytes <= most),
            Self::WebTransport(session) => session.max_datagram().is_some_and(|most| bytes <= most),
            Self::WebSocket(_) => false,
        }
    }

    /// Whether QUIC has room for a datagram without dropping another.
    pub(crate) fn has_datagram_room(&self, bytes: usize) -> bool {
        match self {
            Self::Native(connection) => connection.datagram_send_buffer_space() >= bytes,
            Self::WebTransport(session) => session.connection().datagram_send_buffer_space() > bytes,
            Self::WebSocket(_) => false,
        }
    }

    /// Sends a body as a datagram.
    pub(crate) fn send_datagram(&self, body: Bytes) {
        // If it cannot be sent any more, it is lost, as any datagram may be.
        match self {
            Self::Native(connection) => drop(connection.send_datagram(body)),
            Self::WebTransport(session) => drop(session.connection().send_datagram(Session::datagram(&body))),
            Self::WebSocket(_) => {}
        }
    }

    /// Sends a body as a datagram once QUIC has room for it.
    pub(crate) async fn send_datagram_in_turn(&self, body: Bytes) {
        // As above.
        match self {
            Self::Native(connection) => drop(connection.send_datagram_wait(body).await),
            Self::WebTransport(session) => {
                drop(session.connection().send_datagram_wait(Session::datagram(&body)).await);
            }
            Self::WebSocket(_) => {}
        }
    }

    /// Translates the end of the QUIC connection.
    pub(crate) fn disconnected(&self, error: ConnectionError) -> Disconnected {
        match self {
            Self::WebTransport(session) => session.disconnected(error),
            Self::Native(_) | Self::WebSocket(_) => error.into(),
        }
    }

    /// Waits for the end of the connection. Cancel safe.
    pub(crate) async fn closed(&self) -> Disconnected {
        match self {
            Self::Native(connection) => self.disconnected(connection.closed().await),
            Self::WebTransport(session) => self.disconnected(session.connection().closed().await),
            Self::WebSocket(socket) => socket.closed().await,
        }
    }

    /// Reason for the end of the connection, once it has ended.
    pub(crate) fn close_reason(&self) -> Option<Disconnected> {
        match self {
            Self::WebSocket(socket) => socket.disconnected(),
            _ => self.quic()?.close_reason().map(|e| self.disconnected(e)),
        }
    }

    /// Closes the connection with a closing code. If that takes a message of its own, it has `within` to arrive.
    pub(crate) async fn close(&self, code: u16, reason: &str, within: Duration) {
        match self {
            Self::Native(connection) => connection.close(code.into(), reason.as_bytes()),
            Self::WebTransport(session) => {
                sleep(AFTER_LANES).await;
                session.close(code, reason, within).await;
            }
            Self::WebSocket(socket) => {
                // A close frame that does not get through in time is lost with the connection, which its owner drops.
                let _ = timeout(within, socket.close(code, reason)).await;
            }
        }
    }
}
