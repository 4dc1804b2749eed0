//! Limits failed admin-token attempts per address. The table is bounded; when it is full, the entry that expires first
//! is evicted.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::address::Network;

/// Time for which one wrong token counts.
const EACH: Duration = Duration::from_secs(1);
/// Wrong tokens that may come at once.
const BURST: u32 = 10;
/// Addresses tracked, about 50 bytes each.
const ADDRESSES: usize = 10_000;

/// By address, the time at which its wrong tokens no longer count.
#[derive(Debug, Default)]
pub(super) struct AuthFailures(Mutex<HashMap<Network, Instant>>);

/// Result of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TokenCheck {
    Right,
    Wrong,
    /// Too many wrong ones before: this one is not checked. Another may be tried after this time.
    TooMany(Duration),
}

impl AuthFailures {
    /// Records an attempt; `is_right` tells whether its token was right.
    pub(super) fn show(&self, from: Network, is_right: bool, now: Instant) -> TokenCheck {
        let mut over = self.0.lock();
        let until = over.get(&from).copied().filter(|&until| until > now).unwrap_or(now);
        let wait = (until - now).saturating_sub(EACH * (BURST - 1));
        if !wait.is_zero() {
            return TokenCheck::TooMany(wait);
        }
        if is_right {
            return TokenCheck::Right;
        }
        if over.len() >= ADDRESSES && !over.contains_key(&from) {
            over.retain(|_, until| *until > now);
            if over.len() >= ADDRESSES
                && let Some(first) = over.iter().min_by_key(|&(_, until)| until).map(|(&network, _)| network)
            {
                over.remove(&first);
            }
        }
        over.insert(from, until + EACH);
        TokenCheck::Wrong
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    fn network(n: u32) -> Network {
        IpAddr::from(n.to_be_bytes()).into()
    }

    #[test]
    fn after_ten_wrong_tokens_one_per_second_is_checked() {
        let (auth_failures, now) = (AuthFailures::default(), Instant::now());
        for _ in 0..100 {
            assert_eq!(auth_failures.show(network(1), true, now), TokenCheck::Right, "right ones do not count");
        }
        for n in 0..10 {
            assert_eq!(auth_failures.show(network(1), false, now), TokenCheck::Wrong, "guess {n}");
        }
        for is_right in [false, true] {
            assert_eq!(auth_failures.show(network(1), is_right, now), TokenCheck::TooMany(EACH));
        }
        assert_eq!(auth_failures.show(network(2), true, now), TokenCheck::Right, "other addresses are not affected");
        assert_eq!(auth_failures.show(network(1), false, now + EACH), TokenCheck::Wrong, "one more");
        assert_eq!(auth_failures.show(network(1), true, now + EACH), TokenCheck::TooMany(EACH));
        assert_eq!(auth_failures.show(network(1), true, now + 2 * EACH), TokenCheck::Right);
        let later = now + 100 * EACH;
        let again = (0..20).filter(|_| auth_failures.show(network(1), false, later) == TokenCheck::Wrong).count();
        assert_eq!(again, 10, "time forgives no more than there were");
    }

    #[test]
    fn many_guessers_use_bounded_memory_and_lock_nobody_out() {
        let (auth_failures, now) = (AuthFailures::default(), Instant::now());
        (0..10).for_each(|_| assert_eq!(auth_failures.show(network(7), false, now), TokenCheck::Wrong));
        let crowd = u32::try_from(ADDRESSES).expect("it fits") + 500;
        for n in 1000..1000 + crowd {
            assert_eq!(auth_failures.show(network(n), false, now), TokenCheck::Wrong);
        }
        assert_eq!(auth_failures.0.lock().len(), ADDRESSES);
        assert!(
            matches!(auth_failures.show(network(7), true, now), TokenCheck::TooMany(_)),
            "the most active guesser is kept"
        );
        assert_eq!(auth_failures.show(network(8), true, now), TokenCheck::Right);
        assert_eq!(auth_failures.show(network(9), false, now + 2 * EACH), TokenCheck::Wrong);
        assert_eq!(auth_failures.0.lock().len(), 2, "the others' guesses are over");
    }
}
