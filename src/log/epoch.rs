//! The identity of one life of a log: offsets of different epochs have nothing to do with each other.

use std::sync::Arc;

/// An epoch. Clients only compare it. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Epoch(Arc<str>);

impl Epoch {
    /// An epoch that a store has given.
    pub(crate) fn new(text: &str) -> Self {
        Self(text.into())
    }

    /// An epoch that no other log has had.
    pub(crate) fn random() -> Self {
        Self(format!("{:016x}", fastrand::u64(..)).into())
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}
