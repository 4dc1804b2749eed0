//! zstd, if both sides agreed on it: either side may send it, small bodies stay plain, no other client is affected.

#![allow(clippy::expect_used, clippy::panic)] // A test fails by panicking.

use crate::common::over::{Over, Party};
use crate::common::{TestServer, with_attachment};
use serde_json::{Value, json};

const ZSTD: u8 = 0x02;

/// A client that negotiated zstd.
async fn zstd_client(over: Over, server: &TestServer) -> Party {
    let mut client = over.newcomer(server).await;
    let offer = json!({"type": "handshake", "protocol_version": "1.0", "compression": ["br", "zstd"]});
    assert_eq!(client.handshake_with(offer).await["compression"], "zstd");
    client
}

fn zstd_body(body: &[u8]) -> Vec<u8> {
    [&[ZSTD][..], &zstd::bulk::compress(body, 3).expect("it compresses")].concat()
}

/// A zstd frame with one stored block that requires a window of two to the power of `window` (RFC 8878 section 3.1.1).
fn stored_with_window(body: &[u8], window: u8) -> Vec<u8> {
    let last_and_stored = u8::try_from(body.len() << 3 | 1).expect("a short body");
    [&[ZSTD, 0x28, 0xb5, 0x2f, 0xfd, 0, (window - 10) << 3, last_and_stored, 0, 0], body].concat()
}

fn inflated(body: &[u8]) -> Vec<u8> {
    assert_eq!(body[0], ZSTD, "expected a compressed body, got {:?}", String::from_utf8_lossy(body));
    zstd::stream::decode_all(&body[1..]).expect("one zstd frame")
}

fn parsed(body: &[u8]) -> Value {
    serde_json::from_slice(body).unwrap_or_else(|e| panic!("{e}: {:?}", String::from_utf8_lossy(body)))
}

/// Compressible text.
fn long_text(length: usize) -> String {
    "Grüße ".chars().cycle().take(length).collect()
}

