//! Inboxes: each user has a topic of its own, which keeps what is sent while the user is away, for each device.

#![allow(clippy::expect_used, clippy::panic)] // A test fails by panicking.

use serde_json::{Value, json};

use crate::common::TestServer;
use crate::common::over::{Over, Party};
use crate::common::tokens::{asking, bearer, handshake, token};
use crate::common::topics::{Subscriber, rule};

/// A server with inboxes, on which tokens may do what their claims and these settings say.
async fn server(auth: &str) -> TestServer {
    TestServer::start_with(|config| {
        config.auth = asking(auth);
        config.topics = vec![rule("pattern = 'inbox.*'\ninbox = true")];
    })
    .await
}

/// A handshake with these claims; gives the client and its inbox.
async fn user(over: Over, server: &TestServer, claims: Value) -> (Party, Value) {
    let mut client = over.newcomer(server).await;
    client.control.say(handshake(&token(claims))).await;
    let response = client.control.expect("handshake_response").await;
    assert_eq!(response["accepted"], true, "{response}");
    client.id = response["client_id"].as_str().expect("an id").to_owned();
    (client, response["inbox"].clone())
}

async fn refused(client: &mut Party, request: Value) -> String {
    client.control.say(request).await;
    let error = client.control.expect("error").await;
    assert_eq!(error["code"], 403, "{error}");
    error["message"].as_str().expect("a text").to_owned()
}

async fn publish(client: &mut Party, topic: &str, content: &str) {
    client.control.say(json!({"type": "publish", "topic": topic, "content": content, "id": 1})).await;
    client.control.expect("published").await;
}

#[tokio::test]
async fn what_is_sent_to_a_user_who_is_away_reaches_each_device() {
    let server = server("").await;
    // The devices are known since before.
    for device in ["phone", "laptop"] {
        let (client, inbox) = user(Over::Native, &server, json!({})).await;
        assert_eq!(inbox, "inbox.ada");
        let mut client = Subscriber::new(client);
        client.subscribe(json!({"topic": "inbox.ada", "durable": device})).await;
    }
    let (mut friend, inbox) = user(Over::Native, &server, json!({"sub": "eve", "publish": "inbox.*"})).await;
    assert_eq!(inbox, "inbox.eve");
    for text in ["one", "two"] {
        publish(&mut friend, "inbox.ada", text).await;
    }
    for (device, over) in [("phone", Over::WebSocket), ("laptop", Over::Native), ("phone", Over::WebTransport)] {
        let mut client = Subscriber::new(user(over, &server, json!({})).await.0);
        let subscribed = client.subscribe(json!({"topic": "inbox.ada", "durable": device})).await;
        if subscribed["pending"] == 0 {
            assert_eq!((device, over), ("phone", Over::WebTransport), "each gets it once");
            continue;
        }
        for (offset, text) in [(1, "one"), (2, "two")] {
            let message = client.hear("inbox.ada").await;
            assert_eq!((&message["offset"], &message["content"]), (&json!(offset), &json!(text)));
        }
        let ack = json!({"type": "ack", "topic": "inbox.ada", "durable": device, "offsets": [1, 2], "id": 1});
        assert_eq!(client.ask(ack, "ok").await["acked"], 2);
        // It may read what was sent earlier, without any claim.
        let page = client.ask(json!({"type": "history", "topic": "inbox.ada", "id": 1}), "history").await;
        assert_eq!(page["messages"].as_array().map(Vec::len), Some(2));
    }
    server.stop().await;
}

#[tokio::test]
async fn nobody_reads_the_inbox_of_another_without_a_claim_that_says_so() {
    // The settings let tokens subscribe to everything.
    let server = server("token = { subscribe = '>', history = '>', publish = '>' }").await;
    let mut eve = user(Over::Native, &server, json!({"sub": "eve"})).await.0;
    for request in [
        json!({"type": "subscribe", "topic": "inbox.ada"}),
        json!({"type": "subscribe", "topic": "inbox.ada", "durable": "w"}),
        json!({"type": "subscribe", "topic": "inbox.*"}),
        json!({"type": "history", "topic": "inbox.ada"}),
        json!({"type": "presence", "topic": "inbox.ada"}),
        json!({"type": "ack", "topic": "inbox.ada", "durable": "w", "offset": 1}),
    ] {
        let message = refused(&mut eve, request.clone()).await;
        assert!(message.contains("inbox."), "{request}: {message}");
    }
    // A pattern that matches inboxes brings nothing of them, unless the token says it.
    let mut all = Subscriber::new(eve);
    all.subscribe(json!({"topic": ">"})).await;
    let mut operator = Subscriber::new(user(Over::WebSocket, &server, json!({"sub": "op", "subscribe": ">"})).await.0);
    operator.subscribe(json!({"topic": ">"})).await;
    let mut friend = bearer(Over::Native, &server, json!({"sub": "friend"})).await;
    publish(&mut friend, "inbox.ada", "secret").await;
    publish(&mut friend, "news", "for all").await;
    let (_, message) = all.any().await;
    assert_eq!((&message["topic"], &message["content"]), (&json!("news"), &json!("for all")));
    assert_eq!(operator.hear("inbox.ada").await["content"], "secret");
    // With a token that no longer says it, the subscription ends.
    let other = token(json!({"sub": "op"}));
    operator.client.control.say(json!({"type": "refresh", "token": other, "id": 1})).await;
    loop {
        let message = operator.client.control.hear().await;
        if message["type"] == "unsubscribed" {
            assert_eq!((&message["topic"], &message["code"]), (&json!(">"), &json!(403)), "{message}");
            break;
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn users_that_are_no_level_of_a_topic_have_an_inbox_too_and_anonymous_clients_have_none() {
    let server = server("[anonymous]\nsubscribe = 'news'").await;
    for (sub, expected) in [
        ("Ada-7", "inbox.Ada-7"),
        ("ada@example.org", "inbox._YWRhQGV4YW1wbGUub3Jn"),
        ("_YWRhQGV4YW1wbGUub3Jn", "inbox._X1lXUmhRR1Y0WVcxd2JHVXViM0pu"),
    ] {
        let (client, inbox) = user(Over::Native, &server, json!({"sub": sub})).await;
        assert_eq!(inbox, expected);
        Subscriber::new(client).subscribe(json!({"topic": expected, "durable": "w"})).await;
    }
    let mut client = Over::WebSocket.newcomer(&server).await;
    client.control.say(json!({"type": "handshake", "protocol_version": "1.0"})).await;
    let response = client.control.expect("handshake_response").await;
    assert_eq!((&response["accepted"], &response["inbox"]), (&json!(true), &Value::Null), "{response}");
    server.stop().await;
}
