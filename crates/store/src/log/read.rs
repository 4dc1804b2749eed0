//! Reading records: from positions of the index to contents that are checked.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;

use super::index::{self, Index, Places};
use super::segment;
use super::{Log, Segment, io_error, recovery, segment_name};
use crate::codec::{self, Entry};
use crate::disk::{Disk, DiskFile};
use crate::error::EngineError;
use crate::record::{Damage, Record, Room};

/// Positions of consecutive records of a topic in one segment, close to each other.
struct Batch<F> {
    segment: Arc<Segment<F>>,
    first: u64,
    places: Vec<u32>,
}

/// Bytes that one call to the system reads, unless a single record is longer.
const READ: u64 = 256 << 10;
/// Bytes that are read beyond the begin of the last record of a batch, at first.
const AHEAD: u64 = 4096;

impl<D: Disk> Log<D> {
    /// Passes on the records of a range until there is enough.
    pub(super) fn read_records(
        &self,
        topic: u64,
        range: (u64, u64),
        reverse: bool,
        room: Room,
        take: &mut dyn FnMut(Record),
    ) -> Result<(), EngineError> {
        let (mut records, mut bytes) = (0, 0);
        let (mut first, mut last) = range;
        while records < room.records && bytes < room.bytes && first <= last {
            let most = room.records - records;
            let Some(batch) = self.places(topic, (first, last), reverse, most)? else { break };
            let covered = (batch.first, batch.first + batch.places.len() as u64 - 1);
            let mut enough = false;
            self.fetch(topic, &batch, reverse, &mut |record| {
                if enough {
                    return;
                }
                records += 1;
                bytes += usize::try_from(record.size()).unwrap_or(usize::MAX);
                enough = records >= room.records || bytes >= room.bytes;
                take(record);
            })?;
            if reverse { last = covered.0 - 1 } else { first = covered.1 + 1 }
        }
        Ok(())
    }

    /// Where the next records of a range are.
    fn places(
        &self,
        topic: u64,
        range: (u64, u64),
        reverse: bool,
        most: usize,
    ) -> Result<Option<Batch<D::File>>, EngineError> {
        let (segment, run_first, count, wanted, known) = {
            let index = self.index.read();
            let Some(runs) = index.topics.get(&topic) else { return Ok(None) };
            let run = if reverse {
                runs[..runs.partition_point(|run| run.first <= range.1)].last().filter(|run| run.last() >= range.0)
            } else {
                runs[runs.partition_point(|run| run.last() < range.0)..].first().filter(|run| run.first <= range.1)
            };
            let Some(run) = run else { return Ok(None) };
            // Before the index is released: copies may take the place of this run, and its segment is deleted then.
            let Some(segment) = self.segments.read().get(&run.segment).cloned() else { return Ok(None) };
            let wanted = (range.0.max(run.first), range.1.min(run.last()));
            let place = |offset: u64| usize::try_from(offset - run.first).unwrap_or(usize::MAX);
            let most = most.min(index::BLOCK);
            let (from, to) = (place(wanted.0), place(wanted.1) + 1);
            let (from, to) =
                if reverse { (from.max(to.saturating_sub(most)), to) } else { (from, to.min(from + most)) };
            match &run.places {
                Places::Memory(places) => (segment, run.first, run.count, (from, to), Ok(places[from..to].to_vec())),
                Places::Disk(start) => (segment, run.first, run.count, (from, to), Err(*start)),
            }
        };
        let (from, places) = match known {
            Ok(places) => (wanted.0, places),
            Err(start) => {
                // The block with the first wanted record, or the last one for a read backwards.
                let n = u32::try_from(if reverse { wanted.1 - 1 } else { wanted.0 }).unwrap_or(u32::MAX);
                let (at, length) = index::block(start, count, n);
                let mut bytes = vec![0; length];
                let index_file = segment.index.read();
                let read = index_file.as_ref().map_or(Ok(0), |file| file.read_at(&mut bytes, at));
                drop(index_file);
                let block = (read.map_err(|error| io_error(&error))? == length).then(|| index::decode_block(&bytes));
                let Some(block) = block.flatten() else {
                    self.reindex(&segment)?;
                    return self.places(topic, range, reverse, most);
                };
                let block_first = n as usize / index::BLOCK * index::BLOCK;
                let (from, to) = (wanted.0.max(block_first), wanted.1.min(block_first + block.len()));
                (from, block[from - block_first..to - block_first].to_vec())
            }
        };
        let (from, places) = near(from, places, reverse);
        Ok(Some(Batch { segment, first: run_first + from as u64, places }))
    }

