//! Fate of a numbered stream of messages: arrived, duplicate, or after a later one.

use std::collections::BTreeSet;

/// One receiver's view of one sender.
#[derive(Debug, Default)]
pub(super) struct Sequence {
    /// Lowest number such that it and all higher ones are unseen.
    next: u64,
    /// Numbers below `next` that have not arrived.
    missing: BTreeSet<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arrival {
    InOrder,
    /// Arrived after a message with a higher number.
    Late,
    Duplicate,
}

impl Sequence {
    pub(super) fn arrived(&mut self, number: u64) -> Arrival {
        if number >= self.next {
            self.missing.extend(self.next..number);
            self.next = number + 1;
            Arrival::InOrder
        } else if self.missing.remove(&number) {
            Arrival::Late
        } else {
            Arrival::Duplicate
        }
    }
}
