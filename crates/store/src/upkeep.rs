//! What is due now and then: records that are too old, entries without a ticket, and work of the log.

use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::aging::Clock;
use crate::codec::Entry;
use crate::queue::{Queued, Work};
use crate::record::Level;
use crate::store::Shared;
use crate::topic::{State, Topic};

/// Seconds between two looks for records that are too old.
const AGE_ROUNDS: u32 = 10;

/// Does the background work once a second.
pub(crate) fn run(shared: &Shared) {
    const SECOND: Duration = Duration::from_secs(1);
    let hold_ms = u64::try_from(shared.options.clock_hold.as_millis()).unwrap_or(u64::MAX);
    let mut clock = Clock::new(hold_ms);
    let mut rounds = 0_u32;
    let nothing = Topic::nothing();
    let mut asked = 0;
    let mut is_stopping = shared.stop.0.lock();
    while !*is_stopping {
        shared.stop.1.wait_for(&mut is_stopping, SECOND);
        drop(is_stopping);
        rounds = rounds.wrapping_add(1);
        if rounds.is_multiple_of(AGE_ROUNDS) {
            drop_old(shared, &mut clock);
            shared.counters.clock_holds.store(clock.holds, Ordering::Relaxed);
        }
        log_due(shared);
        let settled = shared.settled.load(Ordering::Acquire);
        // What fails here is tried again the next time, and nothing depends on it until then.
        let _ = shared.engine.tend(settled, &|put| shared.snapshot(put));
        if let Some(segment) = shared.engine.due().filter(|segment| *segment > asked) {
            let queued = Queued::settled(&nothing, segment);
            if shared.queue.push_own(queued).is_ok() {
                asked = segment;
            }
        }
        is_stopping = shared.stop.0.lock();
    }
}

/// Drops records for their age.
fn drop_old(shared: &Shared, clock: &mut Clock) {
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let wall_ms = u64::try_from(wall.as_millis()).unwrap_or(u64::MAX);
    if !clock.is_trusted(wall_ms, shared.uptime_ms()) {
        return;
    }
    let topics: Vec<_> = shared.topics.read().values().cloned().collect();
    for topic in topics {
        let mut state = topic.0.state.lock();
        let (newest, retention) = (state.newest, state.retention);
        if retention.age_ms > 0 && state.kept.expire(newest, &retention, Some(wall_ms.saturating_sub(retention.age_ms)))
        {
            drop(state);
            shared.log_later(&topic);
        }
    }
}

/// Queues what the log does not know yet of topics, and nobody waits for: what retention dropped, so that a restart
/// does not bring it back, states of consumers, and what could not be written before.
pub(crate) fn log_due(shared: &Shared) {
    let due = std::mem::take(&mut *shared.due.lock());
    for topic in due.into_values() {
        let mut state = topic.0.state.lock();
        let is_queued = log_topic(shared, &topic, &mut state);
        drop(state);
        if !is_queued {
            shared.log_later(&topic);
        }
    }
}

/// Queues what is due of one topic; says whether that was all.
fn log_topic(shared: &Shared, topic: &Topic, state: &mut State) -> bool {
    let id = topic.0.id;
    let push = |state: &mut State, entry: Entry| {
        let is_lazy = matches!(entry, Entry::Consumer { .. });
        let queued = Queued { is_lazy, ..Queued::new(topic, state, Work::Entry(entry), None) };
        let is_queued = shared.queue.push_own(queued).is_ok();
        state.on_their_way += u32::from(is_queued);
        is_queued
    };
    if state.gone {
        if state.gone_failed {
            state.gone_failed = !push(state, Entry::TopicGone { topic: id });
        }
        return !state.gone_failed;
    }
    if shared.make_again(topic, state).is_err() {
        return false;
    }
    if state.logged.is_some() && !state.is_level_queued {
        state.is_level_queued = queue_level(shared, topic, state);
        if !state.is_level_queued {
            return false;
        }
    }
    let through = state.kept.trimmed_through;
    if through > state.trim_logged {
        if !push(state, Entry::Trim { topic: id, through }) {
            return false;
        }
        state.trim_logged = through;
    }
    while let Some((name, consumer)) = state.consumers.next_lazy() {
        if !push(state, Entry::Consumer { topic: id, name: name.clone(), state: consumer.clone() }) {
            return false;
        }
        state.consumers.take(&name, consumer, false);
    }
    true
}

/// Queues the present level of a topic.
pub(crate) fn queue_level(shared: &Shared, topic: &Topic, state: &mut State) -> bool {
    let entry = Entry::TopicLevel { topic: topic.0.id, level: state.level, epoch: state.epoch.made };
    let queued = Queued { level: Level::Fsync, ..Queued::new(topic, state, Work::Entry(entry), None) };
    let is_queued = shared.queue.push_own(queued).is_ok();
    state.on_their_way += u32::from(is_queued);
    is_queued
}
