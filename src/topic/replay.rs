//! Replay: a subscription gets the messages that the log keeps for it before it goes live, as many at a time as its
//! lane takes. One with a `max_rate` gets only the newest of them.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use quic_websocket_lane::{DropNotice, Gap, Overflow};
use quic_websocket_store::Room;
use tokio_util::sync::CancellationToken;

use super::hub::{self, InboxItem};
use super::narrowed;
use super::notices::LossNotice;
use super::routes::Receiver;
use super::topic::Topic;
use crate::durable::{Durable, StoredTopic};
use crate::log::{Log, Record};
use crate::message::now_ms;

/// Most messages replayed at once, and their bytes: then the client's other lanes have their turn, and other clients.
const CHUNK_MESSAGES: usize = 64;
const CHUNK_BYTES: usize = 64 * 1024;

/// The rest of a subscriber's replay.
pub(super) struct Replay {
    pub(super) topic: Arc<Topic>,
    pub(super) receiver: Receiver,
    /// The offset of the last message that it has got, or that it does not want. Written by the replay alone.
    pub(super) after: Arc<AtomicU64>,
    /// For a receiver with a `max_rate`.
    pub(super) newest: Newest,
    /// Whether it has sent that.
    pub(super) has_sent: bool,
}

/// The newest message that a replay has met, to be sent when the replay is complete, and the loss of messages behind
/// that.
#[derive(Debug, Default)]
pub(super) struct Newest {
    record: Option<Record>,
    gap: Option<Gap>,
}

impl Replay {
    /// A replay to a subscriber of what is behind an offset.
    pub(super) fn new(topic: &Arc<Topic>, receiver: &Receiver, after: &Arc<AtomicU64>) -> Self {
        let (topic, receiver, after) = (Arc::clone(topic), receiver.clone(), Arc::clone(after));
        Self { topic, receiver, after, newest: Newest::default(), has_sent: false }
    }

    fn has_rate(&self) -> bool {
        self.receiver.narrowing.as_ref().is_some_and(|narrowing| narrowing.interval_us.is_some())
    }

    /// Goes on to the newest message, if that is the only one that the receiver wants.
    fn skip_to_newest(&self, log: &Log) {
        let narrowing = self.receiver.narrowing.as_ref();
        let is_any = narrowing.is_some_and(|narrowing| narrowing.interval_us.is_some() && !narrowing.is_selective());
        if is_any && log.last().is_some_and(|newest| !newest.is_expired(now_ms())) {
            self.after.fetch_max(log.before_last(), Ordering::Relaxed);
        }
    }

    fn after(&self) -> u64 {
        self.after.load(Ordering::Relaxed)
    }

    pub(super) fn is_done(&self, log: &Log) -> bool {
        self.after() >= log.newest()
    }

    /// Sends the next messages that are in memory, always by stream, on a lane that has room for one; they may wait
    /// there beyond its bounds, for they are few. True if these were the last.
    pub(super) fn step(&mut self, log: &Log) -> bool {
        self.skip_to_newest(log);
        let trimmed_through = log.trimmed_through();
        if self.after() < trimmed_through {
            // The log went on without waiting.
            match log.on_disk() {
                Some(_) => self.skip_to(trimmed_through),
                None => self.skip(self.after() + 1, trimmed_through, Arc::<Topic>::clone(&self.topic)),
            }
        }
        if log.cold(self.after()).is_some() {
            return false;
        }
        let mut bytes = 0;
        let within = |(count, record): &(usize, &Record)| {
            bytes += record.encoded.plain().len();
            *count == 0 || (*count < CHUNK_MESSAGES && bytes <= CHUNK_BYTES)
        };
        let records: Vec<Record> =
            log.after(self.after()).enumerate().take_while(within).map(|(_, record)| record.clone()).collect();
        self.send(records);
        let is_done = self.is_done(log);
        if is_done {
            self.send_newest();
        }
        is_done
    }

    /// Sends messages, or those of them that the receiver wants.
    fn send(&mut self, mut records: Vec<Record>) {
        let Some(last) = records.last() else { return };
        self.after.store(last.offset, Ordering::Relaxed);
        let now = now_ms();
        records.retain(|record| !record.is_expired(now));
        if let Some(narrowing) = &self.receiver.narrowing {
            if narrowing.interval_us.is_some() {
                if let Some(newest) = records.into_iter().rfind(|it| narrowed::is_wanted(narrowing, it)) {
                    self.newest = Newest { record: Some(newest), gap: None };
                }
                return;
            }
            records.retain(|record| narrowed::is_wanted(narrowing, record));
        }
        self.deliver(records);
    }

