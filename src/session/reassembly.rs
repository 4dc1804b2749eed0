//! What a client has begun to send and not finished: how many bytes of it are held, on all its lanes together, and by when
//! the rest has to be there. Not to read on would be no defence: the bytes would fill the connection's window instead, and
//! those that finish what was begun could not come.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use super::End;
use crate::config::Config;
use crate::message::CloseCode;

/// The account of one client.
#[derive(Debug)]
pub(super) struct ReassemblyBudget {
    /// Held now, on all lanes.
    bytes: AtomicUsize,
    max_bytes: usize,
    /// From a body's first byte to its last.
    within: Duration,
}

impl ReassemblyBudget {
    pub(super) fn new(config: &Config) -> Self {
        let max_bytes = usize::try_from(config.limits.client_unfinished_bytes).unwrap_or(usize::MAX);
        Self { bytes: AtomicUsize::new(0), max_bytes, within: config.timing.body_timeout() }
    }

    /// The share of a lane that has begun nothing.
    pub(super) fn share(&self) -> LaneReservation<'_> {
        LaneReservation { account: self, bytes: 0, deadline: None }
    }
}

/// What one lane has of it; given back when the lane ends, however it ends.
#[derive(Debug)]
pub(super) struct LaneReservation<'a> {
    account: &'a ReassemblyBudget,
    bytes: usize,
    /// Set while the lane waits for the rest of a body.
    deadline: Option<Instant>,
}

impl LaneReservation<'_> {
    /// A whole body came out of the lane: it is not among what was begun any more, also while it waits for others.
    pub(super) fn finish(&mut self) {
        if self.deadline.take().is_some() {
            self.give_back();
        }
    }

    /// So many bytes of a body are held now, and no whole one before it. An error ends the connection.
    pub(super) fn hold(&mut self, bytes: usize) -> Result<(), End> {
        // It only grows until it is finished.
        let more = bytes.saturating_sub(self.bytes);
        if more == 0 {
            return Ok(());
        }
        self.bytes = bytes;
        let (before, max) = (self.account.bytes.fetch_add(more, Ordering::Relaxed), self.account.max_bytes);
        if before.saturating_add(more) <= max {
            return Ok(());
        }
        let reason =
            format!("messages begun and not finished above the limit of {max} bytes: finish some, then begin others");
        Err(End::sent(CloseCode::TOO_BIG, reason))
    }

    /// By when the rest of a body has to be there. Asked for when the lane has nothing else to wait for: the time in which
    /// what came before it keeps the lane from being read does not count.
    pub(super) fn deadline(&mut self, now: Instant) -> Instant {
        *self.deadline.get_or_insert(now + self.account.within)
    }

    /// The end of a client whose deadline is over.
    pub(super) fn late(&self) -> End {
        let within = self.account.within.as_millis();
        End::sent(CloseCode::TIMEOUT, format!("a message was begun and not finished within {within} ms"))
    }

    fn give_back(&mut self) {
        self.account.bytes.fetch_sub(std::mem::take(&mut self.bytes), Ordering::Relaxed);
    }
}

impl Drop for LaneReservation<'_> {
    fn drop(&mut self) {
        self.give_back();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(max_bytes: u64) -> ReassemblyBudget {
        let mut config = Config::default();
        config.limits.client_unfinished_bytes = max_bytes;
        ReassemblyBudget::new(&config)
    }

    fn held(account: &ReassemblyBudget) -> usize {
        account.bytes.load(Ordering::Relaxed)
    }

    #[test]
    fn all_lanes_together_may_hold_the_limit_and_no_byte_more() {
        let account = account(100);
        let (mut one, mut other) = (account.share(), account.share());
        one.hold(40).expect("within the limit");
        other.hold(30).expect("within the limit");
        other.hold(60).expect("just the limit");
        let End::Sent(closed) = one.hold(41).expect_err("one byte too many") else { panic!("the server ends it") };
        assert_eq!(closed.code, CloseCode::TOO_BIG);
        assert!(closed.reason.contains("100 bytes"), "{}", closed.reason);
        drop(one);
        assert_eq!(held(&account), 60);
    }

    #[test]
    fn what_is_finished_and_what_ends_unfinished_is_given_back_once() {
        let account = account(100);
        let (mut one, mut other) = (account.share(), account.share());
        for _ in 0..3 {
            other.hold(50).expect("within the limit");
            one.hold(50).expect("within the limit");
            one.deadline(Instant::now());
            one.finish();
            one.finish();
            assert_eq!(held(&account), 50);
        }
        drop((one, other));
        assert_eq!(held(&account), 0);
    }

    #[test]
    fn each_body_has_its_own_time_which_more_of_it_does_not_prolong() {
        let account = account(100);
        let (mut share, begun) = (account.share(), Instant::now());
        let later = begun + Duration::from_secs(5);
        assert_eq!(share.deadline(begun), begun + account.within);
        share.hold(10).expect("within the limit");
        assert_eq!(share.deadline(later), begun + account.within);
        share.finish();
        assert_eq!(share.deadline(later), later + account.within);
    }
}
