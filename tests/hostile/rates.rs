//! Floods against a server with rate limits: a client that ignores them is closed, and no other client is affected.

use std::time::{Duration, Instant};

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::common::framed;
use super::scene::{Scene, Target};

/// Rates that apply here as well, and far above the neighbour's.
const RATES: &str = "rates.loopback = true\nrates.client_messages = 200\nrates.client_messages_burst = 200\n\
                     rates.client_refusals_burst = 50\nrates.client_topics = 5\nrates.client_topics_burst = 20\n\
                     topics = [{ pattern = 'flood.>', history_messages = 0 }]\n";

/// Most messages that may be refused to a client with these [`RATES`] that floods for this long: the outstanding ones,
/// a few that were answered together with the last, and the forgiven ones, which are two for each message served and
/// one per second.
fn most_refused(flooded: Duration) -> f64 {
    60.0 + (2.0 * 200.0 + 1.0) * flooded.as_secs_f64()
}

/// Floods a lane with one message; returns the number of refusals before it was closed, the duration, and the code.
async fn flood(target: &Target, message: Value) -> (u32, Duration, u64) {
    let mut client = target.client("flood").await;
    let frame = framed(message.to_string().as_bytes());
    let (mut send, mut refused) = (client.control.send, 0);
    let flooding = tokio::spawn(async move { while send.write_all(&frame).await.is_ok() {} });
    let began = Instant::now();
    let mut length = [0; 4];
    while client.control.receive.read_exact(&mut length).await.is_ok() {
        let mut body = vec![0; u32::from_be_bytes(length) as usize];
        if client.control.receive.read_exact(&mut body).await.is_err() {
            break;
        }
        let reply: Value = serde_json::from_slice(&body).expect("JSON");
        if reply["code"] == 429 {
            assert!(reply["retry_after_ms"].as_u64().is_some(), "it has a time to continue: {reply}");
            refused += 1;
        }
    }
    let closed = client.connection.closed().await;
    let flooded = began.elapsed();
    flooding.await.expect("no panic");
    match closed {
        quinn::ConnectionError::ApplicationClosed(close) => (refused, flooded, close.error_code.into_inner()),
        other => panic!("expected a close with a code, got {other}"),
    }
}

#[tokio::test]
async fn floods_of_any_message_are_refused_and_then_closed() {
    let scene = Scene::start(RATES).await;
    let mut flooding = JoinSet::new();
    for message in [
        json!({"type": "text", "content": "x"}),
        json!({"type": "ping"}),
        json!({"type": "broadcast", "content": "x"}),
        json!({"type": "publish", "topic": "flood.one", "content": "x"}),
        json!({"type": "subscribe", "topic": "flood.one"}),
        json!({"type": "history", "topic": "flood.one"}),
        json!({"type": "list_clients", "limit": 1000}),
        json!({"type": "unknown"}),
    ] {
        let target = scene.target.clone();
        flooding.spawn(async move { (message.clone(), flood(&target, message).await) });
    }
    while let Some(ended) = flooding.join_next().await {
        // A client on a slow machine may lose refusals to the close that follows them; the server has counted them.
        let (message, (refused, flooded, code)) = ended.expect("an end");
        assert_eq!(code, 4429, "{message}");
        let most = most_refused(flooded);
        assert!(f64::from(refused) <= most, "{refused} of {message} were refused before that, in {flooded:?}");
    }
    let refused = scene.server.status.stats(0).totals.refused;
    assert!(refused >= 8, "each of the eight was refused before it was closed: {refused}");
    scene.end().await;
}

#[tokio::test]
async fn a_flood_of_datagrams_is_refused_and_then_closed() {
    let scene = Scene::start(RATES).await;
    let client = scene.target.client("flood").await;
    let body = Bytes::from_static(br#"{"type":"text","content":"x"}"#);
    while client.connection.send_datagram_wait(body.clone()).await.is_ok() {}
    assert_eq!(client.closed().await.0, 4429);
    scene.end().await;
}

#[tokio::test]
async fn a_client_that_creates_endless_topics_is_stopped_before_others_have_none() {
    let scene = Scene::start(&format!("{RATES}limits.max_topics = 100")).await;
    for n in 0..3 {
        let mut client = scene.target.client("maker").await;
        for topic in 0..200 {
            let publish = json!({"type": "publish", "topic": format!("flood.{n}.{topic}"), "content": "x"});
            if client.control.send.write_all(&framed(publish.to_string().as_bytes())).await.is_err() {
                break;
            }
        }
        assert_eq!(client.closed().await.0, 4429);
    }
    let made = scene.server.status.topics();
    assert!(made < 100, "there is room for others' topics: {made} are there");
    scene.end().await;
}
