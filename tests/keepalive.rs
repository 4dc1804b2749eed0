//! Signs of life in both directions: the client's `ping` is answered, and a client that gives none is closed.

#![allow(clippy::expect_used, clippy::panic)] // A test fails by panicking.

mod common;

use common::TestServer;
use serde_json::json;

#[tokio::test]
async fn a_ping_is_answered_with_its_timestamp_and_the_servers_time() {
    let server = TestServer::start().await;
    let mut client = server.client("Ada").await;
    client.control.say(json!({"type": "ping", "timestamp": 9_007_199_254_740_991_u64, "id": "p"})).await;
    let pong = client.control.expect("pong").await;
    assert_eq!((&pong["timestamp"], &pong["re"]), (&json!(9_007_199_254_740_991_u64), &json!("p")));
    let off = common::now_ms().abs_diff(pong["server_time"].as_u64().unwrap_or_default());
    assert!(off < 60_000, "{pong} is {off} ms off");
    client.control.say(json!({"type": "ping"})).await;
    let pong = client.control.expect("pong").await;
    assert!(pong.get("timestamp").is_none() && pong.get("re").is_none(), "{pong} has what the ping had");
    server.stop().await;
}

#[tokio::test]
async fn a_silent_client_is_pinged_and_stays_as_long_as_it_answers() {
    let server = TestServer::start_with(|config| {
        config.timing.ping_interval_ms = 30;
        config.timing.ping_timeout_ms = 5000;
    })
    .await;
    let mut client = server.client("Ada").await;
    for answer in [json!({"type": "pong"}), json!({"type": "text", "content": "any message will do"})] {
        for _ in 0..3 {
            let ping = client.control.expect("ping").await;
            assert!(ping["timestamp"].is_u64(), "{ping} tells when");
            client.control.say(answer.clone()).await;
            if answer["type"] == "text" {
                client.control.expect("text").await;
            }
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn a_client_that_answers_on_another_lane_is_alive() {
    let server = TestServer::start_with(|config| {
        config.timing.ping_interval_ms = 30;
        config.timing.ping_timeout_ms = 5000;
    })
    .await;
    let mut client = server.client("Ada").await;
    let mut lane = client.lane().await;
    for _ in 0..2 {
        client.control.expect("ping").await;
        lane.lives("the request lane").await;
    }
    client.control.expect("ping").await;
    client.connection.send_datagram(br#"{"type":"pong"}"#.to_vec().into()).expect("sent");
    client.control.expect("ping").await;
    server.stop().await;
}

#[tokio::test]
async fn a_client_that_does_not_answer_is_closed_4408_alone() {
    let server = TestServer::start_with(|config| {
        config.timing.ping_interval_ms = 100;
        config.timing.ping_timeout_ms = 100;
    })
    .await;
    let mut neighbour = server.client("neighbour").await;
    let mut silent = server.client("silent").await;
    let answers = async {
        loop {
            neighbour.control.expect("ping").await;
            neighbour.control.say(json!({"type": "pong"})).await;
        }
    };
    let silence = async {
        silent.control.expect("ping").await;
        silent.expect_close(4408).await;
    };
    tokio::select! {
        () = answers => {}
        () = silence => {}
    }
    neighbour.connection.close(1000_u32.into(), b"");
    server.stop().await;
}
