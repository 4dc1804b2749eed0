//! Frames and messages (RFC 6455 sections 5 to 8): well-formed ones are served however they are split, malformed ones
//! close the connection with the standard's code.

use serde_json::json;

use super::common::bare::{BINARY, Bare, CLOSE, CONTINUATION, FIN, PING, PONG, TEXT, close, frame, head, plain};
use super::common::{TestServer, with_attachment};

const MAX: usize = 4096;

/// A server with a low limit.
async fn server() -> TestServer {
    TestServer::start_with(|config| {
        plain(config);
        config.limits.max_message_bytes = MAX as u64;
    })
    .await
}

async fn echo_server() -> TestServer {
    TestServer::start_with(|config| {
        plain(config);
        config.http.echo = true;
    })
    .await
}

/// A ping of the protocol with any length.
fn ping(length: usize) -> Vec<u8> {
    let mut body = json!({"type": "ping", "id": length}).to_string();
    body.push_str(&" ".repeat(length - body.len()));
    body.into_bytes()
}

/// One message in frames of this size.
fn cut(kind: u8, body: &[u8], size: usize) -> Vec<u8> {
    let pieces: Vec<_> = body.chunks(size).collect();
    let last = pieces.len() - 1;
    let frames = pieces.iter().enumerate().map(|(n, piece)| {
        let opcode = if n == 0 { kind } else { CONTINUATION };
        frame(if n == last { FIN | opcode } else { opcode }, piece)
    });
    frames.collect::<Vec<_>>().concat()
}

#[tokio::test]
async fn a_message_of_any_length_is_served_in_one_frame_and_in_many_up_to_the_limit() {
    let server = server().await;
    let mut client = Bare::client(&server).await;
    // Lengths up to 125 bytes, from 126 on, and from 65,536 on have different encodings; the latter is above the limit
    // here.
    for length in [30, 125, 126, 127, 1000, MAX - 1, MAX] {
        let body = ping(length);
        for kind in [TEXT, BINARY] {
            for size in [length, 100, 7, 1] {
                client.send(&cut(kind, &body, size)).await;
                assert_eq!(client.hear().await["re"], length, "{length} bytes in frames of {size}");
            }
        }
    }
    for bytes in [
        frame(FIN | TEXT, &ping(MAX + 1)),
        cut(TEXT, &ping(MAX + 1), MAX),
        cut(BINARY, &ping(MAX + 1), 1000),
        // For these nothing more arrives.
        head(FIN | TEXT, 0x80, MAX as u64 + 1),
        head(BINARY, 0x80, 1 << 32),
        head(FIN | BINARY, 0x80, u64::MAX >> 1),
    ] {
        let mut client = Bare::client(&server).await;
        let with_mask = if bytes.len() <= 10 { [&bytes[..], &[0; 4]].concat() } else { bytes };
        client.send(&with_mask).await;
        assert_eq!(client.hear().await["code"], 1009, "the error message comes first");
        assert_eq!(client.closed().await.0, Some(1009));
    }
    client.lives("a client within the limit").await;
    server.stop().await;
}

#[tokio::test]
async fn control_frames_may_appear_between_the_fragments_of_a_message() {
    let server = server().await;
    let mut client = Bare::client(&server).await;
    let body = ping(40);
    let (one, rest) = body.split_at(10);
    let (two, three) = rest.split_at(10);
    client
        .send(
            &[
                frame(TEXT, one),
                frame(PING, b"in between"),
                frame(CONTINUATION, two),
                frame(PONG, b"nobody asked"),
                frame(CONTINUATION, b""),
                frame(PING, b""),
                frame(FIN | CONTINUATION, three),
            ]
            .concat(),
        )
        .await;
    // Of several pings only the newest need be answered (section 5.5.3).
    let mut pongs = Vec::new();
    let answer = loop {
        let (first, payload) = client.frame().await.expect("a frame");
        match first {
            PONG => pongs.push(payload),
            _ => break (first, payload),
        }
    };
    assert_eq!(answer.0, FIN | TEXT);
    if pongs.last().is_none_or(|last| !last.is_empty()) {
        assert_eq!(client.frame().await, Some((PONG, Vec::new())), "the last ping is answered");
    }
    // And one that arrives during an unfinished message is answered before the message is finished.
    client.send(&frame(TEXT, one)).await;
    client.send(&frame(PING, b"now")).await;
    assert_eq!(client.frame().await, Some((PONG, b"now".to_vec())));
    client.send(&frame(FIN | CONTINUATION, rest)).await;
    assert_eq!(client.hear().await["re"], 40);
    server.stop().await;
}

