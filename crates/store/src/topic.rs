//! A topic as the store knows it in memory.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use crate::keys::Keys;
use crate::record::{Epoch, Head, Level, Retention};
use crate::retention::Kept;

/// A topic of a store. Clones are the same topic.
#[derive(Debug, Clone)]
pub struct Topic(pub(crate) Arc<Inner>);

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) id: u64,
    pub(crate) name: Arc<str>,
    pub(crate) level: Level,
    pub(crate) epoch: Epoch,
    /// Taken before the queue's lock, never after it.
    pub(crate) state: Mutex<State>,
}

#[derive(Debug, Default)]
pub(crate) struct State {
    /// Offset of the newest record that was taken.
    pub(crate) taken: u64,
    /// Offset of the newest record that counts as stored. Readers see nothing beyond.
    pub(crate) newest: u64,
    /// Time of the newest record that was taken.
    pub(crate) at_ms: u64,
    pub(crate) kept: Kept,
    /// `kept.trimmed_through` as the log knows it.
    pub(crate) trim_logged: u64,
    pub(crate) keys: Keys,
    pub(crate) retention: Retention,
    pub(crate) consumers: BTreeMap<Arc<str>, Bytes>,
    pub(crate) gone: bool,
    /// Writing that it was made has failed: that is written again ahead of what comes next.
    pub(crate) unmade: bool,
}

impl Topic {
    /// The topic's name.
    pub fn name(&self) -> &Arc<str> {
        &self.0.name
    }

    /// When its records count as stored.
    pub fn level(&self) -> Level {
        self.0.level
    }

    /// Identity of its history.
    pub fn epoch(&self) -> Epoch {
        self.0.epoch
    }

    /// What is stored of it.
    pub fn head(&self) -> Head {
        let state = self.0.state.lock();
        let trimmed_through = state.kept.trimmed_through;
        let count = state.newest.saturating_sub(trimmed_through);
        Head { epoch: self.0.epoch, trimmed_through, newest: state.newest, count, bytes: state.kept.bytes }
    }

    /// The names and states of its consumers.
    pub fn consumers(&self) -> Vec<(Arc<str>, Bytes)> {
        self.0.state.lock().consumers.iter().map(|(name, state)| (name.clone(), state.clone())).collect()
    }
}
