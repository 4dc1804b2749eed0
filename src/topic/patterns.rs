//! Finds the patterns that match a topic: a tree of their first levels, so that the answer takes about as long as the
//! topic has levels, however many patterns there are; and behind these an index that compares 64 patterns at once.
//! Pure.
//!
//! A tree alone would do for short patterns only: at each level it goes on by the level's name and by `*`, so that a
//! topic of 128 levels would lead through all levels of all patterns.

use std::collections::HashMap;

use crate::message::TopicPattern;
use crate::pattern_index::{Block, PatternIndex, Sought};

/// Levels of the tree: a topic leads to no more than `2^(DEPTH + 1)` of its nodes.
const DEPTH: usize = 8;

/// Patterns, each with an item and a number: items are found in the order of their numbers.
#[derive(Debug)]
pub(super) struct Patterns<T> {
    root: Node<T>,
}

/// One level.
#[derive(Debug)]
struct Node<T> {
    named: HashMap<Box<str>, Self>,
    /// Behind a `*`.
    any: Option<Box<Self>>,
    /// Of patterns that end here.
    here: Vec<(u64, T)>,
    /// Of patterns that end with a `>` below this level.
    below: Vec<(u64, T)>,
    /// Of patterns with further levels than the tree has.
    deeper: PatternIndex<(u64, T)>,
}

impl<T> Default for Patterns<T> {
    fn default() -> Self {
        Self { root: Node::default() }
    }
}

impl<T> Default for Node<T> {
    fn default() -> Self {
        let deeper = PatternIndex::from_level(DEPTH);
        Self { named: HashMap::new(), any: None, here: Vec::new(), below: Vec::new(), deeper }
    }
}

impl<T: Copy> Patterns<T> {
    pub(super) fn is_empty(&self) -> bool {
        self.root.is_empty()
    }

    /// Adds a pattern's item, with a number above all others.
    pub(super) fn add(&mut self, pattern: &TopicPattern, number: u64, item: T) {
        let mut node = &mut self.root;
        for (depth, level) in pattern.as_str().split('.').enumerate() {
            if depth == DEPTH {
                node.deeper.add(pattern, (number, item));
                return;
            }
            node = match level {
                ">" => {
                    node.below.push((number, item));
                    return;
                }
                "*" => node.any.get_or_insert_default(),
                level => node.named.entry(level.into()).or_default(),
            };
        }
        node.here.push((number, item));
    }

    /// Removes this pattern's item with this number.
    pub(super) fn remove(&mut self, pattern: &TopicPattern, number: u64) {
        let levels: Vec<&str> = pattern.as_str().split('.').collect();
        self.root.remove(pattern, &levels, DEPTH, number);
    }

    /// Begins to look for the items of the patterns that match.
    pub(super) fn search<'a>(&'a self, topic: &'a Sought<'a>) -> Search<'a, T> {
        let (nodes, found) = (vec![(&self.root, 0)], Vec::new());
        Search { topic, nodes, blocks: [].iter(), found, steps: 0 }
    }
}

/// A search that goes on a part at a time.
#[derive(Debug)]
pub(super) struct Search<'a, T> {
    topic: &'a Sought<'a>,
    /// Still to be visited, each with its level.
    nodes: Vec<(&'a Node<T>, usize)>,
    /// Of the node that was visited last.
    blocks: std::slice::Iter<'a, Block<(u64, T)>>,
    found: Vec<(u64, T)>,
    /// Levels that were compared, and what was found.
    steps: usize,
}

impl<T: Copy> Search<'_, T> {
    /// Goes on for about so many steps; true once it is done.
    pub(super) fn go_on(&mut self, steps: usize) -> bool {
        let until = self.steps.saturating_add(steps);
        while self.steps < until {
            if let Some(block) = self.blocks.next() {
                self.found.extend(block.find(DEPTH, self.topic, &mut self.steps).copied());
                continue;
            }
            let Some((node, depth)) = self.nodes.pop() else { return true };
            self.steps += 1;
            self.blocks = node.deeper.blocks();
            let found = match self.topic.levels().get(depth) {
                Some(&level) => {
                    let children = [node.named.get(level), node.any.as_deref()];
                    self.nodes.extend(children.into_iter().flatten().map(|child| (child, depth + 1)));
                    &node.below
                }
                None => &node.here,
            };
            self.steps += found.len();
            self.found.extend(found);
        }
        false
    }

    /// The items found, in the order in which they were added.
    pub(super) fn found(mut self) -> Vec<T> {
        self.found.sort_unstable_by_key(|&(number, _)| number);
        self.found.into_iter().map(|(_, item)| item).collect()
    }
}

impl<T> Node<T> {
    fn is_empty(&self) -> bool {
        let is_leaf = self.named.is_empty() && self.any.is_none();
        is_leaf && self.here.is_empty() && self.below.is_empty() && self.deeper.is_empty()
    }