#[tokio::test]
async fn pings_are_answered_with_their_payload_and_pongs_not_at_all() {
    let server = server().await;
    let mut client = Bare::client(&server).await;
    for length in [0, 1, 64, 125] {
        let payload: Vec<u8> = (0..length).map(|n| 255 - n).collect();
        client.send(&frame(PING, &payload)).await;
        assert_eq!(client.frame().await, Some((PONG, payload)));
        client.send(&frame(PONG, b"unsolicited")).await;
    }
    client.lives("a client with ignored pongs").await;
    server.stop().await;
}

#[tokio::test]
async fn frames_may_be_split_anywhere_and_many_may_arrive_at_once() {
    let server = server().await;
    let mut client = Bare::client(&server).await;
    for byte in [cut(TEXT, &ping(300), 130), frame(PING, b"p")].concat() {
        client.send(&[byte]).await;
    }
    // The socket itself answers its ping: the order relative to the protocol's answer is not guaranteed.
    let mut answers = [client.frame().await, client.frame().await].map(|frame| frame.expect("an answer").0);
    answers.sort_unstable();
    assert_eq!(answers, [FIN | TEXT, PONG]);
    let many: Vec<u8> = (0..500).flat_map(|n| frame(FIN | TEXT, &ping(50 + n))).collect();
    client.send(&many).await;
    for n in 0..500 {
        assert_eq!(client.hear().await["re"], 50 + n);
    }
    server.stop().await;
}

#[tokio::test]
async fn either_kind_of_message_carries_either_kind_of_body() {
    let server = server().await;
    let mut client = Bare::client(&server).await;
    let body = with_attachment(&json!({"type": "binary", "id": 1}), b"all of it UTF-8");
    for kind in [TEXT, BINARY] {
        client.send(&frame(FIN | kind, &body)).await;
        let (first, echo) = client.frame().await.expect("a message");
        assert_eq!((first, echo[0]), (FIN | BINARY, 0x01), "other bodies than JSON arrive as binary");
        assert!(echo.ends_with(b"all of it UTF-8"));
    }
    // An empty message is not a body.
    for kind in [TEXT, BINARY] {
        let mut client = Bare::client(&server).await;
        client.send(&frame(FIN | kind, b"")).await;
        assert_eq!(client.closed().await.0, Some(1002));
    }
    server.stop().await;
}

/// Frames that violate the rules, with their close codes.
fn broken() -> Vec<(&'static str, Vec<u8>, u16)> {
    let fragment = frame(TEXT, b"{\"type\"");
    let after = |bytes: Vec<u8>| [&fragment[..], &bytes].concat();
    let unmasked = [head(FIN | TEXT, 0, 2), b"{}".to_vec()].concat();
    let mut rows = vec![
        ("reserved bit 1", frame(FIN | 0x40 | TEXT, b"{}"), 1002),
        ("reserved bit 2", frame(FIN | 0x20 | TEXT, b"{}"), 1002),
        ("reserved bit 3", frame(FIN | 0x10 | BINARY, b"{}"), 1002),
        ("a reserved bit on a ping", frame(PING | 0x40, b""), 1002),
        ("a reserved bit in a message", after(frame(FIN | 0x40 | CONTINUATION, b"")), 1002),
        ("no mask", unmasked.clone(), 1002),
        ("no mask on a ping", head(PING, 0, 0), 1002),
        ("no mask on a close", head(CLOSE, 0, 0), 1002),
        ("no mask in a message", after(head(FIN | CONTINUATION, 0, 0)), 1002),
        ("the end of no message", frame(FIN | CONTINUATION, b"{}"), 1002),
        ("the middle of no message", frame(CONTINUATION, b"{}"), 1002),
        ("a text inside a message", after(frame(FIN | TEXT, b"{}")), 1002),
        ("another begun inside a message", after(frame(BINARY, b"{}")), 1002),
        ("a ping in fragments", frame(PING & !FIN, b"p"), 1002),
        ("a pong in fragments", frame(PONG & !FIN, b"p"), 1002),
        ("a close in fragments", frame(CLOSE & !FIN, &1000_u16.to_be_bytes()), 1002),
        ("a ping of 126 bytes", frame(PING, &[0; 126]), 1002),
        ("a pong of 1000 bytes", frame(PONG, &[0; 1000]), 1002),
        ("a close of 126 bytes", close(1000, &[b'x'; 124]), 1002),
        ("a close of one byte", frame(CLOSE, b"\x03"), 1002),
        ("a reason that is not UTF-8", close(1000, b"\xff"), 1007),
        ("a text that is not UTF-8", frame(FIN | TEXT, b"{\"type\":\"\xff\"}"), 1007),
        ("an overlong form", frame(FIN | TEXT, b"{\xc0\xaf}"), 1007),
        ("half of a surrogate pair", frame(FIN | TEXT, b"{\xed\xa0\x80}"), 1007),
        ("beyond Unicode", frame(FIN | TEXT, b"{\xf4\x90\x80\x80}"), 1007),
        ("a character cut off at the end", frame(FIN | TEXT, b"{\xe2\x82"), 1007),
        ("cut off at the end of the last fragment", after(frame(FIN | CONTINUATION, b"\xe2\x82")), 1007),
        // At once, although more might arrive.
        ("not UTF-8 in the first fragment", frame(TEXT, b"{\xff"), 1007),
        ("not UTF-8 in the middle", after(frame(CONTINUATION, b"\xe2\x28")), 1007),
        (
            "not UTF-8 over two fragments",
            after([frame(CONTINUATION, b"\xe2"), frame(CONTINUATION, b"\x28")].concat()),
            1007,
        ),
    ];
    let masked = |length: &[u8], payload: &[u8]| [&[FIN | TEXT], length, &[0; 4], payload].concat();
    rows.extend([
        ("a length in two bytes for one", masked(&[0x80 | 126, 0, 2], b"{}"), 1002),
        ("a length in eight bytes for one", masked(&[0x80 | 127, 0, 0, 0, 0, 0, 0, 0, 2], b"{}"), 1002),
        ("a length in eight bytes for two", masked(&[0x80 | 127, 0, 0, 0, 0, 0, 0, 1, 0], &[b' '; 256]), 1002),
        ("a length of all bits", masked(&[0x80 | 127, 255, 255, 255, 255, 255, 255, 255, 255], b""), 1002),
        ("a length below none", masked(&[0x80 | 127, 0x80, 0, 0, 0, 0, 0, 0, 0], b""), 1002),
        ("a ping's length in two bytes", [&[PING, 0x80 | 126, 0, 1][..], &[0; 5]].concat(), 1002),
    ]);
    for opcode in [3, 4, 5, 6, 7, 11, 12, 13, 14, 15] {
        rows.push(("a reserved opcode", frame(FIN | opcode, b"{}"), 1002));
    }
    rows
}

