//! Which of a worker's clients get a topic's messages, and where: the exact subscriptions, and those to patterns that match.
//! Owned by the worker's own task; knows topics by their ids and names, never their logs.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use uuid::Uuid;

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
    /// Whether it hears of joins and leaves.
    pub(super) presence: bool,
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
    patterns: Node,
    /// Grows with each change of the patterns: what was found before may no longer hold.
    generation: u64,
    /// Numbers the subscriptions to patterns: the first that matches counts.
    order: u64,
}

/// What is known of one topic.
#[derive(Debug, Default)]
struct Exact {
    receivers: Vec<Receiver>,
    /// Whom its messages go to, with the generation for which that was found.
    all: Option<(u64, Arc<[Receiver]>)>,
}

/// One level of the patterns, `*` among its children.
#[derive(Debug, Default)]
struct Node {
    children: HashMap<Box<str>, Self>,
    /// Patterns that end here, with their numbers.
    here: Vec<(u64, Receiver)>,
    /// Patterns that end in a `>` below this level.
    below: Vec<(u64, Receiver)>,
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
                self.order += 1;
                self.generation += 1;
                let mut node = &mut self.patterns;
                for level in pattern.as_str().split('.') {
                    if level == ">" {
                        node.below.push((self.order, receiver));
                        return;
                    }
                    node = node.children.entry(level.into()).or_default();
                }
                node.here.push((self.order, receiver));
            }
        }
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
                let levels: Vec<&str> = pattern.as_str().split('.').collect();
                self.patterns.remove(&levels, client);
            }
        }
    }

    /// A topic's id will not come again.
    pub(super) fn forget(&mut self, topic: u64) {
        self.topics.remove(&topic);
    }

    /// Whom a topic's messages go to: each client once, on its exact subscription, else on that to the first pattern.
    pub(super) fn all(&mut self, id: u64, name: &TopicName) -> Arc<[Receiver]> {
        let is_alone = self.patterns.is_empty();
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
            let mut matching = Vec::new();
            let levels: Vec<&str> = name.as_str().split('.').collect();
            self.patterns.find(&levels, &mut matching);
            matching.sort_unstable_by_key(|&(order, _)| order);
            let mut seen: HashSet<Uuid> = all.iter().map(|receiver| receiver.client.id).collect();
            let first_ones = matching.into_iter().map(|(_, receiver)| receiver);
            all.extend(first_ones.filter(|receiver| seen.insert(receiver.client.id)).cloned());
        }
        let all: Arc<[Receiver]> = all.into();
        topic.all = Some((self.generation, Arc::clone(&all)));
        all
    }
}

impl Node {
    fn is_empty(&self) -> bool {
        self.children.is_empty() && self.here.is_empty() && self.below.is_empty()
    }

    fn find<'a>(&'a self, levels: &[&str], found: &mut Vec<(u64, &'a Receiver)>) {
        let Some((level, rest)) = levels.split_first() else {
            found.extend(self.here.iter().map(|(order, receiver)| (*order, receiver)));
            return;
        };
        found.extend(self.below.iter().map(|(order, receiver)| (*order, receiver)));
        for child in [self.children.get(*level), self.children.get("*")].into_iter().flatten() {
            child.find(rest, found);
        }
    }

    /// Removes a client's subscription, and what is empty without it.
    fn remove(&mut self, levels: &[&str], client: Uuid) {
        let keep = |(_, receiver): &(u64, Receiver)| receiver.client.id != client;
        match levels.split_first() {
            None => self.here.retain(keep),
            Some((&">", _)) => self.below.retain(keep),
            Some((level, rest)) => {
                if let Some(child) = self.children.get_mut(*level) {
                    child.remove(rest, client);
                    if child.is_empty() {
                        self.children.remove(*level);
                    }
                }
            }
        }
    }
}
