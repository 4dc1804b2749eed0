//! The two halves of what a lane lies on: a QUIC stream, or all of a WebSocket.

use std::pin::pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::future::Either;
use quinn::{RecvStream, SendStream, VarInt, WriteError};

use super::failure::SendFailure;
use super::websocket::{Inlet, Outlet};

/// The half that is written to.
#[derive(Debug)]
pub enum SendHalf {
    /// A QUIC stream.
    Quic(SendStream),
    /// A socket's outgoing messages.
    Socket(Outlet),
}

/// The half that is read from.
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

// Errors mean that the stream has ended already, unless said otherwise.
impl SendHalf {
    /// How urgent it is among the streams of its connection; a socket has but one.
    pub(crate) fn set_priority(&self, priority: i32) {
        if let Self::Quic(stream) = self {
            let _ = stream.set_priority(priority);
        }
    }

    /// Gives the bytes written and the frames written whole; where nothing can be written, `cx` is woken once it can.
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

    /// Nothing more is written. False where that was known.
    pub(crate) fn finish(&mut self) -> bool {
        match self {
            Self::Quic(stream) => stream.finish().is_ok(),
            Self::Socket(outlet) => outlet.finish(),
        }
    }

    /// Gives up what is not with the peer yet, with a closing code as the carrier has it.
    pub(crate) fn reset(&mut self, code: VarInt) {
        match self {
            Self::Quic(stream) => drop(stream.reset(code)),
            Self::Socket(outlet) => outlet.reset(),
        }
    }

    /// Waits for the end: true where we ended it and the peer has it all, false where the peer wants no more of it or is
    /// gone.
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
