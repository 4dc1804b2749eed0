//! A rate with a burst, and its refusals. Each refusal gets its own time to retry, one after the other: with the same
//! time for all, all clients would retry at once, and all but one be refused again.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use governor::clock::{Clock, DefaultClock};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use parking_lot::Mutex;

/// Refusals forgiven per served request. One would do for a client that retries exactly on time; of several concurrent
/// retries a late one consumes the next one's turn, so two are forgiven.
const FORGIVEN: u32 = 2;

/// Grants cells at a rate.
#[derive(Debug)]
pub(super) struct Bucket {
    limiter: DefaultDirectRateLimiter,
    clock: DefaultClock,
    quota: Quota,
    refusals: Refusals,
}

/// A refusal: not enough cells are left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Refusal {
    /// Time until this request's turn.
    pub(super) wait: Duration,
    /// Earlier refusals that were not forgiven.
    pub(super) outstanding: u32,
}

impl Bucket {
    /// A full bucket of `burst` cells, refilled at this rate. `None` if either is 0: no limit.
    pub(super) fn new(per_second: u64, burst: u64) -> Option<Self> {
        let quota = quota(per_second, burst)?;
        let (limiter, clock) = (RateLimiter::direct(quota), DefaultClock::default());
        Some(Self { limiter, clock, quota, refusals: Refusals::new() })
    }

    /// Takes all these cells, or none; more than the burst count as the burst.
    pub(super) fn take(&self, cells: NonZeroU32) -> Result<(), Refusal> {
        let cells = cells.min(self.quota.burst_size());
        let wait = match self.limiter.check_n(cells) {
            Ok(Ok(())) => {
                self.refusals.give_back();
                return Ok(());
            }
            Ok(Err(until)) => until.wait_time_from(self.clock.now()),
            Err(_) => self.quota.burst_size_replenished_in(),
        };
        let outstanding = self.refusals.add();
        let turn = self.quota.replenish_interval().saturating_mul(cells.get()).saturating_mul(outstanding);
        Err(Refusal { wait: wait.saturating_add(turn), outstanding })
    }

    /// Takes over what is left in another bucket, as far as it fits, so that a new rate is not a new burst.
    pub(super) fn continue_from(&self, other: &Self) {
        let left = other.take_all();
        if let Some(spent) = NonZeroU32::new(self.quota.burst_size().get().saturating_sub(left)) {
            // The bucket is full, so this succeeds.
            let _ = self.limiter.check_n(spent);
        }
    }

    /// Takes all that is left, and returns how much that was.
    fn take_all(&self) -> u32 {
        let mut all = 0;
        for bit in (0..u32::BITS).rev() {
            let Some(cells) = NonZeroU32::new(1 << bit) else { continue };
            if matches!(self.limiter.check_n(cells), Ok(Ok(()))) {
                all += cells.get();
            }
        }
        all
    }
}

/// A rate in the limiter's form; `None` if there is no limit.
pub(super) fn quota(per_second: u64, burst: u64) -> Option<Quota> {
    let cells = |setting| NonZeroU32::new(u32::try_from(setting).unwrap_or(u32::MAX));
    Some(Quota::per_second(cells(per_second)?).allow_burst(cells(burst)?))
}

/// Refusals that were not forgiven: each served request forgives [`FORGIVEN`], and each second one.
#[derive(Debug)]
struct Refusals {
    outstanding: AtomicU32,
    /// Time until which seconds have been counted.
    counted: Mutex<Instant>,
}

impl Refusals {
    fn new() -> Self {
        Self { outstanding: AtomicU32::new(0), counted: Mutex::new(Instant::now()) }
    }

    /// Adds one, and returns how many there were before.
    fn add(&self) -> u32 {
        let mut counted = self.counted.lock();
        let seconds = counted.elapsed().as_secs();
        *counted += Duration::from_secs(seconds);
        self.subtract(u32::try_from(seconds).unwrap_or(u32::MAX));
        self.outstanding.fetch_add(1, Ordering::Relaxed)
    }

    fn give_back(&self) {
        if self.outstanding.load(Ordering::Relaxed) > 0 {
            self.subtract(FORGIVEN);
        }
    }

    fn subtract(&self, some: u32) {
        let less = |outstanding: u32| Some(outstanding.saturating_sub(some));
        // This never fails.
        let _ = self.outstanding.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cells(count: u32) -> NonZeroU32 {
        NonZeroU32::new(count).expect("not none")
    }

    #[test]
    fn without_a_rate_or_a_burst_there_is_no_limit() {
        assert!(Bucket::new(0, 5).is_none() && Bucket::new(5, 0).is_none());
        assert!(Bucket::new(u64::MAX, u64::MAX).is_some());
    }

    #[test]
    fn each_refusal_gets_a_turn_after_the_earlier_ones() {
        // One cell in 100 seconds, so that the test's duration does not matter.
        let slow = Quota::with_period(Duration::from_secs(100)).expect("a quota").allow_burst(cells(2));
        let bucket = Bucket {
            limiter: RateLimiter::direct(slow),
            clock: DefaultClock::default(),
            quota: slow,
            refusals: Refusals::new(),
        };
        bucket.take(cells(2)).expect("the burst");
        for before in 0..5 {
            let refusal = bucket.take(cells(1)).expect_err("nothing is left");
            assert_eq!(refusal.outstanding, before);
            let turn = 100 * u64::from(before + 1);
            let expected = Duration::from_secs(turn - 1)..=Duration::from_secs(turn);
            assert!(expected.contains(&refusal.wait), "{refusal:?} is not within {expected:?}");
        }
    }

    #[test]
    fn a_served_request_forgives_two_refusals_and_each_second_one() {
        let refusals = Refusals::new();
        assert_eq!((refusals.add(), refusals.add(), refusals.add()), (0, 1, 2));
        refusals.give_back();
        assert_eq!((refusals.add(), refusals.add()), (1, 2));
        let long_ago = Instant::now().checked_sub(Duration::from_secs(2)).expect("a time");
        *refusals.counted.lock() = long_ago;
        assert_eq!(refusals.add(), 1, "two of three are forgiven");
        *refusals.counted.lock() = long_ago.checked_sub(Duration::from_secs(100)).expect("a time");
        assert_eq!(refusals.add(), 0, "never below none");
    }

    #[test]
    fn a_new_rate_continues_with_what_the_old_one_left() {
        for (left, burst, expected) in [(0, 50, 0), (7, 50, 7), (7, 5, 5), (100, 50, 50)] {
            let (old, new) = (Bucket::new(1, 100).expect("one"), Bucket::new(1, burst).expect("one"));
            if let Some(spent) = NonZeroU32::new(100 - left) {
                old.take(spent).expect("a full one has as many");
            }
            new.continue_from(&old);
            assert_eq!(new.take_all(), expected, "{left} left, {burst} at most");
            assert_eq!(old.take_all(), 0);
        }
    }
}
