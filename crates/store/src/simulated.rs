//! A disk for tests that loses its power: of what was not synced, any part survives.
//!
//! By sectors of 512 bytes, a write that was not synced is on the disk, or the old content is, or noise. Lengths and
//! names survive independently of contents; the names of a folder in their order. Bytes of a sector that were synced
//! survive when others of it are written again, as the disks that SQLite and others rely on promise.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::disk::{Disk, DiskFile};

const SECTOR: usize = 512;

/// What the disk does wrong on purpose.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Faults {
    /// Syncing a file does nothing.
    pub(crate) ignores_sync: bool,
    /// Syncing names does nothing.
    pub(crate) ignores_names: bool,
}

#[derive(Debug, Default, Clone)]
struct Content {
    /// What the system shows.
    seen: Vec<u8>,
    /// What is on the disk for sure.
    safe: Vec<u8>,
    /// Sectors that were written and not synced, with the first and behind the last byte that was.
    dirty: BTreeMap<usize, (usize, usize)>,
}

#[derive(Debug, Clone)]
enum Naming {
    Create(String, u64),
    Remove(String),
}

#[derive(Debug, Default)]
struct Inner {
    files: BTreeMap<u64, Content>,
    names: BTreeMap<String, u64>,
    safe_names: BTreeMap<String, u64>,
    naming: Vec<Naming>,
    next: u64,
    faults: Faults,
    /// Calls until the power is lost.
    calls_left: Option<u64>,
    is_power_lost: bool,
    /// Calls until a call fails, and how.
    error: Option<(u64, io::ErrorKind)>,
    /// Bytes of room.
    room: Option<u64>,
}

/// The disk. Clones are the same disk.
#[derive(Debug, Clone, Default)]
pub(crate) struct SimDisk(Arc<Mutex<Inner>>);

/// A file on it.
#[derive(Debug)]
pub(crate) struct SimFile(Arc<Mutex<Inner>>, u64);

fn lost() -> io::Error {
    io::Error::other("the power is lost")
}

impl Inner {
    /// Counts a call that changes something.
    fn call(&mut self) -> io::Result<()> {
        if let Some(left) = &mut self.calls_left {
            let Some(less) = left.checked_sub(1) else {
                self.is_power_lost = true;
                return Err(lost());
            };
            *left = less;
        }
        if let Some((left, kind)) = &mut self.error {
            if *left == 0 {
                let kind = *kind;
                self.error = None;
                return Err(kind.into());
            }
            *left -= 1;
        }
        Ok(())
    }

    fn used(&self) -> u64 {
        self.names.values().filter_map(|id| self.files.get(id)).map(|content| content.seen.len() as u64).sum()
    }

    fn check_room(&self, more: usize) -> io::Result<()> {
        match self.room {
            Some(room) if self.used() + more as u64 > room => Err(io::ErrorKind::StorageFull.into()),
            _ => Ok(()),
        }
    }
}

impl SimDisk {
    pub(crate) fn faulty(faults: Faults) -> Self {
        let disk = Self::default();
        disk.0.lock().faults = faults;
        disk
    }

    /// Loses the power at the call with this number, counted from now.
    pub(crate) fn lose_power_after(&self, calls: u64) {
        self.0.lock().calls_left = Some(calls);
    }

    /// Whether a call has failed because the power was lost.
    pub(crate) fn is_power_lost(&self) -> bool {
        self.0.lock().is_power_lost
    }

    pub(crate) fn fail_after(&self, calls: u64, kind: io::ErrorKind) {
        self.0.lock().error = Some((calls, kind));
    }

    pub(crate) fn set_room(&self, room: Option<u64>) {
        self.0.lock().room = room;
    }

    pub(crate) fn used(&self) -> u64 {
        self.0.lock().used()
    }

    /// The same disk after a process has ended: nothing that was written is lost.
    pub(crate) fn after_kill(&self) -> Self {
        let inner = self.0.lock();
        let disk = Self::default();
        {
            let mut new = disk.0.lock();
            new.files = inner.files.clone();
            new.names = inner.names.clone();
            new.safe_names = inner.safe_names.clone();
            new.naming = inner.naming.clone();
            new.next = inner.next;
            new.faults = inner.faults;
        }
        disk
    }

    /// A disk with what is left after the power was lost.
    pub(crate) fn after_power_loss(&self, random: &mut fastrand::Rng) -> Self {
        let inner = self.0.lock();
        let keep = [0, 25, 50, 90, 100][random.usize(..5)];
        let disk = Self::default();
        {
            let mut new = disk.0.lock();
            new.names = inner.safe_names.clone();
            for naming in &inner.naming {
                if random.u32(..100) >= keep {
                    break;
                }
                match naming {
                    Naming::Create(name, id) => new.names.insert(name.clone(), *id),
                    Naming::Remove(name) => new.names.remove(name),
                };
            }
            new.safe_names = new.names.clone();
            for (id, content) in &inner.files {
                let mut left = content.safe.clone();
                if random.u32(..100) < keep {
                    left.resize(content.seen.len(), 0);
                }
                for (from, to) in content.dirty.values() {
                    let (from, to) = (*from, (*to).min(content.seen.len()));
                    if from >= to || random.u32(..100) >= keep {
                        // The old content, or noise where the write was under way.
                        if random.u32(..10) == 0 && from < left.len() {
                            let to = to.min(left.len()).max(from);
                            left[from..to].iter_mut().for_each(|byte| *byte = random.u8(..));
                        }
                        continue;
                    }
                    left.resize(left.len().max(to), 0);
                    left[from..to].copy_from_slice(&content.seen[from..to]);
                }
                let content = Content { seen: left.clone(), safe: left, ..Content::default() };
                new.files.insert(*id, content);
            }
            new.next = inner.next;
            new.faults = inner.faults;
        }
        disk
    }

