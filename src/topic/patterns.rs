//! Which patterns match a topic: a tree of their first levels, so that the answer takes about as long as the topic has
//! levels, however many patterns there are. Pure.

use std::collections::HashMap;

use crate::message::{TopicName, TopicPattern};

/// Levels of the tree: each level of a pattern costs some hundred bytes there, and a pattern may have 128. What is deeper
/// is compared as text.
const DEPTH: usize = 8;

/// Patterns, each with what belongs to it.
#[derive(Debug)]
pub(super) struct Patterns<T> {
    root: Node<T>,
    /// Numbers what is added: what came first is found first.
    order: u64,
}

/// One level; `*` is among its children.
#[derive(Debug)]
struct Node<T> {
    children: HashMap<Box<str>, Self>,
    /// Of patterns that end here.
    here: Vec<(u64, T)>,
    /// Of patterns that end with a `>` below this level.
    below: Vec<(u64, T)>,
    /// Of patterns with further levels than the tree has.
    deeper: Vec<(u64, TopicPattern, T)>,
}

impl<T> Default for Patterns<T> {
    fn default() -> Self {
        Self { root: Node::default(), order: 0 }
    }
}

impl<T> Default for Node<T> {
    fn default() -> Self {
        Self { children: HashMap::new(), here: Vec::new(), below: Vec::new(), deeper: Vec::new() }
    }
}

impl<T> Patterns<T> {
    pub(super) fn is_empty(&self) -> bool {
        self.root.is_empty()
    }

    pub(super) fn add(&mut self, pattern: &TopicPattern, item: T) {
        self.order += 1;
        let mut node = &mut self.root;
        for (depth, level) in pattern.as_str().split('.').enumerate() {
            if depth == DEPTH {
                node.deeper.push((self.order, pattern.clone(), item));
                return;
            }
            if level == ">" {
                node.below.push((self.order, item));
                return;
            }
            node = node.children.entry(level.into()).or_default();
        }
        node.here.push((self.order, item));
    }

    /// Removes what belongs to this very pattern and `is` it.
    pub(super) fn remove(&mut self, pattern: &TopicPattern, is: impl Fn(&T) -> bool) {
        let levels: Vec<&str> = pattern.as_str().split('.').collect();
        self.root.remove(pattern, &levels, DEPTH, &is);
    }

    /// What belongs to the patterns that match, in the order in which it was added.
    pub(super) fn find(&self, topic: &TopicName) -> impl Iterator<Item = &T> {
        let levels: Vec<&str> = topic.as_str().split('.').collect();
        let mut found = Vec::new();
        self.root.find(topic, &levels, &mut found);
        found.sort_unstable_by_key(|&(order, _)| order);
        found.into_iter().map(|(_, item)| item)
    }
}

impl<T> Node<T> {
    fn is_empty(&self) -> bool {
        self.children.is_empty() && self.here.is_empty() && self.below.is_empty() && self.deeper.is_empty()
    }

    fn find<'a>(&'a self, topic: &TopicName, levels: &[&str], found: &mut Vec<(u64, &'a T)>) {
        let deeper = self.deeper.iter().filter(|(_, pattern, _)| pattern.matches(topic.as_str()));
        found.extend(deeper.map(|(order, _, item)| (*order, item)));
        let Some((level, rest)) = levels.split_first() else {
            found.extend(self.here.iter().map(|(order, item)| (*order, item)));
            return;
        };
        found.extend(self.below.iter().map(|(order, item)| (*order, item)));
        for child in [self.children.get(*level), self.children.get("*")].into_iter().flatten() {
            child.find(topic, rest, found);
        }
    }

    /// Removes an item, and what is empty without it.
    fn remove(&mut self, pattern: &TopicPattern, levels: &[&str], depth: usize, is: &impl Fn(&T) -> bool) {
        match levels.split_first() {
            Some(_) if depth == 0 => self.deeper.retain(|(_, other, item)| other != pattern || !is(item)),
            None => self.here.retain(|(_, item)| !is(item)),
            Some((&">", _)) => self.below.retain(|(_, item)| !is(item)),
            Some((level, rest)) => {
                if let Some(child) = self.children.get_mut(*level) {
                    child.remove(pattern, rest, depth - 1, is);
                    if child.is_empty() {
                        self.children.remove(*level);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Texts out of few words, so that many match, some of them deeper than the tree.
    fn text(words: &'static [&'static str]) -> impl Strategy<Value = String> {
        let levels = |count: std::ops::Range<usize>| prop::collection::vec(prop::sample::select(words), count);
        prop_oneof![levels(1..4), levels(7..11)].prop_map(|levels| levels.join("."))
    }

    fn pattern() -> impl Strategy<Value = TopicPattern> {
        (text(&["a", "b", "*"]), any::<bool>()).prop_map(|(text, is_open)| {
            TopicPattern::new(&if is_open { text + ".>" } else { text }).expect("a pattern")
        })
    }

    proptest! {
        #[test]
        fn what_is_found_is_what_matches_in_the_order_in_which_it_came(
            patterns in prop::collection::vec(pattern(), 0..30),
            removed in prop::collection::vec(any::<bool>(), 30),
            topics in prop::collection::vec(text(&["a", "b"]), 1..10),
        ) {
            let mut tree = Patterns::default();
            for (number, pattern) in patterns.iter().enumerate() {
                tree.add(pattern, number);
            }
            for (number, pattern) in patterns.iter().enumerate().filter(|(number, _)| removed[*number]) {
                tree.remove(pattern, |&item| item == number);
            }
            let kept = |number: &usize| !removed[*number];
            for topic in topics {
                let name = TopicName::new(&topic).expect("a topic");
                let expected: Vec<usize> =
                    (0..patterns.len()).filter(kept).filter(|&number| patterns[number].matches(&topic)).collect();
                prop_assert_eq!(tree.find(&name).copied().collect::<Vec<_>>(), expected, "{}", topic);
            }
            prop_assert_eq!(tree.is_empty(), (0..patterns.len()).filter(kept).count() == 0);
        }
    }
}
