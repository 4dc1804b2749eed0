//! Replay: a subscription gets the messages that the log keeps for it before it goes live, as many at a time as its
//! lane takes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use quic_websocket_lane::{DropNotice, Gap, Overflow};
use tokio_util::sync::CancellationToken;

use super::hub::{self, InboxItem};
use super::routes::Receiver;
use super::topic::Topic;
use crate::log::{Log, Record};

/// Most messages replayed at once, and their bytes: then the client's other lanes have their turn, and other clients.
const CHUNK_MESSAGES: usize = 64;
const CHUNK_BYTES: usize = 64 * 1024;

/// The rest of a subscriber's replay.
pub(super) struct Replay {
    pub(super) topic: Arc<Topic>,
    pub(super) receiver: Receiver,
    /// The offset of the last message that it has got. Written by the replay alone.
    pub(super) after: Arc<AtomicU64>,
}

impl Replay {
    fn after(&self) -> u64 {
        self.after.load(Ordering::Relaxed)
    }

    pub(super) fn is_done(&self, log: &Log) -> bool {
        self.after() >= log.newest()
    }

    /// Sends the next messages, always by stream, on a lane that has room for one; they may wait there beyond its
    /// bounds, for they are few. True if these were the last.
    pub(super) fn step(&mut self, log: &Log) -> bool {
        let client = &self.receiver.client;
        let trimmed_through = log.trimmed_through();
        if self.after() < trimmed_through {
            // The log went on without waiting.
            let source: Arc<dyn DropNotice> = Arc::<Topic>::clone(&self.topic);
            let gap = Gap { source, first: self.after() + 1, last: trimmed_through, group: None };
            client.deliver_gap(&self.receiver.lane, gap);
            self.after.store(trimmed_through, Ordering::Relaxed);
        }
        let mut bytes = 0;
        let within = |(count, record): &(usize, &Record)| {
            bytes += record.encoded.plain().len();
            *count == 0 || (*count < CHUNK_MESSAGES && bytes <= CHUNK_BYTES)
        };
        let records: Vec<Record> =
            log.after(self.after()).enumerate().take_while(within).map(|(_, record)| record.clone()).collect();
        if let Some(last) = records.last() {
            self.after.store(last.offset, Ordering::Relaxed);
            let sent = client.deliver_on(&self.receiver.lane, &hub::run(&self.topic, records), Overflow::Append);
            client.counters().sent(sent);
        }
        self.is_done(log)
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
            // It goes live under the topic's lock: messages published after the last step come behind it.
            let place = topic.read(|log| {
                if !self.step(log) {
                    return Some(place);
                }
                place.send(InboxItem::GoLive { topic: topic.id, client: self.receiver.client.id });
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
