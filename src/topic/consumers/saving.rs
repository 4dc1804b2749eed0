//! The state of a consumer on the disk, if its topic is there. It is written whole each time, behind the messages that
//! it speaks of. What a client waits for is written at once, everything else with the store's next sync: a crash in
//! between delivers again.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use quic_websocket_store::{Refusal, StoreError, Ticket};
use tokio::sync::Semaphore;

use super::{Dispatcher, State};
use crate::consumer::{Consumer, SaveError};
use crate::durable::{Durable, StoredTopic};
use crate::message::{ConsumerName, now_ms};
use crate::topic::topic::Topic;
use crate::topic::{TopicError, uptime_ms};

/// Time of the day before which no consumer can have been used: the clock was wrong.
const EPOCH_MS: u64 = 1_577_836_800_000;

/// Where the state of a consumer is kept.
#[derive(Debug)]
pub(super) struct Saving {
    durable: Arc<Durable>,
    stored: StoredTopic,
    /// Time between two writes for which no client waits.
    interval_ms: u64,
    /// One write for which clients wait at a time. Those that come meanwhile share the next one.
    turn: Semaphore,
}

/// Which of a consumer's states is where. A state has the number of the changes before it.
#[derive(Debug, Default)]
pub(super) struct Versions {
    now: u64,
    /// Given to the store.
    given: u64,
    /// As safe as the topic promises.
    stored: u64,
    /// When the first change came that the store does not know of.
    since_ms: Option<u64>,
}

impl Saving {
    /// For the topics that are on a disk.
    pub(super) fn of(topic: &Topic, stored: Option<&StoredTopic>) -> Option<Self> {
        Some(Self {
            durable: Arc::clone(topic.shared.durable.as_ref()?),
            stored: stored?.clone(),
            interval_ms: topic.shared.config.store.sync_interval_ms,
            turn: Semaphore::new(1),
        })
    }

    /// The consumer that is kept under a name, and for how long no client has used it, by the time of day.
    pub(super) fn load(&self, name: &ConsumerName, newest: u64) -> Option<Result<(Consumer, u64), SaveError>> {
        let saved = self.stored.consumer(name.as_str())?;
        Some(load(&saved, newest))
    }

    /// How many consumers are kept.
    pub(super) fn count(&self) -> usize {
        self.stored.consumers().len()
    }
}

/// A consumer from its saved state, and for how long no client has used it.
pub(super) fn load(saved: &[u8], newest: u64) -> Result<(Consumer, u64), SaveError> {
    let (consumer, used_ms) = Consumer::load(saved, newest)?;
    let idle_ms = if used_ms < EPOCH_MS { 0 } else { now_ms().saturating_sub(used_ms) };
    Ok((consumer, idle_ms))
}

/// Whether a saved consumer may have been idle for so long, by the time of day.
pub(in crate::topic) fn is_idle(saved: &[u8], at_least: Duration) -> bool {
    load(saved, u64::MAX).is_ok_and(|(_, idle_ms)| u128::from(idle_ms) > at_least.as_millis())
}

impl State {
    /// The state has changed. Gives whether it is the first change that the store does not know of.
    pub(super) fn changed(&mut self) -> bool {
        self.versions.now += 1;
        let is_first = self.versions.since_ms.is_none();
        if is_first {
            self.versions.since_ms = Some(uptime_ms());
        }
        is_first
    }
}

impl Dispatcher {
    /// Whether its state outlives the server.
    pub(super) fn is_saved(&self) -> bool {
        self.saving.is_some()
    }

    /// Gives the store the present state. `None` if it has it, or if the topic is in memory.
    pub(super) fn save(&self, state: &mut State) -> Option<Result<Ticket, Refusal>> {
        let Saving { durable, stored, .. } = self.saving.as_ref()?;
        if state.is_over || state.versions.given == state.versions.now {
            return None;
        }
        let saved = Bytes::from(state.consumer.save(now_ms()));
        let ticket = durable.consumer(stored, self.name.as_str(), Some(saved));
        if ticket.is_ok() {
            (state.versions.given, state.versions.since_ms) = (state.versions.now, None);
        } else {
            state.versions.since_ms = Some(uptime_ms());
        }
        Some(ticket)
    }

    /// Has the store take the present state sooner or later: a crash before that delivers again.
    pub(super) fn save_lazily(&self, state: &mut State) {
        let Some(Saving { durable, stored, .. }) = &self.saving else { return };
        if state.is_over || state.versions.given == state.versions.now {
            return;
        }
        let saved = Bytes::from(state.consumer.save(now_ms()));
        if durable.consumer_lazily(stored, self.name.as_str(), saved).is_ok() {
            (state.versions.given, state.versions.since_ms) = (state.versions.now, None);
        }
    }

    /// Gives the store the present state, if it is time. Gives the time at which it will be.
    pub(super) fn save_in_time(&self) -> Option<u64> {
        let interval_ms = self.saving.as_ref()?.interval_ms;
        let mut state = self.state();
        let due_ms = state.versions.since_ms?.saturating_add(interval_ms);
        if uptime_ms() < due_ms {
            return Some(due_ms);
        }
        // One that is refused is tried again.
        let _ = self.save(&mut state);
        state.versions.since_ms.map(|since_ms| since_ms.saturating_add(interval_ms))
    }

    /// Waits until the state as it is now is as safe as the topic promises. Cancel safe.
    pub(in crate::topic) async fn saved(&self) -> Result<(), TopicError> {
        let Some(saving) = &self.saving else { return Ok(()) };
        let wanted = self.state().versions.now;
        // It is never closed.
        let Ok(_turn) = saving.turn.acquire().await else { return Ok(()) };
        let (ticket, version) = {
            let mut state = self.state();
            if state.versions.stored >= wanted {
                return Ok(());
            }
            // It may have been given to the store without anybody who waits for it: then once more.
            state.versions.given = state.versions.given.min(state.versions.now.saturating_sub(1));
            (self.save(&mut state), state.versions.now)
        };
        let unsure = |cause: StoreError| self.unsure(&cause.to_string());
        match ticket {
            None => {}
            Some(Ok(ticket)) => drop(ticket.await.map_err(unsure)?),
            Some(Err(refusal)) => return Err(self.unsure(&refusal.to_string())),
        }
        let mut state = self.state();
        state.versions.stored = state.versions.stored.max(version);
        Ok(())
    }

    fn unsure(&self, cause: &str) -> TopicError {
        TopicError::ConsumerUnsure { topic: self.topic.clone(), durable: self.name.clone(), cause: cause.to_owned() }
    }

    /// Has the store forget the consumer, and waits until that is as safe as the topic promises.
    pub(in crate::topic) async fn forgotten(&self) -> Result<(), TopicError> {
        match self.forget() {
            None => Ok(()),
            Some(Ok(ticket)) => ticket.await.map(drop).map_err(|cause| self.unsure(&cause.to_string())),
            Some(Err(refusal)) => Err(self.unsure(&refusal.to_string())),
        }
    }

    /// Has the store forget the consumer.
    pub(super) fn forget(&self) -> Option<Result<Ticket, Refusal>> {
        let Saving { durable, stored, .. } = self.saving.as_ref()?;
        self.state().is_over = true;
        Some(durable.consumer(stored, self.name.as_str(), None))
    }
}
