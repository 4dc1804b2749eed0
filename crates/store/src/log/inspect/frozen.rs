//! A folder as it was at one moment, opened for reading. What a start of the store writes goes to memory, so the view
//! is what a server would find if it began now, by the same code, and the folder stays as it is.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use parking_lot::Mutex;

use super::super::FAILED;
use super::super::checkpoint::{SLOT, Witness};
use super::super::recovery::{STORE, WITNESS, read_all};
use crate::disk::{Disk, DiskFile};

/// The files of a folder, all of them open: what is removed meanwhile can still be read.
pub(super) struct Frozen<F>(Mutex<BTreeMap<String, FrozenFile<F>>>);

/// A file of the folder, or one that exists in memory alone.
pub(super) enum FrozenFile<F> {
    Disk(Arc<F>),
    Memory(Arc<Mutex<Vec<u8>>>),
}

impl<F> Clone for FrozenFile<F> {
    fn clone(&self) -> Self {
        match self {
            Self::Disk(file) => Self::Disk(file.clone()),
            Self::Memory(bytes) => Self::Memory(bytes.clone()),
        }
    }
}

/// A folder that is only read.
pub(super) trait Source {
    type File: DiskFile;
    fn list(&self) -> io::Result<Vec<String>>;
    fn open(&self, name: &str) -> io::Result<Self::File>;
}

/// Times that a folder is looked at again because a file was removed in between.
const TRIES: usize = 50;

impl<F: DiskFile> Frozen<F> {
    /// Opens all files of a folder; `None` if it holds no store.
    pub(super) fn take(source: &impl Source<File = F>) -> io::Result<Option<Self>> {
        let mut tries = 0;
        loop {
            match Self::try_take(source) {
                // The server removed a file behind the list.
                Err(error) if error.kind() == io::ErrorKind::NotFound && tries < TRIES => tries += 1,
                taken => return taken,
            }
        }
    }

    fn try_take(source: &impl Source<File = F>) -> io::Result<Option<Self>> {
        // Before the list, so that the list has every segment that the witness knows.
        let witness = read_witness(source)?;
        let mut files = BTreeMap::new();
        let names = source.list()?;
        let is_segment = |name: &String| name.ends_with(".seg") || name.ends_with(".ckp");
        if !names.iter().any(|name| name == STORE || is_segment(name)) {
            return Ok(None);
        }
        for name in names {
            if name != STORE && name != FAILED && !is_segment(&name) && !name.ends_with(".idx") {
                continue;
            }
            match source.open(&name) {
                // Made from a segment, and removed with it.
                Err(error) if error.kind() == io::ErrorKind::NotFound && name.ends_with(".idx") => {}
                file => {
                    files.insert(name, FrozenFile::Disk(Arc::new(file?)));
                }
            }
        }
        if let Some(witness) = witness {
            files.insert(WITNESS.to_owned(), FrozenFile::Memory(Arc::new(Mutex::new(witness))));
        }
        Ok(Some(Self(Mutex::new(files))))
    }

    /// The files, by name.
    pub(super) fn files(&self) -> BTreeMap<String, FrozenFile<F>> {
        self.0.lock().clone()
    }
}

/// The witness's bytes. Read again if a slot is not whole, because the server may just have written it.
fn read_witness(source: &impl Source) -> io::Result<Option<Vec<u8>>> {
    let read = || -> io::Result<_> {
        match source.open(WITNESS) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            file => Ok(Some(read_all(&file?, 2 * SLOT as u64)?.to_vec())),
        }
    };
    let mut bytes = read()?;
    for _ in 0..3 {
        if bytes.as_ref().is_none_or(|bytes| Witness::is_whole(bytes)) {
            break;
        }
        bytes = read()?;
    }
    Ok(bytes)
}

impl<F: DiskFile> Disk for Frozen<F> {
    type File = FrozenFile<F>;

    fn create(&self, name: &str) -> io::Result<FrozenFile<F>> {
        let mut files = self.0.lock();
        if files.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let file = FrozenFile::Memory(Arc::default());
        files.insert(name.to_owned(), file.clone());
        Ok(file)
    }

    fn open(&self, name: &str) -> io::Result<FrozenFile<F>> {
        self.0.lock().get(name).cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.0.lock().remove(name).map(|_| ()).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.0.lock().keys().cloned().collect())
    }

    fn sync_names(&self) -> io::Result<()> {
        Ok(())
    }

    fn free(&self) -> io::Result<u64> {
        Ok(u64::MAX)
    }
}

impl<F: DiskFile> DiskFile for FrozenFile<F> {
    fn len(&self) -> io::Result<u64> {
        match self {
            Self::Disk(file) => file.len(),
            Self::Memory(bytes) => Ok(bytes.lock().len() as u64),
        }
    }

    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        match self {
            Self::Disk(file) => file.read_at(buffer, at),
            Self::Memory(bytes) => {
                let bytes = bytes.lock();
                let rest = bytes.get(usize::try_from(at).unwrap_or(usize::MAX)..).unwrap_or_default();
                let length = rest.len().min(buffer.len());
                buffer[..length].copy_from_slice(&rest[..length]);
                Ok(length)
            }
        }
    }

    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        match self {
            Self::Disk(_) => Err(io::ErrorKind::ReadOnlyFilesystem.into()),
            Self::Memory(content) => {
                let mut content = content.lock();
                let at = usize::try_from(at).map_err(io::Error::other)?;
                let end = content.len().max(at + bytes.len());
                content.resize(end, 0);
                content[at..at + bytes.len()].copy_from_slice(bytes);
                Ok(())
            }
        }
    }

    fn reserve(&self, _: u64) -> io::Result<()> {
        Ok(())
    }

    fn set_len(&self, _: u64) -> io::Result<()> {
        // A start cuts off the room behind the end of a segment, which is never read.
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}
