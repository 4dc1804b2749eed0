//! NATS, as its clients speak it: lines of text, each message with its length before it.
//!
//! Subjects: `all` for broadcasts, `load.N` for topics, `direct.N` for requests to client N, and `_INBOX.N.NUMBER` for
//! the reply to each of its own, as NATS's own clients name them.

use anyhow::{Context as _, Result, ensure};

use super::frame::{FrameSpan, Part};
use super::message::NUMBER;

/// First line of a client, with the options of NATS's own clients.
pub(super) const CONNECT: &[u8] =
    b"CONNECT {\"verbose\":false,\"pedantic\":false,\"tls_required\":true,\"lang\":\"rust\",\
    \"version\":\"1.0.0\",\"name\":\"benchmark\",\"protocol\":1,\"echo\":true,\"headers\":true,\
    \"no_responders\":true}\r\nPING\r\n";
pub(super) const PUBLISH: &str = "PUB ";
pub(super) const PONG: &[u8] = b"PONG";
pub(super) const LINE_END: &[u8] = b"\r\n";
/// Subject of broadcasts.
pub(super) const EVERYONE: &str = "all";
/// Digits of a client's address, which is its number.
pub(super) const ADDRESS: usize = 5;

const MESSAGE: &[u8] = b"MSG ";
const MAX_LINE: usize = 64 << 10;

pub(super) fn address(client: usize) -> String {
    format!("{client:0ADDRESS$}")
}

/// Subject of the requests to a client.
pub(super) fn direct(address: &str) -> String {
    format!("direct.{address}")
}

/// Prefix of the reply subjects of a client.
pub(super) fn inbox(address: &str) -> String {
    format!("_INBOX.{address}.")
}

/// A reply subject, whose number is still zero.
pub(super) fn reply_to(address: &str) -> String {
    format!("{}{:0NUMBER$}", inbox(address), 0)
}

pub(super) fn publish(subject: &str, reply: Option<&str>, payload: &[u8]) -> Vec<u8> {
    let reply = reply.map(|reply| format!("{reply} ")).unwrap_or_default();
    let line = format!("{PUBLISH}{subject} {reply}{}\r\n", payload.len());
    [line.as_bytes(), payload, LINE_END].concat()
}

/// Subscribes to subjects. The answer is a `PONG` once all of them are known.
pub(super) fn subscribe(subjects: impl Iterator<Item = String>) -> Vec<u8> {
    let mut lines: String =
        subjects.enumerate().map(|(number, subject)| format!("SUB {subject} {}\r\n", number + 1)).collect();
    lines.push_str("PING\r\n");
    lines.into_bytes()
}

/// The next message with its line before it, or any other line.
pub(super) fn decode(bytes: &[u8]) -> Result<Option<FrameSpan>> {
    let Some(line) = bytes.windows(LINE_END.len()).position(|window| window == LINE_END) else {
        ensure!(bytes.len() < MAX_LINE, "a line of the server is too long");
        return Ok(None);
    };
    let mut body = line;
    if bytes.starts_with(MESSAGE) {
        body += LINE_END.len() + length(&bytes[..line]).context("a MSG of the server without a length")?;
    }
    let end = body + LINE_END.len();
    Ok((bytes.len() >= end).then_some(FrameSpan { body: 0..body, end, part: Part::Whole }))
}

fn length(line: &[u8]) -> Option<usize> {
    str::from_utf8(line.rsplit(|byte| *byte == b' ').next()?).ok()?.parse().ok()
}

/// The payload of a `MSG`.
pub(super) fn payload(body: &[u8]) -> Option<&[u8]> {
    let line = line(body)?;
    body.get(line.len() + LINE_END.len()..)
}

/// Where the reply to a request is expected.
pub(super) fn reply_subject(body: &[u8]) -> Option<&[u8]> {
    let mut words = line(body)?.split(|byte| *byte == b' ').skip(3);
    let (subject, _length) = (words.next()?, words.next()?);
    Some(subject)
}

fn line(body: &[u8]) -> Option<&[u8]> {
    if !body.starts_with(MESSAGE) {
        return None;
    }
    let end = body.windows(LINE_END.len()).position(|window| window == LINE_END)?;
    Some(&body[..end])
}
