//! What a client's connection gives beyond the lanes that the client opens: lanes of the server's own, and datagrams.
//! Here alone it shows which carrier that is.

use bytes::Bytes;
use futures_util::FutureExt;
use quinn::{Connection, SendStream};

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

    /// Sends a body as a datagram; where too many wait, the oldest give way. False where it does not fit the path, or the
    /// client takes no datagrams.
    pub(crate) fn send_datagram(&self, body: Bytes) -> bool {
        // Where the connection is gone it is lost, as any datagram may be.
        self.0.max_datagram_size().is_some_and(|most| body.len() <= most) && {
            let _ = self.0.send_datagram(body);
            true
        }
    }
}
