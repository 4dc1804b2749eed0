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

const FORMS: [Compression; 2] = [Compression::Zstd, Compression::Deflate];

#[test]
fn a_compressed_body_must_be_negotiated_and_inflates_only_up_to_the_limit() {
    let frame = framed(&[b"{\"content\":\"".as_slice(), &[b'a'; 100_000], b"\"}"].concat());
    let plain = frame.slice(PREFIX_BYTES..);
    for form in FORMS {
        let packed = compress(&frame, form).expect("100 kB of one letter compress");
        let body = packed.slice(PREFIX_BYTES..);
        for other in [Compression::None, Compression::Zstd, Compression::Deflate] {
            let not_agreed = Err(BodyError::Fatal(FrameError::NotAgreed(form.name())));
            if other != form {
                assert_eq!(Body::parse(body.clone(), other, 1 << 20), not_agreed);
            }
        }
        for max in [0, 1, 1000, plain.len() - 1] {
            let too_big = Err(BodyError::Fatal(FrameError::TooBig { max }));
            assert_eq!(Body::parse(body.clone(), form, max), too_big, "{form:?}");
        }
        for max in [plain.len(), plain.len() + 1, 1 << 20, usize::MAX] {
            let parsed = Body::parse(body.clone(), form, max).expect("the limit allows it");
            assert_eq!(parsed.json, plain, "{form:?}");
        }
    }
}

/// The bytes in the form of a body that is compressed.
fn packed(bytes: &[u8], form: Compression) -> Vec<u8> {
    match form {
        Compression::Deflate => [&[DEFLATE][..], &miniz_oxide::deflate::compress_to_vec(bytes, 6)].concat(),
        _ => [&[ZSTD][..], &zstd::bulk::compress(bytes, 3).expect("it compresses")].concat(),
    }
}

#[test]
fn a_compressed_body_contains_one_plain_body_and_nothing_else() {
    for form in FORMS {
        let good = packed(b"{\"type\":\"ping\"}", form);
        assert!(Body::parse(good.clone().into(), form, 100).is_ok(), "{form:?}");
        let first = good[0];
        for bad in [
            packed(&good, form),
            packed(&packed(b"{}", Compression::Zstd), form),
            packed(&packed(b"{}", Compression::Deflate), form),
            [&good[..], b"x"].concat(),
            [&good[..], &good[1..]].concat(),
            good[..good.len() - 1].to_vec(),
            packed(b"", form),
            vec![first],
            vec![first, 0xff, 0xff, 0xff, 0xff],
            [&[first], &b"\x78\x9c"[..], &good[1..]].concat(),
        ] {
            let parsed = Body::parse(bad.clone().into(), form, 1 << 20);
            let Err(BodyError::Compressed { form: named, .. }) = &parsed else { panic!("{bad:x?} gave {parsed:?}") };
            assert_eq!(*named, form.name());
        }
    }
}

/// The bytes in stored deflate blocks of so many bytes each (RFC 1951 section 3.2.4).
fn stored(bytes: &[u8], each: usize) -> Vec<u8> {
    let blocks = bytes.chunks(each).flat_map(|block| {
        let length = u16::try_from(block.len()).unwrap();
        [&[0][..], &length.to_le_bytes(), &(!length).to_le_bytes(), block].concat()
    });
    [DEFLATE].into_iter().chain(blocks).chain([1, 0, 0, 0xff, 0xff]).collect()
}

#[test]
fn a_deflate_stream_has_few_blocks_for_what_it_inflates_to() {
    let body = [b"{\"a\":\"".as_slice(), &[b'x'; 200_000], b"\"}"].concat();
    let parse = |each: usize, bytes: usize| {
        let plain = &body[..bytes];
        Body::parse(stored(plain, each).into(), Compression::Deflate, 1 << 20).map(|parsed| parsed.json == *plain)
    };
    assert_eq!(parse(1024, body.len()), Ok(true));
    assert_eq!(parse(50, 50 * 62), Ok(true), "a short one may have 64");
    for (each, bytes) in [(50, body.len()), (1, 100), (600, body.len())] {
        let refused = parse(each, bytes);
        assert!(
            matches!(&refused, Err(BodyError::Compressed { reason, .. }) if reason.contains("blocks")),
            "{refused:?}"
        );
    }
}

#[test]
fn an_offer_is_answered_with_the_better_compression() {
    let chosen = |names: &[&str]| {
        let mut offer = CompressionOffer::default();
        names.iter().for_each(|name| offer.add(name));
        offer.choose().name()
    };
    for (names, choice) in [
        (&[][..], "none"),
        (&["br", "none", ""], "none"),
        (&["deflate"], "deflate"),
        (&["deflate", "zstd"], "zstd"),
        (&["zstd", "deflate", "zstd"], "zstd"),
    ] {
        assert_eq!(chosen(names), choice, "{names:?}");
    }
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
    for (form, per_mebibyte) in [(Compression::Zstd, 150), (Compression::Deflate, 1200)] {
        for size in [2000, 1 << 20, 3 << 20, 2000] {
            let packed = compress(&framed(&vec![b'a'; size]), form).expect("one letter compresses");
            assert_eq!(
                (packed.len() < 50 + size * per_mebibyte / (1 << 20), packed.len()),
                (true, allocated(packed)),
                "{size} bytes"
            );
        }
    }
}

#[test]
fn a_body_that_does_not_shrink_is_not_compressed() {
    let mut state = 1_u64;
    let noise = std::iter::repeat_with(|| {
        // A xorshift generator.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[0]
    });
    let noise: Vec<u8> = noise.take(3000).collect();
    for form in FORMS {
        assert_eq!(compress(&framed(b"{}"), form), None);
        assert_eq!(compress(&framed(&noise), form), None);
        assert_eq!(compress(&framed(b""), form), None);
    }
    assert_eq!(compress(&framed(&[b'a'; 2000]), Compression::None), None);
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
    fn any_body_survives_compression(
        parts in prop::collection::vec((prop::collection::vec(any::<u8>(), 1..40), 1_usize..200), 1..40),
    ) {
        let bytes = parts.iter().flat_map(|(part, times)| part.repeat(*times));
        let frame = framed(&[b'{'].into_iter().chain(bytes).collect::<Vec<_>>());
        for form in FORMS {
            let Some(small) = compress(&frame, form) else { continue };
            prop_assert!(small.len() < frame.len());
            let parsed = Body::parse(small.slice(PREFIX_BYTES..), form, frame.len()).unwrap();
            prop_assert_eq!(parsed.json, frame.slice(PREFIX_BYTES..));
        }
    }

    #[test]
    fn no_bytes_make_the_parser_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        for form in FORMS {
            let _ = Body::parse(Bytes::from(bytes.clone()), form, 500);
            for first in [ZSTD, DEFLATE] {
                let compressed = [&[first][..], &bytes].concat();
                let _ = Body::parse(Bytes::from(compressed), form, 500);
            }
        }
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
