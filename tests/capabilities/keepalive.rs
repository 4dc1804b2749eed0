//! Signs of life: a silent client is pinged, a client that answers stays, one that does not is closed.

#![allow(clippy::expect_used, clippy::panic)] // A test fails by panicking.

use std::time::{Duration, Instant};

use crate::common::over::Over;
use crate::common::{RawClient, TestServer, soon, until};
use quic_websocket::message::now_ms;
use quinn::{TransportConfig, VarInt};
use serde_json::{Value, json};

/// A server that pings at once and then waits this long.
async fn impatient(ping_timeout_ms: u64) -> TestServer {
    TestServer::start_with(|config| {
        config.timing.ping_interval_ms = 50;
        config.timing.ping_timeout_ms = ping_timeout_ms;
    })
    .await
}

#[tokio::test]
async fn a_silent_client_is_pinged_after_the_interval() {
    let server = TestServer::start_with(|config| config.timing.ping_interval_ms = 300).await;
    for over in Over::ALL {
        let (before, began) = (now_ms(), Instant::now());
        let mut client = over.party(&server, "Ada").await;
        let ping = client.control.expect("ping").await;
        assert!(began.elapsed() >= Duration::from_millis(300), "pinged after {:?} of silence", began.elapsed());
        assert!((before..=now_ms()).contains(&ping["timestamp"].as_u64().expect("a time")), "{ping}");
        assert_eq!(ping.get("re"), None, "it is not a reply");
    }
    server.stop().await;
}

#[tokio::test]
async fn a_client_that_answers_pings_stays() {
    // The second ping is sent only if the first answer counted, and well before the timeout.
    let server = impatient(15_000).await;
    for over in Over::ALL {
        let mut client = over.party(&server, "Ada").await;
        for _ in 0..10 {
            let ping = client.control.expect("ping").await;
            client.control.say(json!({"type": "pong", "timestamp": ping["timestamp"]})).await;
        }
        client.control.lives("a served client").await;
    }
    server.stop().await;
}

#[tokio::test]
async fn any_message_on_any_lane_answers_a_ping() {
    let server = impatient(15_000).await;
    for over in Over::ALL {
        let mut client = over.party(&server, "Ada").await;
        for &on in over.ways() {
            client.control.expect("ping").await;
            let pong = client.ask(on, json!({"type": "ping", "id": 1}).to_string().as_bytes()).await;
            assert_eq!(pong["type"], "pong", "on {on:?} of {over:?}");
        }
        client.control.expect("ping").await;
        client.control.say(json!({"type": "unknown"})).await;
        client.control.expect_error(400).await;
        client.control.expect("ping").await;
    }
    server.stop().await;
}

#[tokio::test]
async fn only_a_client_that_does_not_answer_is_closed_although_its_quic_stays_awake() {
    let server = impatient(500).await;
    let mut transport = TransportConfig::default();
    transport.keep_alive_interval(Some(Duration::from_millis(20)));
    let mut lively = tokio::task::JoinSet::new();
    for over in Over::ALL {
        let mut client = over.party(&server, "lively").await;
        lively.spawn(async move {
            while client.control.hear().await["type"] != "close" {
                // A draining server no longer accepts the answer to its last ping.
                client.control.try_body(br#"{"type":"pong"}"#).await;
            }
            client.closed().await.0
        });
    }
    let awake = RawClient::connect(&server.endpoint_with(transport), server.addr).await;
    let session = Over::WebTransport.newcomer(&server).await;
    for mut silent in [awake.into(), session, Over::WebSocket.newcomer(&server).await] {
        silent.handshake("silent").await;
        silent.control.expect("ping").await;
        let close = silent.expect_close(4408).await;
        assert!(close["reason"].as_str().is_some_and(|reason| reason.contains("pong")), "{close}");
        until("the lively ones alone to be there", || server.status.clients() == 3).await;
    }
    server.stop().await;
    assert_eq!(lively.join_all().await, [1001; 3], "they were served until the drain");
}

#[tokio::test]
async fn a_ping_is_answered_with_its_own_timestamp_and_the_servers_time() {
    let server = TestServer::start().await;
    for over in Over::ALL {
        let mut client = over.party(&server, "Ada").await;
        let most = (1_u64 << 53) - 1;
        for timestamp in [json!(0), json!(1_755_992_177_526_u64), json!(most), Value::Null] {
            let before = now_ms();
            client.control.say(json!({"type": "ping", "id": 7, "timestamp": timestamp})).await;
            let pong = client.control.expect("pong").await;
            assert_eq!((&pong["re"], &pong["timestamp"]), (&json!(7), &timestamp));
            assert!((before..=now_ms()).contains(&pong["server_time"].as_u64().expect("a time")), "{pong}");
        }
        client.control.say(json!({"type": "ping"})).await;
        let pong = client.control.expect("pong").await;
        assert_eq!((pong.get("re"), pong.get("timestamp")), (None, None), "{pong}");
    }
    server.stop().await;
}

#[tokio::test]
async fn a_slow_reader_counts_as_alive() {
    let server = impatient(200).await;
    let mut transport = TransportConfig::default();
    transport.stream_receive_window(VarInt::from_u32(16 * 1024));
    let mut client = RawClient::connect(&server.endpoint_with(transport), server.addr).await;
    client.handshake("slow").await;
    let bytes = vec![7; 800_000];
    client.control.say_with(json!({"type": "binary"}), &bytes).await;
    // Every ping is queued behind the requested data, which takes several times as long as an answer may.
    let (mut echo, mut piece) = (Vec::new(), [0; 16 * 1024]);
    while echo.len() < bytes.len() {
        let length = soon("a piece", client.control.receive.read(&mut piece)).await.expect("it lives");
        echo.extend_from_slice(&piece[..length.expect("no end")]);
        tokio::time::sleep(Duration::from_millis(15)).await;
    }
    assert!(echo.iter().filter(|&&byte| byte == 7).count() >= bytes.len(), "the echo came whole");
    server.stop().await;
}
