//! The send scheduler of one client: the budget that its lanes share, and the order in which waiting frames are sent.
//! QUIC's send window belongs to the connection, not to a stream: if each lane were drained on its own, the lane with
//! the most data would take all freed window, and a small message on another lane would wait behind it.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll};

use tokio::sync::Notify;
use tokio::sync::futures::Notified;

use super::backlog::{Bounds, Budget};
use super::counters::TrafficCounters;
use super::writer::{LaneWriter, Progress};

/// Shared budget and sending order of one client's lanes.
#[derive(Debug)]
pub struct SendScheduler {
    pub(crate) budget: Budget,
    /// Bytes of replies that lanes are waiting to send.
    replies: AtomicUsize,
    /// Backlog bounds of each lane.
    pub(crate) lane_bounds: Bounds,
    /// Highest priority first.
    lanes: Mutex<Vec<Weak<LaneWriter>>>,
    /// Wakes the drain: a frame is waiting.
    blocked: Notify,
    /// Wakes tasks that wait for backlog space: frames have left a backlog, so any lane may have room.
    freed: Notify,
    /// Number of times QUIC accepted waiting data. A peer for which it grows is alive.
    progress: AtomicUsize,
}

impl SendScheduler {
    /// Creates a scheduler without lanes. `lane_bounds` limit the backlog of each lane and `client_bounds` that of all
    /// together; `sources` is how many sources may each have a gap waiting; dropped and sent messages go to `counters`.
    pub fn new(
        lane_bounds: Bounds,
        client_bounds: Bounds,
        sources: usize,
        counters: Arc<dyn TrafficCounters>,
    ) -> Arc<Self> {
        Arc::new(Self {
            budget: Budget::new(client_bounds, sources, counters),
            replies: AtomicUsize::new(0),
            lane_bounds,
            lanes: Mutex::default(),
            blocked: Notify::new(),
            freed: Notify::new(),
            progress: AtomicUsize::new(0),
        })
    }

    fn lanes(&self) -> MutexGuard<'_, Vec<Weak<LaneWriter>>> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The client's traffic counters.
    #[inline]
    pub fn counters(&self) -> &Arc<dyn TrafficCounters> {
        &self.budget.counters
    }

    /// Messages waiting on all lanes, and their bytes.
    pub fn waiting(&self) -> (usize, usize) {
        self.budget.waiting()
    }

    /// Whether more replies may wait for the client. Their bytes have the same limit as the client's whole backlog.
    #[inline]
    pub fn takes_replies(&self) -> bool {
        self.replies.load(Ordering::Relaxed) < self.budget.bounds().bytes
    }

    /// Counts replies as waiting until the result is dropped.
    pub fn replies(&self, bytes: usize) -> WaitingReplies<'_> {
        self.replies.fetch_add(bytes, Ordering::Relaxed);
        WaitingReplies { scheduler: self, bytes }
    }

    pub(crate) fn add(&self, lane: &Arc<LaneWriter>) {
        let mut lanes = self.lanes();
        lanes.retain(|other| other.strong_count() > 0);
        let priority = |lane: &Weak<LaneWriter>| lane.upgrade().map_or(i32::MIN, |lane| lane.priority());
        let at = lanes.iter().position(|other| priority(other) < lane.priority()).unwrap_or(lanes.len());
        lanes.insert(at, Arc::downgrade(lane));
    }

    pub(crate) fn blocked(&self) {
        self.blocked.notify_one();
    }

    /// Records that QUIC accepted frames of a backlog.
    pub(crate) fn made_progress(&self) {
        self.progress.fetch_add(1, Ordering::Relaxed);
        self.made_room();
    }

    /// Wakes waiting tasks: frames have left a backlog, or a lane has ended.
    pub(crate) fn made_room(&self) {
        self.freed.notify_waiters();
    }

    pub(crate) fn freed(&self) -> Notified<'_> {
        self.freed.notified()
    }

    /// Number of times QUIC accepted waiting data.
    pub fn progress(&self) -> usize {
        self.progress.load(Ordering::Relaxed)
    }

    /// Moves waiting frames into QUIC as it accepts them: lanes of higher priority first, lanes of equal priority in
    /// turn. Never returns. Call it from one task only, because a stream wakes only the last task that polled it.
    pub async fn drain(&self) {
        let mut woken = pin!(self.blocked.notified());
        poll_fn(|cx| {
            while woken.as_mut().poll(cx).is_ready() {
                woken.set(self.blocked.notified());
            }
            self.take_turns(cx);
            Poll::<()>::Pending
        })
        .await;
    }

    fn take_turns(&self, cx: &mut Context<'_>) {
        let mut lanes = self.lanes();
        lanes.retain(|lane| lane.strong_count() > 0);
        for equals in lanes.chunk_by_mut(|one, next| rank(one) == rank(next)) {
            // The lane that was first is last the next time.
            equals.rotate_left(1);
            let mut active: Vec<_> = equals.iter().filter_map(Weak::upgrade).collect();
            while !active.is_empty() {
                active.retain(|lane| lane.take_turn(cx) == Progress::Again);
            }
        }
    }
}

/// Replies of one lane that are waiting to be sent; uncounted on drop.
#[derive(Debug)]
pub struct WaitingReplies<'a> {
    scheduler: &'a SendScheduler,
    bytes: usize,
}

impl Drop for WaitingReplies<'_> {
    fn drop(&mut self) {
        self.scheduler.replies.fetch_sub(self.bytes, Ordering::Relaxed);
        self.scheduler.made_room();
    }
}

/// Priority of a lane; `None` if it has just ended.
fn rank(lane: &Weak<LaneWriter>) -> Option<i32> {
    lane.upgrade().map(|lane| lane.priority())
}
