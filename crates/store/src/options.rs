//! Settings of a store, and its folder.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::OpenError;

/// Settings of a store.
#[derive(Debug, Clone)]
pub struct Options {
    /// The directory. Made if it is not there.
    pub dir: PathBuf,
    /// Bytes that may wait to be stored; more are refused with [`Refusal::Busy`](crate::Refusal::Busy).
    pub pending_bytes: usize,
    /// How long a record of [`Level::Os`](crate::Level::Os) may stay off the disk.
    pub sync_interval: Duration,
    /// Bytes of a segment of the log.
    pub segment_bytes: u64,
    /// Bytes that stay free on the file system; with less the store is full.
    pub min_free_bytes: u64,
    /// Bytes of all segments, 0 for no bound. At least four segments.
    pub max_bytes: u64,
    /// Of a segment with a smaller share of records that are still kept, these are copied, and the segment is given
    /// back. Copying takes at most a quarter of what is written besides, and a megabyte a second.
    pub gc_live_ratio: f64,
    /// Identity of the machine's run since it was started; none asks the system.
    pub boot: Option<u64>,
    /// For how long age drops nothing after the wall clock has jumped.
    pub clock_hold: Duration,
}

impl Options {
    /// The defaults, in a directory.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            pending_bytes: 64 << 20,
            sync_interval: Duration::from_secs(1),
            segment_bytes: 64 << 20,
            min_free_bytes: 256 << 20,
            max_bytes: 0,
            gc_live_ratio: 0.25,
            boot: None,
            clock_hold: Duration::from_secs(3600),
        }
    }
}

/// Takes the folder for this process.
pub(crate) fn lock(dir: &Path) -> Result<File, OpenError> {
    let path = dir.join("LOCK");
    let file = File::options().create(true).truncate(false).write(true).open(&path).map_err(OpenError::io(&path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse(dir.to_owned())),
        Err(TryLockError::Error(error)) => Err(OpenError::io(path)(error)),
    }
}

/// Identity of the machine's run. Where the system has none, power counts as lost whenever a store was not closed.
pub(crate) fn boot() -> u64 {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
    id.map_or_else(
        |_| fastrand::u64(..),
        |id| {
            let halves = [id.as_bytes(), &id.as_bytes()[id.len() / 2..]].map(crc32c::crc32c);
            u64::from(halves[0]) << 32 | u64::from(halves[1])
        },
    )
}
