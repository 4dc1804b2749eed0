//! Time slices of a client on its worker. Its lanes share them one after the other, so a client with 32 lanes gets no
//! more of the worker than a client with one; after a used-up slice the worker serves its other clients.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::{Semaphore, SemaphorePermit};

use crate::message::MAX_INTEGER;

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
    clock: SliceClock,
    /// Never `None`, because nothing closes the semaphore.
    _permit: Option<SemaphorePermit<'a>>,
}

/// The clock of one slice. Reads the system's clocks as rarely as possible: one reading takes as long as a tenth of a
/// small request.
#[derive(Debug)]
pub(super) struct SliceClock {
    /// The time at which the present part began.
    now: Instant,
    /// Whether the time of day was needed before.
    was_read: bool,
    /// A time, and what it is since the Unix epoch; set when the time of day is needed again.
    epoch: Option<(Instant, Duration)>,
}

impl SliceClock {
    fn start() -> Self {
        Self { now: Instant::now(), was_read: false, epoch: None }
    }

    /// Ends the present part, and begins the next one. Returns how long it took.
    fn advance(&mut self) -> Duration {
        let before = std::mem::replace(&mut self.now, Instant::now());
        self.now.duration_since(before)
    }

    /// The time in Unix milliseconds: now, or when the present part began.
    pub(super) fn now_ms(&mut self) -> u64 {
        let since_epoch = match self.epoch {
            Some((at, since_epoch)) => since_epoch + self.now.duration_since(at),
            None => {
                let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                self.epoch = self.was_read.then(|| (Instant::now(), since_epoch));
                self.was_read = true;
                since_epoch
            }
        };
        u64::try_from(since_epoch.as_millis()).unwrap_or(MAX_INTEGER)
    }
}

impl TimeSlices {
    pub(super) fn new() -> Self {
        Self { one: Semaphore::new(1), spent: AtomicU64::new(0) }
    }

    /// Waits until none of the client's other lanes holds the slice. Do not hold it while waiting for the client.
    pub(super) async fn take(&self) -> TimeSlice<'_> {
        let permit = self.one.acquire().await.ok();
        TimeSlice { spent: &self.spent, clock: SliceClock::start(), _permit: permit }
    }
}

impl TimeSlice<'_> {
    /// Runs a part of the client's work, and counts its time since the previous part. Nothing may be waited for between
    /// two parts.
    pub(super) fn work<T>(&mut self, work: impl FnOnce(&mut SliceClock) -> T) -> T {
        let done = work(&mut self.clock);
        let spent = u64::try_from(self.clock.advance().as_nanos()).unwrap_or(u64::MAX);
        // Only the owner of the slice writes it.
        self.spent.store(self.spent.load(Ordering::Relaxed).saturating_add(spent), Ordering::Relaxed);
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
    use crate::message::now_ms;

    #[tokio::test]
    async fn many_lanes_of_a_client_get_no_more_of_a_worker_than_one() {
        let (slices, rounds, done) = (TimeSlices::new(), Cell::new(0), Cell::new(0));
        let lane = async || {
            let mut slice = slices.take().await;
            slice.work(|_| std::thread::sleep(SLICE));
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
                let mut slice = slices.take().await;
                slice.work(|_| ());
                if !slice.is_over() {
                    slice.end().await;
                }
            }
        };
        assert!(futures_util::FutureExt::now_or_never(ended).is_some(), "no wait");
    }

    #[tokio::test]
    async fn the_parts_of_a_slice_have_the_time_of_day() {
        let (slices, before) = (TimeSlices::new(), now_ms());
        let mut slice = slices.take().await;
        let parts = [(); 5].map(|()| {
            slice.work(|clock| {
                std::thread::sleep(Duration::from_millis(3));
                clock.now_ms()
            })
        });
        // The two clocks are not read at exactly the same time.
        assert!(before <= parts[0] && parts[4] <= now_ms() + 1, "{before}: {parts:?}");
        assert!(parts.is_sorted() && parts[0] + 5 <= parts[4], "{parts:?}");
    }
}
