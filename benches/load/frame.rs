//! Bodies to bytes and back, for each framing: a `u32` length on QUIC streams, RFC 6455 or NATS over TLS.
//!
//! Written by hand and without a copy per message: a cheap client leaves more of the machine to its server, and all
//! framings share one read loop.

use std::ops::Range;

use anyhow::{Result, bail, ensure};

use super::{Driver, nats, redis};

const MAX_BODY: usize = 16 << 20;
const INITIAL_BUFFER: usize = 16 << 10;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    Length,
    WebSocket,
    /// Bodies are whole lines, with their payloads.
    Nats,
    /// Likewise.
    Redis,
}

impl From<Driver> for Framing {
    fn from(driver: Driver) -> Self {
        match driver {
            Driver::Qws | Driver::Bare => Self::Length,
            Driver::QwsWss | Driver::Wss => Self::WebSocket,
            Driver::Nats => Self::Nats,
        }
    }
}

/// Position of a frame in the bytes received so far.
pub(super) struct FrameSpan {
    pub(super) body: Range<usize>,
    pub(super) end: usize,
    pub(super) part: Part,
}

/// Part of a message that a frame contains.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    Whole,
    /// A fragment with others after it.
    Fragment,
    LastFragment,
    /// None: one of WebSocket's control frames.
    Control,
}

impl Framing {
    /// Appends one frame as a client sends it. The WebSocket mask is zero, so that the body stays readable.
    pub(super) fn encode(self, body: &[u8], is_text: bool, out: &mut Vec<u8>) {
        match self {
            Self::Nats | Self::Redis => {}
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
        let (head, length, part) = match self {
            Self::Nats => return nats::decode(bytes),
            Self::Redis => return redis::decode(bytes),
            Self::Length => {
                let Some(length) = bytes.first_chunk() else { return Ok(None) };
                (4, u64::from(u32::from_be_bytes(*length)), Part::Whole)
            }
            Self::WebSocket => {
                let Some(&[first, second]) = bytes.first_chunk() else { return Ok(None) };
                ensure!(first & 0x70 == 0 && second & 0x80 == 0, "a WebSocket frame with an extension, or masked");
                ensure!(first & 0x0F != 0x08, "the server closed the WebSocket");
                let part = match (first & 0x80 != 0, first & 0x0F) {
                    (_, 0x08..) => Part::Control,
                    (true, 0) => Part::LastFragment,
                    (true, _) => Part::Whole,
                    (false, _) => Part::Fragment,
                };
                match second {
                    126 => {
                        let Some(length) = bytes[2..].first_chunk() else { return Ok(None) };
                        (4, u64::from(u16::from_be_bytes(*length)), part)
                    }
                    127 => {
                        let Some(length) = bytes[2..].first_chunk() else { return Ok(None) };
                        (10, u64::from_be_bytes(*length), part)
                    }
                    short => (2, u64::from(short), part),
                }
            }
        };
        let length = usize::try_from(length)?;
        if length > MAX_BODY {
            bail!("the server announced a frame of {length} bytes");
        }
        let end = head + length;
        Ok((bytes.len() >= end).then_some(FrameSpan { body: head..end, end, part }))
    }
}

/// Bytes that a connection has received and not yet processed.
pub(super) struct Inbox {
    framing: Framing,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    /// Fragments of a message, and whether it is complete.
    fragments: Vec<u8>,
    is_assembled: bool,
}

impl Inbox {
    pub(super) fn new(framing: Framing) -> Self {
        let buffer = vec![0; INITIAL_BUFFER];
        Self { framing, buffer, start: 0, end: 0, fragments: Vec::new(), is_assembled: false }
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
            let body = self.start + found.body.start..self.start + found.body.end;
            self.start += found.end;
            match found.part {
                Part::Control => {}
                Part::Whole => return Ok(Some(&self.buffer[body])),
                Part::Fragment | Part::LastFragment => {
                    if std::mem::take(&mut self.is_assembled) {
                        self.fragments.clear();
                    }
                    ensure!(self.fragments.len() + body.len() <= MAX_BODY, "the server sends a message without an end");
                    self.fragments.extend_from_slice(&self.buffer[body]);
                    if found.part == Part::LastFragment {
                        self.is_assembled = true;
                        return Ok(Some(&self.fragments));
                    }
                }
            }
        }
    }
}
