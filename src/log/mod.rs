//! A topic's log in memory: its epoch, its offsets, and as many of its newest messages as its bounds allow. Pure; known by
//! `topic` alone. Offsets grow from message to message, not always by one.

use std::collections::VecDeque;
use std::sync::Arc;

use thiserror::Error;

use crate::frame::allocated;
use crate::message::Position;
use crate::outbound::EncodedMessage;

/// What a log keeps.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Retention {
    pub(crate) messages: usize,
    /// As [`EncodedMessage::cost`] counts them.
    pub(crate) bytes: usize,
    pub(crate) age_ms: u64,
}

/// One message of a log.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) offset: u64,
    /// By a clock that nobody sets.
    at_ms: u64,
    pub(crate) encoded: Arc<EncodedMessage>,
}

/// One life of a topic's log.
#[derive(Debug)]
pub(crate) struct Log {
    epoch: Box<str>,
    newest: u64,
    /// The largest offset that was forgotten; 0 until one was. All messages behind it are kept.
    trimmed_through: u64,
    /// The newest messages, without holes, oldest first.
    entries: VecDeque<Entry>,
    bytes: usize,
}

impl Log {
    /// An epoch that no other log has had.
    pub(crate) fn another_epoch() -> Box<str> {
        format!("{:016x}", fastrand::u64(..)).into_boxed_str()
    }

    /// A log without messages. Another life of the same log has to have another epoch.
    pub(crate) fn new(epoch: Box<str>) -> Self {
        Self { epoch, newest: 0, trimmed_through: 0, entries: VecDeque::new(), bytes: 0 }
    }

    pub(crate) fn epoch(&self) -> &str {
        &self.epoch
    }

    /// The newest message's offset; 0 before the first.
    pub(crate) fn newest(&self) -> u64 {
        self.newest
    }

    /// The offset for the next message.
    pub(crate) fn next(&self) -> u64 {
        self.newest + 1
    }

    /// The largest offset that was forgotten; 0 until one was.
    pub(crate) fn trimmed_through(&self) -> u64 {
        self.trimmed_through
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Memory that it takes, in bytes: the messages, and the places for them.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes + allocated(self.entries.capacity() * size_of::<Entry>())
    }

    /// Adds a message, whose offset is larger than any before, and returns it. Call [`trim`](Self::trim) behind it.
    pub(crate) fn append(&mut self, offset: u64, at_ms: u64, encoded: Arc<EncodedMessage>) -> Entry {
        debug_assert!(offset > self.newest, "offsets grow");
        self.newest = offset;
        let entry = Entry { offset, at_ms, encoded };
        self.bytes += entry.encoded.cost();
        self.entries.push_back(entry.clone());
        entry
    }

    /// Forgets what is beyond the bounds.
    pub(crate) fn trim(&mut self, keep: Retention, now_ms: u64) {
        while let Some(oldest) = self.entries.front() {
            let is_old = now_ms.saturating_sub(oldest.at_ms) > keep.age_ms;
            if !is_old && self.entries.len() <= keep.messages && self.bytes <= keep.bytes {
                break;
            }
            self.forget_oldest();
        }
        // Memory of a burst is not kept for the life of the topic.
        if self.entries.is_empty() {
            self.entries = VecDeque::new();
        } else if self.entries.capacity() > 64 && self.entries.len() < self.entries.capacity() / 4 {
            self.entries.shrink_to(self.entries.len() * 2);
        }
    }

    /// Forgets the oldest half of the messages, the larger one.
    pub(crate) fn halve(&mut self) {
        for _ in 0..self.entries.len().div_ceil(2) {
            self.forget_oldest();
        }
    }

    /// Forgets the oldest message; false where none is kept.
    pub(crate) fn forget_oldest(&mut self) -> bool {
        let Some(oldest) = self.entries.pop_front() else { return false };
        self.bytes -= oldest.encoded.cost();
        self.trimmed_through = oldest.offset;
        true
    }

    /// The messages behind an offset, oldest first, as far as they are kept.
    pub(crate) fn after(&self, offset: u64) -> impl DoubleEndedIterator<Item = &Entry> + ExactSizeIterator {
        let first = self.entries.partition_point(|entry| entry.offset <= offset);
        self.entries.range(first..)
    }

