//! Queue groups: subscriptions with `share` divide the messages of a topic, each to one of them, and take nothing from
//! the topic's other subscribers.

#![allow(clippy::expect_used, clippy::panic)] // A test fails by panicking.

use std::collections::BTreeSet;

use quinn::TransportConfig;
use serde_json::json;

use crate::common::over::{Over, Party};
use crate::common::topics::{Subscriber, rule};
use crate::common::{RawClient, TestServer};

async fn publish(client: &mut Party, content: &str) {
    client.control.say(json!({"type": "publish", "topic": "jobs", "content": content, "id": 1})).await;
    client.control.expect("published").await;
}

async fn member(over: Over, server: &TestServer) -> Subscriber {
    let mut member = Subscriber::over(over, server, "member").await;
    let subscribed = member.subscribe(json!({"topic": "jobs", "share": true})).await;
    assert!(subscribed["durable"].is_null(), "{subscribed}");
    member
}

/// Takes a member's messages up to the last one, which everybody is sent.
async fn heard(member: &mut Subscriber, count: usize) -> Vec<u64> {
    let mut offsets = Vec::new();
    for _ in 0..count {
        let message = member.hear("jobs").await;
        assert!(message["durable"].is_null() && message["tries"].is_null(), "{message}");
        offsets.push(message["offset"].as_u64().expect("an offset"));
    }
    offsets
}

#[tokio::test]
async fn each_message_goes_to_one_member_and_to_every_other_subscriber() {
    for rules in ["pattern = '>'", "pattern = '>'\noverflow = 'block'", "pattern = '>'\ndurability = 'os'"] {
        let dir = tempfile::tempdir().expect("a directory");
        let server = TestServer::start_with(|config| {
            config.store.dir = Some(dir.path().to_owned());
            config.store.min_free_bytes = 0;
            config.topics = vec![rule(rules)];
        })
        .await;
        let mut publisher = Over::Native.party(&server, "publisher").await;
        let mut members = Vec::new();
        for over in Over::in_turn().take(6) {
            members.push(member(over, &server).await);
        }
        let mut plain = Subscriber::over(Over::WebSocket, &server, "plain").await;
        plain.subscribe(json!({"topic": "jobs"})).await;
        let mut pattern = Subscriber::over(Over::Native, &server, "pattern").await;
        pattern.subscribe(json!({"topic": ">"})).await;
        for n in 1..=60 {
            publish(&mut publisher, &n.to_string()).await;
        }
        let mut all = BTreeSet::new();
        for member in &mut members {
            let offsets = heard(member, 10).await;
            assert!(offsets.is_sorted(), "{offsets:?}");
            all.extend(offsets);
        }
        assert_eq!(all, (1..=60).collect());
        for other in [&mut plain, &mut pattern] {
            assert_eq!(heard(other, 60).await, (1..=60).collect::<Vec<_>>());
        }
        for member in &mut members {
            member.lives("nothing more").await;
            member.nothing_more().await;
        }
        server.stop().await;
    }
}

#[tokio::test]
async fn a_member_that_leaves_gets_nothing_more_and_the_others_its_part() {
    let server = TestServer::start().await;
    let mut publisher = Over::Native.party(&server, "publisher").await;
    let (mut one, mut other) = (member(Over::Native, &server).await, member(Over::WebSocket, &server).await);
    for n in 0..4 {
        publish(&mut publisher, &n.to_string()).await;
    }
    assert_eq!((heard(&mut one, 2).await.len(), heard(&mut other, 2).await.len()), (2, 2));
    one.unsubscribe("jobs").await;
    for n in 0..4 {
        publish(&mut publisher, &n.to_string()).await;
    }
    assert_eq!(heard(&mut other, 4).await, [5, 6, 7, 8]);
    one.lives("nothing more").await;
    one.nothing_more().await;
    other.unsubscribe("jobs").await;
    publish(&mut publisher, "to nobody").await;
    let mut one = member(Over::Native, &server).await;
    publish(&mut publisher, "again").await;
    assert_eq!(heard(&mut one, 1).await, [10], "a message without members goes to none of them");
    server.stop().await;
}

#[tokio::test]
async fn a_member_that_does_not_read_is_passed_over() {
    let server = TestServer::start_with(|config| {
        config.limits.max_message_bytes = 30_000;
        config.limits.lane_backlog_bytes = 40_000;
        config.limits.client_backlog_bytes = 80_000;
        config.quic.send_window = 16 * 1024;
    })
    .await;
    let mut publisher = Over::Native.party(&server, "publisher").await;
    // Its lane is not read before the first call that receives, and takes less than one message until then.
    let mut transport = TransportConfig::default();
    transport.stream_receive_window(8000_u32.into());
    let mut stuck = RawClient::connect(&server.endpoint_with(transport), server.addr).await;
    stuck.handshake("stuck").await;
    let mut stuck = Subscriber::new(stuck);
    stuck.subscribe(json!({"topic": "jobs", "share": true})).await;
    let mut quick = member(Over::WebSocket, &server).await;
    let text = "x".repeat(20_000);
    for _ in 0..100 {
        publish(&mut publisher, &text).await;
        // It reads what it has got so far.
        quick.lives("quick").await;
    }
    heard(&mut quick, 90).await;
    stuck.hear("jobs").await;
    assert!(server.status.clients() == 3, "nobody was closed");
    server.stop().await;
}
