//! Entries of the log as bytes, each with a checksum of its own. Pure.
//!
//! Layout, all numbers little endian: length of the whole `u32`, kind `u8`, level `u8`, flags `u8`, length of the key
//! or name `u8`, topic `u64`, number `u64`, time `u64`, length of the attachment `u32`, key or name, content,
//! attachment, CRC32C over everything before it `u32`. Zero is no kind and no length, so zeros are never an entry.

use std::sync::Arc;

use bytes::Bytes;

use crate::record::{Level, Record};

/// Bytes of an entry besides key, content and attachment.
pub(crate) const OVERHEAD: usize = HEADER + CRC;
pub(crate) const HEADER: usize = 36;
const CRC: usize = 4;
/// Longest entry. Longer ones are refused before they get an offset, so a greater length on disk is damage.
pub(crate) const MAX_ENTRY: usize = 32 << 20;
const ATTACHMENT: u8 = 1;
const KEY: u8 = 2;
const GONE: u8 = 4;

/// One entry of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Entry {
    /// A topic begins. Its id is never used again.
    TopicMade { topic: u64, name: Arc<str>, level: Level, epoch: u64 },
    /// A topic and all that it had are forgotten.
    TopicGone { topic: u64 },
    /// A message of a topic.
    Message { topic: u64, record: Record },
    /// All up to this offset is dropped.
    Trim { topic: u64, through: u64 },
    /// The whole state of a consumer, or its end.
    Consumer { topic: u64, name: Arc<str>, state: Option<Bytes> },
    /// In checkpoints: the newest record's offset and time.
    Newest { topic: u64, offset: u64, at_ms: u64 },
    /// In checkpoints: a key that is known, and the offset of its record.
    Key { topic: u64, key: Arc<str>, offset: u64 },
    /// A topic has another level, and perhaps another epoch.
    TopicLevel { topic: u64, level: Level, epoch: u64 },
}

impl Entry {
    pub(crate) const fn topic(&self) -> u64 {
        match self {
            Self::TopicMade { topic, .. }
            | Self::TopicGone { topic }
            | Self::Message { topic, .. }
            | Self::Trim { topic, .. }
            | Self::Consumer { topic, .. }
            | Self::Newest { topic, .. }
            | Self::Key { topic, .. }
            | Self::TopicLevel { topic, .. } => *topic,
        }
    }

    /// Bytes on disk.
    pub(crate) fn len(&self) -> usize {
        OVERHEAD
            + match self {
                Self::TopicMade { name, .. } => name.len(),
                Self::TopicGone { .. } | Self::Trim { .. } | Self::Newest { .. } | Self::TopicLevel { .. } => 0,
                Self::Key { key, .. } => key.len(),
                Self::Message { record, .. } => {
                    let attachment = record.attachment.as_ref().map_or(0, Bytes::len);
                    record.key.as_ref().map_or(0, |key| key.len()) + record.tail.len() + attachment
                }
                Self::Consumer { name, state, .. } => name.len() + state.as_ref().map_or(0, Bytes::len),
            }
    }

    /// Appends the entry. Names and keys are at most 255 bytes, the whole at most [`MAX_ENTRY`].
    pub(crate) fn encode(&self, into: &mut Vec<u8>) {
        let start = into.len();
        let none: &[u8] = &[];
        let (kind, level, flags, name, number, at_ms, tail, attachment) = match self {
            Self::TopicMade { name, level, epoch, .. } => (1, *level, 0, name.as_bytes(), *epoch, 0, none, none),
            Self::TopicGone { .. } => (2, Level::Os, 0, none, 0, 0, none, none),
            Self::Message { record, .. } => {
                let flags = if record.attachment.is_some() { ATTACHMENT } else { 0 }
                    | if record.key.is_some() { KEY } else { 0 };
                let key = record.key.as_ref().map_or(none, |key| key.as_bytes());
                let attachment = record.attachment.as_deref().unwrap_or_default();
                (3, Level::Os, flags, key, record.offset, record.at_ms, &record.tail[..], attachment)
            }
            Self::Trim { through, .. } => (4, Level::Os, 0, none, *through, 0, none, none),
            Self::Consumer { name, state, .. } => {
                let flags = if state.is_none() { GONE } else { 0 };
                (5, Level::Os, flags, name.as_bytes(), 0, 0, state.as_deref().unwrap_or_default(), none)
            }
            Self::Newest { offset, at_ms, .. } => (6, Level::Os, 0, none, *offset, *at_ms, none, none),
            Self::Key { key, offset, .. } => (7, Level::Os, 0, key.as_bytes(), *offset, 0, none, none),
            Self::TopicLevel { level, epoch, .. } => (8, *level, 0, none, *epoch, 0, none, none),
        };
        let length = |length: usize| u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes();
        into.extend_from_slice(&length(self.len()));
        let name_length = u8::try_from(name.len()).unwrap_or(u8::MAX);
        into.extend_from_slice(&[kind, u8::from(level == Level::Fsync), flags, name_length]);
        into.extend_from_slice(&self.topic().to_le_bytes());
        into.extend_from_slice(&number.to_le_bytes());
        into.extend_from_slice(&at_ms.to_le_bytes());
        into.extend_from_slice(&length(attachment.len()));
        into.extend_from_slice(name);
        into.extend_from_slice(tail);
        into.extend_from_slice(attachment);
        let crc = crc32c::crc32c(&into[start..]);
        into.extend_from_slice(&crc.to_le_bytes());
    }
}