    /// Reads the records of a batch in the direction of the read.
    fn fetch(
        &self,
        topic: u64,
        batch: &Batch<D::File>,
        reverse: bool,
        take: &mut dyn FnMut(Record),
    ) -> Result<(), EngineError> {
        let (Some(first), Some(last)) = (batch.places.first(), batch.places.last()) else { return Ok(()) };
        let (start, file) = (u64::from(*first), &batch.segment.file);
        let end = (u64::from(*last) + AHEAD).min(batch.segment.written.load(Ordering::Acquire));
        let mut buffer = vec![0; usize::try_from(end.saturating_sub(start)).unwrap_or(0)];
        let read = file.read_at(&mut buffer, start).map_err(|error| io_error(&error))?;
        buffer.truncate(read);
        let buffer = Bytes::from(buffer);
        let mut one = |n: usize| -> Result<(), EngineError> {
            let at = batch.places[n];
            let within = usize::try_from(u64::from(at) - start).unwrap_or(usize::MAX).min(buffer.len());
            let mut bytes = buffer.slice(within..);
            if let Some(length) = codec::length(&bytes).filter(|length| *length > bytes.len()) {
                let mut whole = vec![0; length];
                let read = file.read_at(&mut whole, u64::from(at)).map_err(|error| io_error(&error))?;
                whole.truncate(read);
                bytes = whole.into();
            }
            match codec::decode(&bytes) {
                Some(Entry::Message { topic: of, record })
                    if of == topic && record.offset == batch.first + n as u64 =>
                {
                    take(record);
                }
                _ => self.note_damage(Damage {
                    file: segment_name(batch.segment.number),
                    from: u64::from(at),
                    to: u64::from(at) + 1,
                }),
            }
            Ok(())
        };
        let mut places = 0..batch.places.len();
        if reverse { places.rev().try_for_each(&mut one) } else { places.try_for_each(&mut one) }
    }

    fn note_damage(&self, found: Damage) {
        const MOST: usize = 1000;
        let mut damage = self.damage.lock();
        if damage.len() < MOST && !damage.contains(&found) {
            damage.push(found);
        }
    }

    /// Reads the positions of a segment again, whose index file is damaged.
    fn reindex(&self, segment: &Segment<D::File>) -> Result<(), EngineError> {
        let ended = segment.written.load(Ordering::Acquire);
        let bytes = recovery::read_all(&segment.file, ended).map_err(|error| io_error(&error))?;
        let mut fresh = Index::default();
        let known = segment::Known { ended: Some(ended), synced: 0 };
        segment::scan(&bytes, known, |placed| {
            if let (Entry::Message { topic, record }, Ok(at)) = (&placed.entry, u32::try_from(placed.at)) {
                fresh.add(*topic, segment.number, record.offset, at, record.size(), record.at_ms);
            }
        });
        let mut index = self.index.write();
        *segment.index.write() = None;
        index.replace(segment.number, fresh);
        Ok(())
    }
}

/// Leaves out positions that are too far from the others for one read: from the first on, or from the last one back.
fn near(from: usize, mut places: Vec<u32>, reverse: bool) -> (usize, Vec<u32>) {
    /// Records further apart than this are read by calls of their own.
    const GAP: u64 = 8 << 10;
    let is_near = |n: usize, anchor: u32| {
        let apart = |a: u32, b: u32| u64::from(a.abs_diff(b));
        let neighbour = if reverse { places.get(n + 1) } else { n.checked_sub(1).and_then(|n| places.get(n)) };
        apart(places[n], anchor) <= READ && neighbour.is_none_or(|neighbour| apart(places[n], *neighbour) <= GAP)
    };
    if reverse {
        let Some(anchor) = places.last().copied() else { return (from, places) };
        let start = (0..places.len()).rev().take_while(|n| is_near(*n, anchor)).last().unwrap_or(places.len() - 1);
        (from + start, places.split_off(start))
    } else {
        let Some(anchor) = places.first().copied() else { return (from, places) };
        let count = (0..places.len()).take_while(|n| is_near(*n, anchor)).count().max(1);
        places.truncate(count);
        (from, places)
    }
}
