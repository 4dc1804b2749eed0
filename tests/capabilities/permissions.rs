//! Permissions: a client may do nothing that its token, its certificate, or the rules for topics do not allow, whatever
//! it sends.

#![allow(clippy::expect_used, clippy::panic)] // A test fails by panicking.

use crate::common::over::Over;
use crate::common::tokens::{asking, bearer, handshake, token};
use crate::common::topics::{Subscriber, rule};
use crate::common::{RawClient, TestServer};
use quinn::TransportConfig;
use serde_json::{Value, json};

async fn server(more: &str) -> TestServer {
    let auth = asking(more);
    TestServer::start_with(|config| config.auth = auth).await
}

/// Every request that addresses a topic, a client or all clients, for one topic.
fn requests(topic: &str, to: &str) -> Vec<(&'static str, Value)> {
    vec![
        ("publish", json!({"type": "publish", "topic": topic, "content": "x"})),
        ("subscribe", json!({"type": "subscribe", "topic": topic})),
        ("presence", json!({"type": "presence", "topic": topic})),
        ("history", json!({"type": "history", "topic": topic})),
        ("recent", json!({"type": "subscribe", "topic": topic, "recent": 10})),
        ("since", json!({"type": "subscribe", "topic": topic, "since": {"epoch": "x", "offset": 0}})),
        ("watch", json!({"type": "subscribe", "topic": topic, "presence": true})),
        ("direct", json!({"type": "direct", "to": to, "content": "x"})),
        ("signal", json!({"type": "signal", "to": to, "data": 1})),
        ("list_clients", json!({"type": "list_clients"})),
        ("broadcast", json!({"type": "broadcast", "content": "x"})),
    ]
}

