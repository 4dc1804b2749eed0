//! A topic's log: its epoch, its offsets, as many of its newest messages as its bounds allow, and the idempotency keys
//! that it remembers. Pure; known by `topic` alone. Offsets grow from message to message, not always by one.
//!
//! A message enters a log in memory in two steps. [`submit`](Log::submit) assigns its offset and returns [`Submitted`];
//! memory promises nothing beyond the life of the process, so this also commits the message. [`append`](Log::append)
//! then shows it to readers, at the moment at which it is released to subscribers: a subscription begins exactly after
//! what is replayed for it.
//!
//! A [stored](Log::stored) log is the part in memory of one that is kept on a disk: its newest messages. The store
//! assigns offsets and remembers keys; a message is appended here when the store has committed it.

mod epoch;
mod keys;
mod record;

use std::collections::VecDeque;
use std::ops::RangeInclusive;

use thiserror::Error;

pub(crate) use self::epoch::Epoch;
use self::keys::Keys;
pub(crate) use self::record::{Draft, Record};
use crate::durable::StoredTopic;
use crate::frame::allocated;
use crate::message::{IdempotencyKey, Position, TopicName};

/// The bounds of a log.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Retention {
    pub(crate) messages: usize,
    /// As [`EncodedMessage::cost`](crate::envelope::EncodedMessage::cost) counts them.
    pub(crate) bytes: usize,
    pub(crate) age_ms: u64,
    pub(crate) keys: usize,
    pub(crate) key_age_ms: u64,
}

/// The result of submitting a draft.
#[derive(Debug)]
pub(crate) enum Submitted {
    /// It has its place, and is as safe as the topic promises: it can be released.
    Committed(Record),
    /// The log remembers its key: the message is there already, at this offset.
    Duplicate(u64),
}

/// One life of a topic's log.
#[derive(Debug)]
pub(crate) struct Log {
    epoch: Epoch,
    newest: u64,
    /// The largest offset that is not in memory any more; 0 at first. All messages behind it are.
    evicted_through: u64,
    /// Where all messages are, if they are on a disk.
    stored: Option<StoredTopic>,
    /// The newest messages, without holes, oldest first.
    records: VecDeque<Record>,
    /// Of the records.
    bytes: usize,
    keys: Keys,
}

impl Log {
    /// A log without messages. Another life of the same log has to have another epoch.
    pub(crate) fn new(epoch: Epoch) -> Self {
        let (records, keys) = (VecDeque::new(), Keys::default());
        Self { epoch, newest: 0, evicted_through: 0, stored: None, records, bytes: 0, keys }
    }

    /// The log of a topic on a disk, with none of its messages in memory.
    pub(crate) fn stored(topic: StoredTopic) -> Self {
        let head = topic.head();
        let log = Self::new(Epoch::new(&head.epoch.to_string()));
        Self { newest: head.newest, evicted_through: head.newest, stored: Some(topic), ..log }
    }

    /// Where all messages are, if they are on a disk.
    pub(crate) fn on_disk(&self) -> Option<&StoredTopic> {
        self.stored.as_ref()
    }

    pub(crate) fn epoch(&self) -> &Epoch {
        &self.epoch
    }

    /// The newest message's offset; 0 before the first.
    pub(crate) fn newest(&self) -> u64 {
        self.newest
    }

    /// The newest message's position.
    pub(crate) fn position(&self) -> Position {
        Position { epoch: self.epoch.as_str().to_owned(), offset: self.newest }
    }

    /// The largest offset that was forgotten; 0 until one was.
    pub(crate) fn trimmed_through(&self) -> u64 {
        // The store may be ahead by what is committed and not released yet.
        self.stored.as_ref().map_or(self.evicted_through, |topic| topic.head().trimmed_through.min(self.newest))
    }

    /// The messages behind an offset that are only on the disk, from and up to which offset; `None` if there are none.
    pub(crate) fn cold(&self, after: u64) -> Option<RangeInclusive<u64>> {
        if after >= self.evicted_through {
            return None;
        }
        let first = after.max(self.trimmed_through()) + 1;
        (first <= self.evicted_through).then_some(first..=self.evicted_through)
    }

    /// Whether memory keeps nothing that would be lost with it, but its position.
    pub(crate) fn is_disposable(&self) -> bool {
        match &self.stored {
            // What is on its way is to be released first.
            Some(topic) => topic.newest_taken() == self.newest,
            None => self.records.is_empty() && self.keys.is_empty(),
        }
    }

