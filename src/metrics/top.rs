//! Keeps the greatest few of many values, without sorting or storing the many. Pure.

use std::cmp::Reverse;

/// At most `most` values, those with the greatest keys.
#[derive(Debug)]
pub(crate) struct TopN<K, V> {
    most: usize,
    /// At most twice as many as wanted, so that each is sorted only a few times.
    kept: Vec<(K, V)>,
    /// The least key kept, once there are enough.
    floor: Option<K>,
}

impl<K: Ord + Copy, V> TopN<K, V> {
    pub(crate) fn new(most: usize) -> Self {
        Self { most, kept: Vec::new(), floor: None }
    }

    /// Adds a value, which is only made if it may be among the greatest.
    pub(crate) fn offer(&mut self, key: K, make: impl FnOnce() -> V) {
        if self.most == 0 || self.floor.is_some_and(|floor| key <= floor) {
            return;
        }
        self.kept.push((key, make()));
        if self.kept.len() >= 2 * self.most {
            self.cut();
        }
    }

    fn cut(&mut self) {
        self.kept.sort_by_key(|&(key, _)| Reverse(key));
        self.kept.truncate(self.most);
        if self.kept.len() == self.most {
            self.floor = self.kept.last().map(|&(key, _)| key);
        }
    }

    /// The values, greatest first.
    pub(crate) fn into_sorted(mut self) -> impl Iterator<Item = V> {
        self.cut();
        self.kept.into_iter().map(|(_, value)| value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_greatest_come_first_and_few_others_are_made() {
        for most in [0, 1, 3, 50, 10_000] {
            let (mut top, mut made) = (TopN::new(most), 0);
            // Each number below 5,003, which is prime, once and out of order.
            for n in (0..5003_u64).map(|n| n * 1234 % 5003) {
                top.offer(n, || {
                    made += 1;
                    n
                });
                assert!(top.kept.len() <= 2 * most);
            }
            let expected: Vec<_> = (0..5003).rev().take(most).collect();
            assert_eq!(top.into_sorted().collect::<Vec<_>>(), expected);
            assert!(most > 50 || made < 20 * most + 1, "{made} were made for {most}");
        }
    }
}
