//! What a segment's file holds, read again after a restart: whole frames, a torn tail, or damage. Pure.

use bytes::Bytes;

use super::frame::{self, FrameKind, HEADER, Header};
use crate::codec::{self, Entry};

/// The first frame of a segment: where the segment before it ended, and when it was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Opens {
    /// Number of the segment before, 0 for none.
    pub(crate) previous: u64,
    /// Position where that one ended. All of it was on the disk when this frame was written.
    pub(crate) ended: u64,
    /// Losses of power so far.
    pub(crate) generation: u32,
    /// Times that damage was found whose extent is unknown.
    pub(crate) damages: u32,
    /// Which run of the machine this was written in.
    pub(crate) boot: u64,
}

pub(crate) const OPENS: usize = 32;
/// Bytes of the first frame.
pub(crate) const HEAD: usize = HEADER + OPENS + frame::CRC;

impl Opens {
    pub(crate) fn encode(&self, into: &mut Vec<u8>) {
        into.extend_from_slice(&self.previous.to_le_bytes());
        into.extend_from_slice(&self.ended.to_le_bytes());
        into.extend_from_slice(&self.generation.to_le_bytes());
        into.extend_from_slice(&self.damages.to_le_bytes());
        into.extend_from_slice(&self.boot.to_le_bytes());
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let short = |at: usize| Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?));
        let long = |at: usize| Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?));
        Some(Self { previous: long(0)?, ended: long(8)?, generation: short(16)?, damages: short(20)?, boot: long(24)? })
    }
}

/// What is known of a segment from outside its file.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Known {
    /// Where it ended, if a later segment says so.
    pub(crate) ended: Option<u64>,
    /// Up to here everything was on the disk.
    pub(crate) synced: u64,
}

/// An entry and its position in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Placed {
    pub(crate) at: u64,
    pub(crate) entry: Entry,
}

/// What was found in a segment.
#[derive(Debug, Default)]
pub(crate) struct Scanned {
    pub(crate) opens: Option<Opens>,
    pub(crate) salt: Option<u64>,
    /// Behind the last frame that counts.
    pub(crate) end: u64,
    /// Sequence of the last frame.
    pub(crate) sequence: u64,
    /// The last frame says that the store was closed.
    pub(crate) is_closed: bool,
    /// Damaged ranges, from and to.
    pub(crate) damaged: Vec<(u64, u64)>,
    /// Bytes behind the end that were begun and never completed.
    pub(crate) torn: u64,
}

fn to_u64(n: usize) -> u64 {
    n as u64
}

/// Reads a segment from its begin. Passes on each whole entry, also those in damaged frames that are whole themselves.
pub(crate) fn scan(bytes: &Bytes, known: Known, mut take: impl FnMut(Placed)) -> Scanned {
    let mut found = Scanned::default();
    let mut at = 0;
    let mut chain = Chain::default();
    let zeros = bytes.rchunks(4096).take_while(|chunk| chunk.iter().all(|byte| *byte == 0));
    let used = bytes.len() - zeros.map(<[u8]>::len).sum::<usize>();
    let limit = known.ended.map(|ended| usize::try_from(ended).unwrap_or(usize::MAX));
    while limit.is_none_or(|limit| at < limit) {
        if let Some((header, crc)) = good_frame(bytes, at, &chain) {
            frame_entries(bytes, at, &header, &mut found, &mut take);
            chain = Chain { salt: Some(header.salt), sequence: Some(header.sequence), crc: Some(crc) };
            found.salt = Some(header.salt);
            found.sequence = header.sequence;
            found.is_closed = header.kind == FrameKind::Closes;
            at += header.frame_length();
            continue;
        }
        // Not a frame: a torn tail, unless something proves that this was on the disk.
        let loose = Chain { crc: None, ..chain };
        let mut later = Later { bytes: &bytes[..used], at: at + 1, chain: loose };
        let next = later.next();
        let is_witnessed = || next.is_some_and(|(_, header)| header.synced > to_u64(at));
        let is_damage = limit.is_some()
            || known.synced > to_u64(at)
            || is_witnessed()
            || later.any(|(_, header)| header.synced > to_u64(at));
        if !is_damage {
            found.torn = to_u64(bytes.len() - at);
            break;
        }
        let past = limit.unwrap_or_else(|| usize::try_from(known.synced).unwrap_or(usize::MAX)).max(at);
        let to = next.map_or(past, |(next, _)| limit.map_or(next, |limit| next.min(limit)));
        salvage(bytes, at, to.min(bytes.len()), &mut take);
        found.damaged.push((to_u64(at), to_u64(to)));
        found.is_closed = false;
        chain = loose;
        at = to;
        if next.is_none() {
            break;
        }
    }
    found.end = to_u64(at);
    found
}

/// What the next frame has to follow.
#[derive(Debug, Clone, Copy, Default)]
struct Chain {
    salt: Option<u64>,
    sequence: Option<u64>,
    /// Checksum of the frame before; unknown behind damage.
    crc: Option<u32>,
}

fn good_frame(bytes: &[u8], at: usize, chain: &Chain) -> Option<(Header, u32)> {
    let rest = bytes.get(at..)?;
    let header = Header::decode(rest)?;
    let follows = match (chain.sequence, chain.crc) {
        (Some(sequence), Some(crc)) => header.sequence == sequence + 1 && header.previous == crc,
        (Some(sequence), None) => header.sequence > sequence,
        (None, _) => true,
    };
    if !follows || chain.salt.is_some_and(|salt| salt != header.salt) {
        return None;
    }
    Some((header, frame::check(rest, &header)?))
}

