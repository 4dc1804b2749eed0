//! Giving back space: segments in which nothing is alive are deleted, and of those in which little is, that is copied
//! to the end of the log first.
//!
//! A record is the same wherever it is, and (topic, offset) is unique. So both may be there after a crash: the copy is
//! left out then, and made again. The original goes once its copies are on the disk.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::Ordering;

use super::index::Index;
use super::{Log, Tending, index_name, segment_name};
use crate::codec::Entry;
use crate::disk::Disk;
use crate::engine::Engine;
use crate::error::EngineError;
use crate::failpoint;
use crate::record::Room;

/// Bytes of records in a frame of copies.
const GROUP: usize = 256 << 10;
/// Bytes of copies that wait for the disk at most, so that others do not wait long for it.
const UNSYNCED: usize = 1 << 20;
/// Bytes that may be copied in a round, however little is written.
const LEAST: u64 = 1 << 20;
/// The share of what is written that may be copied besides.
const SHARE: u64 = 4;

fn io_error(error: EngineError) -> io::Error {
    match error {
        EngineError::Full => io::ErrorKind::StorageFull.into(),
        EngineError::Failed(why) => io::Error::other(why),
    }
}

impl<D: Disk> Log<D> {
    /// Deletes segments in which nothing is alive and that no checkpoint needs, and copies what is alive in another
    /// one.
    pub(super) fn free_space(&self, tending: &mut Tending<D::File>) -> io::Result<()> {
        tending.rounds = tending.rounds.wrapping_add(1);
        let appended = self.appended.load(Ordering::Relaxed);
        let more = LEAST.max((appended - tending.written) / SHARE);
        tending.budget = (tending.budget + more).min(self.options.segment_bytes);
        tending.written = appended;
        let is_full = self.is_full.load(Ordering::Relaxed);
        let is_due = is_full || tending.rounds.is_multiple_of(self.options.gc_rounds.max(1));
        let [older, newest] = tending.replay_from;
        if !is_due || !self.is_dropped.swap(false, Ordering::AcqRel) {
            return Ok(());
        }
        // Bytes that are alive, by segment.
        let segments = self.segments.read();
        let mut live: BTreeMap<u64, u64> = segments.range(..newest).map(|(number, _)| (*number, 0)).collect();
        drop(segments);
        for run in self.index.read().topics.values().flatten() {
            live.entry(run.segment).and_modify(|bytes| *bytes += run.live_bytes().max(1));
        }
        let needed = live.split_off(&older);
        let is_dead = |(_, bytes): &(&u64, &u64)| **bytes == 0;
        let dead: Vec<u64> = live.iter().filter(is_dead).map(|(number, _)| *number).collect();
        if !dead.is_empty() {
            // The trims have to be on the disk before what they dropped is gone from it.
            self.sync().map_err(io_error)?;
        }
        for number in &dead {
            self.delete(*number)?;
        }
        if let Some((number, bytes)) = self.sparse(&live, tending) {
            // Tried again later, whatever comes of it.
            self.is_dropped.store(true, Ordering::Release);
            if bytes <= tending.budget || is_full {
                tending.budget = tending.budget.saturating_sub(bytes);
                return self.copy(number, tending);
            }
        } else if is_full && dead.is_empty() && needed.iter().any(|entry| is_dead(&entry)) {
            // The log was filled faster than checkpoints are made. One more segment, and the next checkpoint frees
            // these.
            let mut writer = self.writer.lock();
            if writer.segment.number == newest {
                self.rotate_in_reserve(&mut writer, 0).map_err(io_error)?;
            }
        }
        Ok(())
    }

    /// The oldest segment of which little is alive, and how much.
    fn sparse(&self, live: &BTreeMap<u64, u64>, tending: &Tending<D::File>) -> Option<(u64, u64)> {
        let segments = self.segments.read();
        let is_sparse = |(number, bytes): &(&u64, &u64)| {
            let length = segments.get(number).map_or(0, |segment| segment.written.load(Ordering::Relaxed));
            #[allow(clippy::cast_precision_loss)] // A ratio need not be exact.
            let ratio = **bytes as f64 / length.max(1) as f64;
            **bytes > 0 && ratio < self.options.gc_live_ratio && !tending.damaged.contains(number)
        };
        live.iter().find(is_sparse).map(|(number, bytes)| (*number, *bytes))
    }

    fn delete(&self, number: u64) -> io::Result<()> {
        self.segments.write().remove(&number);
        self.disk.remove(&segment_name(number))?;
        // A segment without records has none.
        let _ = self.disk.remove(&index_name(number));
        Ok(())
    }

    /// Copies what is alive in a segment to the end of the log, and deletes the segment.
    fn copy(&self, number: u64, tending: &mut Tending<D::File>) -> io::Result<()> {
        let mut ranges = Vec::new();
        for (topic, runs) in &self.index.read().topics {
            ranges.extend(
                runs.iter().filter(|run| run.segment == number).map(|run| (*topic, run.first_live(), run.last())),
            );
        }
        // All of it is read before anything is written: a segment with damage stays.
        let mut entries = Vec::new();
        let all = Room { records: usize::MAX, bytes: usize::MAX };
        for (topic, first, last) in ranges {
            let before = entries.len() as u64;
            self.read_records(topic, (first, last), false, all, &mut |record| {
                entries.push(Entry::Message { topic, record });
            })
            .map_err(io_error)?;
            let is_trimmed = || self.index.read().topics.get(&topic).is_none_or(|runs| runs[0].first_live() > first);
            if entries.len() as u64 - before != last - first + 1 && !is_trimmed() {
                tending.damaged.insert(number);
                return Ok(());
            }
        }
        let mut copies = Index::default();
        let (mut start, mut unsynced) = (0, 0);
        while start < entries.len() {
            let mut bytes = 0;
            let fitting = entries[start..].iter().take_while(|entry| {
                bytes += entry.len();
                bytes <= GROUP
            });
            let end = start + fitting.count().max(1);
            let mut writer = self.writer.lock();
            self.put_entries(&mut writer, &mut entries[start..end].iter(), true).map_err(io_error)?;
            for place in &writer.places {
                copies.add(place.topic, writer.segment.number, place.offset, place.at, place.bytes, place.at_ms);
            }
            drop(writer);
            self.copied.fetch_add(bytes as u64, Ordering::Relaxed);
            unsynced += bytes;
            if unsynced >= UNSYNCED {
                self.sync().map_err(io_error)?;
                unsynced = 0;
            }
            start = end;
        }
        self.sync().map_err(io_error)?;
        failpoint::reach("in-copy");
        self.index.write().replace(number, copies);
        self.delete(number)
    }
}
