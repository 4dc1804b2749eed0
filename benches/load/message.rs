//! Messages of a load: written once as a template and stamped with a number for each send, found again in the received
//! bytes, and compared byte by byte.
//!
//! A payload is printable ASCII, so the same bytes are valid inside JSON, as an attachment and bare: `E` or `B`, sender
//! (4 hexadecimal digits), phase (4), number (12), then filler up to the size.

use super::frame::Framing;
use super::{Driver, topics};

pub(super) const STAMP: usize = 9 + NUMBER;
/// Digits of a message's number.
const NUMBER: usize = 12;
/// The smallest payload that can be distinguished from all others.
pub(crate) const MIN_SIZE: usize = STAMP;
const FILLER: &[u8] = b"the quick brown fox jumps over the lazy dog ";
const CONTENT: &[u8] = b"\"content\":\"";
const ECHO: &[u8] = b"Echo: ";
const ID: &str = "\"id\":\"";

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Mode {
    /// Each message is returned to its sender.
    Echo,
    /// Each message goes to all clients.
    Broadcast,
    /// Each message is published to a topic, and goes to its subscribers.
    Topic,
    /// No messages: connections are opened and closed.
    Connect,
}

/// How a payload is transported in this project's protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Encoding {
    /// As the `content` of a JSON message.
    Text,
    /// As an attachment behind the JSON.
    Binary,
}

/// Form of the messages of a load.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) driver: Driver,
    pub(crate) mode: Mode,
    pub(crate) encoding: Encoding,
    /// Bytes of payload.
    pub(crate) size: usize,
}

/// Sender of a payload, its phase, and its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    pub(super) sender: u16,
    pub(super) phase: u16,
    pub(super) number: u64,
}

impl Stamp {
    fn write(self, payload: &mut [u8]) {
        write_hex(&mut payload[1..5], self.sender.into());
        write_hex(&mut payload[5..9], self.phase.into());
        write_hex(&mut payload[9..STAMP], self.number);
    }

    pub(super) fn read(payload: &[u8]) -> Option<Self> {
        Some(Self {
            sender: u16::try_from(read_hex(payload.get(1..5)?)?).ok()?,
            phase: u16::try_from(read_hex(&payload[5..9])?).ok()?,
            number: read_hex(payload.get(9..STAMP)?)?,
        })
    }
}

fn write_hex(digits: &mut [u8], mut value: u64) {
    for digit in digits.iter_mut().rev() {
        *digit = b"0123456789abcdef"[usize::from(value.to_le_bytes()[0] & 0xF)];
        value >>= 4;
    }
}

fn write_decimal(digits: &mut [u8], mut value: usize) {
    for digit in digits.iter_mut().rev() {
        *digit = b"0123456789"[value % 10];
        value /= 10;
    }
}

/// Number of the message that a `published` replies to.
pub(super) fn published(re: &str) -> Option<u64> {
    read_hex(re.as_bytes())
}

fn read_hex(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0, |value, &digit| {
        let nibble = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(value << 4 | u64::from(nibble))
    })
}

impl Shape {
    /// First byte of every payload, by which the baselines route it.
    const fn mark(self) -> u8 {
        match self.mode {
            Mode::Broadcast | Mode::Topic => b'B',
            Mode::Echo | Mode::Connect => b'E',
        }
    }

    pub(super) fn payload(self) -> Vec<u8> {
        let mut payload = vec![self.mark()];
        payload.extend(FILLER.iter().cycle().take(self.size.max(MIN_SIZE) - 1));
        payload
    }

    fn body(self, payload: &[u8]) -> Vec<u8> {
        let kind = match (self.mode, self.encoding) {
            (Mode::Broadcast, _) => r#""broadcast""#.to_owned(),
            // The id requests a `published`; id and topic are overwritten for each message.
            (Mode::Topic, _) => format!(r#""publish",{ID}{:0NUMBER$}","topic":"{}""#, 0, topics::name(0)),
            (_, Encoding::Text) => r#""text""#.to_owned(),
            (_, Encoding::Binary) => r#""binary""#.to_owned(),
        };
        match (self.driver, self.encoding) {
            (Driver::Bare | Driver::Wss, _) => payload.to_vec(),
            (Driver::Qws, Encoding::Text) => {
                let head = format!("{{\"type\":{kind},\"content\":\"");
                [head.as_bytes(), payload, b"\"}"].concat()
            }
            (Driver::Qws, Encoding::Binary) => {
                let json = format!("{{\"type\":{kind}}}");
                let length = u32::try_from(json.len()).unwrap_or(u32::MAX).to_be_bytes();
                [&[0x01], length.as_slice(), json.as_bytes(), payload].concat()
            }
        }
    }

    /// The payload within a received body, or `None` if this is another message. `hint` remembers the position of the
    /// last one, which rarely changes from message to message.
    pub(super) fn find<'a>(self, body: &'a [u8], hint: &mut usize) -> Option<&'a [u8]> {
        match (self.driver, body.first()?) {
            (Driver::Bare | Driver::Wss, _) => Some(body),
            (Driver::Qws, 0x01) => {
                let json = usize::try_from(u32::from_be_bytes(*body.get(1..)?.first_chunk()?)).ok()?;
                body.get(5 + json..)
            }
            (Driver::Qws, _) => {
                let is_here = |start: &usize| body.get(start - CONTENT.len()..*start) == Some(CONTENT);
                let start = Some(*hint)
                    .filter(|hint| *hint >= CONTENT.len() && is_here(hint))
                    .or_else(|| (CONTENT.len()..body.len()).find(is_here))?;
                *hint = start;
                let content = &body[start..];
                let content = if self.mode == Mode::Echo { content.strip_prefix(ECHO)? } else { content };
                let payload = content.get(..self.size)?;
                (content.get(self.size) == Some(&b'"')).then_some(payload)
            }
        }
    }
}

/// One sender's frame, complete except for the number.
#[derive(Debug)]
pub(super) struct Template {
    frame: Vec<u8>,
    /// Offset of the payload.
    payload: usize,
    /// Offsets of the id and of the topic's number in a publish.
    id: Option<usize>,
    topic: Option<usize>,
    stamp: Stamp,
}

impl Template {
    pub(super) fn new(shape: Shape, sender: u16, phase: u16) -> Self {
        let payload = shape.payload();
        let body = shape.body(&payload);
        let mut frame = Vec::new();
        let framing = if shape.driver == Driver::Wss { Framing::WebSocket } else { Framing::Length };
        framing.encode(&body, shape.encoding == Encoding::Text, &mut frame);
        let tail = if shape.driver == Driver::Qws && shape.encoding == Encoding::Text { b"\"}".len() } else { 0 };
        let start = frame.len() - tail - payload.len();
        let is_publish = shape.driver == Driver::Qws && shape.mode == Mode::Topic;
        let behind = |text: &str| {
            let found = frame[..start].windows(text.len()).position(|window| window == text.as_bytes());
            found.map(|place| place + text.len()).filter(|_| is_publish)
        };
        let (id, topic) = (behind(ID), behind(topics::PREFIX));
        Self { payload: start, id, topic, frame, stamp: Stamp { sender, phase, number: 0 } }
    }

    pub(super) fn append(&mut self, number: u64, topic: usize, out: &mut Vec<u8>) {
        Stamp { number, ..self.stamp }.write(&mut self.frame[self.payload..]);
        if let (Some(id), Some(place)) = (self.id, self.topic) {
            write_hex(&mut self.frame[id..id + NUMBER], number);
            write_decimal(&mut self.frame[place..place + topics::DIGITS], topic);
        }
        out.extend_from_slice(&self.frame);
    }
}
