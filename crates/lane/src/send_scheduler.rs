//! What all lanes of one client share on their way out: the budget of what may wait, and the order in which waiting frames
//! go on. QUIC's send window is the connection's, not a stream's: were each lane drained by itself, the one with the most to
//! send would take whatever becomes free, and a small message on another would wait for all of it.

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

/// The lanes of one client.
#[derive(Debug)]
pub struct SendScheduler {
    pub(crate) budget: Budget,
    /// Bytes of replies that lanes wait for their client to take.
    replies: AtomicUsize,
    /// What may wait on each lane.
    pub(crate) lane_bounds: Bounds,
    /// The most urgent first.
    lanes: Mutex<Vec<Weak<LaneWriter>>>,
    /// Wakes the drain: something waits.
    blocked: Notify,
    /// Wakes those who wait for frames to leave a backlog: there may be room on any lane then.
    moved: Notify,
    /// How often QUIC has taken something that waited: a peer that lets it go on is alive.
    progress: AtomicUsize,
}

impl SendScheduler {
    /// No lanes yet; what may wait on each, and on all together; of how many sources that is, each of which may have lost
    /// something; and where it is counted what becomes of messages.
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
            moved: Notify::new(),
            progress: AtomicUsize::new(0),
        })
    }

    fn lanes(&self) -> MutexGuard<'_, Vec<Weak<LaneWriter>>> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where it is counted what becomes of the client's messages.
    #[inline]
    pub fn counters(&self) -> &Arc<dyn TrafficCounters> {
        &self.budget.counters
    }

    /// Messages that wait on all lanes, and their bytes.
    pub fn waiting(&self) -> (usize, usize) {
        self.budget.waiting()
    }

    /// Whether the client may be given more replies to wait: as many bytes as of everything that waits for it.
    #[inline]
    pub fn takes_replies(&self) -> bool {
        self.replies.load(Ordering::Relaxed) < self.budget.bounds().bytes
    }

    /// Counts replies that wait, until the result is dropped.
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

    /// QUIC has taken frames of a backlog.
    pub(crate) fn went_on(&self) {
        self.progress.fetch_add(1, Ordering::Relaxed);
        self.made_room();
    }

    /// Frames have left a backlog, or their lane has ended.
    pub(crate) fn made_room(&self) {
        self.moved.notify_waiters();
    }

    pub(crate) fn moved(&self) -> Notified<'_> {
        self.moved.notified()
    }

    /// How often QUIC has taken something that waited.
    pub fn progress(&self) -> usize {
        self.progress.load(Ordering::Relaxed)
    }

    /// Moves what waits into QUIC whenever that takes more: the most urgent lanes first, those of one priority in turn.
    /// Never ends; one caller at a time, since a stream wakes only the last who asked.
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
            // Whoever was first is last the next time.
            equals.rotate_left(1);
            let mut may_go_on: Vec<_> = equals.iter().filter_map(Weak::upgrade).collect();
            while !may_go_on.is_empty() {
                may_go_on.retain(|lane| lane.take_turn(cx) == Progress::Again);
            }
        }
    }
}

/// Replies that one lane waits for its client to take.
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

/// `None` for a lane that ended just now.
fn rank(lane: &Weak<LaneWriter>) -> Option<i32> {
    lane.upgrade().map(|lane| lane.priority())
}
