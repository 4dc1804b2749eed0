//! Finds which of many patterns match a topic or cover another pattern: an index by level that compares 64 patterns at
//! once, however deep they are. A tree of levels would have to follow both `*` and the level's own name at each level,
//! and could visit as many nodes as all patterns have levels. Pure; used by `config` and `topic`.

use std::hash::{BuildHasher, RandomState};
use std::sync::OnceLock;

use crate::message::TopicPattern;

/// Patterns compared at once: the bits of a word.
const BLOCK: usize = u64::BITS as usize;

/// Largest block whose patterns are compared one by one: an index of their levels would take more memory than the
/// patterns.
const FEW: usize = 4;

/// The longest level, in bytes, that is its own key.
const EXACT_BYTES: usize = 8;
/// Bit in the key of a longer level; no byte of a level has it.
const HASHED: u64 = 1 << 63;
/// The key of `*`.
const ANY: u64 = b'*' as u64;
/// The key of `>`.
const REST: u64 = b'>' as u64;

/// A topic or pattern to look up.
#[derive(Debug)]
pub(crate) struct Sought<'a> {
    text: &'a str,
    levels: Vec<&'a str>,
    keys: Vec<u64>,
    /// Whether equal keys mean equal levels.
    is_exact: bool,
}

impl<'a> Sought<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        let levels: Vec<&str> = text.split('.').collect();
        let keys = levels.iter().map(|level| key(level)).collect();
        let is_exact = levels.iter().all(|level| level.len() <= EXACT_BYTES);
        Self { text, levels, keys, is_exact }
    }

    pub(crate) fn levels(&self) -> &[&'a str] {
        &self.levels
    }

    /// Whether a pattern with matching keys covers this.
    fn is_covered_by(&self, pattern: &TopicPattern) -> bool {
        self.is_exact || pattern.covers_text(self.text)
    }
}

/// The key by which a level is compared: its bytes, or a hash if it has more than eight.
fn key(level: &str) -> u64 {
    static HASHER: OnceLock<RandomState> = OnceLock::new();
    if level.len() > EXACT_BYTES {
        return HASHER.get_or_init(RandomState::new).hash_one(level) | HASHED;
    }
    level.bytes().rev().fold(0, |key, byte| (key << 8) | u64::from(byte))
}

/// An index of patterns, each with an item.
#[derive(Debug, Clone)]
pub(crate) struct PatternIndex<T> {
    /// Blocks, all full except the last.
    blocks: Vec<Block<T>>,
    /// The first level to compare: callers have checked those before it.
    from: usize,
}

impl<T> Default for PatternIndex<T> {
    fn default() -> Self {
        Self::from_level(0)
    }
}

impl<T> PatternIndex<T> {
    /// An index of patterns that all match the topics looked up until this level.
    pub(crate) fn from_level(from: usize) -> Self {
        Self { blocks: Vec::new(), from }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }

    /// Adds a pattern, at a cost linear in its levels.
    pub(crate) fn add(&mut self, pattern: &TopicPattern, item: T) {
        if self.blocks.last().is_none_or(|last| last.entries.len() == BLOCK) {
            self.blocks.push(Block::default());
        }
        let from = self.from;
        if let Some(last) = self.blocks.last_mut() {
            last.add(from, pattern.clone(), item);
        }
    }

    /// Removes an item of exactly this pattern that `is` accepts; the last entry takes its place.
    pub(crate) fn remove(&mut self, pattern: &TopicPattern, is: impl Fn(&T) -> bool) -> bool {
        let sought = Sought::new(pattern.as_str());
        let keys = sought.keys.get(self.from..).unwrap_or_default();
        let found = self.blocks.iter().enumerate().find_map(|(at, block)| {
            let equal = |&bit: &usize| block.entries[bit].0 == *pattern && is(&block.entries[bit].1);
            bits(block.equal(keys)).find(equal).map(|bit| (at, bit))
        });
        let Some((block, bit)) = found else { return false };
        self.take(block, bit);
        true
    }

