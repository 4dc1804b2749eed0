//! What a client's connection gives beyond the lanes that the client opens: lanes of the server's own, and datagrams.
//! Here alone it shows which carrier that is.

use bytes::Bytes;
use futures_util::FutureExt;
use quinn::{Connection, SendStream};

/// Bytes of datagrams that QUIC holds at once: one or two packets, so that streams have the packets after these.
pub(super) const DATAGRAMS_IN_QUIC: usize = 4096;

/// The connection of one client.
#[derive(Debug, Clone)]
pub(crate) struct Carrier(Connection);

impl Carrier {
    pub(crate) fn new(connection: Connection) -> Self {
        Self(connection)
    }

    /// Opens a unidirectional stream. `None` where the client grants no further one, or is gone.
    pub(crate) fn open_lane(&self) -> Option<SendStream> {
        self.0.open_uni().now_or_never()?.ok()
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
}
