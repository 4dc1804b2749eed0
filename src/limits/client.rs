//! The allowance of one client: messages, bytes, new topics and pages per second. `session` charges each request,
//! `handler` each page, and `topic` each new topic.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::RwLock;

use super::bucket::{Bucket, Refusal};
use super::pages::{PageTurn, Pages, unlimited};
use crate::config::Rates;
use crate::message::{ErrorCode, ErrorReply};
use crate::metrics::Counters;

/// Bytes per cell: coarse enough for gigabytes per second, at which one byte takes less than a nanosecond.
const CELL_BYTES: u64 = 16;

/// The allowance of one client.
#[derive(Debug)]
pub(crate) struct Allowance {
    /// False if there is no limit to check.
    is_limited: AtomicBool,
    /// The rate of messages, which may change, with the number it was made of.
    messages: RwLock<Option<Messages>>,
    bytes: Option<Bucket>,
    topics: Option<Bucket>,
    /// Pages of lists and logs.
    pages: Option<Pages>,
    /// Pongs, counted separately because the server asked for them.
    pongs: Option<Bucket>,
    /// Default messages per second and their burst.
    default_rate: (u64, u64),
    /// Refusals that may be outstanding.
    most_refusals: u64,
    /// Whether more were.
    is_used_up: AtomicBool,
    counters: Arc<Counters>,
}

/// A refusal by a rate: the request may succeed after this time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RetryAfter {
    pub(crate) ms: u64,
}

#[derive(Debug)]
struct Messages {
    per_second: u64,
    bucket: Bucket,
}

const ONE: NonZeroU32 = NonZeroU32::MIN;

impl Allowance {
    /// The allowance that the settings give; unlimited for an exempt client. Counts the client's traffic and refusals
    /// in `counters`.
    pub(crate) fn new(rates: &Rates, is_exempt: bool, counters: Arc<Counters>) -> Self {
        let bucket = |per_second, burst| if is_exempt { None } else { Bucket::new(per_second, burst) };
        let cells = |bytes: u64| bytes.div_ceil(CELL_BYTES);
        let allowance = Self {
            is_limited: AtomicBool::new(false),
            messages: RwLock::default(),
            bytes: bucket(cells(rates.client_bytes), cells(rates.client_bytes_burst)),
            topics: bucket(rates.client_topics, rates.client_topics_burst),
            pages: if is_exempt { None } else { Pages::new(rates.client_bytes, rates.client_bytes_burst) },
            pongs: bucket(rates.client_messages, rates.client_messages_burst),
            default_rate: if is_exempt { (0, 0) } else { (rates.client_messages, rates.client_messages_burst) },
            most_refusals: rates.client_refusals_burst,
            is_used_up: AtomicBool::new(false),
            counters,
        };
        allowance.set_message_rate(None);
        allowance
    }

    /// Counters of the client's traffic.
    pub(crate) fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Sets the rate of messages from now on, with twice as many as its burst; `None` restores that of the settings. An
    /// explicit rate applies to exempt clients as well. A spent burst stays spent.
    pub(crate) fn set_message_rate(&self, per_second: Option<NonZeroU32>) {
        let given = |rate: NonZeroU32| (rate.get().into(), 2 * u64::from(rate.get()));
        let (per_second, burst) = per_second.map_or(self.default_rate, given);
        let mut messages = self.messages.write();
        if messages.as_ref().is_some_and(|now| now.per_second == per_second) {
            return;
        }
        let bucket = Bucket::new(per_second, burst);
        if let (Some(before), Some(bucket)) = (&*messages, &bucket) {
            bucket.continue_from(&before.bucket);
        }
        *messages = bucket.map(|bucket| Messages { per_second, bucket });
        self.is_limited.store(messages.is_some() || self.bytes.is_some(), Ordering::Relaxed);
    }

    /// Charges one message of `bytes` bytes. An error is the reply to it, and the message has no effect.
    pub(crate) fn take(&self, bytes: usize) -> Result<(), ErrorReply> {
        if !self.is_limited.load(Ordering::Relaxed) {
            return Ok(());
        }
        if let Some(Messages { per_second, bucket }) = &*self.messages.read() {
            bucket.take(ONE).map_err(|refusal| {
                self.refused(refusal, &format!("this client sends more than the {per_second} messages a second it may"))
            })?;
        }
        self.take_bytes(bytes)
    }

    /// Charges a message that counts only by its `bytes`, as the reply to a request that the server has passed on.
    pub(crate) fn take_bytes(&self, bytes: usize) -> Result<(), ErrorReply> {
        if let Some(bucket) = &self.bytes {
            let cells = u32::try_from((bytes as u64).div_ceil(CELL_BYTES)).unwrap_or(u32::MAX);
            bucket
                .take(NonZeroU32::new(cells).unwrap_or(ONE))
                .map_err(|refusal| self.refused(refusal, "this client sends more bytes a second than it may"))?;
        }
        Ok(())
    }

    /// Charges one `pong`, which is never refused; but a client that keeps sending more is closed in the end.
    pub(crate) fn take_pong(&self) {
        if let Some(Err(Refusal { outstanding, .. })) = self.pongs.as_ref().map(|pongs| pongs.take(ONE)) {
            self.record_excess(outstanding);
        }
    }

