//! The stream below the WebSocket framing: reports moving bytes to the socket, checks the frames' lengths, collects
//! small writes, and yields regularly, so that a peer that sends very many small frames gets no more of the worker than
//! others.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::Socket;
use super::lengths::{Lengths, WrongLength};
use super::pump::BUFFER_BYTES;

/// Bytes read before other tasks have a turn: about 2,700 frames of six bytes.
const TURN_BYTES: usize = 16 * 1024;

/// Written bytes that are collected before the stream gets them: those of the largest TLS record (RFC 8446 section
/// 5.1). Each write is a system call, which takes longer than sending a few more bytes in it.
const RECORD_BYTES: usize = 16 * 1024;

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
    /// Written bytes that the stream does not have yet.
    unsent: Vec<u8>,
    /// Whether the last write had to wait for the peer.
    is_blocked: bool,
}

impl<S> Metered<S> {
    pub(super) fn new(stream: S, socket: Option<Arc<Socket>>) -> Self {
        Self {
            stream,
            socket,
            lengths: Some(Lengths::new()),
            wrong: None,
            turn: 0,
            unsent: Vec::new(),
            is_blocked: false,
        }
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

impl<S: AsyncWrite + Unpin> Metered<S> {
    fn poll_write_through(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        let was_blocked = std::mem::replace(&mut self.is_blocked, written.is_pending());
        let written = ready!(written);
        // A write that the system accepts at once is no evidence of the peer; one that had to wait is.
        if let Some(socket) = self.socket.as_ref().filter(|_| was_blocked && written.is_ok()) {
            socket.moved_out();
        }
        Poll::Ready(written)
    }

    /// Writes what is unsent, and releases its memory.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut unsent = std::mem::take(&mut self.unsent);
        let mut sent = 0;
        while sent < unsent.len() {
            match self.poll_write_through(cx, &unsent[sent..]) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(written)) => sent += written,
                Poll::Ready(Err(e)) => return Poll::Ready(Err(e)),
                Poll::Pending => {
                    unsent.drain(..sent);
                    self.unsent = unsent;
                    return Poll::Pending;
                }
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Metered<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        // The layer above fills its buffer before it writes, unless it flushes.
        if self.unsent.is_empty() && bytes.len() < BUFFER_BYTES {
            return self.poll_write_through(cx, bytes);
        }
        if self.unsent.len() == RECORD_BYTES {
            ready!(self.poll_send(cx))?;
        }
        let accepted = bytes.len().min(RECORD_BYTES - self.unsent.len());
        self.unsent.extend_from_slice(&bytes[..accepted]);
        Poll::Ready(Ok(accepted))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_send(cx))?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_send(cx))?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    /// A stream that accepts a number of bytes in each write, and blocks every other time if told so.
    struct Recorder {
        writes: Vec<Vec<u8>>,
        at_once: usize,
        blocks: bool,
        is_blocked: bool,
    }

    impl Recorder {
        fn new(at_once: usize, blocks: bool) -> Self {
            Self { writes: Vec::new(), at_once, blocks, is_blocked: false }
        }
    }

    impl AsyncWrite for Recorder {
        fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            self.is_blocked = self.blocks && !self.is_blocked;
            if self.is_blocked {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            let accepted = bytes.len().min(self.at_once);
            self.writes.push(bytes[..accepted].to_vec());
            Poll::Ready(Ok(accepted))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn small_writes_are_collected_into_records_until_a_flush() {
        let mut metered = Metered::new(Recorder::new(usize::MAX, false), None);
        for _ in 0..5 {
            metered.write_all(&[7; BUFFER_BYTES + 1]).await.expect("a write");
        }
        metered.flush().await.expect("a flush");
        metered.write_all(b"alone").await.expect("a write");
        let lengths: Vec<usize> = metered.stream.writes.iter().map(Vec::len).collect();
        assert_eq!(lengths, [RECORD_BYTES, 5 * (BUFFER_BYTES + 1) - RECORD_BYTES, 5]);
        assert_eq!(metered.unsent.capacity(), 0, "an idle socket keeps no memory");
    }

    #[tokio::test]
    async fn bytes_keep_their_order_however_the_stream_accepts_them() {
        for (at_once, blocks) in [(1000, false), (1000, true), (RECORD_BYTES, true)] {
            let mut metered = Metered::new(Recorder::new(at_once, blocks), None);
            let mut expected = Vec::new();
            for (number, length) in [5, 10_000, 3, 40_000, 1, 4097].into_iter().enumerate() {
                let bytes = vec![u8::try_from(number).expect("a small number"); length];
                metered.write_all(&bytes).await.expect("a write");
                expected.extend(bytes);
            }
            metered.shutdown().await.expect("an end");
            assert_eq!(metered.stream.writes.concat(), expected, "{at_once} at once, blocked: {blocks}");
        }
    }
}
