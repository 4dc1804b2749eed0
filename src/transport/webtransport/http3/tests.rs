//! HTTP/3 on byte slices: control streams, requests, and capsules.

use futures_util::FutureExt;

use super::*;

/// Valid settings: ENABLE_CONNECT_PROTOCOL, H3_DATAGRAM and WT_MAX_SESSIONS.
const GOOD: &[u8] =
    &[0x08, 0x01, 0x33, 0x01, 0x80 | 0x2b, 0x60, 0x37, 0x42, 0x01, 0xc0, 0, 0, 0, 0xc6, 0x71, 0x70, 0x6a, 0x01];

fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).expect("short") | 0x4000;
    [&[kind][..], &length.to_be_bytes(), payload].concat()
}

/// The end of a control stream, and whether its settings were accepted before.
fn controlled(stream: &[&[u8]]) -> (Trouble, bool) {
    let (taken, mut settings) = oneshot::channel();
    let trouble = control(stream.concat().as_slice(), taken).now_or_never().expect("the whole stream is there");
    (trouble, settings.try_recv().is_ok())
}

fn code(trouble: Trouble) -> u32 {
    match trouble {
        Trouble::Fault(fault) => fault.code,
        other => panic!("not a fault: {other:?}"),
    }
}

#[test]
fn a_control_stream_begins_with_settings_and_has_no_request_frames() {
    let settings = frame(0x04, GOOD);
    for (stream, expected) in [
        (vec![&settings[..]], (CLOSED_CRITICAL_STREAM, true)),
        // GOAWAY, and an unknown frame.
        (vec![&settings, &frame(0x07, &[0]), &frame(0x21, b"grease")], (CLOSED_CRITICAL_STREAM, true)),
        (vec![&settings, &settings], (FRAME_UNEXPECTED, true)),
        (vec![&settings, &frame(0x00, b"data")], (FRAME_UNEXPECTED, true)),
        (vec![&settings, &frame(0x01, b"headers")], (FRAME_UNEXPECTED, true)),
        (vec![&settings, &frame(0x08, b"")], (FRAME_UNEXPECTED, true)),
        (vec![&settings, &settings[..5]], (FRAME_UNEXPECTED, true)),
        (vec![&settings, &[0x21, 0x05, 1]], (FRAME_ERROR, true)),
        (vec![&settings[..9]], (FRAME_ERROR, false)),
        (vec![&frame(0x00, b"data"), &settings], (MISSING_SETTINGS, false)),
        (vec![], (MISSING_SETTINGS, false)),
        (vec![&frame(0x04, &[GOOD, GOOD].concat())], (SETTINGS_ERROR, false)),
        (vec![&frame(0x04, &[GOOD, &[0x03, 0x00]].concat())], (SETTINGS_ERROR, false)),
        (vec![&frame(0x04, &[0x08])], (FRAME_ERROR, false)),
        (vec![&frame(0x04, &[])], (GENERAL_PROTOCOL_ERROR, false)),
        (vec![&[0x04, 0x80, 0x10, 0x00, 0x00]], (EXCESSIVE_LOAD, false)),
    ] {
        let (trouble, taken) = controlled(&stream);
        assert_eq!((code(trouble), taken), expected, "{stream:?}: {trouble:?}");
    }
}

#[test]
fn a_request_is_the_first_known_frame() {
    let read = |stream: &[u8]| request(&mut Frames::new(stream)).now_or_never().expect("the whole stream is there");
    assert_eq!(read(&[frame(0x21, b"grease"), frame(0x01, b"fields")].concat()), Ok(b"fields".to_vec()));
    for (stream, expected) in [
        (frame(0x00, b"data"), FRAME_UNEXPECTED),
        (frame(0x04, b""), FRAME_UNEXPECTED),
        (frame(0x21, b""), REQUEST_INCOMPLETE),
        (frame(0x01, b"fields")[..6].to_vec(), FRAME_ERROR),
        (vec![0x01, 0x80, 0x01, 0x00, 0x00], EXCESSIVE_LOAD),
    ] {
        assert_eq!(code(read(&stream).expect_err("no request")), expected, "{stream:?}");
    }
}

