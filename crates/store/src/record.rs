//! What a store keeps: records of topics, and what is known of a topic.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

/// When a record counts as stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Level {
    /// Given to the operating system: safe from the end of the process, not from the loss of power.
    Os,
    /// On the disk: safe from the loss of power as well.
    Fsync,
}

/// A record that is to be stored.
#[derive(Debug, Clone)]
pub struct NewRecord {
    /// Wall clock in milliseconds since 1970. Within a topic the stored times never go back.
    pub at_ms: u64,
    /// Content that the store does not look at.
    pub tail: Bytes,
    /// A second content.
    pub attachment: Option<Bytes>,
    /// Makes repeats harmless: within the topic's window a second record with this key is not stored.
    pub key: Option<Arc<str>>,
}

/// A stored record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Position in the topic, from 1.
    pub offset: u64,
    /// Wall clock in milliseconds since 1970, never before the record before it.
    pub at_ms: u64,
    /// Content.
    pub tail: Bytes,
    /// Second content.
    pub attachment: Option<Bytes>,
    /// The publisher's key.
    pub key: Option<Arc<str>>,
}

impl Record {
    /// Bytes that count against a topic's bound.
    pub fn size(&self) -> u64 {
        (self.tail.len() + self.attachment.as_ref().map_or(0, Bytes::len)) as u64
    }
}

/// Identity of a topic's history. Offsets of two epochs have nothing in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Epoch {
    /// Random, made with the topic.
    pub made: u64,
    /// For the level `os`, how many losses of power the machine has had since the store was made. Otherwise zero.
    pub generation: u32,
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.made)?;
        if self.generation > 0 { write!(f, ".{}", self.generation) } else { Ok(()) }
    }
}

/// Where a record was stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored {
    /// The topic's epoch.
    pub epoch: Epoch,
    /// The record's offset; for a duplicate, that of the first record with its key.
    pub offset: u64,
    /// The key was known, so this record was not stored again.
    pub duplicate: bool,
}

/// What is known of a topic without reading its records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Identity of the history.
    pub epoch: Epoch,
    /// Largest offset that was dropped, 0 if none was.
    pub trimmed_through: u64,
    /// Offset of the newest record that counts as stored, 0 before the first.
    pub newest: u64,
    /// Records kept.
    pub count: u64,
    /// Bytes kept.
    pub bytes: u64,
}

/// How much of a topic is kept. A bound of 0 means none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Records.
    pub count: u64,
    /// Bytes of content.
    pub bytes: u64,
    /// Age in milliseconds.
    pub age_ms: u64,
    /// Keys that are remembered.
    pub keys: usize,
    /// How long a key is remembered, in milliseconds. Time while the store is closed does not count.
    pub key_ms: u64,
}

impl Default for Retention {
    fn default() -> Self {
        Self { count: 0, bytes: 0, age_ms: 0, keys: 1000, key_ms: 120_000 }
    }
}

/// A bound for one read.
#[derive(Debug, Clone, Copy)]
pub struct Room {
    /// Records, at least one.
    pub records: usize,
    /// Bytes of content. One record may exceed it.
    pub bytes: usize,
}

/// One page of a read.
#[derive(Debug, Clone, Default)]
pub struct Page {
    /// Records in the direction of the read.
    pub records: Vec<Record>,
    /// Offsets (first, last) in the page's range that are damaged on disk and can never be read.
    pub damaged: Vec<(u64, u64)>,
    /// Pass this to the next read as where to begin; none when there is no more.
    pub next: Option<u64>,
}

/// A part of a file that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// The damaged file.
    pub file: String,
    /// First damaged byte.
    pub from: u64,
    /// Behind the last damaged byte.
    pub to: u64,
}
