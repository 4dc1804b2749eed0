//! Statistics of the store of durable topics.

use serde::Serialize;

/// The store of durable topics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct StoreStats {
    /// Whether it takes messages.
    pub state: StoreState,
    /// Topics that it keeps, whether used or not.
    pub topics: u64,
    /// Bytes of its files.
    pub bytes: u64,
    /// Bytes of the messages that topics keep.
    pub live_bytes: u64,
    /// Free bytes of its file system; `None` if that does not say.
    pub free_bytes: Option<u64>,
    /// Files of the log.
    pub segments: u64,
    /// Bytes written to the log since the start.
    pub written_bytes: u64,
    /// Bytes among these that were copied to give back space.
    pub copied_bytes: u64,
    /// Bytes of messages that are taken and not yet stored.
    pub pending_bytes: u64,
    /// Messages stored since the start.
    pub stored: ByLevel,
    /// Groups in which they were written.
    pub groups: u64,
    /// Half of the groups have at most so many entries.
    pub group_records_p50: u64,
    /// Time of a sync in microseconds.
    pub sync_us: Latency,
    /// Time in microseconds from taking a message until it was stored, for topics with `os`.
    pub os_us: Latency,
    /// The same for topics with `fsync`.
    pub fsync_us: Latency,
    /// Messages refused since the start.
    pub refused: Refused,
    /// Ranges of its files that cannot be read.
    pub damaged_ranges: u64,
    /// Time in milliseconds that opening it took.
    pub recovery_ms: u64,
    /// Bytes at its end that the process before had not completed.
    pub torn_bytes: u64,
    /// Times that the system's clock had jumped, so that ages did not count for a while.
    pub clock_holds: u64,
}

/// A distribution of times since the start, each rounded up by at most a quarter.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Latency {
    /// Half took at most this.
    pub p50: u64,
    /// 90 % took at most this.
    pub p90: u64,
    /// 99 % took at most this.
    pub p99: u64,
    /// The longest.
    pub max: u64,
    /// How many there were.
    pub count: u64,
}

impl Latency {
    /// Each percentile with its name.
    pub(super) fn percentiles(&self) -> [(&'static str, u64); 4] {
        [("50", self.p50), ("90", self.p90), ("99", self.p99), ("100", self.max)]
    }
}

/// Whether a store takes messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum StoreState {
    /// It does.
    Ok,
    /// The disk is full; it takes some again when there is room.
    Full,
    /// The disk has failed; it takes none until the server is started again.
    Failed,
}

impl StoreState {
    /// Each state with its name.
    pub(super) const ALL: [(Self, &'static str); 3] =
        [(Self::Ok, "ok"), (Self::Full, "full"), (Self::Failed, "failed")];
}

/// Messages by the durability of their topic.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ByLevel {
    /// Topics with `os`.
    pub os: u64,
    /// Topics with `fsync`.
    pub fsync: u64,
}

/// Refused messages by reason.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Refused {
    /// The disk was full.
    pub full: u64,
    /// `store.pending_bytes` were not yet stored.
    pub busy: u64,
    /// The disk had failed, or the server was about to end.
    pub failed: u64,
}
