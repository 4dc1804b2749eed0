//! The topics as the log's entries make them. Pure.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use bytes::Bytes;

use crate::codec::Entry;
use crate::record::Level;

/// What is known of a topic while the log is read.
pub(super) struct Topic {
    pub(super) name: Arc<str>,
    pub(super) level: Level,
    pub(super) epoch: u64,
    pub(super) newest: u64,
    pub(super) at_ms: u64,
    pub(super) trimmed_through: u64,
    pub(super) keys: Vec<(Arc<str>, u64)>,
    pub(super) consumers: BTreeMap<Arc<str>, Bytes>,
}

/// All topics while the log is read.
#[derive(Default)]
pub(super) struct Catalogue {
    pub(super) topics: BTreeMap<u64, Topic>,
    pub(super) gone: HashSet<u64>,
    pub(super) next_topic: u64,
    /// Ids below this that the checkpoint lacks were forgotten before it.
    pub(super) known_below: u64,
    /// Topics whose begin is lost by damage.
    pub(super) orphans: BTreeSet<u64>,
}

impl Catalogue {
    pub(super) fn apply(&mut self, entry: Entry) {
        let id = entry.topic();
        self.next_topic = self.next_topic.max(id.saturating_add(1));
        if let Entry::TopicMade { name, level, epoch, .. } = &entry {
            if !self.gone.contains(&id) && !self.topics.contains_key(&id) {
                let (name, level, epoch) = (name.clone(), *level, *epoch);
                let (keys, consumers) = (Vec::new(), BTreeMap::new());
                let topic = Topic { name, level, epoch, newest: 0, at_ms: 0, trimmed_through: 0, keys, consumers };
                self.topics.insert(id, topic);
            }
            return;
        }
        if let Entry::TopicGone { .. } = entry {
            self.topics.remove(&id);
            self.gone.insert(id);
            return;
        }
        let Some(topic) = self.topics.get_mut(&id) else {
            if id >= self.known_below && !self.gone.contains(&id) {
                self.orphans.insert(id);
            }
            return;
        };
        match entry {
            Entry::Message { record, .. } => {
                topic.newest = topic.newest.max(record.offset);
                topic.at_ms = topic.at_ms.max(record.at_ms);
                if let Some(key) = record.key {
                    topic.add_key(key, record.offset);
                }
            }
            Entry::Newest { offset, at_ms, .. } => {
                topic.newest = topic.newest.max(offset);
                topic.at_ms = topic.at_ms.max(at_ms);
            }
            Entry::Trim { through, .. } => topic.trimmed_through = topic.trimmed_through.max(through),
            Entry::Key { key, offset, .. } => topic.add_key(key, offset),
            Entry::Consumer { name, state: Some(state), .. } => {
                topic.consumers.insert(name, state);
            }
            Entry::Consumer { name, state: None, .. } => {
                topic.consumers.remove(&name);
            }
            Entry::TopicLevel { level, epoch, .. } => (topic.level, topic.epoch) = (level, epoch),
            Entry::TopicMade { .. } | Entry::TopicGone { .. } => {}
        }
    }

    /// Passes on the whole catalogue as entries of a checkpoint.
    pub(super) fn entries(&self, put: &mut dyn FnMut(Entry)) {
        for (id, topic) in &self.topics {
            let id = *id;
            let Topic { level, epoch, newest, at_ms, trimmed_through, .. } = *topic;
            put(Entry::TopicMade { topic: id, name: topic.name.clone(), level, epoch });
            if newest > 0 {
                put(Entry::Newest { topic: id, offset: newest, at_ms });
            }
            if trimmed_through > 0 {
                put(Entry::Trim { topic: id, through: trimmed_through });
            }
            for (key, offset) in &topic.keys {
                put(Entry::Key { topic: id, key: key.clone(), offset: *offset });
            }
            for (name, state) in &topic.consumers {
                put(Entry::Consumer { topic: id, name: name.clone(), state: Some(state.clone()) });
            }
        }
    }
}

impl Topic {
    /// Keys come in the order of offsets, and those of the checkpoint may come again from the log.
    fn add_key(&mut self, key: Arc<str>, offset: u64) {
        if self.keys.last().is_none_or(|(_, last)| *last < offset) {
            self.keys.push((key, offset));
        }
    }
}
