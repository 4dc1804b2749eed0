//! Durable topics: records in a directory that survive the end of the process ([`Level::Os`]) or the loss of power
//! ([`Level::Fsync`]). Knows nothing of clients, connections and messages.
//!
//! **This crate has no stable API**: any release may change it.
//!
//! [`Store::append`] never blocks: it gives the record its offset and a [`Ticket`], which resolves once the record is
//! as safe as its topic promises. One thread writes everything that waits as one group; another one syncs, so records
//! that only go to the system do not wait for the disk. No timer delays a group to let it grow.
//!
//! A record is visible to [`Store::read`] and reported to [`Committed`] when its ticket resolves, not before. So nobody
//! ever sees a record, or an offset, that a crash takes back.

mod acknowledge;
mod aging;
mod codec;
mod commit;
mod completion;
mod consumers;
mod disk;
mod engine;
mod error;
mod failpoint;
mod keys;
mod log;
mod options;
mod queue;
mod record;
mod restore;
mod retention;
#[cfg(test)]
mod simulated;
mod stats;
mod store;
mod taking;
mod ticket;
mod topic;
mod upkeep;

pub use error::{Health, OpenError, Refusal, StoreError};
pub use log::{Finding, Follower, Inspector, Lost, Report};
pub use options::Options;
pub use record::{Damage, Epoch, Head, Level, NewRecord, Page, Record, Retention, Room, Stored};
pub use stats::{Distribution, Refused, Stats};
pub use store::{Committed, Store};
pub use ticket::Ticket;
pub use topic::Topic;
