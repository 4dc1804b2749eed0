//! The store of topics that are kept on a disk.

use std::path::PathBuf;

use serde::Deserialize;

use super::{DAY_MS, GIB, MIB, path_or_none};

/// The store of topics that are kept on a disk.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Store {
    /// Directory of the store; made if it is missing. Each server needs one of its own. Default (in the file: an empty
    /// string): none, and rules for topics with a `durability` other than `memory` are errors.
    #[serde(deserialize_with = "path_or_none")]
    pub dir: Option<PathBuf>,
    /// Bytes of all its files; when they are used up, durable publishes get `error` 503 until topics have let go of old
    /// messages. At least four times `segment_bytes`. Default 10 GiB; 0: only `min_free_bytes` counts.
    pub max_bytes: u64,
    /// Bytes that stay free on its file system; with less, durable publishes get `error` 503. Default 256 MiB.
    pub min_free_bytes: u64,
    /// Bytes of one file of the log; space is given back by whole files. Default 64 MiB; 1 MiB to 1 GiB.
    pub segment_bytes: u64,
    /// Bytes of messages that are taken and not yet stored; with more, durable publishes get `error` 503. Default 64
    /// MiB; 1 MiB to 16 GiB.
    pub pending_bytes: u64,
    /// Time in milliseconds within which messages of level `os`, and acknowledgements without an `id`, are on the
    /// disk: the most that a loss of power takes. Default 1,000; 10 to 60,000.
    pub sync_interval_ms: u64,
    /// Newest messages of each durable topic that are in memory as well, so that most subscribers need no disk, within
    /// `limits.topic_memory_bytes`. Default 1,000; at most 1,000,000.
    pub cache_messages: u64,
    /// Bytes for these, per topic. Default 1 MiB; at most 1 GiB.
    pub cache_bytes: u64,
    /// Reads from the disk at the same time; others wait. Default 2; 1 to 64.
    pub readers: u64,
    /// Percentage of a file that is alive below which its messages are copied, so that it can be deleted. Default 25; 0
    /// never, at most 90.
    pub compact_below_percent: u64,
    /// Time in milliseconds for which no message is forgotten for its age after the system's clock has jumped. Default
    /// one hour; at most 30 days.
    pub clock_hold_ms: u64,
}

impl Default for Store {
    fn default() -> Self {
        Self {
            dir: None,
            max_bytes: 10 * GIB,
            min_free_bytes: 256 * MIB,
            segment_bytes: 64 * MIB,
            pending_bytes: 64 * MIB,
            sync_interval_ms: 1000,
            cache_messages: 1000,
            cache_bytes: MIB,
            readers: 2,
            compact_below_percent: 25,
            clock_hold_ms: 3_600_000,
        }
    }
}

impl Store {
    /// Each setting with its name, its value, and the least and the greatest one.
    pub(super) fn bounds(&self) -> [(&'static str, u64, u64, u64); 10] {
        [
            ("store.max_bytes", self.max_bytes, 0, 1 << 60),
            ("store.min_free_bytes", self.min_free_bytes, 0, 1 << 60),
            ("store.segment_bytes", self.segment_bytes, MIB, GIB),
            ("store.pending_bytes", self.pending_bytes, MIB, 16 * GIB),
            ("store.sync_interval_ms", self.sync_interval_ms, 10, 60_000),
            ("store.cache_messages", self.cache_messages, 0, 1_000_000),
            ("store.cache_bytes", self.cache_bytes, 0, GIB),
            ("store.readers", self.readers, 1, 64),
            ("store.compact_below_percent", self.compact_below_percent, 0, 90),
            ("store.clock_hold_ms", self.clock_hold_ms, 0, 30 * DAY_MS),
        ]
    }
}
