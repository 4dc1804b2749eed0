//! The receivers of a topic's messages among a worker's clients: exact subscriptions, and those to patterns that match.
//! Owned by the worker's own task; knows topics by their ids and names, never their logs.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use quic_websocket_lane::{DropNotice, LaneWriter, Overflow, SendOptions};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::client::Watch;
use super::patterns::Patterns;
use super::route_cache::RouteCache;
use crate::config::{TopicRule, Who};
use crate::message::{DeliveryMode, TopicName, TopicPattern};
use crate::narrow::Narrowing;
use crate::outbound::Outbound;
use crate::pattern_index::Sought;

/// Steps of a search, each a few nanoseconds, after which the worker's other tasks have their turn.
const SEARCH_STEPS: usize = 50_000;

/// One subscription as its deliverers see it.
#[derive(Debug, Clone)]
pub(super) struct Receiver {
    pub(super) client: Arc<Outbound>,
    pub(super) lane: Arc<LaneWriter>,
    pub(super) delivery: DeliveryMode,
    pub(super) overflow: Overflow,
    /// Whether the client has proved its identity.
    pub(super) is_authenticated: bool,
    /// Whether a pattern brings it what is in the inboxes of users.
    pub(super) sees_inboxes: bool,
    /// What it hears of members.
    pub(super) watch: Watch,
    /// Whether it gets every message. Otherwise those that are chosen for it, and what it hears of members.
    pub(super) is_whole: bool,
    /// False while older messages are still replayed to it: these come first, and it gets no others meanwhile.
    pub(super) is_live: bool,
    /// Under `block`, cancelled when the subscription ends: publishers wait for it no longer.
    pub(super) ended: Option<CancellationToken>,
    /// For a pattern, the source of one notice for lost messages of many topics.
    pub(super) group: Option<Arc<dyn DropNotice>>,
    /// What it leaves out; `None` if it gets every message.
    pub(super) narrowing: Option<Arc<Narrowing>>,
}

impl Receiver {
    /// How a topic's messages reach it.
    pub(super) fn options(&self) -> SendOptions<'_> {
        SendOptions { overflow: self.overflow, group: self.group.as_ref() }
    }

    /// Whether it may get a topic's messages by a pattern.
    fn may_get(&self, rule: &TopicRule) -> bool {
        rule.subscribe.allows(self.is_authenticated) && (!rule.inbox || self.sees_inboxes)
    }
}

/// The target of a subscription.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Target {
    /// A topic, by its id.
    Topic(u64),
    Pattern(TopicPattern),
}

/// A subscription's number, by which the older comes first, and its place. Lists hold these and not the receivers, so
/// that a list that is out of date keeps no client in memory that has left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Slot {
    number: u64,
    at: usize,
}

impl Slot {
    /// The subscription's number, which never comes again.
    pub(super) fn number(self) -> u64 {
        self.number
    }
}

/// All subscriptions of one worker's clients.
#[derive(Debug)]
pub(super) struct Routes {
    /// Each with its number. A place whose subscription has ended is used again.
    receivers: Vec<(u64, Option<Receiver>)>,
    unused: Vec<usize>,
    last_number: u64,
    by_client: HashMap<Uuid, HashMap<Target, Slot>>,
    /// Those to single topics, at least one each.
    topics: HashMap<u64, Subscribed>,
    patterns: Patterns<Slot>,
    /// Of these, those that hear of members.
    watching: Patterns<Slot>,
    /// The receivers of topics' messages.
    route_cache: RouteCache<Slot>,
}

/// Subscriptions to one topic, in the order of their numbers.
#[derive(Debug, Default)]
struct Subscribed {
    all: Vec<Slot>,
    /// Of these, those that hear of members.
    watching: Vec<Slot>,
}

impl Routes {
    /// No subscriptions yet; at most so many receivers are cached in the lists of topics.
    pub(super) fn new(most_found: usize) -> Self {
        Self {
            receivers: Vec::new(),
            unused: Vec::new(),
            last_number: 0,
            by_client: HashMap::new(),
            topics: HashMap::new(),
            patterns: Patterns::default(),
            watching: Patterns::default(),
            route_cache: RouteCache::new(most_found),
        }
    }

    /// Adds a subscription.
    pub(super) fn add(&mut self, target: Target, receiver: Receiver) -> Slot {
        self.last_number += 1;
        let slot = Slot { number: self.last_number, at: self.unused.pop().unwrap_or(self.receivers.len()) };
        let (client, watches) = (receiver.client.id, receiver.watch != Watch::Nothing);
        match &target {
            Target::Topic(id) => {
                let subscribed = self.topics.entry(*id).or_default();
                subscribed.all.extend(receiver.is_whole.then_some(slot));
                subscribed.watching.extend(watches.then_some(slot));
                self.route_cache.remove(*id);
            }
            Target::Pattern(pattern) => {
                self.patterns.add(pattern, slot.number, slot);
                if watches {
                    self.watching.add(pattern, slot.number, slot);
                }
                self.route_cache.change(pattern.clone());
            }
        }
        if slot.at == self.receivers.len() {
            self.receivers.push((slot.number, Some(receiver)));
        } else {
            self.receivers[slot.at] = (slot.number, Some(receiver));
        }
        // A client that subscribes again has ended the one before, which came through the inbox before this.
        self.by_client.entry(client).or_default().insert(target, slot);
        slot
    }

