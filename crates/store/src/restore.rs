//! Putting records back at the offsets that they had.

use crate::codec::Entry;
use crate::error::Refusal;
use crate::queue::{Queued, Work};
use crate::store::Store;
use crate::ticket::Ticket;
use crate::topic::Topic;

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
        self.shared.make_again(topic, &mut state)?;
        let (sender, ticket) = Ticket::waiting(false);
        let newest = Work::Entry(Entry::Newest { topic: id, offset: through, at_ms: 0 });
        let trim = Work::Entry(Entry::Trim { topic: id, through });
        let first = Queued { is_joined: true, ..Queued::new(topic, &mut state, newest, None) };
        let second = Queued::new(topic, &mut state, trim, Some(sender));
        self.shared.queue.push([first, second])?;
        state.on_their_way += 2;
        state.taken = through;
        state.newest = through;
        state.kept.trim(through);
        state.trim_logged = through;
        Ok(Some(ticket))
    }
}
