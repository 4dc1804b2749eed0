//! The layer between a lane's stream and QUIC: none, or a WebTransport session, whose streams begin with the session's
//! id and whose closing codes have a range of their own (draft-ietf-webtrans-http3 sections 4.1, 4.2 and 4.3).

use bytes::{Buf, Bytes};
use quinn::VarInt;

use quic_websocket_protocol::frame::FrameError;

/// Session id on streams and datagrams: the id of the CONNECT stream, which is always the first of the connection.
const SESSION: u64 = 0;
/// Stream type with which a client's bidirectional stream of a session begins (WT_STREAM).
const BIDIRECTIONAL: u64 = 0x41;
/// Header of a unidirectional stream of a session: the type 0x54, as two bytes, and the session id.
const UNIDIRECTIONAL: &[u8] = &[0x40, 0x54, 0x00];

/// First session code among the HTTP/3 error codes (WT_APPLICATION_ERROR, section 4.3).
const FIRST_CODE: u64 = 0x52e4_a40f_a8db;
/// After every this many codes, HTTP/3 reserves one that is to be ignored (RFC 9114 section 8.1).
const CODES_BETWEEN_GREASE: u64 = 0x1e;
/// Longest QUIC integer (RFC 9000 section 16), in bytes.
const LONGEST_INTEGER: usize = 8;

/// The layer between a lane and QUIC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layer {
    /// None: the lane is a plain QUIC stream.
    Native,
    /// A WebTransport session.
    WebTransport,
}

impl Layer {
    /// Maps a closing code to the code on streams and connections.
    pub fn code(self, code: u16) -> VarInt {
        match self {
            Self::Native => code.into(),
            // The result is far below the maximum for any code.
            Self::WebTransport => {
                let code = u64::from(code);
                VarInt::from_u64(FIRST_CODE + code + code / CODES_BETWEEN_GREASE).unwrap_or(VarInt::MAX)
            }
        }
    }

    /// Bytes before the first frame of a lane that the server opens.
    pub fn lane_header(self) -> &'static [u8] {
        match self {
            Self::Native => &[],
            Self::WebTransport => UNIDIRECTIONAL,
        }
    }

    /// Header expected before the first frame of a lane that the client opens.
    pub(crate) fn preamble(self) -> Option<Preamble> {
        (self == Self::WebTransport).then(Preamble::default)
    }
}

/// Received part of the header before a lane's first frame: two QUIC integers (RFC 9000 section 16), possibly split
/// across chunks.
#[derive(Debug, Default)]
pub(crate) struct Preamble {
    bytes: [u8; 2 * LONGEST_INTEGER],
    len: usize,
}

impl Preamble {
    pub(crate) fn has_begun(&self) -> bool {
        self.len > 0
    }

    /// Consumes the header's bytes from the front of a received chunk. True once the header is complete.
    ///
    /// # Errors
    /// [`FrameError::Foreign`] if the stream is not a lane of the session.
    pub(crate) fn take_off(&mut self, chunk: &mut Bytes) -> Result<bool, FrameError> {
        while chunk.has_remaining() {
            // Two integers are complete before the array is full.
            let Some(next) = self.bytes.get_mut(self.len) else { return Err(FrameError::Foreign) };
            *next = chunk.get_u8();
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

/// Consumes a QUIC integer (RFC 9000 section 16) from the front. `None` if it is incomplete.
fn integer(bytes: &mut &[u8]) -> Option<u64> {
    let first = *bytes.first()?;
    let (whole, rest) = bytes.split_at_checked(1 << (first >> 6))?;
    *bytes = rest;
    Some(whole[1..].iter().fold(u64::from(first & 0x3f), |value, &byte| value << 8 | u64::from(byte)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds a preamble in chunks of one byte; returns how many bytes it consumed.
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
    fn a_lane_may_encode_its_session_in_integers_of_any_length() {
        let long = [0xc0, 0, 0, 0, 0, 0, 0, 0x41, 0xc0, 0, 0, 0, 0, 0, 0, 0, b'x'];
        for bytes in [&[0x40, 0x41, 0x00, b'x', b'y'][..], &[0x80, 0, 0, 0x41, 0x40, 0x00, b'x'], &long] {
            let until = bytes.iter().position(|&byte| byte == b'x').expect("the marker");
            assert_eq!(taken(bytes), Ok(Some(until)));
            let mut chunk = Bytes::copy_from_slice(bytes);
            assert_eq!(Preamble::default().take_off(&mut chunk), Ok(true));
            assert_eq!(chunk, bytes[until..], "the rest belongs to the lane");
            assert_eq!(taken(&bytes[..until - 1]), Ok(None));
        }
    }

    #[test]
    fn a_stream_of_another_type_or_session_is_not_a_lane() {
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
