//! A full server says so, and has room again when somebody leaves; a flood of handshakes costs those who are in nothing.

#![allow(clippy::expect_used, clippy::panic)] // A test fails by panicking.

mod common;

use common::{RawClient, TestServer, soon, until};
use quinn::ConnectionError;
use serde_json::json;

#[tokio::test]
async fn a_full_server_refuses_with_1013_until_somebody_leaves() {
    let server = TestServer::start_with(|config| config.limits.max_clients = 2).await;
    let mut first = server.client("first").await;
    let second = server.client("second").await;
    for _ in 0..3 {
        let mut third = RawClient::connect(&server.endpoint(), server.addr).await;
        third.control.say(json!({"type": "handshake", "protocol_version": "1.0"})).await;
        let response = third.control.expect("handshake_response").await;
        assert_eq!(response["accepted"], false);
        assert!(response["reason"].as_str().is_some_and(|reason| reason.contains("full")), "{response} says why");
        third.expect_close(1013).await;
    }
    first.control.lives("who was in before").await;
    second.connection.close(1000_u32.into(), b"");
    until("the place of who left", || server.status.clients() == 1).await;
    server.client("third").await.control.lives("who came in then").await;
    server.stop().await;
}

#[tokio::test]
async fn addresses_are_validated_by_retry_where_that_is_asked_for() {
    let server = TestServer::start_with(|config| config.limits.retry_handshakes = 0).await;
    let endpoint = server.endpoint();
    let mut client = RawClient::connect(&endpoint, server.addr).await;
    client.handshake("Ada").await;
    client.control.lives("a validated client").await;
    // Without a Retry a connection has sent one Initial; with one, the second repeats the first behind the token.
    let initials = client.connection.stats().frame_tx.crypto;
    assert!(initials >= 3, "expected ClientHello twice, and Finished: {initials} CRYPTO frames");
    server.stop().await;
}

#[tokio::test]
async fn handshakes_beyond_the_bound_are_refused_at_once() {
    let server = TestServer::start_with(|config| config.limits.max_handshakes = 2).await;
    let mut neighbour = server.client("neighbour").await;
    let mut waiting = RawClient::connect(&server.endpoint(), server.addr).await;
    let _silent = RawClient::connect(&server.endpoint(), server.addr).await;
    let connecting = server.endpoint().connect(server.addr, "localhost").expect("it begins");
    match soon("a refusal", connecting).await {
        Err(ConnectionError::ConnectionClosed(close)) => {
            assert_eq!(close.error_code, quinn::TransportErrorCode::CONNECTION_REFUSED);
        }
        other => panic!("expected to be refused, got {other:?}"),
    }
    neighbour.control.lives("the neighbour").await;
    waiting.handshake("in time").await;
    server.client("next").await.control.lives("who came when a handshake was done").await;
    server.stop().await;
}

#[tokio::test]
async fn half_open_handshakes_leave_nothing_behind() {
    let server = TestServer::start_with(|config| config.timing.handshake_timeout_ms = 300).await;
    let mut neighbour = server.client("neighbour").await;
    let endpoint = server.endpoint();
    let mut half_open = Vec::new();
    for _ in 0..50 {
        half_open.push(RawClient::connect(&endpoint, server.addr).await);
    }
    assert_eq!(server.status.clients(), 1, "none of them is a client");
    for client in &half_open {
        assert_eq!(client.closed().await.0, 4408);
    }
    until("their connections' end", || server.status.connections() == 1).await;
    neighbour.control.lives("the neighbour").await;
    server.stop().await;
}
