//! Where records are: for each topic its runs, and for each sealed segment a file with their positions.
//!
//! The files are derived from the segments. One that is missing or damaged is made again.

use std::collections::HashMap;

use crate::retention::Chunk;

/// Consecutive records of a topic in one segment.
#[derive(Debug, Clone)]
pub(crate) struct Run {
    pub(crate) segment: u64,
    pub(crate) first: u64,
    pub(crate) count: u32,
    /// Of these, the first so many are dropped.
    pub(crate) dead: u32,
    pub(crate) bytes: u64,
    /// Time of the last record.
    pub(crate) at_ms: u64,
    pub(crate) places: Places,
}

/// Positions of a run's records in their segment.
#[derive(Debug, Clone)]
pub(crate) enum Places {
    Memory(Vec<u32>),
    /// Position of the first block in the index file.
    Disk(u64),
}

impl Run {
    pub(crate) fn last(&self) -> u64 {
        self.first + u64::from(self.count) - 1
    }

    /// Offset of the first record that is not dropped.
    pub(crate) fn first_live(&self) -> u64 {
        self.first + u64::from(self.dead)
    }

    /// Bytes of the records that are not dropped, as if all were of one size.
    pub(crate) fn live_bytes(&self) -> u64 {
        self.bytes / u64::from(self.count).max(1) * u64::from(self.count - self.dead)
    }
}

/// All runs, in the order of offsets within a topic.
#[derive(Debug, Default)]
pub(crate) struct Index {
    pub(crate) topics: HashMap<u64, Vec<Run>>,
}

impl Index {
    /// Adds a record of a topic, nearly always the next one; the others are copies. One that is there already is left
    /// out.
    pub(crate) fn add(&mut self, topic: u64, segment: u64, offset: u64, at: u32, bytes: u64, at_ms: u64) {
        let runs = self.topics.entry(topic).or_default();
        let is_next = runs.last().is_none_or(|run| run.last() < offset);
        let place = if is_next { runs.len() } else { runs.partition_point(|run| run.last() < offset) };
        if runs.get(place).is_some_and(|run| run.first <= offset) {
            return;
        }
        match place.checked_sub(1).and_then(|before| runs.get_mut(before)) {
            Some(Run {
                segment: of, first, count, bytes: sum, at_ms: time, places: Places::Memory(places), ..
            }) if *of == segment && offset == *first + u64::from(*count) => {
                places.push(at);
                *count += 1;
                *sum += bytes;
                *time = at_ms;
                return;
            }
            _ => {}
        }
        if runs.is_empty() {
            // Most topics have few runs, and a vector begins with room for four.
            runs.reserve_exact(1);
        }
        let run = Run { segment, first: offset, count: 1, dead: 0, bytes, at_ms, places: Places::Memory(vec![at]) };
        runs.insert(place, run);
    }

    /// Adds a run, unless all of it is there already. Says whether that is how it was: a part cannot be added.
    pub(crate) fn add_run(&mut self, topic: u64, run: Run) -> bool {
        let runs = self.topics.entry(topic).or_default();
        if runs.is_empty() {
            runs.reserve_exact(1);
        }
        let place = runs.partition_point(|known| known.last() < run.first);
        let (mut next, last) = (run.first, run.last());
        for known in runs[place..].iter().take_while(|known| known.first <= last) {
            if known.first > next {
                return false;
            }
            next = known.last() + 1;
        }
        if next == run.first {
            runs.insert(place, run);
            return true;
        }
        next > last
    }

