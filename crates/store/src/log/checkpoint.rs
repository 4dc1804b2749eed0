//! The topics as they were at some moment, so that old segments need not be read again and may be deleted. Pure.

use bytes::Bytes;

use crate::codec::{self, Entry};
use crate::engine::Snapshot;

const MAGIC: [u8; 8] = *b"QwStCkp1";
const HEADER: usize = 40;

/// What a checkpoint says besides its entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Summary {
    /// The segment that was written to when the checkpoint was made.
    pub(crate) segment: u64,
    /// Segments from this one on hold what the checkpoint may lack.
    pub(crate) replay_from: u64,
    /// Greater than the ids of all topics so far.
    pub(crate) next_topic: u64,
    pub(crate) generation: u32,
    pub(crate) damages: u32,
}

/// A checkpoint as a file. `entries` passes all entries on, one by one: there may be very many topics.
pub(crate) fn encode(summary: &Summary, entries: Snapshot<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&summary.segment.to_le_bytes());
    bytes.extend_from_slice(&summary.replay_from.to_le_bytes());
    bytes.extend_from_slice(&summary.next_topic.to_le_bytes());
    bytes.extend_from_slice(&summary.generation.to_le_bytes());
    bytes.extend_from_slice(&summary.damages.to_le_bytes());
    entries(&mut |entry| entry.encode(&mut bytes));
    let crc = crc32c::crc32c(&bytes);
    bytes.extend_from_slice(&crc.to_le_bytes());
    bytes
}

/// Reads a checkpoint, all of it or nothing.
pub(crate) fn decode(bytes: &Bytes) -> Option<(Summary, Entries)> {
    let (body, crc) = bytes.split_last_chunk::<4>()?;
    if body.len() < HEADER || body[..8] != MAGIC || crc32c::crc32c(body) != u32::from_le_bytes(*crc) {
        return None;
    }
    let short = |at: usize| Some(u32::from_le_bytes(*body.get(at..)?.first_chunk()?));
    let long = |at: usize| Some(u64::from_le_bytes(*body.get(at..)?.first_chunk()?));
    let summary = Summary {
        segment: long(8)?,
        replay_from: long(16)?,
        next_topic: long(24)?,
        generation: short(32)?,
        damages: short(36)?,
    };
    Some((summary, Entries(bytes.slice(HEADER..body.len()))))
}

/// Whether these may be the first bytes of a checkpoint, and not all of them.
pub(crate) fn is_cut(bytes: &Bytes) -> bool {
    let Some(mut rest) = bytes.get(HEADER..).filter(|_| bytes.starts_with(&MAGIC)) else { return bytes.is_empty() };
    while let Some(length) = codec::length(rest) {
        let Some(entry) = rest.get(..length) else { return true };
        if codec::decode(&bytes.slice_ref(entry)).is_none() {
            return false;
        }
        rest = &rest[length..];
    }
    rest.len() < 4
}

/// The entries of a checkpoint whose checksum is right.
#[derive(Debug, Default)]
pub(crate) struct Entries(Bytes);

impl Iterator for Entries {
    type Item = Entry;

    fn next(&mut self) -> Option<Entry> {
        let entry = codec::decode(&self.0)?;
        self.0 = self.0.slice(entry.len()..);
        Some(entry)
    }
}

/// What was known to be on the disk: a second witness, in a file of its own, in two slots that are written in turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Witness {
    pub(crate) turn: u64,
    pub(crate) segment: u64,
    pub(crate) synced: u64,
}

pub(crate) const SLOT: usize = 512;

impl Witness {
    pub(crate) fn encode(&self) -> [u8; SLOT] {
        let mut bytes = [0; SLOT];
        bytes[..8].copy_from_slice(b"QwStWit1");
        bytes[8..16].copy_from_slice(&self.turn.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.segment.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.synced.to_le_bytes());
        let crc = crc32c::crc32c(&bytes[..32]);
        bytes[32..36].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Whether each slot is as it was written, or still empty.
    pub(crate) fn is_whole(bytes: &[u8]) -> bool {
        let is_whole = |slot: &[u8]| Self::decode(slot).is_some_and(|witness| witness.encode() == slot);
        bytes.chunks(SLOT).all(|slot| slot.iter().all(|byte| *byte == 0) || is_whole(slot))
    }

    /// The newer of two slots.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let slot = |bytes: &[u8]| {
            let long = |at: usize| Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?));
            let is_whole = bytes.starts_with(b"QwStWit1")
                && crc32c::crc32c(bytes.get(..32)?) == u32::from_le_bytes(*bytes.get(32..)?.first_chunk()?);
            if is_whole { Some(Self { turn: long(8)?, segment: long(16)?, synced: long(24)? }) } else { None }
        };
        bytes.chunks(SLOT).take(2).filter_map(slot).max_by_key(|witness| witness.turn)
    }
}
