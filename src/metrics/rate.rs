//! The recent rate of an event, in which older events count less and less. Pure.

/// Time after which an event counts for a third (1/e).
const MEMORY_MS: f64 = 10_000.0;
/// Shortest time over which a rate is taken: one event a moment ago is not a thousand per second.
const SHORTEST_MS: u64 = 1000;
/// Pause after which a rate starts again: less than 1 % of the earlier one is left.
const PAUSE_MS: u64 = 50_000;

/// A rate per second, decayed to the time of its last event.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Rate {
    /// The rate at `at_ms`, as if events had been counted forever.
    decayed: f64,
    at_ms: u64,
    since_ms: u64,
    total: u64,
}

impl Rate {
    /// Counts an event. If the clock was set back, time stands still here.
    pub(crate) fn count(&mut self, now_ms: u64) {
        if self.total == 0 || now_ms.saturating_sub(self.at_ms) > PAUSE_MS {
            self.since_ms = now_ms;
        }
        self.decayed = self.decayed(now_ms) + 1000.0 / MEMORY_MS;
        self.at_ms = self.at_ms.max(now_ms);
        self.total += 1;
    }

    /// The rate at a time. Events counted for a shorter time than it takes to forget are divided by that time, so a
    /// steady rate is right from its first second.
    pub(crate) fn per_second(&self, now_ms: u64) -> f64 {
        let counted_ms = now_ms.max(self.at_ms).saturating_sub(self.since_ms).max(SHORTEST_MS);
        self.decayed(now_ms) / -(-(counted_ms as f64) / MEMORY_MS).exp_m1()
    }

    fn decayed(&self, now_ms: u64) -> f64 {
        match now_ms.saturating_sub(self.at_ms) {
            0 => self.decayed,
            // Exact far beyond the time after which nothing is left.
            past => self.decayed * (-(past as f64) / MEMORY_MS).exp(),
        }
    }

    /// Number of events.
    pub(crate) fn total(&self) -> u64 {
        self.total
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_steady_rate_is_exact_and_fades_after_its_end() {
        let mut rate = Rate::default();
        // 50 a second for two minutes.
        (0..6000).for_each(|n| rate.count(1_000_000 + n * 20));
        let end = 1_000_000 + 120_000;
        assert!((rate.per_second(end) - 50.0).abs() < 0.5, "{rate:?}");
        assert!((rate.per_second(end + 10_000) - 50.0 / std::f64::consts::E).abs() < 0.5, "{rate:?}");
        assert!(rate.per_second(end + 300_000) < 1e-9, "{rate:?}");
        assert_eq!(rate.total(), 6000);
    }

    #[test]
    fn a_steady_rate_is_exact_from_its_first_seconds_and_after_a_pause() {
        let mut rate = Rate::default();
        for start in [1_000_000, 1_600_000] {
            for n in 0..1200 {
                rate.count(start + n * 50);
                let told = rate.per_second(start + n * 50);
                assert!(n < 40 || (told - 20.0).abs() < 0.6, "{told} after {} ms of 20 a second", n * 50);
                assert!(told < 22.0, "{told} after {} ms", n * 50);
            }
        }
    }

    #[test]
    fn one_event_is_at_most_one_a_second() {
        let mut rate = Rate::default();
        assert_eq!(rate.per_second(5000), 0.0, "nothing was counted");
        rate.count(5000);
        assert!((1.0..1.1).contains(&rate.per_second(5000)), "{rate:?}");
        assert!((0.0..0.2).contains(&rate.per_second(15_000)), "{rate:?}");
    }

    #[test]
    fn a_clock_set_back_or_far_ahead_is_harmless() {
        let mut rate = Rate::default();
        rate.count(5000);
        rate.count(1000);
        let told = rate.per_second(5000);
        assert!((2.0..2.2).contains(&told) && (rate.per_second(0) - told).abs() < 1e-9, "{rate:?}");
        assert_eq!(rate.per_second(u64::MAX), 0.0);
    }
}
