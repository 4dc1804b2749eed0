//! The log: all topics' entries in segments, one behind the other, in files of their own.
//!
//! ```text
//! LOCK            locked while a process has the store
//! STORE           format; written once
//! witness         what was known to be on the disk
//! failed          there after a sync has failed: what was known to be on the disk then
//! 0000000007.seg  a segment: frames, each a group of entries (frame.rs)
//! 0000000007.idx  where records are in a sealed segment (index.rs)
//! 0000000008.ckp  the topics when a segment was begun (checkpoint.rs)
//! ```
//!
//! * Nothing is ever written into a segment of a former process. Every start begins a segment, so what a recovery left
//!   out of the one before can never come back.
//! * A segment has its room, and its name is on the disk, before the first frame is written.
//! * Everything that was adopted from a former process is synced before it is served.
//! * Damage is not repaired and not cut off: what is whole is served, the rest is told.

mod catalogue;
mod checkpoint;
mod copy;
mod frame;
mod index;
mod inspect;
#[cfg(test)]
mod model;
mod read;
mod recovery;
mod segment;
#[cfg(test)]
mod shrink;
mod tend;
#[cfg(test)]
mod tests;
mod write;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};

use self::checkpoint::Witness;
use self::frame::{FrameKind, HEADER};
use self::index::Index;
use crate::codec::Entry;
use crate::disk::{Disk, DiskFile};
use crate::engine::{Engine, Snapshot};
use crate::error::EngineError;
use crate::failpoint;
use crate::record::{Damage, Record, Room};
use crate::stats::LogStats;

pub use self::inspect::{Finding, Follower, Inspector, Lost, Report};
pub(crate) use self::recovery::open;

/// Settings of a log.
#[derive(Debug, Clone)]
pub(crate) struct LogOptions {
    /// Bytes of a segment.
    pub(crate) segment_bytes: u64,
    /// Bytes that stay free on the file system.
    pub(crate) min_free_bytes: u64,
    /// Bytes of all segments, 0 for no bound.
    pub(crate) max_bytes: u64,
    /// Segments of which a smaller share than this is alive are copied.
    pub(crate) gc_live_ratio: f64,
    /// Only every so many rounds of the background look for segments that are of no more use.
    pub(crate) gc_rounds: u32,
    /// Identity of the machine's run, to notice that the power was lost.
    pub(crate) boot: u64,
}

/// A segment's file.
#[derive(Debug)]
struct Segment<F> {
    number: u64,
    salt: u64,
    file: F,
    /// Bytes that it takes on the disk.
    length: AtomicU64,
    /// Everything below is given to the system.
    written: AtomicU64,
    /// Everything below is on the disk.
    synced: AtomicU64,
    /// It is sealed: nothing is written any more.
    is_sealed: AtomicBool,
    /// Its index file, once that is on the disk.
    index: RwLock<Option<F>>,
}

/// The state of the thread that writes.
struct Writer<F> {
    segment: Arc<Segment<F>>,
    length: u64,
    sequence: u64,
    /// Checksum of the last frame.
    crc: u32,
    /// A write failed, so the next one goes to another segment.
    is_broken: bool,
    buffer: Vec<u8>,
    places: Vec<Place>,
}

/// A message in the group that is being written.
struct Place {
    topic: u64,
    offset: u64,
    at: u32,
    bytes: u64,
    at_ms: u64,
}

/// A log in a folder.
pub(crate) struct Log<D: Disk> {
    disk: D,
    options: LogOptions,
    writer: Mutex<Writer<D::File>>,
    segments: RwLock<BTreeMap<u64, Arc<Segment<D::File>>>>,
    index: RwLock<Index>,
    /// The next segment, made ahead.
    next: Mutex<Option<Segment<D::File>>>,
    generation: u32,
    damages: u32,
    next_topic: AtomicU64,
    tending: Mutex<Tending<D::File>>,
    damage: Mutex<Vec<Damage>>,
    /// Why a sync has failed. No later one is believed: a system may call clean what never reached the disk.
    failure: Mutex<Option<String>>,
    /// Bytes that were written, and those of them that were copies.
    appended: AtomicU64,
    copied: AtomicU64,
    /// There was no room for a segment when one was made last.
    is_full: AtomicBool,
    /// Something was dropped, so segments may have become useless.
    is_dropped: AtomicBool,
}

/// The state of the thread for background work.
struct Tending<F> {
    witness: Witness,
    witness_file: F,
    /// Checkpoints on the disk, by segment.
    checkpoints: BTreeSet<u64>,
    /// From which segment on the checkpoint before the newest one needs the log, and the newest one.
    replay_from: [u64; 2],
    rounds: u32,
    /// Bytes that may be copied now, and bytes that were written when that was counted last.
    budget: u64,
    written: u64,
    /// Segments with records that cannot be read. They stay, so that a person can look at them.
    damaged: BTreeSet<u64>,
}

/// Name of the file that says that a sync has failed.
const FAILED: &str = "failed";

fn segment_name(number: u64) -> String {
    format!("{number:010}.seg")
}

