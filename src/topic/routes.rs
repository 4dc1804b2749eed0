//! Which of a worker's clients get a topic's messages, and where: the exact subscriptions, and those to patterns that match.
//! Owned by the worker's own task; knows topics by their ids and names, never their logs.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::found::Found;
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
#[derive(Debug)]
pub(super) struct Routes {
    /// Those to single topics, at least one each.
    topics: HashMap<u64, Vec<Receiver>>,
    patterns: Patterns<Receiver>,
    /// Whom topics' messages go to, by the generation for which that was found.
    found: Found<Receiver>,
}

impl Routes {
    /// No subscriptions yet; at most so many receivers are remembered in the lists of topics.
    pub(super) fn new(most_found: usize) -> Self {
        let (topics, patterns) = (HashMap::new(), Patterns::default());
        Self { topics, patterns, found: Found::new(most_found) }
    }

    pub(super) fn add(&mut self, target: Target, receiver: Receiver) {
        match target {
            Target::Topic(id) => {
                self.topics.entry(id).or_default().push(receiver);
                self.found.remove(id);
            }
            Target::Pattern(pattern) => {
                self.found.clear();
                self.patterns.add(&pattern, receiver);
            }
        }
    }

    /// What was to be replayed to a client has been.
    pub(super) fn go_live(&mut self, topic: u64, client: Uuid) {
        self.found.remove(topic);
        let Some(receivers) = self.topics.get_mut(&topic) else { return };
        receivers.iter_mut().filter(|receiver| receiver.client.id == client).for_each(|r| r.is_live = true);
    }

    pub(super) fn remove(&mut self, target: &Target, client: Uuid) {
        match target {
            Target::Topic(id) => {
                self.found.remove(*id);
                let Some(receivers) = self.topics.get_mut(id) else { return };
                if let Some(at) = receivers.iter().position(|receiver| receiver.client.id == client) {
                    receivers.swap_remove(at);
                }
                if receivers.is_empty() {
                    self.topics.remove(id);
                }
            }
            Target::Pattern(pattern) => {
                self.found.clear();
                self.patterns.remove(pattern, |receiver| receiver.client.id == client);
            }
        }
    }

    /// A topic's id will not come again.
    pub(super) fn forget(&mut self, topic: u64) {
        self.topics.remove(&topic);
        self.found.remove(topic);
    }

    /// Whom a topic's messages go to: each client once, on its exact subscription, else on that to the first pattern. Who
    /// may not subscribe to it gets nothing of it by a pattern either.
    pub(super) fn all(&mut self, id: u64, name: &TopicName, who: Who) -> Arc<[Receiver]> {
        if let Some(all) = self.found.get(id) {
            return all;
        }
        let is_alone = self.patterns.is_empty() || who == Who::Nobody;
        let mut all = match self.topics.get(&id) {
            None if is_alone => return Arc::default(),
            exact => exact.cloned().unwrap_or_default(),
        };
        if !is_alone {
            let mut seen: HashSet<Uuid> = all.iter().map(|receiver| receiver.client.id).collect();
            let may = self.patterns.find(name).filter(|receiver| who.allows(receiver.is_authenticated));
            all.extend(may.filter(|receiver| seen.insert(receiver.client.id)).cloned());
        }
        all.retain(|receiver| receiver.is_live);
        let all: Arc<[Receiver]> = all.into();
        self.found.put(id, Arc::clone(&all));
        all
    }

    /// Who hears of joins and leaves, each client once. Does not look for whom the messages go to, which in a crowd that
    /// comes or leaves would have to be found anew for each of it.
    pub(super) fn watchers(&self, id: u64, name: &TopicName, who: Who) -> Vec<Receiver> {
        let exact = self.topics.get(&id).into_iter().flatten();
        let patterns = self.patterns.find(name).filter(|receiver| who.allows(receiver.is_authenticated));
        let mut seen = HashSet::new();
        let watches = |receiver: &&Receiver| receiver.presence && seen.insert(receiver.client.id);
        exact.chain(patterns).filter(watches).cloned().collect()
    }
}