    /// Changes bytes of a file, as rot does.
    pub(crate) fn damage(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let mut inner = self.0.lock();
        let Some(id) = inner.names.get(name).copied() else { return };
        if let Some(content) = inner.files.get_mut(&id) {
            change(&mut content.seen);
            content.safe = content.seen.clone();
            content.dirty.clear();
        }
    }
}

impl Disk for SimDisk {
    type File = SimFile;

    fn create(&self, name: &str) -> io::Result<SimFile> {
        let mut inner = self.0.lock();
        inner.call()?;
        if inner.names.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        inner.next += 1;
        let id = inner.next;
        inner.names.insert(name.to_owned(), id);
        inner.files.insert(id, Content::default());
        inner.naming.push(Naming::Create(name.to_owned(), id));
        Ok(SimFile(self.0.clone(), id))
    }

    fn open(&self, name: &str) -> io::Result<SimFile> {
        let id = self.0.lock().names.get(name).copied().ok_or(io::ErrorKind::NotFound)?;
        Ok(SimFile(self.0.clone(), id))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut inner = self.0.lock();
        inner.call()?;
        inner.names.remove(name).ok_or(io::ErrorKind::NotFound)?;
        inner.naming.push(Naming::Remove(name.to_owned()));
        Ok(())
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.0.lock().names.keys().cloned().collect())
    }

    fn sync_names(&self) -> io::Result<()> {
        let mut inner = self.0.lock();
        inner.call()?;
        if !inner.faults.ignores_names {
            inner.safe_names = inner.names.clone();
            inner.naming.clear();
        }
        Ok(())
    }

    fn free(&self) -> io::Result<u64> {
        let inner = self.0.lock();
        Ok(inner.room.map_or(u64::MAX, |room| room.saturating_sub(inner.used())))
    }
}

impl SimFile {
    fn change<T>(&self, change: impl FnOnce(&mut Inner) -> io::Result<T>) -> io::Result<T> {
        let mut inner = self.0.lock();
        inner.call()?;
        change(&mut inner)
    }
}

impl DiskFile for SimFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.lock().files.get(&self.1).map_or(0, |content| content.seen.len() as u64))
    }

    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        let inner = self.0.lock();
        let Some(content) = inner.files.get(&self.1) else { return Ok(0) };
        let at = usize::try_from(at).map_err(io::Error::other)?.min(content.seen.len());
        let length = buffer.len().min(content.seen.len() - at);
        buffer[..length].copy_from_slice(&content.seen[at..at + length]);
        Ok(length)
    }

    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        let at = usize::try_from(at).map_err(io::Error::other)?;
        let mut inner = self.0.lock();
        // A write that fails, or during which the power is lost, may have reached the disk in part.
        let result = inner.call();
        let id = self.1;
        let length = if result.is_ok() { bytes.len() } else { bytes.len() / 2 };
        let more = inner.files.get(&id).map_or(0, |content| (at + length).saturating_sub(content.seen.len()));
        inner.check_room(more)?;
        if let Some(content) = inner.files.get_mut(&id) {
            content.seen.resize(content.seen.len().max(at + length), 0);
            content.seen[at..at + length].copy_from_slice(&bytes[..length]);
            for sector in at / SECTOR..(at + length).div_ceil(SECTOR) {
                let (from, to) = (at.max(sector * SECTOR), (at + length).min((sector + 1) * SECTOR));
                let dirty = content.dirty.entry(sector).or_insert((from, to));
                *dirty = (dirty.0.min(from), dirty.1.max(to));
            }
        }
        result
    }

    fn reserve(&self, length: u64) -> io::Result<()> {
        let id = self.1;
        self.change(|inner| {
            let length = usize::try_from(length).map_err(io::Error::other)?;
            let more = inner.files.get(&id).map_or(0, |content| length.saturating_sub(content.seen.len()));
            inner.check_room(more)?;
            if let Some(content) = inner.files.get_mut(&id) {
                content.seen.resize(content.seen.len().max(length), 0);
            }
            Ok(())
        })
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        let id = self.1;
        self.change(|inner| {
            if let Some(content) = inner.files.get_mut(&id) {
                content.seen.resize(usize::try_from(length).map_err(io::Error::other)?, 0);
            }
            Ok(())
        })
    }

    fn sync(&self) -> io::Result<()> {
        let id = self.1;
        let mut inner = self.0.lock();
        let result = inner.call();
        let ignores = inner.faults.ignores_sync || inner.is_power_lost;
        if let Some(content) = inner.files.get_mut(&id).filter(|_| !ignores) {
            content.safe.resize(content.seen.len(), 0);
            // As systems do, a sync that fails calls everything clean, and no later one brings it to the disk.
            for (from, to) in std::mem::take(&mut content.dirty).into_values().filter(|_| result.is_ok()) {
                let to = to.min(content.seen.len());
                if from < to {
                    content.safe[from..to].copy_from_slice(&content.seen[from..to]);
                }
            }
        }
        result
    }
}
