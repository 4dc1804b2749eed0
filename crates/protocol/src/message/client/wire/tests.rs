//! The fast way to read a message and the general one are the same: each message that the fast one accepts, the general
//! one reads as the same value, whatever bytes it is made of.

use std::path::Path;

use bytes::Bytes;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::strategy::Union;

use super::*;
use crate::frame::{Compression, FrameDecoder};
use crate::message::proptests::client_messages;

/// Names with a meaning, and others.
const NAMES: &str = r"
    type id content to data timestamp protocol_version client_name token compression limit after topic since recent
    delivery lane presence key reverse code reason since_time durable share ack ack_wait_ms max_in_flight max_deliver
    offset offsets outcome delay_ms forget other typ types \u0074ype";

/// The most common of them.
const COMMON: [&str; 3] = ["type", "id", "content"];

/// The types.
const TYPES: &str = r#"
    "text" "binary" "publish" "direct" "broadcast" "ping" "pong" "subscribe" "history" "presence" "close"
    "list_clients" "handshake" "ack" "unsubscribe""#;

/// Other values as JSON, or as something like it.
const VALUES: &str = r#"
    "eab95712-f81a-4916-a1a4-ee1bdbd0d292" "a.b" "a.*" "1.0" "" "ü" "a\nb" "\u00fc" "\ud83d" "\ud83d\ude00" "a\"
    0 7 01 -0 -1 1.0 1e3 9007199254740991 9007199254740992 999999999999999 18446744073709551616 1e999
    true false null tru {"a":[1,{"epoch":"e","offset":1}]} [] {}"#;

/// Values with characters that separate those above.
const SPACED: [&str; 5] = ["\"a\u{1f}\"", "\"\u{7f} \"", "\"\n\"", "1 2", "\"\u{2028}\""];

const SPACES: [&str; 8] = ["", "", "", "", "", " ", "\t\r\n", "\u{b}"];

fn word(words: &'static str) -> impl Strategy<Value = &'static str> {
    select(words.split_whitespace().collect::<Vec<_>>())
}

fn space() -> impl Strategy<Value = &'static str> {
    select(&SPACES[..])
}

