//! Whether the clock can be trusted to call records old. Pure.
//!
//! A wall clock that jumps ahead must not drop everything, so age counts only after a minute of uptime, and not for an
//! hour after wall clock and uptime have moved apart.

/// Uptime before age counts.
const SETTLE_MS: u64 = 60_000;
/// How far the clocks may move apart between two looks.
const APART_MS: u64 = 60_000;

/// Compares the wall clock with the uptime.
#[derive(Debug)]
pub(crate) struct Clock {
    hold_ms: u64,
    last: Option<(u64, u64)>,
    held_until: u64,
    /// Times that the clocks moved apart.
    pub(crate) holds: u64,
}

impl Clock {
    /// After a jump, age does not count for so long.
    pub(crate) fn new(hold_ms: u64) -> Self {
        Self { hold_ms, last: None, held_until: SETTLE_MS, holds: 0 }
    }

    /// Whether records may be dropped for their age now.
    pub(crate) fn is_trusted(&mut self, wall_ms: u64, uptime_ms: u64) -> bool {
        if let Some((wall, uptime)) = self.last.replace((wall_ms, uptime_ms)) {
            let expected = wall.saturating_add(uptime_ms.saturating_sub(uptime));
            if wall_ms.abs_diff(expected) > APART_MS {
                self.holds += 1;
                self.held_until = uptime_ms.saturating_add(self.hold_ms);
            }
        }
        uptime_ms >= self.held_until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_jumps_is_not_trusted_for_a_while() {
        let mut clock = Clock::new(3_600_000);
        assert!(!clock.is_trusted(1_000_000, 0), "just started");
        assert!(clock.is_trusted(1_070_000, 70_000));
        assert!(clock.is_trusted(1_085_000, 80_000), "a small step is fine");
        assert!(!clock.is_trusted(90_000_000, 90_000), "a day ahead");
        assert!(!clock.is_trusted(91_000_000, 1_090_000));
        assert!(clock.is_trusted(93_700_000, 3_790_000), "an hour later the clock is what it is");
        assert!(!clock.is_trusted(1_000_000, 3_800_000), "back again");
        assert_eq!(clock.holds, 2);
    }
}