fn capsule(kind: &[u8], payload: &[u8]) -> Vec<u8> {
    [kind, &[u8::try_from(payload.len()).expect("short")], payload].concat()
}

const CLOSING: &[u8] = &[0x68, 0x43];

fn closed(stream: &[u8]) -> Result<Option<(u32, String)>, Trouble> {
    closing(Frames::new(stream)).now_or_never().expect("the whole stream is there")
}

#[test]
fn a_close_is_found_however_it_is_split() {
    let close = capsule(CLOSING, b"\0\0\x03\xe8done");
    let expected = Ok(Some((1000, "done".to_owned())));
    assert_eq!(closed(&frame(0, &close)), expected);
    let by_bytes: Vec<u8> = close.iter().flat_map(|byte| frame(0, &[*byte])).collect();
    assert_eq!(closed(&by_bytes), expected);
    let behind = [capsule(&[0x17], b"grease"), capsule(&[0x00], b"a datagram"), close.clone()].concat();
    assert_eq!(closed(&[frame(0x21, b"grease"), frame(0, b""), frame(0, &behind)].concat()), expected);
    assert_eq!(closed(&frame(0, &capsule(CLOSING, &[0; 4]))), Ok(Some((0, String::new()))));
    assert_eq!(closed(&[]), Ok(None));
    assert_eq!(closed(&frame(0, &capsule(&[0x17], b"grease"))), Ok(None));
}

/// Number of turns that another task had while a stream was read to its end.
fn turns_beside(reads: impl Future + Send + 'static) -> usize {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(async {
        let reading = tokio::spawn(async { drop(reads.await) });
        let mut turns = 0;
        while !reading.is_finished() {
            turns += 1;
            tokio::task::yield_now().await;
        }
        turns
    })
}

#[test]
fn a_flood_of_small_frames_or_capsules_leaves_other_tasks_their_turns() {
    let frames = [0x21, 0x00].repeat(20_000);
    let on_control = [frame(0x04, GOOD), frames.clone()].concat();
    let (taken, _told) = oneshot::channel();
    let capsules = frame(0, &[0x17, 0x00].repeat(5000));
    for (what, turns) in [
        ("frames on the control stream", turns_beside(async move { control(on_control.as_slice(), taken).await })),
        ("frames on the request", { turns_beside(async move { request(&mut Frames::new(frames.as_slice())).await }) }),
        ("empty DATA", turns_beside(async { closing(Frames::new([0x00, 0x00].repeat(20_000).as_slice())).await })),
        ("capsules", turns_beside(async move { closing(Frames::new(capsules.as_slice())).await })),
    ] {
        assert!(turns > 20, "{what}: {turns} turns");
    }
}

#[test]
fn a_malformed_capsule_is_reported_at_once() {
    let long = [CLOSING, &[0x44, 0x05], &[0; 4], &[b'x'; 1025]].concat();
    for (stream, expected) in [
        (frame(0, &capsule(CLOSING, &[0; 2])), MESSAGE_ERROR),
        (frame(0, &long), MESSAGE_ERROR),
        (frame(0, &capsule(CLOSING, b"\0\0\0\0\xff")), MESSAGE_ERROR),
        (frame(0, &capsule(CLOSING, b"\0\0\x03\xe8done")[..5]), MESSAGE_ERROR),
        (frame(0, CLOSING), MESSAGE_ERROR),
        (frame(0x01, b"trailers"), FRAME_UNEXPECTED),
        (frame(0x04, b""), FRAME_UNEXPECTED),
        (frame(0, b"xyz")[..4].to_vec(), FRAME_ERROR),
    ] {
        assert_eq!(code(closed(&stream).expect_err("not a capsule")), expected, "{stream:?}");
    }
}
