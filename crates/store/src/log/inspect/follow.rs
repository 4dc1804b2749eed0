//! Reads on where a view ended: polls the growth of the newest segment, and goes on to the next one.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;

use super::super::frame::{self, FrameKind, HEADER, Header};
use super::super::recovery::numbers;
use super::super::segment::{self, Known};
use super::super::segment_name;
use crate::codec::{self, Entry};
use crate::disk::DiskFile;
use crate::record::Record;
use crate::topic::Topic;

/// Gives what is written to a store from the moment of a view on, as soon as the system has it: a record may come
/// before it is as safe as its topic promises.
pub struct Follower {
    dir: PathBuf,
    spot: Spot,
    topics: HashMap<u64, Followed>,
}

/// Where the next frame begins.
#[derive(Default)]
struct Spot {
    number: u64,
    file: Option<File>,
    salt: Option<u64>,
    sequence: u64,
    /// Checksum of the frame before, if it was read here.
    crc: Option<u32>,
    at: u64,
}

struct Followed {
    name: Arc<str>,
    /// The newest offset that was given.
    newest: u64,
}

impl Follower {
    pub(super) fn new(dir: PathBuf, topics: &[Topic], last: Option<(u64, u64, u64)>) -> Self {
        let topics = topics.iter().map(|topic| {
            let followed = Followed { name: topic.name().clone(), newest: topic.head().newest };
            (topic.0.id, followed)
        });
        let spot = last.map_or_else(Spot::default, |(number, salt, at)| Spot {
            number,
            salt: Some(salt),
            at,
            ..Spot::default()
        });
        Self { dir, spot, topics: topics.collect() }
    }

    /// Passes on, with the names of their topics, the records that were written since the last call, and says how many.
    /// Call it again after a while if there were none; there is no other way to notice growth. If an offset is not one
    /// more than the one before, records in between are gone: dropped meanwhile, or damaged.
    pub fn poll(&mut self, take: &mut dyn FnMut(&Arc<str>, Record)) -> io::Result<usize> {
        let mut count = 0;
        loop {
            while let Some((kind, entries)) = self.next_frame()? {
                if kind == FrameKind::Entries {
                    count += self.give(entries, take);
                }
            }
            let Some((number, ended)) = self.next_segment()? else { return Ok(count) };
            // The next segment began behind all of this one, so this time a whole frame is seen as such.
            if ended.is_none_or(|ended| self.spot.at < ended)
                && let Some((kind, entries)) = self.next_frame()?
            {
                if kind == FrameKind::Entries {
                    count += self.give(entries, take);
                }
                continue;
            }
            self.spot = Spot { number, ..Spot::default() };
        }
    }

    /// Reads the frame that begins here, if it is there and whole.
    fn next_frame(&mut self) -> io::Result<Option<(FrameKind, Bytes)>> {
        let spot = &mut self.spot;
        let file = match &mut spot.file {
            Some(file) => file,
            None if spot.number == 0 => return Ok(None),
            none => match File::open(self.dir.join(segment_name(spot.number))) {
                // Removed meanwhile; what was in it is dropped.
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                file => none.insert(file?),
            },
        };
        let mut head = [0; HEADER];
        if file.read_at(&mut head, spot.at)? < HEADER {
            return Ok(None);
        }
        let Some(header) = Header::decode(&head) else { return Ok(None) };
        let follows = header.sequence > spot.sequence && spot.crc.is_none_or(|crc| crc == header.previous);
        if !follows || spot.salt.is_some_and(|salt| salt != header.salt) {
            return Ok(None);
        }
        let length = header.frame_length();
        // A length with a good checksum over it was written like this, but the file may have been cut off since.
        if file.len()? < spot.at + length as u64 {
            return Ok(None);
        }
        let mut bytes = vec![0; length];
        if file.read_at(&mut bytes, spot.at)? < length {
            return Ok(None);
        }
        let Some(crc) = frame::check(&bytes, &header) else { return Ok(None) };
        spot.salt = Some(header.salt);
        spot.sequence = header.sequence;
        spot.crc = Some(crc);
        spot.at += length as u64;
        Ok(Some((header.kind, Bytes::from(bytes).slice(HEADER..length - frame::CRC))))
    }

    /// The segment behind this one, if it was begun, and where it says that this one ended.
    fn next_segment(&self) -> io::Result<Option<(u64, Option<u64>)>> {
        let names: io::Result<Vec<String>> =
            fs::read_dir(&self.dir)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect();
        for number in numbers(&names?, ".seg").into_iter().filter(|number| *number > self.spot.number) {
            let file = match File::open(self.dir.join(segment_name(number))) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                file => file?,
            };
            let head = super::super::recovery::read_all(&file, segment::HEAD as u64)?;
            let found = segment::scan(&head, Known::default(), |_| {});
            // Without its first frame it was made ahead.
            let Some(opens) = found.opens else { return Ok(None) };
            let ended = (opens.previous == self.spot.number).then_some(opens.ended);
            return Ok(Some((number, ended)));
        }
        Ok(None)
    }

    fn give(&mut self, mut entries: Bytes, take: &mut dyn FnMut(&Arc<str>, Record)) -> usize {
        let mut count = 0;
        while let Some(entry) = codec::decode(&entries) {
            entries = entries.slice(entry.len()..);
            match entry {
                Entry::TopicMade { topic, name, .. } => {
                    self.topics.entry(topic).or_insert(Followed { name, newest: 0 });
                }
                Entry::TopicGone { topic } => {
                    self.topics.remove(&topic);
                }
                Entry::Message { topic, record } => {
                    let Some(followed) = self.topics.get_mut(&topic).filter(|topic| topic.newest < record.offset)
                    else {
                        continue;
                    };
                    followed.newest = record.offset;
                    count += 1;
                    take(&followed.name, record);
                }
                _ => {}
            }
        }
        count
    }
}
