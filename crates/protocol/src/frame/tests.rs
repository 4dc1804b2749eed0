//! Framing on its own: limits, compression, and streams split anywhere.

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
fn a_zero_length_and_a_length_above_the_limit_are_refused_before_the_body_arrives() {
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
fn an_attachment_beyond_the_body_is_an_error_of_that_body_only() {
    for body in [&[1_u8, 0, 0, 0, 3, b'{', b'}'][..], &[1, 0xff, 0xff, 0xff, 0xff], &[1, 0, 0]] {
        let parsed = Body::parse(Bytes::copy_from_slice(body), Compression::None, 100);
        assert!(matches!(parsed, Err(BodyError::AttachmentLength { .. })), "{body:?} gave {parsed:?}");
    }
}

#[test]
fn a_compressed_body_must_be_negotiated_and_inflates_only_up_to_the_limit() {
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
    let nothing = Bytes::from([&[ZSTD][..], &zstd::bulk::compress(b"", ZSTD_LEVEL).expect("it compresses")].concat());
    assert!(matches!(Body::parse(nothing, Compression::Zstd, 1 << 20), Err(BodyError::Zstd(_))));
    let junk = Bytes::from_static(&[ZSTD, 1, 2, 3]);
    assert!(matches!(Body::parse(junk, Compression::Zstd, 1 << 20), Err(BodyError::Zstd(_))));
}

/// Capacity of an unshared allocation, in bytes.
fn allocated(bytes: Bytes) -> usize {
    bytes.try_into_mut().expect("a unique buffer").capacity()
}

#[test]
fn stored_frames_have_allocations_of_exactly_their_length() {
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
fn a_body_that_does_not_shrink_is_not_compressed() {
    assert_eq!(compress(&framed(b"{}")), None);
}

proptest! {
    #[test]
    fn bodies_split_anywhere_are_decoded_whole_and_in_order(
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
    fn any_stream_decodes_the_same_however_it_is_split(
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
    fn an_attachment_survives_a_round_trip(
        json in "\\{[a-z]{0,50}\\}",
        bytes in prop::collection::vec(any::<u8>(), 0..300),
    ) {
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

#[test]
fn joined_frames_are_split_at_their_lengths() {
    let mut joined = BytesMut::new();
    let bodies = [&b"{}"[..], &[b'x'; 300], b"{\"a\":1}"];
    bodies.iter().for_each(|body| put_frame(&mut joined, None, |out| out.extend_from_slice(body)));
    let frames: Vec<_> = split(&joined).collect();
    assert_eq!(frames.concat(), joined);
    assert_eq!(frames.iter().map(|frame| &frame[PREFIX_BYTES..]).collect::<Vec<_>>(), bodies);
    assert_eq!(split(&joined[..3]).count(), 0, "less than a length is no frame");
}