fn member() -> impl Strategy<Value = String> {
    let name = prop_oneof![3 => select(&COMMON[..]), 2 => word(NAMES)];
    let value = prop_oneof![6 => word(TYPES), 9 => word(VALUES), 1 => select(&SPACED[..])];
    (space(), name, space(), space(), value, space())
        .prop_map(|(a, name, b, c, value, d)| format!(r#"{a}"{name}"{b}:{c}{value}{d}"#))
}

fn object() -> impl Strategy<Value = Vec<u8>> {
    (prop::collection::vec(member(), 0..6), space())
        .prop_map(|(members, space)| format!("{{{}}}{space}", members.join(",")).into_bytes())
}

fn message() -> impl Strategy<Value = Vec<u8>> {
    (any::<Option<u64>>(), Union::new(client_messages())).prop_map(|(id, message)| {
        let mut out = BytesMut::new();
        message.encode(id.map(RequestId::Number).as_ref(), &mut out);
        let mut decoder = FrameDecoder::new(usize::MAX);
        decoder.push(out.freeze());
        let body = decoder.next_body().expect("one frame").expect("a whole frame");
        Body::parse(body, Compression::None, usize::MAX).expect("a sound body").json.to_vec()
    })
}

/// Compares the ways. Returns whether the fast one accepts the message.
fn compare(json: &[u8], attachment: Option<&'static [u8]>) -> bool {
    let body = Body { json: Bytes::copy_from_slice(json), attachment: attachment.map(Bytes::from_static) };
    let Ok(text) = fields::text(body.json.clone()) else {
        assert!(Request::parse(&body).is_err_and(|invalid| invalid.malformed), "not UTF-8");
        return false;
    };
    let mut general = Request::read_any(&text, attachment.is_some());
    let fast = Request::read_flat(&text, attachment.is_some());
    if let (Ok(general), Some(attachment)) = (&mut general, attachment) {
        general.message.attach(Bytes::from_static(attachment));
    }
    assert_eq!(format!("{:?}", Request::parse(&body)), format!("{general:?}"), "{text}");
    let Some(mut fast) = fast else { return false };
    if let Some(attachment) = attachment {
        fast.message.attach(Bytes::from_static(attachment));
    }
    assert_eq!(format!("{:?}", Ok::<_, Invalid>(fast)), format!("{general:?}"), "{text}");
    true
}

fn both(json: &[u8]) {
    compare(json, None);
    compare(json, Some(b"attached"));
}

#[test]
fn the_common_messages_are_read_the_fast_way() {
    for (json, attachment) in [
        (r#"{"type":"text","content":"Hello, Wörld {[!"}"#, None),
        (r#"{"type":"text","id":7,"content":""}"#, None),
        (r#"{"type":"text","id":"\u00fc","content":"{\"a\":\"\\\\\",\"b\":[\"\ud83d\ude00\"]}"}"#, None),
        (r#"{ "type": "text", "id": "seven", "content": "Hello" }"#, None),
        (r#"{"type":"binary"}"#, Some(&b"bytes"[..])),
        (r#"{"type":"publish","id":0,"topic":"a.b","content":"Hello","key":"k"}"#, None),
        (r#"{"type":"direct","to":"eab95712-f81a-4916-a1a4-ee1bdbd0d292","content":"Hello"}"#, None),
        (r#"{"type":"ping","timestamp":1700000000000}"#, None),
        (r#"{"type":"subscribe","topic":"a","presence":true,"newer":false}"#, None),
        (r#"{"type":"ack","topic":"a","durable":"w","offset":7}"#, None),
        (r#"{"type":"ack","topic":"a","durable":"w","offset":7,"outcome":"retry","delay_ms":50}"#, None),
    ] {
        assert!(compare(json.as_bytes(), attachment), "{json}");
    }
}

#[test]
fn what_is_out_of_the_ordinary_is_read_the_general_way() {
    for json in [
        r#"{"type":"text","content":"a","other":"\ud83d"}"#,
        r#"{"type":"text","content":"a","other":"\q"}"#,
        r#"{"type":"text","content":"a\"#,
        r#"{"type":"text","content":"a","content":"b"}"#,
        r#"{"type":"text","content":"a","id":null}"#,
        r#"{"type":"text","content":"a","other":[1]}"#,
        r#"{"type":"subscribe","topic":"a","since":7}"#,
        r#"{"type":"ack","topic":"a","durable":"w","offsets":[7,8]}"#,
        r#"{"type":"handshake","protocol_version":"1.0","compression":"zstd"}"#,
        r#"{"type":"publish","topic":"a","data":[1,}"#,
        r#"{"type":"publish","topic":"a","meta":null,"data":}"#,
        r#"{"type":"text","content":"a","\u0069d":1}"#,
        r#"{"type":"text","content":"a"} x"#,
        r#"{"type":"text","content":"a",}"#,
        r#"{"type":"text","content":"a""#,
        r#"{"type":"text","content":"a","id":01}"#,
        r#"{"type":"text","content":7}"#,
        r#"{"type":"teleport"}"#,
        "{\"type\":\"text\",\"content\":\"a\tb\"}",
        "{}",
        "",
    ] {
        assert!(!compare(json.as_bytes(), None), "{json}");
    }
}

#[test]
fn every_fuzzing_seed_is_read_the_same_either_way() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds/message");
    let mut seeds = 0;
    for seed in std::fs::read_dir(folder).expect("the folder") {
        let bytes = std::fs::read(seed.expect("a seed").path()).expect("its bytes");
        seeds += 1;
        both(&bytes);
        if let Ok(body) = Body::parse(Bytes::from(bytes), Compression::None, usize::MAX) {
            both(&body.json);
        }
    }
    assert!(seeds > 50, "{seeds} seeds");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn any_message_is_read_the_same_either_way(json in prop_oneof![object(), message()]) {
        both(&json);
    }

    #[test]
    fn a_damaged_message_is_read_the_same_either_way(
        mut json in prop_oneof![object(), message()],
        damage in prop::collection::vec((any::<Index>(), prop_oneof![
            any::<u8>(),
            select(&b"\"\\{}[]:,0.-e \tn\x00\x1f\x7f\xff"[..]),
        ]), 1..4),
    ) {
        for (at, byte) in damage {
            let at = at.index(json.len());
            json[at] = byte;
        }
        both(&json);
    }
}
