//! What is counted of a client's lanes.

use std::fmt;
use std::ops::AddAssign;

/// Counts the messages of a client's lanes.
pub trait TrafficCounters: fmt::Debug + Send + Sync {
    /// A body of so many bytes has come.
    fn received(&self, bytes: usize);

    /// Messages were taken for the client.
    fn sent(&self, sent: Sent);

    /// Messages gave way to others, because the client does not read fast enough.
    fn dropped(&self, messages: usize);
}

/// Counts nothing.
impl TrafficCounters for () {
    fn received(&self, _bytes: usize) {}

    fn sent(&self, _sent: Sent) {}

    fn dropped(&self, _messages: usize) {}
}

/// Messages that were taken for receivers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sent {
    /// How many.
    pub messages: usize,
    /// Of their bodies.
    pub bytes: usize,
}

impl AddAssign for Sent {
    #[inline]
    fn add_assign(&mut self, other: Self) {
        self.messages += other.messages;
        self.bytes += other.bytes;
    }
}
