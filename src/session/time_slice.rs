//! Time slices of a client on its worker. Its lanes share them one after the other, so a client with 32 lanes gets no
//! more of the worker than a client with one; after a used-up slice the worker serves its other clients.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, SemaphorePermit};

/// Time for one client's requests before the worker's other clients are served. A few bytes can be expensive: they may
/// inflate to much, or ask for a long page.
const SLICE: Duration = Duration::from_millis(1);

/// The time slices of one client.
#[derive(Debug)]
pub(super) struct TimeSlices {
    /// One permit, in order of arrival.
    one: Semaphore,
    /// Time spent since other clients were last served, in nanoseconds.
    spent: AtomicU64,
}

/// The right to serve requests of the client.
#[derive(Debug)]
pub(super) struct TimeSlice<'a> {
    spent: &'a AtomicU64,
    /// Never `None`, because nothing closes the semaphore.
    _permit: Option<SemaphorePermit<'a>>,
}

impl TimeSlices {
    pub(super) fn new() -> Self {
        Self { one: Semaphore::new(1), spent: AtomicU64::new(0) }
    }

    /// Waits until none of the client's other lanes holds the slice. Do not hold it while waiting for the client.
    pub(super) async fn take(&self) -> TimeSlice<'_> {
        TimeSlice { spent: &self.spent, _permit: self.one.acquire().await.ok() }
    }
}

impl TimeSlice<'_> {
    /// Runs a part of the client's work, and counts its time.
    pub(super) fn work<T>(&self, work: impl FnOnce() -> T) -> T {
        let begun = Instant::now();
        let done = work();
        let spent = u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.spent.fetch_add(spent, Ordering::Relaxed);
        done
    }

    /// Whether the slice is used up.
    pub(super) fn is_over(&self) -> bool {
        u128::from(self.spent.load(Ordering::Relaxed)) >= SLICE.as_nanos()
    }

    /// Releases the slice; if it is used up, only after other tasks have run. Otherwise it would pass among the
    /// client's lanes before the worker polls its sockets again.
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
    async fn many_lanes_of_a_client_get_no_more_of_a_worker_than_one() {
        let (slices, rounds, done) = (TimeSlices::new(), Cell::new(0), Cell::new(0));
        let lane = async || {
            let slice = slices.take().await;
            slice.work(|| std::thread::sleep(SLICE));
            done.set(done.get() + 1);
            slice.end().await;
        };
        let neighbour = async {
            while done.get() < 5 {
                rounds.set(rounds.get() + 1);
                assert!(done.get() <= rounds.get(), "{} slices in {} rounds", done.get(), rounds.get());
                tokio::task::yield_now().await;
            }
        };
        tokio::join!(neighbour, lane(), lane(), lane(), lane(), lane());
    }

    #[tokio::test]
    async fn an_unused_slice_is_released_at_once() {
        let slices = TimeSlices::new();
        let ended = async {
            for _ in 0..3 {
                let slice = slices.take().await;
                slice.work(|| ());
                if !slice.is_over() {
                    slice.end().await;
                }
            }
        };
        assert!(futures_util::FutureExt::now_or_never(ended).is_some(), "no wait");
    }
}
