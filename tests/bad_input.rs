//! Bad input gets the answer of docs/PROTOCOL.md section 11, and nobody else notices anything.

#![allow(clippy::expect_used, clippy::panic)] // A test fails by panicking.

mod common;

use common::{RawClient, RawLane, TestServer, framed, soon, with_attachment};
use quic_websocket::Config;
use serde_json::{Value, json};

const LIMIT: u32 = 64 * 1024;

fn small_messages(config: &mut Config) {
    config.limits.max_message_bytes = LIMIT.into();
}

fn nested(depth: usize) -> Vec<u8> {
    // The message's own object is one level.
    format!(r#"{{"type":"ping","x":{}{}}}"#, "[".repeat(depth - 1), "]".repeat(depth - 1)).into_bytes()
}

/// Bodies that are no JSON messages at all.
fn malformed() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("first byte", b"x".to_vec()),
        ("first byte", br#"["type","ping"]"#.to_vec()),
        ("first byte", br#" {"type":"ping"}"#.to_vec()),
        ("first byte", vec![0]),
        ("UTF-8", b"{\"type\":\"text\",\"content\":\"\xff\"}".to_vec()),
        ("not a JSON object", br#"{"type":"ping""#.to_vec()),
        ("not a JSON object", br#"{"type":"ping"} {}"#.to_vec()),
        ("not a JSON object", b"{\"type\":\"text\",\"content\":\"a\nb\"}".to_vec()),
        ("nested", nested(65)),
        ("not a JSON object", with_attachment(&json!("no object"), b"x")),
    ]
}

/// The control lane or a new request lane.
async fn lane_of(client: &mut RawClient, on_control: bool) -> Option<RawLane> {
    if on_control { None } else { Some(client.lane().await) }
}

#[tokio::test]
async fn frames_that_cannot_be_read_on_close_the_connection_at_once() {
    let server = TestServer::start_with(small_messages).await;
    let mut neighbour = server.client("neighbour").await;
    // Of the longer ones nothing but the length is sent: who waits for more, or sets aside memory, fails here.
    for (what, bytes, code) in [
        ("a length of 0", vec![0; 4], 1002),
        ("one byte too many", (LIMIT + 1).to_be_bytes().to_vec(), 1009),
        ("the largest length", vec![0xff; 4], 1009),
        ("a compressed body without agreement", framed(&[0x02, 0x28, 0xb5, 0x2f, 0xfd]), 1002),
    ] {
        for on_control in [true, false] {
            let mut client = server.client("bad").await;
            let lane = lane_of(&mut client, on_control).await;
            let mut lane = lane;
            lane.as_mut().unwrap_or(&mut client.control).raw(&bytes).await;
            let close = client.expect_close(code).await;
            assert!(!close["reason"].as_str().unwrap_or_default().is_empty(), "{what}: {close} says why");
        }
    }
    neighbour.control.lives("the neighbour").await;
    server.stop().await;
}

#[tokio::test]
async fn a_body_of_exactly_the_limit_is_served() {
    let server = TestServer::start_with(small_messages).await;
    let mut client = server.client("Ada").await;
    let overhead = json!({"type": "text", "content": ""}).to_string().len();
    let text = "x".repeat(LIMIT as usize - overhead);
    client.control.say(json!({"type": "text", "content": text})).await;
    assert_eq!(client.control.expect("text").await["content"], format!("Echo: {text}"));
    server.stop().await;
}

#[tokio::test]
async fn three_malformed_bodies_in_a_row_close_1007_and_not_one_fewer() {
    let server = TestServer::start().await;
    let mut neighbour = server.client("neighbour").await;
    for (cause, body) in malformed() {
        for on_control in [true, false] {
            let mut client = server.client("bad").await;
            let mut lane = lane_of(&mut client, on_control).await;
            // Two, then a sound one, over and over: the connection lives on.
            for _ in 0..2 {
                let lane = lane.as_mut().unwrap_or(&mut client.control);
                for _ in 0..2 {
                    lane.body(&body).await;
                    let message = lane.expect_error(400).await;
                    assert!(message.contains(cause), "expected {message:?} to name {cause:?}");
                }
                lane.lives("a sound message").await;
            }
            let lane = lane.as_mut().unwrap_or(&mut client.control);
            for _ in 0..3 {
                lane.body(&body).await;
                lane.expect_error(400).await;
            }
            client.expect_close(1007).await;
        }
    }
    neighbour.control.lives("the neighbour").await;
    server.stop().await;
}

#[tokio::test]
async fn malformed_bodies_are_counted_over_all_lanes_and_datagrams() {
    let server = TestServer::start().await;
    let mut client = server.client("bad").await;
    let mut lane = client.lane().await;
    client.control.body(b"x").await;
    client.control.expect_error(400).await;
    lane.body(b"x").await;
    lane.expect_error(400).await;
    client.connection.send_datagram(b"x".to_vec().into()).expect("sent");
    let answer = soon("an answer", client.connection.read_datagram()).await.expect("a datagram");
    let answer: Value = serde_json::from_slice(&answer).expect("JSON");
    assert_eq!((&answer["type"], &answer["code"]), (&json!("error"), &json!(400)));
    client.expect_close(1007).await;
    server.stop().await;
}

#[tokio::test]
async fn nesting_up_to_the_bound_is_served() {
    let server = TestServer::start().await;
    let mut client = server.client("Ada").await;
    client.control.body(&nested(64)).await;
    client.control.expect("pong").await;
    // Brackets inside of strings are text.
    client.control.say(json!({"type": "text", "content": "[{".repeat(200)})).await;
    client.control.expect("text").await;
    server.stop().await;
}

#[tokio::test]
async fn a_wrong_body_between_sound_frames_costs_only_itself() {
    let server = TestServer::start().await;
    let mut client = RawClient::connect(&server.endpoint(), server.addr).await;
    client.handshake_with(json!({"type": "handshake", "protocol_version": "1.0", "compression": ["zstd"]})).await;
    let inner = zstd::bulk::compress(br#"{"type":"ping"}"#, 1).expect("compressed");
    let twice = zstd::bulk::compress(&[&[0x02][..], &inner].concat(), 1).expect("compressed");
    for (cause, body) in [
        ("attachment", vec![0x01]),
        ("attachment", vec![0x01, 0, 0]),
        ("attachment", [&[0x01, 0, 0, 0, 16][..], br#"{"type":"ping"}"#].concat()),
        ("attachment", [&[0x01, 0xff, 0xff, 0xff, 0xff][..], br#"{"type":"ping"}"#].concat()),
        ("zstd", vec![0x02]),
        ("zstd", b"\x02no zstd frame".to_vec()),
        ("zstd", [&[0x02][..], &inner[..inner.len() - 1]].concat()),
        ("zstd", [&[0x02][..], &inner, b"more"].concat()),
        ("zstd", [&[0x02][..], &twice].concat()),
    ] {
        // These are not counted: more than three in a row close nothing.
        client.control.body(&body).await;
        let message = client.control.expect_error(400).await;
        assert!(message.contains(cause), "{body:02x?}: expected {message:?} to name {cause:?}");
    }
    client.control.lives("behind all of them").await;
    server.stop().await;
}

#[tokio::test]
async fn a_compressed_body_is_inflated_no_further_than_the_limit() {
    let server = TestServer::start_with(small_messages).await;
    let mut neighbour = server.client("neighbour").await;
    let mut client = RawClient::connect(&server.endpoint(), server.addr).await;
    client.handshake_with(json!({"type": "handshake", "protocol_version": "1.0", "compression": ["zstd"]})).await;
    let bomb = zstd::bulk::compress(&vec![b'{'; 100 << 20], 1).expect("compressed");
    assert!(bomb.len() < LIMIT as usize, "a small body that is {} bytes long", bomb.len());
    client.control.body(&[&[0x02][..], &bomb].concat()).await;
    client.expect_close(1009).await;
    neighbour.control.lives("the neighbour").await;
    server.stop().await;
}

#[tokio::test]
async fn a_wrong_field_is_named_and_the_error_carries_the_id() {
    let server = TestServer::start().await;
    let mut client = server.client("bad").await;
    let nobody = "00000000-0000-4000-8000-000000000000";
    let long = "x".repeat(300);
    for (field, wrong) in [
        ("type", json!({})),
        ("type", json!({"type": 5})),
        ("type", json!({"type": "nonsense"})),
        ("content", json!({"type": "text"})),
        ("content", json!({"type": "text", "content": 5})),
        ("content", json!({"type": "text", "content": null})),
        ("attachment", json!({"type": "binary"})),
        ("content", json!({"type": "broadcast"})),
        ("content", json!({"type": "broadcast", "content": ["x"]})),
        ("to", json!({"type": "direct", "content": "x"})),
        ("to", json!({"type": "direct", "to": "Ada", "content": "x"})),
        ("to", json!({"type": "direct", "to": nobody.replace('-', ""), "content": "x"})),
        ("content", json!({"type": "direct", "to": nobody})),
        ("to", json!({"type": "signal", "data": 1})),
        ("data", json!({"type": "signal", "to": nobody})),
        ("timestamp", json!({"type": "ping", "timestamp": -1})),
        ("timestamp", json!({"type": "ping", "timestamp": 1.5})),
        ("timestamp", json!({"type": "ping", "timestamp": 9_007_199_254_740_992_u64})),
        ("limit", json!({"type": "list_clients", "limit": 0})),
        ("limit", json!({"type": "list_clients", "limit": 1001})),
        ("after", json!({"type": "list_clients", "after": "x"})),
        ("code", json!({"type": "close", "code": 1006})),
        ("code", json!({"type": "close", "code": 999})),
        ("code", json!({"type": "close", "code": 5000})),
        ("reason", json!({"type": "close", "reason": "x".repeat(124)})),
        ("topic", json!({"type": "subscribe"})),
        ("topic", json!({"type": "subscribe", "topic": ""})),
        ("topic", json!({"type": "subscribe", "topic": "x".repeat(256)})),
        ("topic", json!({"type": "subscribe", "topic": "a..b"})),
        ("topic", json!({"type": "subscribe", "topic": "a b"})),
        ("topic", json!({"type": "subscribe", "topic": "a.>.b"})),
        ("topic", json!({"type": "subscribe", "topic": "a*"})),
        ("since", json!({"type": "subscribe", "topic": "a", "since": {"epoch": "e"}})),
        ("since", json!({"type": "subscribe", "topic": "a.*", "since": {"epoch": "e", "offset": 1}})),
        ("recent", json!({"type": "subscribe", "topic": "a", "recent": -1})),
        ("delivery", json!({"type": "subscribe", "topic": "a", "delivery": "pigeon"})),
        ("lane", json!({"type": "subscribe", "topic": "a", "lane": "fast"})),
        ("presence", json!({"type": "subscribe", "topic": "a", "presence": "yes"})),
        ("topic", json!({"type": "unsubscribe"})),
        ("topic", json!({"type": "publish", "topic": "a.*", "content": "x"})),
        ("content", json!({"type": "publish", "topic": "a"})),
        ("key", json!({"type": "publish", "topic": "a", "content": "x", "key": ""})),
        ("key", json!({"type": "publish", "topic": "a", "content": "x", "key": long})),
        ("topic", json!({"type": "history", "topic": ">"})),
        ("limit", json!({"type": "history", "topic": "a", "limit": 0})),
        ("reverse", json!({"type": "history", "topic": "a", "reverse": 1})),
        ("topic", json!({"type": "presence", "topic": "*"})),
    ] {
        let mut wrong = wrong;
        wrong["id"] = json!(long.len());
        client.control.say(wrong.clone()).await;
        let error = client.control.expect("error").await;
        assert_eq!((&error["code"], &error["re"]), (&json!(400), &json!(long.len())), "{wrong} got {error}");
        let message = error["message"].as_str().unwrap_or_default();
        assert!(message.starts_with(&format!("{field}: ")), "{wrong}: expected {message:?} to name {field}");
    }
    for id in [json!(""), json!("x".repeat(65)), json!(-1), json!(1.5), json!(true), json!({}), json!(1_u64 << 53)] {
        client.control.say(json!({"type": "ping", "id": id})).await;
        let error = client.control.expect("error").await;
        assert_eq!((&error["code"], &error["re"]), (&json!(400), &Value::Null), "id {id} got {error}");
        assert!(error["message"].as_str().is_some_and(|m| m.starts_with("id: ")), "{error} names id");
    }
    client.control.body(br#"{"type":"ping","timestamp":1,"timestamp":2}"#).await;
    assert!(client.control.expect_error(400).await.contains("timestamp"), "a field that is there twice is named");
    client.control.say_with(json!({"type": "ping"}), b"x").await;
    assert!(client.control.expect_error(400).await.contains("attachment"), "an attachment where none belongs is named");
    // All of these were JSON: none was counted.
    client.control.lives("behind all of them").await;
    server.stop().await;
}

#[tokio::test]
async fn unknown_fields_are_ignored_whatever_they_hold() {
    let server = TestServer::start().await;
    let mut client = server.client("Ada").await;
    client.control.say(json!({"type": "ping", "id": 1, "topic": 5, "to": {}, "new": [{"x": null}], "key": -1})).await;
    assert_eq!(client.control.expect("pong").await["re"], 1);
    server.stop().await;
}

#[tokio::test]
async fn what_is_known_and_not_served_is_501() {
    let server = TestServer::start().await;
    let mut client = server.client("Ada").await;
    for (id, request) in [
        json!({"type": "subscribe", "topic": "a.*.>", "recent": 5, "lane": "control", "presence": true}),
        json!({"type": "subscribe", "topic": "a", "since": {"epoch": "e", "offset": 1}, "delivery": "datagram"}),
        json!({"type": "unsubscribe", "topic": "a"}),
        json!({"type": "publish", "topic": "a", "content": "x", "key": "k"}),
        json!({"type": "history", "topic": "a", "limit": 1000, "reverse": true}),
        json!({"type": "presence", "topic": "a"}),
    ]
    .into_iter()
    .enumerate()
    {
        let mut request = request;
        request["id"] = json!(id);
        client.control.say(request.clone()).await;
        let error = client.control.expect("error").await;
        assert_eq!((&error["code"], &error["re"]), (&json!(501), &json!(id)), "{request} got {error}");
    }
    client.control.say_with(json!({"type": "publish", "topic": "a"}), b"bytes").await;
    client.control.expect_error(501).await;
    server.stop().await;
}
