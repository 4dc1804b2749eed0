//! Opening a log: what is on the disk, and where to go on. Changes nothing that a crash in between could lose.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};

use super::catalogue::Catalogue;
use super::checkpoint::{self, SLOT, Summary, Witness};
use super::index::{self, Index};
use super::segment::{self, HEAD, Known, Opens};
use super::{
    FAILED, Log, LogOptions, Segment, Tending, Writer, checkpoint_name, index_name, io_error, prepare, segment_name,
    tend::put_checkpoint,
};
use crate::codec::Entry;
use crate::disk::{Disk, DiskFile};
use crate::engine::{Found, Recovered};
use crate::error::{EngineError, OpenError};
use crate::failpoint;
use crate::record::Damage;

const FORMAT: u32 = 1;
pub(super) const STORE: &str = "STORE";
const STORE_MAGIC: [u8; 8] = *b"QwStore\n";
pub(super) const WITNESS: &str = "witness";

/// Reads a file up to a length.
pub(crate) fn read_all<F: DiskFile>(file: &F, most: u64) -> io::Result<Bytes> {
    let length = file.len()?.min(most);
    let mut bytes = vec![0; usize::try_from(length).map_err(io::Error::other)?];
    let read = file.read_at(&mut bytes, 0)?;
    bytes.truncate(read);
    Ok(bytes.into())
}

/// Opens the file with the store's format, or makes it in an empty folder.
fn check_format<D: Disk>(disk: &D, is_new: bool, has_file: bool, damage: &mut Vec<Damage>) -> Result<(), OpenError> {
    if has_file {
        let bytes = read_all(&disk.open(STORE).map_err(OpenError::io(STORE))?, 16).map_err(OpenError::io(STORE))?;
        let found = bytes.get(8..12).and_then(|version| version.first_chunk()).map(|found| u32::from_le_bytes(*found));
        let crc = bytes.get(12..16).and_then(|crc| crc.first_chunk()).map(|crc| u32::from_le_bytes(*crc));
        match found {
            Some(found) if bytes.starts_with(&STORE_MAGIC) && crc == Some(crc32c::crc32c(&bytes[..12])) => {
                return if found > FORMAT {
                    Err(OpenError::NewerFormat { path: STORE.into(), found, known: FORMAT })
                } else {
                    Ok(())
                };
            }
            // The frames have a magic number of their own, so the rest can be read.
            _ if !is_new => {
                damage.push(Damage { file: STORE.to_owned(), from: 0, to: 16 });
                return Ok(());
            }
            // The first start ended before the file was complete.
            _ => disk.remove(STORE).map_err(OpenError::io(STORE))?,
        }
    } else if !is_new {
        damage.push(Damage { file: STORE.to_owned(), from: 0, to: 16 });
    }
    let mut bytes = STORE_MAGIC.to_vec();
    bytes.extend_from_slice(&FORMAT.to_le_bytes());
    bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
    let make = || {
        let file = disk.create(STORE)?;
        file.write_at(&bytes, 0)?;
        file.sync()?;
        disk.sync_names()
    };
    make().map_err(OpenError::io(STORE))
}

/// Everything that was read from a folder.
struct Reading<D: Disk> {
    catalogue: Catalogue,
    index: Index,
    segments: BTreeMap<u64, Arc<Segment<D::File>>>,
    damage: Vec<Damage>,
    /// Damage took entries whose topic is unknown.
    is_uncertain: bool,
    /// Segments that are damaged.
    damaged: BTreeSet<u64>,
    /// A sync had failed: behind this nothing is believed. Its turn is the segment's salt.
    failed: Option<Witness>,
    last: Last,
}

/// The last segment that was written to.
#[derive(Default)]
struct Last {
    number: u64,
    end: u64,
    sequence: u64,
    is_closed: bool,
    opens: Opens,
    torn: u64,
    is_damaged: bool,
}

