//! Reads all of a view and says what is wrong with it, down to the offsets that are lost.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;

use super::super::checkpoint::{self, Summary, Witness};
use super::super::index::{self, Index, Places, Run};
use super::super::recovery::{STORE, WITNESS, read_all};
use super::super::segment::{self, Known, Scanned};
use super::super::{Segment, index_name, segment_name};
use super::View;
use super::frozen::FrozenFile;
use super::ranges::Ranges;
use crate::codec::Entry;
use crate::disk::DiskFile;
use crate::engine::Engine;
use crate::topic::Topic;

/// What a look at everything found.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// Topics.
    pub topics: usize,
    /// Segments that were read.
    pub segments: usize,
    /// Bytes of these segments, as far as they are used.
    pub bytes: u64,
    /// Records that are kept and whole.
    pub records: u64,
    /// What is wrong with files.
    pub damage: Vec<Finding>,
    /// Messages that are gone by it.
    pub lost: Vec<Lost>,
    /// What looks unusual and is no damage.
    pub notes: Vec<Finding>,
}

impl Report {
    /// Whether nothing is wrong.
    pub fn is_good(&self) -> bool {
        self.damage.is_empty() && self.lost.is_empty()
    }
}

/// Something about a part of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The file's name in the folder.
    pub file: String,
    /// First byte.
    pub from: u64,
    /// Behind the last byte.
    pub to: u64,
    /// What it is.
    pub what: &'static str,
}

/// Messages of a topic that cannot be read any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lost {
    /// The topic.
    pub topic: Arc<str>,
    /// Offset of the first one.
    pub first: u64,
    /// Offset of the last one.
    pub last: u64,
}

/// The newest checkpoint that is whole.
struct Checkpoint {
    summary: Summary,
    /// The newest offset of each topic, as far as it has one.
    topics: HashMap<u64, u64>,
}

/// A file that a write was ended in, or goes on in: the system writes by whole pages until the last one.
const PAGE: usize = 4096;
const UNFINISHED: &str = "unfinished: it is being written, or the process ended meanwhile; nothing needs it";

impl<F: DiskFile> View<F> {
    pub(super) fn verify(&self, topics: &[Topic]) -> io::Result<Report> {
        let mut report = Report { topics: topics.len(), ..Report::default() };
        let mut checking = Checking { view: self, report: &mut report, offsets: HashMap::new() };
        checking.witness()?;
        let newest = checking.checkpoints()?;
        checking.segments(newest.as_ref())?;
        checking.topics(topics);
        Ok(report)
    }
}

struct Checking<'a, F: DiskFile> {
    view: &'a View<F>,
    report: &'a mut Report,
    /// By topic, the offsets of the messages that are whole.
    offsets: HashMap<u64, Ranges>,
}

