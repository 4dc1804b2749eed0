//! Who is on a topic, and which clients are notified when others come and go.

#![allow(clippy::expect_used, clippy::panic)] // A test fails by panicking.

use crate::common::TestServer;
use crate::common::over::Over;
use crate::common::topics::{Subscriber, rule};
use serde_json::json;

#[tokio::test]
async fn presence_lists_members_and_reports_joins_and_leaves_except_ones_own() {
    for (from, to) in Over::pairs() {
        // A client that vanishes leaves at once.
        let server =
            TestServer::start_with(|config| config.topics = vec![rule("pattern = '>'\npresence_grace_ms = 0")]).await;
        let mut ada = Subscriber::over(from, &server, "Ada").await;
        ada.subscribe(json!({"topic": "room", "presence": true})).await;
        let mut quiet = Subscriber::over(to, &server, "quiet").await;
        quiet.subscribe(json!({"topic": "room"})).await;
        let (_, join) = ada.any().await;
        assert_eq!(join, json!({"type": "join", "topic": "room", "client": {"id": quiet.client.id, "name": "quiet"}}));
        let mut bob = Subscriber::over(to, &server, "Bob").await;
        bob.subscribe(json!({"topic": "room", "presence": true})).await;
        assert_eq!(ada.any().await.1["client"]["name"], "Bob");

        let presence = bob.ask(json!({"type": "presence", "topic": "room", "id": 1}), "presence").await;
        let mut names: Vec<_> =
            presence["clients"].as_array().expect("a list").iter().map(|c| c["name"].clone()).collect();
        names.sort_by_key(ToString::to_string);
        assert_eq!((json!(names), &presence["total"]), (json!(["Ada", "Bob", "quiet"]), &json!(3)));

        quiet.unsubscribe("room").await;
        for watcher in [&mut ada, &mut bob] {
            let (_, leave) = watcher.any().await;
            assert_eq!((&leave["type"], &leave["client"]["name"]), (&json!("leave"), &json!("quiet")));
        }
        bob.client.vanish();
        let (_, leave) = ada.any().await;
        assert_eq!((&leave["type"], &leave["client"]["name"]), (&json!("leave"), &json!("Bob")));
        ada.lives("Ada").await;
        ada.nothing_more().await;
        quiet.lives("quiet").await;
        quiet.nothing_more().await;
        drop((ada, quiet));
        server.stop().await;
    }
}

#[tokio::test]
async fn a_pattern_gets_joins_and_leaves_of_all_its_topics() {
    for (from, to) in Over::pairs() {
        let server = TestServer::start().await;
        let mut watcher = Subscriber::over(from, &server, "watcher").await;
        watcher.subscribe(json!({"topic": "room.*", "presence": true})).await;
        // An exact subscription without presence events takes none away from the pattern.
        watcher.subscribe(json!({"topic": "room.1"})).await;
        let mut guest = Subscriber::over(to, &server, "guest").await;
        for topic in ["room.1", "room.2", "hall.1"] {
            guest.subscribe(json!({"topic": topic})).await;
        }
        guest.unsubscribe("room.2").await;
        for (kind, topic) in [("join", "room.1"), ("join", "room.2"), ("leave", "room.2")] {
            let (_, heard) = watcher.any().await;
            assert_eq!((&heard["type"], &heard["topic"]), (&json!(kind), &json!(topic)));
        }
        drop((watcher, guest));
        server.stop().await;
    }
}
