//! How connections end: with the requested code, after all pending data, and at a drain with the time to come back.
//!
//! Tests of the other codes of docs/PROTOCOL.md section 10 that this server sends: 1002 in `handshake.rs` and
//! `bad_input.rs`; 1007 and 1009 in `bad_input.rs`; 1013 in `capacity.rs`; 4408 in `handshake.rs` and `keepalive.rs`;
//! 4429 in `limits.rs` and `address_limits.rs`. Details specific to WebSocket are in `websocket/ends.rs`.

#![allow(clippy::expect_used, clippy::panic)] // A test fails by panicking.

use std::collections::BTreeSet;

use crate::common::over::{AnyLane, Over};
use crate::common::packets::{Answer, begin_only};
use crate::common::{RawClient, TestServer, soon, until};
use quinn::{ConnectionError, TransportConfig, TransportErrorCode, VarInt};
use serde_json::{Value, json};

#[tokio::test]
async fn a_client_is_closed_with_the_code_and_reason_it_requested() {
    let server = TestServer::start().await;
    let mut neighbour = server.client("neighbour").await;
    let longest = "ü".repeat(61) + "x";
    for (request, code, reason) in [
        (json!({}), 1000, ""),
        (json!({"code": null, "reason": null}), 1000, ""),
        (json!({"id": 1, "reason": "no code"}), 1000, "no code"),
        (json!({"code": 1000, "reason": "Test completed"}), 1000, "Test completed"),
        (json!({"code": 1001}), 1001, ""),
        (json!({"code": 1003}), 1003, ""),
        (json!({"code": 1007}), 1007, ""),
        (json!({"code": 1014, "reason": longest}), 1014, &*longest),
        (json!({"code": 3000}), 3000, ""),
        (json!({"code": 4999, "reason": "Grüße 🚀"}), 4999, "Grüße 🚀"),
    ] {
        let mut message = json!({"type": "close"});
        message.as_object_mut().expect("an object").extend(request.as_object().expect("an object").clone());
        for (over, on) in Over::ALL.into_iter().flat_map(|over| over.ways().iter().map(move |&on| (over, on))) {
            if (over, code) == (Over::WebSocket, 1014) {
                // The client's library does not know this code: `websocket/ends.rs` tests it without a library.
                continue;
            }
            let mut client = over.party(&server, "Ada").await;
            client.tell(on, &[message.to_string().into_bytes()]).await;
            let ended = client.control.try_hear_body().await;
            assert!(ended.is_err(), "{message} on {on:?} of {over:?}: an announcement came");
            assert_eq!(client.closed().await, (code, reason.to_owned()), "{message} on {on:?} of {over:?}");
        }
    }
    until("all but one to be gone", || server.status.connections() == 1).await;
    neighbour.control.lives("a served client").await;
    server.stop().await;
}