    /// The messages before an offset, oldest first, as far as they are kept.
    pub(crate) fn before(&self, offset: u64) -> impl DoubleEndedIterator<Item = &Entry> + ExactSizeIterator {
        let end = self.entries.partition_point(|entry| entry.offset < offset);
        self.entries.range(..end)
    }

    /// The offset behind which the newest `count` messages come; all that are kept if there are fewer.
    fn before_newest(&self, count: u64) -> u64 {
        let older = self.entries.len().saturating_sub(usize::try_from(count).unwrap_or(usize::MAX));
        older.checked_sub(1).map_or(self.trimmed_through, |last| self.entries[last].offset)
    }

    /// Where a subscription begins that asks for the messages behind `since`, or for so many of the newest, or for neither.
    pub(crate) fn start(&self, since: Option<&Position>, recent: Option<u64>) -> Start {
        let all = self.trimmed_through;
        let recent = recent.map(|count| self.before_newest(count));
        let Some(since) = since else {
            return Start { after: recent.unwrap_or(self.newest), recovered: None };
        };
        let (lost, rest) = if since.epoch != *self.epoch {
            (Unrecovered::AnotherEpoch, all)
        } else if since.offset > self.newest {
            (Unrecovered::Ahead, self.newest)
        } else if since.offset < all {
            (Unrecovered::Forgotten, all)
        } else {
            return Start { after: since.offset, recovered: Some(Ok(())) };
        };
        Start { after: recent.unwrap_or(rest), recovered: Some(Err(lost)) }
    }
}

/// Where a subscription begins in a log.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Start {
    /// What comes behind this offset is replayed; all of it is kept.
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
    use crate::message::ServerMessage;

    const KEEP: Retention = Retention { messages: 3, bytes: 1_000_000, age_ms: 1000 };

    /// A log to which so many messages were added, one each 10 ms from 0.
    fn log(messages: u64, keep: Retention) -> Log {
        let mut log = Log::new(Log::another_epoch());
        for n in 0..messages {
            log.append(log.next(), n * 10, message());
            log.trim(keep, n * 10);
        }
        log
    }

    fn message() -> Arc<EncodedMessage> {
        EncodedMessage::new(&ServerMessage::Pong { timestamp: None, server_time: 0 }, 1024)
    }

    fn offsets(log: &Log, after: u64) -> Vec<u64> {
        log.after(after).map(|entry| entry.offset).collect()
    }

    #[test]
    fn the_newest_are_kept_by_number_bytes_and_age() {
        let mut by_number = log(5, KEEP);
        assert_eq!(offsets(&by_number, 0), [3, 4, 5]);
        assert_eq!(offsets(&by_number, 4), [5]);
        assert_eq!(offsets(&by_number, 9), [0; 0]);
        let before = |offset| by_number.before(offset).map(|entry| entry.offset).collect::<Vec<_>>();
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
        let since = |epoch: &str, offset| log.start(Some(&Position { epoch: epoch.to_owned(), offset }), None);
        let epoch = log.epoch();
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
        assert_eq!(log.start(Some(&lost), Some(1)).after, 4);
        let had = Position { epoch: log.epoch().into(), offset: 3 };
        assert_eq!(log.start(Some(&had), Some(1)).after, 3, "what can be recovered is");
    }
    #[test]
    fn offsets_may_jump() {
        let mut log = Log::new(Log::another_epoch());
        for (offset, at_ms) in [(40, 0), (70, 10), (100, 20)] {
            log.append(offset, at_ms, message());
            log.trim(KEEP, at_ms);
        }
        let epoch = log.epoch().to_owned();
        let since = |log: &Log, offset| log.start(Some(&Position { epoch: epoch.clone(), offset }), None);
        let recent = |log: &Log| [0, 1, 2, 3, 4, u64::MAX].map(|count| log.start(None, Some(count)).after);
        let whole = |after| Start { after, recovered: Some(Ok(())) };

        assert_eq!((log.trimmed_through(), log.newest(), log.next()), (0, 100, 101));
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
        assert_eq!((log.trimmed_through(), log.newest(), log.is_empty()), (100, 100, true));
        assert_eq!((recent(&log), since(&log, 100)), ([100; 6], whole(100)));
        assert_eq!(since(&log, 99).recovered, Some(Err(Unrecovered::Forgotten)));
    }
}
