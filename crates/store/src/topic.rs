//! A topic as the store knows it in memory.

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use crate::codec::Entry;
use crate::consumers::Consumers;
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
    /// Taken before the queue's lock, never after it. Of two topics, that of the smaller id is taken first.
    pub(crate) state: Mutex<State>,
}

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) epoch: Epoch,
    pub(crate) level: Level,
    /// Records wait for the disk as those of [`Level::Fsync`], though the level is [`Level::Os`]: it was changed, and
    /// not all before the change is stored.
    pub(crate) is_cautious: bool,
    /// A change of the level is in the queue, or written and not yet stored.
    pub(crate) is_level_queued: bool,
    pub(crate) gone: bool,
    /// That it is gone could not be written.
    pub(crate) gone_failed: bool,
    /// Writing that it was made has failed: that is written again ahead of what comes next.
    pub(crate) unmade: bool,
    /// Level and epoch as the log knows them, unless these are the present ones.
    pub(crate) logged: Option<Box<(Level, u64)>>,
    /// What is in the queue, or written and not yet stored.
    pub(crate) on_their_way: u32,
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
    pub(crate) consumers: Consumers,
}

impl State {
    pub(crate) fn new(level: Level, epoch: Epoch) -> Self {
        Self {
            epoch,
            level,
            is_cautious: false,
            is_level_queued: false,
            gone: false,
            gone_failed: false,
            unmade: false,
            logged: None,
            on_their_way: 0,
            taken: 0,
            newest: 0,
            at_ms: 0,
            kept: Kept::default(),
            trim_logged: 0,
            keys: Keys::default(),
            retention: Retention::default(),
            consumers: Consumers::default(),
        }
    }

    /// What the next entry waits for.
    pub(crate) fn waits_for(&mut self) -> Level {
        self.is_cautious &= self.logged.is_some() || self.on_their_way > 0;
        if self.is_cautious { Level::Fsync } else { self.level }
    }

    /// Level and epoch as the log knows them.
    pub(crate) fn logged(&self) -> (Level, u64) {
        self.logged.as_deref().copied().unwrap_or((self.level, self.epoch.made))
    }

    /// Changes the level; says whether it was another one. `generation` is that of an epoch of the new level.
    ///
    /// What the log knows of the topic changes only once the change is stored. Until then a crash brings back the old
    /// level, and an epoch that says so: from `os` by its generation, and to `os` because records still wait for the
    /// disk as they did before. A generation that disappears needs another epoch, or its offsets would mean two things.
    pub(crate) fn change_level(&mut self, level: Level, generation: u32) -> bool {
        if self.level == level {
            return false;
        }
        let logged = self.logged();
        self.level = level;
        self.is_cautious = level == Level::Os;
        if level == Level::Fsync && self.epoch.generation != generation {
            self.epoch.made = fastrand::u64(..);
        }
        self.epoch.generation = generation;
        self.logged = Some(Box::new(logged)).filter(|logged| **logged != (level, self.epoch.made));
        true
    }

    /// A change of the level is stored.
    pub(crate) fn level_stored(&mut self, level: Level, made: u64) {
        self.is_level_queued = false;
        self.logged = Some(Box::new((level, made))).filter(|logged| **logged != (self.level, self.epoch.made));
    }
}

impl Topic {
    /// A topic that no store has.
    pub(crate) fn nothing() -> Self {
        let state = State::new(Level::Os, Epoch { made: 0, generation: 0 });
        Self(Arc::new(Inner { id: 0, name: "".into(), state: Mutex::new(state) }))
    }

    /// The topic's name.
    pub fn name(&self) -> &Arc<str> {
        &self.0.name
    }

    /// When its records count as stored.
    pub fn level(&self) -> Level {
        self.0.state.lock().level
    }

    /// Identity of its history.
    pub fn epoch(&self) -> Epoch {
        self.0.state.lock().epoch
    }

    /// Offset of the newest record that was taken, stored or not.
    pub fn newest_taken(&self) -> u64 {
        self.0.state.lock().taken
    }

    /// What is stored of it.
    pub fn head(&self) -> Head {
        let state = self.0.state.lock();
        let trimmed_through = state.kept.trimmed_through;
        let count = state.newest.saturating_sub(trimmed_through);
        Head { epoch: state.epoch, trimmed_through, newest: state.newest, count, bytes: state.kept.bytes }
    }

    /// The newest state of a consumer, if there is one of this name.
    pub fn consumer(&self, name: &str) -> Option<Bytes> {
        let state = self.0.state.lock();
        state.consumers.newest().find(|(own, _)| ***own == *name).map(|(_, state)| state.clone())
    }

    /// The names and newest states of its consumers, also of those whose state is not stored yet. After a start, what
    /// was stored.
    pub fn consumers(&self) -> Vec<(Arc<str>, Bytes)> {
        let state = self.0.state.lock();
        state.consumers.newest().map(|(name, state)| (name.clone(), state.clone())).collect()
    }

    /// The entry that says that it was made.
    pub(crate) fn made(&self, state: &State) -> Entry {
        let (level, epoch) = state.logged();
        Entry::TopicMade { topic: self.0.id, name: self.0.name.clone(), level, epoch }
    }
}
