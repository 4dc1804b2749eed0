//! The policy `block`: publishers wait until every subscriber has room. Knows lanes, but no topic.

use std::sync::Arc;

use parking_lot::Mutex;
use quic_websocket_lane::LaneWriter;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

/// The publishers and the full subscribers of one topic.
#[derive(Debug)]
pub(super) struct Blocking {
    /// One publisher at a time: the next one waits for the room that this one leaves.
    turn: Semaphore,
    /// The subscribers that had no more room after the last message.
    full: Mutex<Vec<BlockedSubscriber>>,
}

/// A subscriber that holds publishers up.
#[derive(Debug, Clone)]
struct BlockedSubscriber {
    lane: Arc<LaneWriter>,
    /// Cancelled when the subscription ends.
    ended: CancellationToken,
}

impl Blocking {
    pub(super) fn new() -> Self {
        Self { turn: Semaphore::new(1), full: Mutex::default() }
    }

    /// A subscriber has no more room on its lane.
    pub(super) fn add(&self, lane: Arc<LaneWriter>, ended: CancellationToken) {
        self.full.lock().push(BlockedSubscriber { lane, ended });
    }

    /// Waits until it is the caller's turn to publish, and every subscriber has room. `None` if that takes too long.
    pub(super) async fn turn(&self, deadline: Instant) -> Option<SemaphorePermit<'_>> {
        // It is never closed.
        let turn = timeout_at(deadline, self.turn.acquire()).await.ok()?.ok()?;
        while let Some(full) = self.next() {
            let freed = async {
                tokio::select! {
                    // A closed lane delays no publisher.
                    _ = full.lane.room() => {}
                    () = full.ended.cancelled() => {}
                }
            };
            timeout_at(deadline, freed).await.ok()?;
        }
        Some(turn)
    }

    /// A subscriber that still has no room.
    fn next(&self) -> Option<BlockedSubscriber> {
        let mut full = self.full.lock();
        full.retain(|full| !full.ended.is_cancelled() && !full.lane.has_room());
        full.last().cloned()
    }
}
