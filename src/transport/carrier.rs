//! A client's connection from the server's side: its lanes, its datagrams, its end. Here alone it shows which carrier
//! that is.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use quinn::{Connection, ConnectionError, RecvStream, SendStream};
use rustls::pki_types::CertificateDer;
use thiserror::Error;

/// Bytes of datagrams that QUIC holds at once: one or two packets, so that streams have the packets after these.
pub(super) const DATAGRAMS_IN_QUIC: usize = 4096;

/// Why a connection is there no more.
#[derive(Debug, Clone, Error)]
pub(crate) enum Gone {
    /// The peer closed it.
    #[error("closed with {code}")]
    Closed {
        /// What it said, as the carrier tells it.
        code: u64,
        /// As far as it is UTF-8.
        reason: String,
    },
    /// Nobody did, or without a code.
    #[error(transparent)]
    Lost(ConnectionError),
}

impl From<ConnectionError> for Gone {
    fn from(error: ConnectionError) -> Self {
        match error {
            ConnectionError::ApplicationClosed(close) => Self::Closed {
                code: close.error_code.into_inner(),
                reason: String::from_utf8_lossy(&close.reason).into_owned(),
            },
            other => Self::Lost(other),
        }
    }
}

/// The connection of one client.
#[derive(Debug, Clone)]
pub(crate) struct Carrier(Connection);

impl Carrier {
    /// A connection on which lanes are streams.
    pub(crate) fn native(connection: Connection) -> Self {
        Self(connection)
    }

    /// As clients are told of it.
    pub(crate) fn name(&self) -> &'static str {
        "quic"
    }

    /// Where the client is now.
    pub(crate) fn remote_address(&self) -> SocketAddr {
        self.0.remote_address()
    }

    /// The time of a packet to the client and back, as QUIC has measured it.
    pub(crate) fn rtt(&self) -> Duration {
        self.0.rtt()
    }

    /// The client's own certificate, which TLS has checked.
    pub(crate) fn certificate(&self) -> Option<CertificateDer<'static>> {
        let chain = self.0.peer_identity()?.downcast::<Vec<CertificateDer<'static>>>().ok()?;
        chain.into_iter().next()
    }

    /// Waits for the next lane that the client opens. Cancel safe.
    ///
    /// # Errors
    /// The connection is gone.
    pub(crate) async fn accept_lane(&self) -> Result<(SendStream, RecvStream), Gone> {
        self.0.accept_bi().await.map_err(|e| self.gone(e))
    }

    /// Opens a unidirectional stream. `None` where the client grants no further one, or is gone.
    pub(crate) fn open_lane(&self) -> Option<SendStream> {
        self.0.open_uni().now_or_never()?.ok()
    }

    /// Waits for the next datagram from the client. Cancel safe.
    ///
    /// # Errors
    /// The connection is gone.
    pub(crate) async fn read_datagram(&self) -> Result<Bytes, Gone> {
        self.0.read_datagram().await.map_err(|e| self.gone(e))
    }

    /// Whether a body of so many bytes fits a datagram on the path, and the client takes datagrams.
    pub(crate) fn takes_datagram(&self, bytes: usize) -> bool {
        self.0.max_datagram_size().is_some_and(|most| bytes <= most)
    }

    /// Whether QUIC takes a datagram now without giving up another.
    pub(crate) fn has_datagram_room(&self, bytes: usize) -> bool {
        self.0.datagram_send_buffer_space() >= bytes
    }

    /// Sends a body as a datagram.
    pub(crate) fn send_datagram(&self, body: Bytes) {
        // Where it cannot be sent any more it is lost, as any datagram may be.
        let _ = self.0.send_datagram(body);
    }

    /// Sends a body as a datagram once QUIC has sent others.
    pub(crate) async fn send_datagram_in_turn(&self, body: Bytes) {
        // As above.
        let _ = self.0.send_datagram_wait(body).await;
    }

    /// What it means that a stream tells of the connection's end.
    pub(crate) fn gone(&self, error: ConnectionError) -> Gone {
        error.into()
    }

    /// Waits until the connection is there no more. Cancel safe.
    pub(crate) async fn closed(&self) -> Gone {
        self.gone(self.0.closed().await)
    }

    /// Why the connection is there no more.
    pub(crate) fn close_reason(&self) -> Option<Gone> {
        self.0.close_reason().map(|e| self.gone(e))
    }

    /// Closes the connection with a closing code.
    pub(crate) fn close(&self, code: u16, reason: &str) {
        self.0.close(u32::from(code).into(), reason.as_bytes());
    }
}
