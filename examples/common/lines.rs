//! Reads a pipe line by line; an invalid line is reported, and reading goes on with the next one.

use std::io::{self, BufRead, Read};

use thiserror::Error;

/// Maximum length of a line, in bytes: more than any server accepts.
const MAX_LINE_BYTES: u64 = 64 << 20;

/// Why a line cannot be sent.
#[derive(Debug, Error)]
pub(crate) enum BadLine {
    #[error("it is not UTF-8")]
    NotUtf8,
    #[error("it is longer than {} MiB", MAX_LINE_BYTES >> 20)]
    TooLong,
}

/// Reads the next line, without its line ending; `None` at the end of the input.
pub(crate) fn next_line(input: &mut impl BufRead) -> io::Result<Option<Result<String, BadLine>>> {
    let mut line = Vec::new();
    if input.by_ref().take(MAX_LINE_BYTES).read_until(b'\n', &mut line)? == 0 {
        return Ok(None);
    }
    if line.last() != Some(&b'\n') && line.len() as u64 == MAX_LINE_BYTES {
        input.skip_until(b'\n')?;
        return Ok(Some(Err(BadLine::TooLong)));
    }
    while line.last().is_some_and(|byte| matches!(byte, b'\n' | b'\r')) {
        line.pop();
    }
    Ok(Some(String::from_utf8(line).map_err(|_| BadLine::NotUtf8)))
}
