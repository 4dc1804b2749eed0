//! Who is let in, who is not, and that nothing is served before.

#![allow(clippy::expect_used, clippy::panic)] // A test fails by panicking.

mod common;

use common::{RawClient, TestServer, client_config, soon};
use serde_json::{Value, json};

fn handshake(name: &str) -> Value {
    json!({"type": "handshake", "protocol_version": "1.0", "client_name": name})
}

#[tokio::test]
async fn an_accepted_client_is_told_what_it_needs() {
    let server = TestServer::start_with(|config| {
        config.name = "Test \"server\"".into();
        config.limits.max_request_lanes = 7;
    })
    .await;
    let mut client = RawClient::connect(&server.endpoint(), server.addr).await;
    let mut hello = handshake("Ada");
    hello["id"] = json!("h");
    hello["token"] = json!("not looked at");
    let response = client.handshake_with(hello).await;
    assert_eq!(response["re"], "h");
    assert_eq!(response["server_name"], "Test \"server\"");
    assert_eq!(response["protocol_version"], "1.0");
    assert_eq!(response["compression"], Value::Null, "none was offered");
    let limits = json!({
        "max_message_bytes": 1_048_576, "ping_interval_ms": 25_000, "ping_timeout_ms": 10_000, "max_request_lanes": 7
    });
    assert_eq!(response["limits"], limits);
    assert_eq!(uuid::Uuid::parse_str(&client.id).expect("a UUID").to_string(), client.id, "in canonical text");
    server.stop().await;
}

#[tokio::test]
async fn names_are_optional_and_bounded_in_characters() {
    let server = TestServer::start().await;
    for name in [Value::Null, json!("a"), json!("ü".repeat(64)), json!("🚀 with spaces, \"quotes\" and \\")] {
        let mut client = RawClient::connect(&server.endpoint(), server.addr).await;
        client.handshake_with(json!({"type": "handshake", "protocol_version": "1.0", "client_name": name})).await;
        client.control.say(json!({"type": "list_clients"})).await;
        let list = client.control.expect("client_list").await;
        let me = list["clients"].as_array().expect("a list").iter().find(|c| c["id"] == client.id.as_str());
        assert_eq!(me.expect("me")["name"], name, "the list has the name as it was given");
    }
    server.stop().await;
}

#[tokio::test]
async fn a_wrong_handshake_may_be_corrected_twice() {
    let server = TestServer::start().await;
    let wrong = [
        ("client_name", handshake("")),
        ("client_name", handshake(&"x".repeat(65))),
        ("client_name", handshake("line\nbreak")),
        ("client_name", handshake("c1 \u{85}")),
        ("client_name", json!({"type": "handshake", "protocol_version": "1.0", "client_name": 5})),
        ("protocol_version", json!({"type": "handshake"})),
        ("protocol_version", json!({"type": "handshake", "protocol_version": 1})),
        ("compression", json!({"type": "handshake", "protocol_version": "1.0", "compression": "zstd"})),
        ("token", json!({"type": "handshake", "protocol_version": "1.0", "token": {}})),
    ];
    for pair in wrong.chunks(2) {
        let mut client = RawClient::connect(&server.endpoint(), server.addr).await;
        for (field, message) in pair {
            client.control.say(message.clone()).await;
            let error = client.control.expect_error(400).await;
            assert!(error.starts_with(&format!("{field}: ")), "{message}: expected {error:?} to name {field}");
        }
        client.handshake("corrected").await;
    }
    let mut client = RawClient::connect(&server.endpoint(), server.addr).await;
    for _ in 0..3 {
        client.control.say(handshake("")).await;
        client.control.expect_error(400).await;
    }
    client.expect_close(1002).await;
    server.stop().await;
}

