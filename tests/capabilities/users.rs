//! Users as addresses: what goes to all connections of a user, and the bound on their number.

#![allow(clippy::expect_used, clippy::panic)] // A test fails by panicking.

use crate::common::TestServer;
use crate::common::admin::{self, post};
use crate::common::over::Over;
use crate::common::tokens::{asking, bearer, handshake, refused, token};
use serde_json::{Value, json};

/// A server that asks for tokens, and has an admin token.
async fn server() -> TestServer {
    admin::server(|config| config.auth = asking("")).await
}

#[tokio::test]
async fn a_message_to_a_user_reaches_all_connections_of_the_user_and_no_other() {
    for over in Over::ALL {
        let server = server().await;
        let mut sender = bearer(over, &server, json!({"sub": "bob", "name": "Bob", "direct": true})).await;
        let mut devices = Vec::new();
        for device in Over::ALL.into_iter().chain(Over::ALL) {
            devices.push(bearer(device, &server, json!({})).await);
        }
        let mut other = bearer(over, &server, json!({"sub": "eve"})).await;
        let direct = json!({"type": "direct", "user": "ada", "content": "hello", "data": [1, 9007199254740993_u64]});
        sender.control.say(direct).await;
        for kind in ["direct", "signal"] {
            sender
                .control
                .say(json!({"type": kind, "user": "ada", "content": "again", "data": {"a": 1}, "id": 1}))
                .await;
            let ok = sender.control.expect("ok").await;
            assert_eq!((&ok["re"], &ok["delivered"]), (&json!(1), &json!(6)), "{kind}: {ok}");
        }
        for device in &mut devices {
            let first = device.control.expect("direct").await;
            assert_eq!((&first["content"], &first["from"]), (&json!("hello"), &json!(sender.id)), "{first}");
            assert_eq!((&first["user"], &first["name"]), (&json!("bob"), &json!("Bob")), "{first}");
            assert_eq!(device.control.expect("direct").await["content"], "again");
            assert_eq!(device.control.expect("signal").await["data"], json!({"a": 1}));
        }
        other.control.lives("another user").await;
        // To itself as well.
        sender.control.say(json!({"type": "direct", "user": "bob", "content": "note", "id": 2})).await;
        assert_eq!(sender.control.expect("direct").await["content"], "note");
        assert_eq!(sender.control.expect("ok").await["delivered"], 1);
        for kind in ["direct", "signal"] {
            sender.control.say(json!({"type": kind, "user": "nobody", "content": "x", "data": 1, "id": 3})).await;
            let why = sender.control.expect_error(404).await;
            assert!(why.contains("user: no client of this user is connected"), "{why}");
        }
        server.stop().await;
    }
}

#[tokio::test]
async fn messages_to_a_user_and_to_one_of_its_clients_keep_their_order() {
    for (from, to) in Over::pairs() {
        let server = server().await;
        let mut sender = bearer(from, &server, json!({"sub": "bob", "direct": true})).await;
        let mut receiver = bearer(to, &server, json!({})).await;
        let bodies: Vec<_> = (0..60)
            .map(|number| {
                let mut direct = json!({"type": "direct", "content": number.to_string()});
                let (field, whom) = if number % 3 == 0 { ("user", "ada") } else { ("to", receiver.id.as_str()) };
                direct[field] = json!(whom);
                direct.to_string().into_bytes()
            })
            .collect();
        sender.control.bodies(&bodies).await;
        for number in 0..60 {
            assert_eq!(receiver.control.expect("direct").await["content"], number.to_string(), "{from:?} {to:?}");
        }
        server.stop().await;
    }
}

