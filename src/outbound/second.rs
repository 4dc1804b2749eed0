//! The place of a session for a second WebSocket (docs/PROTOCOL.md, "A second WebSocket"): offered by the task that
//! accepted the socket, taken by the session, which may be on another worker.

use std::sync::Arc;

use quic_websocket_lane::LaneReader;
use quic_websocket_lane::websocket::Socket;
use tokio::sync::oneshot;

use crate::message::{ClosedBy, RequestId};

/// A WebSocket that is to become a lane of the session.
#[derive(Debug)]
pub(crate) struct SecondSocket {
    pub(crate) socket: Arc<Socket>,
    pub(crate) reader: LaneReader,
    /// The id of its handshake, which the session answers.
    pub(crate) re: Option<RequestId>,
    /// Has the task that accepted the socket close it. Dropped, the socket was not taken. `None` once it is taken.
    pub(crate) close: Option<oneshot::Sender<ClosedBy>>,
}

/// The place for a second socket.
#[derive(Debug, Default)]
pub(super) enum Place {
    /// None is there, and none is accepted.
    #[default]
    Closed,
    Free,
    Offered(Box<SecondSocket>),
    /// One is a lane of the session.
    Taken(Option<oneshot::Sender<ClosedBy>>),
}

impl Place {
    /// Offers a socket. False if there is one already, or the session takes none.
    pub(super) fn offer(&mut self, socket: SecondSocket) -> bool {
        let is_free = matches!(self, Self::Free);
        if is_free {
            *self = Self::Offered(Box::new(socket));
        }
        is_free
    }

    /// Takes an offered socket, without the part that closes it.
    pub(super) fn take(&mut self) -> Option<Box<SecondSocket>> {
        match std::mem::take(self) {
            Self::Offered(mut offered) => {
                *self = Self::Taken(offered.close.take());
                Some(offered)
            }
            other => {
                *self = other;
                None
            }
        }
    }

    /// Closes the socket, and makes place for another one.
    pub(super) fn end(&mut self, closed: ClosedBy) {
        if let Self::Taken(Some(close)) = std::mem::replace(self, Self::Free) {
            // Its task has ended if the socket has.
            let _ = close.send(closed);
        }
    }

    pub(super) fn is_taken(&self) -> bool {
        matches!(self, Self::Taken(_))
    }
}
