//! The outbound side of a lane. A sender writes its frame straight into the stream; only what the stream does not
//! accept at once waits in a bounded backlog, which [`SendScheduler::drain`] empties in turn with those of the client's
//! other lanes.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::backlog::{Backlog, DropNotice, Gap, Mark, Overflow};
use super::counters::Sent;
use super::failure::SendFailure;
use super::layer::Layer;
use super::send_scheduler::SendScheduler;
use super::stream::SendHalf;
use quic_websocket_protocol::frame::{PREFIX_BYTES, split};

/// Largest total of frames that are copied into one buffer, in bytes.
const MAX_JOINED_BYTES: usize = 64 * 1024;

/// Bytes of a lane's backlog offered to QUIC before the next lane of the same priority has its turn.
const TURN_BYTES: usize = 64 * 1024;

/// Frames to be written to any number of lanes, in order. Small frames are joined into one buffer once, because a
/// stream accepts one buffer in a fraction of the time that it needs for many.
#[derive(Debug)]
pub struct FrameBatch {
    frames: Vec<Bytes>,
    /// Total length of the frames.
    bytes: usize,
    joined: Option<Bytes>,
    /// Source and offsets, if the frames are messages of one topic.
    topic: Option<(Arc<dyn DropNotice>, Vec<u64>)>,
}

impl FrameBatch {
    /// Creates a batch of frames that belong to no topic.
    pub fn new(frames: Vec<Bytes>) -> Self {
        let bytes = total(&frames);
        let joined = (frames.len() > 1 && bytes <= MAX_JOINED_BYTES).then(|| frames.concat().into());
        Self { frames, bytes, joined, topic: None }
    }

    /// Creates a batch of messages of one topic, with one offset for each.
    pub fn of_topic(frames: Vec<Bytes>, source: Arc<dyn DropNotice>, offsets: Vec<u64>) -> Self {
        Self { topic: Some((source, offsets)), ..Self::new(frames) }
    }

    /// Count and size of the first `messages` frames.
    #[inline]
    pub fn sent(&self, messages: usize) -> Sent {
        let whole = if messages == self.frames.len() { self.bytes } else { total(&self.frames[..messages]) };
        Sent { messages, bytes: whole - messages * PREFIX_BYTES }
    }

    /// Count and size of all frames.
    #[inline]
    pub fn all(&self) -> Sent {
        self.sent(self.frames.len())
    }

    /// The frames, each by itself.
    pub fn frames(&self) -> &[Bytes] {
        &self.frames
    }

    fn pieces(&self) -> &[Bytes] {
        self.joined.as_ref().map_or(&self.frames, std::slice::from_ref)
    }

    fn mark(&self, at: usize, options: SendOptions<'_>) -> Mark {
        match &self.topic {
            Some((source, offsets)) => Mark::Topic {
                source: Arc::clone(source),
                offset: offsets[at],
                may_drop: matches!(options.overflow, Overflow::DropOldest | Overflow::Latest),
                group: options.group.cloned(),
            },
            None => Mark::Plain,
        }
    }
}

/// How messages are delivered to one receiver.
#[derive(Debug, Clone, Copy)]
pub struct SendOptions<'a> {
    /// What happens if there is no room.
    pub overflow: Overflow,
    /// Source that reports the lost messages of many topics at once, if the subscription is a pattern.
    pub group: Option<&'a Arc<dyn DropNotice>>,
}

impl From<Overflow> for SendOptions<'_> {
    fn from(overflow: Overflow) -> Self {
        Self { overflow, group: None }
    }
}

impl From<Bytes> for FrameBatch {
    fn from(frame: Bytes) -> Self {
        Self::new(vec![frame])
    }
}

/// Writes frames to one stream for any number of senders.
#[derive(Debug)]
pub struct LaneWriter {
    state: Mutex<State>,
    layer: Layer,
    priority: i32,
    scheduler: Arc<SendScheduler>,
    /// Each admits one waiting replay, or publisher, at a time. All waiting tasks wake whenever anything leaves one of
    /// the client's backlogs, which the client can cause as often as it likes.
    replays: Semaphore,
    publishers: Semaphore,
}

