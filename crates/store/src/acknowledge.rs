//! Consumers: their states in the log, behind the records that they speak of.

use std::sync::Arc;

use bytes::Bytes;

use crate::codec::Entry;
use crate::error::Refusal;
use crate::queue::{Queued, Work};
use crate::record::NewRecord;
use crate::store::Store;
use crate::taking::{New, Taken, take};
use crate::ticket::Ticket;
use crate::topic::{State, Topic};

/// Longest state of a consumer.
const LONGEST: usize = 1 << 20;

/// Refuses the state of a consumer if its topic was forgotten, or a dead letter of it is on its way.
fn admit(state: &State, name: &str) -> Result<(), Refusal> {
    if state.gone {
        return Err(Refusal::Closed);
    }
    if state.consumers.is_held(name) { Err(Refusal::Busy) } else { Ok(()) }
}

fn check(name: &str, state: Option<&Bytes>) -> Result<Arc<str>, Refusal> {
    if name.len() > 255 || state.is_some_and(|state| state.len() > LONGEST) {
        return Err(Refusal::TooLong);
    }
    Ok(name.into())
}

impl Store {
    /// Stores the whole state of a consumer, or, with none, that it ended. The store does not look at the state; the
    /// newest one replaces all before it. [`Topic::consumers`] has them again after a restart.
    ///
    /// The ticket resolves once the state is as safe as the topic's level promises, and says the newest offset at that
    /// time. The state is behind all records of the topic that were taken before, so after a crash no state is ahead of
    /// the log as long as it only speaks of records that were [committed](crate::Committed).
    ///
    /// States are taken while the disk is full, as long as the reserve lasts. One that could not be written is written
    /// later, unless the consumer has a newer one by then: its ticket fails all the same. Refused with
    /// [`Refusal::Busy`] while a [dead letter](Self::dead_letter) of this consumer is on its way.
    pub fn consumer(&self, topic: &Topic, name: &str, consumer: Option<Bytes>) -> Result<Ticket, Refusal> {
        let name = check(name, consumer.as_ref())?;
        let mut state = topic.0.state.lock();
        admit(&state, &name)?;
        self.shared.make_again(topic, &mut state)?;
        let (sender, ticket) = Ticket::waiting(false);
        let entry = Entry::Consumer { topic: topic.0.id, name: name.clone(), state: consumer.clone() };
        self.shared.queue.push_own(Queued::new(topic, &mut state, Work::Entry(entry), Some(sender)))?;
        state.on_their_way += 1;
        state.consumers.take(&name, consumer, false);
        Ok(ticket)
    }

    /// Like [`consumer`](Self::consumer), but the state may stay in memory for
    /// [`Options::sync_interval`](crate::Options::sync_interval); then it is written, and synced whatever the topic's
    /// level. Of the states that a consumer is given meanwhile only the newest is written. A crash before that brings
    /// back an older one.
    pub fn consumer_lazily(&self, topic: &Topic, name: &str, consumer: Option<Bytes>) -> Result<(), Refusal> {
        let name = check(name, consumer.as_ref())?;
        let mut state = topic.0.state.lock();
        admit(&state, &name)?;
        state.consumers.take_lazily(&name, consumer);
        drop(state);
        self.shared.log_later(topic);
        Ok(())
    }

    /// Appends a record to the topic `to` and stores the state of a consumer of the topic `from` that no longer needs
    /// it: both or neither, whenever the store is opened again. The ticket resolves like that of the record, once the
    /// state is safe as well.
    ///
    /// Until then other states of this consumer are refused with [`Refusal::Busy`], because they would say that the
    /// record is done with, which is not certain yet. If the ticket fails, the consumer has the state from before.
    pub fn dead_letter(
        &self,
        to: &Topic,
        record: NewRecord,
        from: &Topic,
        name: &str,
        consumer: Bytes,
    ) -> Result<Ticket, Refusal> {
        let name = check(name, Some(&consumer))?;
        if !record.fits() {
            return Err(Refusal::TooLong);
        }
        let now_ms = self.shared.uptime_ms();
        // The state of the topic with the smaller id is locked first.
        let early = (from.0.id < to.0.id).then(|| from.0.state.lock());
        let mut to_state = to.0.state.lock();
        let mut from_state = early.or_else(|| (from.0.id > to.0.id).then(|| from.0.state.lock()));
        if to_state.gone || from_state.as_ref().is_some_and(|state| state.gone) {
            return Err(Refusal::Closed);
        }
        if from_state.as_deref().unwrap_or(&to_state).consumers.is_held(&name) {
            return Err(Refusal::Busy);
        }
        self.shared.make_again(to, &mut to_state)?;
        if let Some(state) = &mut from_state {
            self.shared.make_again(from, state)?;
        }
        let (first, ticket, new) = match take(&mut to_state, record, now_ms) {
            Taken::Stored(stored) => (None, Ticket::ready(stored), None),
            Taken::Waiting(offset) => {
                let (sender, ticket) = Ticket::waiting(true);
                let queued = Queued::new(to, &mut to_state, Work::Duplicate(offset), Some(sender));
                (Some(queued), ticket, None)
            }
            Taken::New(record) => {
                let (sender, ticket) = Ticket::waiting(false);
                let new = New::of(&record);
                let entry = Entry::Message { topic: to.0.id, record };
                (Some(Queued::new(to, &mut to_state, Work::Entry(entry), Some(sender))), ticket, Some(new))
            }
        };
        let (sender, ticket) = ticket.with_second();
        let entry = Entry::Consumer { topic: from.0.id, name: name.clone(), state: Some(consumer.clone()) };
        let state = from_state.as_deref_mut().unwrap_or(&mut to_state);
        let second = Queued::new(from, state, Work::Entry(entry), Some(sender));
        match first {
            Some(first) => {
                self.shared.queue.push([Queued { is_joined: true, ..first }, second])?;
                to_state.on_their_way += 1;
            }
            None => self.shared.queue.push([second])?,
        }
        if let Some(new) = new {
            to_state.advance(new, now_ms);
        }
        let state = from_state.as_deref_mut().unwrap_or(&mut to_state);
        state.on_their_way += 1;
        state.consumers.take(&name, Some(consumer), true);
        Ok(ticket)
    }
}
