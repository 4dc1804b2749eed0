//! The stream below the WebSocket framing: reports moving bytes to the socket, checks the frames' lengths, and yields
//! regularly, so that a peer that sends very many small frames gets no more of the worker than others.
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::Socket;
use super::lengths::{Lengths, WrongLength};

/// Bytes read before other tasks have a turn: about 2,700 frames of six bytes.
const TURN_BYTES: usize = 16 * 1024;

/// A connection below a WebSocket, metered.
pub(super) struct Metered<S> {
    stream: S,
    /// `None` if the connection is not a client's (an echo).
    socket: Option<Arc<Socket>>,
    /// `None` once lengths are no longer checked.
    lengths: Option<Lengths>,
    /// Set after a wrong length; nothing more is read.
    wrong: Option<WrongLength>,
    /// Bytes read since the last yield.
    turn: usize,
    /// Whether the last write had to wait for the peer.
    is_blocked: bool,
}

impl<S> Metered<S> {
    pub(super) fn new(stream: S, socket: Option<Arc<Socket>>) -> Self {
        Self { stream, socket, lengths: Some(Lengths::new()), wrong: None, turn: 0, is_blocked: false }
    }

    /// Stops checking lengths.
    pub(super) fn stop_checking(&mut self) {
        (self.lengths, self.wrong) = (None, None);
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Metered<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if let Some(wrong) = self.wrong {
            return Poll::Ready(Err(io::Error::other(wrong)));
        }
        if self.turn >= TURN_BYTES {
            self.turn = 0;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        let bytes = buf.filled().len() - before;
        // A pending read has already let other tasks run.
        self.turn = if read.is_pending() { 0 } else { self.turn + bytes };
        if let Some(socket) = self.socket.as_ref().filter(|_| bytes > 0) {
            socket.moved_in(bytes);
        }
        let followed = self.lengths.as_mut().map_or(Ok(()), |lengths| lengths.follow(&buf.filled()[before..]));
        if let Err((good, wrong)) = followed {
            // The frames before it are still delivered.
            self.wrong = Some(wrong);
            buf.set_filled(before + good);
            if good == 0 {
                return Poll::Ready(Err(io::Error::other(wrong)));
            }
        }
        read
    }
}

/// Whether reading failed because of a wrong length.
pub(super) fn is_wrong_length(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|cause| cause.is::<WrongLength>())
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Metered<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        let was_blocked = std::mem::replace(&mut self.is_blocked, written.is_pending());
        let written = ready!(written);
        // A write that the system accepts at once is no evidence of the peer; one that had to wait is.
        if let Some(socket) = self.socket.as_ref().filter(|_| was_blocked && written.is_ok()) {
            socket.moved_out();
        }
        Poll::Ready(written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