#[derive(Debug)]
struct State {
    stream: SendHalf,
    backlog: Backlog,
    /// Reason why nothing more is accepted.
    closed: Option<SendFailure>,
}

/// Result of a lane's turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Progress {
    /// Nothing is waiting, or nothing can be written.
    Done,
    /// More can be written.
    Again,
}

impl LaneWriter {
    /// Creates a lane of a client. Lanes of higher priority are sent first, as QUIC does with the streams themselves.
    pub fn new(half: impl Into<SendHalf>, layer: Layer, priority: i32, scheduler: &Arc<SendScheduler>) -> Arc<Self> {
        let stream = half.into();
        stream.set_priority(priority);
        let state = State { stream, backlog: Backlog::new(scheduler.lane_bounds), closed: None };
        let scheduler = Arc::clone(scheduler);
        let (replays, publishers) = (Semaphore::new(1), Semaphore::new(1));
        let lane = Arc::new(Self { state: Mutex::new(state), layer, priority, scheduler, replays, publishers });
        lane.scheduler.add(&lane);
        lane
    }

    pub(crate) fn priority(&self) -> i32 {
        self.priority
    }

    /// The scheduler shared with the client's other lanes.
    #[inline]
    pub fn scheduler(&self) -> &Arc<SendScheduler> {
        &self.scheduler
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes frames now, or puts them in the backlog. Never blocks.
    ///
    /// # Errors
    /// Number of frames that were accepted, and why the rest were not.
    pub fn try_send<'a>(
        &self,
        batch: &FrameBatch,
        options: impl Into<SendOptions<'a>>,
    ) -> Result<(), (usize, SendFailure)> {
        let options = options.into();
        let mut state = self.state();
        let written = state.write_batch(batch).map_err(|failure| (0, failure))?;
        if written == batch.bytes {
            return Ok(());
        }
        let marked = batch.frames.iter().enumerate().map(|(at, frame)| (frame.clone(), batch.mark(at, options)));
        self.put_rest(&mut state, written, marked, options.overflow)
    }

    /// Writes frames that belong to no topic and are joined in one buffer, as [`try_send`](Self::try_send) does.
    ///
    /// # Errors
    /// Number of frames that were accepted, and why the rest were not.
    pub fn try_send_joined(&self, joined: &Bytes, overflow: Overflow) -> Result<(), (usize, SendFailure)> {
        let mut state = self.state();
        let mut rest = [joined.clone()];
        if state.write_now(&mut rest).map_err(|failure| (0, failure))? == 1 {
            return Ok(());
        }
        let written = joined.len() - rest[0].len();
        // Frames that wait are counted by their length, so one of several may not keep the whole buffer.
        let own =
            |frame: &[u8]| if frame.len() == joined.len() { joined.clone() } else { Bytes::copy_from_slice(frame) };
        let marked = split(joined).map(|frame| (own(frame), Mark::Plain));
        self.put_rest(&mut state, written, marked, overflow)
    }

    /// Puts into the backlog what is left of frames of which `written` bytes are written.
    fn put_rest(
        &self,
        state: &mut State,
        mut written: usize,
        marked: impl Iterator<Item = (Bytes, Mark)>,
        overflow: Overflow,
    ) -> Result<(), (usize, SendFailure)> {
        let was_empty = state.backlog.is_empty();
        let budget = &self.scheduler.budget;
        for (taken, (frame, mark)) in marked.enumerate() {
            if written >= frame.len() {
                written -= frame.len();
                continue;
            }
            if written > 0 {
                // A frame that is partly written has to be finished, even beyond the bounds.
                state.backlog.put(frame.slice(written..), frame.len(), mark, budget);
                written = 0;
            } else if !state.backlog.offer(frame, mark, overflow, budget) {
                return Err((taken, SendFailure::Full));
            }
            if was_empty {
                self.scheduler.blocked();
            }
        }
        Ok(())
    }

