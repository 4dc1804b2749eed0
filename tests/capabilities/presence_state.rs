//! What a member of a topic shows to the others: set by itself, brought to the watchers, and coalesced.

#![allow(clippy::expect_used, clippy::panic)] // A test fails by panicking.

use serde_json::{Value, json};

use crate::common::TestServer;
use crate::common::over::Over;
use crate::common::tokens::{asking, bearer};
use crate::common::topics::{Subscriber, rule};

async fn watcher(over: Over, server: &TestServer, topic: &str) -> Subscriber {
    let mut watcher = Subscriber::over(over, server, "watcher").await;
    watcher.subscribe(json!({"topic": topic, "presence": true})).await;
    watcher
}

fn state(state: Value) -> Value {
    json!({"type": "state", "topic": "room", "state": state, "id": "state"})
}

#[tokio::test]
async fn a_members_state_reaches_the_watchers_as_it_was_sent() {
    for (from, to) in Over::pairs() {
        let server = TestServer::start().await;
        let mut ada = watcher(from, &server, "room").await;
        // A pattern brings it as well.
        let mut eve = watcher(to, &server, "*").await;
        let mut bob = watcher(to, &server, "room").await;
        for watcher in [&mut ada, &mut eve] {
            assert_eq!(watcher.any().await.1["type"], "join");
        }
        // Numbers of any size, and white space, arrive as they were written.
        let raw = r#"{"at":12345678901234567890, "text":"\u00e9","deep":[[[]]]}"#;
        let body = format!(r#"{{"type":"state","topic":"room","state": {raw} ,"id":7}}"#);
        bob.client.control.body(body.as_bytes()).await;
        assert_eq!(bob.client.control.expect("ok").await, json!({"type": "ok", "re": 7}));
        for watcher in [&mut ada, &mut eve] {
            let (_, heard) = watcher.any().await;
            let (id, shown): (_, Value) = (&bob.client.id, serde_json::from_str(raw).expect("JSON"));
            let client = json!({"id": id, "name": "watcher", "state": shown});
            assert_eq!(heard, json!({"type": "state", "topic": "room", "client": client}));
        }
        let presence = json!({"type": "presence", "topic": "room"}).to_string();
        ada.client.control.body(presence.as_bytes()).await;
        let listed = String::from_utf8(ada.client.control.hear_body().await).expect("UTF-8");
        assert!(listed.contains(&format!(r#""state":{raw}"#)), "{listed}");
        // Without an id there is no reply; null removes it.
        bob.client.control.say(json!({"type": "state", "topic": "room", "state": null})).await;
        assert_eq!(ada.any().await.1["client"], json!({"id": bob.client.id, "name": "watcher"}));
        bob.lives("bob").await;
        bob.nothing_more().await;
        drop((ada, eve, bob));
        server.stop().await;
    }
}

#[tokio::test]
async fn a_state_that_changes_fast_is_told_once_in_each_interval_with_the_newest() {
    for over in Over::ALL {
        let rules = vec![rule("pattern = 'room'\npresence_interval_ms = 300")];
        let server = TestServer::start_with(|config| config.topics = rules).await;
        let mut ada = watcher(over, &server, "room").await;
        let mut bob = Subscriber::over(over, &server, "Bob").await;
        bob.subscribe(json!({"topic": "room", "state": 0})).await;
        let (_, joined) = ada.any().await;
        assert_eq!((&joined["type"], &joined["client"]["state"]), (&json!("join"), &json!(0)));
        let began = tokio::time::Instant::now();
        for number in 1..=1000 {
            bob.client.control.say(json!({"type": "state", "topic": "room", "state": number})).await;
        }
        bob.lives("bob").await;
        let mut told = Vec::new();
        while told.last() != Some(&1000) {
            let (_, heard) = ada.any().await;
            assert_eq!(heard["type"], "state");
            told.push(heard["client"]["state"].as_u64().expect("a number"));
        }
        let most = began.elapsed().as_millis() / 300 + 2;
        assert!(told.len() as u128 <= most && told.is_sorted(), "{told:?} in {:?}", began.elapsed());
        drop((ada, bob));
        server.stop().await;
    }
}

#[tokio::test]
async fn many_members_that_change_at_once_each_hear_of_all_others() {
    let server = TestServer::start().await;
    let mut members = Vec::new();
    for over in Over::in_turn().take(12) {
        let mut member = watcher(over, &server, "room").await;
        for earlier in &mut members {
            let earlier: &mut Subscriber = earlier;
            assert_eq!(earlier.any().await.1["type"], "join");
        }
        member.lives("member").await;
        members.push(member);
    }
    for member in &mut members {
        let id = member.client.id.clone();
        member.client.control.say(json!({"type": "state", "topic": "room", "state": id})).await;
    }
    let ids: Vec<String> = members.iter().map(|member| member.client.id.clone()).collect();
    for member in &mut members {
        let mut others: Vec<String> = ids.iter().filter(|&id| *id != member.client.id).cloned().collect();
        while !others.is_empty() {
            let (_, heard) = member.any().await;
            let id = heard["client"]["id"].as_str().expect("an id");
            assert_eq!((&heard["type"], &heard["client"]["state"]), (&json!("state"), &json!(id)));
            let at = others.iter().position(|other| other == id).expect("not its own, and each once");
            others.remove(at);
        }
        member.lives("member").await;
        member.nothing_more().await;
    }
    drop(members);
    server.stop().await;
}

#[tokio::test]
async fn states_that_cannot_be_are_refused_with_the_reason() {
    for over in Over::ALL {
        let server = TestServer::start_with(|config| {
            config.limits.state_bytes = 10;
            config.topics =
                vec![rule("pattern = 'off'\npresence = false"), rule("pattern = 'many'\npresence = 'counts'")];
        })
        .await;
        let mut ada = Subscriber::over(over, &server, "Ada").await;
        for topic in ["room", "off", "many", "hall.*"] {
            ada.subscribe(json!({"topic": topic})).await;
        }
        let set = |topic: &str, state: &Value| json!({"type": "state", "topic": topic, "state": state, "id": 1});
        let subscribe = |topic: &str| json!({"type": "subscribe", "topic": topic, "state": 1, "id": 1});
        let long = json!("123456789");
        for (request, code, text) in [
            (set("hall", &json!(1)), 404, "not subscribed to hall"),
            // Only members have a state, and a pattern makes none.
            (set("hall.1", &json!(1)), 404, "not subscribed to hall.1"),
            (set("off", &json!(1)), 404, "off does not list its members"),
            (set("many", &json!(1)), 404, "many shows only how many members it has"),
            (set("room", &long), 400, "state: it has 11 bytes, and at most 10 are allowed"),
            (set("hall.*", &json!(1)), 400, "topic: a pattern has no members"),
            (subscribe("hall.>"), 400, "state: not with a pattern, whose subscribers are no members"),
            (subscribe("off"), 404, "off does not list its members"),
            (subscribe("many"), 404, "many shows only how many members it has"),
        ] {
            let error = ada.ask(request.clone(), "error").await;
            let message = error["message"].as_str().expect("a text");
            assert!(error["code"] == code && message.contains(text), "{request} is answered with {error}");
        }
        assert_eq!(ada.ask(set("room", &json!("12345678")), "ok").await["re"], 1);
        drop(ada);
        server.stop().await;
    }
}

#[tokio::test]
async fn states_work_beside_a_durable_consumer_and_a_queue_group() {
    let server = TestServer::start().await;
    let mut ada = watcher(Over::Native, &server, "room").await;
    for (over, fields) in Over::ALL.into_iter().zip([
        json!({"topic": "room", "durable": "work", "state": "new"}),
        json!({"topic": "room", "share": true, "state": "new"}),
        json!({"topic": "room", "durable": "other", "state": "new"}),
    ]) {
        let mut bob = Subscriber::over(over, &server, "Bob").await;
        bob.subscribe(fields).await;
        let (_, joined) = ada.any().await;
        assert_eq!((&joined["type"], &joined["client"]["state"]), (&json!("join"), &json!("new")));
        assert_eq!(bob.ask(state(json!("old")), "ok").await["re"], "state");
        assert_eq!(ada.any().await.1["client"]["state"], "old");
        bob.unsubscribe("room").await;
        assert_eq!(ada.any().await.1["type"], "leave");
    }
    drop(ada);
    server.stop().await;
}

#[tokio::test]
async fn who_may_not_see_the_members_sees_no_states() {
    for over in Over::ALL {
        let server = TestServer::start_with(|config| config.auth = asking("")).await;
        let mut ada = bearer(over, &server, json!({"subscribe": ["room"], "presence": []})).await;
        for presence in [json!(true), json!("counts")] {
            ada.control.say(json!({"type": "subscribe", "topic": "room", "presence": presence, "id": 1})).await;
            let why = ada.control.expect_error(403).await;
            assert!(why.contains("presence: this client may not see who is on room"), "{why}");
        }
        // It is a member all the same, and may show something.
        let mut ada = Subscriber::new(ada);
        ada.subscribe(json!({"topic": "room"})).await;
        ada.ask(state(json!(1)), "ok").await;
        drop(ada);
        server.stop().await;
    }
}