#[tokio::test]
async fn violations_close_the_connection_with_the_standards_code() {
    let server = server().await;
    let mut neighbour = Bare::client(&server).await;
    for (what, bytes, code) in broken() {
        let mut client = Bare::client(&server).await;
        // The message before is answered.
        client.send(&[&frame(FIN | TEXT, &ping(30))[..], &bytes].concat()).await;
        assert_eq!(client.hear().await["re"], 30, "{what}");
        let said = client.hear().await;
        assert_eq!((&said["type"], &said["code"]), (&json!("close"), &json!(code)), "{what}: {said}");
        let (closed, reason) = client.closed().await;
        assert_eq!((closed, said["reason"].as_str()), (Some(code), Some(&*reason)), "{what}: message and frame agree");
        assert!(!reason.is_empty(), "{what} is named");
    }
    neighbour.lives("an unaffected client").await;
    server.stop().await;
}

#[tokio::test]
async fn violations_before_the_handshake_close_the_connection_too() {
    let server = server().await;
    for (what, bytes, code) in broken() {
        let mut client = Bare::plain(&server).await;
        client.upgrade("/ws").await;
        client.send(&bytes).await;
        assert_eq!(client.closed().await.0, Some(code), "{what}");
    }
    server.stop().await;
}

#[tokio::test]
async fn echo_returns_messages_unchanged_and_closes_with_the_same_codes() {
    let server = echo_server().await;
    let mut socket = Bare::echo(&server).await;
    let megabyte: Vec<u8> = (0..1 << 20).map(|n: u32| n.to_be_bytes()[3]).collect();
    for (kind, body) in [
        (TEXT, &b""[..]),
        (BINARY, b""),
        (TEXT, "Grüße 🚀 \u{0}".as_bytes()),
        (TEXT, b"{\"type\":\"text\"}"),
        (BINARY, b"\x00\xff\xfe"),
        (BINARY, &[7; 65_535]),
        (BINARY, &[7; 65_536]),
        (BINARY, &megabyte),
        (TEXT, &[b'x'; 1 << 20]),
    ] {
        socket.send(&frame(FIN | kind, body)).await;
        assert!(socket.message().await == Some((FIN | kind, body.to_vec())), "{} bytes came back changed", body.len());
        for size in [1, 3, 100_000] {
            // Single bytes only if that is fast; cut anywhere, also inside a character.
            if !body.is_empty() && body.len() / size < 100 {
                socket.send(&cut(kind, body, size)).await;
                assert!(socket.message().await == Some((FIN | kind, body.to_vec())), "in frames of {size} bytes");
            }
        }
    }
    socket.send(&frame(PING, b"p")).await;
    assert_eq!(socket.frame().await, Some((PONG, b"p".to_vec())));
    for (what, bytes, code) in broken() {
        let mut socket = Bare::echo(&server).await;
        socket.send(&[&frame(FIN | TEXT, b"before")[..], &bytes].concat()).await;
        assert_eq!(socket.frame().await, Some((FIN | TEXT, b"before".to_vec())), "{what}");
        assert_eq!(socket.closed().await.0, Some(code), "{what}");
    }
    server.stop().await;
}
