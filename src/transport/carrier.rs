//! A client's connection from the server's side: its lanes, its datagrams, its end. Here alone it shows which carrier
//! that is.

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

/// Between the end of a session's lanes and its own. Chromium 148 crashes where one follows the other within a few
/// milliseconds; with 200 in between it was not seen to.
const AFTER_LANES: Duration = Duration::from_millis(200);

/// What a connection speaks, which TLS has negotiated (ALPN).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    Native,
    WebTransport,
}

impl Protocol {
    /// Waits until the client has said what it speaks, which is before the handshake is done. Call it once.
    pub(crate) async fn of(connecting: &mut Connecting) -> Result<Self, ConnectionError> {
        let negotiated = connecting.handshake_data().await?.downcast::<HandshakeData>().ok();
        let is_http3 = negotiated.and_then(|data| data.protocol).as_deref() == Some(ALPN_WEBTRANSPORT);
        Ok(if is_http3 { Self::WebTransport } else { Self::Native })
    }
}

/// What was measured of the path to a client.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Path {
    /// The time of a packet there and back.
    pub(crate) rtt: Duration,
    /// Packets to the client, those that were lost among them.
    pub(crate) sent: u64,
    /// Packets that were lost.
    pub(crate) lost: u64,
}

/// The connection of one client.
#[derive(Debug, Clone)]
pub(crate) enum Carrier {
    /// Native QUIC: streams are lanes.
    Native(Connection),
    /// A WebTransport session, which has its connection to itself. Shared because it is large.
    WebTransport(Arc<Session>),
    /// A WebSocket: the one lane that there is.
    WebSocket(Arc<Socket>),
}

impl Carrier {
    /// QUIC's, on which it lies. `None` for a WebSocket.
    pub(crate) fn quic(&self) -> Option<&Connection> {
        match self {
            Self::Native(connection) => Some(connection),
            Self::WebTransport(session) => Some(session.connection()),
            Self::WebSocket(_) => None,
        }
    }

    /// As clients are told of it.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Native(_) => "quic",
            Self::WebTransport(_) => "webtransport",
            Self::WebSocket(_) => "websocket",
        }
    }

    /// On what its lanes lie.
    pub(crate) fn layer(&self) -> Layer {
        match self {
            Self::Native(_) | Self::WebSocket(_) => Layer::Native,
            Self::WebTransport(_) => Layer::WebTransport,
        }
    }

    /// Where the client is now.
    pub(crate) fn remote_address(&self) -> SocketAddr {
        match self {
            Self::Native(connection) => connection.remote_address(),
            Self::WebTransport(session) => session.connection().remote_address(),
            Self::WebSocket(socket) => socket.peer(),
        }
    }

    /// The time of a packet to the client and back, as QUIC has measured it; zero where nobody has.
    pub(crate) fn rtt(&self) -> Duration {
        self.quic().map(Connection::rtt).unwrap_or_default()
    }

    /// What QUIC has measured of the path to the client; `None` where that is not QUIC.
    pub(crate) fn path(&self) -> Option<Path> {
        let PathStats { rtt, lost_packets, sent_packets, .. } = self.quic()?.stats().path;
        Some(Path { rtt, lost: lost_packets, sent: sent_packets })
    }

    /// Changes where the carrier itself sees that the client sends, or takes what waits: a part of a message is no message yet.
    pub(crate) fn moved(&self) -> usize {
        match self {
            Self::Native(_) | Self::WebTransport(_) => 0,
            Self::WebSocket(socket) => socket.moved(),
        }
    }

    /// The client's own certificate, which TLS has checked.
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
    /// The connection is gone.
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
            // One of the session's: HTTP/3's own are not counted. There is room for one only where a client does without some of them.
            Self::WebTransport(session) => return session.opened_forbidden_stream().await,
            Self::WebSocket(_) => false,
        };
        if !is_opened {
            std::future::pending().await
        }
    }

    /// Opens a unidirectional stream. `None` where the client grants no further one, or is gone, or has but one lane.
    pub(crate) fn open_lane(&self) -> Option<SendStream> {
        self.quic()?.open_uni().now_or_never()?.ok()
    }

    /// Waits for the next datagram from the client. Cancel safe.
    ///
    /// # Errors
    /// The connection is gone.
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

    /// Whether a body of so many bytes fits a datagram on the path, and the client takes datagrams.
    pub(crate) fn takes_datagram(&self, bytes: usize) -> bool {
        match self {
            Self::Native(connection) => connection.max_datagram_size().is_some_and(|most| bytes <= most),
            Self::WebTransport(session) => session.max_datagram().is_some_and(|most| bytes <= most),
            Self::WebSocket(_) => false,
        }
    }

    /// Whether QUIC takes a datagram now without giving up another.
    pub(crate) fn has_datagram_room(&self, bytes: usize) -> bool {
        match self {
            Self::Native(connection) => connection.datagram_send_buffer_space() >= bytes,
            Self::WebTransport(session) => session.connection().datagram_send_buffer_space() > bytes,
            Self::WebSocket(_) => false,
        }
    }

    /// Sends a body as a datagram.
    pub(crate) fn send_datagram(&self, body: Bytes) {
        // Where it cannot be sent any more it is lost, as any datagram may be.
        match self {
            Self::Native(connection) => drop(connection.send_datagram(body)),
            Self::WebTransport(session) => drop(session.connection().send_datagram(Session::datagram(&body))),
            Self::WebSocket(_) => {}
        }
    }

    /// Sends a body as a datagram once QUIC has sent others.
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

    /// What it means that a stream tells of the connection's end.
    pub(crate) fn disconnected(&self, error: ConnectionError) -> Disconnected {
        match self {
            Self::WebTransport(session) => session.disconnected(error),
            Self::Native(_) | Self::WebSocket(_) => error.into(),
        }
    }

    /// Waits until the connection is there no more. Cancel safe.
    pub(crate) async fn closed(&self) -> Disconnected {
        match self {
            Self::Native(connection) => self.disconnected(connection.closed().await),
            Self::WebTransport(session) => self.disconnected(session.connection().closed().await),
            Self::WebSocket(socket) => socket.closed().await,
        }
    }

    /// Why the connection is there no more.
    pub(crate) fn close_reason(&self) -> Option<Disconnected> {
        match self {
            Self::WebSocket(socket) => socket.disconnected(),
            _ => self.quic()?.close_reason().map(|e| self.disconnected(e)),
        }
    }

    /// Closes the connection with a closing code. Where that is a message of its own, it has `within` to arrive.
    pub(crate) async fn close(&self, code: u16, reason: &str, within: Duration) {
        match self {
            Self::Native(connection) => connection.close(code.into(), reason.as_bytes()),
            Self::WebTransport(session) => {
                sleep(AFTER_LANES).await;
                session.close(code, reason, within).await;
            }
            Self::WebSocket(socket) => {
                // What does not get through in time is lost with the connection, which its owner drops.
                let _ = timeout(within, socket.close(code, reason)).await;
            }
        }
    }
}
