//! Caches the resolved receivers of each topic. A subscriber to `>` is in every topic's list, so the total number of
//! entries is bounded. Pure.
//!
//! A pattern that comes or goes invalidates the lists of the topics that it matches. Finding these at once would be
//! work for every topic; instead each list is checked, when it is next used, against the patterns that came and went
//! since. A few of these are remembered; an older list is resolved again.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use crate::message::TopicPattern;

/// Patterns that came or went against which a list is checked. More would take longer than to resolve it again.
const REMEMBERED: usize = 64;

/// Lists by topic.
#[derive(Debug)]
pub(super) struct RouteCache<T> {
    lists: HashMap<u64, List<T>>,
    /// The topics that have lists, in no order.
    topics: Vec<u64>,
    /// Places that the lists take.
    places: usize,
    most: usize,
    /// The patterns that came or went last, the newest last.
    changes: VecDeque<TopicPattern>,
    /// How many have come or gone.
    count: u64,
}

#[derive(Debug)]
struct List<T> {
    items: Arc<[T]>,
    /// How many patterns had come or gone when it was last known to be right.
    count: u64,
    /// Its topic's place among the topics.
    at: usize,
}

impl<T> RouteCache<T> {
    /// Remembers lists of at most so many places in all.
    pub(super) fn new(most: usize) -> Self {
        Self {
            lists: HashMap::new(),
            topics: Vec::new(),
            places: 0,
            most,
            changes: VecDeque::with_capacity(REMEMBERED),
            count: 0,
        }
    }

    /// The list of a topic, if it is still right.
    pub(super) fn get(&mut self, topic: u64, name: &str) -> Option<Arc<[T]>> {
        let list = self.lists.get_mut(&topic)?;
        let missed = usize::try_from(self.count - list.count).unwrap_or(usize::MAX);
        let is_wrong = missed > self.changes.len() || self.changes.iter().rev().take(missed).any(|it| it.matches(name));
        if is_wrong {
            self.remove(topic);
            return None;
        }
        list.count = self.count;
        Some(Arc::clone(&list.items))
    }

    /// A pattern has come or gone.
    pub(super) fn change(&mut self, pattern: TopicPattern) {
        self.count += 1;
        if self.changes.len() == REMEMBERED {
            self.changes.pop_front();
        }
        self.changes.push_back(pattern);
    }

    /// Caches a list, if it fits at all; evicts random others until there is room. They are resolved again with the
    /// next message, which costs about what its delivery does.
    pub(super) fn put(&mut self, topic: u64, items: Arc<[T]>) {
        self.remove(topic);
        let places = places(&items);
        if places > self.most {
            return;
        }
        while self.places + places > self.most && !self.topics.is_empty() {
            self.remove(self.topics[fastrand::usize(..self.topics.len())]);
        }
        if let Entry::Vacant(place) = self.lists.entry(topic) {
            self.places += places;
            place.insert(List { items, count: self.count, at: self.topics.len() });
            self.topics.push(topic);
        }
    }

    pub(super) fn remove(&mut self, topic: u64) {
        let Some(list) = self.lists.remove(&topic) else { return };
        self.places -= places(&list.items);
        self.topics.swap_remove(list.at);
        if let Some(moved) = self.topics.get(list.at).and_then(|moved| self.lists.get_mut(moved)) {
            moved.at = list.at;
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

    fn kept(found: &mut RouteCache<u8>) -> Vec<u64> {
        (0..10).filter(|&topic| found.get(topic, "t").is_some()).collect()
    }

    fn pattern(text: &str) -> TopicPattern {
        TopicPattern::new(text).expect("a pattern")
    }

    #[test]
    fn lists_are_remembered_as_long_as_there_is_room_and_others_make_room_one_by_one() {
        let mut found = RouteCache::new(10);
        for topic in 0..3 {
            found.put(topic, vec![7, 7].into());
        }
        assert_eq!((kept(&mut found), found.places), (vec![0, 1, 2], 9));
        found.put(1, vec![8].into());
        assert_eq!((kept(&mut found), found.places), (vec![0, 1, 2], 8), "a new list takes the place of the old one");
        found.put(3, Arc::default());
        found.put(4, Arc::default());
        assert_eq!((kept(&mut found), found.places), (vec![0, 1, 2, 3, 4], 10), "an empty list takes one");
        found.put(5, Arc::default());
        assert_eq!(kept(&mut found).len(), 5, "one has made room");
        assert!(found.get(5, "t").is_some() && found.places <= 10, "for the new one");
        found.put(6, vec![7; 9].into());
        assert_eq!((kept(&mut found), found.places), (vec![6], 10), "all have");
        found.put(7, vec![7; 10].into());
        assert_eq!(kept(&mut found), [6], "one that is larger than all that there is");
    }

    #[test]
    fn a_pattern_that_comes_or_goes_makes_wrong_only_what_it_matches() {
        let mut found = RouteCache::new(100);
        for (topic, items) in [(1, [1]), (2, [2])] {
            found.put(topic, items.into());
        }
        for n in 0..REMEMBERED {
            found.change(pattern(&format!("elsewhere.{n}.>")));
        }
        assert_eq!(found.get(1, "news.x").as_deref(), Some(&[1][..]), "others' patterns do it no harm");
        found.change(pattern("news.*"));
        assert!(found.get(1, "news.x").is_none() && found.places == 2, "it matches");
        assert!(found.get(2, "other").is_none(), "too many have come and gone since it was right");
        found.put(2, [3].into());
        assert_eq!(found.get(2, "news.y").as_deref(), Some(&[3][..]), "found after it came");
    }

    #[test]
    fn a_list_is_good_until_it_is_removed() {
        let mut found = RouteCache::new(10);
        found.put(3, vec![5].into());
        assert_eq!(found.get(3, "t").as_deref(), Some(&[5][..]));
        found.remove(3);
        found.remove(3);
        assert!(found.get(3, "t").is_none() && found.places == 0 && found.topics.is_empty());
    }
}