#[tokio::test]
async fn a_message_has_one_receiver_or_one_user_and_needs_the_permission() {
    for over in Over::ALL {
        let server = server().await;
        let mut ada = bearer(over, &server, json!({"direct": true})).await;
        let mut eve = bearer(over, &server, json!({"sub": "eve"})).await;
        for kind in ["direct", "signal"] {
            for (field, says) in [
                (json!({}), "to"),
                (json!({"to": eve.id, "user": "eve"}), "user"),
                (json!({"user": ""}), "1 to 128 bytes"),
                (json!({"user": "a\nb"}), "1 to 128 bytes"),
            ] {
                let mut wrong = json!({"type": kind, "content": "x", "data": 1});
                wrong.as_object_mut().expect("an object").extend(field.as_object().expect("an object").clone());
                ada.control.say(wrong).await;
                let why = ada.control.expect_error(400).await;
                assert!(why.contains(says), "{field}: {why}");
            }
            eve.control.say(json!({"type": kind, "user": "ada", "content": "x", "data": 1})).await;
            eve.control.expect_error(403).await;
        }
        ada.control.lives("a client that got nothing").await;
        server.stop().await;
    }
}

#[tokio::test]
async fn the_info_in_a_token_is_shown_to_others_as_it_is() {
    for over in Over::ALL {
        let server = server().await;
        let grants = json!({"subscribe": ["chat"], "list_clients": true, "info": {"avatar": "a.png", "n": 1.50}});
        let mut ada = bearer(over, &server, grants.clone()).await;
        let mut bob = over.newcomer(&server).await;
        let claims = json!({"sub": "bob", "subscribe": ["chat"], "list_clients": true, "info": "\u{e9}"});
        let response = bob.handshake_with(handshake(&token(claims))).await;
        assert_eq!(response["info"], "\u{e9}");
        for client in [&mut ada, &mut bob] {
            let subscribe = json!({"type": "subscribe", "topic": "chat", "presence": true, "lane": "control"});
            client.control.say(subscribe).await;
            client.control.expect("subscribed").await;
        }
        let join = ada.control.expect("join").await;
        assert_eq!((&join["client"]["user"], &join["client"]["info"]), (&json!("bob"), &json!("\u{e9}")), "{join}");
        bob.control.say(json!({"type": "presence", "topic": "chat"})).await;
        let presence = bob.control.expect("presence").await;
        bob.control.say(json!({"type": "list_clients"})).await;
        let list = bob.control.expect("client_list").await;
        for clients in [&presence["clients"], &list["clients"]] {
            let mut infos: Vec<_> = clients.as_array().expect("a list").iter().map(|client| &client["info"]).collect();
            infos.sort_by_key(|info| info.is_object());
            assert_eq!(infos, [&json!("\u{e9}"), &grants["info"]], "{clients}");
        }
        bob.control.say(json!({"type": "unsubscribe", "topic": "chat"})).await;
        bob.control.expect("ok").await;
        assert_eq!(ada.control.expect("leave").await["client"]["info"], "\u{e9}");
        server.stop().await;
    }
}

#[tokio::test]
async fn a_token_whose_info_is_too_large_is_refused() {
    for over in Over::ALL {
        let server = TestServer::start_with(|config| {
            config.auth = asking("");
            config.limits.info_bytes = 100;
        })
        .await;
        let deep = |depth: usize| (0..depth).fold(json!(1), |inner, _| json!([inner]));
        for wrong in [json!("x".repeat(99)), deep(33)] {
            let (reason, code) = refused(over, &server, handshake(&token(json!({ "info": wrong })))).await;
            assert!(reason.contains("info is out of bounds: at most 100 bytes"), "{reason}");
            assert_eq!(code, 4401);
        }
        for good in [json!("x".repeat(98)), deep(32), Value::Null, json!(0)] {
            bearer(over, &server, json!({ "info": good })).await;
        }
        server.stop().await;
    }
}

#[tokio::test]
async fn one_connection_more_than_a_user_may_have_is_refused_and_a_free_place_is_given_again() {
    for over in Over::ALL {
        let server = TestServer::start_with(|config| {
            config.auth = asking("");
            config.limits.user_connections = 2;
        })
        .await;
        let mut first = bearer(over, &server, json!({})).await;
        let _second = bearer(over, &server, json!({})).await;
        let mut third = over.newcomer(&server).await;
        third.control.say(handshake(&token(json!({})))).await;
        let error = third.control.expect("error").await;
        assert_eq!((&error["code"], &error["retry_after_ms"]), (&json!(429), &json!(10_000)), "{error}");
        let why = error["message"].as_str().expect("a text");
        assert!(why.contains("the 2 connections that a user may have"), "{why}");
        assert_eq!(third.expect_close(4429).await["reason"], why);
        // Another user is not concerned.
        bearer(over, &server, json!({"sub": "bob"})).await;
        first.control.say(json!({"type": "close", "code": 1000})).await;
        first.closed().await;
        crate::common::until("a place is free", || server.status.clients() <= 2).await;
        bearer(over, &server, json!({})).await;
        server.stop().await;
    }
}

