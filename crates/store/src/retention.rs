//! How much of a topic is kept: sizes and times of its records, summed up by chunks. Pure.

use std::collections::VecDeque;

use crate::record::Retention;

/// Consecutive records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Chunk {
    /// Offset of the newest record.
    pub(crate) last: u64,
    /// Bytes of content.
    pub(crate) bytes: u64,
    /// Time of the newest record.
    pub(crate) at_ms: u64,
}

/// Chunks above which neighbours are joined. A topic is trimmed by whole chunks where bytes or age ask for it, so at
/// most a 512th of it goes too early.
const MOST: usize = 1024;
/// Records in a chunk of a topic with few chunks.
const FEW: u64 = 16;

/// The kept records of a topic.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    chunks: VecDeque<Chunk>,
    /// Records in a chunk, doubled whenever chunks were joined.
    doublings: u32,
    pub(crate) bytes: u64,
    /// Largest offset that was dropped.
    pub(crate) trimmed_through: u64,
}

impl Kept {
    pub(crate) fn new(trimmed_through: u64, chunks: impl IntoIterator<Item = Chunk>) -> Self {
        let mut kept = Self { trimmed_through, ..Self::default() };
        let chunks = chunks.into_iter();
        kept.chunks.reserve_exact(chunks.size_hint().0.min(MOST + 1));
        for chunk in chunks {
            kept.bytes += chunk.bytes;
            kept.chunks.push_back(chunk);
            kept.join();
        }
        kept
    }

    /// Counts the next record.
    pub(crate) fn add(&mut self, offset: u64, bytes: u64, at_ms: u64) {
        self.bytes += bytes;
        let before = self.chunks.len().checked_sub(2).and_then(|at| self.chunks.get(at));
        let first = before.map_or(self.trimmed_through, |chunk| chunk.last) + 1;
        match self.chunks.back_mut() {
            Some(chunk) if offset - first < FEW << self.doublings.min(32) => {
                *chunk = Chunk { last: offset, bytes: chunk.bytes + bytes, at_ms };
            }
            _ => {
                if self.chunks.is_empty() {
                    // Most topics have few chunks, and a deque begins with room for four.
                    self.chunks.reserve_exact(1);
                }
                self.chunks.push_back(Chunk { last: offset, bytes, at_ms });
            }
        }
        self.join();
    }

    fn join(&mut self) {
        if self.chunks.len() <= MOST {
            return;
        }
        self.doublings += 1;
        let old = std::mem::take(&mut self.chunks);
        let mut old = old.into_iter();
        while let Some(first) = old.next() {
            let joined = old.next().map_or(first, |second| Chunk { bytes: first.bytes + second.bytes, ..second });
            self.chunks.push_back(joined);
        }
    }

    /// Drops what is beyond the bounds; says whether that was anything. `old_ms` is the time before which records are
    /// too old. The newest record stays, unless it is too old.
    pub(crate) fn expire(&mut self, newest: u64, retention: &Retention, old_ms: Option<u64>) -> bool {
        let before = self.trimmed_through;
        if retention.count > 0 {
            self.trim(newest.saturating_sub(retention.count));
        }
        while let Some(chunk) = self.chunks.front().copied() {
            let over = retention.bytes > 0 && self.bytes > retention.bytes && self.chunks.len() > 1;
            let old = old_ms.is_some_and(|old_ms| chunk.at_ms < old_ms);
            if !over && !old {
                break;
            }
            self.trim(chunk.last);
        }
        self.trimmed_through > before
    }

    /// Drops all up to `through`.
    pub(crate) fn trim(&mut self, through: u64) {
        while let Some(chunk) = self.chunks.front_mut() {
            if chunk.last > through {
                // Part of a chunk: its bytes are spread evenly.
                let count = chunk.last - self.trimmed_through;
                let dropped = through.saturating_sub(self.trimmed_through);
                let bytes = u64::try_from(u128::from(chunk.bytes) * u128::from(dropped) / u128::from(count.max(1)));
                let bytes = bytes.unwrap_or(chunk.bytes).min(chunk.bytes);
                chunk.bytes -= bytes;
                self.bytes -= bytes;
                break;
            }
            self.bytes -= chunk.bytes;
            self.trimmed_through = self.trimmed_through.max(chunk.last);
            self.chunks.pop_front();
        }
        self.trimmed_through = self.trimmed_through.max(through);
    }

    #[cfg(test)]
    fn chunks(&self) -> usize {
        self.chunks.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn counts_are_exact_and_bytes_and_chunks_bounded(
            sizes in prop::collection::vec(0_u64..2000, 1..3000), count in 0_u64..200, bytes in 0_u64..100_000,
        ) {
            let retention = Retention { count, bytes, ..Retention::default() };
            let mut kept = Kept::default();
            for (offset, size) in (1..).zip(&sizes) {
                kept.add(offset, *size, offset);
                kept.expire(offset, &retention, None);
                prop_assert!(kept.chunks() <= MOST);
                if count > 0 {
                    prop_assert!(kept.trimmed_through >= offset.saturating_sub(count));
                }
                prop_assert!(kept.trimmed_through <= offset);
            }
            if bytes == 0 && count == 0 {
                prop_assert_eq!(kept.bytes, sizes.iter().sum::<u64>());
            }
            kept.trim(sizes.len() as u64);
            prop_assert_eq!((kept.bytes, kept.chunks()), (0, 0));
        }
    }

    #[test]
    fn a_big_topic_is_trimmed_by_small_parts() {
        let mut kept = Kept::default();
        for offset in 1..=1_000_000 {
            kept.add(offset, 100, offset);
        }
        let retention = Retention { bytes: 90_000_000, ..Retention::default() };
        assert!(kept.expire(1_000_000, &retention, None));
        assert!((87_000_000..=90_000_000).contains(&kept.bytes), "{}", kept.bytes);
        assert!(kept.expire(1_000_000, &Retention::default(), Some(500_000)));
        assert!((495_000..=500_000).contains(&kept.trimmed_through), "{}", kept.trimmed_through);
    }
}
