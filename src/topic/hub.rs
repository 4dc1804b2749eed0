//! What happens to topics on one worker: an inbox, and one task that delivers to the subscribers on this worker. What comes
//! through the inbox comes in the order in which it happened to the topic, subscriptions among messages: so a subscription
//! begins exactly behind what was replayed for it.

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio_util::task::task_tracker::TaskTrackerToken;
use uuid::Uuid;

use super::routes::{Receiver, Routes, Target};
use super::state::Topic;
use crate::log::Entry;
use crate::message::Delivery as Carried;
use crate::outbound::{Envelope, Run, SLICE};
use crate::transport::{Overflow, Source};

/// Most that is taken from the inbox at once; consecutive messages of one topic share each receiver's write.
const BATCH: usize = 32;

/// One thing that happened to a topic.
#[derive(Debug)]
pub(super) enum Delivery {
    /// A message for the topic's subscribers. Under `block`, `done` is dropped once all have it.
    Message { topic: Arc<Topic>, entry: Entry, done: Option<TaskTrackerToken> },
    /// Somebody came or left.
    Presence(News),
    /// A subscription begins, behind what is replayed for it; the others may have to be told.
    Subscribe { target: Target, receiver: Receiver, replay: Option<Replay>, joined: Option<News> },
    /// Subscriptions of a client end; the others may have to be told.
    Leave { client: Uuid, targets: Vec<Target>, left: Option<News> },
    /// A topic was forgotten.
    Forget { topic: u64 },
}

/// That somebody came or left: for a topic's subscribers that want to hear of it, but for that client itself.
#[derive(Debug, Clone)]
pub(super) struct News {
    pub(super) topic: Arc<Topic>,
    pub(super) about: Uuid,
    pub(super) envelope: Arc<Envelope>,
}

/// The last messages before a subscription goes live.
#[derive(Debug)]
pub(super) struct Replay {
    pub(super) topic: Arc<Topic>,
    pub(super) entries: Vec<Entry>,
}

impl Replay {
    /// The offset of the last of them; `after` where there are none.
    pub(super) fn end(&self, after: u64) -> u64 {
        self.entries.last().map_or(after, |entry| entry.offset)
    }

    /// Sends them. Always by stream, and whatever the bounds say: whoever replays has waited for room.
    pub(super) fn deliver(self, receiver: &Receiver) {
        if !self.entries.is_empty() {
            receiver.client.deliver_on(&receiver.lane, &run(&self.topic, self.entries), Overflow::Force);
        }
    }
}

fn run(topic: &Arc<Topic>, entries: Vec<Entry>) -> Run {
    let source: Arc<dyn Source> = Arc::<Topic>::clone(topic);
    let (envelopes, offsets) = entries.into_iter().map(|entry| (entry.envelope, entry.offset)).unzip();
    Run::of_topic(envelopes, source, offsets)
}

/// What waits to be done for the topics of one worker.
#[derive(Debug)]
pub(crate) struct Inbox {
    pub(super) deliveries: mpsc::Receiver<Delivery>,
}

impl Inbox {
    /// Carries out what comes until every sender is gone. Never waits for a receiver.
    pub(crate) async fn serve(mut self) {
        let mut hub = Hub::default();
        let mut batch = Vec::with_capacity(BATCH);
        while self.deliveries.recv_many(&mut batch, BATCH).await > 0 {
            let mut queue = batch.drain(..).peekable();
            while let Some(delivery) = queue.next() {
                match delivery {
                    Delivery::Message { topic, entry, done } => {
                        let (mut entries, mut tokens) = (vec![entry], Vec::from_iter(done));
                        let is_same =
                            |next: &Delivery| matches!(next, Delivery::Message { topic: t, .. } if t.id == topic.id);
                        while let Some(Delivery::Message { entry, done, .. }) = queue.next_if(is_same) {
                            entries.push(entry);
                            tokens.extend(done);
                        }
                        hub.deliver(&topic, entries).await;
                        drop(tokens);
                    }
                    Delivery::Presence(news) => hub.tell(news).await,
                    Delivery::Subscribe { target, receiver, replay, joined } => {
                        if let Some(news) = joined {
                            hub.tell(news).await;
                        }
                        if let Some(replay) = replay {
                            replay.deliver(&receiver);
                        }
                        hub.routes.add(target, receiver);
                    }
                    Delivery::Leave { client, targets, left } => {
                        targets.iter().for_each(|target| hub.routes.remove(target, client));
                        if let Some(news) = left {
                            hub.tell(news).await;
                        }
                    }
                    Delivery::Forget { topic } => hub.routes.forget(topic),
                }
            }
        }
    }
}

/// The policy where nobody has seen to it that there is room.
fn bounded(overflow: Overflow) -> Overflow {
    if overflow == Overflow::Force { Overflow::Refuse } else { overflow }
}

#[derive(Debug, Default)]
struct Hub {
    routes: Routes,
    /// Receivers written to since the connections' own tasks had a chance to run.
    written: usize,
}

impl Hub {
    async fn deliver(&mut self, topic: &Arc<Topic>, entries: Vec<Entry>) {
        let receivers = self.routes.all(topic.id, &topic.name);
        if receivers.is_empty() {
            return;
        }
        let run = run(topic, entries);
        for receiver in &*receivers {
            match (receiver.delivery, receiver.overflow) {
                (Carried::Datagram, _) => receiver.client.deliver_datagrams(&receiver.lane, &run),
                (Carried::Stream, Overflow::Force) if topic.blocks() => {
                    receiver.client.deliver_on(&receiver.lane, &run, Overflow::Force);
                    if !receiver.lane.has_room() {
                        topic.full().push(Arc::clone(&receiver.lane));
                    }
                }
                // A pattern under `block` also gets messages of topics whose publishers do not wait.
                (Carried::Stream, overflow) => receiver.client.deliver_on(&receiver.lane, &run, bounded(overflow)),
            }
            self.let_others_run().await;
        }
    }

    async fn tell(&mut self, news: News) {
        let News { topic, about, envelope } = news;
        let receivers = self.routes.all(topic.id, &topic.name);
        let run = Run::new(vec![envelope]);
        let listeners = receivers.iter().filter(|receiver| receiver.presence && receiver.client.id != about);
        for receiver in listeners {
            receiver.client.deliver_on(&receiver.lane, &run, bounded(receiver.overflow));
            self.let_others_run().await;
        }
    }

    async fn let_others_run(&mut self) {
        self.written += 1;
        if self.written.is_multiple_of(SLICE) {
            tokio::task::yield_now().await;
        }
    }
}
