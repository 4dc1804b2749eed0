//! Figures of a store, for metrics.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::error::{Health, Refusal};
use crate::record::Level;
use crate::store::Store;

/// Buckets of a distribution for each doubling.
const PARTS: u32 = 4;
const BUCKETS: usize = 40 * PARTS as usize;

/// Counts values by size: four buckets for each doubling, so a quantile is at most a quarter too large.
#[derive(Debug)]
pub(crate) struct Counter {
    buckets: Box<[AtomicU64; BUCKETS]>,
    sum: AtomicU64,
}

impl Default for Counter {
    fn default() -> Self {
        Self { buckets: Box::new([const { AtomicU64::new(0) }; BUCKETS]), sum: AtomicU64::new(0) }
    }
}

fn bucket(value: u64) -> usize {
    let exponent = value.max(1).ilog2();
    let part = if exponent < 2 { 0 } else { value >> (exponent - 2) & 3 };
    ((exponent * PARTS) as usize + usize::try_from(part).unwrap_or(0)).min(BUCKETS - 1)
}

/// The largest value of a bucket.
fn most(bucket: usize) -> u64 {
    let (exponent, part) = (bucket as u64 / u64::from(PARTS), bucket as u64 % u64::from(PARTS));
    if exponent < 2 { (2 << exponent) - 1 } else { ((5 + part) << (exponent - 2)) - 1 }
}

impl Counter {
    pub(crate) fn add(&self, value: u64) {
        self.buckets[bucket(value)].fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(value, Ordering::Relaxed);
    }

    pub(crate) fn add_time(&self, time: Duration) {
        self.add(u64::try_from(time.as_micros()).unwrap_or(u64::MAX));
    }

    fn snapshot(&self) -> Distribution {
        let buckets: Vec<u64> = self.buckets.iter().map(|count| count.load(Ordering::Relaxed)).collect();
        Distribution { count: buckets.iter().sum(), sum: self.sum.load(Ordering::Relaxed), buckets }
    }
}

/// How values are distributed since the store was opened.
#[derive(Debug, Clone, Default)]
pub struct Distribution {
    /// Number of values.
    pub count: u64,
    /// Sum of the values.
    pub sum: u64,
    buckets: Vec<u64>,
}

impl Distribution {
    /// The value that this share of all does not exceed, rounded up by at most a quarter; 0 if there are none.
    pub fn quantile(&self, share: f64) -> u64 {
        #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let wanted = ((self.count as f64 * share).ceil() as u64).clamp(1, self.count.max(1));
        let mut seen = 0;
        let reached = self.buckets.iter().position(|count| {
            seen += count;
            seen >= wanted
        });
        reached.map_or(0, most)
    }
}

/// What the threads of a store count.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) appended: [AtomicU64; 2],
    pub(crate) group_records: Counter,
    pub(crate) sync_micros: Counter,
    pub(crate) commit_micros: [Counter; 2],
    pub(crate) clock_holds: AtomicU64,
}

/// The place of a level in figures that are kept by level.
pub(crate) const fn place(level: Level) -> usize {
    match level {
        Level::Os => 0,
        Level::Fsync => 1,
    }
}

/// Records that were refused, by reason.
#[derive(Debug, Clone, Copy, Default)]
pub struct Refused {
    /// The disk was full.
    pub full: u64,
    /// The store had failed.
    pub failed: u64,
    /// Too much waited to be stored.
    pub busy: u64,
}

impl Refused {
    pub(crate) fn count(&mut self, refusal: Refusal) {
        match refusal {
            Refusal::Full => self.full += 1,
            Refusal::Failed => self.failed += 1,
            Refusal::Busy => self.busy += 1,
            Refusal::Closed | Refusal::TooLong => {}
        }
    }
}

/// What the log knows of itself.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct LogStats {
    pub(crate) bytes: u64,
    pub(crate) segments: usize,
    pub(crate) free_bytes: Option<u64>,
    pub(crate) written_bytes: u64,
    pub(crate) copied_bytes: u64,
}

/// Figures of a store since it was opened.
#[derive(Debug, Clone)]
pub struct Stats {
    /// Whether records are taken.
    pub health: Health,
    /// Topics.
    pub topics: usize,
    /// Bytes of all segments on the disk.
    pub bytes: u64,
    /// Bytes of the contents that are kept.
    pub live_bytes: u64,
    /// Segments.
    pub segments: usize,
    /// Free bytes of the file system, if it says so.
    pub free_bytes: Option<u64>,
    /// Bytes that were written to segments.
    pub written_bytes: u64,
    /// Of these, bytes of copies that were made to give back space.
    pub copied_bytes: u64,
    /// Records that were stored with the level `os`, and with `fsync`.
    pub appended: [u64; 2],
    /// Entries in a group; the number of values is that of the groups.
    pub group_records: Distribution,
    /// Microseconds of a sync.
    pub sync_micros: Distribution,
    /// Microseconds from taking a record until it counted as stored, for the levels `os` and `fsync`.
    pub commit_micros: [Distribution; 2],
    /// Bytes that were taken and are not yet stored.
    pub pending_bytes: usize,
    /// Records that were refused.
    pub refused: Refused,
    /// Parts of files that cannot be read, as far as it is known.
    pub damaged_ranges: usize,
    /// Time that opening took.
    pub recovery: Duration,
    /// Bytes behind the end of the log that a former process had begun to write and not completed.
    pub torn_bytes: u64,
    /// Times that age was not looked at for a while because the wall clock had jumped.
    pub clock_holds: u64,
}

impl Store {
    /// Figures for metrics. Looks at every topic once; no lock is held longer than for one topic.
    pub fn stats(&self) -> Stats {
        let shared = &self.shared;
        let topics = self.topics();
        let log = shared.engine.stats();
        let counters = &shared.counters;
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let (pending_bytes, refused) = shared.queue.figures();
        Stats {
            health: shared.health(),
            topics: topics.len(),
            bytes: log.bytes,
            live_bytes: topics.iter().map(|topic| topic.head().bytes).sum(),
            segments: log.segments,
            free_bytes: log.free_bytes,
            written_bytes: log.written_bytes,
            copied_bytes: log.copied_bytes,
            appended: [load(&counters.appended[0]), load(&counters.appended[1])],
            group_records: counters.group_records.snapshot(),
            sync_micros: counters.sync_micros.snapshot(),
            commit_micros: [counters.commit_micros[0].snapshot(), counters.commit_micros[1].snapshot()],
            pending_bytes,
            refused,
            damaged_ranges: shared.engine.damage().len(),
            recovery: shared.recovery,
            torn_bytes: shared.torn_bytes,
            clock_holds: load(&counters.clock_holds),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_at_most_a_quarter_too_large() {
        for value in (0..100).chain([1000, 12_345, 1 << 30]) {
            let counter = Counter::default();
            counter.add(value);
            let found = counter.snapshot().quantile(0.5);
            assert!(found >= value && found <= value.max(1) * 5 / 4 + 1, "{value} became {found}");
        }
        let counter = Counter::default();
        (1..=1000).for_each(|value| counter.add(value));
        let all = counter.snapshot();
        assert_eq!((all.count, all.sum), (1000, 500_500));
        assert!((500..=640).contains(&all.quantile(0.5)) && (990..=1279).contains(&all.quantile(0.99)));
        assert_eq!(Counter::default().snapshot().quantile(0.5), 0);
    }
}
