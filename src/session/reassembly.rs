//! Limits on a client's unfinished messages: how many bytes of them are held on all its lanes together, and how long
//! their rest may take. Not reading is no alternative: the bytes would fill the connection's flow control window
//! instead, and the rest of the messages could not arrive.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use super::end::End;
use crate::config::Config;
use crate::message::CloseCode;

/// Unfinished bytes of one client.
#[derive(Debug)]
pub(super) struct ReassemblyBudget {
    /// Bytes held now, on all lanes.
    bytes: AtomicUsize,
    max_bytes: usize,
    /// Time allowed from a body's first byte to its last.
    within: Duration,
}

impl ReassemblyBudget {
    pub(super) fn new(config: &Config) -> Self {
        let max_bytes = usize::try_from(config.limits.client_unfinished_bytes).unwrap_or(usize::MAX);
        Self { bytes: AtomicUsize::new(0), max_bytes, within: config.timing.body_timeout() }
    }

    /// Creates the reservation of a lane without unfinished bytes.
    pub(super) fn reserve(&self) -> LaneReservation<'_> {
        LaneReservation { budget: self, bytes: 0, deadline: None }
    }
}

/// One lane's part of the budget, released when the lane ends.
#[derive(Debug)]
pub(super) struct LaneReservation<'a> {
    budget: &'a ReassemblyBudget,
    bytes: usize,
    /// Time by which the rest is due; set while the lane waits for it.
    deadline: Option<Instant>,
}

impl LaneReservation<'_> {
    /// Releases the bytes of a completed body, even if its request then waits for others.
    pub(super) fn finish(&mut self) {
        if self.deadline.take().is_some() {
            self.release();
        }
    }

    /// Records that `bytes` of an unfinished body are held, with no whole body before it. An error ends the connection.
    pub(super) fn hold(&mut self, bytes: usize) -> Result<(), End> {
        // The body only grows until it is finished.
        let more = bytes.saturating_sub(self.bytes);
        if more == 0 {
            return Ok(());
        }
        self.bytes = bytes;
        let (before, max) = (self.budget.bytes.fetch_add(more, Ordering::Relaxed), self.budget.max_bytes);
        if before.saturating_add(more) <= max {
            return Ok(());
        }
        let reason =
            format!("messages begun and not finished exceed the limit of {max} bytes: finish some, then begin others");
        Err(End::sent(CloseCode::TOO_BIG, reason))
    }

    /// The time by which the rest of a body is due. Call it when the lane waits for nothing else: time in which earlier
    /// requests keep the lane from being read does not count.
    pub(super) fn deadline(&mut self, now: Instant) -> Instant {
        *self.deadline.get_or_insert(now + self.budget.within)
    }

    /// Extends the deadline by a time in which the lane was not read.
    pub(super) fn postpone(&mut self, by: Duration) {
        if let Some(deadline) = &mut self.deadline {
            *deadline += by;
        }
    }

    /// The end of a client whose deadline has passed.
    pub(super) fn late(&self) -> End {
        let within = self.budget.within.as_millis();
        End::sent(CloseCode::TIMEOUT, format!("a message was begun and not finished within {within} ms"))
    }

    fn release(&mut self) {
        self.budget.bytes.fetch_sub(std::mem::take(&mut self.bytes), Ordering::Relaxed);
    }
}

impl Drop for LaneReservation<'_> {
    fn drop(&mut self) {
        self.release();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget(max_bytes: u64) -> ReassemblyBudget {
        let mut config = Config::default();
        config.limits.client_unfinished_bytes = max_bytes;
        ReassemblyBudget::new(&config)
    }

    fn held(budget: &ReassemblyBudget) -> usize {
        budget.bytes.load(Ordering::Relaxed)
    }

    #[test]
    fn all_lanes_together_may_hold_the_limit_and_not_a_byte_more() {
        let budget = budget(100);
        let (mut one, mut other) = (budget.reserve(), budget.reserve());
        one.hold(40).expect("within the limit");
        other.hold(30).expect("within the limit");
        other.hold(60).expect("exactly the limit");
        let End::Sent(closed) = one.hold(41).expect_err("one byte too many") else { panic!("the server ends it") };
        assert_eq!(closed.code, CloseCode::TOO_BIG);
        assert!(closed.reason.contains("100 bytes"), "{}", closed.reason);
        drop(one);
        assert_eq!(held(&budget), 60);
    }

    #[test]
    fn finished_and_abandoned_bodies_are_released_exactly_once() {
        let budget = budget(100);
        let (mut one, mut other) = (budget.reserve(), budget.reserve());
        for _ in 0..3 {
            other.hold(50).expect("within the limit");
            one.hold(50).expect("within the limit");
            one.deadline(Instant::now());
            one.finish();
            one.finish();
            assert_eq!(held(&budget), 50);
        }
        drop((one, other));
        assert_eq!(held(&budget), 0);
    }

    #[test]
    fn each_body_has_its_own_deadline_which_further_bytes_do_not_extend() {
        let budget = budget(100);
        let (mut reservation, begun) = (budget.reserve(), Instant::now());
        let later = begun + Duration::from_secs(5);
        assert_eq!(reservation.deadline(begun), begun + budget.within);
        reservation.hold(10).expect("within the limit");
        assert_eq!(reservation.deadline(later), begun + budget.within);
        reservation.finish();
        assert_eq!(reservation.deadline(later), later + budget.within);
    }
}
