//! Writing: groups as frames into the segment, and the next segment when it is full.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::frame::{self, FrameKind, HEADER, Header};
use super::segment::{self, Opens};
use super::{Log, Place, Segment, Writer, io_error, prepare, segment_name};
use crate::codec::Entry;
use crate::disk::{Disk, DiskFile};
use crate::error::EngineError;
use crate::failpoint;

/// Most bytes of a segment that are kept for entries that are no publishes.
const RESERVE: u64 = 1 << 20;

/// Bytes at the end of a segment that publishes leave, so that acknowledgements and trims go on when there is no next
/// segment.
fn reserve(length: u64) -> u64 {
    RESERVE.min(length / 16)
}

impl<F: DiskFile> Writer<F> {
    /// Writes the frame whose entries are in the buffer behind the room for its header.
    pub(super) fn put(&mut self, kind: FrameKind, count: u32) -> io::Result<()> {
        let at = self.segment.written.load(Ordering::Relaxed);
        let header = Header {
            kind,
            salt: self.segment.salt,
            sequence: self.sequence + 1,
            synced: self.segment.synced.load(Ordering::Acquire),
            previous: self.crc,
            length: u32::try_from(self.buffer.len() - HEADER).map_err(io::Error::other)?,
            count,
        };
        let crc = frame::finish(&mut self.buffer, &header);
        self.segment.file.write_at(&self.buffer, at)?;
        self.crc = crc;
        self.sequence += 1;
        self.segment.written.store(at + self.buffer.len() as u64, Ordering::Release);
        Ok(())
    }

    /// Begins a segment. All of the one before is on the disk.
    pub(super) fn open(&mut self, segment: Arc<Segment<F>>, opens: &Opens) -> io::Result<()> {
        let mut entries = std::mem::take(&mut self.buffer);
        self.length = segment.length.load(Ordering::Relaxed);
        self.segment = segment;
        self.buffer = vec![0; HEADER];
        opens.encode(&mut self.buffer);
        let result = self.put(FrameKind::Opens, 0);
        std::mem::swap(&mut self.buffer, &mut entries);
        result
    }
}

impl<D: Disk> Log<D> {
    /// Seals the segment and begins the next one.
    fn rotate(&self, writer: &mut Writer<D::File>, least: u64) -> Result<(), EngineError> {
        let number = writer.segment.number + 1;
        // The group has to leave the reserve, which is at most a sixteenth.
        let least = (least + segment::HEAD as u64) * 16 / 15 + 1;
        let length = self.options.segment_bytes.max(least);
        let prepared = self.next.lock().take_if(|next| next.number == number && length == self.options.segment_bytes);
        let next = match prepared {
            Some(next) => next,
            None => self.prepare(number, length)?,
        };
        self.begin(writer, next)
    }

    /// The same for entries that are no publishes, when the disk is full: a small segment in the room that else stays
    /// free. Such segments are soon given back, because a checkpoint has all that they say.
    pub(super) fn rotate_in_reserve(&self, writer: &mut Writer<D::File>, least: u64) -> Result<(), EngineError> {
        let length = (2 * RESERVE).min(self.options.segment_bytes).max((least + segment::HEAD as u64) * 2);
        if self.disk.free().map_err(|error| io_error(&error))? < 2 * length {
            return Err(EngineError::Full);
        }
        let next = prepare(&self.disk, writer.segment.number + 1, length).map_err(|error| io_error(&error))?;
        self.begin(writer, next)
    }

    fn begin(&self, writer: &mut Writer<D::File>, next: Segment<D::File>) -> Result<(), EngineError> {
        let old = writer.segment.clone();
        let ended = old.written.load(Ordering::Relaxed);
        self.sync_segment(&old)?;
        failpoint::reach("in-rotate");
        let (next, length) = (Arc::new(next), writer.length);
        let opens = Opens {
            previous: old.number,
            ended,
            generation: self.generation,
            damages: self.damages,
            boot: self.options.boot,
        };
        if let Err(error) = writer.open(next.clone(), &opens) {
            // As if it had never been made; the next try makes it again.
            (writer.segment, writer.length, writer.is_broken) = (old, length, true);
            let _ = self.disk.remove(&segment_name(next.number));
            return Err(EngineError::Failed(error.to_string()));
        }
        self.segments.write().insert(next.number, next);
        old.is_sealed.store(true, Ordering::Release);
        writer.is_broken = false;
        Ok(())
    }

