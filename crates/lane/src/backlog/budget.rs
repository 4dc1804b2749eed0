//! The limits of waiting messages, and what one client has waiting on all its lanes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::counters::TrafficCounters;

/// Limits of what may wait.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Maximum number of messages.
    pub messages: usize,
    /// Maximum bytes of their frames.
    pub bytes: usize,
}

impl Bounds {
    pub(super) fn twice(self) -> Self {
        Self { messages: self.messages.saturating_mul(2), bytes: self.bytes.saturating_mul(2) }
    }

    /// Whether one more message of `more` bytes fits beside these.
    pub(super) fn hold(self, messages: usize, bytes: usize, more: usize) -> bool {
        messages < self.messages && bytes.saturating_add(more) <= self.bytes
    }
}

/// What is waiting for one client on all its lanes, and its limits.
#[derive(Debug)]
pub(crate) struct Budget {
    pub(super) bounds: Bounds,
    /// Number of droppable sources without a group; each may have one gap on each lane.
    pub(super) sources: usize,
    pub(super) messages: AtomicUsize,
    pub(super) bytes: AtomicUsize,
    /// Counts dropped messages.
    pub(crate) counters: Arc<dyn TrafficCounters>,
}

impl Budget {
    pub(crate) fn new(bounds: Bounds, sources: usize, counters: Arc<dyn TrafficCounters>) -> Self {
        Self { bounds, sources, messages: AtomicUsize::new(0), bytes: AtomicUsize::new(0), counters }
    }

    /// Waiting messages, and their bytes.
    pub(crate) fn waiting(&self) -> (usize, usize) {
        (self.messages.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed))
    }

    pub(crate) fn bounds(&self) -> Bounds {
        self.bounds
    }

    pub(super) fn has_room(&self, bytes: usize) -> bool {
        self.is_within(self.bounds, bytes)
    }

    pub(super) fn is_within(&self, bounds: Bounds, bytes: usize) -> bool {
        bounds.hold(self.messages.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed), bytes)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.messages.load(Ordering::Relaxed) == 0
    }

    pub(super) fn add(&self, messages: usize, bytes: usize) {
        self.messages.fetch_add(messages, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn remove(&self, messages: usize, bytes: usize) {
        self.messages.fetch_sub(messages, Ordering::Relaxed);
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}
