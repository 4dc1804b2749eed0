//! Patterns and topics with the largest number of levels, designed to match up to their last level: requests that would
//! cost the product of patterns and topics if they were compared one by one.

use quinn::TransportConfig;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::common::tokens::{SECRET, handshake, token};
use super::common::{RawClient, RawLane, until};
use super::scene::{Scene, Target};

/// These topics have no history, so that they are forgotten in the end.
const TOPICS: &str = "topics = [{ pattern = 'a.>', history_messages = 0 }]";

/// A pattern of 127 levels in which each of the first ten is either the topics' own or a `*`, and whose last level
/// occurs in no topic.
fn spiteful(number: usize) -> String {
    let level = |at: usize| if at > 0 && at <= 10 && number >> (at - 1) & 1 == 1 { "*" } else { "a" };
    (0..126).map(level).chain(["b"]).collect::<Vec<_>>().join(".")
}

/// A topic of 127 levels that such patterns match up to its last level.
fn topic(number: usize) -> String {
    format!("{}{number:03x}", "a.".repeat(126))
}

/// Sends a request, and reads the reply, which must be of this type.
async fn ask(lane: &mut RawLane, request: Value, expected: &str) {
    lane.say(request).await;
    let reply = lane.hear().await;
    assert_eq!(reply["type"], expected, "{reply}");
}

async fn subscribe(lane: &mut RawLane, topic: &str) {
    ask(lane, json!({"type": "subscribe", "topic": topic, "id": 1}), "subscribed").await;
}

async fn unsubscribe(lane: &mut RawLane, topic: &str) {
    ask(lane, json!({"type": "unsubscribe", "topic": topic, "id": 1}), "ok").await;
}

async fn publish(target: &Target, topics: usize) {
    let mut publisher = target.client("publisher").await;
    for number in 0..topics {
        let publish = json!({"type": "publish", "topic": topic(number), "content": "x".repeat(100), "id": 1});
        ask(&mut publisher.control, publish, "published").await;
    }
}

#[tokio::test]
async fn queued_messages_are_compared_with_a_thousand_subscriptions_without_delaying_other_clients() {
    // Everything is on one lane, so all queued messages are checked each time.
    let scene = Scene::start(&format!("limits.topic_lanes = 1\n{TOPICS}")).await;
    let mut transport = TransportConfig::default();
    transport.stream_receive_window(2000_u32.into());
    let mut client = RawClient::connect(&scene.target.endpoint_with(transport), scene.target.addr).await;
    client.handshake("deaf").await;
    subscribe(&mut client.control, "a.>").await;
    for number in 0..1020 {
        subscribe(&mut client.control, &spiteful(number)).await;
    }
    for pattern in ["a.a.>", "a.a.a.>", "a.*.>"] {
        subscribe(&mut client.control, pattern).await;
    }
    publish(&scene.target, 900).await;
    let waiting = || scene.server.status.stats(0).queues.messages;
    until("the messages to wait", || waiting() > 850).await;
    for pattern in ["a.>", "a.a.>", "a.a.a.>"] {
        unsubscribe(&mut client.control, pattern).await;
        assert!(waiting() > 850, "another one brings them as well: {} wait", waiting());
    }
    unsubscribe(&mut client.control, "a.*.>").await;
    until("what no other one matches to be forgotten", || waiting() < 50).await;
    drop(client);
    scene.end().await;
}

#[tokio::test]
async fn a_token_with_many_grants_is_compared_with_many_subscriptions_without_delaying_other_clients() {
    let scene = Scene::start(&format!(
        "auth.keys = [{{ algorithm = 'HS256', secret = '{SECRET}' }}]\n\
         auth.anonymous = {{ publish = '>', subscribe = '>' }}\n{TOPICS}"
    ))
    .await;
    // Only the last of these grants any of the subscribed topics.
    let grants = |round: usize| {
        let others = (0..200).map(|number| format!("{}{number}-{round}", "*.".repeat(9)));
        token(json!({"subscribe": others.chain(["a.>".to_owned()]).collect::<Vec<_>>()}))
    };
    let mut client = scene.target.stranger().await;
    client.handshake_with(handshake(&grants(0))).await;
    for number in 0..1000 {
        let pattern = format!("a.{}{number}", "*.".repeat(8));
        subscribe(&mut client.control, &pattern).await;
    }
    let mut refreshing = JoinSet::new();
    for lane in 0..30 {
        let (mut lane, token) = (client.lane().await, grants(lane + 1));
        refreshing.spawn(async move {
            ask(&mut lane, json!({"type": "refresh", "token": token, "id": 1}), "refreshed").await;
        });
    }
    while let Some(ended) = refreshing.join_next().await {
        ended.expect("each is taken");
    }
    // A token that grants less ends only what is no longer allowed.
    let fewer = token(json!({"subscribe": ["a.*.*.*.*.*.*.*.*.7"]}));
    let mut lane = client.lane().await;
    ask(&mut lane, json!({"type": "refresh", "token": fewer, "id": 1}), "refreshed").await;
    for _ in 0..999 {
        let ended = client.control.hear().await;
        assert_eq!((&ended["type"], &ended["code"]), (&json!("unsubscribed"), &json!(403)), "{ended}");
    }
    unsubscribe(&mut client.control, "a.*.*.*.*.*.*.*.*.7").await;
    drop(client);
    scene.end().await;
}

#[tokio::test]
async fn deep_patterns_added_and_removed_cost_publishers_to_other_topics_nothing() {
    let scene = Scene::start(TOPICS).await;
    let mut coming = JoinSet::new();
    for client in 0..10 {
        let target = scene.target.clone();
        coming.spawn(async move {
            let mut lane = target.client("fickle").await;
            let patterns: Vec<String> = (0..100).map(|number| spiteful(client * 100 + number)).collect();
            for round in 0..3 {
                for pattern in &patterns {
                    subscribe(&mut lane.control, pattern).await;
                }
                for number in 0..20 {
                    let publish =
                        json!({"type": "publish", "topic": topic(round * 20 + number), "content": "x", "id": 1});
                    ask(&mut lane.control, publish, "published").await;
                }
                for pattern in &patterns {
                    unsubscribe(&mut lane.control, pattern).await;
                }
            }
        });
    }
    while let Some(ended) = coming.join_next().await {
        ended.expect("it is served to the end");
    }
    scene.end().await;
}
