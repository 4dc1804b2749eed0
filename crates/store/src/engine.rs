//! What a store needs of that which keeps its entries on disk.

use std::sync::Arc;

use bytes::Bytes;

use crate::codec::Entry;
use crate::error::EngineError;
use crate::record::{Damage, Level, Record, Room};
use crate::retention::Chunk;
use crate::stats::LogStats;

/// A topic as it was found on disk.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    pub(crate) id: u64,
    pub(crate) name: Arc<str>,
    pub(crate) level: Level,
    pub(crate) epoch: u64,
    pub(crate) trimmed_through: u64,
    pub(crate) newest: u64,
    pub(crate) at_ms: u64,
    pub(crate) chunks: Vec<Chunk>,
    pub(crate) keys: Vec<(Arc<str>, u64)>,
    pub(crate) consumers: Vec<(Arc<str>, Bytes)>,
}

/// All that was found on disk.
#[derive(Debug, Default)]
pub(crate) struct Recovered {
    pub(crate) topics: Vec<Found>,
    /// Greater than every id that was ever given.
    pub(crate) next_topic: u64,
    /// Losses of power that the store has noticed.
    pub(crate) generation: u32,
    /// Times that damage was found whose extent is unknown.
    pub(crate) damages: u32,
    /// Bytes behind the end of the log that were begun and never completed.
    pub(crate) torn: u64,
}

/// Passes on the topics with all that is visible of them, as entries of a checkpoint.
pub(crate) type Snapshot<'a> = &'a dyn Fn(&mut dyn FnMut(Entry));

/// Keeps entries on disk.
pub(crate) trait Engine: Send + Sync + 'static {
    /// Gives a group to the system: all of it is safe from the end of the process, or none of it. `may_use_reserve`
    /// says whether it may take the room that is kept for entries that are no publishes. Called by one thread.
    fn write(&self, group: &mut dyn Iterator<Item = &Entry>, may_use_reserve: bool) -> Result<(), EngineError>;

    /// Brings to the disk all that was written before the call. Called by one thread, beside `write`.
    fn sync(&self) -> Result<(), EngineError>;

    /// Reads records of a topic with offsets from `range.0` to `range.1`, in the order of offsets or backwards, and
    /// passes each to `take` until that has enough. Leaves out damaged ones. Called by any thread.
    fn read(
        &self,
        topic: u64,
        range: (u64, u64),
        reverse: bool,
        room: Room,
        take: &mut dyn FnMut(Record),
    ) -> Result<(), EngineError>;

    /// Whether there is room again after [`EngineError::Full`].
    fn has_room(&self) -> bool;

    /// The segment that a checkpoint is wanted for. The next call of [`tend`](Self::tend) makes it, if by then all that
    /// was written before this call is visible.
    fn due(&self) -> Option<u64>;

    /// Work of the background, about once a second. `snapshot` gives the topics with all that is visible of them:
    /// everything that was written before the segment `settled`, and whatever came later.
    fn tend(&self, settled: u64, snapshot: Snapshot<'_>) -> Result<(), EngineError>;

    /// Figures.
    fn stats(&self) -> LogStats;

    /// Nothing more will be written.
    fn close(&self);

    /// What cannot be read.
    fn damage(&self) -> Vec<Damage>;
}