    /// Memory that it takes, in bytes: messages and keys, and the places for them.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes + allocated(self.records.capacity() * size_of::<Record>()) + self.keys.bytes()
    }

    /// Assigns a message the offset after the newest; no reader sees it yet. Under the same lock,
    /// [`append`](Self::append) it before the next message is submitted: neither its offset nor its key is reserved.
    pub(crate) fn submit(&self, topic: &TopicName, draft: &Draft, now_ms: u64, compress_min_bytes: usize) -> Submitted {
        if let Some(offset) = draft.key.as_ref().and_then(|key| self.keys.offset(key)) {
            return Submitted::Duplicate(offset);
        }
        Submitted::Committed(Record::new(topic, self.newest + 1, now_ms, draft, compress_min_bytes))
    }

    /// Adds a committed message, whose offset is larger than any before. Call [`trim`](Self::trim) behind it.
    pub(crate) fn append(&mut self, record: Record, key: Option<&IdempotencyKey>) {
        debug_assert!(record.offset > self.newest, "offsets grow");
        self.newest = record.offset;
        self.bytes += record.encoded.cost();
        if let Some(key) = key {
            self.keys.add(key.clone(), record.offset, record.at_ms);
        }
        self.records.push_back(record);
    }

    /// Forgets what is beyond the bounds.
    pub(crate) fn trim(&mut self, keep: Retention, now_ms: u64) {
        let trimmed_through = self.trimmed_through();
        while let Some(oldest) = self.records.front() {
            let is_old = now_ms.saturating_sub(oldest.at_ms) > keep.age_ms || oldest.offset <= trimmed_through;
            if !is_old && self.records.len() <= keep.messages && self.bytes <= keep.bytes {
                break;
            }
            self.forget_message();
        }
        // Memory of a burst is not kept for the life of the topic.
        if self.records.is_empty() {
            self.records = VecDeque::new();
        } else if self.records.capacity() > 64 && self.records.len() < self.records.capacity() / 4 {
            self.records.shrink_to(self.records.len() * 2);
        }
        self.keys.trim(keep.keys, keep.key_age_ms, now_ms);
    }

    /// Forgets the oldest half of the messages and of the keys, the larger one.
    pub(crate) fn halve(&mut self) {
        for _ in 0..self.records.len().div_ceil(2) {
            self.forget_message();
        }
        self.keys.halve();
    }

    /// Forgets the oldest message, or the oldest key if there is no message; false if there is neither.
    pub(crate) fn forget_oldest(&mut self) -> bool {
        self.forget_message() || self.keys.forget_oldest()
    }

    /// Gives up all that is in memory.
    pub(crate) fn clear(&mut self) {
        while self.forget_message() {}
        self.records = VecDeque::new();
        self.keys = Keys::default();
    }

    fn forget_message(&mut self) -> bool {
        let Some(oldest) = self.records.pop_front() else { return false };
        self.bytes -= oldest.encoded.cost();
        self.evicted_through = oldest.offset;
        true
    }

    /// The messages behind an offset, oldest first, as far as they are in memory.
    pub(crate) fn after(&self, offset: u64) -> impl DoubleEndedIterator<Item = &Record> + ExactSizeIterator {
        let first = self.records.partition_point(|record| record.offset <= offset);
        self.records.range(first..)
    }

    /// The messages before an offset, oldest first, as far as they are in memory.
    pub(crate) fn before(&self, offset: u64) -> impl DoubleEndedIterator<Item = &Record> + ExactSizeIterator {
        let end = self.records.partition_point(|record| record.offset < offset);
        self.records.range(..end)
    }

    /// The offset behind which the newest `count` messages come; all that are kept if there are fewer.
    fn before_newest(&self, count: u64) -> u64 {
        if self.stored.is_some() {
            // The store's offsets have no holes.
            return self.newest.saturating_sub(count).max(self.trimmed_through());
        }
        let older = self.records.len().saturating_sub(usize::try_from(count).unwrap_or(usize::MAX));
        older.checked_sub(1).map_or(self.evicted_through, |last| self.records[last].offset)
    }

    /// The newest message, if it is in memory.
    pub(crate) fn last(&self) -> Option<&Record> {
        self.records.back()
    }

    /// The offset behind which only the newest message comes, if it is kept.
    pub(crate) fn before_last(&self) -> u64 {
        self.before_newest(1)
    }

    /// The offset of the newest message that is older than a time in Unix milliseconds, as far as they are in memory.
    fn before_time(&self, time_ms: u64) -> u64 {
        let older = self.records.partition_point(|record| record.timestamp().is_some_and(|at| at < time_ms));
        older.checked_sub(1).map_or(self.evicted_through, |last| self.records[last].offset)
    }

    /// Where a subscription begins that asks for the messages from a place on, or for so many of the newest, or for
    /// neither.
    pub(crate) fn start(&self, since: Option<Since<'_>>, recent: Option<u64>) -> Start {
        let all = self.trimmed_through();
        let (lost, rest) = match since {
            None => {
                let after = recent.map_or(self.newest, |count| self.before_newest(count));
                return Start { after, recovered: None };
            }
            Some(Since::Position(since)) if since.epoch != self.epoch.as_str() => (Unrecovered::AnotherEpoch, all),
            Some(Since::Position(since)) if since.offset > self.newest => (Unrecovered::Ahead, self.newest),
            Some(Since::Position(since)) if since.offset < all => (Unrecovered::Forgotten, all),
            Some(Since::Position(since)) => return Start { after: since.offset, recovered: Some(Ok(())) },
            Some(Since::Time(time_ms)) => return self.start(Some(Since::Behind(self.before_time(time_ms))), recent),
            // An older message is there, so no later one is gone.
            Some(Since::Behind(after)) if after > all || all == 0 => {
                return Start { after: after.min(self.newest), recovered: Some(Ok(())) };
            }
            Some(Since::Behind(_)) => (Unrecovered::Forgotten, all),
        };
        let after = recent.map_or(rest, |count| self.before_newest(count));
        Start { after, recovered: Some(Err(lost)) }
    }
}

