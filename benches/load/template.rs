//! Frames of a load: written once, and stamped with a number for each send.

use super::frame::Framing;
use super::message::{CLIENT_ID, Encoding, Mode, NUMBER, Shape, Stamp, write_decimal, write_hex};
use super::{Driver, bare, nats, topics};

const ID: &str = "\"id\":\"";
const TO: &str = "\"to\":\"";
const REQUEST: &str = "\"request\":\"";

/// Addresses of the two ends of a request: client ids, or parts of NATS subjects. Other modes need none.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Ends<'a> {
    pub(super) from: &'a str,
    pub(super) to: &'a str,
}

/// One sender's frame, complete except for the number.
#[derive(Debug)]
pub(super) struct Template {
    frame: Vec<u8>,
    /// Offset of the payload.
    payload: usize,
    /// Offsets of the message's number outside the payload, and of the topic's number, if there are any.
    id: Option<usize>,
    topic: Option<usize>,
    stamp: Stamp,
}

impl Template {
    pub(super) fn new(shape: Shape, sender: u16, phase: u16, ends: Ends<'_>) -> Self {
        let payload = shape.payload();
        let (frame, start) = framed(shape, &body(shape, &payload, ends), payload.len());
        let head = &frame[..start];
        let (id, topic) = match (shape.driver, shape.mode) {
            (Driver::Qws | Driver::QwsWss, Mode::Topic) => (behind(head, ID), behind(head, topics::PREFIX)),
            (Driver::Nats, Mode::Topic) => (None, behind(head, topics::PREFIX)),
            (Driver::Qws | Driver::QwsWss, Mode::Request) => (behind(head, ID), None),
            (Driver::Nats, Mode::Direct | Mode::Request) => (behind(head, &nats::inbox(ends.from)), None),
            _ => (None, None),
        };
        Self { payload: start, id, topic, frame, stamp: Stamp { sender, phase, number: 0 } }
    }

    pub(super) fn append(&mut self, number: u64, topic: usize, out: &mut Vec<u8>) {
        Stamp { number, ..self.stamp }.write(&mut self.frame[self.payload..]);
        if let Some(id) = self.id {
            write_hex(&mut self.frame[id..id + NUMBER], number);
        }
        if let Some(place) = self.topic {
            write_decimal(&mut self.frame[place..place + topics::DIGITS], topic);
        }
        out.extend_from_slice(&self.frame);
    }
}

/// The frame of an answer to a request, complete except for the address and the payload.
#[derive(Debug)]
pub(super) struct Answer {
    shape: Shape,
    frame: Vec<u8>,
    payload: usize,
    /// Offset and length of the address.
    to: (usize, usize),
}

impl Answer {
    pub(super) fn new(shape: Shape) -> Self {
        let mut answer = Self { shape, frame: Vec::new(), payload: 0, to: (0, 0) };
        answer.prepare(&"0".repeat(if shape.driver == Driver::Nats { nats::ADDRESS } else { CLIENT_ID }));
        answer
    }

    /// Makes the frame for addresses of this length.
    fn prepare(&mut self, to: &str) {
        let (shape, payload) = (self.shape, self.shape.payload());
        let (body, address, mark) = match shape.driver {
            Driver::Nats => {
                let to = nats::reply_to(&"0".repeat(nats::ADDRESS));
                (nats::publish(&to, None, &payload), to.len(), nats::PUBLISH)
            }
            Driver::Bare => (bare::relay(to, &"0".repeat(bare::ADDRESS), &payload), to.len(), "R"),
            _ if shape.mode == Mode::Request => {
                (ours(shape, &format!("\"reply\",{REQUEST}{to}\""), &payload), to.len(), REQUEST)
            }
            _ => (body(shape, &payload, Ends { from: "", to }), to.len(), TO),
        };
        let (frame, start) = framed(shape, &body, payload.len());
        let to = behind(&frame[..start], mark).unwrap_or_default();
        (self.payload, self.to, self.frame) = (start, (to, address), frame);
    }

