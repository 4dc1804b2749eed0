//! The outbound side of a lane. A frame is written straight into the QUIC stream by whoever has it; only what the
//! stream does not take at once waits in a bounded backlog, which the lane's owner drains ([`LaneWriter::drain`]).

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use quinn::{SendStream, WriteError};
use thiserror::Error;
use tokio::sync::Notify;

/// Why a frame was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(crate) enum SendFailure {
    /// The backlog is full: the peer does not read fast enough.
    #[error("the backlog is full")]
    Full,
    /// The peer stopped the lane, or the connection is gone.
    #[error("the lane is closed")]
    Closed,
}

/// Most that frames are copied into one piece for.
const MAX_JOINED_BYTES: usize = 64 * 1024;

/// What may wait for one client on all its lanes together, and what does.
#[derive(Debug)]
pub(crate) struct Budget {
    max_messages: usize,
    max_bytes: usize,
    messages: AtomicUsize,
    bytes: AtomicUsize,
    /// How often QUIC has taken something that waited: a peer that lets it go on is alive.
    progress: AtomicUsize,
}

impl Budget {
    pub(crate) fn new(max_messages: usize, max_bytes: usize) -> Arc<Self> {
        let zero = AtomicUsize::default;
        Arc::new(Self { max_messages, max_bytes, messages: zero(), bytes: zero(), progress: zero() })
    }

    fn has_room(&self, bytes: usize) -> bool {
        self.messages.load(Ordering::Relaxed) < self.max_messages
            && self.bytes.load(Ordering::Relaxed) + bytes <= self.max_bytes
    }

