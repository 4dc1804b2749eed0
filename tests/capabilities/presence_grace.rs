//! A member whose connection is lost stays for a grace: its return is neither a leave nor a join.

#![allow(clippy::expect_used, clippy::panic)] // A test fails by panicking.

use serde_json::{Value, json};

use crate::common::over::Over;
use crate::common::tokens::{asking, handshake, token};
use crate::common::topics::{Subscriber, rule};
use crate::common::{TestServer, admin};

/// Longer than any test.
const LONG: &str = "pattern = 'room'\npresence_grace_ms = 600000";

async fn server(rules: &str) -> TestServer {
    TestServer::start_with(|config| config.topics = vec![rule(rules)]).await
}

/// A client that has subscribed to the room, and the secret of its session.
async fn member(over: Over, server: &TestServer, mut greeting: Value, mut subscribe: Value) -> (Subscriber, String) {
    greeting["type"] = json!("handshake");
    greeting["protocol_version"] = json!("1.0");
    let mut client = over.newcomer(server).await;
    let response = client.handshake_with(greeting).await;
    let session = response["session"].as_str().expect("the secret of a session").to_owned();
    assert!((1..=128).contains(&session.len()), "{session}");
    let mut client = Subscriber::new(client);
    subscribe["topic"] = json!("room");
    client.subscribe(subscribe).await;
    (client, session)
}

async fn watcher(over: Over, server: &TestServer) -> Subscriber {
    member(over, server, json!({"client_name": "watcher"}), json!({"presence": true})).await.0
}

/// The members but the one that asks.
async fn others(client: &mut Subscriber) -> Vec<Value> {
    let presence = client.ask(json!({"type": "presence", "topic": "room", "id": 1}), "presence").await;
    let mut all = presence["clients"].as_array().expect("a list").clone();
    all.retain(|member| member["id"] != client.client.id);
    assert_eq!(presence["total"], all.len() + 1);
    all
}

fn user(user: &str) -> Value {
    handshake(&token(json!({"sub": user, "subscribe": "room"})))
}

#[tokio::test]
async fn a_client_that_resumes_its_session_takes_its_place_again() {
    for (from, to) in Over::pairs() {
        let server = server(LONG).await;
        let mut ada = watcher(from, &server).await;
        let (bob, session) = member(to, &server, json!({"client_name": "Bob"}), json!({"state": {"mood": 1.50}})).await;
        let id = bob.client.id.clone();
        let there = json!({"id": id, "name": "Bob", "state": {"mood": 1.50}});
        assert_eq!(ada.any().await.1, json!({"type": "join", "topic": "room", "client": there}));
        bob.client.lose();
        let mut away = there.clone();
        away["away"] = json!(true);
        assert_eq!(ada.any().await.1, json!({"type": "state", "topic": "room", "client": away}));
        assert_eq!(others(&mut ada).await, [away]);

        // On any carrier.
        let greeting = json!({"client_name": "Bob", "resume": session});
        let (mut bob, other) = member(from, &server, greeting, json!({})).await;
        assert_ne!((&other, &bob.client.id), (&session, &id));
        let back = json!({"id": bob.client.id, "name": "Bob", "state": {"mood": 1.50}});
        let returned = json!({"type": "return", "topic": "room", "client": back, "was": id});
        assert_eq!(ada.any().await.1, returned, "with its state, and neither leave nor join");
        assert_eq!(others(&mut ada).await, [back]);
        // Its own request to leave, and its own close, end that at once.
        bob.unsubscribe("room").await;
        assert_eq!(ada.any().await.1["type"], "leave");
        bob.subscribe(json!({"topic": "room"})).await;
        assert_eq!(ada.any().await.1["type"], "join");
        bob.client.control.say(json!({"type": "close", "code": 1000})).await;
        assert_eq!(ada.any().await.1["type"], "leave");
        assert!(others(&mut ada).await.is_empty());
        drop((ada, bob));
        server.stop().await;
    }
}

