//! Any bytes, cut anywhere, into the frame decoder: it must agree with a decoder of ten lines that sees them uncut, and
//! hold no more memory than has arrived. Input: see fuzz/README.md.
#![no_main]
#![forbid(unsafe_code)]

use bytes::{BufMut, Bytes, BytesMut};
use libfuzzer_sys::fuzz_target;
use peak_alloc::PeakAlloc;
use quic_websocket::frame::{
    ATTACHMENT, Body, BodyError, Compression, FrameDecoder, FrameError, PREFIX_BYTES, ZSTD, compress, put_frame,
};

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

/// Memory that an unfinished body may reserve before any of it arrives, and the buffers' own.
const OVERHEAD: usize = 4096 + 1024;

fuzz_target!(|data: &[u8]| {
    let Some((settings, rest)) = data.split_first() else { return };
    let max = 8 << (2 * (settings & 0x07));
    let compression = if settings & 0x08 == 0 { Compression::None } else { Compression::Zstd };
    let Some((&cuts, rest)) = rest.split_first() else { return };
    let (cuts, stream) = rest.split_at(usize::from(cuts).min(rest.len()));
    if settings & 0x10 == 0 {
        let (bodies, end) = uncut(stream, max);
        decode_in_pieces(stream, cuts, max, &bodies, end);
        for body in &bodies {
            take_apart(&Bytes::copy_from_slice(body), compression, max);
        }
    } else {
        there_and_back(stream, cuts);
    }
});

/// How a stream ends for its reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Between,
    Inside,
    Broken(FrameError),
}

/// The frames of a complete stream, as in docs/PROTOCOL.md section 3.
fn uncut(mut stream: &[u8], max: usize) -> (Vec<&[u8]>, End) {
    let mut bodies = Vec::new();
    while let Some((length, rest)) = stream.split_first_chunk() {
        let length = u32::from_be_bytes(*length) as usize;
        match rest.split_at_checked(length) {
            _ if length == 0 => return (bodies, End::Broken(FrameError::Empty)),
            _ if length > max => return (bodies, End::Broken(FrameError::TooBig { max })),
            Some((body, rest)) => {
                bodies.push(body);
                stream = rest;
            }
            None => return (bodies, End::Inside),
        }
    }
    (bodies, if stream.is_empty() { End::Between } else { End::Inside })
}

fn decode_in_pieces(stream: &[u8], cuts: &[u8], max: usize, bodies: &[&[u8]], end: End) {
    let mut expected = bodies.iter();
    let mut lengths = cuts.iter().map(|&cut| usize::from(cut)).chain([1]).cycle();
    let (mut rest, mut largest) = (stream, 0);
    let before = ALLOCATOR.current_usage();
    ALLOCATOR.reset_peak_usage();
    let mut decoder = FrameDecoder::new(max);
    let got = 'stream: loop {
        if rest.is_empty() {
            break if decoder.is_inside_frame() { End::Inside } else { End::Between };
        }
        let (piece, behind) = rest.split_at(lengths.next().unwrap_or(1).min(rest.len()));
        rest = behind;
        largest = largest.max(piece.len());
        decoder.push(Bytes::copy_from_slice(piece));
        loop {
            match decoder.next_body() {
                Ok(Some(body)) => assert_eq!(Some(&&body[..]), expected.next(), "a body that is not in the stream"),
                Ok(None) => break,
                Err(e) => {
                    assert_eq!(decoder.next_body(), Err(e), "a broken stream that goes on");
                    break 'stream End::Broken(e);
                }
            }
        }
    };
    let held = ALLOCATOR.peak_usage().saturating_sub(before);
    // While a buffer grows it exists twice, once at half the size.
    let bound = 3 * (PREFIX_BYTES + max.min(stream.len())) + 2 * largest + OVERHEAD;
    assert!(held <= bound, "{held} bytes held of a stream of {} with bodies up to {max}", stream.len());
    assert_eq!(expected.next(), None, "a body was not found");
    assert_eq!(got, end, "another end than that of the uncut stream");
}

fn take_apart(bytes: &Bytes, compression: Compression, max: usize) {
    let before = ALLOCATOR.current_usage();
    ALLOCATOR.reset_peak_usage();
    let parsed = Body::parse(bytes.clone(), compression, max);
    let held = ALLOCATOR.peak_usage().saturating_sub(before);
    if bytes[0] == ZSTD {
        assert!(held <= 4 * max + OVERHEAD, "{held} bytes to inflate at most {max}");
    } else {
        assert!(held <= 1024, "{held} bytes to take a plain body apart");
    }
    match parsed {
        Ok(body) => {
            let attachment = body.attachment.as_ref();
            let whole = body.json.len() + attachment.map_or(0, |bytes| 1 + PREFIX_BYTES + bytes.len());
            assert!(whole <= max, "{whole} bytes out of a body, and {max} are the limit");
            let frame = framed(&body);
            if bytes[0] != ZSTD {
                assert_eq!(frame[PREFIX_BYTES..], bytes[..], "another body when written again");
            }
            assert_eq!(parse_frame(&frame, Compression::None), body);
        }
        Err(BodyError::Fatal(FrameError::NotAgreed)) => {
            assert!(bytes[0] == ZSTD && compression == Compression::None);
        }
        Err(BodyError::Fatal(FrameError::TooBig { .. }) | BodyError::Zstd(_)) => {
            assert!(bytes[0] == ZSTD && compression == Compression::Zstd);
        }
        Err(BodyError::Fatal(FrameError::Empty)) => panic!("a body of {} bytes is not empty", bytes.len()),
        Err(BodyError::Fatal(FrameError::Foreign)) => panic!("a body knows of no session"),
        Err(BodyError::AttachmentLength { .. }) => assert!(matches!(bytes[0], ATTACHMENT | ZSTD)),
        Err(BodyError::FirstByte(first)) => assert!(!matches!(first, b'{' | ATTACHMENT | ZSTD)),
    }
}

/// Any bytes as JSON and any as attachment: unchanged after writing, compressing and reading.
fn there_and_back(json: &[u8], attachment: &[u8]) {
    let json = [b"{", json].concat();
    for attachment in [None, Some(Bytes::copy_from_slice(attachment))] {
        let body = Body { json: json.clone().into(), attachment };
        let frame = framed(&body);
        assert_eq!(parse_frame(&frame, Compression::None), body);
        if let Some(packed) = compress(&frame) {
            assert!(packed.len() < frame.len(), "compressed is longer than plain");
            assert_eq!(parse_frame(&packed, Compression::Zstd), body);
            let longer = Bytes::from([&packed[PREFIX_BYTES..], b"{"].concat());
            let longer = Body::parse(longer, Compression::Zstd, 1 << 24);
            assert!(matches!(longer, Err(BodyError::Zstd(_))), "bytes behind the zstd frame: {longer:?}");
        }
    }
}

fn framed(body: &Body) -> Bytes {
    let mut out = BytesMut::new();
    put_frame(&mut out, body.attachment.as_deref(), |out| out.put_slice(&body.json));
    out.freeze()
}

fn parse_frame(frame: &Bytes, compression: Compression) -> Body {
    let mut decoder = FrameDecoder::new(1 << 24);
    decoder.push(frame.clone());
    let body = decoder.next_body().expect("one frame").expect("a whole frame");
    assert!(!decoder.is_inside_frame(), "more than one frame");
    Body::parse(body, compression, 1 << 24).expect("a body that was written here")
}
