//! Checks the one framing rule that the library omits: a length must use as few bytes as possible (RFC 6455 section
//! 5.2). Follows the incoming frames and looks at nothing but their lengths. Pure.

use thiserror::Error;

/// A frame length that uses too many bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the length of a frame is not written in as few bytes as hold it")]
pub(super) struct WrongLength;

/// Bit that must not be set in a length of eight bytes.
const HIGHEST_BIT: u64 = 1 << 63;
const MASK_BYTES: u64 = 4;

/// Position of the next byte in a frame.
#[derive(Debug, Clone, Copy)]
enum Position {
    First,
    Second { is_control: bool },
    Length { read: u64, left: u8, of: u8, is_masked: bool, is_control: bool },
    Rest { left: u64 },
}

/// Checks the frame lengths of one connection.
#[derive(Debug)]
pub(super) struct Lengths(Position);

impl Lengths {
    pub(super) fn new() -> Self {
        Self(Position::First)
    }

    /// Follows received bytes. An error carries how many of them belong to the frames before.
    pub(super) fn follow(&mut self, bytes: &[u8]) -> Result<(), (usize, WrongLength)> {
        let (mut at, mut frame) = (0, 0);
        while let Some(&byte) = bytes.get(at) {
            self.0 = match self.0 {
                Position::First => {
                    frame = at;
                    Position::Second { is_control: byte & 0x08 != 0 }
                }
                Position::Second { is_control } => {
                    let is_masked = byte & 0x80 != 0;
                    match byte & 0x7f {
                        126 => Position::Length { read: 0, left: 2, of: 2, is_masked, is_control },
                        127 => Position::Length { read: 0, left: 8, of: 8, is_masked, is_control },
                        length => rest(length.into(), is_masked),
                    }
                }
                Position::Length { read, left, of, is_masked, is_control } => {
                    let read = read << 8 | u64::from(byte);
                    match left - 1 {
                        0 if is_control || !is_short(read, of) => return Err((frame, WrongLength)),
                        0 => rest(read, is_masked),
                        left => Position::Length { read, left, of, is_masked, is_control },
                    }
                }
                Position::Rest { left } => {
                    let here = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len() - at);
                    at += here;
                    self.0 = match left - here as u64 {
                        0 => Position::First,
                        left => Position::Rest { left },
                    };
                    continue;
                }
            };
            at += 1;
        }
        Ok(())
    }
}

/// Whether a length needs the number of bytes that it uses.
fn is_short(length: u64, bytes: u8) -> bool {
    match bytes {
        2 => length > 125,
        _ => length > u16::MAX.into() && length & HIGHEST_BIT == 0,
    }
}

fn rest(length: u64, is_masked: bool) -> Position {
    match length.saturating_add(if is_masked { MASK_BYTES } else { 0 }) {
        0 => Position::First,
        left => Position::Rest { left },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A masked frame with a payload of `length`, whose length field has `more` extra bytes.
    fn frame(first: u8, more: usize, length: u64) -> Vec<u8> {
        let mut bytes = vec![first];
        match more {
            0 => bytes.push(0x80 | u8::try_from(length).expect("a short one")),
            2 => bytes.push(0x80 | 126),
            _ => bytes.push(0x80 | 127),
        }
        bytes.extend(&length.to_be_bytes()[8 - more..]);
        bytes.extend([1, 2, 3, 4]);
        bytes.extend(vec![0xfe; usize::try_from(length & 0xf_ffff).expect("a length")]);
        bytes
    }

    /// Follows bytes in chunks; returns how many were good, if not all were.
    fn wrong_at(bytes: &[u8], piece: usize) -> Option<usize> {
        let mut lengths = Lengths::new();
        let mut good = 0;
        for piece in bytes.chunks(piece) {
            match lengths.follow(piece) {
                Ok(()) => good += piece.len(),
                Err((before, WrongLength)) => return Some(good + before),
            }
        }
        None
    }

    #[test]
    fn lengths_are_followed_however_the_bytes_are_cut() {
        let good = [
            frame(0x81, 0, 0),
            frame(0x02, 0, 125),
            frame(0x89, 0, 125),
            frame(0x80, 2, 126),
            frame(0x81, 2, 65_535),
            vec![0x81, 0],
            frame(0x82, 8, 65_536),
        ]
        .concat();
        for piece in [1, 2, 3, 7, 1000, good.len()] {
            assert_eq!(wrong_at(&good, piece), None, "pieces of {piece}");
        }
        for wrong in [
            frame(0x81, 2, 0),
            frame(0x81, 2, 125),
            frame(0x81, 8, 126),
            frame(0x81, 8, 65_535),
            frame(0x81, 8, 1 << 63),
            frame(0x89, 2, 126),
            frame(0x88, 2, 5),
        ] {
            let all = [&good[..], &wrong].concat();
            assert_eq!(wrong_at(&all, all.len()), Some(good.len()), "{:?}", &wrong[..4]);
            let found = wrong_at(&all, 1).expect("a wrong length");
            assert!((good.len()..good.len() + 10).contains(&found), "{:?}: {found}", &wrong[..4]);
        }
    }
}
