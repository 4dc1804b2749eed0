//! The idempotency keys that a log remembers: a second publish with the same key is answered, but adds nothing.
//! Pure. Bounded by number and age.

use std::collections::{HashMap, VecDeque};

use crate::frame::allocated;
use crate::message::IdempotencyKey;

/// The keys of one log, with the offsets that their messages got.
#[derive(Debug, Default)]
pub(super) struct Keys {
    offsets: HashMap<IdempotencyKey, u64>,
    /// Oldest first, with the time at which each came.
    order: VecDeque<(u64, IdempotencyKey)>,
    /// Of the keys' texts.
    bytes: usize,
}

impl Keys {
    /// The offset of the message that came with this key.
    pub(super) fn offset(&self, key: &IdempotencyKey) -> Option<u64> {
        self.offsets.get(key).copied()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// Memory that they take, in bytes: their texts, and the places for them.
    pub(super) fn bytes(&self) -> usize {
        /// A place for look-ups holds a key and its offset, and a byte of the key's hash; of eight, one stays empty.
        const PLACE: usize = size_of::<(IdempotencyKey, u64)>() + 1;
        let places = match self.offsets.capacity() {
            0 => 0,
            most => (most * 8).div_ceil(7).next_power_of_two(),
        };
        self.bytes + allocated(places * PLACE) + allocated(self.order.capacity() * size_of::<(u64, IdempotencyKey)>())
    }

    /// Remembers a key that was not there.
    pub(super) fn add(&mut self, key: IdempotencyKey, offset: u64, now_ms: u64) {
        self.bytes += cost(&key);
        self.order.push_back((now_ms, key.clone()));
        self.offsets.insert(key, offset);
    }

    /// Forgets all but the newest `most` of those that came within the last `age_ms`.
    pub(super) fn trim(&mut self, most: usize, age_ms: u64, now_ms: u64) {
        while self.order.len() > most
            || self.order.front().is_some_and(|&(at_ms, _)| now_ms.saturating_sub(at_ms) > age_ms)
        {
            self.forget_oldest();
        }
        if self.order.is_empty() {
            *self = Self::default();
        }
    }

    /// Forgets the oldest half, the larger one.
    pub(super) fn halve(&mut self) {
        for _ in 0..self.order.len().div_ceil(2) {
            self.forget_oldest();
        }
    }

    /// Forgets the oldest; false if there is none.
    pub(super) fn forget_oldest(&mut self) -> bool {
        let Some((_, key)) = self.order.pop_front() else { return false };
        self.bytes -= cost(&key);
        self.offsets.remove(&key);
        true
    }
}

fn cost(key: &IdempotencyKey) -> usize {
    // The text is kept twice: in order, and for look-ups.
    2 * allocated(key.as_str().len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_remembered_within_number_and_age_and_their_memory_is_given_back() {
        let key = |n: u64| IdempotencyKey::new(&format!("key {n}")).expect("a key");
        let known = |keys: &Keys| (0..10).filter(|&n| keys.offset(&key(n)).is_some()).collect::<Vec<_>>();
        let mut keys = Keys::default();
        for n in 0..10 {
            keys.add(key(n), n + 100, n * 10);
            keys.trim(4, 1000, n * 10);
        }
        assert_eq!(known(&keys), [6, 7, 8, 9]);
        assert_eq!(keys.offset(&key(7)), Some(107));
        keys.trim(4, 15, 100);
        assert_eq!(known(&keys), [9], "the others are older than 15 ms");
        keys.trim(0, 15, 100);
        assert!(keys.is_empty() && keys.bytes() == 0);
    }
}
