//! A client's turn on its worker. Its lanes take it one after the other, so a client with 32 lanes has no more of the
//! worker than a client with one; and between two turns that took their time, the worker looks after everybody else.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, SemaphorePermit};

/// A client's requests are looked at for so long before the worker's other clients come in between: a few compressed bytes
/// can be much to inflate and to parse, and be answered with few again; a short request can ask for a long page.
const TURN: Duration = Duration::from_millis(1);

/// The turns of one client.
#[derive(Debug)]
pub(super) struct Turns {
    /// First come, first served.
    one: Semaphore,
    /// Nanoseconds that were spent since others came in between.
    spent: AtomicU64,
}

/// The right to serve requests of the client.
#[derive(Debug)]
pub(super) struct Turn<'a> {
    spent: &'a AtomicU64,
    /// `None` is not possible: nothing closes the semaphore.
    _permit: Option<SemaphorePermit<'a>>,
}

impl Turns {
    pub(super) fn new() -> Self {
        Self { one: Semaphore::new(1), spent: AtomicU64::new(0) }
    }

    /// Waits until none of the client's other lanes has it. Not to be held while the client is waited for.
    pub(super) async fn take(&self) -> Turn<'_> {
        Turn { spent: &self.spent, _permit: self.one.acquire().await.ok() }
    }
}

impl Turn<'_> {
    /// Does a part of the client's work.
    pub(super) fn work<T>(&self, work: impl FnOnce() -> T) -> T {
        let begun = Instant::now();
        let done = work();
        let spent = u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.spent.fetch_add(spent, Ordering::Relaxed);
        done
    }

    /// Whether it is over.
    pub(super) fn is_over(&self) -> bool {
        u128::from(self.spent.load(Ordering::Relaxed)) >= TURN.as_nanos()
    }

    /// Gives it back; where it is over, not before others had theirs. Handed on at once, it would go round among the client's
    /// lanes before the worker looks at its sockets again.
    pub(super) async fn end(self) {
        if self.is_over() {
            tokio::task::yield_now().await;
            self.spent.store(0, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[tokio::test]
    async fn many_lanes_of_a_client_have_no_more_of_a_worker_than_one() {
        let (turns, rounds, done) = (Turns::new(), Cell::new(0), Cell::new(0));
        let lane = async || {
            let turn = turns.take().await;
            turn.work(|| std::thread::sleep(TURN));
            done.set(done.get() + 1);
            turn.end().await;
        };
        let neighbour = async {
            while done.get() < 5 {
                rounds.set(rounds.get() + 1);
                assert!(done.get() <= rounds.get(), "{} turns in {} rounds", done.get(), rounds.get());
                tokio::task::yield_now().await;
            }
        };
        tokio::join!(neighbour, lane(), lane(), lane(), lane(), lane());
    }

    #[tokio::test]
    async fn what_took_no_time_is_handed_on_at_once() {
        let turns = Turns::new();
        let ended = async {
            for _ in 0..3 {
                let turn = turns.take().await;
                turn.work(|| ());
                if !turn.is_over() {
                    turn.end().await;
                }
            }
        };
        assert!(futures_util::FutureExt::now_or_never(ended).is_some(), "nobody waits");
    }
}