#[tokio::test]
async fn a_client_that_comes_back_before_its_loss_is_noticed_takes_its_place_as_well() {
    for over in Over::ALL {
        let server = server(LONG).await;
        let mut ada = watcher(over, &server).await;
        let (mut bob, session) = member(over, &server, json!({"client_name": "Bob"}), json!({})).await;
        assert_eq!(ada.any().await.1["type"], "join");
        let greeting = json!({"client_name": "Robert", "resume": session});
        let (again, _) = member(over, &server, greeting, json!({})).await;
        let (_, returned) = ada.any().await;
        assert_eq!((&returned["type"], &returned["was"]), (&json!("return"), &json!(bob.client.id)));
        assert_eq!(returned["client"], json!({"id": again.client.id, "name": "Robert"}));
        // The connection is no member any more, so its end is nothing to be told.
        let state = json!({"type": "state", "topic": "room", "state": 1, "id": 1});
        assert_eq!(bob.ask(state, "error").await["code"], 404);
        bob.unsubscribe("room").await;
        ada.lives("ada").await;
        ada.nothing_more().await;
        assert_eq!(others(&mut ada).await.len(), 1);
        drop((ada, bob, again));
        server.stop().await;
    }
}

#[tokio::test]
async fn a_member_leaves_at_the_end_of_its_grace() {
    for over in Over::ALL {
        let server = server("pattern = 'room'\npresence_grace_ms = 200").await;
        let mut ada = watcher(over, &server).await;
        let (bob, session) = member(over, &server, json!({"client_name": "Bob"}), json!({})).await;
        let id = bob.client.id.clone();
        assert_eq!(ada.any().await.1["type"], "join");
        bob.client.lose();
        let mut types = Vec::new();
        while types.last() != Some(&json!("leave")) {
            let (_, event) = ada.any().await;
            assert_eq!(event["client"]["id"], id);
            types.push(event["type"].clone());
        }
        // Away, and then gone; on a machine that is slow, at once.
        let expected: &[&str] = if types.len() == 1 { &["leave"] } else { &["state", "leave"] };
        assert_eq!(types, expected);
        assert!(others(&mut ada).await.is_empty());
        // Too late.
        let (again, _) = member(over, &server, json!({"client_name": "Bob", "resume": session}), json!({})).await;
        let joined = json!({"type": "join", "topic": "room", "client": {"id": again.client.id, "name": "Bob"}});
        assert_eq!(ada.any().await.1, joined);
        drop((ada, again));
        server.stop().await;
    }
}

#[tokio::test]
async fn without_a_grace_a_lost_member_leaves_at_once() {
    for over in Over::ALL {
        let server = server("pattern = 'room'\npresence_grace_ms = 0").await;
        let mut ada = watcher(over, &server).await;
        let (bob, _) = member(over, &server, json!({"client_name": "Bob"}), json!({})).await;
        assert_eq!(ada.any().await.1["type"], "join");
        bob.client.lose();
        assert_eq!(ada.any().await.1["type"], "leave");
        drop(ada);
        server.stop().await;
    }
}

#[tokio::test]
async fn a_secret_that_is_not_the_clients_own_resumes_nothing() {
    let server = server(LONG).await;
    let mut ada = watcher(Over::Native, &server).await;
    let (bob, session) = member(Over::Native, &server, json!({"client_name": "Bob"}), json!({})).await;
    assert_eq!(ada.any().await.1["type"], "join");
    bob.client.lose();
    assert_eq!(ada.any().await.1["client"]["away"], true);
    let changed = format!("{}{}", if session.starts_with('A') { 'B' } else { 'A' }, &session[1..]);
    for wrong in [changed.as_str(), "x"] {
        let (eve, _) = member(Over::Native, &server, json!({"resume": wrong}), json!({})).await;
        let joined = json!({"type": "join", "topic": "room", "client": {"id": eve.client.id, "name": null}});
        assert_eq!(ada.any().await.1, joined);
        eve.client.vanish();
        assert_eq!(ada.any().await.1["type"], "leave");
    }
    let away = others(&mut ada).await;
    assert_eq!((away.len(), &away[0]["away"]), (1, &json!(true)));
    drop(ada);
    server.stop().await;
}

