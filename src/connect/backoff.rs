//! When to try again: exponential backoff with full jitter, so that clients that lost the same server do not come back
//! together (docs/PROTOCOL.md, "Time and load").

use std::time::Duration;

/// The first try comes within this time, each further one within twice the time of the one before.
const FIRST: Duration = Duration::from_millis(500);
/// No try is put off further than this.
const LONGEST: Duration = Duration::from_secs(20);

/// The most that attempt number `attempt`, counted from 0, is put off.
fn ceiling(attempt: u32) -> Duration {
    FIRST.saturating_mul(1_u32.checked_shl(attempt).unwrap_or(u32::MAX)).min(LONGEST)
}

/// How long to wait before attempt number `attempt`, counted from 0.
pub(super) fn delay(attempt: u32) -> Duration {
    ceiling(attempt).mul_f64(fastrand::f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ceiling_doubles_to_its_limit_and_every_delay_is_below_it() {
        let ceilings: Vec<u128> = (0..8).map(|attempt| ceiling(attempt).as_millis()).collect();
        assert_eq!(ceilings, [500, 1000, 2000, 4000, 8000, 16_000, 20_000, 20_000]);
        assert_eq!(ceiling(u32::MAX), LONGEST);
        for attempt in [0, 3, 40] {
            assert!((0..100).all(|_| delay(attempt) <= ceiling(attempt)));
        }
    }
}
