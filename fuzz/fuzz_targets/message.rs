//! Any bytes as a body from a client and as one from a server: a readable body can be written and read again, as the
//! same value and the same bytes, and errors are short.
#![no_main]
#![forbid(unsafe_code)]

use std::fmt::Debug;

use bytes::{Bytes, BytesMut};
use libfuzzer_sys::fuzz_target;
use quic_websocket::frame::{Body, Compression, FrameDecoder};
use quic_websocket::message::{ClientMessage, Invalid, MAX_INTEGER, MAX_PAGE, MAX_REASON_BYTES, Reply, Request};
use serde_json::{Map, Value};

/// More characters than any error text about a wrong body needs.
const FEW_WORDS: usize = 300;

fuzz_target!(|data: &[u8]| {
    let Ok(body) = Body::parse(Bytes::copy_from_slice(data), Compression::None, data.len()) else { return };
    again(&body, Request::parse, Request::encode);
    again(&body, Reply::parse, Reply::encode);
    if let Ok(request) = Request::parse(&body) {
        within_bounds(&request.message);
    }
});

fn again<T: Debug>(body: &Body, parse: fn(&Body) -> Result<T, Invalid>, encode: fn(&T, &mut BytesMut)) {
    let value = match parse(body) {
        Ok(value) => value,
        Err(invalid) => return refused(body, &invalid),
    };
    let frame = framed(&value, encode);
    let mut decoder = FrameDecoder::new(frame.len());
    decoder.push(frame.clone());
    let written = decoder.next_body().expect("one frame").expect("a whole frame");
    assert!(!decoder.is_inside_frame(), "more than one frame");
    let written = Body::parse(written, Compression::None, frame.len()).expect("a body that was written here");
    let read = parse(&written).expect("what was written can be read");
    assert_eq!(format!("{read:?}"), format!("{value:?}"), "another value");
    assert_eq!(framed(&read, encode), frame, "another frame");
}

fn framed<T>(value: &T, encode: fn(&T, &mut BytesMut)) -> Bytes {
    let mut out = BytesMut::new();
    encode(value, &mut out);
    out.freeze()
}

fn refused(body: &Body, invalid: &Invalid) {
    assert!(!invalid.message.is_empty());
    assert!(invalid.message.chars().count() <= FEW_WORDS, "a long text about a wrong body");
    // The sender of an object gets an error about it, which does not count towards the end of the connection.
    if invalid.malformed && !invalid.message.contains("nested") && body.json.starts_with(b"{") {
        let object = serde_json::from_slice::<Map<String, Value>>(&body.json);
        assert!(object.is_err(), "a JSON object counted as none: {invalid}");
    }
}

fn within_bounds(message: &ClientMessage) {
    match message {
        ClientMessage::ListClients { limit, .. } | ClientMessage::History { limit, .. } => {
            assert!((1..=MAX_PAGE).contains(limit));
        }
        ClientMessage::Ping { timestamp } => assert!(timestamp.is_none_or(|number| number <= MAX_INTEGER)),
        ClientMessage::Subscribe(subscribe) => {
            assert!(subscribe.recent.is_none_or(|number| number <= MAX_INTEGER));
            assert!(subscribe.since.as_ref().is_none_or(|since| since.offset <= MAX_INTEGER));
            assert!(subscribe.since.is_none() || !subscribe.topic.is_wildcard());
        }
        ClientMessage::Close(close) => {
            assert!(close.code().is_sendable());
            assert!(close.reason().len() <= MAX_REASON_BYTES);
        }
        _ => {}
    }
}
