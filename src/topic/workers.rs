//! The ways from topics to the workers: their inboxes, and how many subscriptions to patterns each has. A message goes
//! into the inbox of every worker that has subscribers for it.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::mpsc::{self, Permit};

use super::client::Watch;
use super::hub::{Inbox, InboxItem};
use super::pattern_counts::PatternCounts;
use crate::message::TopicPattern;

/// The workers as topics see them.
#[derive(Debug)]
pub(super) struct Workers {
    inboxes: Vec<mpsc::Sender<InboxItem>>,
    /// Subscriptions to patterns, by worker.
    patterns: Vec<AtomicUsize>,
    /// The same by pattern, for statistics.
    pattern_counts: PatternCounts,
    /// Of these, those that hear of members, and those that hear of their number.
    member_watchers: AtomicUsize,
    count_watchers: AtomicUsize,
}

/// What any subscription to a pattern hears.
#[derive(Debug, Clone, Copy)]
pub(super) struct PatternWatchers {
    pub(super) members: bool,
    pub(super) counts: bool,
}

/// Room in the workers' inboxes, by worker: for one item each.
#[derive(Debug, Default)]
pub(super) struct Room<'a>(Vec<Option<Permit<'a, InboxItem>>>);

impl<'a> Room<'a> {
    /// The room in one worker's inbox, unless it was taken before or the worker has ended.
    pub(super) fn take(&mut self, worker: usize) -> Option<Permit<'a, InboxItem>> {
        self.0.get_mut(worker)?.take()
    }

    /// Puts an item into one worker's inbox, if there is still room for it.
    pub(super) fn send(&mut self, worker: usize, item: InboxItem) {
        if let Some(place) = self.take(worker) {
            place.send(item);
        }
    }
}

impl Workers {
    /// So many workers without subscriptions, and their inboxes, each of at most `queue` items. `most`: receivers in
    /// the cached lists of topics, and bytes that `max_rate` holds back for one client.
    pub(super) fn new(count: usize, queue: usize, most: (usize, usize)) -> (Self, Vec<Inbox>) {
        let (most_found, most_held) = most;
        let (inboxes, ends) = (0..count)
            .map(|_| {
                let (sender, deliveries) = mpsc::channel(queue);
                (sender, Inbox { deliveries, most_found, most_held })
            })
            .unzip();
        let workers = Self {
            inboxes,
            patterns: (0..count).map(|_| AtomicUsize::new(0)).collect(),
            pattern_counts: PatternCounts::default(),
            member_watchers: AtomicUsize::new(0),
            count_watchers: AtomicUsize::new(0),
        };
        (workers, ends)
    }

    pub(super) fn count(&self) -> usize {
        self.inboxes.len()
    }

    /// Whether a worker has subscribers of a topic to which so many have subscribed by its name.
    pub(super) fn wants(&self, worker: usize, by_name: u32) -> bool {
        by_name > 0 || self.patterns[worker].load(Ordering::Acquire) > 0
    }

    /// Room for a message at every worker that has subscribers of its topic; `None` if one has none at present.
    pub(super) fn room_now(&self, interest: &[u32]) -> Option<Room<'_>> {
        let mut permits = Vec::with_capacity(self.inboxes.len());
        for (worker, inbox) in self.inboxes.iter().enumerate() {
            // A worker without subscribers holds no publisher up.
            let place = if self.wants(worker, interest[worker]) { inbox.try_reserve().map(Some) } else { Ok(None) };
            permits.push(match place {
                Ok(place) => place,
                Err(TrySendError::Closed(())) => None,
                Err(TrySendError::Full(())) => return None,
            });
        }
        Some(Room(permits))
    }

    /// Waits for room in every worker's inbox, in the order of the workers. One that has ended has no clients left, and
    /// needs none. Cancel safe.
    pub(super) async fn room(&self) -> Room<'_> {
        let mut permits = Vec::with_capacity(self.inboxes.len());
        for inbox in &self.inboxes {
            permits.push(inbox.reserve().await.ok());
        }
        Room(permits)
    }

    /// Waits for room in one worker's inbox; `None` if it has ended. Cancel safe.
    pub(super) async fn room_at(&self, worker: usize) -> Option<Permit<'_, InboxItem>> {
        self.inboxes[worker].reserve().await.ok()
    }

    /// Counts a subscription to a pattern.
    pub(super) fn add_pattern(&self, worker: usize, pattern: &TopicPattern, is_authenticated: bool, watch: Watch) {
        self.patterns[worker].fetch_add(1, Ordering::AcqRel);
        self.pattern_counts.add(pattern, is_authenticated);
        if let Some(watchers) = self.watchers_of(watch) {
            watchers.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// Such a subscription has ended.
    pub(super) fn remove_pattern(&self, worker: usize, pattern: &TopicPattern, is_authenticated: bool, watch: Watch) {
        self.patterns[worker].fetch_sub(1, Ordering::AcqRel);
        self.pattern_counts.remove(pattern, is_authenticated);
        if let Some(watchers) = self.watchers_of(watch) {
            watchers.fetch_sub(1, Ordering::AcqRel);
        }
    }

    /// Those that are counted here.
    fn watchers_of(&self, watch: Watch) -> Option<&AtomicUsize> {
        match watch {
            Watch::Nothing => None,
            Watch::Members => Some(&self.member_watchers),
            Watch::Counts => Some(&self.count_watchers),
        }
    }

    /// Whether a subscription to any pattern hears of members, and of their number.
    pub(super) fn watchers(&self) -> PatternWatchers {
        let has = |watchers: &AtomicUsize| watchers.load(Ordering::Acquire) > 0;
        PatternWatchers { members: has(&self.member_watchers), counts: has(&self.count_watchers) }
    }

    /// Subscriptions to patterns, of all workers.
    pub(super) fn pattern_subscriptions(&self) -> u64 {
        self.patterns.iter().map(|count| count.load(Ordering::Relaxed) as u64).sum()
    }

    pub(super) fn pattern_counts(&self) -> &PatternCounts {
        &self.pattern_counts
    }
}
