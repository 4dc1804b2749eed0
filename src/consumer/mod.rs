//! A durable consumer: which messages of a topic it still owes its members, which they have, and when one of them is
//! due again. Pure: times and offsets are arguments, and a topic's messages are never seen here. Called by `topic`,
//! which reads the log, sends, and keeps the state ([`Consumer::save`]).
//!
//! A message is **open** from when it is given to a member until it is settled: acknowledged, dead, or lost. Everything
//! up to [`floor`](Consumer::floor) is settled, everything behind [`through`](Consumer::through) was never given. So
//! the open messages, at most [`Options::max_in_flight`], are all the state that there is.

#[cfg(test)]
mod proptests;
mod save;
mod state;

pub(crate) use self::save::SaveError;
pub(crate) use self::state::{Consumer, Lost, MemberId, Outcome, Why};

/// Most messages that may be open, whatever the options say.
pub(crate) const MAX_OPEN: u32 = 1000;

/// Properties of a consumer, fixed when it is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Options {
    /// Whether it may have several members, each of which gets some of the messages. Otherwise a new member displaces
    /// the one before.
    pub(crate) share: bool,
    /// Whether an acknowledgement settles all messages up to its own. Never with `share`.
    pub(crate) up_to: bool,
    /// Time for which a message stays with a member without an acknowledgement.
    pub(crate) ack_wait_ms: u64,
    /// Most open messages, 1 to [`MAX_OPEN`].
    pub(crate) max_in_flight: u32,
    /// Deliveries after which a message is dead; 0 for no bound.
    pub(crate) max_deliver: u32,
}
