//! Sets of offsets that have few holes. Pure.

/// Offsets as ranges, first and last, in order and apart from each other.
#[derive(Debug, Default)]
pub(super) struct Ranges(Vec<(u64, u64)>);

impl Ranges {
    pub(super) fn add(&mut self, first: u64, last: u64) {
        match self.0.last_mut() {
            // Nearly always offsets come in order.
            Some(range) if range.0 <= first && first <= range.1.saturating_add(1) => range.1 = range.1.max(last),
            Some(range) if first <= range.1 => self.insert(first, last),
            _ => self.0.push((first, last)),
        }
    }

    fn insert(&mut self, mut first: u64, mut last: u64) {
        let from = self.0.partition_point(|range| range.1.saturating_add(1) < first);
        let to = self.0.partition_point(|range| range.0 <= last.saturating_add(1));
        if let (Some(low), Some(high)) = (self.0.get(from), to.checked_sub(1).and_then(|at| self.0.get(at)))
            && from < to
        {
            first = first.min(low.0);
            last = last.max(high.1);
        }
        self.0.splice(from..to.max(from), [(first, last)]);
    }

    /// What is not in the set of all from `first` to `last`.
    pub(super) fn missing(&self, first: u64, last: u64) -> Vec<(u64, u64)> {
        let mut missing = Vec::new();
        let mut next = first;
        for range in &self.0[self.0.partition_point(|range| range.1 < first)..] {
            if range.0 > last {
                break;
            }
            if next < range.0 {
                missing.push((next, range.0 - 1));
            }
            next = range.1.saturating_add(1);
        }
        if next <= last {
            missing.push((next, last));
        }
        missing
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn exactly_what_was_not_added_is_missing(
            added in prop::collection::vec((1_u64..60, 0_u64..5), 0..40), first in 1_u64..40, length in 0_u64..40,
        ) {
            let mut ranges = Ranges::default();
            for (from, more) in &added {
                ranges.add(*from, from + more);
            }
            let last = first + length;
            let has = |offset: &u64| added.iter().any(|(from, more)| (*from..=from + more).contains(offset));
            let expected: Vec<u64> = (first..=last).filter(|offset| !has(offset)).collect();
            let missing = ranges.missing(first, last).into_iter().flat_map(|(first, last)| first..=last);
            let missing: Vec<u64> = missing.collect();
            prop_assert_eq!(missing, expected);
            prop_assert!(ranges.0.windows(2).all(|pair| pair[0].1 + 1 < pair[1].0), "{:?}", ranges);
        }
    }
}