    /// Sends a gap for messages that will not be sent: now, or after the backlog. Returns what was written at once; a
    /// waiting gap is not counted.
    ///
    /// # Errors
    /// Reason why the gap cannot be sent.
    pub fn send_gap(&self, gap: Gap) -> Result<Sent, SendFailure> {
        let mut state = self.state();
        if !state.backlog.is_empty() {
            let accepted = state.backlog.add_gap(gap, &self.scheduler.budget);
            return accepted.then(Sent::default).ok_or(SendFailure::Full);
        }
        let frame = gap.source.gap(gap.first, gap.last);
        let (length, mut rest) = (frame.len(), [frame]);
        if state.write_now(&mut rest)? == 0 {
            let [rest] = rest;
            state.backlog.put(rest, length, Mark::Gap(gap), &self.scheduler.budget);
            self.scheduler.blocked();
        }
        Ok(Sent { messages: 1, bytes: length - PREFIX_BYTES })
    }

    /// Writes frames and waits until the stream has accepted them and everything before them. The backlog's bounds do
    /// not apply, because the caller adds nothing more until then: check [`SendScheduler::takes_replies`] first.
    /// Requires that [`SendScheduler::drain`] is running.
    ///
    /// Not cancel safe: a dropped call may leave frames in the backlog; they are still sent.
    pub async fn send(&self, frames: &mut [Bytes]) -> Result<(), SendFailure> {
        let mut rest_bytes = 0;
        let until = {
            let mut state = self.state();
            let lengths: Vec<usize> = frames.iter().map(Bytes::len).collect();
            let rest = state.write_now(frames)?;
            for (frame, length) in frames.iter_mut().zip(lengths).skip(rest) {
                rest_bytes += frame.len();
                state.backlog.put(std::mem::take(frame), length, Mark::Plain, &self.scheduler.budget);
            }
            if state.backlog.is_empty() {
                return Ok(());
            }
            self.scheduler.blocked();
            state.backlog.last()
        };
        let _waiting = self.scheduler.replies(rest_bytes);
        self.until(|state| state.backlog.has_passed(until)).await
    }

    /// Waits until there is room for more replies to the client, or the lane has ended.
    pub async fn room_for_replies(&self) -> Result<(), SendFailure> {
        self.until(|_| self.scheduler.takes_replies()).await
    }

    /// Waits until the present backlog is sent and there is room for another message.
    pub async fn passed(&self) -> Result<(), SendFailure> {
        let until = self.state().backlog.last();
        self.until(|state| state.backlog.has_passed(until) && state.backlog.has_room(&self.scheduler.budget)).await
    }