pub(super) fn numbers(names: &[String], ending: &str) -> Vec<u64> {
    let mut numbers: Vec<u64> = names.iter().filter_map(|name| name.strip_suffix(ending)?.parse().ok()).collect();
    numbers.sort_unstable();
    numbers
}

/// Opens the log in a folder, which must be this process's alone.
pub(crate) fn open<D: Disk>(disk: D, options: LogOptions) -> Result<(Log<D>, Recovered), OpenError> {
    let names = disk.list().map_err(OpenError::io(""))?;
    let segments = numbers(&names, ".seg");
    let checkpoints = numbers(&names, ".ckp");
    let mut damage = Vec::new();
    let is_new = segments.is_empty() && checkpoints.is_empty();
    check_format(&disk, is_new, names.iter().any(|name| name == STORE), &mut damage)?;
    let witness = read_witness(&disk, names.iter().any(|name| name == WITNESS));
    let (witness, witness_file) = witness.map_err(OpenError::io(WITNESS))?;
    let failed = if names.iter().any(|name| name == FAILED) {
        let bytes = disk.open(FAILED).and_then(|file| read_all(&file, SLOT as u64)).map_err(OpenError::io(FAILED))?;
        Witness::decode(&bytes)
    } else {
        None
    };
    let newest = newest_checkpoint(&disk, &checkpoints, &segments)?;
    let (summary, entries) = newest.unwrap_or_default();
    let mut reading = Reading::<D> {
        catalogue: Catalogue { next_topic: 1, ..Catalogue::default() },
        index: Index::default(),
        segments: BTreeMap::new(),
        damage,
        is_uncertain: false,
        damaged: BTreeSet::new(),
        failed,
        last: Last::default(),
    };
    entries.for_each(|entry| reading.catalogue.apply(entry));
    reading.catalogue.next_topic = reading.catalogue.next_topic.max(summary.next_topic);
    reading.catalogue.known_below = summary.next_topic;
    reading.read(&disk, &segments, &summary, &witness)?;
    reading.settle();
    finish(disk, options, reading, &summary, (witness, witness_file), checkpoints)
}

/// Bytes behind the end of a segment that were written, so not those of the room that is still free.
fn torn(bytes: &[u8], end: u64) -> u64 {
    let rest = usize::try_from(end).ok().and_then(|end| bytes.get(end..)).unwrap_or_default();
    rest.iter().rposition(|byte| *byte != 0).map_or(0, |last| last as u64 + 1)
}

fn read_witness<D: Disk>(disk: &D, is_there: bool) -> io::Result<(Witness, D::File)> {
    if is_there {
        let file = disk.open(WITNESS)?;
        let bytes = read_all(&file, 2 * SLOT as u64)?;
        return Ok((Witness::decode(&bytes).unwrap_or_default(), file));
    }
    let file = disk.create(WITNESS)?;
    disk.sync_names()?;
    Ok((Witness::default(), file))
}

/// The newest checkpoint that is whole.
fn newest_checkpoint<D: Disk>(
    disk: &D,
    checkpoints: &[u64],
    segments: &[u64],
) -> Result<Option<(Summary, checkpoint::Entries)>, OpenError> {
    for number in checkpoints.iter().rev() {
        let name = checkpoint_name(*number);
        let bytes = disk.open(&name).and_then(|file| read_all(&file, u64::MAX)).map_err(OpenError::io(&name))?;
        if let Some(found) = checkpoint::decode(&bytes) {
            return Ok(Some(found));
        }
    }
    // Before the first checkpoint all is in the log; afterwards the log alone does not say which topics there are.
    match (checkpoints.last(), segments.first()) {
        (_, None | Some(1)) => Ok(None),
        (newest, Some(_)) => Err(OpenError::Damaged {
            path: newest.map_or_else(|| "*.ckp".to_owned(), |number| checkpoint_name(*number)).into(),
            what: "no checkpoint can be read, so the topics are not known",
        }),
    }
}