    fn add(&self, bytes: usize) {
        self.messages.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    fn remove(&self, messages: usize, bytes: usize) {
        self.messages.fetch_sub(messages, Ordering::Relaxed);
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// Frames for any number of lanes, in order. Small ones are joined once, because a stream takes one piece of memory in a
/// fraction of the time that it takes many.
#[derive(Debug)]
pub(crate) struct Batch {
    frames: Vec<Bytes>,
    joined: Option<Bytes>,
}

impl Batch {
    pub(crate) fn new(frames: Vec<Bytes>) -> Self {
        let bytes = frames.iter().map(Bytes::len).sum::<usize>();
        let joined = (frames.len() > 1 && bytes <= MAX_JOINED_BYTES).then(|| frames.concat().into());
        Self { frames, joined }
    }

    pub(crate) fn len(&self) -> usize {
        self.frames.len()
    }

    fn pieces(&self) -> &[Bytes] {
        self.joined.as_ref().map_or(&self.frames, std::slice::from_ref)
    }
}

impl From<Bytes> for Batch {
    fn from(frame: Bytes) -> Self {
        Self::new(vec![frame])
    }
}

/// Writes frames to one QUIC stream, for any number of senders.
#[derive(Debug)]
pub(crate) struct LaneWriter {
    state: Mutex<State>,
    /// Wakes the drain: the backlog is no longer empty.
    blocked: Notify,
    /// Wakes those who wait for their frames to leave the backlog.
    moved: Notify,
    max_messages: usize,
    max_bytes: usize,
    budget: Arc<Budget>,
}

#[derive(Debug)]
struct State {
    stream: SendStream,
    /// What the stream did not take, oldest first; the first frame may have been written in part.
    backlog: VecDeque<Bytes>,
    bytes: usize,
    /// Frames that have left the backlog since the lane began.
    left: u64,
    closed: bool,
}

impl LaneWriter {
    /// A lane of which at most `max_messages` and `max_bytes` wait, within what `budget` leaves.
    pub(crate) fn new(stream: SendStream, max_messages: usize, max_bytes: usize, budget: Arc<Budget>) -> Self {
        let state = State { stream, backlog: VecDeque::new(), bytes: 0, left: 0, closed: false };
        Self { state: Mutex::new(state), blocked: Notify::new(), moved: Notify::new(), max_messages, max_bytes, budget }
    }

    /// Another lane of the same client: the same bounds, and the same budget.
    pub(crate) fn sibling(&self, stream: SendStream) -> Self {
        Self::new(stream, self.max_messages, self.max_bytes, Arc::clone(&self.budget))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets the priority of the QUIC stream among its connection's.
    pub(crate) fn set_priority(&self, priority: i32) {
        // An error means that the stream has ended already.
        let _ = self.state().stream.set_priority(priority);
    }

    /// Writes frames now, or has them wait. Never waits itself.
    ///
    /// # Errors
    /// How many frames were taken, and why not the rest.
    pub(crate) fn try_send(&self, batch: &Batch) -> Result<(), (usize, SendFailure)> {
        let mut state = self.state();
        let mut written = state.write_batch(batch).map_err(|failure| {
            self.blocked.notify_one();
            (0, failure)
        })?;
        for (taken, frame) in batch.frames.iter().enumerate() {
            if written >= frame.len() {
                written -= frame.len();
                continue;
            }
            // What the stream took in part has to be finished, whatever the bounds say.
            let begun = state.backlog.is_empty();
            let full = state.backlog.len() >= self.max_messages
                || state.bytes + frame.len() > self.max_bytes
                || !self.budget.has_room(frame.len());
            if full && !begun {
                return Err((taken, SendFailure::Full));
            }
            self.wait_in_line(&mut state, frame.slice(written..));
            written = 0;
        }
        Ok(())
    }

    /// Writes frames and waits until the stream has taken them, and what waited before them. Unbounded by the backlog,
    /// because the caller brings nothing more until then. Needs [`drain`](Self::drain) running.
    ///
    /// Not cancel safe: a dropped call may leave frames in the backlog; they are sent all the same.
    pub(crate) async fn send(&self, frames: &mut [Bytes]) -> Result<(), SendFailure> {
        let until = {
            let mut state = self.state();
            let rest = state.write_now(frames).inspect_err(|_| self.blocked.notify_one())?;
            for frame in &mut frames[rest..] {
                self.wait_in_line(&mut state, std::mem::take(frame));
            }
            if state.backlog.is_empty() {
                return Ok(());
            }
            state.left + state.backlog.len() as u64
        };
        loop {
            let moved = self.moved.notified();
            {
                let state = self.state();
                if state.closed {
                    return Err(SendFailure::Closed);
                }
                if state.left >= until {
                    return Ok(());
                }
            }
            moved.await;
        }
    }

    fn wait_in_line(&self, state: &mut State, frame: Bytes) {
        if state.backlog.is_empty() {
            self.blocked.notify_one();
        }
        state.bytes += frame.len();
        self.budget.add(frame.len());
        state.backlog.push_back(frame);
    }

    /// Moves the backlog into the stream whenever that takes more. Runs until the lane is closed; one caller at a time,
    /// since a stream wakes only the last who asked.
    pub(crate) async fn drain(&self) -> SendFailure {
        loop {
            self.blocked.notified().await;
            if let Err(failure) = poll_fn(|cx| self.poll_empty(cx)).await {
                return failure;
            }
        }
    }

    fn poll_empty(&self, cx: &mut Context<'_>) -> Poll<Result<(), SendFailure>> {
        let mut state = self.state();
        let before = state.bytes;
        let result = loop {
            if state.closed {
                break Poll::Ready(Err(SendFailure::Closed));
            }
            if state.backlog.is_empty() {
                // Memory of a burst is not kept for the life of the lane.
                state.backlog.shrink_to(16);
                break Poll::Ready(Ok(()));
            }
            let State { stream, backlog, .. } = &mut *state;
            match poll_write(stream, backlog.make_contiguous(), cx) {
                Poll::Pending => break Poll::Pending,
                Poll::Ready(Ok((bytes, frames))) => {
                    state.backlog.drain(..frames);
                    state.bytes -= bytes;
                    state.left += frames as u64;
                    self.budget.remove(frames, bytes);
                }
                Poll::Ready(Err(_)) => self.close(&mut state),
            }
        };
        if state.bytes < before {
            self.budget.progress.fetch_add(1, Ordering::Relaxed);
            self.moved.notify_waiters();
        }
        result
    }

    fn close(&self, state: &mut State) {
        state.closed = true;
        self.budget.remove(state.backlog.len(), state.bytes);
        state.backlog.clear();
        state.bytes = 0;
        self.moved.notify_waiters();
        self.blocked.notify_one();
    }

    /// How often QUIC has taken something that waited, on any lane of this client.
    pub(crate) fn progress(&self) -> usize {
        self.budget.progress.load(Ordering::Relaxed)
    }

    /// Waits until the peer wants no more of this lane, or the connection is gone.
    pub(crate) async fn stopped(&self) {
        let stopped = self.state().stream.stopped();
        // Ended by us and read to the end is none of these, and the last that happens to a lane.
        if matches!(stopped.await, Ok(None)) {
            std::future::pending().await
        }
    }

    /// Gives up what waits here; nothing more is taken, and whoever waits is told.
    pub(crate) fn give_up(&self) {
        self.close(&mut self.state());
    }

    /// Gives up what waits here and in QUIC: the peer is told with a closing code that no more comes (RESET_STREAM).
    pub(crate) fn abandon(&self, code: u16) {
        let mut state = self.state();
        self.close(&mut state);
        // An error means that the stream has ended already.
        let _ = state.stream.reset(code.into());
    }

    /// Writes what is left, `last` behind it, ends the stream, and waits until the peer has it all (or has gone). Only
    /// when [`drain`](Self::drain) runs no more. Bound it by a timeout: the peer need not read.
    pub(crate) async fn finish(&self, last: Option<Bytes>) {
        if let Some(last) = last {
            let mut state = self.state();
            if !state.closed {
                self.wait_in_line(&mut state, last);
            }
        }
        if poll_fn(|cx| self.poll_empty(cx)).await.is_err() {
            return;
        }
        let stopped = {
            let mut state = self.state();
            if state.stream.finish().is_err() {
                return;
            }
            state.stream.stopped()
        };
        // Either way there is nobody left to wait for.
        let _ = stopped.await;
    }
}

impl Drop for LaneWriter {
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        self.budget.remove(state.backlog.len(), state.bytes);
    }
}

impl State {
    /// Writes what the stream takes at once and gives how many bytes that was.
    fn write_batch(&mut self, batch: &Batch) -> Result<usize, SendFailure> {
        let mut written = 0;
        for piece in batch.pieces() {
            let mut rest = [piece.clone()];
            if self.write_now(&mut rest)? == 0 {
                return Ok(written + piece.len() - rest[0].len());
            }
            written += piece.len();
        }
        Ok(written)
    }

    /// Writes what the stream takes at once. Gives how many frames are done; the next may be in part.
    fn write_now(&mut self, frames: &mut [Bytes]) -> Result<usize, SendFailure> {
        if self.closed {
            return Err(SendFailure::Closed);
        }
        let mut done = 0;
        // Behind a backlog everything waits its turn. Its drain holds the stream's only waker.
        while done < frames.len() && self.backlog.is_empty() {
            match poll_write(&mut self.stream, &mut frames[done..], &mut Context::from_waker(Waker::noop())) {
                Poll::Pending => break,
                Poll::Ready(Ok((_, written))) => done += written,
                Poll::Ready(Err(_)) => {
                    self.closed = true;
                    return Err(SendFailure::Closed);
                }
            }
        }
        Ok(done)
    }
}

/// Gives the bytes written and the frames written whole.
fn poll_write(
    stream: &mut SendStream,
    frames: &mut [Bytes],
    cx: &mut Context<'_>,
) -> Poll<Result<(usize, usize), WriteError>> {
    pin!(stream.write_chunks(frames)).poll(cx).map_ok(|written| (written.bytes, written.chunks))
}