    fn take(&mut self, block: usize, bit: usize) {
        let (from, last) = (self.from, self.blocks.len() - 1);
        let Some(moved) = self.blocks[last].pop(from) else { return };
        if (last, self.blocks[last].entries.len()) != (block, bit) {
            self.blocks[block].replace(from, bit, moved);
        }
        if self.blocks[last].entries.is_empty() {
            self.blocks.pop();
        }
    }

    /// The blocks, to be searched with [`Block::find`] a few at a time.
    pub(crate) fn blocks(&self) -> std::slice::Iter<'_, Block<T>> {
        self.blocks.iter()
    }

    /// Whether one of the patterns covers everything that is sought.
    pub(crate) fn covers(&self, sought: &Sought<'_>) -> bool {
        self.blocks.iter().any(|block| block.find(self.from, sought, &mut 0).next().is_some())
    }
}

/// Up to 64 patterns, one bit each.
#[derive(Debug, Clone)]
pub(crate) struct Block<T> {
    /// Empty while the block has few patterns.
    levels: Vec<Level>,
    entries: Vec<(TopicPattern, T)>,
}

/// One level of a block's patterns.
#[derive(Debug, Clone, Default)]
struct Level {
    /// Patterns with a `*` here.
    any: u64,
    /// Patterns with a `>` here.
    rest: u64,
    /// Patterns that end before this level.
    ended: u64,
    /// Patterns with a name here, by the name's key, sorted.
    named: Vec<(u64, u64)>,
}

impl Level {
    fn named(&self, key: u64) -> u64 {
        self.named.binary_search_by_key(&key, |&(key, _)| key).map_or(0, |at| self.named[at].1)
    }

    fn set(&mut self, key: u64, bit: u64) {
        match key {
            ANY => self.any |= bit,
            REST => self.rest |= bit,
            key => match self.named.binary_search_by_key(&key, |&(key, _)| key) {
                Ok(at) => self.named[at].1 |= bit,
                Err(at) => self.named.insert(at, (key, bit)),
            },
        }
    }

    fn clear(&mut self, key: u64, bit: u64) {
        match key {
            ANY => self.any &= !bit,
            REST => self.rest &= !bit,
            key => {
                let Ok(at) = self.named.binary_search_by_key(&key, |&(key, _)| key) else { return };
                self.named[at].1 &= !bit;
                if self.named[at].1 == 0 {
                    self.named.remove(at);
                }
            }
        }
    }
}

impl<T> Default for Block<T> {
    fn default() -> Self {
        Self { levels: Vec::new(), entries: Vec::new() }
    }
}

