//! Messages of a load: their form, and how they are found again in the received bytes, to be compared byte by byte.
//!
//! A payload is printable ASCII, so the same bytes are valid inside JSON, as an attachment and bare: `E` or `B`, sender
//! (4 hexadecimal digits), phase (4), number (12), then filler up to the size.

use super::{Driver, bare, nats};

pub(super) const STAMP: usize = 9 + NUMBER;
/// Digits of a message's number.
pub(super) const NUMBER: usize = 12;
/// The smallest payload that can be distinguished from all others.
pub(crate) const MIN_SIZE: usize = STAMP;
const FILLER: &[u8] = b"the quick brown fox jumps over the lazy dog ";
const CONTENT: &[u8] = b"\"content\":\"";
const ECHO: &[u8] = b"Echo: ";
const FROM: &[u8] = b"\"from\":\"";
const REQUEST: &[u8] = b"\"request\":\"";
/// Length of a client id, which is a UUID.
pub(super) const CLIENT_ID: usize = 36;
/// Bytes of a `direct` that contain its `from`.
const HEAD: usize = 96;

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Mode {
    /// Each message is returned to its sender.
    Echo,
    /// Each message goes to all clients.
    Broadcast,
    /// Each message is published to a topic, and goes to its subscribers.
    Topic,
    /// Requests and replies: each message goes to one other client, which sends it back.
    Direct,
    /// The same with requests that the server keeps account of: it brings the reply to the one that asked.
    Request,
    /// No messages: connections are opened and closed.
    Connect,
}

impl Mode {
    /// Whether each message is a request that one other client answers.
    pub(crate) const fn is_asked(self) -> bool {
        matches!(self, Self::Direct | Self::Request)
    }
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
    pub(super) fn write(self, payload: &mut [u8]) {
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

pub(super) fn write_hex(digits: &mut [u8], mut value: u64) {
    for digit in digits.iter_mut().rev() {
        *digit = b"0123456789abcdef"[usize::from(value.to_le_bytes()[0] & 0xF)];
        value >>= 4;
    }
}

pub(super) fn write_decimal(digits: &mut [u8], mut value: usize) {
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
            Mode::Echo | Mode::Direct | Mode::Request | Mode::Connect => b'E',
        }
    }

    pub(super) fn payload(self) -> Vec<u8> {
        let mut payload = vec![self.mark()];
        payload.extend(FILLER.iter().cycle().take(self.size.max(MIN_SIZE) - 1));
        payload
    }

    /// The payload within a received body, or `None` if this is another message. `hint` remembers the position of the
    /// last one, which rarely changes from message to message.
    pub(super) fn find<'a>(self, body: &'a [u8], hint: &mut usize) -> Option<&'a [u8]> {
        match (self.driver, body.first()?) {
            // Behind the addresses of both ends.
            (Driver::Bare, _) if self.mode.is_asked() => body.get(1 + 2 * bare::ADDRESS..),
            (Driver::Bare | Driver::Wss, _) => Some(body),
            (Driver::Nats, _) => nats::payload(body),
            (Driver::Qws | Driver::QwsWss, 0x01) => {
                let json = usize::try_from(u32::from_be_bytes(*body.get(1..)?.first_chunk()?)).ok()?;
                body.get(5 + json..)
            }
            (Driver::Qws | Driver::QwsWss, _) => {
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

    /// The address to which a request has to be answered.
    pub(super) fn return_address(self, body: &[u8]) -> Option<&[u8]> {
        match self.driver {
            Driver::Nats => return nats::reply_subject(body),
            Driver::Bare => return body.get(1 + bare::ADDRESS..1 + 2 * bare::ADDRESS),
            Driver::Qws | Driver::QwsWss | Driver::Wss => {}
        }
        let head = &body[..body.len().min(HEAD)];
        if self.mode == Mode::Request {
            let id = head.windows(REQUEST.len()).position(|window| window == REQUEST)? + REQUEST.len();
            let length = head[id..].iter().position(|&byte| byte == b'"')?;
            return head.get(id..id + length);
        }
        let from = head.windows(FROM.len()).position(|window| window == FROM)? + FROM.len();
        body.get(from..from + CLIENT_ID)
    }
}
