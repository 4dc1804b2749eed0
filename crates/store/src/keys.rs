//! The keys of a topic's recent records, stored or on their way. Pure.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

/// Known keys, oldest first. Takes no memory for a topic without keys.
#[derive(Debug, Default)]
pub(crate) struct Keys(Option<Box<Known>>);

#[derive(Debug, Default)]
struct Known {
    offsets: HashMap<Arc<str>, u64>,
    /// Since when each key is known.
    order: VecDeque<(u64, Arc<str>)>,
}

impl Keys {
    /// Forgets what is too old, or more than `most`.
    pub(crate) fn expire(&mut self, now_ms: u64, window_ms: u64, most: usize) {
        let Some(known) = &mut self.0 else { return };
        while let Some((since_ms, _)) = known.order.front() {
            if known.order.len() <= most && now_ms.saturating_sub(*since_ms) < window_ms {
                return;
            }
            if let Some((_, key)) = known.order.pop_front() {
                known.offsets.remove(&key);
            }
        }
        self.0 = None;
    }

    pub(crate) fn offset(&self, key: &str) -> Option<u64> {
        self.0.as_ref()?.offsets.get(key).copied()
    }

    pub(crate) fn add(&mut self, key: Arc<str>, offset: u64, now_ms: u64) {
        let known = self.0.get_or_insert_default();
        known.offsets.insert(key.clone(), offset);
        known.order.push_back((now_ms, key));
    }

    /// Forgets the keys of records from this offset on, which were not stored.
    pub(crate) fn roll_back(&mut self, from: u64) {
        let Some(known) = &mut self.0 else { return };
        while let Some((_, key)) = known.order.back() {
            if known.offsets.get(key).is_some_and(|offset| *offset < from) {
                break;
            }
            known.offsets.remove(key);
            known.order.pop_back();
        }
    }

    /// All keys with their offsets, oldest first.
    pub(crate) fn all(&self) -> impl Iterator<Item = (&Arc<str>, u64)> {
        let known = self.0.iter();
        known.flat_map(|known| known.order.iter().filter_map(|(_, key)| Some((key, *known.offsets.get(key)?))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_known_for_its_window_and_among_the_newest() {
        let mut keys = Keys::default();
        for n in 0..5_u64 {
            keys.add(n.to_string().into(), n, n * 10);
        }
        keys.expire(40, 1000, 3);
        assert_eq!((keys.offset("1"), keys.offset("2")), (None, Some(2)));
        keys.expire(130, 100, 3);
        assert_eq!((keys.offset("3"), keys.offset("4")), (None, Some(4)));
    }

    #[test]
    fn keys_of_what_was_not_stored_are_free_again() {
        let mut keys = Keys::default();
        for n in 0..5_u64 {
            keys.add(n.to_string().into(), n, 0);
        }
        keys.roll_back(3);
        assert_eq!((keys.offset("2"), keys.offset("3"), keys.all().count()), (Some(2), None, 3));
    }
}
