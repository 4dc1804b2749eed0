//! Background work: index files, checkpoints, the witness, and old segments.

use std::io;
use std::sync::atomic::Ordering;

use super::checkpoint::{self, SLOT, Summary, Witness};
use super::index::{self, Places, Run};
use super::{Log, Segment, Tending, checkpoint_name, index_name};
use crate::disk::{Disk, DiskFile};
use crate::engine::{Engine, Snapshot};
use crate::failpoint;

impl<D: Disk> Log<D> {
    /// Writes index files and checkpoints, makes the next segment, and deletes old ones.
    pub(super) fn tend_all(&self, settled: u64, snapshot: Snapshot<'_>) -> io::Result<()> {
        let mut tending = self.tending.lock();
        let Some(current) = self.current() else { return Ok(()) };
        self.put_witness(&mut tending, &current)?;
        if current.written.load(Ordering::Relaxed) > current.length.load(Ordering::Relaxed) / 2 {
            self.has_room();
        }
        let sealed: Vec<_> = self
            .segments
            .read()
            .values()
            .filter(|segment| segment.is_sealed.load(Ordering::Acquire) && segment.index.read().is_none())
            .cloned()
            .collect();
        for segment in sealed {
            self.put_index(&segment)?;
        }
        if settled <= current.number && tending.checkpoints.last().is_none_or(|newest| *newest < settled) {
            let summary = Summary {
                segment: settled,
                replay_from: settled,
                next_topic: self.next_topic.load(Ordering::Relaxed),
                generation: self.generation,
                damages: self.damages,
            };
            let bytes = checkpoint::encode(&summary, snapshot);
            // Some of it may not be on the disk yet, so the log is synced before the checkpoint is there.
            self.sync().map_err(|error| io::Error::other(error.to_string()))?;
            put_checkpoint(&self.disk, &mut tending, &summary, &bytes)?;
            self.is_dropped.store(true, Ordering::Release);
        }
        self.free_space(&mut tending)
    }

    /// Notes how much is on the disk, beside the log.
    pub(super) fn put_witness(&self, tending: &mut Tending<D::File>, current: &Segment<D::File>) -> io::Result<()> {
        let (segment, synced) = (current.number, current.synced.load(Ordering::Acquire));
        // The witness never knows of a segment whose first frame may get lost.
        if synced == 0 || (tending.witness.segment, tending.witness.synced) == (segment, synced) {
            return Ok(());
        }
        tending.witness = Witness { turn: tending.witness.turn + 1, segment, synced };
        let slot = tending.witness.turn % 2 * SLOT as u64;
        tending.witness_file.write_at(&tending.witness.encode(), slot)?;
        tending.witness_file.sync()
    }

    /// Writes the index file of a sealed segment, and forgets the positions in memory.
    fn put_index(&self, segment: &Segment<D::File>) -> io::Result<()> {
        let runs: Vec<(u64, Run)> = {
            let index = self.index.read();
            let own = |(topic, runs): (&u64, &Vec<Run>)| {
                let topic = *topic;
                runs.iter()
                    .filter(|run| run.segment == segment.number)
                    .map(move |run| (topic, run.clone()))
                    .collect::<Vec<_>>()
            };
            index.topics.iter().flat_map(own).collect()
        };
        // Runs that were trimmed are not among them, so the trims have to be on the disk before the file is.
        self.sync().map_err(|error| io::Error::other(error.to_string()))?;
        let end = segment.written.load(Ordering::Acquire);
        let (bytes, starts) = index::encode(segment.number, segment.salt, end, &runs);
        let name = index_name(segment.number);
        if self.disk.list()?.contains(&name) {
            self.disk.remove(&name)?;
        }
        let file = self.disk.create(&name)?;
        file.write_at(&bytes, 0)?;
        file.sync()?;
        self.disk.sync_names()?;
        *segment.index.write() = Some(file);
        // The rest of its room is of no more use.
        if segment.length.load(Ordering::Relaxed) > end {
            segment.file.set_len(end)?;
            segment.length.store(end, Ordering::Relaxed);
        }
        for part in runs.iter().zip(&starts).collect::<Vec<_>>().chunks(1000) {
            let mut index = self.index.write();
            for ((topic, run), start) in part {
                let runs = index.topics.get_mut(topic);
                let same = |known: &&mut Run| (known.segment, known.first) == (run.segment, run.first);
                if let Some(run) = runs.and_then(|runs| runs.iter_mut().find(same)) {
                    run.places = Places::Disk(**start);
                }
            }
        }
        Ok(())
    }
}

/// Writes a checkpoint, and deletes all but the one before.
pub(super) fn put_checkpoint<D: Disk>(
    disk: &D,
    tending: &mut Tending<D::File>,
    summary: &Summary,
    bytes: &[u8],
) -> io::Result<()> {
    let name = checkpoint_name(summary.segment);
    if disk.list()?.contains(&name) {
        disk.remove(&name)?;
    }
    let file = disk.create(&name)?;
    file.write_at(bytes, 0)?;
    failpoint::reach("in-checkpoint");
    file.sync()?;
    disk.sync_names()?;
    tending.checkpoints.insert(summary.segment);
    tending.replay_from = [tending.replay_from[1], summary.replay_from];
    while tending.checkpoints.len() > 2
        && let Some(oldest) = tending.checkpoints.pop_first()
    {
        disk.remove(&checkpoint_name(oldest))?;
    }
    Ok(())
}
