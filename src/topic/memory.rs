//! The memory that the logs of all topics take together, and its bound.

use std::sync::atomic::{AtomicUsize, Ordering};

#[derive(Debug)]
pub(super) struct Memory {
    bytes: AtomicUsize,
    most: usize,
}

impl Memory {
    pub(super) fn new(most: usize) -> Self {
        Self { bytes: AtomicUsize::new(0), most }
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// A topic took `before` bytes and takes `now`. False if that is too much for all of them together.
    pub(super) fn change(&self, before: usize, now: usize) -> bool {
        let total = if now >= before {
            self.bytes.fetch_add(now - before, Ordering::Relaxed) + (now - before)
        } else {
            self.bytes.fetch_sub(before - now, Ordering::Relaxed) - (before - now)
        };
        total <= self.most
    }

    /// Whether less than an eighth is left.
    pub(super) fn is_nearly_full(&self) -> bool {
        self.bytes() > self.most - self.most / 8
    }
}
