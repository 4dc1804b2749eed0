//! zstd, where client and server agree on it: in both directions, for bodies that it makes smaller, one form for each
//! receiver of a broadcast.

#![allow(clippy::expect_used, clippy::panic)] // A test fails by panicking.

mod common;

use common::{RawClient, TestServer, with_attachment};
use serde_json::{Value, json};

async fn compressing(server: &TestServer) -> RawClient {
    let mut client = RawClient::connect(&server.endpoint(), server.addr).await;
    let hello = json!({"type": "handshake", "protocol_version": "1.0", "compression": ["br", "zstd"]});
    assert_eq!(client.handshake_with(hello).await["compression"], "zstd");
    client
}

fn deflated(body: &[u8]) -> Vec<u8> {
    [&[0x02][..], &zstd::bulk::compress(body, 3).expect("compressed")].concat()
}

/// Inflates a body that has to be compressed and smaller than what is in it.
fn inflated(body: &[u8]) -> Vec<u8> {
    assert_eq!(body[0], 0x02, "the body is compressed");
    let inner = zstd::bulk::decompress(&body[1..], 1 << 21).expect("a zstd frame");
    assert!(body.len() < inner.len(), "{} bytes became {}", inner.len(), body.len());
    inner
}

#[tokio::test]
async fn large_bodies_are_compressed_and_small_ones_are_not() {
    let server = TestServer::start_with(|config| config.limits.compress_min_bytes = 500).await;
    let mut client = compressing(&server).await;
    let text = "all the same ".repeat(100);
    client.control.body(&deflated(json!({"type": "text", "content": text, "id": 1}).to_string().as_bytes())).await;
    let echo: Value = serde_json::from_slice(&inflated(&client.control.hear_body().await)).expect("JSON");
    assert_eq!((&echo["re"], &echo["content"]), (&json!(1), &json!(format!("Echo: {text}"))));

    client.control.say(json!({"type": "text", "content": "short"})).await;
    assert_eq!(client.control.expect("text").await["content"], "Echo: short", "in plain JSON");

    let noise: Vec<u8> =
        (0..2000_u32).flat_map(|n| n.wrapping_mul(2_654_435_761).rotate_left(n).to_be_bytes()).collect();
    client.control.say_with(json!({"type": "binary", "id": 2}), &noise).await;
    assert!(client.control.hear_with().await.1 == noise, "what zstd does not make smaller goes as it is");
    server.stop().await;
}

#[tokio::test]
async fn attachments_are_compressed_with_their_message() {
    let server = TestServer::start().await;
    let mut client = compressing(&server).await;
    let bytes = vec![9; 100_000];
    client.control.body(&deflated(&with_attachment(&json!({"type": "binary", "id": 1}), &bytes))).await;
    let echo = inflated(&client.control.hear_body().await);
    assert!(echo[0] == 0x01 && echo.ends_with(&bytes), "the echo has the attachment");
    server.stop().await;
}

#[tokio::test]
async fn each_receiver_of_a_broadcast_gets_the_form_that_it_agreed_to() {
    let server = TestServer::start().await;
    let mut plain = server.client("plain").await;
    let mut packed = compressing(&server).await;
    let text = "for everybody ".repeat(200);
    for sender in [&mut plain, &mut packed] {
        sender.control.say(json!({"type": "broadcast", "content": text})).await;
    }
    for _ in 0..2 {
        assert_eq!(plain.control.expect("broadcast").await["content"], text);
        let heard: Value = serde_json::from_slice(&inflated(&packed.control.hear_body().await)).expect("JSON");
        assert_eq!(heard["content"], text);
    }
    packed.control.say(json!({"type": "direct", "to": plain.id, "content": text})).await;
    assert_eq!(plain.control.expect("direct").await["content"], text);
    plain.control.say(json!({"type": "direct", "to": packed.id, "content": text})).await;
    inflated(&packed.control.hear_body().await);
    server.stop().await;
}

#[tokio::test]
async fn nothing_is_compressed_for_who_did_not_offer_it() {
    let server = TestServer::start_with(|config| config.limits.compress_min_bytes = 1).await;
    for offered in [json!(null), json!([]), json!(["gzip"])] {
        let mut client = RawClient::connect(&server.endpoint(), server.addr).await;
        let hello = json!({"type": "handshake", "protocol_version": "1.0", "compression": offered});
        assert_eq!(client.handshake_with(hello).await["compression"], Value::Null);
        client.control.say(json!({"type": "text", "content": "x".repeat(5000)})).await;
        client.control.expect("text").await;
    }
    server.stop().await;
}