    /// Appends the answer; returns false if the request has another form than those of the load.
    pub(super) fn append(&mut self, to: &[u8], from: &str, payload: &[u8], out: &mut Vec<u8>) -> bool {
        // The numbers of requests grow.
        if to.len() != self.to.1 {
            let Ok(to) = str::from_utf8(to) else { return false };
            self.prepare(to);
        }
        let (start, length) = self.to;
        let space = self.frame.get_mut(self.payload..self.payload + payload.len());
        let (Some(space), true) = (space, to.len() == length) else { return false };
        space.copy_from_slice(payload);
        self.frame[start..start + length].copy_from_slice(to);
        if self.shape.driver == Driver::Bare {
            self.frame[start + length..][..from.len()].copy_from_slice(from.as_bytes());
        }
        out.extend_from_slice(&self.frame);
        true
    }
}

/// The body with its frame, and the offset of the payload in it.
fn framed(shape: Shape, body: &[u8], payload: usize) -> (Vec<u8>, usize) {
    let mut frame = Vec::new();
    Framing::from(shape.driver).encode(body, shape.encoding == Encoding::Text, &mut frame);
    let tail = match (shape.driver, shape.encoding) {
        (Driver::Qws | Driver::QwsWss, Encoding::Text) => b"\"}".len(),
        (Driver::Nats, _) => nats::LINE_END.len(),
        _ => 0,
    };
    let start = frame.len() - tail - payload;
    (frame, start)
}

fn body(shape: Shape, payload: &[u8], ends: Ends<'_>) -> Vec<u8> {
    match shape.driver {
        Driver::Bare if shape.mode.is_asked() => bare::relay(ends.to, ends.from, payload),
        Driver::Bare | Driver::Wss => payload.to_vec(),
        Driver::Nats => {
            // Topic and number are overwritten for each message.
            let (subject, reply) = match shape.mode {
                Mode::Direct | Mode::Request => (nats::direct(ends.to), Some(nats::reply_to(ends.from))),
                Mode::Topic => (topics::name(0), None),
                Mode::Broadcast | Mode::Echo | Mode::Connect => (nats::EVERYONE.to_owned(), None),
            };
            nats::publish(&subject, reply.as_deref(), payload)
        }
        Driver::Qws | Driver::QwsWss => {
            let kind = match (shape.mode, shape.encoding) {
                (Mode::Broadcast, _) => r#""broadcast""#.to_owned(),
                // The id requests a `published`; id and topic are overwritten for each message.
                (Mode::Topic, _) => format!(r#""publish",{ID}{:0NUMBER$}","topic":"{}""#, 0, topics::name(0)),
                // Without an id there is no `ok`: the answer shows that the request arrived.
                (Mode::Direct, _) => format!(r#""direct",{TO}{}""#, ends.to),
                (Mode::Request, _) => format!(r#""request",{ID}{:0NUMBER$}","topic":"{}""#, 0, topics::calls(ends.to)),
                (Mode::Echo | Mode::Connect, Encoding::Text) => r#""text""#.to_owned(),
                (Mode::Echo | Mode::Connect, Encoding::Binary) => r#""binary""#.to_owned(),
            };
            ours(shape, &kind, payload)
        }
    }
}

/// A message of this project's protocol, from its type with the fields behind it.
fn ours(shape: Shape, kind: &str, payload: &[u8]) -> Vec<u8> {
    if shape.encoding == Encoding::Text {
        let head = format!("{{\"type\":{kind},\"content\":\"");
        return [head.as_bytes(), payload, b"\"}"].concat();
    }
    let json = format!("{{\"type\":{kind}}}");
    let length = u32::try_from(json.len()).unwrap_or(u32::MAX).to_be_bytes();
    [&[0x01], length.as_slice(), json.as_bytes(), payload].concat()
}

/// Offset of what follows the first occurrence of a text.
fn behind(head: &[u8], text: &str) -> Option<usize> {
    let found = head.windows(text.len()).position(|window| window == text.as_bytes());
    found.map(|place| place + text.len())
}
