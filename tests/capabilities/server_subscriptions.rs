//! Subscriptions that the server makes for a client: by its token, and by the operator.

#![allow(clippy::expect_used, clippy::panic)] // A test fails by panicking.

use crate::common::TestServer;
use crate::common::admin::{self, post};
use crate::common::over::{Over, Party};
use crate::common::tokens::{asking, bearer, handshake, now, token};
use crate::common::topics::{TopicLane, rule};
use serde_json::{Value, json};

/// A server that asks for tokens, has an admin token, and opens no topic lanes: all messages come on the control lane.
async fn server(rules: &[&str]) -> TestServer {
    admin::server(|config| {
        config.auth = asking("");
        config.limits.topic_lanes = 0;
        config.topics = rules.iter().map(|toml| rule(toml)).collect();
    })
    .await
}

/// A client with a token, and what the server says about its subscriptions.
async fn client(over: Over, server: &TestServer, claims: Value, since: Value) -> (Party, Value) {
    let mut client = over.newcomer(server).await;
    let mut hello = handshake(&token(claims));
    if !since.is_null() {
        hello["since"] = since;
    }
    let response = client.handshake_with(hello).await;
    let subscriptions = response["subscriptions"].clone();
    (client, subscriptions)
}

/// The next message, which announces a subscription of the server.
async fn expect_made(client: &mut Party, topic: &str) -> Value {
    let made = client.control.expect("subscribed").await;
    assert_eq!((&made["topic"], &made["by"], made.get("re")), (&json!(topic), &json!("server"), None), "{made}");
    made
}

