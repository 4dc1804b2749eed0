//! The part of a consumer's leader: it reads the log for all members, and minds the times.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use quic_websocket_lane::DropNotice;
use quic_websocket_store::{Room, StoreError};
use tracing::warn;

use super::{Dispatcher, MAIL_BYTES, MAIL_MESSAGES, Mail, State};
use crate::consumer::Lost;
use crate::log::Record;
use crate::message::now_ms;
use crate::metrics::Counters;
use crate::topic::notices::LossNotice;
use crate::topic::topic::Topic;
use crate::topic::uptime_ms;

/// After the log could not be read, the next try.
const RETRY_MS: u64 = 5000;

/// Messages of a log, for a consumer.
#[derive(Debug)]
pub(super) struct Page {
    /// Behind this offset, in ascending order.
    pub(super) after: u64,
    pub(super) records: Vec<Record>,
    /// Ranges between them that cannot be read.
    pub(super) damaged: Vec<(u64, u64)>,
    /// Everything up to this offset is gone.
    pub(super) trimmed_through: u64,
}

impl Dispatcher {
    /// Leads, once no other member's task does. Cancel safe: the next leader goes on from the state as it is.
    pub(super) async fn lead(&self, topic: &Arc<Topic>, counters: &Arc<Counters>) {
        // It is never closed.
        let Ok(_turn) = self.leading.acquire().await else { return };
        loop {
            let due_ms = self.deal(topic, counters).await;
            let wait = due_ms.map(|due_ms| Duration::from_millis(due_ms.saturating_sub(uptime_ms())));
            tokio::select! {
                () = self.changed.notified() => {}
                () = tokio::time::sleep(wait.unwrap_or_default()), if wait.is_some() => {}
            }
        }
    }

    /// Gives members all that they may have now. Gives the time at which there is something to do again, if nothing
    /// changes before.
    async fn deal(&self, topic: &Arc<Topic>, counters: &Arc<Counters>) -> Option<u64> {
        self.is_hungry.store(false, Ordering::Release);
        loop {
            self.expire();
            let later_ms = self.bury_dead(topic, counters).await;
            let save_ms = self.save_in_time();
            let (wanted, due_ms) = {
                let mut state = self.state();
                let due_ms = state.consumer.due_ms().into_iter().chain(later_ms).chain(save_ms).min();
                state.looks_ms = due_ms.unwrap_or(u64::MAX);
                (state.consumer.wanted(MAIL_MESSAGES), due_ms)
            };
            let Some((after, count)) = wanted else { return due_ms };
            let at_end = || self.is_hungry.store(true, Ordering::Release);
            match topic.read_page(after, count, MAIL_BYTES, at_end).await {
                Ok(page) => {
                    if !self.give(page, topic, counters) {
                        return due_ms;
                    }
                }
                Err(failure) => {
                    let (name, consumer) = (topic.name.as_str(), self.name().as_str());
                    warn!(topic = name, consumer, "The consumer {consumer} of {name} waits: {failure}");
                    return Some(uptime_ms() + RETRY_MS);
                }
            }
            // Other clients have their turn.
            tokio::task::yield_now().await;
        }
    }

    fn expire(&self) {
        let mut state = self.state();
        if state.consumer.expire(uptime_ms()) {
            state.changed();
        }
    }

