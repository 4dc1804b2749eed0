//! How connections end: by the client's wish, by the end of its control lane, by the server's drain. 1007 and 1009 are
//! tested in bad_input.rs, 1013 in capacity.rs, 4408 in handshake.rs and keepalive.rs, 4413 in backlog.rs.

#![allow(clippy::expect_used, clippy::panic)] // A test fails by panicking.

mod common;

use common::{RawClient, TestServer, framed, soon, until};
use quinn::TransportConfig;
use serde_json::json;

#[tokio::test]
async fn a_client_is_closed_with_the_code_that_it_asked_for() {
    let server = TestServer::start().await;
    for (code, reason) in
        [(1000, "done"), (1001, ""), (1011, "ü"), (3000, "x"), (4413, "mine"), (4999, &*"r".repeat(123))]
    {
        let mut client = server.client("Ada").await;
        client.control.say(json!({"type": "close", "code": code, "reason": reason})).await;
        assert_eq!(client.closed().await, (code, reason.to_owned()));
    }
    let mut client = server.client("Ada").await;
    client.control.say(json!({"type": "close"})).await;
    assert_eq!(client.closed().await, (1000, String::new()), "1000 stands where no code was given");
    until("the clients' end", || server.status.connections() == 0).await;
    server.stop().await;
}

#[tokio::test]
async fn what_was_asked_before_the_close_is_answered_before_it() {
    let server = TestServer::start().await;
    let mut client = server.client("Ada").await;
    let requests: Vec<u8> = (0..100)
        .flat_map(|n| framed(json!({"type": "text", "content": "x", "id": n}).to_string().as_bytes()))
        .collect();
    client.control.raw(&[requests, framed(br#"{"type":"close","code":4000}"#)].concat()).await;
    for n in 0..100 {
        assert_eq!(client.control.expect("text").await["re"], n);
    }
    assert_eq!(client.closed().await.0, 4000);
    server.stop().await;
}

#[tokio::test]
async fn the_end_of_the_control_lane_ends_the_connection() {
    let server = TestServer::start().await;
    let mut neighbour = server.client("neighbour").await;

    let mut finished = server.client("finished").await;
    finished.control.say(json!({"type": "text", "content": "last", "id": 1})).await;
    finished.control.send.finish().expect("it ends");
    assert_eq!(finished.control.expect("text").await["re"], 1, "what was asked is answered");
    assert_eq!(finished.closed().await.0, 1000);

    let mut cut = server.client("cut off").await;
    cut.control.raw(&[0, 0, 0, 9, b'{']).await;
    cut.control.send.finish().expect("it ends inside a message");
    cut.expect_close(1002).await;

    let mut reset = server.client("reset").await;
    reset.control.send.reset(7_u32.into()).expect("it is reset");
    reset.expect_close(1002).await;

    let mut stopped = server.client("stopped").await;
    stopped.control.receive.stop(7_u32.into()).expect("it is stopped");
    stopped.control.say(json!({"type": "text", "content": "x"})).await;
    stopped.closed().await;

    neighbour.control.lives("the neighbour").await;
    until("their end", || server.status.connections() == 1).await;
    server.stop().await;
}

#[tokio::test]
async fn a_drain_sends_what_is_queued_and_then_says_when_to_come_back() {
    let server = TestServer::start().await;
    let mut narrow = TransportConfig::default();
    narrow.stream_receive_window(20_000_u32.into());
    let mut client = RawClient::connect(&server.endpoint_with(narrow), server.addr).await;
    client.handshake("Ada").await;
    let mut neighbour = server.client("neighbour").await;
    let bytes = vec![7; 500_000];
    client.control.say_with(json!({"type": "binary", "id": 1}), &bytes).await;
    client.control.say_with(json!({"type": "binary", "id": 2}), &bytes).await;
    // The first bytes are here, so the server has begun to answer; the rest waits for the window.
    let mut prefix = [0; 4];
    soon("the first echo", client.control.receive.read_exact(&mut prefix)).await.expect("a length");
    server.drain();
    let said = neighbour.expect_close(1001).await;
    assert!(said["reconnect_after_ms"].as_u64().is_some_and(|ms| ms <= 2000), "{said}: within the drain's time");
    let mut body = vec![0; u32::from_be_bytes(prefix) as usize];
    soon("the first echo's rest", client.control.receive.read_exact(&mut body)).await.expect("a body");
    assert!(body.ends_with(&bytes), "the first echo came whole");
    client.expect_close(1001).await;
    server.stop().await;
}
