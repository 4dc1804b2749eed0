//! The kinds of waiting frames: plain messages, a topic's messages, and the gaps that replace dropped ones.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

/// Source of droppable messages, usually a subscription: writes the notice about messages that were dropped.
pub trait DropNotice: fmt::Debug + Send + Sync {
    /// Unique name.
    fn name(&self) -> &str;

    /// Frame that replaces the messages from offset `first` to `last`.
    fn gap(&self, first: u64, last: u64) -> Bytes;
}

/// Kind of a waiting frame.
#[derive(Debug, Clone)]
pub(crate) enum Mark {
    /// A message that is never dropped.
    Plain,
    /// A message of a topic. `group` is its pattern subscription, if one subscription delivers several topics.
    Topic { source: Arc<dyn DropNotice>, offset: u64, may_drop: bool, group: Option<Arc<dyn DropNotice>> },
    /// A notice about dropped messages.
    Gap(Gap),
}

/// A range of dropped messages of one source.
#[derive(Debug, Clone)]
pub struct Gap {
    /// Source of the messages.
    pub source: Arc<dyn DropNotice>,
    /// Offset of the first dropped message.
    pub first: u64,
    /// Offset of the last dropped message.
    pub last: u64,
    /// Pattern subscription that delivered them. Once it has too many gaps, one gap of its own replaces them all.
    pub group: Option<Arc<dyn DropNotice>>,
}

impl Gap {
    pub(super) fn frame(&self) -> Bytes {
        self.source.gap(self.first, self.last)
    }

    /// Whether no message lies between this gap and another one of the same source.
    pub(super) fn touches(&self, other: &Self) -> bool {
        self.first <= other.last.saturating_add(1) && other.first <= self.last.saturating_add(1)
    }
}

impl Mark {
    /// Source of the frame; `None` for a plain message.
    pub(super) fn source(&self) -> Option<&Arc<dyn DropNotice>> {
        match self {
            Self::Plain => None,
            Self::Topic { source, .. } | Self::Gap(Gap { source, .. }) => Some(source),
        }
    }

    pub(super) fn is_from(&self, other: &Arc<dyn DropNotice>) -> bool {
        matches!(self, Self::Topic { source, .. } if is_same(source, other))
    }

    pub(super) fn is_gap_of(&self, other: &Arc<dyn DropNotice>) -> bool {
        matches!(self, Self::Gap(gap) if is_same(&gap.source, other))
    }

    pub(super) fn counts(&self) -> bool {
        !matches!(self, Self::Gap(_))
    }
}

pub(super) fn is_same(one: &Arc<dyn DropNotice>, other: &Arc<dyn DropNotice>) -> bool {
    std::ptr::addr_eq(Arc::as_ptr(one), Arc::as_ptr(other))
}
