//! Bodies to bytes and back, for both framings: a `u32` length on QUIC streams, RFC 6455 over TLS.
//!
//! Written by hand and without a copy per message: a cheap WebSocket client leaves more of the machine to its server,
//! and both framings share one read loop.

use std::ops::Range;

use anyhow::{Result, bail, ensure};

const MAX_BODY: usize = 16 << 20;
const INITIAL_BUFFER: usize = 16 << 10;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    Length,
    WebSocket,
}

/// Position of a frame in the bytes received so far.
struct FrameSpan {
    body: Range<usize>,
    /// False for frames that are not messages: WebSocket's control frames.
    is_message: bool,
}

impl Framing {
    /// Appends one frame as a client sends it. The WebSocket mask is zero, so that the body stays readable.
    pub(super) fn encode(self, body: &[u8], is_text: bool, out: &mut Vec<u8>) {
        match self {
            Self::Length => out.extend_from_slice(&u32::try_from(body.len()).unwrap_or(u32::MAX).to_be_bytes()),
            Self::WebSocket => {
                const MASKED: u8 = 0x80;
                out.push(if is_text { 0x81 } else { 0x82 });
                match (u8::try_from(body.len()), u16::try_from(body.len())) {
                    (Ok(short @ 0..=125), _) => out.push(MASKED | short),
                    (_, Ok(medium)) => {
                        out.push(MASKED | 126);
                        out.extend_from_slice(&medium.to_be_bytes());
                    }
                    _ => {
                        out.push(MASKED | 127);
                        out.extend_from_slice(&u64::try_from(body.len()).unwrap_or(u64::MAX).to_be_bytes());
                    }
                }
                out.extend_from_slice(&[0; 4]);
            }
        }
        out.extend_from_slice(body);
    }

    fn decode(self, bytes: &[u8]) -> Result<Option<FrameSpan>> {
        let (head, length, is_message) = match self {
            Self::Length => {
                let Some(length) = bytes.first_chunk() else { return Ok(None) };
                (4, u64::from(u32::from_be_bytes(*length)), true)
            }
            Self::WebSocket => {
                let Some(&[first, second]) = bytes.first_chunk() else { return Ok(None) };
                ensure!(first & 0xF0 == 0x80 && second & 0x80 == 0, "a WebSocket frame that is fragmented or masked");
                ensure!(first != 0x88, "the server closed the WebSocket");
                let is_message = first < 0x88;
                match second {
                    126 => {
                        let Some(length) = bytes[2..].first_chunk() else { return Ok(None) };
                        (4, u64::from(u16::from_be_bytes(*length)), is_message)
                    }
                    127 => {
                        let Some(length) = bytes[2..].first_chunk() else { return Ok(None) };
                        (10, u64::from_be_bytes(*length), is_message)
                    }
                    short => (2, u64::from(short), is_message),
                }
            }
        };
        let length = usize::try_from(length)?;
        if length > MAX_BODY {
            bail!("the server announced a frame of {length} bytes");
        }
        Ok((bytes.len() >= head + length).then(|| FrameSpan { body: head..head + length, is_message }))
    }
}

/// Bytes that a connection has received and not yet processed.
pub(super) struct Inbox {
    framing: Framing,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

impl Inbox {
    pub(super) fn new(framing: Framing) -> Self {
        Self { framing, buffer: vec![0; INITIAL_BUFFER], start: 0, end: 0 }
    }

    /// Space for the next bytes; never empty.
    pub(super) fn spare(&mut self) -> &mut [u8] {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        } else if self.buffer.len() - self.end < self.buffer.len() / 4 {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        // A buffer that fills up is too small for the frame or for the rate.
        if self.buffer.len() - self.end < self.buffer.len() / 4 {
            self.buffer.resize(self.buffer.len() * 2, 0);
        }
        &mut self.buffer[self.end..]
    }

    /// Reports that this many bytes were written to [`Self::spare`].
    pub(super) fn filled(&mut self, count: usize) {
        self.end += count;
        if self.end == self.buffer.len() && self.buffer.len() < 256 << 10 {
            self.buffer.resize(self.buffer.len() * 2, 0);
        }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    pub(super) fn skip(&mut self, count: usize) {
        self.start += count;
    }

    /// The next whole message, if it has arrived.
    pub(super) fn next(&mut self) -> Result<Option<&[u8]>> {
        loop {
            let Some(found) = self.framing.decode(self.bytes())? else { return Ok(None) };
            let base = self.start;
            self.start += found.body.end;
            if found.is_message {
                return Ok(Some(&self.buffer[base + found.body.start..base + found.body.end]));
            }
        }
    }
}
