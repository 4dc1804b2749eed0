//! Encodes and decodes bodies (docs/PROTOCOL.md, "Bodies and frames"): the length prefix, the attachment, compression,
//! and every limit on them. Pure: no I/O, no clock, no runtime; it knows nothing of what a body means.
//!
//! A **body** is one message. A **frame** is a body after its length as a big-endian `u32`, as it travels on a stream.

mod compression;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use thiserror::Error;

pub use self::compression::{Compression, CompressionOffer, compress};

/// Length prefix of each body on a stream, in bytes.
pub const PREFIX_BYTES: usize = 4;
/// First byte of a body that carries a binary attachment.
pub const ATTACHMENT: u8 = 0x01;
/// First byte of a body that is compressed with zstd (RFC 8878).
pub const ZSTD: u8 = 0x02;
/// First byte of a body that is compressed with deflate (RFC 1951).
pub const DEFLATE: u8 = 0x03;

/// Unfinished bodies up to this size get their memory at once; larger ones as they arrive.
const RESERVE_BYTES: usize = 4096;

/// An error that makes the stream undecodable, so the connection has to be closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum FrameError {
    /// A frame of length zero.
    #[error("a frame of length 0: a body has at least one byte")]
    Empty,
    /// A frame, or a decompressed body, exceeds the limit.
    #[error("a message above the limit of {max} bytes: send less, or split it")]
    TooBig {
        /// The limit, in bytes.
        max: usize,
    },
    /// A body with a compression that the handshake did not negotiate.
    #[error("a compressed body, but the handshake did not agree on {0}: offer it in `compression`")]
    NotAgreed(&'static str),
    /// A stream of a WebTransport session that is not one of its lanes.
    #[error("a stream that does not belong to the session: open lanes as the session's bidirectional streams")]
    Foreign,
}

/// An invalid body. The frames around it are valid, so the connection continues unless the error is
/// [`Fatal`](Self::Fatal).
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum BodyError {
    /// The connection has to be closed.
    #[error(transparent)]
    Fatal(#[from] FrameError),
    /// The first byte is none of `{`, 0x01, 0x02 and 0x03.
    #[error("first byte 0x{0:02x}: a body starts with '{{', 0x01 (attachment), 0x02 (zstd) or 0x03 (deflate)")]
    FirstByte(u8),
    /// The body is shorter than the JSON length in it.
    #[error("attachment: the JSON length of {json} bytes is beyond the body of {body} bytes")]
    AttachmentLength {
        /// The JSON length that the body claims.
        json: usize,
        /// The bytes that are available for it.
        body: usize,
    },
    /// The body cannot be decompressed, or contains another compressed body.
    #[error("{form}: {reason}")]
    Compressed {
        /// The name of the compression.
        form: &'static str,
        /// What is wrong with the body.
        reason: String,
    },
}

/// One message as bytes: its JSON object and its attachment, if any. Both share the received memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Body {
    /// The JSON object; not yet checked to be UTF-8 or JSON.
    pub json: Bytes,
    /// The raw bytes after the JSON object.
    pub attachment: Option<Bytes>,
}

impl Body {
    /// Splits a received body into JSON and attachment, decompressing at most `max` bytes.
    ///
    /// # Errors
    /// [`BodyError`] corresponds to the rows of the bad-input table of docs/PROTOCOL.md.
    pub fn parse(body: Bytes, compression: Compression, max: usize) -> Result<Self, BodyError> {
        let form = match body.first() {
            Some(&ZSTD) => Compression::Zstd,
            Some(&DEFLATE) => Compression::Deflate,
            _ => return Self::parse_plain(body),
        };
        if form != compression {
            return Err(FrameError::NotAgreed(form.name()).into());
        }
        let inflated = compression::inflate(&body[1..], form, max)?;
        match inflated.first() {
            None => Err(form.broken("nothing inside the compressed body")),
            Some(&(ZSTD | DEFLATE)) => Err(form.broken("a compressed body inside a compressed body")),
            _ => Self::parse_plain(inflated),
        }
    }

    fn parse_plain(mut body: Bytes) -> Result<Self, BodyError> {
        match body.first().copied() {
            None => Err(FrameError::Empty.into()),
            Some(b'{') => Ok(Self { json: body, attachment: None }),
            Some(ATTACHMENT) => {
                body.advance(1);
                let available = body.len();
                let Ok(json_len) = body.try_get_u32() else {
                    return Err(BodyError::AttachmentLength { json: 0, body: available });
                };
                let json_len = json_len as usize;
                if json_len > body.len() {
                    return Err(BodyError::AttachmentLength { json: json_len, body: body.len() });
                }
                let json = body.split_to(json_len);
                Ok(Self { json, attachment: Some(body) })
            }
            Some(other) => Err(BodyError::FirstByte(other)),
        }
    }
}

/// Appends one frame: `json` writes the JSON object, and `attachment` follows it, if any.
///
/// A body of 4 GiB or more cannot be framed; callers limit their messages far below that.
pub fn put_frame(out: &mut BytesMut, attachment: Option<&[u8]>, json: impl FnOnce(&mut BytesMut)) {
    put_head(out, attachment.map(<[u8]>::len), json);
    out.put_slice(attachment.unwrap_or_default());
}

/// Appends a frame up to its attachment, which the caller sends directly after it without copying it.
pub fn put_head(out: &mut BytesMut, attachment_len: Option<usize>, json: impl FnOnce(&mut BytesMut)) {
    let start = out.len();
    out.put_u32(0);
    if attachment_len.is_some() {
        out.put_u8(ATTACHMENT);
        let length_at = out.len();
        out.put_u32(0);
        json(out);
        patch_length(out, length_at, 0);
    } else {
        json(out);
    }
    patch_length(out, start, attachment_len.unwrap_or(0));
}

