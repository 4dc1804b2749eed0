//! Which of a worker's clients get a topic's messages, and where: the exact subscriptions, and those to patterns that match.
//! Owned by the worker's own task; knows topics by their ids and names, never their logs.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::patterns::Patterns;
use crate::config::Who;
use crate::message::{Delivery, TopicName, TopicPattern};
use crate::outbound::Outbound;
use crate::transport::{LaneWriter, Overflow};

/// One subscription as those see it who deliver.
#[derive(Debug, Clone)]
pub(super) struct Receiver {
    pub(super) client: Arc<Outbound>,
    pub(super) lane: Arc<LaneWriter>,
    pub(super) delivery: Delivery,
    pub(super) overflow: Overflow,
    /// Whether the client has proved who it is.
    pub(super) is_authenticated: bool,
    /// Whether it hears of joins and leaves.
    pub(super) presence: bool,
    /// False while older messages are still replayed to it: these come first, and it gets no others meanwhile.
    pub(super) is_live: bool,
    /// Under `block`, cancelled when the subscription ends: nobody waits for it any more.
    pub(super) ended: Option<CancellationToken>,
}

/// What a subscription is to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Target {
    /// A topic, by its id.
    Topic(u64),
    Pattern(TopicPattern),
}

/// All subscriptions of one worker's clients.
#[derive(Debug, Default)]
pub(super) struct Routes {
    topics: HashMap<u64, Exact>,
    patterns: Patterns<Receiver>,
    /// Grows with each change of the patterns: what was found before may no longer hold.
    generation: u64,
}

/// What is known of one topic.
#[derive(Debug, Default)]
struct Exact {
    receivers: Vec<Receiver>,
    /// Whom its messages go to, with the generation for which that was found.
    all: Option<(u64, Arc<[Receiver]>)>,
}

impl Routes {
    pub(super) fn add(&mut self, target: Target, receiver: Receiver) {
        match target {
            Target::Topic(id) => {
                let topic = self.topics.entry(id).or_default();
                topic.receivers.push(receiver);
                topic.all = None;
            }
            Target::Pattern(pattern) => {
                self.generation += 1;
                self.patterns.add(&pattern, receiver);
            }
        }
    }

    /// What was to be replayed to a client has been.
    pub(super) fn go_live(&mut self, topic: u64, client: Uuid) {
        let Some(topic) = self.topics.get_mut(&topic) else { return };
        topic.all = None;
        topic.receivers.iter_mut().filter(|receiver| receiver.client.id == client).for_each(|r| r.is_live = true);
    }

    pub(super) fn remove(&mut self, target: &Target, client: Uuid) {
        match target {
            Target::Topic(id) => {
                let Some(topic) = self.topics.get_mut(id) else { return };
                if let Some(at) = topic.receivers.iter().position(|receiver| receiver.client.id == client) {
                    topic.receivers.swap_remove(at);
                }
                topic.all = None;
                if topic.receivers.is_empty() {
                    self.topics.remove(id);
                }
            }
            Target::Pattern(pattern) => {
                self.generation += 1;
                self.patterns.remove(pattern, |receiver| receiver.client.id == client);
            }
        }
    }

    /// A topic's id will not come again.
    pub(super) fn forget(&mut self, topic: u64) {
        self.topics.remove(&topic);
    }

    /// Whom a topic's messages go to: each client once, on its exact subscription, else on that to the first pattern. Who
    /// may not subscribe to it gets nothing of it by a pattern either.
    pub(super) fn all(&mut self, id: u64, name: &TopicName, who: Who) -> Arc<[Receiver]> {
        let is_alone = self.patterns.is_empty() || who == Who::Nobody;
        if is_alone && !self.topics.contains_key(&id) {
            return Arc::default();
        }
        let topic = self.topics.entry(id).or_default();
        if let Some((generation, all)) = &topic.all
            && *generation == self.generation
        {
            return Arc::clone(all);
        }
        let mut all = topic.receivers.clone();
        if !is_alone {
            let mut seen: HashSet<Uuid> = all.iter().map(|receiver| receiver.client.id).collect();
            let may = self.patterns.find(name).filter(|receiver| who.allows(receiver.is_authenticated));
            all.extend(may.filter(|receiver| seen.insert(receiver.client.id)).cloned());
        }
        all.retain(|receiver| receiver.is_live);
        let all: Arc<[Receiver]> = all.into();
        topic.all = Some((self.generation, Arc::clone(&all)));
        all
    }

    /// Who hears of joins and leaves, each client once. Does not look for whom the messages go to, which in a crowd that
    /// comes or leaves would have to be found anew for each of it.
    pub(super) fn watchers(&self, id: u64, name: &TopicName, who: Who) -> Vec<Receiver> {
        let exact = self.topics.get(&id).into_iter().flat_map(|topic| &topic.receivers);
        let patterns = self.patterns.find(name).filter(|receiver| who.allows(receiver.is_authenticated));
        let mut seen = HashSet::new();
        let watches = |receiver: &&Receiver| receiver.presence && seen.insert(receiver.client.id);
        exact.chain(patterns).filter(watches).cloned().collect()
    }
}