#[tokio::test]
async fn a_code_that_no_client_may_send_leaves_the_connection_open() {
    let server = TestServer::start().await;
    for over in Over::ALL {
        let mut client = over.party(&server, "Ada").await;
        for code in [999, 1004, 1005, 1006, 1015, 2999, 5000] {
            client.control.say(json!({"type": "close", "code": code})).await;
            assert!(client.control.expect_error(400).await.starts_with("code"), "{code}");
            client.control.lives("a served client").await;
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn requests_before_a_close_are_answered_before_it() {
    let server = TestServer::start().await;
    for over in Over::ALL {
        for with_fin in [false, true] {
            let mut client = over.party(&server, "Ada").await;
            let text = |n| json!({"type": "text", "id": n, "content": "x".repeat(4000)}).to_string().into_bytes();
            let mut all: Vec<_> = (0..50).map(text).collect();
            if !with_fin {
                all.push(br#"{"type":"close","code":4000}"#.to_vec());
            }
            client.control.bodies(&all).await;
            match &mut client.control {
                AnyLane::Quic(lane) if with_fin => lane.send.finish().expect("it was open"),
                // A WebSocket has no half that ends by itself.
                AnyLane::Socket(_) if with_fin => continue,
                _ => {}
            }
            for n in 0..50 {
                assert_eq!(client.control.expect("text").await["re"], n);
            }
            assert_eq!(client.closed().await.0, if with_fin { 1000 } else { 4000 });
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn a_request_after_a_close_is_not_executed() {
    let server = TestServer::start().await;
    for (from, to) in Over::pairs() {
        let (mut ada, mut bob) = (from.party(&server, "Ada").await, to.party(&server, "Bob").await);
        let direct =
            |content: &str| json!({"type": "direct", "to": bob.id, "content": content}).to_string().into_bytes();
        ada.control.bodies(&[direct("before"), br#"{"type":"close"}"#.to_vec(), direct("after")]).await;
        assert_eq!(ada.closed().await.0, 1000);
        assert_eq!(bob.control.expect("direct").await["content"], "before");
        bob.control.lives("a served client").await;
    }
    server.stop().await;
}

#[tokio::test]
async fn a_drain_closes_every_client_with_a_time_to_come_back() {
    const WINDOW: u64 = 3000;
    let server = TestServer::start_with(|config| config.timing.drain_timeout_ms = WINDOW).await;
    let mut clients = Vec::new();
    for (n, over) in (0..9).zip(Over::in_turn()) {
        clients.push(over.party(&server, &format!("client {n}")).await);
    }
    let mut strangers = Vec::new();
    for over in Over::ALL {
        strangers.push(over.newcomer(&server).await);
    }
    until("the strangers to be connected", || server.status.connections() == 12).await;
    server.drain();
    let mut times = BTreeSet::new();
    for client in &mut clients {
        let close = client.expect_close(1001).await;
        let time = close["reconnect_after_ms"].as_u64().expect("a time to come back");
        assert!(time <= WINDOW, "{close}");
        times.insert(time);
    }
    assert!(times.len() > 1, "nine clients were sent back at once: {times:?}");
    for stranger in &mut strangers {
        assert_eq!(stranger.closed().await.0, 1001, "also before the handshake, on {:?}", stranger.over);
    }
    let status = server.status.clone();
    server.stop().await;
    assert_eq!((status.clients(), status.connections()), (0, 0));
}

/// A client with a small receive window.
async fn slow_reader(server: &TestServer) -> RawClient {
    let mut transport = TransportConfig::default();
    transport.stream_receive_window(VarInt::from_u32(16 * 1024));
    let mut client = RawClient::connect(&server.endpoint_with(transport), server.addr).await;
    client.handshake("slow").await;
    client
}

#[tokio::test]
async fn a_drain_delivers_queued_messages_and_accepts_no_new_clients() {
    let server = TestServer::start_with(|config| {
        config.workers = 1;
        config.timing.drain_timeout_ms = 60_000;
        // The drain does not wait for a connection without a handshake, either.
        config.timing.handshake_timeout_ms = 60_000;
    })
    .await;
    let (mut slow, mut sender) = (slow_reader(&server).await, server.client("sender").await);
    for n in 0..20 {
        let content = format!("{n} {}", "x".repeat(10_000));
        sender.control.say(json!({"type": "direct", "id": n, "to": slow.id, "content": content})).await;
        sender.control.expect("ok").await;
    }
    assert_eq!(begin_only(&server.endpoint(), server.addr).await, Answer::Initial);
    server.drain();
    sender.expect_close(1001).await;
    let newcomer = server.endpoint().connect(server.addr, "localhost").expect("it begins");
    match soon("a refusal", newcomer).await {
        Err(ConnectionError::ConnectionClosed(close)) => {
            assert_eq!(close.error_code, TransportErrorCode::CONNECTION_REFUSED);
        }
        other => panic!("expected a newcomer to be refused, got {other:?}"),
    }
    for n in 0..20 {
        let content = slow.control.expect("direct").await["content"].take();
        assert!(content.as_str().is_some_and(|content| content.starts_with(&format!("{n} "))), "message {n}");
    }
    slow.expect_close(1001).await;
    server.stop().await;
}

#[tokio::test]
async fn a_drain_ends_in_time_although_a_client_does_not_read() {
    let server = TestServer::start_with(|config| config.timing.drain_timeout_ms = 300).await;
    let (slow, mut sender) = (slow_reader(&server).await, server.client("sender").await);
    let message = json!({"type": "direct", "id": 1, "to": slow.id, "content": "x".repeat(100_000)});
    sender.control.say(message).await;
    sender.control.expect("ok").await;
    server.stop().await;
    assert_eq!(soon("the close", slow.closed()).await.0, 1001);
    assert_ne!(sender.expect_close(1001).await["reason"], Value::Null);
}

#[tokio::test]
async fn a_drain_sends_queued_replies_on_request_lanes_too() {
    let server = TestServer::start_with(|config| config.timing.drain_timeout_ms = 60_000).await;
    let mut client = slow_reader(&server).await;
    let mut lane = client.lane().await;
    let content = "x".repeat(200_000);
    lane.say(json!({"type": "text", "content": content})).await;
    let mut length = [0; 4];
    soon("the beginning of the echo", lane.receive.read_exact(&mut length)).await.expect("a length");
    server.drain();
    let mut echo = vec![0; u32::from_be_bytes(length) as usize];
    soon("the rest of the echo", lane.receive.read_exact(&mut echo)).await.expect("the whole echo");
    let echo: Value = serde_json::from_slice(&echo).expect("JSON");
    assert!(echo["content"].as_str().is_some_and(|echo| echo.ends_with(&content)), "the echo has its content");
    client.expect_close(1001).await;
    server.stop().await;
}

#[tokio::test]
async fn a_client_that_stops_the_control_lane_is_closed() {
    let server = TestServer::start().await;
    let mut neighbour = server.client("neighbour").await;
    let mut client = server.client("Ada").await;
    let mut lane = client.lane().await;
    lane.lives("the request lane").await;
    client.control.receive.stop(VarInt::from_u32(7)).expect("it was open");
    assert_eq!(client.closed().await.0, 1002);
    until("the place of the client that left", || server.status.connections() == 1).await;
    neighbour.control.lives("the neighbour").await;
    server.stop().await;
}