/// Whole frames anywhere behind a position.
struct Later<'a> {
    bytes: &'a [u8],
    at: usize,
    chain: Chain,
}

impl Iterator for Later<'_> {
    type Item = (usize, Header);

    fn next(&mut self) -> Option<Self::Item> {
        while let Some(at) = frame::find_magic(self.bytes, self.at) {
            if let Some((header, _)) = good_frame(self.bytes, at, &self.chain) {
                self.at = at + header.frame_length();
                self.chain = Chain { salt: Some(header.salt), sequence: Some(header.sequence), crc: None };
                return Some((at, header));
            }
            self.at = at + 1;
        }
        None
    }
}

fn frame_entries(bytes: &Bytes, at: usize, header: &Header, found: &mut Scanned, take: &mut impl FnMut(Placed)) {
    let start = at + HEADER;
    let end = start + header.length as usize;
    match header.kind {
        FrameKind::Opens => found.opens = Opens::decode(&bytes[start..end]),
        FrameKind::Closes => {}
        FrameKind::Entries => salvage(bytes, start, end, take),
    }
}

/// Takes the whole entries between two positions, whatever is between them.
fn salvage(bytes: &Bytes, mut at: usize, to: usize, take: &mut impl FnMut(Placed)) {
    while at < to {
        let rest = bytes.slice(at..to);
        match codec::decode(&rest) {
            Some(entry) => {
                let length = entry.len();
                take(Placed { at: to_u64(at), entry });
                at += length;
            }
            None => at += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A segment with a frame for each number of entries; says where each frame begins, and where the last one ends.
    fn segment(counts: &[usize], synced_lag: usize) -> (Vec<u8>, Vec<usize>) {
        let (mut bytes, mut starts, mut crc, mut offset) = (Vec::new(), Vec::new(), 0, 0);
        for (n, count) in counts.iter().enumerate() {
            let mut buffer = vec![0; HEADER];
            let kind = if n == 0 { FrameKind::Opens } else { FrameKind::Entries };
            if n == 0 {
                Opens::default().encode(&mut buffer);
            } else {
                for _ in 0..*count {
                    offset += 1;
                    Entry::Trim { topic: 1, through: offset }.encode(&mut buffer);
                }
            }
            let synced = if n >= synced_lag { starts.get(n - synced_lag).copied().unwrap_or(bytes.len()) } else { 0 };
            let header = Header {
                kind,
                salt: 5,
                sequence: n as u64 + 1,
                synced: synced as u64,
                previous: crc,
                length: u32::try_from(buffer.len() - HEADER).unwrap(),
                count: u32::try_from(*count).unwrap(),
            };
            crc = frame::finish(&mut buffer, &header);
            starts.push(bytes.len());
            bytes.extend(buffer);
        }
        starts.push(bytes.len());
        (bytes, starts)
    }

    fn entries(bytes: &[u8], known: Known) -> (Vec<u64>, Scanned) {
        let mut all = Vec::new();
        let found = scan(&Bytes::copy_from_slice(bytes), known, |placed| {
            if let Entry::Trim { through, .. } = placed.entry {
                all.push(through);
            }
        });
        (all, found)
    }

    proptest! {
        #[test]
        fn a_torn_tail_ends_the_log_and_damage_does_not(
            counts in prop::collection::vec(1_usize..6, 2..12), lag in 1_usize..3, at in any::<prop::sample::Index>(),
        ) {
            let (mut bytes, starts) = segment(&counts, lag);
            let whole = bytes.len();
            bytes.extend([0; 500]);
            let (all, found) = entries(&bytes, Known::default());
            prop_assert_eq!(all.len(), counts[1..].iter().sum::<usize>());
            prop_assert_eq!((found.end, found.damaged.len(), found.torn), (whole as u64, 0, 500));
            // One flipped bit.
            let at = at.index(whole);
            bytes[at] ^= 4;
            let frame = starts.iter().rposition(|start| *start <= at).unwrap();
            let (left, found) = entries(&bytes, Known::default());
            let witnessed = frame + lag + 1 < counts.len();
            prop_assert_eq!(!found.damaged.is_empty(), witnessed, "frame {} of {}", frame, counts.len());
            if witnessed {
                prop_assert!(all.len() - left.len() <= 1, "all but the flipped entry is served");
                prop_assert_eq!(found.end, whole as u64);
            } else {
                prop_assert_eq!(found.end, starts[frame] as u64);
            }
            // The same if a later segment says where this one ended, or the witness knows what was on the disk.
            let (left, found) = entries(&bytes, Known { ended: Some(whole as u64), synced: 0 });
            prop_assert!(all.len() - left.len() <= 1);
            prop_assert_eq!((found.damaged.len(), found.end), (1, whole as u64));
            let (_, found) = entries(&bytes, Known { ended: None, synced: whole as u64 });
            prop_assert_eq!((found.damaged.len(), found.end), (1, whole as u64));
        }
    }

    #[test]
    fn frames_of_an_earlier_use_are_not_adopted() {
        let (old, _) = segment(&[1, 1, 1, 1, 1, 1], 9);
        let (mut new, starts) = segment(&[1, 2, 3], 9);
        new.extend_from_slice(&old[new.len().min(old.len())..]);
        let (all, found) = entries(&new, Known::default());
        assert_eq!((all.len(), found.end), (5, starts[3] as u64));
    }
}
