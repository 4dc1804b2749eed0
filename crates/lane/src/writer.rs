//! The outbound side of a lane. A frame is written straight into the QUIC stream by whoever has it; only what the
//! stream does not take at once waits in a bounded backlog, which is drained in turn with those of the client's other
//! lanes ([`SendScheduler::drain`]).

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
use quic_websocket_protocol::frame::PREFIX_BYTES;

/// Most that frames are copied into one piece for.
const MAX_JOINED_BYTES: usize = 64 * 1024;

/// Most of a lane's backlog that is offered to QUIC before another lane of the same priority has its turn.
const TURN_BYTES: usize = 64 * 1024;

/// Frames for any number of lanes, in order. Small ones are joined once, because a stream takes one piece of memory in a
/// fraction of the time that it takes many.
#[derive(Debug)]
pub struct FrameBatch {
    frames: Vec<Bytes>,
    /// Of the frames, altogether.
    bytes: usize,
    joined: Option<Bytes>,
    /// Where they are messages of one topic: which, and their offsets.
    topic: Option<(Arc<dyn DropNotice>, Vec<u64>)>,
}

impl FrameBatch {
    /// Frames that belong to no topic.
    pub fn new(frames: Vec<Bytes>) -> Self {
        let bytes = total(&frames);
        let joined = (frames.len() > 1 && bytes <= MAX_JOINED_BYTES).then(|| frames.concat().into());
        Self { frames, bytes, joined, topic: None }
    }

    /// Messages of a topic with as many offsets.
    pub fn of_topic(frames: Vec<Bytes>, source: Arc<dyn DropNotice>, offsets: Vec<u64>) -> Self {
        Self { topic: Some((source, offsets)), ..Self::new(frames) }
    }

    /// What the first of the frames are: so many messages.
    #[inline]
    pub fn sent(&self, messages: usize) -> Sent {
        let whole = if messages == self.frames.len() { self.bytes } else { total(&self.frames[..messages]) };
        Sent { messages, bytes: whole - messages * PREFIX_BYTES }
    }

    /// The same for all of them.
    #[inline]
    pub fn all(&self) -> Sent {
        self.sent(self.frames.len())
    }

    fn pieces(&self) -> &[Bytes] {
        self.joined.as_ref().map_or(&self.frames, std::slice::from_ref)
    }

    fn mark(&self, at: usize, way: Way<'_>) -> Mark {
        match &self.topic {
            Some((source, offsets)) => Mark::Of {
                source: Arc::clone(source),
                offset: offsets[at],
                may_drop: matches!(way.overflow, Overflow::DropOldest | Overflow::Latest),
                group: way.group.cloned(),
            },
            None => Mark::Plain,
        }
    }
}

/// How messages come to a receiver.
#[derive(Debug, Clone, Copy)]
pub struct Way<'a> {
    /// What happens where there is no room.
    pub overflow: Overflow,
    /// What tells of lost messages of many topics at once, where that by which they come brings many.
    pub group: Option<&'a Arc<dyn DropNotice>>,
}

impl From<Overflow> for Way<'_> {
    fn from(overflow: Overflow) -> Self {
        Self { overflow, group: None }
    }
}

impl From<Bytes> for FrameBatch {
    fn from(frame: Bytes) -> Self {
        Self::new(vec![frame])
    }
}

/// Writes frames to one stream, for any number of senders.
#[derive(Debug)]
pub struct LaneWriter {
    state: Mutex<State>,
    layer: Layer,
    priority: i32,
    scheduler: Arc<SendScheduler>,
    /// Each lets one at a time wait for this lane, of replays and of publishers. All that wait are woken whenever anything
    /// leaves a backlog of the client's, which it can have happen as often as it likes.
    replays: Semaphore,
    publishers: Semaphore,
}

#[derive(Debug)]
struct State {
    stream: SendHalf,
    backlog: Backlog,
    /// Why nothing more is taken.
    closed: Option<SendFailure>,
}