impl<D: Disk> Reading<D> {
    /// Reads the segments: the index files of those that the checkpoint covers, and the entries of the others.
    fn read(&mut self, disk: &D, numbers: &[u64], summary: &Summary, witness: &Witness) -> Result<(), OpenError> {
        let mut files = BTreeMap::new();
        let mut opens = BTreeMap::new();
        let mut failed_now = None;
        for number in numbers {
            let name = segment_name(*number);
            let file = disk.open(&name).map_err(OpenError::io(&name))?;
            let head = read_all(&file, HEAD as u64).map_err(OpenError::io(&name))?;
            let found = segment::scan(&head, Known::default(), |_| {});
            // A segment made again under the same number has another salt.
            let of_it = |failed: &Witness| failed.segment == *number && found.salt == Some(failed.turn);
            failed_now = failed_now.or(self.failed.filter(of_it));
            if let Some(found) = found.opens {
                opens.insert(*number, found);
            }
            files.insert(*number, file);
        }
        self.failed = failed_now;
        let certain = summary.segment.max(witness.segment);
        let mut expected = summary.replay_from.max(numbers.first().copied().unwrap_or(1));
        for (number, file) in files {
            let name = segment_name(number);
            let ended = opens.get(&(number + 1)).filter(|next| next.previous == number).map(|next| next.ended);
            let failed = self.failed.filter(|failed| failed.segment == number && ended.is_none());
            if failed.is_some_and(|failed| failed.synced == 0) {
                continue;
            }
            let ended = ended.or(failed.map(|failed| failed.synced));
            if number < summary.replay_from
                && let Some((salt, end, index_file)) = self.read_index(disk, number, ended, &file)?
            {
                self.keep(number, file, salt, end, Some(index_file));
                continue;
            }
            let synced = if witness.segment == number { witness.synced } else { 0 };
            let is_replayed = number >= summary.replay_from;
            let bytes = read_all(&file, u64::MAX).map_err(OpenError::io(&name))?;
            let (catalogue, index) = (&mut self.catalogue, &mut self.index);
            let found = segment::scan(&bytes, Known { ended, synced }, |placed| {
                if let (Entry::Message { topic, record }, Ok(at)) = (&placed.entry, u32::try_from(placed.at)) {
                    index.add(*topic, number, record.offset, at, record.size(), record.at_ms);
                }
                if is_replayed {
                    catalogue.apply(placed.entry);
                }
            });
            if found.salt.is_none() && number > certain && ended.is_none() {
                // Made ahead, and never used.
                continue;
            }
            if number >= summary.replay_from {
                self.is_uncertain |= number != expected && number > expected;
                expected = number + 1;
            }
            let lost = found.damaged.iter().map(|(from, to)| Damage { file: name.clone(), from: *from, to: *to });
            let is_damaged = !found.damaged.is_empty() || found.salt.is_none() || found.opens.is_none();
            self.damage.extend(lost);
            if is_damaged {
                self.damaged.insert(number);
            }
            if is_damaged && found.damaged.is_empty() {
                self.damage.push(Damage { file: name, from: 0, to: bytes.len() as u64 });
            }
            self.is_uncertain |= is_damaged && is_replayed;
            self.keep(number, file, found.salt.unwrap_or_default(), found.end, None);
            self.last = Last {
                number,
                end: found.end,
                sequence: found.sequence,
                is_closed: found.is_closed,
                opens: found.opens.unwrap_or(Opens {
                    generation: summary.generation,
                    damages: summary.damages,
                    ..Opens::default()
                }),
                torn: torn(&bytes, found.end),
                is_damaged,
            };
        }
        if self.last.number < certain {
            self.is_uncertain = true;
            let from = self.last.end;
            self.damage.push(Damage { file: segment_name(certain), from, to: from });
            self.last = Last { number: certain, is_damaged: true, ..Last::default() };
            self.last.opens.generation = summary.generation;
            self.last.opens.damages = summary.damages;
        }
        Ok(())
    }