async fn publish(server: &TestServer, topic: &str, content: &str) -> Value {
    let answer = post(server, "/api/publish", &[], &json!({"topic": topic, "content": content})).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

/// Checks that a client gets nothing of a topic: the next that it hears is an answer.
async fn expect_nothing(client: &mut Party, server: &TestServer, topic: &str) {
    publish(server, topic, "for others").await;
    client.control.lives("it is not subscribed").await;
}

#[tokio::test]
async fn the_subscriptions_of_a_token_are_told_made_and_announced() {
    for over in Over::ALL {
        let server = server(&[]).await;
        let claims = json!({"subscriptions": ["news", "user.${user}.>"]});
        let (mut ada, told) = client(over, &server, claims, Value::Null).await;
        assert_eq!(told, json!(["news", "user.ada.>"]));
        let made = expect_made(&mut ada, "news").await;
        assert_eq!((&made["offset"], &made["may_publish"]), (&json!(0), &json!(false)), "{made}");
        let made = expect_made(&mut ada, "user.ada.>").await;
        assert_eq!(made.get("epoch"), None, "{made}");
        publish(&server, "news", "one").await;
        assert_eq!(ada.hear_of("news").await["content"], "one");
        publish(&server, "user.ada.box", "two").await;
        assert_eq!(ada.hear_of("user.ada.box").await["content"], "two");
        expect_nothing(&mut ada, &server, "user.bob.box").await;
        // The claim grants them and their history, and nothing else.
        ada.control.say(json!({"type": "history", "topic": "news"})).await;
        assert_eq!(ada.control.expect("history").await["messages"].as_array().map(Vec::len), Some(1));
        ada.control.say(json!({"type": "subscribe", "topic": "other"})).await;
        ada.control.expect_error(403).await;
        server.stop().await;
    }
}

#[tokio::test]
async fn a_client_that_comes_back_gets_what_it_has_missed() {
    for over in Over::ALL {
        let server = server(&[]).await;
        let claims = json!({"subscriptions": ["news", "alerts", "many.>"]});
        let (mut first, _) = client(over, &server, claims.clone(), Value::Null).await;
        for topic in ["news", "alerts", "many.>"] {
            expect_made(&mut first, topic).await;
        }
        let seen = publish(&server, "news", "one").await;
        assert_eq!(first.hear_of("news").await["content"], "one");
        first.control.say(json!({"type": "close", "code": 1000})).await;
        first.closed().await;
        publish(&server, "news", "two").await;
        publish(&server, "alerts", "missed").await;
        let since = json!({
            "news": {"epoch": seen["epoch"], "offset": seen["offset"]},
            "other": {"epoch": "none", "offset": 5},
        });
        let (mut second, _) = client(over, &server, claims, since).await;
        let made = expect_made(&mut second, "news").await;
        assert_eq!((&made["recovered"], &made["offset"]), (&json!(true), &json!(2)), "{made}");
        assert_eq!(second.hear_of("news").await["content"], "two");
        let made = expect_made(&mut second, "alerts").await;
        assert_eq!((made.get("recovered"), &made["offset"]), (None, &json!(1)), "{made}");
        expect_made(&mut second, "many.>").await;
        expect_nothing(&mut second, &server, "other").await;
        server.stop().await;
    }
}

#[tokio::test]
async fn a_durable_topic_is_resumed_too_and_new_topics_count_against_no_rate() {
    for over in Over::ALL {
        let folder = tempfile::tempdir().expect("a folder");
        let server = admin::server(|config| {
            config.auth = asking("");
            config.limits.topic_lanes = 0;
            config.store.dir = Some(folder.path().to_owned());
            config.topics = vec![rule("pattern = 'kept.>'\ndurability = 'os'")];
            config.rates.loopback = true;
            (config.rates.client_topics, config.rates.client_topics_burst) = (1, 1);
        })
        .await;
        let topics = ["kept.a", "kept.b", "c", "d"];
        let claims = json!({"subscriptions": topics});
        let (mut first, _) = client(over, &server, claims.clone(), Value::Null).await;
        for topic in topics {
            expect_made(&mut first, topic).await;
        }
        let seen = publish(&server, "kept.a", "one").await;
        first.hear_of("kept.a").await;
        first.control.say(json!({"type": "close", "code": 1000})).await;
        first.closed().await;
        for content in ["two", "three"] {
            publish(&server, "kept.a", content).await;
        }
        let since = json!({"kept.a": {"epoch": seen["epoch"], "offset": seen["offset"]}});
        let (mut second, _) = client(over, &server, claims, since).await;
        assert_eq!(expect_made(&mut second, "kept.a").await["recovered"], true);
        // The others may be announced in between.
        let (mut heard, mut made) = (Vec::new(), 0);
        while heard.len() + made < 5 {
            let next = second.control.hear().await;
            match next["type"].as_str() {
                Some("message") => heard.push(next["content"].as_str().expect("a text").to_owned()),
                Some("subscribed") => made += 1,
                _ => panic!("{next}"),
            }
        }
        assert_eq!((heard, made), (vec!["two".to_owned(), "three".to_owned()], 3));
        server.stop().await;
    }
}

#[tokio::test]
async fn a_topic_that_the_rules_close_is_not_subscribed_and_the_client_learns_why() {
    for over in Over::ALL {
        let rules = ["pattern = 'closed'\nsubscribe = 'nobody'"];
        let server = server(&rules).await;
        let claims = json!({"subscriptions": ["closed", "news"]});
        let (mut ada, told) = client(over, &server, claims, Value::Null).await;
        assert_eq!(told, json!(["closed", "news"]));
        let refused = ada.control.expect("unsubscribed").await;
        assert_eq!((&refused["topic"], &refused["code"]), (&json!("closed"), &json!(403)), "{refused}");
        assert!(refused["reason"].as_str().is_some_and(|reason| reason.contains("may not subscribe")), "{refused}");
        expect_made(&mut ada, "news").await;
        server.stop().await;
    }
}

#[tokio::test]
async fn a_client_may_leave_a_subscription_of_the_server_and_then_make_its_own() {
    for over in Over::ALL {
        let server = server(&[]).await;
        let (mut ada, _) = client(over, &server, json!({"subscriptions": ["news"]}), Value::Null).await;
        // Even before the server has made it.
        ada.control.say(json!({"type": "subscribe", "topic": "news", "id": 1})).await;
        let (mut made, mut refused) = (0, 0);
        for _ in 0..2 {
            let next = ada.control.hear().await;
            match next["type"].as_str() {
                Some("subscribed") => made += usize::from(next["by"] == "server"),
                Some("error") => refused += usize::from(next["code"] == 409),
                _ => panic!("{next}"),
            }
        }
        assert_eq!((made, refused), (1, 1));
        ada.control.say(json!({"type": "unsubscribe", "topic": "news", "id": 2})).await;
        assert_eq!(ada.control.expect("ok").await["topic"], "news");
        expect_nothing(&mut ada, &server, "news").await;
        ada.control.say(json!({"type": "subscribe", "topic": "news", "id": 3})).await;
        let own = ada.control.expect("subscribed").await;
        assert_eq!((&own["re"], own.get("by")), (&json!(3), None), "{own}");
        server.stop().await;
    }
}

#[tokio::test]
async fn a_refresh_begins_new_subscriptions_and_ends_those_that_are_no_longer_granted() {
    for over in Over::ALL {
        let server = server(&[]).await;
        // What the client may subscribe to itself is no reason to keep a subscription of the server.
        let claims = json!({"subscriptions": ["one", "two", "three"], "subscribe": ["two", "own"]});
        let (mut ada, _) = client(over, &server, claims, Value::Null).await;
        for topic in ["one", "two", "three"] {
            expect_made(&mut ada, topic).await;
        }
        ada.control.say(json!({"type": "subscribe", "topic": "own"})).await;
        ada.control.expect("subscribed").await;
        ada.control.say(json!({"type": "unsubscribe", "topic": "three"})).await;
        ada.control.expect("ok").await;
        let next = json!({"subscriptions": ["one", "three", "four"], "subscribe": ["two", "own"], "exp": now() + 600});
        ada.control.say(json!({"type": "refresh", "token": token(next)})).await;
        let ended = ada.control.expect("unsubscribed").await;
        assert_eq!((&ended["topic"], &ended["code"]), (&json!("two"), &json!(403)), "{ended}");
        let (mut refreshed, mut made) = (0, 0);
        for _ in 0..2 {
            let next = ada.control.hear().await;
            match next["type"].as_str() {
                Some("refreshed") => refreshed += 1,
                Some("subscribed") => made += usize::from(next["topic"] == "four" && next["by"] == "server"),
                _ => panic!("{next}"),
            }
        }
        assert_eq!((refreshed, made), (1, 1));
        for topic in ["one", "own", "four"] {
            publish(&server, topic, "x").await;
            ada.hear_of(topic).await;
        }
        // One that the client has left stays left.
        expect_nothing(&mut ada, &server, "three").await;
        expect_nothing(&mut ada, &server, "two").await;
        server.stop().await;
    }
}

#[tokio::test]
async fn a_token_with_too_many_subscriptions_is_refused() {
    let server = server(&[]).await;
    let topics = |count: usize| (0..count).map(|number| format!("t{number}")).collect::<Vec<_>>();
    let too_many = handshake(&token(json!({"subscriptions": topics(33)})));
    let (reason, _) = crate::common::tokens::refused(Over::Native, &server, too_many).await;
    assert!(reason.contains("subscriptions is out of bounds: at most 32"), "{reason}");
    let most = json!({"subscriptions": topics(32)});
    let (mut ada, told) = client(Over::Native, &server, most, Value::Null).await;
    assert_eq!(told.as_array().map(Vec::len), Some(32));
    for topic in topics(32) {
        expect_made(&mut ada, &topic).await;
    }
    server.stop().await;
}

#[tokio::test]
async fn messages_of_a_subscription_of_the_server_have_a_lane_of_their_own() {
    for over in Over::QUIC {
        let server = admin::server(|config| config.auth = asking("")).await;
        let mut client = over.stranger(&server).await;
        client.handshake_with(handshake(&token(json!({"subscriptions": ["news"]})))).await;
        let made = client.control.expect("subscribed").await;
        publish(&server, "news", "x").await;
        let mut lane = TopicLane::accept(&client).await;
        assert_eq!(made["lane"], lane.number);
        assert_eq!(lane.hear().await["content"], "x");
        server.stop().await;
    }
}

#[tokio::test]
async fn the_operator_subscribes_and_unsubscribes_a_user_whatever_its_permissions_are() {
    for over in Over::ALL {
        let server = server(&["pattern = 'staff'\nsubscribe = 'nobody'"]).await;
        let mut ada = bearer(over, &server, json!({})).await;
        let mut second = bearer(Over::Native, &server, json!({})).await;
        let mut bob = bearer(over, &server, json!({"sub": "bob"})).await;
        let call = async |path: &str, body: Value, clients: usize| {
            let answer = post(&server, path, &[], &body).await;
            assert_eq!((answer.status, answer.json()), (200, json!({ "clients": clients })));
        };
        call("/api/subscribe", json!({"user": "ada", "topic": "staff"}), 2).await;
        expect_made(&mut ada, "staff").await;
        expect_made(&mut second, "staff").await;
        call("/api/subscribe", json!({"client": ada.id, "topic": "team.>"}), 1).await;
        expect_made(&mut ada, "team.>").await;
        publish(&server, "staff", "x").await;
        ada.hear_of("staff").await;
        second.hear_of("staff").await;
        publish(&server, "team.a", "x").await;
        ada.hear_of("team.a").await;
        bob.control.lives("another user").await;
        // A refresh does not end what the operator has made.
        ada.control.say(json!({"type": "refresh", "token": token(json!({"subscribe": ["other"]}))})).await;
        ada.control.expect("refreshed").await;
        publish(&server, "staff", "y").await;
        assert_eq!(ada.hear_of("staff").await["content"], "y");
        second.hear_of("staff").await;
        // Once more changes nothing.
        call("/api/subscribe", json!({"user": "ada", "topic": "staff"}), 2).await;
        call("/api/unsubscribe", json!({"user": "ada", "topic": "staff"}), 2).await;
        for client in [&mut ada, &mut second] {
            let ended = client.control.expect("unsubscribed").await;
            assert_eq!((&ended["topic"], &ended["code"]), (&json!("staff"), &json!(403)), "{ended}");
            assert_eq!(ended["reason"], "unsubscribed by an administrator");
            expect_nothing(client, &server, "staff").await;
        }
        server.stop().await;
    }
}

#[tokio::test]
async fn a_subscription_that_the_operator_wants_as_well_outlasts_a_refresh() {
    for over in Over::ALL {
        let server = server(&[]).await;
        let mut ada = bearer(over, &server, json!({"subscribe": ["chat"]})).await;
        ada.control.say(json!({"type": "subscribe", "topic": "chat"})).await;
        ada.control.expect("subscribed").await;
        let wish = json!({"client": ada.id, "topic": "chat"});
        assert_eq!(post(&server, "/api/subscribe", &[], &wish).await.json(), json!({"clients": 1}));
        // Orders are carried out in turn: it is the operator's once the next one is.
        let wish = json!({"client": ada.id, "topic": "next"});
        post(&server, "/api/subscribe", &[], &wish).await;
        expect_made(&mut ada, "next").await;
        ada.control.say(json!({"type": "refresh", "token": token(json!({"subscribe": ["other"]}))})).await;
        ada.control.expect("refreshed").await;
        publish(&server, "chat", "x").await;
        assert_eq!(ada.hear_of("chat").await["content"], "x");
        server.stop().await;
    }
}

#[tokio::test]
async fn the_operator_ends_a_subscription_of_the_client_and_wrong_requests_are_refused() {
    for over in Over::ALL {
        let server = server(&[]).await;
        let mut ada = bearer(over, &server, json!({"subscribe": ["chat"]})).await;
        ada.control.say(json!({"type": "subscribe", "topic": "chat"})).await;
        ada.control.expect("subscribed").await;
        let wish = json!({"client": ada.id, "topic": "chat", "reason": "be kind"});
        assert_eq!(post(&server, "/api/unsubscribe", &[], &wish).await.json(), json!({"clients": 1}));
        assert_eq!(ada.control.expect("unsubscribed").await["reason"], "be kind");
        ada.control.lives("its connection goes on").await;
        for path in ["/api/subscribe", "/api/unsubscribe"] {
            for (body, status, says) in [
                (json!({"user": "bob", "topic": "chat"}), 404, "no client of this user"),
                (json!({"client": "00000000-0000-4000-8000-000000000000", "topic": "chat"}), 404, "no client 0000"),
                (json!({"topic": "chat"}), 400, "exactly one of client and user"),
                (json!({"user": "ada", "topic": "a..b"}), 400, "topic: "),
                (json!({"user": "ada"}), 400, "topic"),
                (json!({"user": "ada", "topic": "a", "reason": "x".repeat(124)}), 400, "reason: "),
            ] {
                let why = post(&server, path, &[], &body).await.refusal(status);
                assert!(why.contains(says), "{body}: {why}");
            }
        }
        server.stop().await;
    }
}