#[tokio::test]
async fn the_operator_disconnects_all_connections_of_a_user() {
    let server = server().await;
    let mut own = Vec::new();
    for over in Over::ALL {
        own.push(bearer(over, &server, json!({})).await);
    }
    let mut other = bearer(Over::Native, &server, json!({"sub": "bob"})).await;
    let wish = json!({"user": "ada", "code": 4000, "reason": "moved"});
    let answer = post(&server, "/api/disconnect", &[], &wish).await;
    assert_eq!((answer.status, answer.json()), (200, json!({"clients": 3})));
    for client in &mut own {
        assert_eq!(client.expect_close(4000).await["reason"], "moved");
    }
    crate::common::until("they have left", || server.status.clients() == 1).await;
    let why = post(&server, "/api/disconnect", &[], &wish).await.refusal(404);
    assert!(why.contains("user: no client of this user is connected"), "{why}");
    for (wrong, says) in [
        (json!({"user": "ada", "client": other.id}), "exactly one"),
        (json!({"code": 4000}), "exactly one"),
        (json!({"user": ""}), "1 to 128 bytes"),
    ] {
        let why = post(&server, "/api/disconnect", &[], &wrong).await.refusal(400);
        assert!(why.contains(says), "{why}");
    }
    other.control.lives("another user").await;
    server.stop().await;
}

#[tokio::test]
async fn a_grant_with_user_is_each_users_own() {
    for over in Over::ALL {
        let grants = "[token]\npublish = 'room.${user}.>'\nsubscribe = ['room.${user}.>', 'news']";
        let server = admin::server(|config| config.auth = asking(grants)).await;
        let ada = bearer(over, &server, json!({})).await;
        // A user that is no level of a topic is written as in the name of an inbox.
        let mail = bearer(over, &server, json!({"sub": "ada@example.org"})).await;
        let claimed = json!({"sub": "bob", "subscribe": ["room.*.${user}"]});
        let bob = bearer(over, &server, claimed).await;
        let mut clients = [ada, mail, bob];
        for (client, topic, is_allowed) in [
            (0, "room.ada.x", true),
            (0, "room.ada.>", true),
            (0, "news", true),
            (0, "room.bob.x", false),
            (0, "room.*.x", false),
            (0, "room.>", false),
            (1, "room._YWRhQGV4YW1wbGUub3Jn.x", true),
            (1, "room.ada.x", false),
            (2, "room.ada.bob", true),
            (2, "room.bob.x", false),
            (2, "news", false),
        ] {
            let control = &mut clients[client].control;
            control.say(json!({"type": "subscribe", "topic": topic, "lane": "control"})).await;
            let reply = control.hear().await;
            let expected = if is_allowed { "subscribed" } else { "error" };
            assert_eq!(reply["type"], expected, "{topic}: {reply}");
        }
        let [mut ada, ..] = clients;
        ada.control.say(json!({"type": "publish", "topic": "room.ada.x", "content": "x"})).await;
        assert_eq!(ada.hear_of("room.ada.x").await["content"], "x");
        ada.control.say(json!({"type": "publish", "topic": "room.bob.x", "content": "x"})).await;
        ada.control.expect_error(403).await;
        server.stop().await;
    }
}

#[tokio::test]
async fn a_grant_with_user_is_nothing_for_a_client_without_one() {
    let grants = "[anonymous]\nsubscribe = ['room.${user}.>', 'news']";
    let server = admin::server(|config| config.auth = asking(grants)).await;
    let mut guest = Over::Native.party(&server, "guest").await;
    for (topic, kind) in [("news", "subscribed"), ("room.guest.x", "error"), ("room.x.x", "error")] {
        guest.control.say(json!({"type": "subscribe", "topic": topic})).await;
        guest.control.expect(kind).await;
    }
    server.stop().await;
}
