//! A connection begins with a handshake: which clients are accepted, which are refused and why, and that nothing is
//! served before it.

#![allow(clippy::expect_used, clippy::panic)] // A test fails by panicking.

use crate::common::over::Over;
use crate::common::{RawLane, TestServer, soon, until, with_attachment};
use quinn::{ConnectionError, TransportConfig};
use serde_json::{Value, json};

/// A valid handshake with changes: `null` removes a field.
fn handshake(changes: Value) -> Value {
    let mut message = json!({"type": "handshake", "id": 1, "protocol_version": "1.0", "client_name": "Ada"});
    let fields = message.as_object_mut().expect("an object");
    fields.extend(changes.as_object().expect("an object").clone());
    fields.retain(|_, value| !value.is_null());
    message
}

#[tokio::test]
async fn an_accepted_client_gets_its_id_and_the_servers_limits() {
    let server = TestServer::start_with(|config| {
        config.name = "Grüße".into();
        config.limits.max_message_bytes = 2048;
        config.limits.max_request_lanes = 5;
        config.limits.client_unfinished_bytes = 4096;
        config.limits.lane_pending_replies = 64;
        config.timing.ping_interval_ms = 3000;
        config.timing.ping_timeout_ms = 4000;
    })
    .await;
    for over in Over::ALL {
        let mut client = over.newcomer(&server).await;
        let response = client.handshake_with(handshake(json!({"id": "h-1"}))).await;
        assert!(response["session"].as_str().is_some_and(|secret| (1..=128).contains(&secret.len())), "{response}");
        let expected = json!({
            "type": "handshake_response", "re": "h-1", "accepted": true, "client_id": client.id, "server_name": "Grüße",
            "session": response["session"],
            "protocol_version": "1.0",
            "limits": {
                "max_message_bytes": 2048, "ping_interval_ms": 3000, "ping_timeout_ms": 4000, "max_request_lanes": 5,
                "max_unfinished_bytes": 4096, "max_pending_replies": 64, "max_meta_bytes": 1024,
                "max_open_requests": 256
            },
        });
        assert_eq!(response, expected);
        let id = uuid::Uuid::parse_str(&client.id).expect("a UUID");
        assert_eq!(client.id, id.hyphenated().to_string(), "lower case, with hyphens");
        assert_ne!(client.id, over.party(&server, "Bob").await.id, "each client has an id of its own");
    }
    server.stop().await;
}

