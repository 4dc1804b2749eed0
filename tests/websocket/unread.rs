//! Clients that receive nothing, and clients whose messages never end.

use std::time::Duration;

use serde_json::json;

use super::common::bare::{Bare, CONTINUATION, FIN, HELLO, TEXT, frame, plain};
use super::common::over::Over;
use super::common::{TestServer, soon};

/// More than the system buffers for a connection whose other end does not read.
const MUCH: usize = 64 << 20;

#[tokio::test]
async fn a_client_that_never_reads_is_closed_with_4413_and_its_neighbour_gets_everything() {
    let server = TestServer::start_with(|config| {
        plain(config);
        config.limits.lane_backlog_bytes = 2 << 20;
        config.limits.client_backlog_bytes = 2 << 20;
    })
    .await;
    let mut deaf = Bare::client(&server).await;
    let mut neighbour = Over::WebSocket.party(&server, "neighbour").await;
    let mut sent = 0;
    while server.status.clients() == 2 {
        let message = json!({"type": "broadcast", "id": 1, "content": "x".repeat(100_000)});
        neighbour.control.say(message).await;
        neighbour.control.expect("broadcast").await;
        neighbour.control.expect("ok").await;
        sent += 100_000;
        assert!(sent < MUCH, "{sent} bytes are buffered for a client that reads nothing");
    }
    neighbour.control.lives("a reader").await;
    // The data that the system had buffered by then arrives, and after it the end: with the reason, if there was room
    // for it.
    let mut heard = 0;
    let mut code = None;
    while let Some((first, payload)) = deaf.frame().await {
        if first == super::common::bare::CLOSE {
            code = Some(u16::from_be_bytes([payload[0], payload[1]]));
        }
        heard += payload.len();
    }
    assert!(heard < MUCH, "{heard}");
    assert!(code.is_none_or(|code| code == 4413), "{code:?}");
    server.stop().await;
}

#[tokio::test]
async fn a_client_that_falls_behind_and_then_reads_gets_4413() {
    let server = TestServer::start_with(|config| {
        plain(config);
        config.limits.lane_backlog_messages = 50;
        config.timing.close_timeout_ms = 10_000;
    })
    .await;
    let mut deaf = Bare::client(&server).await;
    let mut sender = Over::Native.party(&server, "sender").await;
    while server.status.clients() == 2 {
        sender.control.say(json!({"type": "broadcast", "id": 1, "content": "x".repeat(100_000)})).await;
        sender.control.expect("broadcast").await;
        sender.control.expect("ok").await;
    }
    assert_eq!(deaf.closed().await.0, Some(4413));
    server.stop().await;
}

#[tokio::test]
async fn a_client_that_requests_without_reading_is_throttled() {
    let server = TestServer::start_with(plain).await;
    let mut neighbour = Over::WebSocket.party(&server, "neighbour").await;
    let mut client = Bare::client(&server).await;
    let request = frame(FIN | TEXT, json!({"type": "text", "content": "x".repeat(100_000)}).to_string().as_bytes());
    let mut taken = 0;
    let asking = async {
        while taken < MUCH {
            client.try_send(&request).await.expect("the connection lives");
            taken += request.len();
        }
    };
    let stuck = tokio::time::timeout(Duration::from_secs(2), asking).await;
    assert!(stuck.is_err(), "{taken} bytes were accepted from a client that reads no answer");
    neighbour.control.lives("a reader").await;
    drop(client);
    super::common::until("it to be gone", || server.status.clients() == 1).await;
    server.stop().await;
}

#[tokio::test]
async fn an_endless_message_keeps_no_client_connected() {
    let server = TestServer::start_with(|config| {
        plain(config);
        config.timing.body_timeout_ms = 400;
    })
    .await;
    let mut client = Bare::client(&server).await;
    client.send(&frame(TEXT, b"{")).await;
    let trickle = async {
        while client.try_send(&frame(CONTINUATION, b"")).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    soon("its end", trickle).await;
    super::common::until("it to be gone", || server.status.clients() == 0).await;
    // Its first message gets no more time than that of others, either.
    let server = TestServer::start_with(|config| {
        plain(config);
        config.timing.handshake_timeout_ms = 300;
    })
    .await;
    let mut client = Bare::plain(&server).await;
    client.upgrade("/ws").await;
    client.send(&frame(TEXT, &HELLO[..10])).await;
    assert_eq!(client.hear().await["code"], 4408);
    assert_eq!(client.closed().await.0, Some(4408));
    server.stop().await;
}

#[tokio::test]
async fn a_slow_reader_counts_as_alive() {
    let server = TestServer::start_with(|config| {
        plain(config);
        config.timing.ping_interval_ms = 50;
        config.timing.ping_timeout_ms = 1000;
    })
    .await;
    let mut client = Bare::narrow(&server).await;
    client.upgrade("/ws").await;
    client.send(&frame(FIN | TEXT, HELLO)).await;
    client.hear().await;
    let content = "x".repeat(900_000);
    client.send(&frame(FIN | TEXT, json!({"type": "text", "content": content}).to_string().as_bytes())).await;
    // Every later ping is queued behind that one message, which takes longer than an answer may.
    let echo = loop {
        let (mut first, mut heard) = (0, Vec::new());
        while first & FIN == 0 {
            let piece;
            (first, piece) = client.frame().await.expect("it lives");
            heard.extend(piece);
            tokio::time::sleep(Duration::from_millis(40)).await;
        }
        let message: serde_json::Value = serde_json::from_slice(&heard).expect("JSON");
        if message["type"] != "ping" {
            break message;
        }
    };
    assert!(echo["content"].as_str().is_some_and(|echo| echo.ends_with(&content)), "the echo came whole");
    client.send(&frame(FIN | TEXT, br#"{"type":"ping","id":"alive"}"#)).await;
    loop {
        let message = client.hear().await;
        if message["re"] == "alive" {
            break;
        }
        assert_eq!(message["type"], "ping", "{message}");
    }
    server.stop().await;
}