/// What came of a lane's turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Progress {
    /// Nothing waits any more, or nothing can be written.
    Over,
    /// More can be written.
    Again,
}

impl LaneWriter {
    /// A lane among those of a client; the higher its priority, the earlier its turn. As in QUIC: what is written goes out
    /// in that order.
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

    /// What this lane shares with the client's others.
    #[inline]
    pub fn scheduler(&self) -> &Arc<SendScheduler> {
        &self.scheduler
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes frames now, or has them wait. Never waits itself.
    ///
    /// # Errors
    /// How many frames were taken, and why not the rest.
    pub fn try_send<'a>(&self, batch: &FrameBatch, way: impl Into<Way<'a>>) -> Result<(), (usize, SendFailure)> {
        let way = way.into();
        let mut state = self.state();
        let was_empty = state.backlog.is_empty();
        let mut written = state.write_batch(batch).map_err(|failure| (0, failure))?;
        let budget = &self.scheduler.budget;
        for (taken, frame) in batch.frames.iter().enumerate() {
            if written >= frame.len() {
                written -= frame.len();
                continue;
            }
            let mark = batch.mark(taken, way);
            if written > 0 {
                // It has to be finished, whatever the bounds say.
                state.backlog.put(frame.slice(written..), frame.len(), mark, budget);
                written = 0;
            } else if !state.backlog.offer(frame.clone(), mark, way.overflow, budget) {
                return Err((taken, SendFailure::Full));
            }
            if was_empty {
                self.scheduler.blocked();
            }
        }
        Ok(())
    }

