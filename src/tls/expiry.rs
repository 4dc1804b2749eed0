//! Tracks when the server's certificate expires: for the statistics, and for warnings in the log, once a day from some
//! days before. `server` in this room owns the watch.

use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use tracing::{error, warn};

use super::Validity;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// The expiry of the certificate in use. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Expiry(watch::Receiver<Option<u64>>);

impl Expiry {
    /// The expiry in seconds since 1970; `None` if the certificate cannot be parsed.
    pub(crate) fn at(&self) -> Option<u64> {
        *self.0.borrow()
    }
}

/// Decides when to warn about the certificate in use.
pub(super) struct ExpiryWatch {
    validity: Option<Validity>,
    publisher: watch::Sender<Option<u64>>,
    /// Time before the expiry from which it warns; zero is never.
    within: Duration,
    warned: Option<SystemTime>,
}

impl ExpiryWatch {
    pub(super) fn new(within_days: u64) -> Self {
        let within = DAY.saturating_mul(u32::try_from(within_days).unwrap_or(u32::MAX));
        Self { validity: None, publisher: watch::Sender::new(None), within, warned: None }
    }

    pub(super) fn listener(&self) -> Expiry {
        Expiry(self.publisher.subscribe())
    }

    /// Tracks another certificate from now on.
    pub(super) fn begin(&mut self, validity: Option<Validity>) {
        (self.validity, self.warned) = (validity, None);
        self.publisher.send_replace(validity.map(Validity::ends));
    }

    /// Time until the next warning is due; `None` if there will be none.
    pub(super) fn next(&self, now: SystemTime) -> Option<Duration> {
        let validity = self.validity.filter(|_| !self.within.is_zero())?;
        // A certificate valid for a week is renewed later than one valid for a year.
        let within = self.within.min(validity.lasts() / 4);
        let until = validity.left(now).saturating_sub(within);
        // If the clock was set back, the warning may be repeated.
        let again = self.warned.and_then(|warned| DAY.checked_sub(now.duration_since(warned).ok()?));
        Some(until.max(again.unwrap_or_default()))
    }

    /// Logs how long the certificate is still valid.
    pub(super) fn warn(&mut self, name: &str, now: SystemTime) {
        let Some(validity) = self.validity else { return };
        self.warned = Some(now);
        let left = validity.left(now);
        let (days, hours) = (left.as_secs() / DAY.as_secs(), left.as_secs() / 3600);
        let not_after = validity.ends();
        match (days, hours) {
            _ if left.is_zero() => {
                error!(not_after, "The certificate {name} has expired, so clients refuse to connect; replace it")
            }
            (0 | 1, _) => warn!(not_after, "The certificate {name} expires in {hours} hours; replace it"),
            _ => warn!(not_after, "The certificate {name} expires in {days} days; replace it"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::validity::tests::validity;
    use super::*;

    fn watch(days: u64, lasts_days: u64) -> (ExpiryWatch, impl Fn(u64) -> SystemTime) {
        let mut watch = ExpiryWatch::new(days);
        let begins = 1_000_000_000;
        let day = DAY.as_secs();
        watch.begin(Some(validity(begins, begins + lasts_days * day)));
        (watch, move |day_of_it| SystemTime::UNIX_EPOCH + Duration::from_secs(begins + day_of_it * day))
    }

    #[test]
    fn warnings_start_some_days_before_and_are_daily() {
        let (mut watch, day) = watch(14, 90);
        assert_eq!(watch.listener().at(), Some(1_000_000_000 + 90 * DAY.as_secs()));
        assert_eq!(watch.next(day(0)), Some(76 * DAY));
        assert_eq!(watch.next(day(76)), Some(Duration::ZERO));
        for at in [76, 77, 100] {
            watch.warn("a", day(at));
            assert_eq!(watch.next(day(at)), Some(DAY), "day {at}");
            assert_eq!(watch.next(day(at + 1)), Some(Duration::ZERO), "day {at}");
        }
        assert_eq!(watch.next(day(3)), Some(73 * DAY), "the clock was set back");
        watch.begin(None);
        assert_eq!((watch.next(day(76)), watch.listener().at()), (None, None));
    }

    #[test]
    fn a_short_certificate_is_warned_about_in_its_last_quarter_and_none_with_0_days() {
        let (short, day) = watch(14, 8);
        assert_eq!(short.next(day(0)), Some(6 * DAY));
        let (never, day) = watch(0, 8);
        assert_eq!(never.next(day(9)), None);
    }
}