    /// Puts copies into the place of the runs of one segment. Those whose originals are gone by now are left out.
    pub(crate) fn replace(&mut self, segment: u64, mut copies: Self) {
        let of_it = |(_, runs): &(&u64, &Vec<Run>)| runs.iter().any(|run| run.segment == segment);
        let topics: Vec<u64> = self.topics.iter().filter(of_it).map(|(topic, _)| *topic).collect();
        for topic in topics {
            let copies = copies.topics.remove(&topic).unwrap_or_default();
            let Some(runs) = self.topics.get_mut(&topic) else { continue };
            let old: Vec<Run> = runs.extract_if(.., |run| run.segment == segment).collect();
            let live = |copy: &Run| old.iter().any(|run| run.first_live() <= copy.last() && copy.first <= run.last());
            for copy in copies.into_iter().filter(live) {
                if self.add_run(topic, copy.clone()) {
                    continue;
                }
                let Places::Memory(places) = &copy.places else { continue };
                for (offset, at) in (copy.first..).zip(places) {
                    self.add(topic, copy.segment, offset, *at, copy.bytes / u64::from(copy.count), copy.at_ms);
                }
            }
            // Only the first run of a topic has records that are dropped.
            if let Some(run) = old.iter().find(|run| run.dead > 0) {
                self.trim(topic, run.first_live() - 1);
            }
        }
    }

    /// Forgets what ends at or before an offset; says whether that was anything.
    pub(crate) fn trim(&mut self, topic: u64, through: u64) -> bool {
        let Some(runs) = self.topics.get_mut(&topic) else { return false };
        let gone = runs.partition_point(|run| run.last() <= through);
        runs.drain(..gone);
        if let Some(run) = runs.first_mut().filter(|run| run.first <= through) {
            run.dead = run.dead.max(u32::try_from(through + 1 - run.first).unwrap_or(0));
            return true;
        }
        gone > 0
    }

    pub(crate) fn remove(&mut self, topic: u64) -> bool {
        self.topics.remove(&topic).is_some()
    }

    /// The runs as chunks for retention.
    pub(crate) fn chunks(&self, topic: u64) -> Vec<Chunk> {
        let chunk = |run: &Run| Chunk { last: run.last(), bytes: run.live_bytes(), at_ms: run.at_ms };
        self.topics.get(&topic).into_iter().flatten().map(chunk).collect()
    }
}

/// Positions in one block of an index file.
pub(crate) const BLOCK: usize = 1024;
const BLOCK_BYTES: u64 = BLOCK as u64 * 4 + 4;
const MAGIC: [u8; 8] = *b"QwStIdx1";
const HEADER: usize = 36;
const ROW: usize = 44;

/// The file of a sealed segment, and where each run's blocks begin. `runs` are (topic, run) with places in memory.
pub(crate) fn encode(segment: u64, salt: u64, end: u64, runs: &[(u64, Run)]) -> (Vec<u8>, Vec<u64>) {
    let mut bytes = Vec::with_capacity(HEADER + runs.len() * (ROW + 16));
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&segment.to_le_bytes());
    bytes.extend_from_slice(&salt.to_le_bytes());
    bytes.extend_from_slice(&end.to_le_bytes());
    bytes.extend_from_slice(&u32::try_from(runs.len()).unwrap_or(u32::MAX).to_le_bytes());
    let mut at = (HEADER + runs.len() * ROW + 4) as u64;
    let mut starts = Vec::with_capacity(runs.len());
    for (topic, run) in runs {
        starts.push(at);
        for number in [*topic, run.first, run.bytes, run.at_ms, at] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        bytes.extend_from_slice(&run.count.to_le_bytes());
        at += (run.count as usize).div_ceil(BLOCK) as u64 * 4 + u64::from(run.count) * 4;
    }
    let crc = crc32c::crc32c(&bytes);
    bytes.extend_from_slice(&crc.to_le_bytes());
    for (_, run) in runs {
        let Places::Memory(places) = &run.places else { continue };
        for block in places.chunks(BLOCK) {
            let start = bytes.len();
            block.iter().for_each(|place| bytes.extend_from_slice(&place.to_le_bytes()));
            let crc = crc32c::crc32c(&bytes[start..]);
            bytes.extend_from_slice(&crc.to_le_bytes());
        }
    }
    (bytes, starts)
}

/// Bytes of an index file's table, from the file's first bytes.
pub(crate) fn table_length(header: &[u8]) -> Option<usize> {
    let header: &[u8; HEADER] = header.first_chunk()?;
    let count = u32::from_le_bytes(*header[32..].first_chunk()?) as usize;
    (header[..8] == MAGIC).then(|| HEADER + count * ROW + 4)
}