    /// Tells of messages that are not sent any more: now, or behind what waits. Gives what goes out at once; gaps that wait
    /// are not counted.
    ///
    /// # Errors
    /// Why it cannot be told.
    pub fn tell(&self, gap: Gap) -> Result<Sent, SendFailure> {
        let mut state = self.state();
        if !state.backlog.is_empty() {
            let told = state.backlog.tell(gap, &self.scheduler.budget);
            return told.then(Sent::default).ok_or(SendFailure::Full);
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

    /// Writes frames and waits until the stream has taken them, and what waited before them. Unbounded by the backlog,
    /// because the caller brings nothing more until then: ask [`SendScheduler::takes_replies`] first. Needs [`SendScheduler::drain`]
    /// running.
    ///
    /// Not cancel safe: a dropped call may leave frames in the backlog; they are sent all the same.
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

    /// Waits until more replies may wait for the client, or the lane has ended.
    pub async fn room_for_replies(&self) -> Result<(), SendFailure> {
        self.until(|_| self.scheduler.takes_replies()).await
    }

    /// Waits until what waits here now has gone on, and another message may wait.
    pub async fn passed(&self) -> Result<(), SendFailure> {
        let until = self.state().backlog.last();
        self.until(|state| state.backlog.has_passed(until) && state.backlog.has_room(&self.scheduler.budget)).await
    }

    /// Waits until it is the turn of another replay on this lane, which is over when the result is dropped.
    pub async fn replay_turn(&self) -> Option<SemaphorePermit<'_>> {
        // It is never closed.
        self.replays.acquire().await.ok()
    }

    /// Waits until another message may wait here.
    pub async fn room(&self) -> Result<(), SendFailure> {
        let _turn = self.publishers.acquire().await;
        self.until(|state| state.backlog.has_room(&self.scheduler.budget)).await
    }

    /// The topics of which something waits here that may still be forgotten, each once.
    pub fn waiting_sources(&self) -> Vec<Arc<dyn DropNotice>> {
        self.state().backlog.sources()
    }

    /// Forgets what waits here of the topics that are unwanted, by the addresses of their sources.
    pub fn forget(&self, unwanted: &HashSet<usize>) {
        if !unwanted.is_empty() {
            self.state().backlog.forget(unwanted, &self.scheduler.budget);
            self.scheduler.made_room();
        }
    }

    /// Waits until nothing waits here.
    pub async fn idle(&self) -> Result<(), SendFailure> {
        self.until(|state| state.backlog.is_empty()).await
    }

    /// Whether another message may wait here; none does on a lane that is closed.
    pub fn has_room(&self) -> bool {
        let state = self.state();
        state.closed.is_some() || state.backlog.has_room(&self.scheduler.budget)
    }

    /// Waits until a condition holds that comes true when frames leave the backlog. Cancel safe.
    async fn until(&self, holds: impl Fn(&State) -> bool) -> Result<(), SendFailure> {
        loop {
            let moved = self.scheduler.moved();
            {
                let state = self.state();
                if let Some(failure) = state.closed {
                    return Err(failure);
                }
                if holds(&state) {
                    return Ok(());
                }
            }
            moved.await;
        }
    }

    /// Moves what the stream takes of the backlog; where it takes no more, `cx` is woken once it does.
    pub(crate) fn take_turn(&self, cx: &mut Context<'_>) -> Progress {
        let mut state = self.state();
        if state.closed.is_some() || state.backlog.is_empty() {
            return Progress::Over;
        }
        let State { stream, backlog, .. } = &mut *state;
        match stream.poll_write(backlog.turn(TURN_BYTES), cx) {
            Poll::Pending => Progress::Over,
            Poll::Ready(Ok((bytes, frames))) => {
                backlog.written(frames, bytes, &self.scheduler.budget);
                if backlog.is_empty() {
                    backlog.shrink();
                }
                self.scheduler.went_on();
                Progress::Again
            }
            Poll::Ready(Err(failure)) => {
                self.close(&mut state, failure);
                Progress::Over
            }
        }
    }

    fn close(&self, state: &mut State, failure: SendFailure) {
        state.closed = Some(failure);
        state.backlog.clear(&self.scheduler.budget);
        self.scheduler.made_room();
    }

    /// Waits until the peer wants no more of this lane, or the connection is gone.
    pub async fn stopped(&self) {
        let ended = self.state().stream.ended();
        // Ended by us and read to the end is none of these, and the last that happens to a lane.
        if ended.await {
            std::future::pending().await
        }
    }

    /// Whether nothing waits here.
    pub fn is_idle(&self) -> bool {
        self.state().backlog.is_empty()
    }

    /// Ends a lane on which nothing waits. What QUIC has of it still arrives.
    pub fn end(&self) {
        let mut state = self.state();
        self.close(&mut state, SendFailure::Closed);
        state.stream.finish();
    }

    /// Gives up what waits here; nothing more is taken, and whoever waits is told.
    pub fn give_up(&self) {
        self.close(&mut self.state(), SendFailure::Closed);
    }

    /// Gives up what waits here and in QUIC: the peer is told with a closing code that no more comes (RESET_STREAM).
    pub fn abandon(&self, code: u16) {
        let mut state = self.state();
        self.close(&mut state, SendFailure::Closed);
        state.stream.reset(self.layer.code(code));
    }

    /// Writes what is left, `last` behind it, ends the stream, and waits until the peer has it all (or has gone). Needs
    /// [`SendScheduler::drain`] running. Bound it by a timeout: the peer need not read.
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
        // Either way there is nobody left to wait for.
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
    /// Writes what the stream takes at once and gives how many bytes that was.
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

    /// Writes what the stream takes at once. Gives how many frames are done; the next may be in part.
    fn write_now(&mut self, frames: &mut [Bytes]) -> Result<usize, SendFailure> {
        if let Some(failure) = self.closed {
            return Err(failure);
        }
        let mut done = 0;
        // Behind a backlog everything waits its turn. Its drain holds the stream's only waker.
        while done < frames.len() && self.backlog.is_empty() {
            match self.stream.poll_write(&mut frames[done..], &mut Context::from_waker(Waker::noop())) {
                Poll::Pending => break,
                Poll::Ready(Ok((_, written))) => done += written,
                Poll::Ready(Err(failure)) => {
                    // Nothing waits here that would have to be given up.
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
