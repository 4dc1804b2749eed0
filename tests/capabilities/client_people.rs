//! Values, users, members and the server's subscriptions in the client library.

#![allow(clippy::expect_used, clippy::panic)] // A test fails by panicking.

use std::time::Duration;

use crate::common::library::{builder, client, expect, next, next_message, publish};
use crate::common::tokens::{asking, token};
use crate::common::topics::rule;
use crate::common::{TestServer, soon};
use quic_websocket::message::{ClientMessage, Close, CloseCode, Json, Payload, UserName};
use quic_websocket::{Carrier, Client, ClientBuilder, Event, Events, Members, TopicEvent};
use serde_json::json;

const CARRIERS: [Carrier; 2] = [Carrier::Quic, Carrier::WebSocket];

fn over(server: &TestServer, carrier: Carrier) -> ClientBuilder {
    let url = format!("wss://{}/ws", server.http.expect("it serves HTTP"));
    builder(server).carriers([carrier]).websocket_url(&url).expect("an address")
}

/// Loses the connection, and waits until it is back.
async fn bounce(client: &Client, events: &mut Events) {
    let restart = Close::new(CloseCode::RESTART, "again").expect("a close");
    let _ = client.send(&ClientMessage::Close(restart)).await;
    while !matches!(soon("the way back", events.next()).await, Some(Event::Reconnected)) {}
}

