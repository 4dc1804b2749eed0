//! One topic: its log, its keys, who is on it, and which workers want its messages. Everything that happens to a topic
//! happens under its lock, and goes into the workers' inboxes under it: that is what makes all subscribers see one order.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};
use quic_websocket_lane::{DropNotice, LaneWriter, Overflow};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::keys::Keys;
use crate::config::{OverflowPolicy, TopicRule};
use crate::frame::exact;
use crate::log::{Log, Retention};
use crate::message::{Member, ServerMessage, TopicName, TopicPattern};
use crate::metrics::Rate;

/// One topic, from its first use to when it is forgotten.
#[derive(Debug)]
pub(super) struct Topic {
    /// Which life of the topic, among all topics of this server.
    pub(super) id: u64,
    pub(super) name: TopicName,
    pub(super) rule: Arc<TopicRule>,
    state: Mutex<State>,
    /// Under the policy `block`, one publish at a time: the next one waits for the room that this one leaves.
    pub(super) turn: Semaphore,
    /// Under the policy `block`, the subscribers that had no more room after the last message.
    full: Mutex<Vec<BlockedSubscriber>>,
}

/// A subscriber that holds publishers up.
#[derive(Debug, Clone)]
pub(super) struct BlockedSubscriber {
    pub(super) lane: Arc<LaneWriter>,
    /// Cancelled when the subscription ends.
    pub(super) ended: CancellationToken,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) log: Log,
    pub(super) keys: Keys,
    /// Of its messages.
    pub(super) rate: Rate,
    /// Who has subscribed to the topic by its name; empty where the rule keeps no account.
    pub(super) members: BTreeMap<Uuid, Member>,
    /// Subscriptions by worker.
    pub(super) interest: Box<[u32]>,
    /// Subscriptions that want to hear of joins and leaves.
    pub(super) watchers: usize,
    pub(super) used_ms: u64,
    /// Forgotten: whoever still holds it has to look it up anew.
    pub(super) is_gone: bool,
    /// Bytes of log and keys that are accounted for in the server's total.
    pub(super) accounted: usize,
}

impl Topic {
    pub(super) fn new(
        id: u64,
        name: TopicName,
        rule: Arc<TopicRule>,
        epoch: Box<str>,
        workers: usize,
        now_ms: u64,
    ) -> Self {
        let state = State {
            log: Log::new(epoch),
            keys: Keys::default(),
            rate: Rate::default(),
            members: BTreeMap::new(),
            interest: vec![0; workers].into(),
            watchers: 0,
            used_ms: now_ms,
            is_gone: false,
            accounted: 0,
        };
        let (turn, full) = (Semaphore::new(1), Mutex::default());
        Self { id, name, rule, state: Mutex::new(state), turn, full }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn blocked(&self) -> MutexGuard<'_, Vec<BlockedSubscriber>> {
        self.full.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn blocks(&self) -> bool {
        self.rule.overflow == OverflowPolicy::Block
    }

    /// What its log keeps.
    pub(super) fn retention(&self) -> Retention {
        let size = |setting: u64| usize::try_from(setting).unwrap_or(usize::MAX);
        Retention {
            messages: size(self.rule.history_messages),
            bytes: size(self.rule.history_bytes),
            age_ms: self.rule.history_age_ms,
        }
    }
}

impl State {
    pub(super) fn has_subscribers(&self) -> bool {
        self.interest.iter().any(|&subscriptions| subscriptions > 0)
    }
}

impl DropNotice for Topic {
    fn name(&self) -> &str {
        self.name.as_str()
    }

    fn gap(&self, first: u64, last: u64) -> Bytes {
        let reason = Some("not read fast enough".to_owned());
        let mut frame = BytesMut::new();
        ServerMessage::Gap { topic: self.name.as_str().to_owned(), first, last, reason }.encode(None, &mut frame);
        exact(frame)
    }
}

/// All topics that one subscription to a pattern brings.
#[derive(Debug)]
pub(super) struct PatternNotice(TopicPattern);

impl PatternNotice {
    /// `None` for a subscription to a single topic.
    pub(super) fn of(pattern: &TopicPattern) -> Option<Arc<dyn DropNotice>> {
        pattern.is_wildcard().then(|| Arc::new(Self(pattern.clone())) as Arc<dyn DropNotice>)
    }
}

impl DropNotice for PatternNotice {
    fn name(&self) -> &str {
        self.0.as_str()
    }

    /// Which topics these are messages of does not show, so neither do offsets.
    fn gap(&self, _first: u64, _last: u64) -> Bytes {
        let reason = Some("not read fast enough: messages of several topics".to_owned());
        let mut frame = BytesMut::new();
        ServerMessage::Gap { topic: self.0.as_str().to_owned(), first: 0, last: 0, reason }.encode(None, &mut frame);
        exact(frame)
    }
}

/// What a rule's policy means for a lane where nobody has seen to it that there is room. A pattern under `block` also gets
/// messages of topics whose publishers do not wait.
pub(super) fn overflow(policy: OverflowPolicy) -> Overflow {
    match policy {
        OverflowPolicy::Disconnect | OverflowPolicy::Block => Overflow::Refuse,
        OverflowPolicy::DropOldest => Overflow::DropOldest,
        OverflowPolicy::Latest => Overflow::Latest,
    }
}