    fn deliver(&self, records: Vec<Record>) {
        if !records.is_empty() {
            let client = &self.receiver.client;
            let sent = client.deliver_on(&self.receiver.lane, &hub::run(&self.topic, records), Overflow::Append);
            client.counters().sent(sent);
        }
    }

    /// Sends the newest message to a receiver with a `max_rate`, if it is not one that it wants all of.
    fn send_newest(&mut self) {
        let Newest { record, gap } = std::mem::take(&mut self.newest);
        self.has_sent = record.is_some();
        self.deliver(record.into_iter().collect());
        if let Some(gap) = gap {
            self.receiver.client.deliver_gap(&self.receiver.lane, gap);
        }
    }

    /// Tells of messages that it cannot get.
    fn skip(&mut self, first: u64, last: u64, source: Arc<dyn DropNotice>) {
        let gap = Gap { source, first, last, group: None };
        self.after.store(last, Ordering::Relaxed);
        if self.has_rate() {
            // A newer message makes up for it.
            self.newest.gap = Some(gap);
        } else {
            self.receiver.client.deliver_gap(&self.receiver.lane, gap);
        }
    }

    /// Reads the next messages from the disk, and sends them.
    async fn step_cold(&mut self, durable: &Arc<Durable>, stored: &StoredTopic, cold: RangeInclusive<u64>) {
        // The bounds of the history have passed them while the replay waited.
        self.skip_to(*cold.start() - 1);
        let room = Room { records: CHUNK_MESSAGES, bytes: CHUNK_BYTES };
        let Ok(page) = durable.read(stored, *cold.start(), false, room).await else {
            // They may be readable later, by `history`.
            return self.skip(*cold.start(), *cold.end(), LossNotice::unread(&self.topic));
        };
        let mut damaged = page.damaged.into_iter().filter(|(first, _)| first <= cold.end()).peekable();
        let mut run = Vec::with_capacity(page.records.len());
        let mut expected = *cold.start();
        for record in page.records.iter().filter(|record| cold.contains(&record.offset)) {
            if record.offset > expected {
                self.send(std::mem::take(&mut run));
                while let Some((first, last)) = damaged.next_if(|(first, _)| *first < record.offset) {
                    self.skip_to(first - 1);
                    self.skip(first, last, LossNotice::damage(&self.topic));
                }
                self.skip_to(record.offset - 1);
            }
            expected = record.offset + 1;
            run.push(self.topic.of_store(record));
        }
        self.send(run);
        for (first, last) in damaged {
            self.skip_to(first - 1);
            self.skip(first, last.min(*cold.end()), LossNotice::damage(&self.topic));
        }
        if page.next.is_none_or(|next| next > *cold.end()) {
            self.skip_to(*cold.end());
        }
    }

    /// Tells that the messages up to an offset were forgotten while they were read, if it has not got them.
    fn skip_to(&mut self, last: u64) {
        let first = self.after() + 1;
        if first <= last {
            self.skip(first, last, LossNotice::retention(&self.topic));
        }
    }

    /// Sends the rest as the client takes it, once it is its turn, and has the subscription go live behind the newest
    /// message. Aborted with the subscription.
    pub(super) async fn catch_up(mut self, worker: usize, turn: Option<CancellationToken>) {
        if let Some(turn) = turn {
            turn.cancelled().await;
        }
        let (lane, topic) = (Arc::clone(&self.receiver.lane), Arc::clone(&self.topic));
        loop {
            let one_at_a_time = lane.replay_turn().await;
            // The messages replayed so far have gone on into QUIC before more follow.
            if let Err(failure) = lane.passed().await {
                return self.receiver.client.lane_failed(failure);
            }
            let Some(place) = topic.shared.workers.room_at(worker).await else { return };
            if !lane.has_room() {
                continue;
            }
            let cold = topic.read(|log| {
                self.skip_to_newest(log);
                Some((log.on_disk()?.clone(), log.cold(self.after())?))
            });
            if let (Some((stored, cold)), Some(durable)) = (cold, &topic.shared.durable) {
                drop(place);
                self.step_cold(durable, &stored, cold).await;
                continue;
            }
            // It goes live under the topic's lock: messages published after the last step come behind it.
            let place = topic.read(|log| {
                if !self.step(log) {
                    return Some(place);
                }
                let (client, has_sent) = (self.receiver.client.id, self.has_sent);
                place.send(InboxItem::GoLive { topic: topic.id, client, has_sent });
                None
            });
            if place.is_none() {
                return;
            }
            drop((place, one_at_a_time));
            tokio::task::yield_now().await;
        }
    }
}