#[tokio::test]
async fn only_requests_granted_by_the_token_are_served() {
    let server = server("").await;
    for over in Over::ALL {
        let other = bearer(over, &server, json!({"sub": "bob"})).await;
        let (topic, to) = ("room.a", other.id.clone());
        for (grants, allowed) in [
            (json!({}), vec![]),
            (json!({"publish": ["room.*"]}), vec!["publish"]),
            // The right to subscribe includes presence and history, unless specified otherwise.
            (json!({"subscribe": "room.>"}), vec!["subscribe", "presence", "history", "recent", "since", "watch"]),
            (json!({"subscribe": "room.a", "history": [], "presence": []}), vec!["subscribe"]),
            (
                json!({"subscribe": "room.a", "history": "room.a", "presence": "x"}),
                vec!["subscribe", "history", "recent", "since"],
            ),
            (json!({"presence": ">"}), vec!["presence"]),
            (json!({"history": "*.a"}), vec!["history"]),
            (json!({"direct": true}), vec!["direct", "signal", "list_clients"]),
            (json!({"direct": true, "signal": false, "list_clients": false}), vec!["direct"]),
            (json!({"signal": true}), vec!["signal"]),
            (json!({"list_clients": true}), vec!["list_clients"]),
            (json!({"broadcast": true}), vec!["broadcast"]),
            (json!({"publish": "room.b", "subscribe": ["room", "room.a.x", "rooms.a"]}), vec![]),
        ] {
            for (what, mut request) in requests(topic, &to) {
                // A separate client for each: the effect of one request must not help the next.
                let mut client = bearer(over, &server, grants.clone()).await;
                request["id"] = what.into();
                client.control.say(request).await;
                let reply = loop {
                    let reply = client.control.hear().await;
                    // Its own broadcast arrives before the reply.
                    if reply["re"] == what {
                        break reply;
                    }
                };
                let is_refused = reply["type"] == "error" && reply["code"] == 403;
                assert_eq!(!is_refused, allowed.contains(&what), "{what} with {grants}: {reply}");
                // On one lane the replayed messages come first.
                client.control.say(json!({"type": "ping", "id": "alive"})).await;
                while client.control.hear().await["re"] != "alive" {}
            }
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn a_pattern_reaches_no_further_than_the_token() {
    for over in Over::ALL {
        let server = server("").await;
        let mut client = bearer(over, &server, json!({"subscribe": ["a.*", "b.>"]})).await;
        for (pattern, is_allowed) in
            [("a.*", true), ("b.>", true), ("b.*", true), ("b.*.c", true), ("a.>", false), (">", false), ("*.x", false)]
        {
            client.control.say(json!({"type": "subscribe", "topic": pattern})).await;
            let reply = client.control.hear().await;
            assert_eq!(reply["type"] == "subscribed", is_allowed, "{pattern}: {reply}");
        }
        let mut publisher = bearer(over, &server, json!({"publish": ">"})).await;
        for topic in ["a.b.c", "c", "a.b"] {
            publisher.control.say(json!({"type": "publish", "id": 1, "topic": topic, "content": topic})).await;
            publisher.control.expect("published").await;
        }
        assert_eq!(Subscriber::new(client).any().await.1["topic"], "a.b", "and nothing before it");
        server.stop().await;
    }
}

#[tokio::test]
async fn a_client_gets_its_permissions() {
    let auth = asking("");
    let server = TestServer::start_with(|config| {
        config.auth = auth;
        config.topics = vec![rule("pattern = 'news.>'\npublish = 'nobody'")];
    })
    .await;
    for over in Over::ALL {
        let grants = json!({"subscribe": ">", "publish": ["room.>", "news.>"], "signal": true, "list_clients": false});
        let told = |direct| json!({"broadcast": false, "direct": direct, "signal": true, "list_clients": false});
        let mut client = over.newcomer(&server).await;
        client.control.say(handshake(&token(grants))).await;
        let response = client.control.expect("handshake_response").await;
        assert_eq!(response["permissions"], told(false), "{response}");
        for (topic, may_publish) in
            [("room.a", Value::Null), ("other", json!(false)), ("news.today", json!(false)), ("*", Value::Null)]
        {
            client.control.say(json!({"type": "subscribe", "topic": topic})).await;
            let subscribed = client.control.expect("subscribed").await;
            assert_eq!(subscribed["may_publish"], may_publish, "{subscribed}");
        }
        let grants = json!({"subscribe": ">", "direct": true, "list_clients": false});
        client.control.say(json!({"type": "refresh", "id": 1, "token": token(grants)})).await;
        let refreshed = client.control.expect("refreshed").await;
        assert_eq!(refreshed["permissions"], told(true), "{refreshed}");
    }
    server.stop().await;
}

#[tokio::test]
async fn refused_requests_have_no_effect_on_others() {
    for over in Over::ALL {
        let server = server("").await;
        let mut ada = bearer(over, &server, json!({"subscribe": ">", "direct": true})).await;
        ada.control.say(json!({"type": "subscribe", "topic": "room.a", "lane": "control", "presence": true})).await;
        ada.control.expect("subscribed").await;
        let mut eve = bearer(over, &server, json!({"sub": "eve"})).await;
        let topics = server.status.topics();
        for (what, request) in requests("room.a", &ada.id).into_iter().chain(requests("room.new", &ada.id)) {
            eve.control.say(request).await;
            assert!(!eve.control.expect_error(403).await.is_empty(), "{what} names the missing permission");
        }
        assert_eq!(server.status.topics(), topics, "no topic was made");
        ada.control.lives("a client that received nothing of it").await;
        server.stop().await;
    }
}

#[tokio::test]
async fn topic_rules_apply_in_addition_to_the_token() {
    for over in Over::ALL {
        let auth = asking("[anonymous]\npublish = '>'\nsubscribe = '>'");
        let server = TestServer::start_with(|config| {
            config.auth = auth;
            config.topics = vec![
                rule("pattern = 'system.>'\npublish = 'nobody'"),
                rule("pattern = 'members.>'\npublish = 'authenticated'\nsubscribe = 'authenticated'"),
            ];
        })
        .await;
        let mut member = bearer(over, &server, json!({"publish": ">", "subscribe": ">"})).await;
        let mut guest = over.party(&server, "Guest").await;
        for (topic, member_may, guest_may) in
            [("system.load", false, false), ("members.a", true, false), ("open", true, true)]
        {
            for (client, may) in [(&mut member, member_may), (&mut guest, guest_may)] {
                client.control.say(json!({"type": "publish", "id": 1, "topic": topic, "content": "x"})).await;
                let reply = client.control.hear().await;
                assert_eq!(reply["type"] == "published", may, "publish to {topic}: {reply}");
            }
        }
        guest.control.say(json!({"type": "history", "topic": "members.a"})).await;
        guest.control.expect_error(403).await;
        // Through a pattern the guest gets the public topics, and the member all.
        for client in [&mut guest, &mut member] {
            client.control.say(json!({"type": "subscribe", "topic": ">", "lane": "control"})).await;
            client.control.expect("subscribed").await;
        }
        for topic in ["members.a", "open"] {
            member.control.say(json!({"type": "publish", "topic": topic, "content": "live"})).await;
            assert_eq!(member.control.expect("message").await["topic"], topic);
        }
        assert_eq!(guest.control.expect("message").await["topic"], "open", "nothing of the members' before it");
        server.stop().await;
    }
}

#[tokio::test]
async fn held_back_requests_are_checked_again_after_a_new_token() {
    let server = server("").await;
    let mut transport = TransportConfig::default();
    transport.stream_receive_window(10_000_u32.into());
    let mut client = RawClient::connect(&server.endpoint_with(transport), server.addr).await;
    client.handshake_with(handshake(&token(json!({"subscribe": ">", "publish": ">", "broadcast": true})))).await;
    let mut held_back = Vec::new();
    for request in [
        json!({"type": "subscribe", "id": 1, "topic": "secret"}),
        json!({"type": "broadcast", "id": 1, "content": "x"}),
    ] {
        // The lane is not read further until its large answer has been read.
        let mut lane = client.lane().await;
        lane.say(json!({"type": "text", "content": "x".repeat(500_000)})).await;
        lane.say(request).await;
        held_back.push(lane);
    }
    // A later request is received later, on its own lane; the windows of the other lanes are full by then.
    client.control.lives("after everything else").await;
    client.control.say(json!({"type": "refresh", "id": 2, "token": token(json!({}))})).await;
    client.control.expect("refreshed").await;
    for mut lane in held_back {
        lane.expect("text").await;
        assert!(!lane.expect_error(403).await.is_empty());
    }
    let mut other = bearer(Over::Native, &server, json!({"publish": "secret"})).await;
    other.control.say(json!({"type": "publish", "id": 3, "topic": "secret", "content": "x"})).await;
    other.control.expect("published").await;
    client.control.lives("a client that received nothing of it").await;
    server.stop().await;
}

#[tokio::test]
async fn a_client_that_keeps_refreshing_and_never_reads_is_closed() {
    const MOST: usize = 20;
    let auth = asking("");
    let server = TestServer::start_with(|config| {
        config.auth = auth;
        config.limits.lane_backlog_messages = MOST as u64;
    })
    .await;
    let mut transport = TransportConfig::default();
    transport.stream_receive_window(1000_u32.into());
    let mut client = RawClient::connect(&server.endpoint_with(transport), server.addr).await;
    let (may, may_not) = (token(json!({"subscribe": "a"})), token(json!({})));
    client.handshake_with(handshake(&may)).await;
    let mut lane = client.lane().await;
    let mut times = 0;
    loop {
        let requests = [
            json!({"type": "subscribe", "topic": "a"}),
            json!({"type": "refresh", "token": may_not}),
            json!({"type": "refresh", "token": may}),
        ];
        for request in requests {
            if !lane.try_body(request.to_string().as_bytes()).await || lane.try_hear_body().await.is_err() {
                assert_eq!(client.closed().await.0, 4413);
                // The client's window, and the backlog.
                assert!((MOST..MOST + 20).contains(&times), "closed after {times} times");
                return server.stop().await;
            }
        }
        let waiting = server.status.stats(0).queues.messages;
        assert!(waiting <= MOST as u64, "{waiting} messages wait");
        times += 1;
        assert!(times < 1000, "served on, though it reads nothing");
    }
}

#[tokio::test]
async fn without_authentication_every_client_has_full_access() {
    let server = TestServer::start().await;
    for over in Over::ALL {
        let other = over.party(&server, "Bob").await;
        for (what, mut request) in requests("room.a", &other.id) {
            let mut client = over.party(&server, "Ada").await;
            request["id"] = what.into();
            client.control.say(request).await;
            let mut reply = client.control.hear().await;
            while reply["re"] != what {
                reply = client.control.hear().await;
            }
            assert_ne!(reply["code"], 403, "{what}: {reply}");
        }
    }
    server.stop().await;
}
