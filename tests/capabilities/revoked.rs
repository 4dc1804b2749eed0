//! Anything that a new token no longer allows ends at once, including queued messages.

#![allow(clippy::expect_used, clippy::panic)] // A test fails by panicking.

use crate::common::over::{Over, Party};
use crate::common::tokens::{asking, bearer, handshake, token};
use crate::common::topics::rule;
use crate::common::{TestServer, web_socket};
use serde_json::{Value, json};

/// A client that does not read sends `subscribe`, more is published than can be in flight to it, and it then presents a
/// token with `later`; returns how many of 200 messages it was sent, and the code with which the subscription ended.
async fn heard_before_refresh(server: &TestServer, subscribe: Value, later: Value) -> (usize, Value) {
    let mut publisher = bearer(Over::Native, server, json!({"publish": ">"})).await;
    let mut publish = async || {
        for n in 0..200 {
            let message = json!({"type": "publish", "topic": "secret.b", "content": "x".repeat(10_000), "id": n});
            publisher.control.say(message).await;
            publisher.control.expect("published").await;
        }
    };
    let replays = subscribe.get("recent").is_some();
    if replays {
        publish().await;
    }
    let mut client = Party::from(web_socket::open_narrow(server).await);
    client.handshake_with(handshake(&token(json!({"subscribe": "secret.>"})))).await;
    client.control.say(subscribe).await;
    client.control.expect("subscribed").await;
    if !replays {
        publish().await;
    }
    let is_over = later.get("subscribe").is_none() || later.get("history").is_some();
    client.control.say(json!({"type": "refresh", "id": 1, "token": token(later)})).await;
    let subscriptions = || server.status.stats(10).list.iter().map(|client| client.subscriptions).sum::<u64>();
    crate::common::until("the end of the revoked subscription", || !is_over || subscriptions() == 0).await;
    let (mut heard, mut code) = (0, Value::Null);
    loop {
        let message = client.control.hear().await;
        match message["type"].as_str() {
            Some("message") => heard += 1,
            Some("unsubscribed") => code = message["code"].clone(),
            _ if message["re"] == 1 => break assert_eq!(message["type"], "refreshed", "{message}"),
            _ => {}
        }
    }
    client.control.say(json!({"type": "ping", "id": "end"})).await;
    while client.control.hear().await["re"] != "end" {
        heard += 1;
    }
    client.control.say(json!({"type": "close"})).await;
    client.closed().await;
    (heard, code)
}

#[tokio::test]
async fn queued_messages_that_are_no_longer_allowed_are_not_delivered() {
    let server = TestServer::start_with(|config| {
        config.auth = asking("");
        config.topics = vec![rule("pattern = 'secret.>'\nhistory_bytes = 10000000")];
    })
    .await;
    for topic in ["secret.b", "secret.>"] {
        let subscribe = json!({"type": "subscribe", "topic": topic});
        let (heard, code) = heard_before_refresh(&server, subscribe.clone(), json!({"subscribe": "secret.>"})).await;
        assert_eq!((heard, code), (200, Value::Null), "{topic}: allowed as before");
        let (heard, code) = heard_before_refresh(&server, subscribe, json!({})).await;
        assert!(heard < 200, "all came of {topic}");
        assert_eq!(code, 403, "{topic}");
    }
    let replayed = json!({"type": "subscribe", "topic": "secret.b", "recent": 200});
    let may_hear = json!({"subscribe": "secret.>", "history": "public.>"});
    let (heard, code) = heard_before_refresh(&server, replayed, may_hear).await;
    assert!(heard < 200, "all was replayed");
    assert_eq!(code, 403);
    server.stop().await;
}
