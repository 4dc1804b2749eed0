//! How many members a topic has: for rooms that are too large for names, and lists in pages.

#![allow(clippy::expect_used, clippy::panic)] // A test fails by panicking.

use serde_json::{Value, json};

use crate::common::TestServer;
use crate::common::over::Over;
use crate::common::tokens::{asking, bearer};
use crate::common::topics::{Subscriber, rule};

fn occupancy(clients: u64, users: u64) -> Value {
    json!({"type": "occupancy", "topic": "room", "clients": clients, "users": users})
}

/// Reads numbers until these come, which may be told together with later ones.
async fn until_occupancy(watcher: &mut Subscriber, expected: &Value) {
    loop {
        let (_, heard) = watcher.any().await;
        assert_eq!(heard["type"], "occupancy", "{heard}");
        if heard == *expected {
            return;
        }
    }
}

#[tokio::test]
async fn watchers_of_counts_get_the_number_first_and_then_its_changes() {
    for (from, to) in Over::pairs() {
        let server = TestServer::start_with(|config| config.auth = asking("[anonymous]\nsubscribe = ['room']")).await;
        let mut watcher = Subscriber::over(from, &server, "watcher").await;
        let mut named = Subscriber::over(to, &server, "named").await;
        named.subscribe(json!({"topic": "room", "presence": true})).await;
        watcher.subscribe(json!({"topic": "room", "presence": "counts"})).await;
        assert_eq!(watcher.any().await.1, occupancy(2, 0), "at once");
        assert_eq!(named.any().await.1["type"], "join", "who wants names gets names");
        let mut phone = Subscriber::new(bearer(to, &server, json!({"sub": "ada", "subscribe": ["room"]})).await);
        let mut laptop = Subscriber::new(bearer(to, &server, json!({"sub": "ada", "subscribe": ["room"]})).await);
        phone.subscribe(json!({"topic": "room"})).await;
        laptop.subscribe(json!({"topic": "room", "state": 1})).await;
        until_occupancy(&mut watcher, &occupancy(4, 1)).await;
        phone.unsubscribe("room").await;
        until_occupancy(&mut watcher, &occupancy(3, 1)).await;
        // One that is lost is still there.
        let counts = json!({"type": "presence", "topic": "room", "counts": true, "id": 1});
        let listed = watcher.ask(counts.clone(), "presence").await;
        let expected = json!({"type": "presence", "re": 1, "topic": "room", "clients": [], "total": 3, "users": 1});
        assert_eq!(listed, expected);
        laptop.client.lose();
        assert_eq!(watcher.ask(counts, "presence").await, expected);
        for kind in ["join", "join", "leave", "state"] {
            assert_eq!(named.any().await.1["type"], kind);
        }
        drop((watcher, named, phone));
        server.stop().await;
    }
}

#[tokio::test]
async fn a_topic_that_only_counts_names_no_member() {
    for (from, to) in Over::pairs() {
        let rules = vec![rule("pattern = 'room'\npresence = 'counts'\npresence_grace_ms = 0")];
        let server = TestServer::start_with(|config| config.topics = rules).await;
        let mut ada = Subscriber::over(from, &server, "Ada").await;
        ada.subscribe(json!({"topic": "room", "presence": true})).await;
        assert_eq!(ada.any().await.1, occupancy(1, 0));
        // A pattern gets changes, of the topics that it matches.
        let mut pattern = Subscriber::over(to, &server, "pattern").await;
        pattern.subscribe(json!({"topic": "*", "presence": true})).await;
        let mut bob = Subscriber::over(to, &server, "Bob").await;
        bob.subscribe(json!({"topic": "room"})).await;
        for watcher in [&mut ada, &mut pattern] {
            until_occupancy(watcher, &occupancy(2, 0)).await;
        }
        let presence = ada.ask(json!({"type": "presence", "topic": "room", "id": 1}), "presence").await;
        let expected = json!({"type": "presence", "re": 1, "topic": "room", "clients": [], "total": 2, "users": 0});
        assert_eq!(presence, expected);
        bob.client.lose();
        for watcher in [&mut ada, &mut pattern] {
            until_occupancy(watcher, &occupancy(1, 0)).await;
        }
        drop((ada, pattern));
        server.stop().await;
    }
}