pub(crate) const TABLE_HEADER: usize = HEADER;

/// What an index file says of its segment.
pub(crate) struct Table {
    pub(crate) salt: u64,
    /// Where the segment ended.
    pub(crate) end: u64,
    /// Topics and their runs.
    pub(crate) runs: Vec<(u64, Run)>,
}

/// Reads the table of an index file.
pub(crate) fn decode_table(segment: u64, bytes: &[u8]) -> Option<Table> {
    let length = table_length(bytes)?;
    let (table, crc) = bytes.get(..length)?.split_last_chunk::<4>()?;
    let long = |bytes: &[u8], at: usize| Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?));
    if crc32c::crc32c(table) != u32::from_le_bytes(*crc) || long(table, 8)? != segment {
        return None;
    }
    let row = |row: &[u8]| {
        let count = u32::from_le_bytes(*row.get(40..)?.first_chunk()?);
        let run = Run {
            segment,
            first: long(row, 8)?,
            count,
            dead: 0,
            bytes: long(row, 16)?,
            at_ms: long(row, 24)?,
            places: Places::Disk(long(row, 32)?),
        };
        (count > 0).then_some((long(row, 0)?, run))
    };
    let runs = table[HEADER..].chunks_exact(ROW).map(row).collect::<Option<_>>()?;
    Some(Table { salt: long(table, 16)?, end: long(table, 24)?, runs })
}

/// Where the block with a run's `n`th record is in the index file, and its bytes with checksum.
pub(crate) fn block(start: u64, count: u32, n: u32) -> (u64, usize) {
    let number = n as usize / BLOCK;
    let places = (count as usize - number * BLOCK).min(BLOCK);
    (start + number as u64 * BLOCK_BYTES, places * 4 + 4)
}

/// The positions in a block.
pub(crate) fn decode_block(bytes: &[u8]) -> Option<Vec<u32>> {
    let (places, crc) = bytes.split_last_chunk::<4>()?;
    let place = |place: &[u8]| Some(u32::from_le_bytes(*place.first_chunk()?));
    (crc32c::crc32c(places) == u32::from_le_bytes(*crc)).then(|| places.chunks_exact(4).filter_map(place).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_file_is_read_as_it_was_written() {
        let mut index = Index::default();
        for offset in 1..=3000 {
            index.add(7, 4, offset, u32::try_from(offset * 50).unwrap(), 10, offset);
            index.add(8, 4, offset * 2, u32::try_from(offset * 50).unwrap(), 10, offset);
        }
        assert_eq!((index.topics[&7].len(), index.topics[&8].len()), (1, 3000), "a jump begins another run");
        let runs: Vec<_> =
            index.topics.iter().flat_map(|(topic, runs)| runs.iter().map(|run| (*topic, run.clone()))).collect();
        let (bytes, starts) = encode(4, 5, 6, &runs);
        let Table { salt, end, runs: read } = decode_table(4, &bytes[..table_length(&bytes).unwrap()]).unwrap();
        assert_eq!((salt, end, read.len()), (5, 6, runs.len()));
        let (at, run) =
            runs.iter().enumerate().find(|(_, (topic, _))| *topic == 7).map(|(at, (_, run))| (at, run)).unwrap();
        assert!(matches!(read[at].1.places, Places::Disk(start) if start == starts[at]));
        let Places::Memory(places) = &run.places else { panic!("in memory") };
        for n in [0, 1023, 1024, 2999] {
            let (from, length) = block(starts[at], run.count, n);
            let from = usize::try_from(from).unwrap();
            let block = decode_block(&bytes[from..from + length]).unwrap();
            assert_eq!(block[n as usize % BLOCK], places[n as usize]);
        }
        for at in 0..table_length(&bytes).unwrap() {
            let mut bytes = bytes.clone();
            bytes[at] ^= 1;
            assert!(decode_table(4, &bytes).is_none(), "a flip at {at} goes unnoticed");
        }
    }
}
