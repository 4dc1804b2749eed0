//! What goes wrong with a store, and what the caller can do about it.

use std::path::PathBuf;
use std::sync::Arc;

/// Why a store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has the directory.
    #[error("{0} is in use by another process; each server needs a directory of its own")]
    InUse(PathBuf),
    /// There are no files of a store in the directory.
    #[error("{0} holds no store")]
    NotAStore(PathBuf),
    /// The directory was written by a newer release.
    #[error("{path} has store format {found}, and this release reads up to {known}; use a newer release")]
    NewerFormat {
        /// The file that says so.
        path: PathBuf,
        /// The format of the directory.
        found: u32,
        /// The newest format that this release reads.
        known: u32,
    },
    /// Damage that makes it impossible to say which topics exist. Nothing was changed.
    #[error("{path} is damaged ({what}); nothing was changed: restore a backup")]
    Damaged {
        /// The damaged file.
        path: PathBuf,
        /// What is wrong with it.
        what: &'static str,
    },
    /// The system refused an operation.
    #[error("cannot open the store: {path}: {source}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// The library below refused.
    #[error("cannot open the store: {0}")]
    Library(String),
}

impl OpenError {
    /// Names the path of a system error.
    pub(crate) fn io(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        |source| Self::Io { path: path.into(), source }
    }
}

/// Why a record was not stored, or may not have been, or why a read failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// The disk was full. The record is not stored, and the store recovers by itself.
    #[error("the disk is full")]
    Full,
    /// Writing or syncing failed. Records since the last completed ticket may or may not be stored, and the store takes
    /// no more until it is opened again.
    #[error("the store has failed: {0}; restart the server")]
    Failed(Arc<str>),
    /// A read failed. The store itself goes on.
    #[error("cannot read from the store: {0}")]
    Read(Arc<str>),
    /// The store was closed.
    #[error("the store is closed")]
    Closed,
}

/// Why a record was not taken. It has no offset, and nothing of it is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The disk is full, for now.
    #[error("the disk is full")]
    Full,
    /// The store has failed, until it is opened again.
    #[error("the store has failed; restart the server")]
    Failed,
    /// As much waits to be stored as may.
    #[error("too much waits to be stored; try again")]
    Busy,
    /// The store was closed, or the topic forgotten.
    #[error("the store is closed")]
    Closed,
    /// A record or name longer than the store takes.
    #[error("too long to be stored")]
    TooLong,
}

/// What an engine reports to the threads that drive it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EngineError {
    /// No room. What was to be written is not there, and never will be.
    #[error("the disk is full")]
    Full,
    /// Anything else: what is on the disk is unknown.
    #[error("{0}")]
    Failed(String),
}

impl From<std::io::Error> for EngineError {
    fn from(error: std::io::Error) -> Self {
        Self::Failed(error.to_string())
    }
}

/// The state of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// Records are taken.
    Ok,
    /// The disk is full. Records are refused until there is room; reads go on.
    Full,
    /// Writing failed. Records are refused until the store is opened again; reads go on.
    Failed,
}