impl<F: DiskFile> Checking<'_, F> {
    fn damage(&mut self, file: &str, range: (u64, u64), what: &'static str) {
        self.report.damage.push(Finding { file: file.to_owned(), from: range.0, to: range.1, what });
    }

    /// Says that a derived file is not whole.
    fn derived(&mut self, file: &str, length: usize, is_cut: bool, what: &'static str) {
        let range = (0, length as u64);
        if is_cut && length.is_multiple_of(PAGE) {
            self.report.notes.push(Finding { file: file.to_owned(), from: range.0, to: range.1, what: UNFINISHED });
        } else {
            self.damage(file, range, what);
        }
    }

    fn witness(&mut self) -> io::Result<()> {
        if let Some(file) = self.view.files.get(WITNESS) {
            let bytes = read_all(file, u64::MAX)?;
            if !Witness::is_whole(&bytes) {
                self.damage(WITNESS, (0, bytes.len() as u64), "its checksum is wrong");
            }
        }
        Ok(())
    }

    fn checkpoints(&mut self) -> io::Result<Option<Checkpoint>> {
        let mut newest = None;
        // By name, so by number.
        for (name, file) in self.view.files.iter().filter(|(name, _)| name.ends_with(".ckp")) {
            let bytes = read_all(file, u64::MAX)?;
            match checkpoint::decode(&bytes) {
                Some((summary, entries)) => {
                    let mut topics = HashMap::new();
                    for entry in entries {
                        match entry {
                            Entry::TopicMade { topic, .. } => {
                                topics.entry(topic).or_insert(0);
                            }
                            Entry::Newest { topic, offset, .. } => {
                                topics.insert(topic, offset);
                            }
                            _ => {}
                        }
                    }
                    newest = Some(Checkpoint { summary, topics });
                }
                None => self.derived(name, bytes.len(), checkpoint::is_cut(&bytes), "the checkpoint is damaged"),
            }
        }
        Ok(newest)
    }

    fn segments(&mut self, newest: Option<&Checkpoint>) -> io::Result<()> {
        let segments: Vec<_> = self.view.log.segments.read().values().cloned().collect();
        let on_disk = |segment: &&Arc<Segment<_>>| matches!(segment.file, FrozenFile::Disk(_));
        let segments: Vec<_> = segments.iter().filter(on_disk).collect();
        let mut expected = newest.map_or(1, |newest| newest.summary.replay_from);
        for segment in &segments {
            let name = segment_name(segment.number);
            for missing in expected..segment.number {
                self.damage(&segment_name(missing), (0, 0), "the segment is missing");
            }
            expected = expected.max(segment.number + 1);
            let (found, fresh) = self.segment(segment, &name, newest)?;
            self.index(segment, &found, &fresh)?;
        }
        if let Some(newest) = newest
            && segments.last().is_none_or(|last| last.number < newest.summary.segment)
        {
            self.damage(&segment_name(newest.summary.segment), (0, 0), "the segment is missing");
        }
        let names: Vec<String> = segments.iter().map(|segment| segment_name(segment.number)).collect();
        for damage in self.view.log.damage() {
            let is_known =
                names.contains(&damage.file) || self.report.damage.iter().any(|known| known.file == damage.file);
            if !is_known {
                let what =
                    if damage.file == STORE { "the file with the format is missing or damaged" } else { "damaged" };
                self.damage(&damage.file, (damage.from, damage.to), what);
            }
        }
        Ok(())
    }

    /// Reads a segment. Says what is wrong with it, and returns what it holds.
    fn segment(
        &mut self,
        segment: &Segment<FrozenFile<F>>,
        name: &str,
        newest: Option<&Checkpoint>,
    ) -> io::Result<(Scanned, Index)> {
        let end = segment.written.load(Ordering::Acquire);
        let bytes = read_all(&segment.file, u64::MAX)?;
        let mut fresh = Index::default();
        let mut is_unknown = false;
        let covers = newest.filter(|newest| segment.number < newest.summary.replay_from);
        let offsets = &mut self.offsets;
        // The view has found the end, so everything before it is a frame or damaged.
        let found = segment::scan(&bytes, Known { ended: Some(end), synced: 0 }, |placed| {
            let Entry::Message { topic, record } = placed.entry else { return };
            offsets.entry(topic).or_default().add(record.offset, record.offset);
            if let Ok(at) = u32::try_from(placed.at) {
                fresh.add(topic, segment.number, record.offset, at, record.size(), record.at_ms);
            }
            if let Some(Checkpoint { summary, topics }) = covers {
                is_unknown |= match topics.get(&topic) {
                    Some(newest) => record.offset > *newest,
                    None => topic >= summary.next_topic,
                };
            }
        });
        self.report.segments += 1;
        self.report.bytes += end;
        for range in &found.damaged {
            self.damage(name, *range, "a checksum is wrong, or a part is missing");
        }
        if found.damaged.is_empty() && (found.salt.is_none() || found.opens.is_none()) {
            self.damage(name, (0, bytes.len() as u64), "its begin is damaged");
        }
        if is_unknown {
            self.damage(name, (0, end), "it holds messages that the newest checkpoint does not know");
        }
        Ok((found, fresh))
    }

    /// Compares the index file of a segment with the segment.
    fn index(&mut self, segment: &Segment<FrozenFile<F>>, found: &Scanned, fresh: &Index) -> io::Result<()> {
        const DAMAGED: &str = "the index is damaged; it is made again from the segment";
        const ANOTHER: &str = "the index does not match its segment";
        let name = index_name(segment.number);
        let Some(file) = self.view.files.get(&name) else { return Ok(()) };
        let bytes = read_all(file, u64::MAX)?;
        let Some(table_length) = index::table_length(&bytes).filter(|length| *length <= bytes.len()) else {
            // Of an unfinished file the first page, if it is there, says how long it is.
            let is_cut = bytes.is_empty() || index::table_length(&bytes).is_some();
            self.derived(&name, bytes.len(), is_cut, DAMAGED);
            return Ok(());
        };
        let Some(table) = index::decode_table(segment.number, &bytes) else {
            self.damage(&name, (0, table_length as u64), DAMAGED);
            return Ok(());
        };
        let end = segment.written.load(Ordering::Acquire);
        if table.end != end || found.salt.is_some_and(|salt| salt != table.salt) {
            self.damage(&name, (0, table_length as u64), ANOTHER);
            return Ok(());
        }
        let mut behind = table_length as u64;
        for (topic, run) in &table.runs {
            match check_run(&bytes, run, fresh.topics.get(topic).map_or(&[], Vec::as_slice), found) {
                Checked::Good(end) => behind = behind.max(end),
                Checked::Cut => {
                    self.derived(&name, bytes.len(), true, DAMAGED);
                    return Ok(());
                }
                Checked::Damaged(range) => self.damage(&name, range, DAMAGED),
                Checked::Another => {
                    self.damage(&name, (0, bytes.len() as u64), ANOTHER);
                    return Ok(());
                }
            }
        }
        if behind < bytes.len() as u64 {
            self.damage(&name, (behind, bytes.len() as u64), DAMAGED);
        }
        Ok(())
    }

    /// Says which messages are lost, and which are there and cannot be found.
    fn topics(&mut self, topics: &[Topic]) {
        let none = Ranges::default();
        let index = self.view.log.index.read();
        for topic in topics {
            let head = topic.head();
            let (first, last) = (head.trimmed_through + 1, head.newest);
            let lost = self.offsets.get(&topic.0.id).unwrap_or(&none).missing(first, last);
            let mut found = Ranges::default();
            for run in index.topics.get(&topic.0.id).into_iter().flatten() {
                found.add(run.first, run.last());
            }
            for (first, last) in &lost {
                found.add(*first, *last);
            }
            let mut whole = (last + 1).saturating_sub(first);
            for (first, last) in lost {
                whole -= last - first + 1;
                self.report.lost.push(Lost { topic: topic.name().clone(), first, last });
            }
            self.report.records += whole;
            for (first, last) in found.missing(first, last) {
                self.report.lost.push(Lost { topic: topic.name().clone(), first, last });
            }
        }
    }
}

