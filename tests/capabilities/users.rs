//! Users as addresses: what goes to all connections of a user, and the bound on their number.

#![allow(clippy::expect_used, clippy::panic)] // A test fails by panicking.

use crate::common::TestServer;
use crate::common::admin::{self, post};
use crate::common::over::Over;
use crate::common::tokens::{asking, bearer, handshake, token};
use serde_json::json;

/// A server that asks for tokens, and has an admin token.
async fn server() -> TestServer {
    admin::server(|config| config.auth = asking("")).await
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
        let response = third.control.expect("handshake_response").await;
        assert_eq!((&response["accepted"], &response["reason"]), (&json!(false), &json!(why)));
        assert_eq!(third.closed().await.0, 4429);
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
