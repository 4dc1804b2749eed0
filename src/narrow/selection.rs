//! Some of a few messages.

/// A choice among at most [`MOST`](Self::MOST) messages that travel together: bit n for the nth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Selection(u32);

impl Selection {
    /// Most messages that can be chosen from.
    pub(crate) const MOST: usize = 32;

    /// Those that `wants` says, of so many.
    pub(crate) fn of(count: usize, wants: impl Fn(usize) -> bool) -> Self {
        debug_assert!(count <= Self::MOST, "{count} messages at once");
        Self((0..count.min(Self::MOST)).filter(|&at| wants(at)).fold(0, |bits, at| bits | 1 << at))
    }

    /// All of so many.
    pub(crate) fn all(count: usize) -> Self {
        Self::of(count, |_| true)
    }

    /// Those that are in both.
    pub(crate) fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    pub(crate) fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(crate) fn has(self, at: usize) -> bool {
        at < Self::MOST && self.0 >> at & 1 == 1
    }

    pub(crate) fn len(self) -> usize {
        // At most 32.
        self.0.count_ones() as usize
    }

    /// The last one.
    pub(crate) fn last(self) -> Option<usize> {
        self.0.checked_ilog2().map(|at| at as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selection_is_some_of_a_few() {
        let even = Selection::of(32, |at| at % 2 == 0);
        assert_eq!(
            (even.len(), even.last(), even.has(30), even.has(31), even.has(32)),
            (16, Some(30), true, false, false)
        );
        assert_eq!(even.and(Selection::all(3)), Selection::of(3, |at| at != 1));
        assert!(even.and(Selection::of(32, |at| at % 2 == 1)).is_empty());
        assert_eq!((Selection::all(32).len(), Selection::all(0).last(), Selection::all(1).last()), (32, None, Some(0)));
    }
}
