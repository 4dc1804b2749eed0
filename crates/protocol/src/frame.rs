//! Bodies to bytes and back (docs/PROTOCOL.md, "Bodies and frames"): the length prefix, the attachment, zstd, and
//! every limit that guards them. Pure: no I/O, no clock, no runtime; it knows nothing of what a body means.
//!
//! A **body** is one message. A **frame** is a body behind its `u32` big-endian length, as it travels on a stream.

use std::cell::RefCell;
use std::io::Read;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use thiserror::Error;
use zstd::bulk::Compressor;
use zstd::zstd_safe::compress_bound;

/// Bytes of the length that stands before each body on a stream.
pub const PREFIX_BYTES: usize = 4;
/// First byte of a body that carries a binary attachment.
pub const ATTACHMENT: u8 = 0x01;
/// First byte of a compressed body.
pub const ZSTD: u8 = 0x02;

/// Largest zstd window a peer may ask this side to allocate, as a power of two (8 MiB: RFC 8878 section 3.1.1.1.2).
const ZSTD_WINDOW_LOG: u32 = 23;
/// An unfinished body up to this size gets its memory in one piece; a larger one as it arrives.
const RESERVE_BYTES: usize = 4096;
/// Level for what this side compresses: the fastest of the regular ones.
const ZSTD_LEVEL: i32 = 1;
/// Largest output buffer that a thread keeps for what it compresses next.
const KEPT_OUTPUT_BYTES: usize = 2 << 20;

/// A stream that can no longer be understood: the connection has to close.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum FrameError {
    /// A frame of length zero.
    #[error("a frame of length 0: a body has at least one byte")]
    Empty,
    /// A frame, or a compressed body once inflated, is longer than the limit.
    #[error("a message above the limit of {max} bytes: send less, or split it")]
    TooBig {
        /// The limit that was passed, in bytes.
        max: usize,
    },
    /// A compressed body although the handshake did not agree on zstd.
    #[error("a compressed body, but the handshake did not agree on zstd: offer it in `compression`")]
    NotAgreed,
    /// A stream in a WebTransport session that is none of its lanes.
    #[error("a stream that does not belong to the session: open lanes as the session's bidirectional streams")]
    Foreign,
}

/// A body that is wrong in itself; the frames around it are sound, so the connection lives on.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum BodyError {
    /// The body has to end the connection.
    #[error(transparent)]
    Fatal(#[from] FrameError),
    /// The first byte is none of `{`, 0x01 and 0x02.
    #[error("first byte 0x{0:02x}: a body starts with '{{', 0x01 (attachment) or 0x02 (zstd)")]
    FirstByte(u8),
    /// The attachment form is shorter than its own lengths say.
    #[error("attachment: the JSON length of {json} bytes is beyond the body of {body} bytes")]
    AttachmentLength {
        /// The JSON length that the body claims.
        json: usize,
        /// The bytes that were there for it.
        body: usize,
    },
    /// The compressed body cannot be inflated, or holds another compressed body.
    #[error("zstd: {0}")]
    Zstd(String),
}

/// Whether the peer may send compressed bodies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Compression {
    /// Every body travels as it is.
    #[default]
    None,
    /// Either side may send a body as a zstd frame (RFC 8878).
    Zstd,
}

/// One message as bytes: its JSON object and, where it has one, its attachment. Both share the received memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Body {
    /// The JSON object; not yet checked to be UTF-8 or JSON.
    pub json: Bytes,
    /// The raw bytes that came with it.
    pub attachment: Option<Bytes>,
}