#[tokio::test]
async fn a_user_stays_one_member_while_its_connections_come_and_go() {
    for (from, to) in Over::pairs() {
        let server = TestServer::start_with(|config| {
            config.auth = asking("");
            config.topics = vec![rule(&format!("{LONG}\npresence = 'users'"))];
        })
        .await;
        let mut eve = member(from, &server, user("eve"), json!({"presence": true})).await.0;
        let (phone, _) = member(to, &server, user("ada"), json!({})).await;
        let first = phone.client.id.clone();
        let mut ada = json!({"id": first, "name": null, "user": "ada", "clients": 1});
        assert_eq!(eve.any().await.1, json!({"type": "join", "topic": "room", "client": ada}));
        let (mut laptop, _) = member(from, &server, user("ada"), json!({"state": "writes"})).await;
        (ada["clients"], ada["state"]) = (json!(2), json!("writes"));
        assert_eq!(eve.any().await.1, json!({"type": "state", "topic": "room", "client": ada}));
        laptop.unsubscribe("room").await;
        ada["clients"] = json!(1);
        ada.as_object_mut().expect("an object").remove("state");
        assert_eq!(eve.any().await.1, json!({"type": "state", "topic": "room", "client": ada}));
        phone.client.lose();
        ada["away"] = json!(true);
        assert_eq!(eve.any().await.1, json!({"type": "state", "topic": "room", "client": ada}));

        // By its user alone.
        let (tablet, _) = member(to, &server, user("ada"), json!({})).await;
        ada["id"] = json!(tablet.client.id);
        ada.as_object_mut().expect("an object").remove("away");
        assert_eq!(eve.any().await.1, json!({"type": "state", "topic": "room", "client": ada}));
        assert_eq!(others(&mut eve).await, [ada]);
        let mut tablet = tablet.client;
        tablet.control.say(json!({"type": "close", "code": 1000})).await;
        let left = eve.any().await.1;
        assert_eq!((&left["type"], &left["client"]["user"]), (&json!("leave"), &json!("ada")));
        drop((eve, laptop, tablet));
        server.stop().await;
    }
}

#[tokio::test]
async fn members_that_the_operator_sends_away_leave_at_once() {
    for over in Over::ALL {
        let server = admin::server(|config| config.topics = vec![rule(LONG)]).await;
        let mut ada = watcher(over, &server).await;
        // Also with codes after which a client reconnects.
        for code in [4403, 1001, 1012, 4413] {
            let (bob, _) = member(over, &server, json!({"client_name": "Bob"}), json!({})).await;
            assert_eq!(ada.any().await.1["type"], "join");
            let wish = json!({"client": bob.client.id, "code": code});
            let answer = admin::post(&server, "/api/disconnect", &[], &wish).await;
            assert_eq!(answer.status, 200, "{answer:?}");
            assert_eq!(ada.any().await.1["type"], "leave", "{code}");
        }
        drop(ada);
        server.stop().await;
    }
}

#[tokio::test]
async fn more_lost_members_than_the_server_keeps_leave_at_once() {
    let server = TestServer::start_with(|config| {
        config.limits.away_members = 1;
        config.topics = vec![rule(LONG)];
    })
    .await;
    let mut ada = watcher(Over::Native, &server).await;
    let mut ends = Vec::new();
    for name in ["Bob", "Eve"] {
        let (client, _) = member(Over::Native, &server, json!({"client_name": name}), json!({})).await;
        assert_eq!(ada.any().await.1["type"], "join");
        client.client.lose();
        ends.push(ada.any().await.1["type"].clone());
    }
    assert_eq!(ends, ["state", "leave"]);
    drop(ada);
    server.stop().await;
}