    /// Charges one new topic.
    ///
    /// # Errors
    /// The client creates topics faster than allowed.
    pub(crate) fn take_topic(&self) -> Result<(), RetryAfter> {
        let Some(bucket) = &self.topics else { return Ok(()) };
        bucket.take(ONE).map_err(|refusal| self.count(refusal))
    }

    /// The right to a page of a list or log, if one may be made at once.
    pub(crate) fn page_now(&self) -> Option<PageTurn<'_>> {
        self.pages.as_ref().map_or(Some(unlimited()), Pages::now)
    }

    /// Waits for the right to a page.
    pub(crate) async fn page(&self) -> PageTurn<'_> {
        match &self.pages {
            Some(pages) => pages.turn().await,
            None => unlimited(),
        }
    }

    /// Charges a page of `bytes` bytes before compression, which measures its work and memory.
    pub(crate) fn gave_page(&self, bytes: usize) {
        if let Some(pages) = &self.pages {
            pages.give(bytes, Instant::now());
        }
    }

    /// Whether the client ignored too many refusals and must be closed.
    pub(crate) fn is_used_up(&self) -> bool {
        self.is_used_up.load(Ordering::Relaxed)
    }

    /// Records something above a rate, while these refusals were outstanding.
    fn record_excess(&self, outstanding: u32) {
        if u64::from(outstanding) >= self.most_refusals {
            self.is_used_up.store(true, Ordering::Relaxed);
        }
    }

    fn count(&self, Refusal { wait, outstanding }: Refusal) -> RetryAfter {
        self.counters.refused.add(1);
        self.record_excess(outstanding);
        RetryAfter { ms: milliseconds(wait) }
    }

    fn refused(&self, refusal: Refusal, what: &str) -> ErrorReply {
        let RetryAfter { ms: wait_ms } = self.count(refusal);
        let message = format!("{what}; send this again in {wait_ms} ms");
        ErrorReply::new(ErrorCode::RateLimited, message).with_retry_after_ms(wait_ms)
    }
}

/// A wait in whole milliseconds, rounded up so that it is long enough.
fn milliseconds(wait: Duration) -> u64 {
    u64::try_from(wait.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn rates(change: impl FnOnce(&mut Rates)) -> Rates {
        let mut rates = Config::default().rates;
        change(&mut rates);
        rates
    }

    fn taken(allowance: &Allowance, tries: usize, bytes: usize) -> usize {
        (0..tries).filter(|_| allowance.take(bytes).is_ok()).count()
    }

    #[test]
    fn waits_are_rounded_up_to_milliseconds() {
        for (nanos, expected) in [(0, 1), (1, 1), (1_000_000, 1), (1_000_001, 2), (59_999_999, 60)] {
            assert_eq!(milliseconds(Duration::from_nanos(nanos)), expected, "{nanos} ns");
        }
    }

    #[test]
    fn a_client_is_refused_after_its_burst_and_closed_after_too_many_refusals() {
        let rates = rates(|rates| {
            (rates.client_messages, rates.client_messages_burst, rates.client_refusals_burst) = (1, 5, 3);
        });
        let allowance = Allowance::new(&rates, false, Arc::default());
        assert_eq!(taken(&allowance, 5, 10), 5);
        for n in 0..4 {
            assert!(!allowance.is_used_up(), "after {n} refusals");
            let refusal = allowance.take(10).expect_err("nothing is left");
            assert_eq!(refusal.code, 429);
            let wait = refusal.retry_after_ms.expect("a time");
            assert!((1000 * n + 1..=1000 * (n + 1)).contains(&wait), "refusal {n} is told {wait} ms");
        }
        assert!(allowance.is_used_up());
    }

    #[test]
    fn bytes_and_topics_are_limited_separately() {
        let rates = rates(|rates| {
            (rates.client_bytes, rates.client_bytes_burst) = (16, 1 << 16);
            (rates.client_topics, rates.client_topics_burst) = (1, 2);
        });
        let allowance = Allowance::new(&rates, false, Arc::default());
        assert_eq!(taken(&allowance, 100, 1 << 12), 16);
        assert!(allowance.take_topic().is_ok() && allowance.take_topic().is_ok());
        assert!(allowance.take_topic().expect_err("the third").ms > 0);
    }

    #[test]
    fn an_exempt_client_has_no_limit_until_a_rate_is_set() {
        let rates = rates(|rates| (rates.client_messages, rates.client_messages_burst) = (1, 1));
        let allowance = Allowance::new(&rates, true, Arc::default());
        assert_eq!(taken(&allowance, 50_000, 1 << 20), 50_000);
        let rate = NonZeroU32::new(3).expect("not none");
        allowance.set_message_rate(Some(rate));
        assert_eq!(taken(&allowance, 100, 10), 6);
        allowance.set_message_rate(Some(rate));
        assert_eq!(taken(&allowance, 100, 10), 0, "set again, it is the same rate");
        allowance.set_message_rate(NonZeroU32::new(50));
        assert_eq!(taken(&allowance, 100, 10), 0, "another rate is no new burst");
        allowance.set_message_rate(None);
        assert_eq!(taken(&allowance, 50_000, 10), 50_000);
    }
}
