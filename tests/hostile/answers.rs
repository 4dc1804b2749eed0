//! Every row of the bad-input table of docs/PROTOCOL.md, and other content of a body that may confuse a parser.

use quinn::VarInt;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::common::forms::Form;
use super::common::{On, RawClient, framed, with_attachment};
use super::scene::{Scene, Target};

const MAX: usize = 4096;
const SMALL: &str = "limits.max_message_bytes = 4096";

/// Result of an input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    /// `error` with this code, and the connection stays open.
    Error(u64),
    /// The connection closes with this code.
    Close(u64),
    /// A reply of this type.
    Reply(&'static str),
}

/// Sender of an input.
#[derive(Debug, Clone, Copy)]
enum By {
    /// A connection without a handshake.
    Stranger,
    Client,
    /// A client that negotiated zstd.
    Compressing,
    /// A client that negotiated deflate.
    Deflating,
}

use Answer::{Close, Error, Reply};

/// Sends raw bytes on the control lane or on a separate one, and returns the result.
async fn provoke(target: &Target, by: By, on: On, bytes: &[u8]) -> Answer {
    let mut client = match by {
        By::Stranger => target.stranger().await,
        By::Client => target.client("Eve").await,
        By::Compressing => target.compressing("Eve").await,
        By::Deflating => target.compressing_with(Form::Deflate, "Eve").await,
    };
    let mut answer = None;
    match on {
        On::Datagram => client.connection.send_datagram(bytes.to_vec().into()).expect("a datagram leaves"),
        On::Lane => {
            let mut lane = client.lane().await;
            lane.raw(bytes).await;
            if let Ok(body) = lane.try_hear_body().await {
                answer = Some(body);
            }
        }
        On::Control => {
            client.control.raw(bytes).await;
            answer = client.control.try_hear_body().await.ok();
        }
    }
    if matches!(on, On::Datagram) {
        answer = tokio::select! {
            datagram = client.connection.read_datagram() => datagram.ok().map(|body| body.to_vec()),
            body = client.control.try_hear_body() => body.ok(),
        };
    }
    let said: Value = answer.map_or(Value::Null, |body| match body.first() {
        Some(1) => json!({"type": "binary"}),
        // Content too large for the limit is sent compressed.
        Some(2 | 3) => json!({"type": "binary"}),
        _ => serde_json::from_slice(&body).expect("JSON"),
    });
    match said["type"].as_str() {
        None | Some("close") => {
            let (code, _) = client.closed().await;
            assert!(said.is_null() || said["code"] == code, "{said} and then {code}");
            Close(code)
        }
        Some("error") => {
            assert!(said["message"].as_str().is_some_and(|text| text.chars().count() < 300), "few words: {said}");
            if matches!(by, By::Client) {
                client.control.lives("a client after a mistake").await;
            }
            Error(said["code"].as_u64().expect("a code"))
        }
        Some("pong") => Reply("pong"),
        Some("binary") => Reply("binary"),
        Some("text") => Reply("text"),
        Some(other) => panic!("unexpected {other}"),
    }
}

