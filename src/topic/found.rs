//! What was found of topics and may be used again: whom their messages go to. Everybody who listens to everything stands in
//! the list of every topic, so these lists together have a bound. Pure.

use std::collections::HashMap;
use std::sync::Arc;

/// Lists by topic.
#[derive(Debug)]
pub(super) struct Found<T> {
    lists: HashMap<u64, Arc<[T]>>,
    /// Places that they take.
    places: usize,
    most: usize,
}

impl<T> Found<T> {
    /// Remembers lists of at most so many places in all.
    pub(super) fn new(most: usize) -> Self {
        Self { lists: HashMap::new(), places: 0, most }
    }

    /// The list of a topic.
    pub(super) fn get(&self, topic: u64) -> Option<Arc<[T]>> {
        self.lists.get(&topic).cloned()
    }

    /// Remembers a list, where that is possible at all; forgets all others where there is no room beside them. They are found
    /// anew with the next message, which costs about what its delivery does.
    pub(super) fn put(&mut self, topic: u64, list: Arc<[T]>) {
        self.remove(topic);
        if self.places + places(&list) > self.most {
            self.clear();
        }
        if places(&list) <= self.most {
            self.places += places(&list);
            self.lists.insert(topic, list);
        }
    }

    /// Forgets all: a list that holds no more would keep the clients in it, and their connections, in memory.
    pub(super) fn clear(&mut self) {
        *self = Self::new(self.most);
    }

    pub(super) fn remove(&mut self, topic: u64) {
        if let Some(list) = self.lists.remove(&topic) {
            self.places -= places(&list);
        }
    }
}

/// An empty list takes a place as well.
fn places<T>(list: &[T]) -> usize {
    list.len() + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(found: &Found<u8>) -> Vec<u64> {
        (0..10).filter(|&topic| found.get(topic).is_some()).collect()
    }

    #[test]
    fn lists_are_remembered_until_there_is_no_room_for_one_more() {
        let mut found = Found::new(10);
        for topic in 0..3 {
            found.put(topic, vec![7, 7].into());
        }
        assert_eq!((kept(&found), found.places), (vec![0, 1, 2], 9));
        found.put(1, vec![8].into());
        assert_eq!((kept(&found), found.places), (vec![0, 1, 2], 8), "a new list takes the place of the old one");
        found.put(3, Arc::default());
        found.put(4, Arc::default());
        assert_eq!((kept(&found), found.places), (vec![0, 1, 2, 3, 4], 10), "an empty list takes one");
        found.put(5, Arc::default());
        assert_eq!((kept(&found), found.places), (vec![5], 1));
        found.put(6, vec![7; 10].into());
        assert_eq!((kept(&found), found.places), (vec![], 0), "one that is larger than all that there is");
    }

    #[test]
    fn a_list_is_good_until_it_is_removed_and_keeps_nothing_in_memory_then() {
        let mut found = Found::new(10);
        let receiver = Arc::new(());
        let mut listening = Found::new(10);
        listening.put(1, vec![Arc::clone(&receiver)].into());
        listening.clear();
        assert_eq!((Arc::strong_count(&receiver), listening.places), (1, 0));
        found.put(3, vec![5].into());
        assert_eq!(found.get(3).as_deref(), Some(&[5][..]));
        found.remove(3);
        found.remove(3);
        assert!(found.get(3).is_none() && found.places == 0);
    }
}
