//! Groups of entries as frames of a segment. Pure.
//!
//! A frame is a header of 48 bytes, entries, and a CRC32C over both. Its header, all numbers little endian: magic
//! `u32`, kind `u32`, salt `u64`, sequence `u64`, synced `u64`, checksum of the frame before it `u32`, bytes of entries
//! `u32`, number of entries `u32`, CRC32C over the header before this `u32`.
//!
//! * The salt is random for each segment, and the checksum of the frame before chains the frames, so that what a file
//!   held before is never taken for a frame.
//! * `synced` is the position in the segment up to which everything was on the disk when the frame was built. A hole
//!   below a later frame's `synced` is damage and not the end of what was written when the power failed.

pub(crate) const HEADER: usize = 48;
pub(crate) const CRC: usize = 4;
const MAGIC: u32 = u32::from_le_bytes(*b"QwSf");

/// What a frame holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FrameKind {
    /// Entries.
    Entries = 1,
    /// The begin of a segment: an [`super::segment::Opens`].
    Opens = 2,
    /// Nothing. The store was closed, and everything before is on the disk.
    Closes = 3,
}

/// The header of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) kind: FrameKind,
    pub(crate) salt: u64,
    /// One more than that of the frame before, over all segments.
    pub(crate) sequence: u64,
    pub(crate) synced: u64,
    pub(crate) previous: u32,
    pub(crate) length: u32,
    pub(crate) count: u32,
}

impl Header {
    /// Bytes of the whole frame.
    pub(crate) const fn frame_length(&self) -> usize {
        HEADER + self.length as usize + CRC
    }

    fn encode(&self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        bytes[..4].copy_from_slice(&MAGIC.to_le_bytes());
        bytes[4..8].copy_from_slice(&(self.kind as u32).to_le_bytes());
        bytes[8..16].copy_from_slice(&self.salt.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.sequence.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.synced.to_le_bytes());
        bytes[32..36].copy_from_slice(&self.previous.to_le_bytes());
        bytes[36..40].copy_from_slice(&self.length.to_le_bytes());
        bytes[40..44].copy_from_slice(&self.count.to_le_bytes());
        let crc = crc32c::crc32c(&bytes[..44]);
        bytes[44..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Reads the header that begins here.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; HEADER] = bytes.first_chunk()?;
        let short = |at: usize| Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?));
        let long = |at: usize| Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?));
        if short(0)? != MAGIC || crc32c::crc32c(&bytes[..44]) != short(44)? {
            return None;
        }
        let kind = match short(4)? {
            1 => FrameKind::Entries,
            2 => FrameKind::Opens,
            3 => FrameKind::Closes,
            _ => return None,
        };
        Some(Self {
            kind,
            salt: long(8)?,
            sequence: long(16)?,
            synced: long(24)?,
            previous: short(32)?,
            length: short(36)?,
            count: short(40)?,
        })
    }
}

/// Completes the frame in `buffer`, which has room for the header and then the entries. Returns its checksum.
pub(crate) fn finish(buffer: &mut Vec<u8>, header: &Header) -> u32 {
    buffer[..HEADER].copy_from_slice(&header.encode());
    let crc = crc32c::crc32c(buffer);
    buffer.extend_from_slice(&crc.to_le_bytes());
    crc
}

/// Whether the frame that begins here, with this header, is whole; its checksum if so.
pub(crate) fn check(bytes: &[u8], header: &Header) -> Option<u32> {
    let (body, crc) = bytes.get(..header.frame_length())?.split_last_chunk::<CRC>()?;
    crate::codec::is_right(body, *crc).then_some(u32::from_le_bytes(*crc))
}

/// Position of the next magic number at or behind `from`.
pub(crate) fn find_magic(bytes: &[u8], from: usize) -> Option<usize> {
    let magic = MAGIC.to_le_bytes();
    let rest = bytes.get(from..)?;
    let mut at = 0;
    while let Some(found) = rest[at..].iter().position(|byte| *byte == magic[0]) {
        at += found;
        if rest[at..].starts_with(&magic) {
            return Some(from + at);
        }
        at += 1;
    }
    None
}