    /// Removes an item, and levels that are empty without it.
    fn remove(&mut self, pattern: &TopicPattern, levels: &[&str], depth: usize, number: u64) {
        match levels.split_first() {
            Some(_) if depth == 0 => {
                self.deeper.remove(pattern, |&(other, _)| other == number);
            }
            None => remove(&mut self.here, number),
            Some((&">", _)) => remove(&mut self.below, number),
            Some((&"*", rest)) => {
                if let Some(child) = &mut self.any {
                    child.remove(pattern, rest, depth - 1, number);
                    self.any.take_if(|child| child.is_empty());
                }
            }
            Some((level, rest)) => {
                if let Some(child) = self.named.get_mut(*level) {
                    child.remove(pattern, rest, depth - 1, number);
                    if child.is_empty() {
                        self.named.remove(*level);
                    }
                }
            }
        }
    }
}

/// Removes an item from some that are in the order of their numbers.
fn remove<T>(items: &mut Vec<(u64, T)>, number: u64) {
    if let Ok(at) = items.binary_search_by_key(&number, |&(number, _)| number) {
        items.remove(at);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Texts out of few words, so that many match, some of them deeper than the tree, or as deep as may be.
    fn text(words: &'static [&'static str]) -> impl Strategy<Value = String> {
        let levels = |count: std::ops::Range<usize>| prop::collection::vec(prop::sample::select(words), count);
        prop_oneof![4 => levels(1..4), 4 => levels(7..11), 1 => levels(126..128)].prop_map(|levels| levels.join("."))
    }

    fn pattern() -> impl Strategy<Value = TopicPattern> {
        let text = prop_oneof![text(&["a", "b", "*"]), text(&["*"])];
        (text, any::<bool>()).prop_map(|(text, is_open)| {
            TopicPattern::new(&if is_open && text.len() < 254 { text + ".>" } else { text }).expect("a pattern")
        })
    }

    /// What is found, and the steps that it took.
    fn found(tree: &Patterns<usize>, topic: &str) -> (Vec<usize>, usize) {
        let sought = Sought::new(topic);
        let mut search = tree.search(&sought);
        while !search.go_on(1) {}
        let steps = search.steps;
        (search.found(), steps)
    }

    proptest! {
        #[test]
        fn what_is_found_is_what_matches_in_the_order_in_which_it_came(
            patterns in prop::collection::vec(pattern(), 0..100),
            removed in prop::collection::vec(any::<bool>(), 100),
            topics in prop::collection::vec(text(&["a", "b"]), 1..10),
        ) {
            let mut tree = Patterns::default();
            for (number, pattern) in patterns.iter().enumerate() {
                tree.add(pattern, number as u64, number);
            }
            for (number, pattern) in patterns.iter().enumerate().filter(|(number, _)| removed[*number]) {
                tree.remove(pattern, number as u64);
            }
            let kept: Vec<usize> = (0..patterns.len()).filter(|&number| !removed[number]).collect();
            for topic in topics {
                let expected: Vec<usize> =
                    kept.iter().copied().filter(|&number| patterns[number].matches(&topic)).collect();
                prop_assert_eq!(found(&tree, &topic).0, expected, "{}", topic);
            }
            prop_assert_eq!(tree.is_empty(), kept.is_empty());
        }
    }

    /// Patterns that take each turn there is in the tree, and match a topic of nothing but `a` up to their last level.
    fn spiteful(levels: usize) -> impl Iterator<Item = TopicPattern> {
        (0..1_usize << levels.min(13)).map(move |number| {
            let level = |at: usize| if at < 20 && number >> at & 1 == 1 { "*" } else { "a" };
            let levels: Vec<&str> = (1..levels).map(level).chain(["b"]).collect();
            TopicPattern::new(&levels.join(".")).expect("a pattern")
        })
    }

    #[test]
    fn a_search_visits_each_turn_of_the_tree_once_and_64_deep_patterns_at_once() {
        for levels in [2, 4, 8, 16, 64, 128] {
            let mut tree = Patterns::default();
            let patterns: Vec<_> = spiteful(levels).collect();
            patterns.iter().enumerate().for_each(|(number, pattern)| tree.add(pattern, number as u64, number));
            let (found, steps) = found(&tree, &vec!["a"; levels].join("."));
            assert!(found.is_empty(), "none matches: {found:?}");
            let turns = 1 << (levels.min(DEPTH) + 1);
            // Where the tree ends, each of its 256 places has a block of its own that may not be full.
            let blocks = if levels > DEPTH { patterns.len() / 64 + (1 << DEPTH) } else { 0 };
            assert!(steps <= turns + blocks * levels.saturating_sub(DEPTH), "{steps} steps for {levels} levels");
            assert!(steps < 100_000, "one by one it would be {} levels", patterns.len() * levels);
        }
    }
}