#[tokio::test]
async fn minor_versions_are_served_and_major_ones_refused() {
    let server = TestServer::start().await;
    let mut accepted = Vec::new();
    for version in ["1.0", "1.7", "1"] {
        let mut client = RawClient::connect(&server.endpoint(), server.addr).await;
        let response = client.handshake_with(json!({"type": "handshake", "protocol_version": version})).await;
        assert_eq!(response["protocol_version"], "1.0", "the server tells what it speaks");
        accepted.push(client);
    }
    for version in ["2.0", "0.9", "10.0", "", "one"] {
        let mut client = RawClient::connect(&server.endpoint(), server.addr).await;
        client.control.say(json!({"type": "handshake", "protocol_version": version, "id": 1})).await;
        let response = client.control.expect("handshake_response").await;
        assert_eq!((&response["accepted"], &response["re"]), (&json!(false), &json!(1)), "{version:?}: {response}");
        assert!(response["reason"].as_str().is_some_and(|reason| reason.contains("1.0")), "{response}");
        assert_eq!(response["client_id"], Value::Null);
        client.expect_close(1002).await;
    }
    assert_eq!(server.status.clients(), accepted.len(), "only these are connected");
    server.stop().await;
}

#[tokio::test]
async fn a_first_message_that_is_no_handshake_closes_1002() {
    let server = TestServer::start().await;
    for message in [json!({"type": "text", "content": "x"}), json!({"type": "ping"}), json!({"type": "close"})] {
        let mut client = RawClient::connect(&server.endpoint(), server.addr).await;
        client.control.say(message).await;
        client.expect_close(1002).await;
    }
    for body in [&b"x"[..], b"{", b"\x01\0\0\0\x09{}"] {
        let mut client = RawClient::connect(&server.endpoint(), server.addr).await;
        client.control.body(body).await;
        client.control.expect_error(400).await;
        client.expect_close(1002).await;
    }
    for (bytes, code) in [([0; 4], 1002), ([0xff; 4], 1009)] {
        let mut client = RawClient::connect(&server.endpoint(), server.addr).await;
        client.control.raw(&bytes).await;
        client.expect_close(code).await;
    }
    let mut client = RawClient::connect(&server.endpoint(), server.addr).await;
    client.control.raw(&[0, 0]).await;
    client.control.send.finish().expect("an end inside a frame");
    client.expect_close(1002).await;
    server.stop().await;
}

#[tokio::test]
async fn who_does_not_shake_hands_in_time_is_closed_4408() {
    let server = TestServer::start_with(|config| config.timing.handshake_timeout_ms = 200).await;
    let mut neighbour = server.client("neighbour").await;
    let silent = RawClient::connect(&server.endpoint(), server.addr).await;
    let mut slow = RawClient::connect(&server.endpoint(), server.addr).await;
    slow.control.raw(&[0, 0, 0, 90, b'{']).await;
    assert_eq!(silent.closed().await.0, 4408, "not even a stream was opened");
    slow.expect_close(4408).await;
    neighbour.control.lives("the neighbour, who did in time").await;
    server.stop().await;
}

#[tokio::test]
async fn a_second_handshake_is_a_conflict() {
    let server = TestServer::start().await;
    let mut client = server.client("Ada").await;
    client.control.say(handshake("Bob")).await;
    client.control.expect_error(409).await;
    client.control.say(json!({"type": "list_clients"})).await;
    assert_eq!(client.control.expect("client_list").await["clients"][0]["name"], "Ada", "nothing has changed");
    server.stop().await;
}

#[tokio::test]
async fn nothing_is_served_before_the_handshake() {
    let server = TestServer::start().await;
    let mut client = RawClient::connect(&server.endpoint(), server.addr).await;
    client.control.raw(&[0]).await;
    let mut lane = client.lane().await;
    lane.say(json!({"type": "ping", "id": "early"})).await;
    client.connection.send_datagram(br#"{"type":"ping"}"#.to_vec().into()).expect("sent");
    assert_eq!(server.client("witness").await.id.len(), 36, "the server has had time to serve others");
    let hello = handshake("Ada").to_string();
    let length = u32::try_from(hello.len()).expect("short").to_be_bytes();
    client.control.raw(&[&length[1..], hello.as_bytes()].concat()).await;
    assert_eq!(client.control.expect("handshake_response").await["accepted"], true);
    assert_eq!(lane.expect("pong").await["re"], "early", "what came early waits");
    server.stop().await;
}

#[tokio::test]
async fn another_application_protocol_is_refused_by_tls() {
    let server = TestServer::start().await;
    let config = client_config(&server.files.ca, b"h3");
    let connecting = server.endpoint().connect_with(config, server.addr, "localhost").expect("it begins");
    let error = soon("a refusal", connecting).await.expect_err("h3 is not spoken here").to_string();
    assert!(error.contains("protocol"), "{error}");
    server.stop().await;
}