#[tokio::test]
async fn additions_of_a_later_minor_version_are_accepted() {
    let server = TestServer::start().await;
    for over in Over::ALL {
        for changes in [
            json!({"protocol_version": "1.1"}),
            json!({"protocol_version": "1.4711"}),
            json!({"client_name": "🚀".repeat(64)}),
            json!({"token": "not-looked-at", "compression": ["br", "lz4"]}),
            json!({"compression": []}),
            json!({"new_field": {"of": ["a later version"]}, "content": 5, "limit": "none"}),
        ] {
            let mut client = over.newcomer(&server).await;
            let response = client.handshake_with(handshake(changes.clone())).await;
            assert_eq!((&response["re"], &response["compression"]), (&json!(1), &Value::Null), "{changes}");
            client.control.lives("a served client").await;
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn a_client_needs_neither_a_name_nor_an_id() {
    for over in Over::ALL {
        let server = TestServer::start().await;
        let mut client = over.newcomer(&server).await;
        let response = client.handshake_with(json!({"type": "handshake", "protocol_version": "1.0"})).await;
        assert_eq!(response.get("re"), None, "{response}");
        client.control.say(json!({"type": "list_clients"})).await;
        let list = client.control.expect("client_list").await;
        assert_eq!((&list["clients"][0]["id"], &list["clients"][0]["name"]), (&json!(client.id), &Value::Null));
        server.stop().await;
    }
}

#[tokio::test]
async fn another_major_version_is_refused_with_the_reason() {
    for over in Over::ALL {
        let server = TestServer::start().await;
        for version in ["2.0", "0.9", "10.0"] {
            let mut client = over.newcomer(&server).await;
            client.control.say(handshake(json!({"protocol_version": version}))).await;
            let response = client.control.expect("handshake_response").await;
            assert_eq!((&response["accepted"], &response["re"]), (&json!(false), &json!(1)), "{version}: {response}");
            assert_eq!(response["protocol_version"], "1.0", "{version}: {response}");
            assert!(response["reason"].as_str().is_some_and(|reason| reason.contains("1.0")), "{version}: {response}");
            assert_eq!(response.get("client_id"), None, "{version}: {response}");
            client.expect_close(1002).await;
        }
        until("no client to be connected", || server.status.clients() == 0 && server.status.connections() == 0).await;
        server.stop().await;
    }
}

#[tokio::test]
async fn an_invalid_field_is_named_and_may_be_corrected() {
    let server = TestServer::start().await;
    for over in Over::ALL {
        for (field, value) in [
            ("client_name", json!("")),
            ("client_name", json!("ü".repeat(65))),
            ("client_name", json!("a\u{7}b")),
            ("client_name", json!("a\u{85}b")),
            ("client_name", json!("a\u{2028}b")),
            ("client_name", json!("a\u{2029}b")),
            ("client_name", json!("a\u{202e}b")),
            ("client_name", json!("\u{2067}a\u{2069}")),
            ("client_name", json!(" \u{3000}")),
            ("client_name", json!(5)),
            ("protocol_version", Value::Null),
            ("protocol_version", json!(1.0)),
            ("protocol_version", json!("1")),
            ("protocol_version", json!("1.0.0")),
            ("protocol_version", json!("one.two")),
            ("token", json!(["t"])),
            ("token", json!("")),
            ("token", json!("two words")),
            ("token", json!("a\u{7f}")),
            ("token", json!("ä")),
            ("token", json!("x".repeat(8193))),
            ("compression", json!("zstd")),
            ("compression", json!(["zstd", 1])),
            ("id", json!("")),
            ("id", json!("x".repeat(65))),
            ("id", json!(-1)),
            ("id", json!([1])),
        ] {
            let mut client = over.newcomer(&server).await;
            for _ in 0..2 {
                client.control.say(handshake(json!({field: value}))).await;
                let error = client.control.expect("error").await;
                assert_eq!(error["code"], 400, "{field} = {value}: {error}");
                let named = error["message"].as_str().is_some_and(|message| message.starts_with(field));
                assert!(named, "{field} = {value} has to be named: {error}");
                let re = if field == "id" { Value::Null } else { json!(1) };
                assert_eq!(error["re"], re, "{field} = {value}: {error}");
            }
            client.handshake("Ada").await;
        }
        let mut client = over.newcomer(&server).await;
        client.control.body(br#"{"type":"handshake","protocol_version":"1.0","token":"a","token":"b"}"#).await;
        assert!(client.control.expect_error(400).await.contains("token"), "the duplicate field");
        client.handshake("Ada").await;
    }
    server.stop().await;
}

#[tokio::test]
async fn the_third_invalid_handshake_is_the_last() {
    let server = TestServer::start().await;
    for over in Over::ALL {
        let mut client = over.newcomer(&server).await;
        for _ in 0..3 {
            client.control.say(handshake(json!({"client_name": ""}))).await;
        }
        client.control.say(handshake(json!({}))).await;
        for _ in 0..3 {
            client.control.expect_error(400).await;
        }
        client.expect_close(1002).await;
    }
    server.stop().await;
}

#[tokio::test]
async fn a_first_message_other_than_a_handshake_closes_the_connection() {
    let server = TestServer::start().await;
    for over in Over::ALL {
        let mut neighbour = over.party(&server, "neighbour").await;
        let message = |kind: &str| json!({"type": kind, "content": "x", "to": neighbour.id, "data": 1, "topic": "a"});
        for kind in [
            "text",
            "broadcast",
            "direct",
            "signal",
            "ping",
            "pong",
            "list_clients",
            "subscribe",
            "unsubscribe",
            "publish",
            "history",
            "presence",
            "close",
        ] {
            let mut client = over.newcomer(&server).await;
            client.control.say(message(kind)).await;
            let close = client.expect_close(1002).await;
            assert!(close["reason"].as_str().is_some_and(|reason| reason.contains(kind)), "{kind}: {close}");
        }
        for wrong in
            [json!({"type": "text"}), json!({"type": "hello"}), json!({"type": 5}), json!({}), json!({"id": ""})]
        {
            let mut client = over.newcomer(&server).await;
            client.control.say(wrong.clone()).await;
            let close = client.expect_close(1002).await;
            assert!(close["reason"].as_str().is_some_and(|reason| reason.contains("handshake")), "{wrong}: {close}");
        }
        neighbour.control.lives("a served client").await;
    }
    server.stop().await;
}

#[tokio::test]
async fn an_unreadable_first_message_closes_the_connection() {
    let server = TestServer::start_with(|config| config.limits.max_message_bytes = 1999).await;
    for over in Over::ALL {
        let mut neighbour = over.party(&server, "neighbour").await;
        for (what, body, first_an_error, code) in [
            ("no JSON", b"hello".to_vec(), true, 1002),
            ("half an object", b"{\"type\":\"handshake\"".to_vec(), true, 1002),
            ("an array", b"[{}]".to_vec(), true, 1002),
            ("no UTF-8", b"{\"type\":\"hand\xffshake\"}".to_vec(), true, 1002),
            ("attachment beyond the body", vec![1, 0, 0, 0, 9, b'{', b'}'], true, 1002),
            ("zstd before it was agreed on", vec![2, 0x28, 0xb5, 0x2f, 0xfd], false, 1002),
            ("deflate before it was agreed on", vec![3, 1, 0, 0, 0xff, 0xff], false, 1002),
            ("nothing", Vec::new(), false, 1002),
            ("too much", vec![b'{'; 2000], false, 1009),
        ] {
            let mut client = over.newcomer(&server).await;
            client.control.body(&body).await;
            if first_an_error {
                client.control.expect_error(400).await;
            }
            let close = client.expect_close(code).await;
            assert!(close["reason"].is_string(), "{what}: {close}");
        }
        let mut client = over.newcomer(&server).await;
        client.control.body(&with_attachment(&handshake(json!({})), b"x")).await;
        assert!(client.control.expect_error(400).await.starts_with("attachment"));
        client.handshake("Ada").await;
        neighbour.control.lives("a served client").await;
    }
    server.stop().await;
}

#[tokio::test]
async fn a_client_without_a_handshake_in_time_is_closed() {
    let server = TestServer::start_with(|config| config.timing.handshake_timeout_ms = 300).await;
    for over in Over::ALL {
        let mut neighbour = over.party(&server, "neighbour").await;
        let silent = over.newcomer(&server).await;
        let mut wrong = over.newcomer(&server).await;
        wrong.control.say(handshake(json!({"client_name": ""}))).await;
        wrong.control.expect_error(400).await;
        for (what, mut client) in [("silent", silent), ("a wrong one", wrong)] {
            assert_eq!(client.closed().await.0, 4408, "{what}");
        }
        // On carriers with frames, half a frame is not a handshake, either.
        if over != Over::WebSocket {
            let mut half_a_frame = over.stranger(&server).await;
            half_a_frame.control.raw(&[0, 0]).await;
            assert_eq!(half_a_frame.closed().await.0, 4408);
        }
        neighbour.control.lives("a served client").await;
    }
    server.stop().await;
}

#[tokio::test]
async fn a_second_handshake_is_a_conflict_and_changes_nothing() {
    for over in Over::ALL {
        let server = TestServer::start().await;
        let mut client = over.party(&server, "Ada").await;
        for &on in over.ways() {
            let again = handshake(json!({"client_name": "Eve", "id": "again"})).to_string();
            let error = client.ask(on, again.as_bytes()).await;
            assert_eq!((&error["code"], &error["re"]), (&json!(409), &json!("again")));
        }
        client.control.say(json!({"type": "list_clients"})).await;
        let list = client.control.expect("client_list").await;
        assert_eq!((&list["total"], &list["clients"][0]["name"]), (&json!(1), &json!("Ada")));
        server.stop().await;
    }
}

#[tokio::test]
async fn only_our_protocol_ids_are_accepted() {
    const NO_APPLICATION_PROTOCOL: u8 = 120;
    let server = TestServer::start().await;
    for protocols in [&["h2"][..], &["qws/2"], &["QWS/1"], &["h3-29"], &[]] {
        let endpoint = server.endpoint_speaking(protocols, TransportConfig::default());
        let connecting = endpoint.connect(server.addr, "localhost").expect("a connection begins");
        match soon("a refusal", connecting).await {
            Err(ConnectionError::ConnectionClosed(close)) => {
                assert_eq!(close.error_code, quinn::TransportErrorCode::crypto(NO_APPLICATION_PROTOCOL));
            }
            other => panic!("{protocols:?}: expected no_application_protocol, got {other:?}"),
        }
    }
    let endpoint = server.endpoint_speaking(&["h3", "qws/1"], TransportConfig::default());
    crate::common::RawClient::connect(&endpoint, server.addr).await.handshake("Ada").await;
    server.stop().await;
}

#[tokio::test]
async fn the_first_stream_is_the_control_lane_and_others_wait_for_its_handshake() {
    async fn nothing_came(lane: &mut RawLane) -> bool {
        let read = lane.receive.read_chunk(1, true);
        tokio::time::timeout(std::time::Duration::ZERO, read).await.is_err()
    }
    let server = TestServer::start().await;
    let mut client = server.stranger().await;
    let mut lane = client.lane().await;
    lane.say(json!({"type": "text", "content": "early"})).await;
    for _ in 0..2 {
        client.control.say(handshake(json!({"client_name": ""}))).await;
        client.control.expect_error(400).await;
    }
    assert!(nothing_came(&mut lane).await, "the lane was answered before the handshake");
    client.handshake("Ada").await;
    assert_eq!(lane.expect("text").await["content"], "Echo: early");
    server.stop().await;
}