#[tokio::test]
async fn a_crowd_that_comes_and_goes_is_told_as_a_few_numbers() {
    for over in Over::ALL {
        let rules = vec![rule("pattern = 'room'\npresence_interval_ms = 500")];
        let server = TestServer::start_with(|config| config.topics = rules).await;
        let mut ada = Subscriber::over(over, &server, "Ada").await;
        ada.subscribe(json!({"topic": "room", "presence": "counts"})).await;
        assert_eq!(ada.any().await.1, occupancy(1, 0));
        let mut bob = Subscriber::over(over, &server, "Bob").await;
        let began = tokio::time::Instant::now();
        for _ in 0..100 {
            bob.subscribe(json!({"topic": "room"})).await;
            bob.unsubscribe("room").await;
        }
        bob.subscribe(json!({"topic": "room"})).await;
        bob.unsubscribe("room").await;
        ada.lives("ada").await;
        let mut crowd = Vec::new();
        for _ in 0..3 {
            let mut client = Subscriber::over(over, &server, "crowd").await;
            client.subscribe(json!({"topic": "room"})).await;
            crowd.push(client);
        }
        let mut told = 1;
        while ada.any().await.1 != occupancy(4, 0) {
            told += 1;
        }
        let most = began.elapsed().as_millis() / 500 + 2;
        assert!(told <= most, "{told} numbers in {:?}", began.elapsed());
        drop((ada, bob, crowd));
        server.stop().await;
    }
}

#[tokio::test]
async fn members_are_listed_in_pages() {
    for over in Over::ALL {
        let server = TestServer::start().await;
        let mut members = Vec::new();
        for over in Over::in_turn().take(7) {
            let mut member = Subscriber::over(over, &server, "member").await;
            member.subscribe(json!({"topic": "room"})).await;
            members.push(member);
        }
        let mut ids: Vec<String> = members.iter().map(|member| member.client.id.clone()).collect();
        ids.sort();
        let mut ada = over.party(&server, "Ada").await;
        let (mut listed, mut pages, mut after) = (Vec::new(), Vec::new(), Value::Null);
        loop {
            let mut request = json!({"type": "presence", "topic": "room", "limit": 3});
            if !after.is_null() {
                request["after"] = after;
            }
            ada.control.say(request).await;
            let page = ada.control.expect("presence").await;
            assert_eq!((&page["total"], &page["users"]), (&json!(7), &json!(0)), "of all pages");
            let clients = page["clients"].as_array().expect("a list");
            pages.push(clients.len());
            listed.extend(clients.iter().map(|client| client["id"].as_str().expect("an id").to_owned()));
            after = page["next"].clone();
            if after.is_null() {
                break;
            }
            assert_eq!(after, *listed.last().expect("one at least"));
        }
        assert_eq!((pages, listed), (vec![3, 3, 1], ids));
        for (field, wrong) in [("limit", json!(0)), ("limit", json!(1001)), ("after", json!("Ada"))] {
            let mut request = json!({"type": "presence", "topic": "room"});
            request[field] = wrong;
            ada.control.say(request).await;
            let why = ada.control.expect_error(400).await;
            assert!(why.contains(field), "{why}");
        }
        drop((ada, members));
        server.stop().await;
    }
}

#[tokio::test]
async fn presence_of_a_pattern_is_refused_with_the_reason() {
    for over in Over::ALL {
        let server = TestServer::start().await;
        let mut ada = over.party(&server, "Ada").await;
        for pattern in ["room.*", "room.>", "*", ">"] {
            ada.control.say(json!({"type": "presence", "topic": pattern, "id": 1})).await;
            let why = ada.control.expect_error(400).await;
            assert!(why.contains("topic: a pattern has no members"), "{why}");
        }
        drop(ada);
        server.stop().await;
    }
}