/// Sets the `u32` at `at` to the number of bytes after it, including `more` that are still to come.
fn patch_length(out: &mut BytesMut, at: usize, more: usize) {
    let length = u32::try_from(out.len() - at - PREFIX_BYTES + more).unwrap_or(u32::MAX);
    out[at..at + PREFIX_BYTES].copy_from_slice(&length.to_be_bytes());
}

/// The frames that are joined in a buffer, each with its prefix.
pub fn split(joined: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = joined;
    std::iter::from_fn(move || {
        let length = u32::from_be_bytes(*rest.first_chunk()?);
        let end = PREFIX_BYTES.saturating_add(usize::try_from(length).unwrap_or(usize::MAX)).min(rest.len());
        let (frame, more) = rest.split_at(end);
        rest = more;
        Some(frame)
    })
}

/// Moves a buffer into an allocation of exactly its length. Stored frames are accounted by their length, so they must
/// not retain spare capacity: a reply stays in QUIC until it is acknowledged, a message in its topic's log.
#[inline]
pub fn exact(buffer: BytesMut) -> Bytes {
    if buffer.len() <= buffer.capacity() / 2 {
        // Shrinking a large allocation in place can leave a whole page to a few bytes.
        return Bytes::copy_from_slice(&buffer);
    }
    Vec::from(buffer).into_boxed_slice().into()
}

/// Size of an allocation of `bytes`, including the allocator's overhead: glibc adds 8 bytes and rounds up to 16.
#[inline]
pub const fn allocated(bytes: usize) -> usize {
    if bytes == 0 { 0 } else { (bytes + 8).next_multiple_of(16) }
}

/// Splits a byte stream into bodies. Holds at most one unfinished body, and only the bytes of it that have arrived.
#[derive(Debug)]
pub struct FrameDecoder {
    max: usize,
    /// Received bytes that are not decoded yet; a body that is contiguous in them is returned without a copy.
    input: Bytes,
    /// Beginning of a body that continues in the next input, with its prefix.
    partial: BytesMut,
}

impl FrameDecoder {
    /// Creates a decoder for bodies of at most `max` bytes.
    pub fn new(max: usize) -> Self {
        Self { max, input: Bytes::new(), partial: BytesMut::new() }
    }

    /// Largest accepted body, in bytes.
    pub fn max(&self) -> usize {
        self.max
    }

    /// Adds received bytes. Call [`next_body`](Self::next_body) until it returns `None` before you add more.
    #[inline]
    pub fn push(&mut self, chunk: Bytes) {
        if self.input.is_empty() {
            self.input = chunk;
        } else {
            self.partial.extend_from_slice(&self.input);
            self.partial.extend_from_slice(&chunk);
            self.input = std::mem::take(&mut self.partial).freeze();
        }
    }

    /// Whether the received bytes end inside a frame: if the stream ends now, a message was cut off.
    #[inline]
    pub fn is_inside_frame(&self) -> bool {
        !self.partial.is_empty() || !self.input.is_empty()
    }

    /// Bytes held of the unfinished body, without its length prefix; exact once [`next_body`](Self::next_body) has
    /// returned `None`.
    #[inline]
    pub fn unfinished_bytes(&self) -> usize {
        self.partial.len().saturating_sub(PREFIX_BYTES)
    }

    /// Returns the next complete body, or `None` until more bytes are pushed.
    ///
    /// # Errors
    /// [`FrameError`] as soon as a length turns out to be zero or above the limit, before the body arrives.
    #[inline]
    pub fn next_body(&mut self) -> Result<Option<Bytes>, FrameError> {
        if self.partial.is_empty() {
            match self.checked_length(&self.input)? {
                Some(length) if self.input.len() - PREFIX_BYTES >= length => {
                    self.input.advance(PREFIX_BYTES);
                    return Ok(Some(self.input.split_to(length)));
                }
                Some(length @ ..=RESERVE_BYTES) => self.partial.reserve(PREFIX_BYTES + length),
                _ => {}
            }
            self.partial.extend_from_slice(&self.input);
            self.input.clear();
            return Ok(None);
        }
        if self.partial.len() < PREFIX_BYTES {
            self.take_until(PREFIX_BYTES);
        }
        let Some(length) = self.checked_length(&self.partial)? else { return Ok(None) };
        self.take_until(PREFIX_BYTES + length);
        if self.partial.len() < PREFIX_BYTES + length {
            return Ok(None);
        }
        let mut whole = std::mem::take(&mut self.partial).freeze();
        whole.advance(PREFIX_BYTES);
        Ok(Some(whole))
    }

    /// Appends input to the partial body until that has `target` bytes or the input is used up.
    fn take_until(&mut self, target: usize) {
        let missing = target.saturating_sub(self.partial.len()).min(self.input.len());
        self.partial.extend_from_slice(&self.input.split_to(missing));
    }

    fn checked_length(&self, mut bytes: &[u8]) -> Result<Option<usize>, FrameError> {
        match bytes.try_get_u32() {
            Err(_) => Ok(None),
            Ok(0) => Err(FrameError::Empty),
            Ok(length) if length as usize > self.max => Err(FrameError::TooBig { max: self.max }),
            Ok(length) => Ok(Some(length as usize)),
        }
    }
}

#[cfg(test)]
mod tests;
