//! How often something happens of late: a rate in which what is past counts less and less. Pure.

/// After so long something counts for a third (1/e) of what it did.
const MEMORY_MS: f64 = 10_000.0;

/// A rate per second, decayed to the time of its last event.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Rate {
    per_second: f64,
    at_ms: u64,
    total: u64,
}

impl Rate {
    /// It has happened once more. A clock that was set back stands still here.
    pub(crate) fn count(&mut self, now_ms: u64) {
        self.per_second = self.per_second(now_ms) + 1000.0 / MEMORY_MS;
        self.at_ms = self.at_ms.max(now_ms);
        self.total += 1;
    }

    /// The rate at a time.
    pub(crate) fn per_second(&self, now_ms: u64) -> f64 {
        match now_ms.saturating_sub(self.at_ms) {
            0 => self.per_second,
            // Exact far beyond the time after which nothing is left of it.
            past => self.per_second * (-(past as f64) / MEMORY_MS).exp(),
        }
    }

    /// How often it has happened at all.
    pub(crate) fn total(&self) -> u64 {
        self.total
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_on_steadily_has_its_rate_and_what_ends_fades() {
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
    fn a_clock_that_is_set_back_or_far_ahead_does_no_harm() {
        let mut rate = Rate::default();
        rate.count(5000);
        rate.count(1000);
        assert!((rate.per_second(0) - 0.2).abs() < 1e-9 && (rate.per_second(5000) - 0.2).abs() < 1e-9, "{rate:?}");
        assert_eq!(rate.per_second(u64::MAX), 0.0);
    }
}
