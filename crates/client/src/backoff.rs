//! The delay before the next attempt: exponential backoff with full jitter, so that clients that lost the same server
//! do not reconnect together (docs/PROTOCOL.md, "Closing").

use std::time::Duration;

/// Upper bound of the first delay; it doubles with each further attempt.
const FIRST: Duration = Duration::from_millis(500);
/// Longest delay. A connection that lasted as long resets the count, so clients do not storm a server that accepts them
/// only to lose them.
const LONGEST: Duration = Duration::from_secs(20);

/// The attempts since the last connection that lasted.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    tries: u32,
}

impl Backoff {
    /// The delay before the next attempt.
    pub(super) fn next_delay(&mut self) -> Duration {
        let delay = ceiling(self.tries).mul_f64(fastrand::f64());
        self.tries = self.tries.saturating_add(1);
        delay
    }

    /// Records how long a connection lasted.
    pub(super) fn connected_for(&mut self, lived: Duration) {
        if lived >= LONGEST {
            self.tries = 0;
        }
    }
}

/// The longest delay after so many attempts.
fn ceiling(tries: u32) -> Duration {
    FIRST.saturating_mul(1_u32.checked_shl(tries).unwrap_or(u32::MAX)).min(LONGEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ceiling_doubles_to_its_limit_and_every_delay_is_below_it() {
        let ceilings: Vec<u128> = (0..8).map(|tries| ceiling(tries).as_millis()).collect();
        assert_eq!(ceilings, [500, 1000, 2000, 4000, 8000, 16_000, 20_000, 20_000]);
        assert_eq!(ceiling(u32::MAX), LONGEST);
        for tries in [0, 3, 40, u32::MAX] {
            assert!((0..100).all(|_| Backoff { tries }.next_delay() <= ceiling(tries)));
        }
    }

    #[test]
    fn only_a_connection_that_lasted_resets_the_count() {
        let mut backoff = Backoff::default();
        for _ in 0..5 {
            backoff.next_delay();
            backoff.connected_for(Duration::from_millis(10));
        }
        assert_eq!(backoff.tries, 5, "let in and lost again is no success");
        backoff.connected_for(LONGEST);
        assert_eq!(backoff.tries, 0);
    }
}