#[tokio::test]
async fn a_message_has_its_value_meta_sender_and_time() {
    let server = TestServer::start_with(|config| config.auth = asking("")).await;
    let grants = json!({"sub": "ada", "subscribe": "t", "publish": "t", "history": "t"});
    for carrier in CARRIERS {
        let ada = over(&server, carrier).token(&token(grants.clone())).expect("a token").connect();
        let (ada, _) = ada.await.expect("it connects");
        let mut room = ada.subscribe("t").await.expect("subscribed");
        let exact = Json::parse(r#"{"n" : 18446744073709551617}"#).expect("JSON");
        let payload = Payload::json(exact.clone()).with_attachment(vec![1, 2]);
        let published = ada.publish("t", payload).meta(&json!({"event": "made"})).ttl(Duration::from_secs(60)).await;
        let offset = published.expect("published").position.offset;
        let past = ada.history("t").limit(1).reverse().await.expect("a history").messages.remove(0);
        for message in [next_message(&mut room).await, past] {
            assert_eq!((message.offset, message.payload.data.as_ref()), (offset, Some(&exact)), "{carrier:?}");
            assert_eq!(message.payload.meta.as_ref().map(Json::as_str), Some(r#"{"event":"made"}"#));
            assert_eq!(message.payload.attachment.as_deref(), Some(&[1, 2][..]));
            assert_eq!(message.expires_at, Some(message.timestamp + 60_000));
            assert_eq!(message.from.and_then(|from| from.user).as_deref(), Some("ada"));
        }
        ada.publish("t", json!({"n": 7})).await.expect("published");
        let decoded: Option<std::collections::HashMap<String, u8>> =
            next_message(&mut room).await.data().expect("JSON");
        assert_eq!(decoded.and_then(|object| object.get("n").copied()), Some(7));
    }
    server.stop().await;
}

#[tokio::test]
async fn a_user_gets_direct_messages_and_signals_on_all_connections() {
    let server = TestServer::start_with(|config| config.auth = asking("")).await;
    let of = |user: &str| token(json!({"sub": user, "direct": true, "signal": true, "info": {"role": user}}));
    let (ada, _) = builder(&server).token(&of("ada")).expect("a token").connect().await.expect("it connects");
    assert_eq!(ada.info().as_ref().map(Json::as_str), Some(r#"{"role":"ada"}"#));
    let mut bobs = Vec::new();
    for carrier in CARRIERS {
        bobs.push(over(&server, carrier).token(&of("bob")).expect("a token").connect().await.expect("it connects"));
    }
    let bob = || UserName::new("bob").expect("a user");
    assert_eq!(ada.direct(bob(), json!({"task": 7})).await.expect("sent"), 2);
    assert_eq!(ada.signal(bob(), &json!([1])).await.expect("sent"), 2);
    for (_, events) in &mut bobs {
        match soon("a message", events.next()).await {
            Some(Event::Direct { from, payload, .. }) => {
                assert_eq!(
                    (from.user.as_deref(), payload.data::<serde_json::Value>().ok().flatten()),
                    (Some("ada"), Some(json!({"task": 7})))
                );
            }
            other => panic!("expected a direct message, got {other:?}"),
        }
        assert!(matches!(soon("a signal", events.next()).await, Some(Event::Signal { .. })));
    }
    server.stop().await;
}

/// The next event that is about members.
async fn news(subscription: &mut quic_websocket::Subscription, members: &mut Members) -> TopicEvent {
    let event = next(subscription).await;
    assert!(members.apply(&event), "expected news of a member, got {event:?}");
    event
}

#[tokio::test]
async fn members_and_their_states_are_kept_over_lost_connections() {
    let rules = "pattern = 'room'\npresence_grace_ms = 600000";
    let server = TestServer::start_with(|config| config.topics = vec![rule(rules)]).await;
    for carrier in CARRIERS {
        let ada = client(&server, "Ada").await;
        let mut room = ada.subscribe("room").presence(true).await.expect("subscribed");
        let mut members = Members::from(ada.members("room").await.expect("members"));
        assert_eq!(members.len(), 1);
        let (bob, mut at_bob) =
            over(&server, carrier).name("Bob").expect("a name").connect().await.expect("it connects");
        let at_room = bob.subscribe("room").state(&json!({"typing": true})).await.expect("subscribed");
        assert!(matches!(news(&mut room, &mut members).await, TopicEvent::Join { .. }));
        let state_of = |members: &Members| {
            let bob = members.iter().find(|member| member.name.as_deref() == Some("Bob")).expect("he is there");
            (bob.id, bob.state.as_ref().map(Json::to_string))
        };
        let (id, state) = state_of(&members);
        assert_eq!((Some(id), state.as_deref()), (bob.id(), Some(r#"{"typing":true}"#)));
        at_room.set_state(Some((&json!("away")).into())).await.expect("set");
        assert!(matches!(news(&mut room, &mut members).await, TopicEvent::State { .. }));
        bounce(&bob, &mut at_bob).await;
        // While it is away, its entry says so, unless it is back before that is told.
        let back = loop {
            match news(&mut room, &mut members).await {
                TopicEvent::State { member, .. } => assert!(member.away && member.id == id, "{member:?}"),
                other => break other,
            }
        };
        assert!(matches!(back, TopicEvent::Return { was, .. } if was == id), "{back:?}");
        assert_eq!(state_of(&members), (bob.id().expect("it is back"), Some("\"away\"".to_owned())));
        assert_eq!(ada.occupancy("room").await.expect("numbers").clients, 2);
        at_room.unsubscribe().await.expect("left");
        assert!(matches!(news(&mut room, &mut members).await, TopicEvent::Leave { .. }));
        assert_eq!(members.len(), 1);
        room.unsubscribe().await.expect("left");
    }
    server.stop().await;
}

#[tokio::test]
async fn large_rooms_tell_numbers_and_narrow_subscriptions_bring_less() {
    let server = TestServer::start().await;
    let (ada, bob) = (client(&server, "Ada").await, client(&server, "Bob").await);
    let mut stadium = ada.subscribe("stadium").occupancy().await.expect("subscribed");
    let at_stadium = bob.subscribe("stadium").await.expect("subscribed");
    loop {
        match next(&mut stadium).await {
            TopicEvent::Occupancy { clients: 2, users: 0, .. } => break,
            TopicEvent::Occupancy { clients: 1, .. } => {}
            other => panic!("expected numbers, got {other:?}"),
        }
    }
    drop(at_stadium);
    let filter = json!({"host": {"prefix": "eu-"}, "core": 0});
    let mut load = ada.subscribe("load").filter(&filter).echo(false).await.expect("subscribed");
    for (client, host) in [(&ada, "eu-1"), (&bob, "us-1"), (&bob, "eu-2")] {
        client.publish("load", host).meta(&json!({"host": host, "core": 0})).await.expect("published");
    }
    assert_eq!(next_message(&mut load).await.text(), Some("eu-2"));
    let mut slow = ada.subscribe("many").max_rate(1).await.expect("subscribed");
    for n in 0..10 {
        publish(&bob, "many", n.to_string()).await;
    }
    let mut got = Vec::new();
    while got.last().map(String::as_str) != Some("9") {
        got.push(next_message(&mut slow).await.text().unwrap_or_default().to_owned());
    }
    assert!(got.len() <= 3, "{got:?}");
    server.stop().await;
}

/// The topic of the next subscription that the server has made.
async fn made(events: &mut Events) -> String {
    loop {
        match soon("a subscription", events.next()).await {
            Some(Event::Subscribed { topic, .. }) => return topic,
            Some(Event::Disconnected(_) | Event::Reconnected) => {}
            other => panic!("expected a subscription, got {other:?}"),
        }
    }
}

#[tokio::test]
async fn the_servers_subscriptions_are_found_taken_and_resumed() {
    let server = TestServer::start_with(|config| config.auth = asking("")).await;
    let publisher = token(json!({"sub": "desk", "publish": ">"}));
    let (desk, _) = builder(&server).token(&publisher).expect("a token").connect().await.expect("it connects");
    for carrier in CARRIERS {
        let reader = token(json!({"subscriptions": ["news", "alerts.>"]}));
        let (ada, mut events) =
            over(&server, carrier).token(&reader).expect("a token").connect().await.expect("it connects");
        let mut topics = [made(&mut events).await, made(&mut events).await];
        topics.sort();
        assert_eq!(topics, ["alerts.>", "news"], "{carrier:?}");
        publish(&desk, "news", "before it is read").await;
        let mut news = ada.subscribe("news").await.expect("it is there");
        let mut alerts = ada.subscribe("alerts.>").await.expect("it is there");
        expect(&mut news, "before it is read").await;
        publish(&desk, "alerts.fire", "alert").await;
        expect(&mut alerts, "alert").await;
        let restart = Close::new(CloseCode::RESTART, "again").expect("a close");
        let _ = ada.send(&ClientMessage::Close(restart)).await;
        publish(&desk, "news", "meanwhile").await;
        while !matches!(soon("the way back", events.next()).await, Some(Event::Reconnected)) {}
        expect(&mut news, "meanwhile").await;
        publish(&desk, "news", "after").await;
        expect(&mut news, "after").await;
        assert!(matches!(next(&mut alerts).await, TopicEvent::Missed(_)), "a pattern has no position");
        // What is dropped stays away, until the application asks for it.
        drop(news);
        bounce(&ada, &mut events).await;
        let mut own = ada.subscribe("news").recent(1).await.expect("subscribed");
        expect(&mut own, "after").await;
    }
    server.stop().await;
}

#[tokio::test]
async fn an_applications_own_subscription_takes_the_place_of_the_servers() {
    let server = TestServer::start_with(|config| config.auth = asking("")).await;
    let claims = json!({"subscriptions": ["news"], "publish": "news"});
    let (ada, mut events) =
        builder(&server).token(&token(claims)).expect("a token").connect().await.expect("it connects");
    publish(&ada, "news", "1").await;
    let mut news = ada.subscribe("news").recent(5).on_control_lane().await.expect("subscribed");
    expect(&mut news, "1").await;
    bounce(&ada, &mut events).await;
    publish(&ada, "news", "2").await;
    expect(&mut news, "2").await;
    server.stop().await;
}