    pub(super) fn prepare(&self, number: u64, length: u64) -> Result<Segment<D::File>, EngineError> {
        let free = self.disk.free().map_err(|error| io_error(&error))?;
        let used = self.bytes();
        let is_over = self.options.max_bytes > 0 && used + length > self.options.max_bytes;
        if free < self.options.min_free_bytes.saturating_add(length) || is_over {
            self.is_full.store(true, Ordering::Relaxed);
            return Err(EngineError::Full);
        }
        let prepared = prepare(&self.disk, number, length).map_err(|error| io_error(&error));
        self.is_full.store(matches!(prepared, Err(EngineError::Full)), Ordering::Relaxed);
        prepared
    }

    /// Bytes that all segments take on the disk.
    pub(super) fn bytes(&self) -> u64 {
        self.segments.read().values().map(|segment| segment.length.load(Ordering::Relaxed)).sum()
    }

    /// Makes sure that a frame fits.
    fn make_room(&self, writer: &mut Writer<D::File>, length: u64, may_use_reserve: bool) -> Result<(), EngineError> {
        let end = writer.segment.written.load(Ordering::Relaxed) + length;
        if !writer.is_broken && end + reserve(writer.length) <= writer.length {
            return Ok(());
        }
        match self.rotate(writer, length) {
            Err(EngineError::Full) if may_use_reserve && !writer.is_broken && end <= writer.length => Ok(()),
            Err(EngineError::Full) if may_use_reserve => self.rotate_in_reserve(writer, length),
            result => result,
        }
    }

    /// Writes a group as one frame.
    pub(super) fn write_group(
        &self,
        group: &mut dyn Iterator<Item = &Entry>,
        may_use_reserve: bool,
    ) -> Result<(), EngineError> {
        let mut writer = self.writer.lock();
        let mut gone = Vec::new();
        let mut seen = group.inspect(|entry| match entry {
            Entry::Trim { topic, through } => gone.push((*topic, Some(*through))),
            Entry::TopicGone { topic } => gone.push((*topic, None)),
            Entry::TopicMade { topic, .. } => {
                self.next_topic.fetch_max(topic + 1, Ordering::Relaxed);
            }
            _ => {}
        });
        self.put_entries(&mut writer, &mut seen, may_use_reserve)?;
        let mut index = self.index.write();
        for place in &writer.places {
            index.add(place.topic, writer.segment.number, place.offset, place.at, place.bytes, place.at_ms);
        }
        for (topic, through) in gone {
            let is_dropped = match through {
                Some(through) => index.trim(topic, through),
                None => index.remove(topic),
            };
            if is_dropped {
                self.is_dropped.store(true, Ordering::Release);
            }
        }
        Ok(())
    }

    /// Writes a frame, and notes where its records are.
    pub(super) fn put_entries(
        &self,
        writer: &mut Writer<D::File>,
        group: &mut dyn Iterator<Item = &Entry>,
        may_use_reserve: bool,
    ) -> Result<(), EngineError> {
        let too_long = |error: std::num::TryFromIntError| EngineError::Failed(error.to_string());
        writer.buffer.clear();
        writer.buffer.resize(HEADER, 0);
        writer.places.clear();
        let mut count = 0;
        for entry in group {
            if let Entry::Message { topic, record } = entry {
                writer.places.push(Place {
                    topic: *topic,
                    offset: record.offset,
                    at: u32::try_from(writer.buffer.len()).map_err(too_long)?,
                    bytes: record.size(),
                    at_ms: record.at_ms,
                });
            }
            entry.encode(&mut writer.buffer);
            count += 1;
        }
        if count == 0 {
            return Ok(());
        }
        let length = (writer.buffer.len() + frame::CRC) as u64;
        self.make_room(writer, length, may_use_reserve)?;
        let base = u32::try_from(writer.segment.written.load(Ordering::Relaxed)).map_err(too_long)?;
        if let Err(error) = writer.put(FrameKind::Entries, count) {
            writer.is_broken = true;
            return Err(io_error(&error));
        }
        self.appended.fetch_add(length, Ordering::Relaxed);
        writer.places.iter_mut().for_each(|place| place.at += base);
        failpoint::reach("after-write");
        Ok(())
    }
}