impl<T> Block<T> {
    /// The items of the patterns that cover everything that is sought. Adds the number of levels compared to `steps`:
    /// at most as many as `sought` has, whatever the patterns are.
    pub(crate) fn find<'a>(
        &'a self,
        from: usize,
        sought: &'a Sought<'a>,
        steps: &mut usize,
    ) -> impl Iterator<Item = &'a T> + use<'a, T> {
        let keys = sought.keys.get(from..).unwrap_or_default();
        let set = if self.is_indexed() { self.matching(keys, steps) } else { self.compared(sought, keys.len(), steps) };
        let found = bits(set).map(|bit| &self.entries[bit]);
        found.filter(|(pattern, _)| sought.is_covered_by(pattern)).map(|(_, item)| item)
    }

    fn all(&self) -> u64 {
        // A block has at least one pattern.
        u64::MAX >> (BLOCK - self.entries.len().max(1))
    }

    fn is_indexed(&self) -> bool {
        !self.levels.is_empty()
    }

    /// Compares the patterns one by one.
    fn compared(&self, sought: &Sought<'_>, levels: usize, steps: &mut usize) -> u64 {
        *steps += levels * self.entries.len();
        let covering = self.entries.iter().enumerate().filter(|(_, (pattern, _))| pattern.covers_text(sought.text));
        covering.fold(0, |set, (bit, _)| set | 1 << bit)
    }

    fn matching(&self, keys: &[u64], steps: &mut usize) -> u64 {
        let (mut open, mut found) = (self.all(), 0);
        for (&key, level) in keys.iter().zip(&self.levels) {
            *steps += 1;
            found |= open & level.rest;
            // Only another `>` covers any number of levels.
            open &= if key == REST { 0 } else { level.any | level.named(key) };
            if open == 0 {
                return found;
            }
        }
        found | self.levels.get(keys.len()).map_or(0, |level| open & level.ended)
    }

    /// The patterns with exactly these levels; all if there is no index.
    fn equal(&self, keys: &[u64]) -> u64 {
        let mut open = self.all();
        if !self.is_indexed() {
            return open;
        }
        for (&key, level) in keys.iter().zip(&self.levels) {
            open &= match key {
                ANY => level.any,
                REST => level.rest,
                key => level.named(key),
            };
        }
        self.levels.get(keys.len()).map_or(0, |level| open & level.ended)
    }

    fn add(&mut self, from: usize, pattern: TopicPattern, item: T) {
        self.entries.push((pattern, item));
        match self.entries.len() {
            count if self.is_indexed() => self.set(from, count - 1),
            ..=FEW => {}
            count => (0..count).for_each(|at| self.set(from, at)),
        }
    }

    fn set(&mut self, from: usize, at: usize) {
        let (pattern, bit) = (self.entries[at].0.clone(), 1 << at);
        self.mark(from, &pattern, |level, key| level.set(key, bit), |level| level.ended |= bit);
    }

    fn clear(&mut self, from: usize, pattern: &TopicPattern, at: usize) {
        if self.is_indexed() {
            let bit = 1 << at;
            self.mark(from, pattern, |level, key| level.clear(key, bit), |level| level.ended &= !bit);
        }
    }

    fn pop(&mut self, from: usize) -> Option<(TopicPattern, T)> {
        let (pattern, item) = self.entries.pop()?;
        self.clear(from, &pattern, self.entries.len());
        if self.entries.len() <= FEW / 2 {
            self.levels = Vec::new();
        }
        Some((pattern, item))
    }

    /// Replaces an entry by another.
    fn replace(&mut self, from: usize, at: usize, entry: (TopicPattern, T)) {
        let (before, _) = std::mem::replace(&mut self.entries[at], entry);
        self.clear(from, &before, at);
        if self.is_indexed() {
            self.set(from, at);
        }
    }

    /// Visits the levels of a pattern, and the one behind its last.
    fn mark(&mut self, from: usize, pattern: &TopicPattern, visit: impl Fn(&mut Level, u64), end: impl Fn(&mut Level)) {
        let mut count = 0;
        for (at, level) in pattern.as_str().split('.').skip(from).enumerate() {
            if at == self.levels.len() {
                self.levels.push(Level::default());
            }
            visit(&mut self.levels[at], key(level));
            count = at + 1;
        }
        if count == self.levels.len() {
            self.levels.push(Level::default());
        }
        end(&mut self.levels[count]);
    }
}

