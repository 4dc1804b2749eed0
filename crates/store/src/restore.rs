//! Putting records back at the offsets that they had.

use bytes::Bytes;

use crate::codec::{Entry, MAX_ENTRY, OVERHEAD};
use crate::error::Refusal;
use crate::queue::{Queued, Work};
use crate::record::NewRecord;
use crate::store::Store;
use crate::ticket::Ticket;
use crate::topic::Topic;

impl NewRecord {
    /// Whether it is short enough to be stored.
    pub fn fits(&self) -> bool {
        let size = self.tail.len() + self.attachment.as_ref().map_or(0, Bytes::len);
        self.key.as_ref().is_none_or(|key| key.len() <= 255) && size <= MAX_ENTRY - OVERHEAD - 255
    }
}

impl Store {
    /// Makes a topic that never had a record go on behind an offset, as if all up to it had been dropped. `None` if it
    /// has had records; nothing is changed then.
    pub fn skip(&self, topic: &Topic, through: u64) -> Result<Option<Ticket>, Refusal> {
        let id = topic.0.id;
        let mut state = topic.0.state.lock();
        if state.gone {
            return Err(Refusal::Closed);
        }
        if state.taken > 0 {
            return Ok(None);
        }
        let push = |entry, ticket| {
            self.shared.queue.push_own(Queued { topic: topic.clone(), work: Work::Entry(entry), ticket })
        };
        let (sender, ticket) = Ticket::waiting(false);
        push(Entry::Newest { topic: id, offset: through, at_ms: 0 }, None)?;
        push(Entry::Trim { topic: id, through }, Some(sender))?;
        state.taken = through;
        state.newest = through;
        state.kept.trim(through);
        state.trim_logged = through;
        Ok(Some(ticket))
    }
}