impl Body {
    /// Takes a received body apart, inflating at most `max` bytes.
    ///
    /// # Errors
    /// [`BodyError`] says which row of the bad-input table of docs/PROTOCOL.md applies.
    pub fn parse(body: Bytes, compression: Compression, max: usize) -> Result<Self, BodyError> {
        match body.first() {
            Some(&ZSTD) if compression == Compression::None => Err(FrameError::NotAgreed.into()),
            Some(&ZSTD) => {
                let inflated = inflate(&body[1..], max)?;
                match inflated.first() {
                    None => Err(BodyError::Zstd("nothing inside the compressed body".into())),
                    Some(&ZSTD) => Err(BodyError::Zstd("a compressed body inside a compressed body".into())),
                    _ => Self::parse_plain(inflated),
                }
            }
            _ => Self::parse_plain(body),
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

/// Inflates one zstd frame to at most `max` bytes, growing as it goes: a bomb costs its limit, never its size.
fn inflate(frame: &[u8], max: usize) -> Result<Bytes, BodyError> {
    let broken = |e: std::io::Error| BodyError::Zstd(format!("cannot be inflated: {e}"));
    let mut decoder = zstd::stream::read::Decoder::with_buffer(frame).map_err(broken)?.single_frame();
    decoder.window_log_max(ZSTD_WINDOW_LOG).map_err(broken)?;
    let mut out = Vec::with_capacity(max.min(frame.len().saturating_mul(4)));
    let limit = u64::try_from(max).unwrap_or(u64::MAX).saturating_add(1);
    decoder.by_ref().take(limit).read_to_end(&mut out).map_err(broken)?;
    if out.len() > max {
        return Err(FrameError::TooBig { max }.into());
    }
    if !decoder.finish().is_empty() {
        return Err(BodyError::Zstd("bytes after the end of the zstd frame".into()));
    }
    Ok(out.into())
}

/// Writes one frame: `json` fills in the JSON object, `attachment` follows it where there is one.
///
/// A body of 4 GiB or more cannot be framed; callers bound what they send long before that.
pub fn put_frame(out: &mut BytesMut, attachment: Option<&[u8]>, json: impl FnOnce(&mut BytesMut)) {
    put_head(out, attachment.map(<[u8]>::len), json);
    out.put_slice(attachment.unwrap_or_default());
}

/// Writes a frame up to its attachment, which the caller sends right behind it: so its bytes need not be copied.
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

/// Writes into the `u32` at `at` how many bytes follow it, `more` of them still to come.
fn patch_length(out: &mut BytesMut, at: usize, more: usize) {
    let length = u32::try_from(out.len() - at - PREFIX_BYTES + more).unwrap_or(u32::MAX);
    out[at..at + PREFIX_BYTES].copy_from_slice(&length.to_be_bytes());
}

/// A buffer's bytes in an allocation of their own length. What is kept is counted by its length, so nothing behind it
/// may be kept with it: a reply stays in QUIC until it is acknowledged, a message in its topic's log.
#[inline]
pub fn exact(buffer: BytesMut) -> Bytes {
    if buffer.len() <= buffer.capacity() / 2 {
        // Shrinking a large allocation in place can leave a page of its own to a few bytes.
        return Bytes::copy_from_slice(&buffer);
    }
    Vec::from(buffer).into_boxed_slice().into()
}

/// What an allocation of so many bytes takes, with the allocator's own part: glibc keeps 8 bytes before each and gives them
/// out by 16.
#[inline]
pub const fn allocated(bytes: usize) -> usize {
    if bytes == 0 { 0 } else { (bytes + 8).next_multiple_of(16) }
}

/// What a thread compresses with. Its tables take about a megabyte: making them costs more than compressing most bodies.
struct Packer {
    compressor: Compressor<'static>,
    output: Vec<u8>,
}

thread_local! {
    static PACKER: RefCell<Option<Packer>> = const { RefCell::new(None) };
}

/// The compressed form of a frame made by [`put_frame`], in an allocation of its length, or `None` where it would not be
/// smaller.
pub fn compress(frame: &[u8]) -> Option<Bytes> {
    let body = frame.get(PREFIX_BYTES..)?;
    // Nothing inside calls this again, and no thread compresses while it ends.
    PACKER.try_with(|packer| packer.try_borrow_mut().ok().and_then(|mut packer| pack(&mut packer, body))).ok()?
}

fn pack(packer: &mut Option<Packer>, body: &[u8]) -> Option<Bytes> {
    if packer.is_none() {
        *packer = Some(Packer { compressor: Compressor::new(ZSTD_LEVEL).ok()?, output: Vec::new() });
    }
    let Packer { compressor, output } = packer.as_mut()?;
    output.clear();
    output.reserve(compress_bound(body.len()));
    let packed = compressor.compress_to_buffer(body, output).ok().filter(|packed| packed + 1 < body.len());
    let framed = packed.and_then(|packed| {
        let mut out = BytesMut::with_capacity(PREFIX_BYTES + 1 + packed);
        out.put_u32(u32::try_from(packed + 1).ok()?);
        out.put_u8(ZSTD);
        out.put_slice(&output[..packed]);
        Some(exact(out))
    });
    if output.capacity() > KEPT_OUTPUT_BYTES {
        *output = Vec::new();
    }
    framed
}

/// Cuts a byte stream into bodies. Holds at most one unfinished body, and of it only what has really arrived.
#[derive(Debug)]
pub struct FrameDecoder {
    max: usize,
    /// What has come and was not looked at yet; a body that lies whole in it is handed out without a copy.
    input: Bytes,
    /// The beginning of a body that the next input continues, its prefix included.
    partial: BytesMut,
}

impl FrameDecoder {
    /// A decoder for bodies of at most `max` bytes.
    pub fn new(max: usize) -> Self {
        Self { max, input: Bytes::new(), partial: BytesMut::new() }
    }

    /// The largest body that is accepted, in bytes.
    pub fn max(&self) -> usize {
        self.max
    }

    /// Adds what a stream has delivered. Call [`next_body`](Self::next_body) until it gives `None` before adding more.
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

    /// Whether the stream stands inside a body: its end here means that a message was cut off.
    #[inline]
    pub fn is_inside_frame(&self) -> bool {
        !self.partial.is_empty() || !self.input.is_empty()
    }

    /// Bytes that are held of a body whose end has not come, its length prefix not counted; exact once
    /// [`next_body`](Self::next_body) has given `None`.
    #[inline]
    pub fn unfinished_bytes(&self) -> usize {
        self.partial.len().saturating_sub(PREFIX_BYTES)
    }

    /// The next whole body, or `None` until more has been pushed.
    ///
    /// # Errors
    /// [`FrameError`] as soon as a length is known to be zero or above the limit, before its body is awaited.
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

    /// Moves input behind the partial body until that holds `target` bytes or the input is used up.
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
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn framed(body: &[u8]) -> Bytes {
        let mut out = BytesMut::new();
        put_frame(&mut out, None, |out| out.put_slice(body));
        out.freeze()
    }

    fn decode_all(decoder: &mut FrameDecoder, chunk: Bytes, bodies: &mut Vec<Bytes>) -> Result<(), FrameError> {
        decoder.push(chunk);
        while let Some(body) = decoder.next_body()? {
            bodies.push(body);
        }
        Ok(())
    }

    #[test]
    fn a_zero_length_and_a_length_above_the_limit_are_refused_before_the_body_is_there() {
        let mut decoder = FrameDecoder::new(8);
        decoder.push(Bytes::from_static(&[0, 0, 0, 0]));
        assert_eq!(decoder.next_body(), Err(FrameError::Empty));
        let mut decoder = FrameDecoder::new(8);
        decoder.push(Bytes::from_static(&[0, 0, 0, 9]));
        assert_eq!(decoder.next_body(), Err(FrameError::TooBig { max: 8 }));
        let mut decoder = FrameDecoder::new(8);
        decoder.push(Bytes::from_static(&[0xff, 0xff]));
        assert_eq!(decoder.next_body(), Ok(None));
        decoder.push(Bytes::from_static(&[0xff, 0xff]));
        assert_eq!(decoder.next_body(), Err(FrameError::TooBig { max: 8 }));
    }

    #[test]
    fn an_attachment_beyond_the_body_is_an_error_of_that_body_alone() {
        for body in [&[1_u8, 0, 0, 0, 3, b'{', b'}'][..], &[1, 0xff, 0xff, 0xff, 0xff], &[1, 0, 0]] {
            let parsed = Body::parse(Bytes::copy_from_slice(body), Compression::None, 100);
            assert!(matches!(parsed, Err(BodyError::AttachmentLength { .. })), "{body:?} gave {parsed:?}");
        }
    }

    #[test]
    fn a_compressed_body_needs_the_agreement_and_inflates_no_further_than_the_limit() {
        let frame = framed(&[b"{\"content\":\"".as_slice(), &[b'a'; 100_000], b"\"}"].concat());
        let packed = compress(&frame).expect("100 kB of one letter compress");
        let body = packed.slice(PREFIX_BYTES..);
        assert_eq!(Body::parse(body.clone(), Compression::None, 1 << 20), Err(BodyError::Fatal(FrameError::NotAgreed)));
        assert_eq!(
            Body::parse(body.clone(), Compression::Zstd, 1000),
            Err(BodyError::Fatal(FrameError::TooBig { max: 1000 }))
        );
        let parsed = Body::parse(body.clone(), Compression::Zstd, 1 << 20).expect("the limit allows it");
        assert_eq!(parsed.json, frame.slice(PREFIX_BYTES..));

        let nested = compress(&framed(&[packed[PREFIX_BYTES..].to_vec(), vec![0; 500]].concat())).expect("zeros");
        let nested = Body::parse(nested.slice(PREFIX_BYTES..), Compression::Zstd, 1 << 20);
        assert!(matches!(nested, Err(BodyError::Zstd(_))), "{nested:?}");
        let tail = Bytes::from([&body[..], b"x"].concat());
        assert!(matches!(Body::parse(tail, Compression::Zstd, 1 << 20), Err(BodyError::Zstd(_))));
        let nothing =
            Bytes::from([&[ZSTD][..], &zstd::bulk::compress(b"", ZSTD_LEVEL).expect("it compresses")].concat());
        assert!(matches!(Body::parse(nothing, Compression::Zstd, 1 << 20), Err(BodyError::Zstd(_))));
        let junk = Bytes::from_static(&[ZSTD, 1, 2, 3]);
        assert!(matches!(Body::parse(junk, Compression::Zstd, 1 << 20), Err(BodyError::Zstd(_))));
    }

    /// Bytes that the allocation behind it has, where nothing else shares it.
    fn allocated(bytes: Bytes) -> usize {
        bytes.try_into_mut().expect("nobody shares it").capacity()
    }

    #[test]
    fn what_is_kept_has_an_allocation_of_its_own_length() {
        for (length, capacity) in [(1, 1), (1, 1 << 20), (600, 1000), (400, 1000), (1 << 20, 2 << 20)] {
            let mut buffer = BytesMut::with_capacity(capacity);
            buffer.put_bytes(7, length);
            let kept = exact(buffer);
            assert_eq!((kept.len(), allocated(kept)), (length, length), "of {capacity}");
        }
        for size in [2000, 1 << 20, 3 << 20, 2000] {
            let packed = compress(&framed(&vec![b'a'; size])).expect("one letter compresses");
            assert_eq!((packed.len() < 500, packed.len()), (true, allocated(packed)), "{size} bytes");
        }
    }

    #[test]
    fn what_does_not_shrink_is_not_compressed() {
        assert_eq!(compress(&framed(b"{}")), None);
    }

    proptest! {
        #[test]
        fn any_bodies_cut_anywhere_come_back_whole_and_in_order(
            bodies in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..300), 1..20),
            cuts in prop::collection::vec(1_usize..200, 1..100),
        ) {
            let stream: Vec<u8> = bodies.iter().flat_map(|b| framed(b).to_vec()).collect();
            let (mut decoder, mut got, mut rest) = (FrameDecoder::new(300), Vec::new(), &stream[..]);
            for cut in cuts.iter().cycle() {
                if rest.is_empty() { break; }
                let (head, tail) = rest.split_at((*cut).min(rest.len()));
                decode_all(&mut decoder, Bytes::copy_from_slice(head), &mut got).unwrap();
                rest = tail;
            }
            prop_assert_eq!(got, bodies);
            prop_assert!(!decoder.is_inside_frame());
        }

        #[test]
        fn a_stream_of_any_bytes_is_the_same_however_it_is_cut(
            stream in prop::collection::vec(prop_oneof![6 => Just(0_u8), 2 => 1..9_u8, 1 => any::<u8>()], 0..120),
            cuts in prop::collection::vec(0_usize..12, 1..40),
        ) {
            let (mut whole, mut bodies) = (FrameDecoder::new(2000), Vec::new());
            let end = decode_all(&mut whole, Bytes::from(stream.clone()), &mut bodies);
            let (mut cut, mut got, mut got_end, mut rest) = (FrameDecoder::new(2000), Vec::new(), Ok(()), &stream[..]);
            for length in cuts.iter().chain([&1]).cycle() {
                if rest.is_empty() || got_end.is_err() { break; }
                let (head, tail) = rest.split_at((*length).min(rest.len()));
                got_end = decode_all(&mut cut, Bytes::copy_from_slice(head), &mut got);
                rest = tail;
            }
            prop_assert_eq!((got, got_end), (bodies, end));
            prop_assert_eq!(cut.is_inside_frame(), whole.is_inside_frame());
            prop_assert_eq!(cut.unfinished_bytes(), whole.unfinished_bytes());
        }

        #[test]
        fn an_attachment_comes_back_as_it_was(json in "\\{[a-z]{0,50}\\}", bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let mut out = BytesMut::new();
            put_frame(&mut out, Some(&bytes), |out| out.put_slice(json.as_bytes()));
            let mut decoder = FrameDecoder::new(1000);
            decoder.push(out.freeze());
            let body = decoder.next_body().unwrap().unwrap();
            let parsed = Body::parse(body, Compression::None, 1000).unwrap();
            prop_assert_eq!(&parsed.json[..], json.as_bytes());
            prop_assert_eq!(&parsed.attachment.unwrap()[..], &bytes[..]);
        }

        #[test]
        fn no_bytes_make_the_parser_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Body::parse(Bytes::from(bytes.clone()), Compression::Zstd, 500);
            let _ = decode_all(&mut FrameDecoder::new(64), Bytes::from(bytes), &mut Vec::new());
        }
    }
}