    fn keep(&mut self, number: u64, file: D::File, salt: u64, end: u64, index: Option<D::File>) {
        let length = file.len().unwrap_or(end);
        let segment = Segment {
            number,
            salt,
            file,
            length: AtomicU64::new(length),
            written: AtomicU64::new(end),
            synced: AtomicU64::new(end),
            is_sealed: AtomicBool::new(true),
            index: RwLock::new(index),
        };
        self.segments.insert(number, Arc::new(segment));
    }

    /// Reads a segment's index file, if it is good: the segment's salt, where it ended, and the file.
    fn read_index(
        &mut self,
        disk: &D,
        number: u64,
        ended: Option<u64>,
        file: &D::File,
    ) -> Result<Option<(u64, u64, D::File)>, OpenError> {
        let name = index_name(number);
        let read = || -> io::Result<Option<(index::Table, D::File)>> {
            let file = match disk.open(&name) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                file => file?,
            };
            let head = read_all(&file, index::TABLE_HEADER as u64)?;
            let Some(length) = index::table_length(&head) else { return Ok(None) };
            let table = index::decode_table(number, &read_all(&file, length as u64)?);
            Ok(table.map(|table| (table, file)))
        };
        let Some((table, index_file)) = read().map_err(OpenError::io(&name))? else { return Ok(None) };
        let length = file.len().map_err(OpenError::io(&name))?;
        if ended.is_some_and(|ended| ended != table.end) || length < table.end {
            return Ok(None);
        }
        for (topic, run) in table.runs {
            if !self.index.add_run(topic, run) {
                // Copies of which a part is elsewhere as well: each record has to be looked at.
                self.index.topics.values_mut().for_each(|runs| runs.retain(|run| run.segment != number));
                return Ok(None);
            }
        }
        Ok(Some((table.salt, table.end, index_file)))
    }

    /// Brings topics and index in line.
    fn settle(&mut self) {
        let mut names: BTreeMap<Arc<str>, u64> = BTreeMap::new();
        let mut doubled = Vec::new();
        for (id, topic) in &self.catalogue.topics {
            // The end of the first one is lost.
            doubled.extend(names.insert(topic.name.clone(), *id));
        }
        for id in doubled {
            self.catalogue.topics.remove(&id);
            self.catalogue.gone.insert(id);
        }
        let (catalogue, is_uncertain) = (&mut self.catalogue, &mut self.is_uncertain);
        *is_uncertain |= !catalogue.orphans.is_empty();
        self.index.topics.retain(|id, runs| match catalogue.topics.get_mut(id) {
            Some(topic) => {
                if let Some(last) = runs.last() {
                    topic.newest = topic.newest.max(last.last());
                    topic.at_ms = topic.at_ms.max(last.at_ms);
                }
                true
            }
            // Kept on the disk, though it has no name.
            None => catalogue.orphans.contains(id),
        });
        for (id, topic) in &mut self.catalogue.topics {
            topic.trimmed_through = topic.trimmed_through.min(topic.newest);
            self.index.trim(*id, topic.trimmed_through);
        }
    }
}

