//! What carries a link: a QUIC connection, or a WebSocket.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use quic_websocket_lane::Disconnected;
use quic_websocket_lane::websocket::Socket;
use tokio::time::timeout;

/// The connection of a link.
#[derive(Debug, Clone)]
pub(super) enum Connection {
    /// Native QUIC: streams are lanes.
    Quic(quinn::Connection),
    /// A WebSocket: the one lane that there is.
    WebSocket(Arc<Socket>),
}

impl Connection {
    /// The QUIC connection. `None` for a WebSocket.
    pub(super) fn quic(&self) -> Option<&quinn::Connection> {
        match self {
            Self::Quic(connection) => Some(connection),
            Self::WebSocket(_) => None,
        }
    }

    /// Changes whenever a WebSocket's server shows that it is there. QUIC finds that out by itself.
    pub(super) fn moved(&self) -> usize {
        match self {
            Self::Quic(_) => 0,
            Self::WebSocket(socket) => socket.moved(),
        }
    }

    /// Waits for the next datagram from the server; a WebSocket has none. Cancel safe.
    ///
    /// # Errors
    /// The connection is gone.
    pub(super) async fn read_datagram(&self) -> Result<Bytes, Disconnected> {
        match self {
            Self::Quic(connection) => Ok(connection.read_datagram().await?),
            Self::WebSocket(socket) => Err(socket.closed().await),
        }
    }

    /// Waits until the connection has ended. Cancel safe.
    pub(super) async fn closed(&self) -> Disconnected {
        match self {
            Self::Quic(connection) => connection.closed().await.into(),
            Self::WebSocket(socket) => socket.closed().await,
        }
    }

    /// Closes the connection with a closing code. Where that is a message of its own, it has `within` to arrive.
    pub(super) async fn close(&self, code: u16, reason: &str, within: Duration) {
        match self {
            Self::Quic(connection) => connection.close(code.into(), reason.as_bytes()),
            Self::WebSocket(socket) => {
                // A close that does not arrive in time is lost with the connection, which its owner drops.
                let _ = timeout(within, socket.close(code, reason)).await;
            }
        }
    }
}