/// Provokes each of the results, several at a time.
async fn provoke_all(target: &Target, rows: Vec<(&'static str, By, On, Vec<u8>, Answer)>) {
    let mut provoked = JoinSet::new();
    for (what, by, on, bytes, expected) in rows {
        let target = target.clone();
        provoked.spawn(async move {
            let answer = provoke(&target, by, on, &bytes).await;
            assert_eq!(answer, expected, "{what}, by a {by:?} on {on:?}");
        });
        if provoked.len() >= 16 {
            provoked.join_next().await.expect("some").expect("as expected");
        }
    }
    while let Some(ended) = provoked.join_next().await {
        ended.expect("as expected");
    }
}

/// `{"type":"ping","a":[[[...]]]}` nested this deep, including the outer object.
fn nested(depth: usize) -> Vec<u8> {
    format!(r#"{{"type":"ping","a":{}{}}}"#, "[".repeat(depth - 1), "]".repeat(depth - 1)).into_bytes()
}

fn zstd(body: &[u8]) -> Vec<u8> {
    [&[2][..], &zstd::bulk::compress(body, 3).expect("it compresses")].concat()
}

#[tokio::test]
async fn every_row_of_bad_input_is_answered_as_documented() {
    let scene = Scene::start(SMALL).await;
    let ping = br#"{"type":"ping"}"#;
    let handshake = |version: &str, name: &str| {
        framed(json!({"type": "handshake", "protocol_version": version, "client_name": name}).to_string().as_bytes())
    };
    let mut rows = vec![
        ("an empty datagram", By::Client, On::Datagram, vec![], Close(1002)),
        ("a datagram with zstd that was not agreed on", By::Client, On::Datagram, zstd(ping), Close(1002)),
        ("no handshake first", By::Stranger, On::Control, framed(ping), Close(1002)),
        ("an unknown type first", By::Stranger, On::Control, framed(br#"{"type":"x"}"#), Close(1002)),
        ("unreadable first", By::Stranger, On::Control, framed(b"x"), Error(400)),
        ("a wrong name", By::Stranger, On::Control, handshake("1.0", ""), Error(400)),
        ("a second handshake", By::Client, On::Control, handshake("1.0", "Eve"), Error(409)),
        ("a second handshake that is wrong", By::Client, On::Control, handshake("1.0", ""), Error(400)),
    ];
    let plain = |length: usize| with_attachment(&json!({"type": "binary"}), &vec![0; length - 22]);
    let binary = |length: usize| zstd(&plain(length));
    let deflated = |body: &[u8]| Form::Deflate.body(body);
    let frames = [
        ("length 0", By::Client, framed(b""), Close(1002)),
        ("zstd that was not agreed on", By::Client, framed(&zstd(ping)), Close(1002)),
        ("too much to inflate", By::Compressing, framed(&binary(MAX + 1)), Close(1009)),
        ("very much to inflate", By::Compressing, framed(&binary(64 << 20)), Close(1009)),
        ("as much as may be inflated", By::Compressing, framed(&binary(MAX)), Reply("binary")),
        ("two zstd frames", By::Compressing, framed(&[zstd(ping), zstd(ping)[1..].to_vec()].concat()), Error(400)),
        ("half a zstd frame", By::Compressing, framed(&zstd(ping)[..9]), Error(400)),
        ("zstd in zstd", By::Compressing, framed(&zstd(&zstd(ping))), Error(400)),
        ("nothing in zstd", By::Compressing, framed(&zstd(b"")), Error(400)),
        ("deflate that was not agreed on", By::Client, framed(&deflated(ping)), Close(1002)),
        ("deflate where zstd was agreed on", By::Compressing, framed(&deflated(ping)), Close(1002)),
        ("zstd where deflate was agreed on", By::Deflating, framed(&zstd(ping)), Close(1002)),
        ("too much deflated", By::Deflating, framed(&deflated(&plain(MAX + 1))), Close(1009)),
        ("very much deflated", By::Deflating, framed(&deflated(&plain(64 << 20))), Close(1009)),
        ("as much deflated as may be", By::Deflating, framed(&deflated(&plain(MAX))), Reply("binary")),
        ("half a deflate stream", By::Deflating, framed(&deflated(ping)[..9]), Error(400)),
        ("deflate in deflate", By::Deflating, framed(&deflated(&deflated(ping))), Error(400)),
        ("bytes behind the deflate stream", By::Deflating, framed(&[deflated(ping), vec![0]].concat()), Error(400)),
        ("json_len beyond the body", By::Client, framed(&[1, 0, 0, 0, 3, b'{', b'}']), Error(400)),
    ];
    for on in [On::Control, On::Lane] {
        rows.extend(frames.iter().map(|(what, by, bytes, answer)| (*what, *by, on, bytes.clone(), *answer)));
    }
    let bodies: [(&str, &[u8], Answer); 11] = [
        ("another first byte", b"\x04{}", Error(400)),
        ("no UTF-8", b"{\"type\":\"text\",\"content\":\"\xff\"}", Error(400)),
        ("no object", b"[{\"type\":\"ping\"}]", Error(400)),
        ("65 deep", &nested(65), Error(400)),
        ("64 deep", &nested(64), Reply("pong")),
        ("an unknown type", br#"{"type":"teleport"}"#, Error(400)),
        ("no type", b"{}", Error(400)),
        ("a field of the wrong kind", br#"{"type":"text","content":5}"#, Error(400)),
        ("a field that is missing", br#"{"type":"text"}"#, Error(400)),
        ("a field there twice", br#"{"type":"text","content":"a","content":"b"}"#, Error(400)),
        ("an attachment where none belongs", &with_attachment(&json!({"type": "ping"}), b"x"), Error(400)),
    ];
    for on in On::EACH {
        for (what, body, answer) in &bodies {
            let bytes = if matches!(on, On::Datagram) { body.to_vec() } else { framed(body) };
            rows.push((what, By::Client, on, bytes, *answer));
        }
    }
    provoke_all(&scene.target, rows).await;

    // Results that need more than one input.
    let target = &scene.target;
    let mut client = target.client("Eve").await;
    for _ in 0..3 {
        client.control.body(b"x").await;
        client.control.expect_error(400).await;
    }
    client.expect_close(1007).await;
    let mut client = target.stranger().await;
    for _ in 0..3 {
        client.control.say(json!({"type": "handshake"})).await;
        client.control.expect_error(400).await;
    }
    client.expect_close(1002).await;
    let mut client = target.stranger().await;
    client.control.raw(&handshake("2.0", "Eve")).await;
    assert_eq!(client.control.expect("handshake_response").await["accepted"], false);
    client.expect_close(1002).await;
    for reset in [false, true] {
        let mut client = target.client("Eve").await;
        let mut lane = client.lane().await;
        for lane in [&mut lane, &mut client.control] {
            lane.raw(&[0, 0, 0, 9, b'{']).await;
            if reset {
                lane.send.reset(VarInt::from_u32(7)).expect("it was open");
            } else {
                lane.send.finish().expect("it was open");
            }
        }
        client.expect_close(1002).await;
    }
    scene.end().await;
}

#[tokio::test]
async fn huge_and_negative_looking_lengths_are_read_correctly() {
    let scene = Scene::start("").await;
    let above = (1_u32 << 20) + 1;
    let mut rows = Vec::new();
    for (what, length) in [
        ("the largest length", u32::MAX),
        ("the largest but one", u32::MAX - 1),
        ("-2^31", 1 << 31),
        ("2^31 - 1", (1 << 31) - 1),
        ("one above the limit", above),
    ] {
        let bytes = length.to_be_bytes().to_vec();
        rows.push((what, By::Stranger, On::Control, bytes.clone(), Close(1009)));
        for on in [On::Control, On::Lane] {
            rows.push((what, By::Client, on, bytes.clone(), Close(1009)));
            rows.push((what, By::Client, on, [&bytes[..], &[b'{'; 5000]].concat(), Close(1009)));
        }
        for on in On::EACH {
            for rest in [&b""[..], b"{}", br#"{"type":"ping"}"#] {
                let body = [&[1], &bytes[..], rest].concat();
                let bytes = if matches!(on, On::Datagram) { body } else { framed(&body) };
                rows.push((what, By::Client, on, bytes, Error(400)));
            }
        }
    }
    for cut in 1..5 {
        let body = [1, 0xff, 0xff, 0xff, 0xff][..cut].to_vec();
        rows.push(("a json_len that is cut off", By::Client, On::Datagram, body.clone(), Error(400)));
        rows.push(("a json_len that is cut off", By::Client, On::Lane, framed(&body), Error(400)));
    }
    provoke_all(&scene.target, rows).await;
    scene.end().await;
}

#[tokio::test]
async fn json_designed_to_break_parsers_is_refused_or_read_correctly() {
    let scene = Scene::start("").await;
    let digits = "9".repeat(100_000);
    let objects = format!("{}1{}", "{\"a\":".repeat(100_000), "}".repeat(100_000));
    let many_keys: String = (0..50_000).map(|n| format!("\"k{n}\":0,")).collect();
    let same_keys = "\"k\":0,".repeat(100_000);
    let cases: Vec<(&'static str, Vec<u8>, Answer)> = vec![
        ("100,000 arrays deep", nested(100_000), Error(400)),
        ("arrays that never end", [&br#"{"type":"ping","a":"#[..], &[b'['; 500_000]].concat(), Error(400)),
        ("100,000 objects deep", format!(r#"{{"type":"ping","a":{objects}}}"#).into(), Error(400)),
        ("objects that never end", "{\"a\":".repeat(100_000).into(), Error(400)),
        (
            "signal with data 100,000 deep",
            format!(r#"{{"type":"signal","to":"x","data":{objects}}}"#).into(),
            Error(400),
        ),
        (
            "65 deep in a since",
            format!(r#"{{"type":"history","topic":"a","since":{{"a":{}{}}}}}"#, "[".repeat(63), "]".repeat(63)).into(),
            Error(400),
        ),
        ("a number of 100,000 digits", format!(r#"{{"type":"ping","timestamp":{digits}}}"#).into(), Error(400)),
        ("an id of 100,000 digits", format!(r#"{{"type":"ping","id":{digits}}}"#).into(), Error(400)),
        ("a fraction of 100,000 digits", format!(r#"{{"type":"ping","timestamp":0.{digits}}}"#).into(), Error(400)),
        ("an exponent of 100,000 digits", format!(r#"{{"type":"ping","timestamp":1e{digits}}}"#).into(), Error(400)),
        ("a large exponent in an unknown field", br#"{"type":"ping","new":1e308}"#.to_vec(), Reply("pong")),
        ("NaN", br#"{"type":"ping","timestamp":NaN}"#.to_vec(), Error(400)),
        ("-0", br#"{"type":"ping","timestamp":-0}"#.to_vec(), Error(400)),
        ("a leading zero", br#"{"type":"ping","timestamp":01}"#.to_vec(), Error(400)),
        ("a lone high surrogate", br#"{"type":"text","content":"\ud800"}"#.to_vec(), Error(400)),
        ("a lone low surrogate", br#"{"type":"text","content":"\udc00x"}"#.to_vec(), Error(400)),
        ("surrogates the wrong way round", br#"{"type":"text","content":"\udc00\ud800"}"#.to_vec(), Error(400)),
        ("a surrogate in UTF-8", b"{\"type\":\"text\",\"content\":\"\xed\xa0\x80\"}".to_vec(), Error(400)),
        ("a long form in UTF-8", b"{\"type\":\"text\",\"content\":\"\xc0\xaf\"}".to_vec(), Error(400)),
        ("UTF-8 that is cut off", b"{\"type\":\"text\",\"content\":\"\xf0\x9f\x9a\"}".to_vec(), Error(400)),
        ("invalid UTF-8 in an unknown field", b"{\"type\":\"ping\",\"new\":\"\xff\"}".to_vec(), Error(400)),
        ("a raw control character", b"{\"type\":\"text\",\"content\":\"\x01\"}".to_vec(), Error(400)),
        ("a NUL", b"{\"type\":\"ping\"\0}".to_vec(), Error(400)),
        ("a comment", b"{\"type\":\"ping\"/* */}".to_vec(), Error(400)),
        ("the type twice", br#"{"type":"ping","type":"close"}"#.to_vec(), Error(400)),
        ("the id twice", br#"{"type":"ping","id":1,"id":2}"#.to_vec(), Error(400)),
        ("the type twice, once escaped", br#"{"type":"ping","typ\u0065":"close"}"#.to_vec(), Error(400)),
        ("50,000 unknown keys", format!(r#"{{{many_keys}"type":"ping"}}"#).into(), Reply("pong")),
        ("one key 100,000 times", format!(r#"{{{same_keys}"type":"ping"}}"#).into(), Reply("pong")),
        ("a type of a megabyte", format!(r#"{{"type":"{}"}}"#, "x".repeat(1_000_000)).into(), Error(400)),
        (
            "a key of a megabyte",
            format!(r#"{{"type":"ping","{}":1}}"#, "\\u0000".repeat(160_000)).into(),
            Reply("pong"),
        ),
    ];
    let mut rows = Vec::new();
    for (what, body, answer) in cases {
        for on in On::EACH {
            let bytes = match on {
                On::Datagram if body.len() > 1000 => continue,
                On::Datagram => body.clone(),
                On::Control | On::Lane => framed(&body),
            };
            rows.push((what, By::Client, on, bytes, answer));
        }
        // Compressed, it has the same result.
        rows.push((what, By::Compressing, On::Lane, framed(&zstd(&body)), answer));
        rows.push((what, By::Deflating, On::Lane, framed(&Form::Deflate.body(&body)), answer));
    }
    provoke_all(&scene.target, rows).await;
    scene.end().await;
}

/// Characters that reverse or hide text, move cursors, ring bells and end lines.
const TRICKS: [&str; 8] = [
    "\u{202e}gnp.exe\u{202c}",
    "\u{2066}\u{2067}\u{2068}\u{2069}\u{200f}\u{061c}",
    "\u{200b}\u{feff}\u{2028}\u{2029}",
    "\u{1b}[2J\u{1b}]0;title\u{7}",
    "\r\n2026-01-01T00:00:00Z  INFO all is well",
    "\0\u{8}\u{7f}\u{85}\u{9b}31m",
    "e\u{301}\u{301}\u{301}\u{301}",
    "\u{10ffff}\u{fffe}\u{1f468}\u{200d}\u{1f469}",
];

#[tokio::test]
async fn control_characters_and_bidi_overrides_are_delivered_as_sent_or_refused() {
    let scene = Scene::start("").await;
    let target = &scene.target;
    for trick in TRICKS {
        let mut client = target.stranger().await;
        let turns = |c: char| c.is_control() || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        let controls = trick.chars().any(turns);
        let handshake = json!({"type": "handshake", "protocol_version": "1.0", "client_name": trick});
        if controls {
            client.control.say(handshake).await;
            assert!(client.control.expect_error(400).await.starts_with("client_name"), "{trick:?}");
            client.handshake("Eve").await;
        } else {
            client.handshake_with(handshake).await;
            let after = json!({"type": "list_clients", "limit": 1000}).to_string();
            let list = client.ask(On::Control, after.as_bytes()).await;
            let found = list["clients"].as_array().expect("clients").iter().any(|other| other["name"] == trick);
            assert!(found, "{trick:?} in {list}");
        }
        let reply = client.ask(On::Control, json!({"type": "text", "content": trick}).to_string().as_bytes()).await;
        assert_eq!(reply["content"], format!("Echo: {trick}"));
        client.control.say(json!({"type": "direct", "to": client.id, "content": trick})).await;
        assert_eq!(client.control.expect("direct").await["content"], trick);
        client.control.say(json!({"type": "signal", "to": client.id, "data": {trick: trick}})).await;
        assert_eq!(client.control.expect("signal").await["data"], json!({trick: trick}));
        let subscribe = json!({"type": "subscribe", "topic": trick, "id": trick}).to_string();
        let error = client.ask(On::Control, subscribe.as_bytes()).await;
        assert_eq!((&error["code"], &error["re"]), (&json!(400), &json!(trick)));
        let unknown = client.ask(On::Control, json!({"type": trick}).to_string().as_bytes()).await;
        let text = unknown["message"].as_str().expect("a text");
        assert!(!text.chars().any(char::is_control), "unknown names are not repeated verbatim: {unknown}");
        leave_with(client, trick).await;
    }
    scene.end().await;
}

/// A reason may contain anything; the connection closes with the code all the same.
async fn leave_with(mut client: RawClient, reason: &str) {
    client.control.say(json!({"type": "close", "code": 3000, "reason": reason})).await;
    assert_eq!(client.closed().await, (3000, reason.to_owned()));
}
