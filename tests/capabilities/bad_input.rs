//! Each row of the bad-input table of docs/PROTOCOL.md: the response is the documented one, and no other client is
//! affected.

#![allow(clippy::expect_used, clippy::panic)] // A test fails by panicking.

use crate::common::forms::Form;
use crate::common::over::{Over, Party};
use crate::common::{On, TestServer, framed, soon, with_attachment};
use quinn::VarInt;
use serde_json::{Value, json};

const MAX: usize = 4096;

/// A server with a low limit, and a client on it that must be served as before, whatever the others send.
async fn server_and_neighbour() -> (TestServer, Party) {
    let server = TestServer::start_with(|config| config.limits.max_message_bytes = MAX as u64).await;
    let neighbour = Over::Native.party(&server, "neighbour").await;
    (server, neighbour)
}

fn is_error(reply: &Value, code: u16, about: &str) -> bool {
    let message = reply["message"].as_str().unwrap_or_default();
    reply["type"] == "error" && reply["code"] == code && message.starts_with(about)
}

/// `{"type":..., "a":[[[...]]]}` nested this deep, including the outer object.
fn nested(depth: usize) -> Vec<u8> {
    let (open, close) = ("[".repeat(depth - 1), "]".repeat(depth - 1));
    format!(r#"{{"type":"ping","a":{open}{close}}}"#).into_bytes()
}

#[tokio::test]
async fn an_invalid_frame_closes_the_connection_at_its_length() {
    let (server, mut neighbour) = server_and_neighbour().await;
    let zstd_magic = [2, 0x28, 0xb5, 0x2f, 0xfd];
    let deflate = [3, 1, 0, 0, 0xff, 0xff];
    let above = u32::try_from(MAX + 1).expect("a length").to_be_bytes();
    for (what, frame, code) in [
        ("length 0", vec![0, 0, 0, 0], 1002),
        ("one above the limit, of which nothing more comes", above.to_vec(), 1009),
        ("the largest length", u32::MAX.to_be_bytes().to_vec(), 1009),
        ("zstd that was not agreed on", framed(&zstd_magic), 1002),
        ("deflate that was not agreed on", framed(&deflate), 1002),
    ] {
        for (over, on) in Over::QUIC.into_iter().flat_map(|over| [(over, On::Control), (over, On::Lane)]) {
            let mut client = over.client(&server, "Eve").await;
            let ping = framed(br#"{"type":"ping"}"#);
            let mut lane = client.lane().await;
            let lane = if matches!(on, On::Lane) { &mut lane } else { &mut client.control };
            lane.raw(&[&ping[..], &frame].concat()).await;
            lane.expect("pong").await;
            let close = client.expect_close(code).await;
            assert!(close["reason"].as_str().is_some_and(|reason| !reason.is_empty()), "{what} on {on:?}: {close}");
        }
    }
    for over in Over::QUIC {
        let client = over.client(&server, "Eve").await;
        client.send_datagram(&zstd_magic);
        assert_eq!(client.closed().await.0, 1002, "zstd in a datagram");
    }
    // A WebSocket has its own framing, so only its content can be wrong.
    for (body, code) in [(&b""[..], 1002), (&zstd_magic, 1002), (&deflate, 1002), (&[b'{'; MAX + 1], 1009)] {
        let mut client = Over::WebSocket.party(&server, "Eve").await;
        client.control.bodies(&[br#"{"type":"ping"}"#.to_vec(), body.to_vec()]).await;
        client.control.expect("pong").await;
        client.expect_close(code).await;
    }
    neighbour.control.lives("a served client").await;
    server.stop().await;
}

#[tokio::test]
async fn a_body_as_long_as_the_limit_is_served() {
    let (server, _) = server_and_neighbour().await;
    let mut body = json!({"type": "ping"}).to_string();
    body.push_str(&" ".repeat(MAX - body.len()));
    for over in Over::ALL {
        let mut client = over.party(&server, "Ada").await;
        for &on in over.ways().iter().filter(|&&on| !matches!(on, On::Datagram)) {
            assert_eq!(client.ask(on, body.as_bytes()).await["type"], "pong", "on {on:?} of {over:?}");
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn a_body_that_inflates_beyond_the_limit_closes_the_connection() {
    let (server, mut neighbour) = server_and_neighbour().await;
    let bomb = |form: Form, length| {
        let body = with_attachment(&json!({"type": "binary"}), &vec![0; length - 22]);
        assert_eq!(body.len(), length);
        form.body(&body)
    };
    for form in Form::ALL {
        for (length, refused) in [(MAX, false), (MAX + 1, true), (64 << 20, true)] {
            let body = bomb(form, length);
            for over in Over::ALL {
                let mut client = over.newcomer(&server).await;
                client.handshake_with(form.handshake()).await;
                client.control.body(&body).await;
                if refused {
                    client.expect_close(1009).await;
                } else {
                    client.control.hear_body().await;
                }
            }
        }
    }
    neighbour.control.lives("a served client").await;
    server.stop().await;
}

#[tokio::test]
async fn three_consecutive_unreadable_bodies_close_the_connection() {
    let (server, mut neighbour) = server_and_neighbour().await;
    let message = json!({"type": "text", "content": "x"});
    let no_utf8 = b"{\"type\":\"text\",\"content\":\"\xff\"}";
    for (what, body) in [
        ("no first byte of a body", b"\x04{}".to_vec()),
        ("white space first", b" {\"type\":\"ping\"}".to_vec()),
        ("a byte-order mark first", b"\xef\xbb\xbf{\"type\":\"ping\"}".to_vec()),
        ("an array", b"[1]".to_vec()),
        ("no UTF-8", no_utf8.to_vec()),
        ("half an object", b"{\"type\":\"ping\"".to_vec()),
        ("two objects", b"{\"type\":\"ping\"}{}".to_vec()),
        ("nested too deep", nested(65)),
        ("no object before its attachment", [&[1, 0, 0, 0, 2][..], b"[]more"].concat()),
        ("nothing before its attachment", [&[1, 0, 0, 0, 0][..], b"more"].concat()),
    ] {
        for over in Over::ALL {
            let mut client = over.party(&server, "Eve").await;
            // Two of them, then others in between, on the ways this carrier has.
            let (first, well_formed, others) = match over {
                Over::WebSocket => ([On::Control, On::Control], On::Control, [On::Control, On::Control]),
                _ => ([On::Control, On::Datagram], On::Lane, [On::Lane, On::Control]),
            };
            for on in first {
                let reply = client.ask(on, &body).await;
                assert!(is_error(&reply, 400, "") && reply.get("re").is_none(), "{what} on {on:?}: {reply}");
            }
            for body_between in [message.to_string(), json!({"type": "unknown"}).to_string()] {
                let reply = client.ask(well_formed, body_between.as_bytes()).await;
                assert_ne!(reply["type"], "close", "{what}");
                for on in others {
                    let reply = client.ask(on, &body).await;
                    assert!(is_error(&reply, 400, ""), "{what} on {on:?}, after a good one: {reply}");
                }
            }
            client.control.body(&body).await;
            client.control.expect_error(400).await;
            client.expect_close(1007).await;
        }
    }
    let reply = neighbour.ask(On::Control, &nested(64)).await;
    assert_eq!(reply["type"], "pong", "64 deep is allowed");
    neighbour.control.lives("a served client").await;
    server.stop().await;
}

#[tokio::test]
async fn a_json_length_beyond_the_body_is_only_an_error() {
    let (server, mut neighbour) = server_and_neighbour().await;
    for over in Over::ALL {
        let mut client = over.party(&server, "Eve").await;
        for &on in over.ways() {
            for body in
                [&[1_u8, 0, 0, 0, 3, b'{', b'}'][..], &[1, 0xff, 0xff, 0xff, 0xff, b'{', b'}'], &[1, 0, 0], &[1]]
            {
                let reply = client.ask(on, body).await;
                assert!(is_error(&reply, 400, "attachment"), "{body:?} on {on:?}: {reply}");
            }
        }
        client.control.lives("a served client").await;
    }
    neighbour.control.lives("a served client").await;
    server.stop().await;
}

#[tokio::test]
async fn a_truncated_lane_ends_alone() {
    let (server, mut neighbour) = server_and_neighbour().await;
    let mut client = server.client("Ada").await;
    let ping = framed(br#"{"type":"ping"}"#);
    for reset in [false, true] {
        for rest in [&[][..], &[0, 0], &[0, 0, 0, 9, b'{']] {
            let mut lane = client.lane().await;
            lane.raw(&[&ping[..], rest].concat()).await;
            lane.expect("pong").await;
            if reset {
                lane.send.reset(VarInt::from_u32(7)).expect("it was open");
            } else {
                lane.send.finish().expect("it was open");
            }
            let end = soon("the lane's end", lane.receive.read_to_end(100)).await;
            assert!(end.is_ok_and(|rest| rest.is_empty()), "the server ends its side, too");
            client.control.lives("a served client").await;
        }
    }
    neighbour.control.lives("a served client").await;
    server.stop().await;
}

#[tokio::test]
async fn a_truncated_control_lane_ends_the_connection() {
    let (server, mut neighbour) = server_and_neighbour().await;
    for (rest, reset) in [(&[0, 0][..], false), (&[0, 0, 0, 9, b'{'], false), (&[], true), (&[0, 0, 0, 9], true)] {
        let mut client = server.client("Eve").await;
        client.control.raw(rest).await;
        if reset {
            client.control.send.reset(VarInt::from_u32(7)).expect("it was open");
        } else {
            client.control.send.finish().expect("it was open");
        }
        client.expect_close(1002).await;
    }
    let mut client = server.client("Eve").await;
    client.control.receive.stop(VarInt::from_u32(7)).expect("it was open");
    client.control.say(json!({"type": "ping"})).await;
    assert_eq!(client.closed().await.0, 1002, "a control lane that is not read");
    neighbour.control.lives("a served client").await;
    server.stop().await;
}

#[tokio::test]
async fn a_unidirectional_stream_closes_the_connection() {
    let (server, mut neighbour) = server_and_neighbour().await;
    for bytes in [&[][..], &framed(br#"{"type":"ping"}"#)] {
        let mut client = server.client("Eve").await;
        let mut stream = soon("a stream", client.connection.open_uni()).await.expect("a stream");
        stream.write_all(bytes).await.expect("the stream takes bytes");
        stream.finish().expect("it was open");
        client.expect_close(1002).await;
    }
    neighbour.control.lives("a served client").await;
    server.stop().await;
}

#[tokio::test]
async fn a_datagram_above_the_limit_closes_the_connection() {
    let server = TestServer::start_with(|config| config.limits.max_message_bytes = 1024).await;
    let mut client = server.client("bad").await;
    client.connection.send_datagram(vec![b'{'; 1100].into()).expect("a datagram leaves");
    client.expect_close(1009).await;
    server.stop().await;
}

#[tokio::test]
async fn the_third_malformed_body_gets_its_error_too() {
    let server = TestServer::start().await;
    for over in Over::ALL {
        let mut client = over.party(&server, "bad").await;
        for &on in over.ways().iter().cycle().take(3) {
            assert_eq!(client.ask(on, b"x").await["code"], 400);
        }
        client.expect_close(1007).await;
    }
    server.stop().await;
}

#[tokio::test]
async fn an_error_does_not_repeat_the_whole_invalid_input() {
    let server = TestServer::start().await;
    for over in Over::ALL {
        let mut client = over.party(&server, "bad").await;
        let long = "\u{1b}".repeat(50_000);
        for message in
            [json!({"type": long}), json!({"type": "subscribe", "topic": "a", "since": {"epoch": 5, "offset": long}})]
        {
            client.control.say(message).await;
            let length = client.control.expect_error(400).await.chars().count();
            assert!(length < 300, "an error of {length} characters");
        }
    }
    server.stop().await;
}