fn index_name(number: u64) -> String {
    format!("{number:010}.idx")
}

fn checkpoint_name(number: u64) -> String {
    format!("{number:010}.ckp")
}

fn io_error(error: &io::Error) -> EngineError {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => EngineError::Full,
        _ => EngineError::Failed(error.to_string()),
    }
}

/// Makes the file of a segment, with room and name on the disk.
fn prepare<D: Disk>(disk: &D, number: u64, length: u64) -> io::Result<Segment<D::File>> {
    let name = segment_name(number);
    let file = match disk.create(&name) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            disk.remove(&name)?;
            disk.create(&name)?
        }
        file => file?,
    };
    let made = file.reserve(length).and_then(|()| file.sync()).and_then(|()| disk.sync_names());
    if let Err(error) = made {
        // Without room nothing is left behind; if that fails as well, the next try removes it.
        drop(file);
        let _ = disk.remove(&name);
        return Err(error);
    }
    Ok(Segment {
        number,
        salt: fastrand::u64(..),
        file,
        length: AtomicU64::new(length),
        written: AtomicU64::new(0),
        synced: AtomicU64::new(0),
        is_sealed: AtomicBool::new(false),
        index: RwLock::new(None),
    })
}

impl<D: Disk> Log<D> {
    /// Brings to the disk all that was written to a segment before the call.
    fn sync_segment(&self, segment: &Segment<D::File>) -> Result<(), EngineError> {
        if let Some(why) = &*self.failure.lock() {
            return Err(EngineError::Failed(why.clone()));
        }
        let written = segment.written.load(Ordering::Acquire);
        failpoint::reach("before-sync");
        if let Err(error) = segment.file.sync() {
            let mut failure = self.failure.lock();
            let synced = segment.synced.load(Ordering::Acquire);
            let failed = Witness { turn: segment.salt, segment: segment.number, synced };
            // The next start must not believe the system's memory either. If the disk does not even take this file, it
            // is as after a loss of power.
            if failure.is_none() {
                let _ = self.disk.create(FAILED).and_then(|file| file.write_at(&failed.encode(), 0));
            }
            return Err(EngineError::Failed(failure.get_or_insert(error.to_string()).clone()));
        }
        failpoint::reach("after-sync");
        segment.synced.fetch_max(written, Ordering::AcqRel);
        Ok(())
    }

    fn current(&self) -> Option<Arc<Segment<D::File>>> {
        self.segments.read().last_key_value().map(|(_, segment)| segment.clone())
    }
}

impl<D: Disk> Engine for Log<D> {
    fn write(&self, group: &mut dyn Iterator<Item = &Entry>, may_use_reserve: bool) -> Result<(), EngineError> {
        self.write_group(group, may_use_reserve)
    }

    fn sync(&self) -> Result<(), EngineError> {
        let Some(segment) = self.current() else { return Ok(()) };
        self.sync_segment(&segment)
    }

    fn read(
        &self,
        topic: u64,
        range: (u64, u64),
        reverse: bool,
        room: Room,
        take: &mut dyn FnMut(Record),
    ) -> Result<(), EngineError> {
        self.read_records(topic, range, reverse, room, take)
    }

    fn has_room(&self) -> bool {
        let number = self.writer.lock().segment.number + 1;
        let mut next = self.next.lock();
        if next.as_ref().is_none_or(|next| next.number != number) {
            *next = self.prepare(number, self.options.segment_bytes).ok();
        }
        next.is_some()
    }

    fn due(&self) -> Option<u64> {
        let newest = self.tending.lock().checkpoints.last().copied();
        self.current().map(|current| current.number).filter(|number| newest.is_none_or(|newest| newest < *number))
    }

    fn tend(&self, settled: u64, snapshot: Snapshot<'_>) -> Result<(), EngineError> {
        self.tend_all(settled, snapshot).map_err(|error| EngineError::Failed(error.to_string()))
    }

    fn damage(&self) -> Vec<Damage> {
        self.damage.lock().clone()
    }

    fn stats(&self) -> LogStats {
        LogStats {
            bytes: self.bytes(),
            segments: self.segments.read().len(),
            free_bytes: self.disk.free().ok().filter(|free| *free < u64::MAX),
            written_bytes: self.appended.load(Ordering::Relaxed),
            copied_bytes: self.copied.load(Ordering::Relaxed),
        }
    }

    fn close(&self) {
        let mut writer = self.writer.lock();
        writer.buffer.clear();
        writer.buffer.resize(HEADER, 0);
        let fits = writer.segment.written.load(Ordering::Relaxed) + (HEADER + frame::CRC) as u64 <= writer.length;
        if fits && !writer.is_broken {
            // Without this frame the next start recovers as after a crash, which finds the same.
            let _ = writer.put(FrameKind::Closes, 0);
        }
        drop(writer);
        if self.sync().is_ok()
            && let Some(current) = self.current()
        {
            // Without it, damage to what was written last would pass for the unfinished end of a crash.
            let _ = self.put_witness(&mut self.tending.lock(), &current);
        }
    }
}