#[tokio::test]
async fn a_compressed_request_gets_a_compressed_reply_on_every_carrier() {
    let server = TestServer::start().await;
    for over in Over::ALL {
        let mut client = zstd_client(over, &server).await;
        let text = long_text(3000);
        let request = zstd_body(json!({"type": "text", "id": 1, "content": text}).to_string().as_bytes());
        for &on in over.ways() {
            let echo = parsed(&inflated(&client.ask_body(on, &request).await));
            assert_eq!((&echo["re"], &echo["content"]), (&json!(1), &json!(format!("Echo: {text}"))));
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn a_plain_request_is_served_as_well_and_incompressible_bodies_stay_plain() {
    let server = TestServer::start().await;
    for over in Over::ALL {
        let mut client = zstd_client(over, &server).await;
        client.control.say(json!({"type": "text", "content": long_text(3000)})).await;
        assert_eq!(parsed(&inflated(&client.control.hear_body().await))["type"], "text");
        let noise: Vec<u8> = std::iter::repeat_with(|| fastrand::u8(..)).take(3000).collect();
        client.control.say_with(json!({"type": "binary"}), &noise).await;
        assert!(client.control.hear_with().await.1 == noise, "noise came back changed");
    }
    server.stop().await;
}

#[tokio::test]
async fn only_bodies_from_the_minimum_size_on_are_compressed() {
    const LEAST: u64 = 500;
    let server = TestServer::start_with(|config| config.limits.compress_min_bytes = LEAST).await;
    for over in Over::ALL {
        let mut client = zstd_client(over, &server).await;
        let (mut plain, mut packed) = (0, 0);
        for length in 400..520 {
            client.control.say(json!({"type": "text", "content": "a".repeat(length)})).await;
            let body = client.control.hear_body().await;
            if body[0] == ZSTD {
                assert!(inflated(&body).len() as u64 >= LEAST, "{} bytes were compressed", inflated(&body).len());
                packed += 1;
            } else {
                assert!((body.len() as u64) < LEAST, "{} bytes were not compressed", body.len());
                plain += 1;
            }
        }
        assert!(plain > 0 && packed > 0, "{plain} plain and {packed} compressed: the bound lies between");
    }
    server.stop().await;
}

#[tokio::test]
async fn attachments_are_compressed_with_their_message() {
    let server = TestServer::start().await;
    for over in Over::ALL {
        let mut client = zstd_client(over, &server).await;
        let bytes = vec![7; 200_000];
        client.control.body(&zstd_body(&with_attachment(&json!({"type": "binary", "id": 2}), &bytes))).await;
        let body = client.control.hear_body().await;
        assert!(body.len() < 2000, "200,000 equal bytes came as {}", body.len());
        let body = inflated(&body);
        assert_eq!(body[0], 0x01, "an attachment");
        let json_len = u32::from_be_bytes(body[1..5].try_into().expect("four bytes")) as usize;
        assert_eq!(parsed(&body[5..5 + json_len])["re"], 2);
        assert!(body[5 + json_len..] == bytes, "the bytes came back changed");
    }
    server.stop().await;
}

#[tokio::test]
async fn a_broadcast_is_compressed_only_for_clients_that_negotiated_it() {
    for (from, to) in Over::pairs() {
        let server = TestServer::start().await;
        let (mut with, mut sender) = (zstd_client(to, &server).await, zstd_client(from, &server).await);
        let (mut without, mut also_without) = (from.party(&server, "Ada").await, to.party(&server, "Bob").await);
        let text = long_text(5000);
        for (content, compressed) in [(&*text, true), ("short", false)] {
            let message = json!({"type": "broadcast", "id": 4, "content": content}).to_string();
            sender.control.body(&zstd_body(message.as_bytes())).await;
            let mut heard = Vec::new();
            for client in [&mut without, &mut also_without] {
                heard.push(client.control.hear_body().await);
            }
            for client in [&mut with, &mut sender] {
                let body = client.control.hear_body().await;
                heard.push(if compressed { inflated(&body) } else { body });
            }
            for body in &heard {
                assert_eq!(
                    (&parsed(body)["content"], body),
                    (&json!(content), &heard[0]),
                    "the same bytes for every receiver"
                );
            }
            assert_eq!(sender.control.expect("ok").await["delivered"], 4);
        }
        drop((with, sender, without, also_without));
        server.stop().await;
    }
}

#[tokio::test]
async fn a_direct_message_is_compressed_as_its_receiver_negotiated() {
    let server = TestServer::start().await;
    for (from, to) in Over::pairs() {
        let (mut with, mut without) = (zstd_client(from, &server).await, to.party(&server, "Ada").await);
        let text = long_text(5000);
        without.control.say(json!({"type": "direct", "to": with.id, "content": text})).await;
        assert_eq!(parsed(&inflated(&with.control.hear_body().await))["content"], text);
        with.control.say(json!({"type": "direct", "to": without.id, "content": text})).await;
        assert_eq!(without.control.expect("direct").await["content"], text);
    }
    server.stop().await;
}

#[tokio::test]
async fn of_direct_messages_in_a_row_the_long_ones_are_compressed() {
    let server = TestServer::start().await;
    for (from, to) in Over::pairs() {
        let (mut sender, mut receiver) = (from.party(&server, "Ada").await, zstd_client(to, &server).await);
        let texts: Vec<_> = (0..40).map(|n| long_text([10, 2000, 20, 30, 5000][n % 5])).collect();
        let message = |text| json!({"type": "direct", "to": receiver.id, "content": text}).to_string().into_bytes();
        sender.control.bodies(&texts.iter().map(message).collect::<Vec<_>>()).await;
        for text in &texts {
            let body = receiver.control.hear_body().await;
            let plain = if text.len() > 1024 { inflated(&body) } else { body.to_vec() };
            assert_eq!(parsed(&plain)["content"], *text);
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn a_body_other_than_one_zstd_frame_of_a_plain_body_is_only_an_error() {
    for over in Over::ALL {
        let server = TestServer::start().await;
        let mut neighbour = over.party(&server, "neighbour").await;
        let mut client = zstd_client(over, &server).await;
        let good = zstd_body(br#"{"type":"ping"}"#);
        // In a row, because these do not count towards 1007.
        for (what, body) in [
            ("a compressed body in it", zstd_body(&good)),
            ("two frames", [&good[..], &good[1..]].concat()),
            ("a byte behind it", [&good[..], b"x"].concat()),
            ("a frame cut off", good[..good.len() - 1].to_vec()),
            ("no frame", vec![ZSTD]),
            ("no zstd", vec![ZSTD, 1, 2, 3, 4, 5, 6, 7, 8]),
            ("nothing in it", zstd_body(b"")),
            ("a window above 8 MiB", stored_with_window(br#"{"type":"ping"}"#, 24)),
        ] {
            client.control.body(&body).await;
            let message = client.control.expect_error(400).await;
            assert!(message.starts_with("zstd"), "{what}: {message}");
        }
        for good in [good, stored_with_window(br#"{"type":"ping"}"#, 23)] {
            client.control.body(&good).await;
            client.control.expect("pong").await;
        }
        neighbour.control.lives("a served client").await;
        server.stop().await;
    }
}