/// Makes what was adopted safe, begins a segment, and notes where the next start begins to read.
fn finish<D: Disk>(
    disk: D,
    options: LogOptions,
    mut reading: Reading<D>,
    summary: &Summary,
    (witness, witness_file): (Witness, D::File),
    checkpoints: Vec<u64>,
) -> Result<(Log<D>, Recovered), OpenError> {
    let last = &reading.last;
    let old = reading.segments.get(&last.number).cloned();
    if let Some(segment) = &old {
        segment.file.sync().map_err(OpenError::io(segment_name(last.number)))?;
    }
    let is_cut = reading.failed.is_some_and(|failed| failed.segment >= last.number);
    let is_power_lost = last.number > 0 && (is_cut || !last.is_closed && last.opens.boot != options.boot);
    let generation = last.opens.generation.max(summary.generation) + u32::from(is_power_lost);
    let damages = last.opens.damages.max(summary.damages) + u32::from(reading.is_uncertain);
    let has_failed = disk.list().map_err(OpenError::io(""))?.iter().any(|name| name == FAILED);
    let number = last.number + 1;
    let name = segment_name(number);
    let free = disk.free().map_err(OpenError::io(""))?;
    let is_full = old.is_some() && free < options.min_free_bytes.saturating_add(options.segment_bytes);
    let prepared =
        if is_full { Err(io::ErrorKind::StorageFull.into()) } else { prepare(&disk, number, options.segment_bytes) };
    let (segment, is_broken) = match (prepared, &old) {
        (Ok(segment), _) => (Arc::new(segment), false),
        // A full disk: everything can be read, and writing begins when there is room.
        (Err(error), Some(old)) if matches!(io_error(&error), EngineError::Full) => (old.clone(), true),
        (Err(error), _) => return Err(OpenError::io(name)(error)),
    };
    let mut writer = Writer {
        segment: segment.clone(),
        length: segment.length.load(Ordering::Relaxed),
        sequence: last.sequence,
        crc: 0,
        is_broken,
        buffer: Vec::new(),
        places: Vec::new(),
    };
    let mut tending = Tending {
        witness,
        witness_file,
        // Newer ones cannot be read, and must not push out those that can.
        checkpoints: checkpoints.into_iter().filter(|number| *number <= summary.segment).collect(),
        replay_from: [summary.replay_from; 2],
        rounds: 0,
        budget: 0,
        written: 0,
        damaged: reading.damaged,
    };
    failpoint::reach("in-recovery");
    if !is_broken {
        let opens = Opens { previous: last.number, ended: last.end, generation, damages, boot: options.boot };
        let begin = |writer: &mut Writer<D::File>, tending: &mut Tending<D::File>| {
            writer.open(segment.clone(), &opens)?;
            segment.file.sync()?;
            segment.synced.store(segment.written.load(Ordering::Relaxed), Ordering::Relaxed);
            let next_topic = reading.catalogue.next_topic;
            let summary = Summary { segment: number, replay_from: number, next_topic, generation, damages };
            put_checkpoint(
                &disk,
                tending,
                &summary,
                &checkpoint::encode(&summary, &|put| reading.catalogue.entries(put)),
            )?;
            // The room behind the end is of no more use, unless somebody wants to look at damage.
            if has_failed {
                disk.remove(FAILED)?;
            }
            match &old {
                Some(old) if !last.is_damaged => {
                    old.length.store(last.end, Ordering::Relaxed);
                    old.file.set_len(last.end)
                }
                _ => Ok(()),
            }
        };
        begin(&mut writer, &mut tending).map_err(OpenError::io(name))?;
        reading.segments.insert(number, segment);
    }
    let torn = reading.last.torn;
    let topics = std::mem::take(&mut reading.catalogue.topics);
    let index = &reading.index;
    let topics = topics.into_iter().map(|(id, topic)| Found {
        id,
        chunks: index.chunks(id),
        name: topic.name,
        level: topic.level,
        epoch: topic.epoch,
        trimmed_through: topic.trimmed_through,
        newest: topic.newest,
        at_ms: topic.at_ms,
        keys: topic.keys,
        consumers: topic.consumers.into_iter().collect(),
    });
    let recovered =
        Recovered { topics: topics.collect(), next_topic: reading.catalogue.next_topic, generation, damages, torn };
    let log = Log {
        disk,
        options,
        writer: Mutex::new(writer),
        segments: RwLock::new(reading.segments),
        index: RwLock::new(reading.index),
        next: Mutex::default(),
        generation,
        damages,
        next_topic: AtomicU64::new(reading.catalogue.next_topic),
        tending: Mutex::new(tending),
        damage: Mutex::new(reading.damage),
        failure: Mutex::default(),
        appended: AtomicU64::new(0),
        copied: AtomicU64::new(0),
        is_full: AtomicBool::new(is_broken),
        is_dropped: AtomicBool::new(true),
    };
    Ok((log, recovered))
}
