//! A full server refuses new clients at once, and only those; and unvalidated addresses cost it nothing.

#![allow(clippy::expect_used, clippy::panic)] // A test fails by panicking.

use crate::common::over::Over;
use crate::common::packets::{Answer, begin_only};
use crate::common::{RawClient, TestServer, soon, until};
use quinn::{Connection, ConnectionError, TransportConfig, TransportErrorCode};
use serde_json::json;

/// Tries to connect, without a message.
async fn knock(server: &TestServer) -> Result<Connection, ConnectionError> {
    let connecting = server.endpoint().connect(server.addr, "localhost").expect("a connection begins");
    soon("an answer", connecting).await
}

#[tokio::test]
async fn one_client_too_many_gets_the_reason_and_later_the_place_of_one_that_leaves() {
    for over in Over::ALL {
        let server = TestServer::start_with(|config| config.limits.max_clients = 2).await;
        let (mut ada, mut bob) = (over.party(&server, "Ada").await, over.party(&server, "Bob").await);
        for late in Over::ALL {
            let mut late = late.newcomer(&server).await;
            late.control.say(json!({"type": "handshake", "id": 1, "protocol_version": "1.0"})).await;
            let response = late.control.expect("handshake_response").await;
            assert_eq!((&response["accepted"], &response["re"]), (&json!(false), &json!(1)), "{response}");
            assert!(response["reason"].as_str().is_some_and(|reason| reason.contains("full")), "{response}");
            assert_eq!((response.get("client_id"), response.get("limits")), (None, None), "{response}");
            late.expect_close(1013).await;
            assert_eq!(server.status.clients(), 2);
        }
        ada.control.lives("a served client").await;
        bob.control.say(json!({"type": "close"})).await;
        assert_eq!(bob.closed().await.0, 1000);
        until("Bob to be gone", || server.status.clients() == 1).await;
        over.party(&server, "Cid").await.control.lives("a served client").await;
        server.stop().await;
    }
}

#[tokio::test]
async fn one_handshake_too_many_is_refused_at_once_until_another_is_done() {
    let server = TestServer::start_with(|config| config.limits.max_handshakes = 2).await;
    let mut neighbour = server.client("neighbour").await;
    let (mut slow, _slower) = (server.stranger().await, server.stranger().await);
    for _ in 0..3 {
        match knock(&server).await {
            Err(ConnectionError::ConnectionClosed(close)) => {
                assert_eq!(close.error_code, TransportErrorCode::CONNECTION_REFUSED);
            }
            other => panic!("expected a refusal, got {other:?}"),
        }
    }
    neighbour.control.lives("a served client").await;
    slow.handshake("slow").await;
    let third = server.stranger().await;
    knock(&server).await.expect_err("full again");
    third.connection.close(0_u32.into(), b"");
    until("the third to be gone", || server.status.connections() == 3).await;
    server.client("fourth").await.control.lives("a served client").await;
    slow.control.lives("a served client").await;
    server.stop().await;
}

#[tokio::test]
async fn a_refused_client_that_does_not_read_counts_as_a_handshake_until_it_is_gone() {
    let server = TestServer::start_with(|config| {
        config.limits.max_handshakes = 1;
        config.timing.close_timeout_ms = 60_000;
    })
    .await;
    let mut transport = TransportConfig::default();
    transport.stream_receive_window(1_u8.into());
    let mut deaf = RawClient::connect(&server.endpoint_with(transport), server.addr).await;
    deaf.control.say(json!({"type": "ping"})).await;
    for n in 0..50 {
        assert!(knock(&server).await.is_err(), "knock {n} was let in beside the one that is under way");
    }
    deaf.connection.close(0_u32.into(), b"");
    until("the place to be free", || server.status.connections() == 0).await;
    server.client("Ada").await.control.lives("a later client").await;
    server.stop().await;
}

#[tokio::test]
async fn every_client_with_a_validated_address_is_served_if_validation_is_required() {
    let server = TestServer::start_with(|config| config.limits.retry_handshakes = 0).await;
    assert_eq!(begin_only(&server.endpoint(), server.addr).await, Answer::Retry);
    for n in 0..4 {
        server.client(&format!("client {n}")).await.control.lives("a served client").await;
    }
    server.stop().await;
}

#[tokio::test]
async fn a_flood_of_first_packets_locks_no_client_out() {
    let server = TestServer::start_with(|config| {
        config.limits.retry_handshakes = 2;
        config.limits.max_handshakes = 4;
    })
    .await;
    let mut neighbour = server.client("neighbour").await;
    let attacker = server.endpoint();
    for n in 0..50 {
        let expected = if n < 2 { Answer::Initial } else { Answer::Retry };
        assert_eq!(begin_only(&attacker, server.addr).await, expected, "packet {n}");
    }
    let endpoint = server.endpoint();
    for n in 0..4 {
        let mut client = RawClient::connect(&endpoint, server.addr).await;
        client.handshake(&format!("client {n}")).await;
        client.control.lives("a served client").await;
    }
    neighbour.control.lives("a served client").await;
    server.stop().await;
}

/// The limit of open files that a server has set for itself, the highest it may set, and whether it warns that this is
/// too low.
#[cfg(target_os = "linux")]
async fn open_files(limit: &str) -> (u64, bool) {
    let folder = tempfile::tempdir().expect("a folder");
    let args = ["--addr", "127.0.0.1:0", "--max-clients", "500"];
    let mut server = crate::common::process::Process::start_under(limit, folder.path(), &args);
    server.listening().await;
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", server.pid())).expect("its limits");
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files")).expect("that of open files");
    let soft = line.split_whitespace().next().and_then(|soft| soft.parse().ok()).expect("a number");
    (soft, server.stderr().contains("open files"))
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_server_raises_its_limit_of_open_files_and_warns_if_it_is_too_low() {
    assert_eq!(open_files("ulimit -Sn 200 && ulimit -Hn 3000").await, (3000, false));
    assert_eq!(open_files("ulimit -n 1000").await, (1000, true));
}