    /// Puts the messages of a page into mailboxes. False if there was nothing in it, and nothing is lost.
    fn give(&self, page: Page, topic: &Arc<Topic>, counters: &Counters) -> bool {
        let mut state = self.state();
        // A member has to be told of what is lost.
        if state.members.is_empty() {
            return false;
        }
        let lost = state.consumer.trim(page.trimmed_through);
        let mut is_something = state.tell_lost(lost, || LossNotice::retention(topic), counters);
        let (mut damaged, mut after) = (page.damaged.into_iter().peekable(), page.after);
        let is_empty = page.records.is_empty() && damaged.peek().is_none();
        let now = now_ms();
        for record in page.records {
            while let Some((first, last)) = damaged.next_if(|(first, _)| *first < record.offset) {
                let lost = state.consumer.damage(first, last);
                is_something |= state.tell_lost(lost, || LossNotice::damage(topic), counters);
            }
            is_something |= state.lose_between(after, record.offset - 1, topic, counters);
            if record.is_expired(now) {
                // Its publisher wants that, so no member is told.
                is_something |= state.consumer.damage(after + 1, record.offset).count() > 0;
                after = record.offset;
                continue;
            }
            after = record.offset;
            let Some(to) = state.consumer.give(record.offset) else { continue };
            let Some((member, mailbox)) = state.members.get_mut(&to) else { continue };
            is_something = true;
            mailbox.put(Mail::Message(record));
            member.mail.notify_one();
            if mailbox.is_full() {
                state.consumer.set_ready(to, false);
            }
        }
        for (first, last) in damaged {
            let lost = state.consumer.damage(first, last);
            is_something |= state.tell_lost(lost, || LossNotice::damage(topic), counters);
        }
        if is_empty {
            is_something |= state.lose_between(after, after + 1, topic, counters);
        }
        if is_something {
            state.changed();
        }
        is_something
    }
}

impl State {
    /// Messages that are to come again, and are not where they were, are gone.
    fn lose_between(&mut self, after: u64, last: u64, topic: &Arc<Topic>, counters: &Counters) -> bool {
        let mut lost = Lost::default();
        for offset in self.consumer.free_between(after, last) {
            self.consumer.lose(offset);
            lost.add(offset, offset);
        }
        self.tell_lost(lost, || LossNotice::retention(topic), counters)
    }

    /// Counts messages that are lost, and has one member told. False if there are none.
    fn tell_lost(&mut self, lost: Lost, why: impl FnOnce() -> Arc<dyn DropNotice>, counters: &Counters) -> bool {
        if lost.ranges.is_empty() {
            return false;
        }
        counters.lost.add(usize::try_from(lost.count()).unwrap_or(usize::MAX));
        let to = self.consumer.next_member().or(self.members.keys().next().copied());
        if let Some((member, mailbox)) = to.and_then(|id| self.members.get_mut(&id)) {
            let why = why();
            lost.ranges.into_iter().for_each(|range| mailbox.put(Mail::Gap(range, Arc::clone(&why))));
            member.mail.notify_one();
        }
        true
    }
}

impl Topic {
    /// The messages behind an offset, at most so many, with about so many bytes. If there are none yet, `at_end` is
    /// called before one can come.
    pub(super) async fn read_page(
        &self,
        after: u64,
        count: usize,
        bytes: usize,
        at_end: impl FnOnce(),
    ) -> Result<Page, StoreError> {
        let (page, cold) = self.read(|log| {
            let mut page =
                Page { after, records: Vec::new(), damaged: Vec::new(), trimmed_through: log.trimmed_through() };
            if let (Some(stored), Some(cold)) = (log.on_disk(), log.cold(after)) {
                return (page, Some((stored.clone(), cold)));
            }
            let mut sum = 0;
            let within = |record: &&Record| {
                let is_within = sum < bytes;
                sum += record.encoded.plain().len();
                is_within
            };
            page.records.extend(log.after(after).take(count).take_while(within).cloned());
            if page.records.is_empty() {
                at_end();
            }
            (page, None)
        });
        let (Some((stored, cold)), Some(durable)) = (cold, &self.shared.durable) else { return Ok(page) };
        let read = durable.read(&stored, *cold.start(), false, Room { records: count, bytes }).await?;
        let records = read.records.iter().filter(|record| cold.contains(&record.offset));
        let within = |(first, last): (u64, u64)| (first <= *cold.end()).then_some((first, last.min(*cold.end())));
        Ok(Page {
            records: records.map(|record| self.of_store(record)).collect(),
            damaged: read.damaged.into_iter().filter_map(within).collect(),
            // Some may have gone meanwhile.
            trimmed_through: stored.head().trimmed_through,
            ..page
        })
    }
}