/// Length that an entry says to have, if it can be one.
pub(crate) fn length(bytes: &[u8]) -> Option<usize> {
    let length = u32::from_le_bytes(*bytes.first_chunk()?) as usize;
    (OVERHEAD..=MAX_ENTRY).contains(&length).then_some(length)
}

/// Whether the checksum of some bytes is this one.
pub(crate) fn is_right(bytes: &[u8], crc: [u8; CRC]) -> bool {
    #[cfg(test)]
    if IGNORES_CHECKSUMS.get() {
        return true;
    }
    // A fault for builds that the durability suites have to find.
    cfg!(planted_fault = "no_checksum") || crc32c::crc32c(bytes) == u32::from_le_bytes(crc)
}

#[cfg(test)]
thread_local! {
    /// A planted fault.
    pub(crate) static IGNORES_CHECKSUMS: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

/// Reads the entry that begins here, or nothing if what is here is none. The entry's contents are slices of `bytes`.
pub(crate) fn decode(bytes: &Bytes) -> Option<Entry> {
    let length = length(bytes)?;
    let whole = bytes.get(..length)?;
    let (body, crc) = whole.split_last_chunk::<CRC>()?;
    if !is_right(body, *crc) {
        return None;
    }
    let [kind, level, flags, name_length] = *body.get(4..8)?.first_chunk()?;
    let number_at = |at: usize| Some(u64::from_le_bytes(*body.get(at..at + 8)?.first_chunk()?));
    let (topic, number, at_ms) = (number_at(8)?, number_at(16)?, number_at(24)?);
    let attachment = u32::from_le_bytes(*body.get(32..36)?.first_chunk()?) as usize;
    let tail_at = HEADER + usize::from(name_length);
    let attachment_at = body.len().checked_sub(attachment).filter(|at| *at >= tail_at)?;
    let name = || str::from_utf8(&body[HEADER..tail_at]).ok().map(Arc::from);
    let level = if level == 0 { Level::Os } else { Level::Fsync };
    Some(match kind {
        1 => Entry::TopicMade { topic, name: name()?, level, epoch: number },
        2 => Entry::TopicGone { topic },
        3 => Entry::Message {
            topic,
            record: Record {
                offset: number,
                at_ms,
                tail: bytes.slice(tail_at..attachment_at),
                attachment: (flags & ATTACHMENT != 0).then(|| bytes.slice(attachment_at..body.len())),
                key: if flags & KEY != 0 { Some(name()?) } else { None },
            },
        },
        4 => Entry::Trim { topic, through: number },
        5 => Entry::Consumer {
            topic,
            name: name()?,
            state: (flags & GONE == 0).then(|| bytes.slice(tail_at..attachment_at)),
        },
        6 => Entry::Newest { topic, offset: number, at_ms },
        7 => Entry::Key { topic, key: name()?, offset: number },
        8 => Entry::TopicLevel { topic, level, epoch: number },
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn entries() -> impl Strategy<Value = Entry> {
        let bytes = || prop::collection::vec(any::<u8>(), 0..300).prop_map(Bytes::from);
        let name = || "[a-z*.é]{1,60}".prop_map(|name: String| Arc::<str>::from(name));
        let level = || prop_oneof![Just(Level::Os), Just(Level::Fsync)];
        let message =
            (any::<u64>(), any::<u64>(), any::<u64>(), bytes(), prop::option::of(bytes()), prop::option::of(name()));
        prop_oneof![
            (any::<u64>(), name(), level(), any::<u64>()).prop_map(|(topic, name, level, epoch)| Entry::TopicMade {
                topic,
                name,
                level,
                epoch
            }),
            any::<u64>().prop_map(|topic| Entry::TopicGone { topic }),
            message.prop_map(|(topic, offset, at_ms, tail, attachment, key)| Entry::Message {
                topic,
                record: Record { offset, at_ms, tail, attachment, key }
            }),
            (any::<u64>(), any::<u64>()).prop_map(|(topic, through)| Entry::Trim { topic, through }),
            (any::<u64>(), name(), prop::option::of(bytes())).prop_map(|(topic, name, state)| Entry::Consumer {
                topic,
                name,
                state
            }),
            (any::<u64>(), any::<u64>(), any::<u64>()).prop_map(|(topic, offset, at_ms)| Entry::Newest {
                topic,
                offset,
                at_ms
            }),
            (any::<u64>(), name(), any::<u64>()).prop_map(|(topic, key, offset)| Entry::Key { topic, key, offset }),
            (any::<u64>(), level(), any::<u64>()).prop_map(|(topic, level, epoch)| Entry::TopicLevel {
                topic,
                level,
                epoch
            }),
        ]
    }

    proptest! {
        #[test]
        fn an_entry_is_read_as_it_was_written(entry in entries(), behind in prop::collection::vec(any::<u8>(), 0..50)) {
            let mut bytes = Vec::new();
            entry.encode(&mut bytes);
            prop_assert_eq!(bytes.len(), entry.len());
            bytes.extend(behind);
            prop_assert_eq!(decode(&bytes.into()), Some(entry));
        }

        #[test]
        fn a_flipped_bit_is_noticed(entry in entries(), at in any::<prop::sample::Index>(), bit in 0_u32..8) {
            let mut bytes = Vec::new();
            entry.encode(&mut bytes);
            let at = at.index(bytes.len());
            bytes[at] ^= 1_u8 << bit;
            prop_assert_eq!(decode(&bytes.into()), None);
        }

        #[test]
        fn noise_is_never_an_entry(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert_eq!(decode(&bytes.into()), None);
        }
    }

    #[test]
    fn zeros_are_no_entry() {
        assert_eq!(decode(&Bytes::from(vec![0; 4096])), None);
    }
}