/// The positions of the set bits, lowest first.
fn bits(mut set: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let bit = set.trailing_zeros() as usize;
        set &= set.wrapping_sub(1);
        (bit < BLOCK).then_some(bit)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Texts of a few words, so that many match: with few levels, and with the most levels allowed.
    fn text(words: &'static [&'static str]) -> impl Strategy<Value = String> {
        let levels = |count: std::ops::Range<usize>| prop::collection::vec(prop::sample::select(words), count);
        prop_oneof![8 => levels(1..4), 8 => levels(3..7), 1 => levels(126..129)]
            .prop_map(|levels| levels.join("."))
            .prop_filter("at most 255 bytes", |text| text.len() <= 253)
    }

    fn pattern() -> impl Strategy<Value = TopicPattern> {
        let words = prop_oneof![
            text(&["a", "b", "*"]),
            // The keys of long levels are hashes.
            text(&["*", "a-long-level", "another-long-level"]),
            text(&["*"]),
        ];
        (words, any::<bool>()).prop_map(|(text, is_open)| {
            TopicPattern::new(&if is_open { text + ".>" } else { text }).expect("a pattern")
        })
    }

    fn topic() -> impl Strategy<Value = String> {
        prop_oneof![text(&["a", "b"]), text(&["a", "a-long-level", "another-long-level"])]
    }

    /// The patterns of the index that match, and the steps of the search.
    fn found(index: &PatternIndex<usize>, sought: &str) -> (Vec<usize>, usize) {
        let (sought, mut steps) = (Sought::new(sought), 0);
        let mut found: Vec<usize> =
            index.blocks().flat_map(|block| block.find(0, &sought, &mut steps).copied().collect::<Vec<_>>()).collect();
        found.sort_unstable();
        (found, steps)
    }

    proptest! {
        #[test]
        fn the_index_finds_exactly_the_patterns_that_match(
            patterns in prop::collection::vec(pattern(), 1..140),
            removed in prop::collection::vec(any::<bool>(), 140),
            topics in prop::collection::vec(topic(), 1..5),
            wanted in prop::collection::vec(pattern(), 1..5),
        ) {
            let mut index = PatternIndex::default();
            for (number, pattern) in patterns.iter().enumerate() {
                index.add(pattern, number);
            }
            for (number, pattern) in patterns.iter().enumerate().filter(|(number, _)| removed[*number]) {
                prop_assert!(index.remove(pattern, |&item| item == number));
                prop_assert!(!index.remove(pattern, |&item| item == number), "it is already removed");
            }
            let kept: Vec<usize> = (0..patterns.len()).filter(|&number| !removed[number]).collect();
            let most = |levels: usize| (kept.len().div_ceil(BLOCK) + FEW - 1) * levels;
            for topic in topics {
                let expected: Vec<usize> =
                    kept.iter().copied().filter(|&number| patterns[number].matches(&topic)).collect();
                let (found, steps) = found(&index, &topic);
                prop_assert_eq!(found, expected, "{}", &topic);
                prop_assert!(steps <= most(topic.split('.').count()), "{} steps for {}", steps, topic);
            }
            // Also patterns in the index, which cover themselves.
            for wanted in wanted.iter().chain(patterns.iter().take(5)) {
                let expected: Vec<usize> =
                    kept.iter().copied().filter(|&number| patterns[number].covers(wanted)).collect();
                prop_assert_eq!(found(&index, wanted.as_str()).0, expected, "{}", wanted.as_str());
            }
            prop_assert_eq!(index.is_empty(), kept.is_empty());
        }
    }

    /// Patterns that make a search as long as possible: each level is `*` or the topic's own, for as many levels as
    /// allowed, and only the last does not match.
    pub(crate) fn spiteful(count: usize) -> impl Iterator<Item = TopicPattern> {
        (0..count).map(|number| {
            let level = |at: usize| if at < 20 && number >> at & 1 == 1 { "*" } else { "a" };
            let levels: Vec<&str> = (0..127).map(level).collect();
            TopicPattern::new(&(levels.join(".") + ".b")).expect("a pattern")
        })
    }

    #[test]
    fn near_matches_cost_one_step_per_level_for_64_patterns() {
        let mut index = PatternIndex::default();
        spiteful(1022).enumerate().for_each(|(number, pattern)| index.add(&pattern, number));
        let topic = vec!["a"; 128].join(".");
        let (matching, steps) = found(&index, &topic);
        assert!(matching.is_empty());
        assert_eq!(steps, 16 * 128, "compared one by one they would be 1,022 times 128");
    }
}
