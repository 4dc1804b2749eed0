//! Over a link that loses and delays packets: nothing is lost, doubled or out of order, and bulk does not hold up what is
//! small.

#![allow(clippy::expect_used, clippy::panic)] // A test fails by panicking.

mod common;

use std::time::Duration;

use common::relay::{Link, Relay};
use common::topics::{Subscriber, TopicLane, rule};
use common::{RawClient, TestServer};
use serde_json::json;

/// A client whose packets go through the relay.
async fn through(relay: &Relay, server: &TestServer, name: &str) -> RawClient {
    let mut client = RawClient::connect(&server.endpoint(), relay.addr).await;
    client.handshake(name).await;
    client
}

#[tokio::test]
async fn every_subscriber_gets_everything_in_order_although_packets_are_lost() {
    let server = TestServer::start().await;
    let link = Link { loss: 0.05, delay: Duration::from_millis(5), seed: 11 };
    let relay = Relay::start(server.addr, link).await;
    let mut subscribers = Vec::new();
    for n in 0..4 {
        let mut subscriber = Subscriber::new(through(&relay, &server, &format!("subscriber {n}")).await);
        for topic in 0..4 {
            subscriber.subscribe(json!({"topic": format!("t.{topic}")})).await;
        }
        subscribers.push(subscriber);
    }
    let mut publisher = through(&relay, &server, "publisher").await;
    for n in 0..400 {
        let topic = format!("t.{}", n % 4);
        publisher.control.say(json!({"type": "publish", "topic": topic, "content": n.to_string(), "id": n})).await;
    }
    for n in 0..400 {
        assert_eq!(publisher.control.expect("published").await["re"], n);
    }
    for subscriber in &mut subscribers {
        for n in 0..400 {
            let message = subscriber.hear(&format!("t.{}", n % 4)).await;
            assert_eq!((&message["content"], &message["offset"]), (&json!(n.to_string()), &json!(n / 4 + 1)));
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn who_returns_over_a_lossy_link_misses_nothing() {
    let server = TestServer::start().await;
    let link = Link { loss: 0.1, delay: Duration::from_millis(2), seed: 12 };
    let relay = Relay::start(server.addr, link).await;
    let mut publisher = server.client("publisher").await;
    let (mut last, mut epoch) = (0_u64, serde_json::Value::Null);
    for _ in 0..10 {
        for _ in 0..20 {
            publisher.control.say(json!({"type": "publish", "topic": "a", "content": "x", "id": 1})).await;
            epoch = publisher.control.expect("published").await["epoch"].clone();
        }
        let mut client = through(&relay, &server, "subscriber").await;
        let since = json!({"epoch": epoch, "offset": last});
        client.control.say(json!({"type": "subscribe", "topic": "a", "since": since, "id": 1})).await;
        assert_eq!(client.control.expect("subscribed").await["recovered"], true);
        let mut lane = TopicLane::accept(&client).await;
        for _ in 0..15 {
            last += 1;
            assert_eq!(lane.hear().await["offset"], last);
        }
        // No goodbye: the server finds out by itself.
        drop(client);
    }
    server.stop().await;
}

#[tokio::test]
async fn a_small_message_overtakes_a_large_one_on_another_lane() {
    for priority in [128, 255] {
        let server = TestServer::start_with(|config| {
            config.topics = vec![rule(&format!("pattern = 'small'\npriority = {priority}"))];
        })
        .await;
        let link = Link { loss: 0.0, delay: Duration::from_millis(20), seed: 13 };
        let relay = Relay::start(server.addr, link).await;
        let mut client = through(&relay, &server, "subscriber").await;
        for topic in ["bulk", "small"] {
            client.control.say(json!({"type": "subscribe", "topic": topic, "id": 1})).await;
            client.control.expect("subscribed").await;
        }
        let mut publisher = server.client("publisher").await;
        for (topic, size) in [("bulk", 1_000_000), ("small", 64)] {
            let content = "x".repeat(size);
            publisher.control.say(json!({"type": "publish", "topic": topic, "content": content, "id": 1})).await;
            publisher.control.expect("published").await;
        }
        let (mut one, mut other) = (TopicLane::accept(&client).await, TopicLane::accept(&client).await);
        let bulk_is_first = tokio::select! {
            first = one.hear() => first["topic"] == "bulk",
            first = other.hear() => first["topic"] == "bulk",
        };
        assert!(!bulk_is_first, "the small message waited for the large one; priority {priority}");
        server.stop().await;
    }
}
