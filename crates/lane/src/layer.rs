//! On what a lane's stream lies: on QUIC itself, or in a WebTransport session, whose streams name it before anything else
//! and have closing codes in a range of their own (draft-ietf-webtrans-http3 sections 4.1, 4.2 and 4.3).

use bytes::{Buf, Bytes};
use quinn::VarInt;

use quic_websocket_protocol::frame::FrameError;

/// The id of every session, on streams and datagrams: that of its request's stream, the first of the connection.
const SESSION: u64 = 0;
/// What a client's bidirectional stream begins with that belongs to a session (WT_STREAM).
const BIDIRECTIONAL: u64 = 0x41;
/// The same for a unidirectional stream, whose type 0x54 takes two bytes; with the session behind it.
const UNIDIRECTIONAL: &[u8] = &[0x40, 0x54, 0x00];

/// Where the codes of sessions begin among those of HTTP/3 (WT_APPLICATION_ERROR, section 4.3).
const FIRST_CODE: u64 = 0x52e4_a40f_a8db;
/// Behind so many codes, HTTP/3 reserves one to be ignored (RFC 9114 section 8.1).
const CODES_BETWEEN_GREASE: u64 = 0x1e;
/// The longest integer of QUIC (RFC 9000 section 16), in bytes.
const LONGEST_INTEGER: usize = 8;

/// What lies between a lane and QUIC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layer {
    /// Nothing.
    Native,
    /// A session.
    WebTransport,
}

impl Layer {
    /// A closing code as streams and connections carry it.
    pub fn code(self, code: u16) -> VarInt {
        match self {
            Self::Native => code.into(),
            // Far below the largest, for any code.
            Self::WebTransport => {
                let code = u64::from(code);
                VarInt::from_u64(FIRST_CODE + code + code / CODES_BETWEEN_GREASE).unwrap_or(VarInt::MAX)
            }
        }
    }

    /// What comes before the first frame on a lane that the server opens.
    pub fn lane_header(self) -> &'static [u8] {
        match self {
            Self::Native => &[],
            Self::WebTransport => UNIDIRECTIONAL,
        }
    }

    /// What has to come before the first frame on a lane that the client opens.
    pub(crate) fn preamble(self) -> Option<Preamble> {
        (self == Self::WebTransport).then(Preamble::default)
    }
}

/// What was received of what comes before a lane's first frame: two integers (RFC 9000 section 16), however they are cut.
#[derive(Debug, Default)]
pub(crate) struct Preamble {
    bytes: [u8; 2 * LONGEST_INTEGER],
    len: usize,
}

impl Preamble {
    pub(crate) fn has_begun(&self) -> bool {
        self.len > 0
    }

    /// Takes what belongs to it off a received piece. True once it is whole.
    ///
    /// # Errors
    /// [`FrameError::Foreign`] where the stream is none of the session's lanes.
    pub(crate) fn take_off(&mut self, piece: &mut Bytes) -> Result<bool, FrameError> {
        while piece.has_remaining() {
            // Two integers are whole before there is no room for more.
            let Some(next) = self.bytes.get_mut(self.len) else { return Err(FrameError::Foreign) };
            *next = piece.get_u8();
            self.len += 1;
            let mut rest = &self.bytes[..self.len];
            let Some(kind) = integer(&mut rest) else { continue };
            if kind != BIDIRECTIONAL {
                return Err(FrameError::Foreign);
            }
            let Some(session) = integer(&mut rest) else { continue };
            return if session == SESSION { Ok(true) } else { Err(FrameError::Foreign) };
        }
        Ok(false)
    }
}

/// Takes an integer of QUIC (RFC 9000 section 16) off the front. `None` if it is not whole.
fn integer(bytes: &mut &[u8]) -> Option<u64> {
    let first = *bytes.first()?;
    let (whole, rest) = bytes.split_at_checked(1 << (first >> 6))?;
    *bytes = rest;
    Some(whole[1..].iter().fold(u64::from(first & 0x3f), |value, &byte| value << 8 | u64::from(byte)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes a preamble off pieces of one byte each; gives how many bytes that took.
    fn taken(bytes: &[u8]) -> Result<Option<usize>, FrameError> {
        let mut preamble = Preamble::default();
        for (at, byte) in bytes.iter().enumerate() {
            if preamble.take_off(&mut Bytes::copy_from_slice(&[*byte]))? {
                return Ok(Some(at + 1));
            }
            assert!(preamble.has_begun());
        }
        Ok(None)
    }

    #[test]
    fn a_lane_names_its_session_in_any_length_of_the_integers() {
        let long = [0xc0, 0, 0, 0, 0, 0, 0, 0x41, 0xc0, 0, 0, 0, 0, 0, 0, 0, b'x'];
        for bytes in [&[0x40, 0x41, 0x00, b'x', b'y'][..], &[0x80, 0, 0, 0x41, 0x40, 0x00, b'x'], &long] {
            let until = bytes.iter().position(|&byte| byte == b'x').expect("it is there");
            assert_eq!(taken(bytes), Ok(Some(until)));
            let mut piece = Bytes::copy_from_slice(bytes);
            assert_eq!(Preamble::default().take_off(&mut piece), Ok(true));
            assert_eq!(piece, bytes[until..], "what follows is the lane's");
            assert_eq!(taken(&bytes[..until - 1]), Ok(None));
        }
    }

    #[test]
    fn a_stream_of_another_kind_or_session_is_no_lane() {
        for bytes in [&[0x01, 0x00][..], &[0x40, 0x54, 0x00], &[0x40, 0x41, 0x04]] {
            assert_eq!(taken(bytes), Err(FrameError::Foreign), "{bytes:?}");
        }
    }

    #[test]
    fn codes_are_mapped_into_the_sessions_range() {
        assert_eq!(Layer::Native.code(1000).into_inner(), 1000);
        let mapped = Layer::WebTransport.code(4413).into_inner();
        assert_eq!(mapped, 0x52e4_a40f_baab);
        assert_eq!(Layer::WebTransport.code(0).into_inner(), 0x52e4_a40f_a8db);
        assert_eq!(Layer::WebTransport.code(u16::MAX).into_inner(), 0x52e4_a410_b162);
    }
}
