//! Taking a record: its key, its offset and its time. Pure.

use std::sync::Arc;

use bytes::Bytes;

use crate::codec::{MAX_ENTRY, OVERHEAD};
use crate::record::{NewRecord, Record, Stored};
use crate::topic::State;

/// What a record comes to.
pub(crate) enum Taken {
    /// Its key is known, and the first record with it is stored.
    Stored(Stored),
    /// Its key is known, and the first record with it, at this offset, is on its way.
    Waiting(u64),
    /// It is to be stored.
    New(Record),
}

/// What a topic remembers of a record that is in the queue.
pub(crate) struct New {
    offset: u64,
    at_ms: u64,
    key: Option<Arc<str>>,
}

impl NewRecord {
    /// Whether it is short enough to be stored.
    pub fn fits(&self) -> bool {
        let size = self.tail.len() + self.attachment.as_ref().map_or(0, Bytes::len);
        self.key.as_ref().is_none_or(|key| key.len() <= 255) && size <= MAX_ENTRY - OVERHEAD - 255
    }
}

/// Gives a record its place, unless its key is known.
pub(crate) fn take(state: &mut State, record: NewRecord, now_ms: u64) -> Taken {
    let NewRecord { at_ms, tail, attachment, key } = record;
    if let Some(key) = &key {
        let retention = state.retention;
        state.keys.expire(now_ms, retention.key_ms, retention.keys);
        match state.keys.offset(key) {
            Some(offset) if offset <= state.newest => {
                return Taken::Stored(Stored { epoch: state.epoch, offset, duplicate: true });
            }
            Some(offset) => return Taken::Waiting(offset),
            None => {}
        }
    }
    Taken::New(Record { offset: state.taken + 1, at_ms: at_ms.max(state.at_ms), tail, attachment, key })
}

impl New {
    pub(crate) fn of(record: &Record) -> Self {
        Self { offset: record.offset, at_ms: record.at_ms, key: record.key.clone() }
    }
}

impl State {
    /// A record is in the queue.
    pub(crate) fn advance(&mut self, New { offset, at_ms, key }: New, now_ms: u64) {
        self.taken = offset;
        self.at_ms = at_ms;
        if let Some(key) = key
            && self.retention.keys > 0
        {
            self.keys.add(key, offset, now_ms);
        }
    }
}
