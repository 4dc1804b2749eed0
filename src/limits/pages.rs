//! Limits pages of `history`, `client_list` and `presence`, which are thousands of times longer than the requests for
//! them. A page above the rate is not refused: it waits.

use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::{Semaphore, SemaphorePermit};

/// Nanoseconds in a second.
const NANOS: u128 = 1_000_000_000;

/// A rate in bytes with a burst. A page's size is known only once it is made, so the next page waits for it.
#[derive(Debug)]
pub(super) struct Pages {
    per_second: u64,
    burst: u64,
    /// A time, and the bytes given that the rate had not made up for by then.
    given: Mutex<(Instant, u64)>,
    /// One page waits at a time: else all would be due together.
    next: Semaphore,
}

/// The right to make a page.
#[derive(Debug)]
pub(crate) struct PageTurn<'a> {
    /// `None` if there is no limit.
    _held: Option<SemaphorePermit<'a>>,
}

impl Pages {
    /// `None` if either is 0: no limit.
    pub(super) fn new(per_second: u64, burst: u64) -> Option<Self> {
        let given = Mutex::new((Instant::now(), 0));
        (per_second > 0 && burst > 0).then(|| Self { per_second, burst, given, next: Semaphore::new(1) })
    }

    /// The right to a page, if one can be made at once.
    pub(super) fn now(&self) -> Option<PageTurn<'_>> {
        let turn = self.next.try_acquire().ok()?;
        self.due(Instant::now()).is_zero().then_some(PageTurn { _held: Some(turn) })
    }

    /// Waits for the right to a page, after the earlier requests.
    pub(super) async fn turn(&self) -> PageTurn<'_> {
        // The semaphore is never closed.
        let turn = self.next.acquire().await.ok();
        loop {
            let due = self.due(Instant::now());
            if due.is_zero() {
                return PageTurn { _held: turn };
            }
            tokio::time::sleep(due).await;
        }
    }

    /// Time until the bytes given are within the burst again.
    fn due(&self, now: Instant) -> Duration {
        let above = self.unpaid(now).1.saturating_sub(self.burst);
        let nanos = (u128::from(above) * NANOS).div_ceil(u128::from(self.per_second));
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// Records that a page of `bytes` bytes was given.
    pub(super) fn give(&self, bytes: usize, now: Instant) {
        let (now, given) = self.unpaid(now);
        *self.given.lock() = (now, given.saturating_add(bytes as u64));
    }

    /// The bytes given that time has not repaid.
    fn unpaid(&self, now: Instant) -> (Instant, u64) {
        let (at, given) = *self.given.lock();
        let good = now.saturating_duration_since(at).as_nanos() * u128::from(self.per_second) / NANOS;
        (now.max(at), given.saturating_sub(u64::try_from(good).unwrap_or(u64::MAX)))
    }
}

/// The right to a page without a limit.
pub(super) const fn unlimited() -> PageTurn<'static> {
    PageTurn { _held: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_beyond_the_burst_wait() {
        let pages = Pages::new(1000, 5000).expect("a rate");
        let now = Instant::now();
        assert!(pages.now().is_some());
        pages.give(6000, now);
        assert_eq!(pages.due(now), Duration::from_secs(1), "a thousand bytes too many");
        assert!(pages.now().is_none());
        assert_eq!(pages.due(now + Duration::from_millis(400)), Duration::from_millis(600));
        pages.give(5000, now + Duration::from_secs(1));
        assert_eq!(pages.due(now + Duration::from_secs(1)), Duration::from_secs(5));
        assert!(pages.due(now + Duration::from_secs(60)).is_zero());
        assert!(Pages::new(0, 1).is_none() && Pages::new(1, 0).is_none());
    }

    #[tokio::test]
    async fn waiting_pages_are_served_in_order() {
        let pages = Pages::new(1000, 1000).expect("a rate");
        let order = Mutex::new(Vec::new());
        let page = async |n: usize| {
            let _turn = pages.turn().await;
            order.lock().push(n);
        };
        let held = pages.now().expect("none waits");
        let all = async { tokio::join!(page(0), page(1), page(2)) };
        let let_go = async { drop(held) };
        tokio::join!(all, let_go);
        assert_eq!(*order.lock(), [0, 1, 2]);
    }
}
