//! The two halves of a lane's stream: of a QUIC stream, or of a whole WebSocket.

use std::pin::pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::future::Either;
use quinn::{RecvStream, SendStream, VarInt, WriteError};

use super::failure::SendFailure;
use super::websocket::{Inlet, Outlet};

/// The sending half.
#[derive(Debug)]
pub enum SendHalf {
    /// A QUIC stream.
    Quic(SendStream),
    /// A socket's outgoing messages.
    Socket(Outlet),
}

/// The receiving half.
#[derive(Debug)]
pub enum ReceiveHalf {
    /// A QUIC stream.
    Quic(RecvStream),
    /// A socket's incoming messages.
    Socket(Inlet),
}

impl From<SendStream> for SendHalf {
    fn from(stream: SendStream) -> Self {
        Self::Quic(stream)
    }
}

impl From<Outlet> for SendHalf {
    fn from(outlet: Outlet) -> Self {
        Self::Socket(outlet)
    }
}

impl From<Inlet> for ReceiveHalf {
    fn from(inlet: Inlet) -> Self {
        Self::Socket(inlet)
    }
}

impl From<RecvStream> for ReceiveHalf {
    fn from(stream: RecvStream) -> Self {
        Self::Quic(stream)
    }
}

// Unless noted otherwise, an error means that the stream has already ended.
impl SendHalf {
    /// Sets the priority among the connection's streams; a socket has only one.
    pub(crate) fn set_priority(&self, priority: i32) {
        if let Self::Quic(stream) = self {
            let _ = stream.set_priority(priority);
        }
    }

    /// Returns the bytes written and the number of frames written in full. If nothing can be written, `cx` is woken
    /// once it can.
    #[inline]
    pub fn poll_write(
        &mut self,
        frames: &mut [Bytes],
        cx: &mut Context<'_>,
    ) -> Poll<Result<(usize, usize), SendFailure>> {
        match self {
            Self::Quic(stream) => pin!(stream.write_chunks(frames))
                .poll(cx)
                .map_ok(|written| (written.bytes, written.chunks))
                .map_err(|e| match e {
                    WriteError::Stopped(_) => SendFailure::Stopped,
                    _ => SendFailure::Closed,
                }),
            Self::Socket(outlet) => outlet.poll_write(frames, cx),
        }
    }

    /// Ends the stream after what was written. False if it had already ended.
    pub(crate) fn finish(&mut self) -> bool {
        match self {
            Self::Quic(stream) => stream.finish().is_ok(),
            Self::Socket(outlet) => outlet.finish(),
        }
    }

    /// Discards what has not reached the peer, with a closing code as mapped for the carrier.
    pub(crate) fn reset(&mut self, code: VarInt) {
        match self {
            Self::Quic(stream) => drop(stream.reset(code)),
            Self::Socket(outlet) => outlet.reset(),
        }
    }

    /// Waits for the end: true if we finished the stream and the peer has received it all, false if the peer stopped it
    /// or the connection has ended.
    pub(crate) fn ended(&self) -> impl Future<Output = bool> + 'static {
        match self {
            Self::Quic(stream) => {
                let stopped = stream.stopped();
                Either::Left(async { matches!(stopped.await, Ok(None)) })
            }
            Self::Socket(outlet) => Either::Right(outlet.ended()),
        }
    }
}
