//! Traffic counters of a client's lanes. The server implements them with its metrics.

use std::fmt;
use std::ops::AddAssign;

/// Counts the messages of a client's lanes.
pub trait TrafficCounters: fmt::Debug + Send + Sync {
    /// Counts a received body of `bytes`.
    fn received(&self, bytes: usize);

    /// Counts messages accepted for the client.
    fn sent(&self, sent: Sent);

    /// Counts messages dropped because the client does not read fast enough.
    fn dropped(&self, messages: usize);
}

/// Counts nothing.
impl TrafficCounters for () {
    fn received(&self, _bytes: usize) {}

    fn sent(&self, _sent: Sent) {}

    fn dropped(&self, _messages: usize) {}
}

/// Messages accepted for receivers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sent {
    /// Number of messages.
    pub messages: usize,
    /// Bytes of their bodies.
    pub bytes: usize,
}

impl AddAssign for Sent {
    #[inline]
    fn add_assign(&mut self, other: Self) {
        self.messages += other.messages;
        self.bytes += other.bytes;
    }
}