/// The result of comparing one run of an index file.
enum Checked {
    /// It ends here.
    Good(u64),
    Cut,
    Damaged((u64, u64)),
    Another,
}

fn check_run(bytes: &Bytes, run: &Run, fresh: &[Run], found: &Scanned) -> Checked {
    let Places::Disk(start) = run.places else { return Checked::Another };
    let mut n = 0;
    let mut end = start;
    while n < run.count {
        let (at, length) = index::block(start, run.count, n);
        end = at + length as u64;
        let Some(block) = usize::try_from(at).ok().and_then(|at| bytes.get(at..at.checked_add(length)?)) else {
            return Checked::Cut;
        };
        let Some(places) = index::decode_block(block) else { return Checked::Damaged((at, end)) };
        for place in places {
            // A message that is damaged has been told already.
            let is_right = match place_of(fresh, run.first + u64::from(n)) {
                Some(right) => right == place,
                None => !found.damaged.is_empty(),
            };
            if !is_right {
                return Checked::Another;
            }
            n += 1;
        }
    }
    Checked::Good(end)
}

/// The position of a record, among runs with places in memory.
fn place_of(runs: &[Run], offset: u64) -> Option<u32> {
    let run = runs.get(runs.partition_point(|run| run.last() < offset))?;
    let Places::Memory(places) = &run.places else { return None };
    places.get(usize::try_from(offset.checked_sub(run.first)?).ok()?).copied()
}