    /// Waits for the turn to replay on this lane, which ends when the result is dropped.
    pub async fn replay_turn(&self) -> Option<SemaphorePermit<'_>> {
        // The semaphore is never closed.
        self.replays.acquire().await.ok()
    }

    /// Waits until the backlog has room for another message.
    pub async fn room(&self) -> Result<(), SendFailure> {
        let _turn = self.publishers.acquire().await;
        self.until(|state| state.backlog.has_room(&self.scheduler.budget)).await
    }

    /// The topics with messages in the backlog that may still be forgotten, each once.
    pub fn waiting_sources(&self) -> Vec<Arc<dyn DropNotice>> {
        self.state().backlog.sources()
    }

    /// Removes the messages of unwanted topics from the backlog. Topics are identified by the addresses of their
    /// sources.
    pub fn forget(&self, unwanted: &HashSet<usize>) {
        if !unwanted.is_empty() {
            self.state().backlog.forget(unwanted, &self.scheduler.budget);
            self.scheduler.made_room();
        }
    }

    /// Waits until the backlog is empty.
    pub async fn idle(&self) -> Result<(), SendFailure> {
        self.until(|state| state.backlog.is_empty()).await
    }

    /// Whether the backlog has room for another message; true for a closed lane, where none ever waits.
    pub fn has_room(&self) -> bool {
        let state = self.state();
        state.closed.is_some() || state.backlog.has_room(&self.scheduler.budget)
    }

    /// Waits for a condition that becomes true when frames leave the backlog. Cancel safe.
    async fn until(&self, holds: impl Fn(&State) -> bool) -> Result<(), SendFailure> {
        loop {
            let freed = self.scheduler.freed();
            {
                let state = self.state();
                if let Some(failure) = state.closed {
                    return Err(failure);
                }
                if holds(&state) {
                    return Ok(());
                }
            }
            freed.await;
        }
    }

    /// Moves what the stream accepts from the backlog. If it accepts no more, `cx` is woken once it does.
    pub(crate) fn take_turn(&self, cx: &mut Context<'_>) -> Progress {
        let mut state = self.state();
        if state.closed.is_some() || state.backlog.is_empty() {
            return Progress::Done;
        }
        let State { stream, backlog, .. } = &mut *state;
        match stream.poll_write(backlog.turn(TURN_BYTES), cx) {
            Poll::Pending => Progress::Done,
            Poll::Ready(Ok((bytes, frames))) => {
                backlog.written(frames, bytes, &self.scheduler.budget);
                if backlog.is_empty() {
                    backlog.shrink();
                }
                self.scheduler.made_progress();
                Progress::Again
            }
            Poll::Ready(Err(failure)) => {
                self.close(&mut state, failure);
                Progress::Done
            }
        }
    }

    fn close(&self, state: &mut State, failure: SendFailure) {
        state.closed = Some(failure);
        state.backlog.clear(&self.scheduler.budget);
        self.scheduler.made_room();
    }

    /// Waits until the peer stops this lane, or the connection ends.
    pub async fn stopped(&self) {
        let ended = self.state().stream.ended();
        // A lane that we finished and the peer read to the end is neither, and nothing happens to it later.
        if ended.await {
            std::future::pending().await
        }
    }

    /// Whether the backlog is empty.
    pub fn is_idle(&self) -> bool {
        self.state().backlog.is_empty()
    }

    /// Ends a lane whose backlog is empty. What QUIC has accepted still arrives.
    pub fn end(&self) {
        let mut state = self.state();
        self.close(&mut state, SendFailure::Closed);
        state.stream.finish();
    }

    /// Discards the backlog and accepts nothing more; waiting tasks get [`SendFailure::Closed`].
    pub fn give_up(&self) {
        self.close(&mut self.state(), SendFailure::Closed);
    }

    /// Discards the backlog and what is still in QUIC, and resets the stream with a closing code (RESET_STREAM).
    pub fn abandon(&self, code: u16) {
        let mut state = self.state();
        self.close(&mut state, SendFailure::Closed);
        state.stream.reset(self.layer.code(code));
    }

    /// Writes the backlog and then `last`, ends the stream, and waits until the peer has received it all or has
    /// disconnected. Requires that [`SendScheduler::drain`] is running. Apply a timeout: the peer may not read.
    pub async fn finish(&self, last: Option<Bytes>) {
        if let Some(last) = last {
            let mut state = self.state();
            if state.closed.is_none() {
                let length = last.len();
                state.backlog.put(last, length, Mark::Plain, &self.scheduler.budget);
                self.scheduler.blocked();
            }
        }
        if self.idle().await.is_err() {
            return;
        }
        let ended = {
            let mut state = self.state();
            if !state.stream.finish() {
                return;
            }
            state.stream.ended()
        };
        // Either way there is nothing left to wait for.
        let _ = ended.await;
    }
}

impl Drop for LaneWriter {
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        state.backlog.clear(&self.scheduler.budget);
        self.scheduler.made_room();
    }
}

impl State {
    /// Writes what the stream accepts at once; returns the number of bytes.
    fn write_batch(&mut self, batch: &FrameBatch) -> Result<usize, SendFailure> {
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

    /// Writes what the stream accepts at once. Returns how many frames are done; the next may be partly written.
    fn write_now(&mut self, frames: &mut [Bytes]) -> Result<usize, SendFailure> {
        if let Some(failure) = self.closed {
            return Err(failure);
        }
        let mut done = 0;
        // Frames never overtake the backlog, whose drain holds the stream's only waker.
        while done < frames.len() && self.backlog.is_empty() {
            match self.stream.poll_write(&mut frames[done..], &mut Context::from_waker(Waker::noop())) {
                Poll::Pending => break,
                Poll::Ready(Ok((_, written))) => done += written,
                Poll::Ready(Err(failure)) => {
                    // The backlog is empty, so there is nothing to discard.
                    self.closed = Some(failure);
                    return Err(failure);
                }
            }
        }
        Ok(done)
    }
}

fn total(frames: &[Bytes]) -> usize {
    frames.iter().map(Bytes::len).sum()
}
