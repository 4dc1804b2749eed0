//! A store's folder without its lock, and without changing anything: beside a running server, or after one.
//!
//! [`Inspector::open`] looks at the folder once. Everything it says afterwards is of that moment, except what a
//! [`Follower`] reads on. The server may write meanwhile: the end of the newest segment may be half a frame, a file may
//! be removed behind the list of names, and an index or checkpoint may be unfinished. None of that is damage.

mod follow;
mod frozen;
mod ranges;
mod verify;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

pub use self::follow::Follower;
use self::frozen::{Frozen, FrozenFile, Source};
pub use self::verify::{Finding, Lost, Report};
use super::{Log, LogOptions, recovery};
use crate::disk::DiskFile;
use crate::engine::Recovered;
use crate::error::{OpenError, StoreError};
use crate::options::boot;
use crate::record::{Damage, Page, Room};
use crate::store::{found_topic, read_page};
use crate::topic::Topic;

/// A store that is read and never changed. Needs no lock, so it works beside a running server.
pub struct Inspector {
    dir: PathBuf,
    view: View<File>,
    topics: Vec<Topic>,
}

/// A folder of the system, opened for reading.
struct Folder<'a>(&'a Path);

impl Source for Folder<'_> {
    type File = File;

    fn list(&self) -> io::Result<Vec<String>> {
        fs::read_dir(self.0)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
    }

    fn open(&self, name: &str) -> io::Result<File> {
        File::open(self.0.join(name))
    }
}

impl Inspector {
    /// Looks at a folder. Fails if it is not there, holds no store, or one of a newer format.
    pub fn open(dir: &Path) -> Result<Self, OpenError> {
        let (view, recovered) = View::take(&Folder(dir), dir, boot())?;
        let (generation, damages) = (recovered.generation, recovered.damages);
        let topics = recovered.topics.into_iter().map(|found| found_topic(found, generation, damages));
        let mut topics: Vec<Topic> = topics.collect();
        topics.sort_by(|one, other| one.name().cmp(other.name()));
        Ok(Self { dir: dir.to_owned(), view, topics })
    }

    /// All topics, by name. They have the epochs that a server would give them that starts now.
    pub fn topics(&self) -> &[Topic] {
        &self.topics
    }

    /// The topic with this name.
    pub fn find(&self, name: &str) -> Option<&Topic> {
        let at = self.topics.binary_search_by(|topic| (**topic.name()).cmp(name)).ok()?;
        self.topics.get(at)
    }

    /// Reads a page, as [`Store::read`](crate::Store::read) does.
    pub fn read(&self, topic: &Topic, from: u64, reverse: bool, room: Room) -> Result<Page, StoreError> {
        read_page(&self.view.log, topic, from, reverse, room)
    }

    /// Parts of files that a start of the server would find damaged. [`verify`](Self::verify) reads everything.
    pub fn damage(&self) -> Vec<Damage> {
        super::Engine::damage(&self.view.log)
    }

    /// Checks every checksum, the order of the segments, index files and checkpoints against the log, and that no
    /// message is missing. Reads everything once, one segment at a time.
    pub fn verify(&self) -> Result<Report, StoreError> {
        self.view.verify(&self.topics).map_err(|error| StoreError::Read(error.to_string().into()))
    }

    /// Follows what is written behind the moment of this view.
    pub fn follow(&self) -> Follower {
        let last = self.view.last();
        Follower::new(self.dir.clone(), &self.topics, last)
    }
}

/// What a folder held at one moment.
struct View<F: DiskFile> {
    log: Log<Frozen<F>>,
    /// All files, also those that a start would have removed.
    files: BTreeMap<String, FrozenFile<F>>,
}

/// Times that a folder is looked at until two looks agree.
const LOOKS: usize = 5;

impl<F: DiskFile> View<F> {
    /// Looks at a folder as often as it takes. What a look takes for damage may be a moment of writing: a part was read
    /// before, and a later part after it was written. The next look then sees it whole, so only what two looks agree on
    /// is damage.
    fn take(source: &impl Source<File = F>, dir: &Path, boot: u64) -> Result<(Self, Recovered), OpenError> {
        let mut seen: Option<Vec<(String, u64)>> = None;
        let mut looks = 0;
        loop {
            looks += 1;
            let is_last = looks >= LOOKS;
            match Self::look(source, dir, boot) {
                Err(OpenError::Damaged { .. }) if !is_last => {}
                Ok((view, recovered)) => {
                    let damage = super::Engine::damage(&view.log);
                    let places: Vec<_> = damage.into_iter().map(|damage| (damage.file, damage.from)).collect();
                    if places.is_empty() || is_last || seen.as_ref() == Some(&places) {
                        return Ok((view, recovered));
                    }
                    seen = Some(places);
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn look(source: &impl Source<File = F>, dir: &Path, boot: u64) -> Result<(Self, Recovered), OpenError> {
        let frozen = Frozen::take(source).map_err(OpenError::io(dir))?;
        let frozen = frozen.ok_or_else(|| OpenError::NotAStore(dir.to_owned()))?;
        let files = frozen.files();
        let options =
            LogOptions { segment_bytes: 4096, min_free_bytes: 0, max_bytes: 0, gc_live_ratio: 0.0, gc_rounds: 1, boot };
        let (log, recovered) = recovery::open(frozen, options)?;
        Ok((Self { log, files }, recovered))
    }

    /// The number of the newest segment on the disk, its salt, and where it ended.
    fn last(&self) -> Option<(u64, u64, u64)> {
        let segments = self.log.segments.read();
        let last = segments.values().rev().find(|segment| matches!(segment.file, FrozenFile::Disk(_)))?;
        Some((last.number, last.salt, last.written.load(super::Ordering::Acquire)))
    }
}

#[cfg(test)]
pub(super) mod tests;
