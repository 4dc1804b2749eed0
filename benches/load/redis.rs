//! Redis, as its clients speak it (RESP): lines, and strings with their length before them.

use anyhow::{Result, ensure};

use super::frame::{FrameSpan, Part};
use super::nats::LINE_END;

const MAX_LINE: usize = 64 << 10;

/// The command that adds a field with this content to a stream, with an id that Redis chooses.
pub(super) fn add(stream: &str, content: &[u8]) -> Vec<u8> {
    let head =
        format!("*5\r\n$4\r\nXADD\r\n${}\r\n{stream}\r\n$1\r\n*\r\n$1\r\nc\r\n${}\r\n", stream.len(), content.len());
    [head.as_bytes(), content, LINE_END].concat()
}

/// The next reply: a line, or a string with its line before it.
pub(super) fn decode(bytes: &[u8]) -> Result<Option<FrameSpan>> {
    let Some(line) = bytes.windows(LINE_END.len()).position(|window| window == LINE_END) else {
        ensure!(bytes.len() < MAX_LINE, "a line of the server is too long");
        return Ok(None);
    };
    let mut body = line;
    if let Some(length) = bytes.strip_prefix(b"$") {
        body += LINE_END.len() + str::from_utf8(&length[..line - 1])?.parse::<usize>()?;
    }
    let end = body + LINE_END.len();
    Ok((bytes.len() >= end).then_some(FrameSpan { body: 0..body, end, part: Part::Whole }))
}