/// The place from which on a client wants messages.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Since<'a> {
    /// Behind a message.
    Position(&'a Position),
    /// From a time on, in Unix milliseconds.
    Time(u64),
    /// Behind the newest message that is older than such a time, which the disk has told.
    Behind(u64),
}

/// Where a subscription begins in a log.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Start {
    /// Messages behind this offset are replayed; all of them are kept.
    pub(crate) after: u64,
    /// Whether that is everything behind the position that was asked for; `None` if none was.
    pub(crate) recovered: Option<Result<(), Unrecovered>>,
}

/// Why a log cannot give everything behind a position.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(crate) enum Unrecovered {
    #[error("the topic's log was started again since then")]
    AnotherEpoch,
    #[error("the position is ahead of the topic's log")]
    Ahead,
    #[error("the topic's log no longer reaches back that far")]
    Forgotten,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Payload;

    const KEEP: Retention = Retention { messages: 3, bytes: 1_000_000, age_ms: 1000, keys: 2, key_age_ms: 1000 };

    /// A log to which so many messages were added, one each 10 ms from 0.
    fn log(messages: u64, keep: Retention) -> Log {
        let mut log = Log::new(Epoch::random());
        for n in 0..messages {
            publish(&mut log, None, n * 10);
            log.trim(keep, n * 10);
        }
        log
    }

    fn topic() -> TopicName {
        TopicName::new("a.b").expect("a topic")
    }

    fn draft(key: Option<&str>) -> Draft {
        let key = key.map(|key| IdempotencyKey::new(key).expect("a key"));
        Draft { from: None, payload: Payload::text("hello"), key, ttl_ms: None }
    }

    /// Gives the offset, and whether the message was kept.
    fn publish(log: &mut Log, key: Option<&str>, at_ms: u64) -> (u64, bool) {
        let draft = draft(key);
        match log.submit(&topic(), &draft, at_ms, 1024) {
            Submitted::Duplicate(offset) => (offset, false),
            Submitted::Committed(record) => {
                let offset = record.offset;
                log.append(record, draft.key.as_ref());
                (offset, true)
            }
        }
    }

    fn offsets(log: &Log, after: u64) -> Vec<u64> {
        log.after(after).map(|record| record.offset).collect()
    }

    #[test]
    fn the_newest_are_kept_by_number_bytes_and_age() {
        let mut by_number = log(5, KEEP);
        assert_eq!(offsets(&by_number, 0), [3, 4, 5]);
        assert_eq!(offsets(&by_number, 4), [5]);
        assert_eq!(offsets(&by_number, 9), [0; 0]);
        let before = |offset| by_number.before(offset).map(|record| record.offset).collect::<Vec<_>>();
        assert_eq!([before(0), before(3), before(5), before(u64::MAX)], [vec![], vec![], vec![3, 4], vec![3, 4, 5]]);
        let each = by_number.bytes() / 3;
        assert_eq!(offsets(&log(5, Retention { bytes: 2 * each, ..KEEP }), 0), [4, 5]);
        by_number.trim(KEEP, 1035);
        assert_eq!(offsets(&by_number, 0), [5], "the others are more than a second old");
        by_number.trim(Retention { messages: 0, ..KEEP }, 1035);
        assert_eq!((by_number.bytes(), by_number.newest(), by_number.trimmed_through()), (0, 5, 5));
    }

    #[test]
    fn a_position_recovers_exactly_as_long_as_everything_behind_it_is_kept() {
        let log = log(5, KEEP);
        let since =
            |epoch: &str, offset| log.start(Some(Since::Position(&Position { epoch: epoch.to_owned(), offset })), None);
        let epoch = log.epoch().as_str();
        for offset in 2..=5 {
            assert_eq!(since(epoch, offset), Start { after: offset, recovered: Some(Ok(())) });
        }
        for (epoch, offset, after, lost) in [
            (epoch, 1, 2, Unrecovered::Forgotten),
            (epoch, 0, 2, Unrecovered::Forgotten),
            (epoch, 6, 5, Unrecovered::Ahead),
            ("another", 4, 2, Unrecovered::AnotherEpoch),
        ] {
            assert_eq!(since(epoch, offset), Start { after, recovered: Some(Err(lost)) }, "since {epoch} {offset}");
        }
    }

    #[test]
    fn recent_counts_from_the_newest_and_stands_in_where_a_position_is_lost() {
        let log = log(5, KEEP);
        let start = |recent| log.start(None, recent).after;
        assert_eq!([start(None), start(Some(0)), start(Some(2)), start(Some(100))], [5, 5, 3, 2]);
        let lost = Position { epoch: "another".into(), offset: 1 };
        assert_eq!(log.start(Some(Since::Position(&lost)), Some(1)).after, 4);
        let had = Position { epoch: log.epoch().as_str().into(), offset: 3 };
        assert_eq!(log.start(Some(Since::Position(&had)), Some(1)).after, 3, "what can be recovered is");
    }

    #[test]
    fn offsets_may_jump() {
        let mut log = Log::new(Epoch::random());
        for (offset, at_ms) in [(40, 0), (70, 10), (100, 20)] {
            log.append(Record::new(&topic(), offset, at_ms, &draft(None), 1024), None);
            log.trim(KEEP, at_ms);
        }
        let epoch = log.position().epoch;
        let since =
            |log: &Log, offset| log.start(Some(Since::Position(&Position { epoch: epoch.clone(), offset })), None);
        let recent = |log: &Log| [0, 1, 2, 3, 4, u64::MAX].map(|count| log.start(None, Some(count)).after);
        let whole = |after| Start { after, recovered: Some(Ok(())) };

        assert_eq!((log.trimmed_through(), log.newest()), (0, 100));
        assert_eq!(recent(&log), [100, 70, 40, 0, 0, 0], "recent counts messages, not offsets");
        assert_eq!([0, 39, 40, 99].map(|after| offsets(&log, after).len()), [3, 3, 2, 1]);
        // A position need not be a message's.
        assert_eq!([0, 1, 40, 55, 100].map(|offset| since(&log, offset)), [0, 1, 40, 55, 100].map(whole));
        assert_eq!(since(&log, 101), Start { after: 100, recovered: Some(Err(Unrecovered::Ahead)) });

        assert!(log.forget_oldest());
        assert_eq!((log.trimmed_through(), offsets(&log, 0)), (40, vec![70, 100]));
        assert_eq!(recent(&log), [100, 70, 40, 40, 40, 40]);
        assert_eq!([40, 55, 70].map(|offset| since(&log, offset)), [40, 55, 70].map(whole));
        for offset in [0, 39] {
            let start = Start { after: 40, recovered: Some(Err(Unrecovered::Forgotten)) };
            assert_eq!(since(&log, offset), start, "40 was behind {offset}");
        }

        log.halve();
        log.halve();
        assert_eq!((log.trimmed_through(), log.newest(), log.is_disposable()), (100, 100, true));
        assert_eq!((recent(&log), since(&log, 100)), ([100; 6], whole(100)));
        assert_eq!(since(&log, 99).recovered, Some(Err(Unrecovered::Forgotten)));
    }

    #[test]
    fn a_message_that_comes_again_with_its_key_is_not_kept_again() {
        let mut log = log(0, KEEP);
        let keys = [Some("one"), Some("two"), Some("one"), None, None];
        assert_eq!(keys.map(|key| publish(&mut log, key, 0)), [(1, true), (2, true), (1, false), (3, true), (4, true)]);
        log.trim(KEEP, 0);
        assert_eq!(publish(&mut log, Some("one"), 0), (1, false), "its message is forgotten, the key is not");
        assert_eq!(publish(&mut log, Some("three"), 0), (5, true));
        log.trim(KEEP, 0);
        assert_eq!(publish(&mut log, Some("one"), 0), (6, true), "two newer keys came");
        log.trim(KEEP, 5000);
        assert!(log.is_disposable() && log.bytes() == 0, "{} bytes are left", log.bytes());
    }
}
