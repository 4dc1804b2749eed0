//! The consumers of a topic: for each its newest state, and the newest that is stored. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

/// All consumers of a topic. Takes little memory for a topic without any.
#[derive(Debug, Default)]
pub(crate) struct Consumers(Option<Box<Known>>);

#[derive(Debug, Default)]
struct Known {
    by_name: BTreeMap<Arc<str>, Consumer>,
}

/// A state of none means that the consumer has ended.
#[derive(Debug, Default)]
struct Consumer {
    /// The newest state.
    taken: Option<Bytes>,
    /// The newest state that is stored: what a checkpoint may say.
    stored: Option<Bytes>,
    /// States in the queue, or written and not yet stored.
    on_their_way: u32,
    /// The newest state is in memory alone.
    is_lazy: bool,
    /// The newest state says that a record is in another topic, which is not certain yet.
    is_held: bool,
}

impl Consumers {
    /// Adds one that was found on disk.
    pub(crate) fn found(&mut self, name: Arc<str>, state: Bytes) {
        let consumer = Consumer { taken: Some(state.clone()), stored: Some(state), ..Consumer::default() };
        self.0.get_or_insert_default().by_name.insert(name, consumer);
    }

    /// Whether new states are refused until one that depends on another topic is stored.
    pub(crate) fn is_held(&self, name: &str) -> bool {
        self.0.as_ref().and_then(|known| known.by_name.get(name)).is_some_and(|consumer| consumer.is_held)
    }

    fn change(&mut self, name: &Arc<str>, change: impl FnOnce(&mut Consumer)) {
        let all = &mut self.0.get_or_insert_default().by_name;
        if let Some(consumer) = all.get_mut(name) {
            change(consumer);
            let Consumer { taken, stored, on_their_way, is_lazy, .. } = consumer;
            if taken.is_none() && stored.is_none() && *on_their_way == 0 && !*is_lazy {
                all.remove(name);
            }
        } else {
            let mut consumer = Consumer::default();
            change(&mut consumer);
            all.insert(name.clone(), consumer);
        }
        if all.is_empty() {
            self.0 = None;
        }
    }

    /// A state that is in the queue now. A held one says that a record of this topic is in another topic.
    pub(crate) fn take(&mut self, name: &Arc<str>, state: Option<Bytes>, is_held: bool) {
        self.change(name, |consumer| {
            consumer.taken = state;
            consumer.on_their_way += 1;
            consumer.is_lazy = false;
            consumer.is_held = is_held;
        });
    }

    /// A state that is written sooner or later.
    pub(crate) fn take_lazily(&mut self, name: &Arc<str>, state: Option<Bytes>) {
        self.change(name, |consumer| {
            consumer.taken = state;
            consumer.is_lazy = true;
        });
    }

    /// One whose newest state is in memory alone.
    pub(crate) fn next_lazy(&self) -> Option<(Arc<str>, Option<Bytes>)> {
        let lazy = self.0.as_ref()?.by_name.iter().find(|(_, consumer)| consumer.is_lazy);
        lazy.map(|(name, consumer)| (name.clone(), consumer.taken.clone()))
    }

    /// A state is stored.
    pub(crate) fn stored(&mut self, name: &Arc<str>, state: Option<Bytes>) {
        self.change(name, |consumer| {
            consumer.stored = state;
            consumer.on_their_way = consumer.on_their_way.saturating_sub(1);
            consumer.is_held = false;
        });
    }

    /// A state could not be written. Unless it was held, it is written later; says whether so.
    pub(crate) fn failed(&mut self, name: &Arc<str>) -> bool {
        let mut is_lazy = false;
        self.change(name, |consumer| {
            consumer.on_their_way = consumer.on_their_way.saturating_sub(1);
            if std::mem::take(&mut consumer.is_held) {
                consumer.taken = consumer.stored.clone();
            } else {
                consumer.is_lazy = true;
            }
            is_lazy = consumer.is_lazy;
        });
        is_lazy
    }

    fn all(&self) -> impl Iterator<Item = (&Arc<str>, &Consumer)> {
        self.0.iter().flat_map(|known| &known.by_name)
    }

    /// Names and newest states.
    pub(crate) fn newest(&self) -> impl Iterator<Item = (&Arc<str>, &Bytes)> {
        self.all().filter_map(|(name, consumer)| Some((name, consumer.taken.as_ref()?)))
    }

    /// Names and states that are stored.
    pub(crate) fn all_stored(&self) -> impl Iterator<Item = (&Arc<str>, &Bytes)> {
        self.all().filter_map(|(name, consumer)| Some((name, consumer.stored.as_ref()?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn states(consumers: &Consumers) -> [Vec<u8>; 2] {
        let bytes = |state: (&Arc<str>, &Bytes)| state.1.to_vec();
        [consumers.newest().flat_map(bytes).collect(), consumers.all_stored().flat_map(bytes).collect()]
    }

    #[test]
    fn a_checkpoint_says_what_is_stored_and_a_reader_sees_the_newest() {
        let (mut consumers, name) = (Consumers::default(), Arc::<str>::from("c"));
        consumers.take(&name, Some("1".into()), false);
        assert_eq!(states(&consumers), [b"1".to_vec(), b"".to_vec()]);
        consumers.take(&name, Some("2".into()), false);
        consumers.stored(&name, Some("1".into()));
        assert_eq!(states(&consumers), [b"2".to_vec(), b"1".to_vec()]);
        consumers.stored(&name, Some("2".into()));
        consumers.take(&name, None, false);
        assert_eq!((consumers.newest().count(), states(&consumers)), (0, [b"".to_vec(), b"2".to_vec()]));
        consumers.stored(&name, None);
        assert!(consumers.0.is_none(), "nothing is left of it");
    }

    #[test]
    fn a_state_that_failed_is_written_later_but_never_one_that_depends_on_another_topic() {
        let (mut consumers, name) = (Consumers::default(), Arc::<str>::from("c"));
        consumers.found(name.clone(), "1".into());
        consumers.take(&name, Some("2".into()), false);
        assert!(consumers.failed(&name));
        assert_eq!(consumers.next_lazy(), Some((name.clone(), Some("2".into()))));
        consumers.take(&name, Some("2".into()), false);
        consumers.stored(&name, Some("2".into()));
        assert_eq!(consumers.next_lazy(), None);
        consumers.take(&name, Some("3".into()), true);
        assert!(consumers.is_held(&name));
        assert!(!consumers.failed(&name));
        assert_eq!(states(&consumers), [b"2".to_vec(), b"2".to_vec()]);
    }
}