    /// The receiver in a list, while its subscription lasts.
    pub(super) fn receiver(&self, slot: Slot) -> Option<&Receiver> {
        let (number, receiver) = self.receivers.get(slot.at)?;
        receiver.as_ref().filter(|_| *number == slot.number)
    }

    /// A client's subscription to a topic by its name.
    pub(super) fn subscriber(&self, topic: u64, client: Uuid) -> Option<&Receiver> {
        self.receiver(*self.by_client.get(&client)?.get(&Target::Topic(topic))?)
    }

    /// A client's replay is complete. Gives the subscription's place, while it lasts.
    pub(super) fn go_live(&mut self, topic: u64, client: Uuid) -> Option<Slot> {
        let slot = *self.by_client.get(&client)?.get(&Target::Topic(topic))?;
        if let Some((_, Some(receiver))) = self.receivers.get_mut(slot.at) {
            receiver.is_live = true;
        }
        Some(slot)
    }

    /// Removes a subscription; gives its former slot.
    pub(super) fn remove(&mut self, target: &Target, client: Uuid) -> Option<Slot> {
        let subscriptions = self.by_client.get_mut(&client)?;
        let slot = subscriptions.remove(target)?;
        let Slot { number, at } = slot;
        if subscriptions.is_empty() {
            self.by_client.remove(&client);
        }
        self.receivers[at].1 = None;
        self.unused.push(at);
        match target {
            Target::Topic(id) => {
                self.route_cache.remove(*id);
                if let Some(subscribed) = self.topics.get_mut(id) {
                    remove(&mut subscribed.all, number);
                    remove(&mut subscribed.watching, number);
                    if subscribed.all.is_empty() && subscribed.watching.is_empty() {
                        self.topics.remove(id);
                    }
                }
            }
            Target::Pattern(pattern) => {
                self.route_cache.change(pattern.clone());
                self.patterns.remove(pattern, number);
                self.watching.remove(pattern, number);
            }
        }
        Some(slot)
    }

    /// A topic's id will not come again. It has no subscribers left.
    pub(super) fn forget(&mut self, topic: u64) {
        self.route_cache.remove(topic);
    }

    /// The receivers of a topic's messages: each client once, on its exact subscription, else on that to the first
    /// pattern. A client that may not subscribe to the topic gets nothing of it by a pattern either. Some of them are
    /// not live.
    pub(super) async fn all(&mut self, id: u64, name: &TopicName, rule: &TopicRule) -> Arc<[Slot]> {
        if let Some(all) = self.route_cache.get(id, name.as_str()) {
            return all;
        }
        let mut all = self.topics.get(&id).map(|subscribed| subscribed.all.clone()).unwrap_or_default();
        if !self.patterns.is_empty() && rule.subscribe != Who::Nobody {
            let by_pattern = search(&self.patterns, name).await;
            self.add_others(&mut all, by_pattern, rule);
        }
        let all: Arc<[Slot]> = all.into();
        if !all.is_empty() || !self.patterns.is_empty() {
            self.route_cache.put(id, Arc::clone(&all));
        }
        all
    }

    /// The watchers of the members, each client once. Does not look for those of messages, which would have to be
    /// found again for each client of a crowd that comes or leaves.
    pub(super) async fn watchers(&self, id: u64, name: &TopicName, rule: &TopicRule) -> Vec<Slot> {
        let mut all = self.topics.get(&id).map(|subscribed| subscribed.watching.clone()).unwrap_or_default();
        if !self.watching.is_empty() && rule.subscribe != Who::Nobody {
            let by_pattern = search(&self.watching, name).await;
            self.add_others(&mut all, by_pattern, rule);
        }
        all
    }

    /// Adds the first subscription of each client that has none among those that are there.
    fn add_others(&self, all: &mut Vec<Slot>, others: Vec<Slot>, rule: &TopicRule) {
        let mut seen: HashSet<Uuid> =
            all.iter().filter_map(|&slot| self.receiver(slot)).map(|receiver| receiver.client.id).collect();
        all.extend(others.into_iter().filter(|&slot| {
            self.receiver(slot).is_some_and(|receiver| receiver.may_get(rule) && seen.insert(receiver.client.id))
        }));
    }
}

/// The items of the patterns that match a topic. Only the worker's own task changes them, and that waits for this.
async fn search(patterns: &Patterns<Slot>, name: &TopicName) -> Vec<Slot> {
    let topic = Sought::new(name.as_str());
    let mut search = patterns.search(&topic);
    while !search.go_on(SEARCH_STEPS) {
        tokio::task::yield_now().await;
    }
    search.found()
}

fn remove(slots: &mut Vec<Slot>, number: u64) {
    if let Ok(at) = slots.binary_search_by_key(&number, |slot| slot.number) {
        slots.remove(at);
    }
}
