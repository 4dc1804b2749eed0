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
    /// Bytes of messages that are taken and not yet stored.
    pub pending_bytes: u64,
    /// Messages taken since the start.
    pub taken: ByLevel,
    /// Messages refused since the start.
    pub refused: Refused,
    /// Ranges of its files that cannot be read.
    pub damaged_ranges: u64,
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
