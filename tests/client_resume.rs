//! What becomes of the client library's subscriptions and publishes when connections are lost: nothing is lost and nothing
//! doubled, or it is told.

#![allow(clippy::expect_used, clippy::panic)] // A test fails by panicking.

mod common;

use std::time::Duration;

use common::library::{client, connect, expect, next, next_missed, publish};
use common::relay::{Link, Relay};
use common::topics::rule;
use common::{TestServer, soon};
use quic_websocket::message::{ClientMessage, Close, CloseCode, Payload};
use quic_websocket::tls::Trust;
use quic_websocket::{Client, Event, Events, TopicEvent};

/// Has the server close the connection with a code after which clients come back; waits until it is up again.
async fn bounce(client: &Client, events: &mut Events) {
    let restart = Close::new(CloseCode::RESTART, "again").expect("a close");
    // Lost already, it comes back as well.
    let _ = client.send(&ClientMessage::Close(restart)).await;
    loop {
        match soon("the way back", events.next()).await {
            Some(Event::Reconnected) => break,
            // Where much is on its way, the connection may be gone before its code arrives.
            Some(Event::Disconnected(closed)) => assert!(closed.code.may_reconnect(), "{closed:?}"),
            other => panic!("expected a reconnect, got {other:?}"),
        }
    }
}

#[tokio::test]
async fn nothing_is_lost_or_doubled_over_reconnects() {
    const COUNT: u64 = 2000;
    let server = TestServer::start_with(|config| config.topics = vec![rule("history_messages = 10_000")]).await;
    let (ada, (bob, mut at_bob)) = (client(&server, "Ada").await, connect(&server, "Bob").await);
    let mut subscription = bob.subscribe("t").queue(16).await.expect("subscribed");
    let mut on_control = bob.subscribe("t.control").on_control_lane().queue(10_000).await.expect("subscribed");
    let publisher = tokio::spawn(async move {
        for n in 1..=COUNT {
            for topic in ["t", "t.control"] {
                publish(&ada, topic, n.to_string()).await;
            }
        }
    });
    let bounced = tokio::spawn(async move {
        for _ in 0..3 {
            tokio::time::sleep(Duration::from_millis(50)).await;
            bounce(&bob, &mut at_bob).await;
        }
        bob
    });
    for n in 1..=COUNT {
        expect(&mut subscription, &n.to_string()).await;
        expect(&mut on_control, &n.to_string()).await;
    }
    soon("the publisher", publisher).await.expect("no panic");
    soon("the reconnects", bounced).await.expect("no panic");
    assert!(subscription.try_next().is_none() && on_control.try_next().is_none());
    server.stop().await;
}

#[tokio::test]
async fn nothing_is_lost_or_doubled_over_a_bad_link() {
    const COUNT: u64 = 300;
    let server = TestServer::start().await;
    let link = Link { loss: 0.05, delay: Duration::from_millis(5), seed: 20_261_124 };
    let relay = Relay::start(server.addr, link).await;
    let behind_relay = async |name| {
        let builder = Client::builder(relay.addr.to_string()).trust(Trust::CaFile(server.files.ca.clone()));
        builder.name(name).expect("a name").connect().await.expect("it connects")
    };
    let ((ada, mut at_ada), (bob, mut at_bob)) = (behind_relay("Ada").await, behind_relay("Bob").await);
    let mut subscriptions = Vec::new();
    for topic in ["a", "b", "c"] {
        subscriptions.push(bob.subscribe(topic).await.expect("subscribed"));
    }
    let publisher = async {
        for n in 1..=COUNT {
            if n % 140 == 0 {
                bounce(&ada, &mut at_ada).await;
            }
            let publish = |topic| ada.publish(topic, Payload::text(n.to_string())).key(format!("5b1e-{n}")).send();
            let published = tokio::join!(publish("a"), publish("b"), publish("c"));
            assert!(matches!(published, (Ok(_), Ok(_), Ok(_))), "{published:?}");
        }
    };
    let reader = async {
        for n in 1..=COUNT {
            if n % 130 == 0 {
                bounce(&bob, &mut at_bob).await;
            }
            for subscription in &mut subscriptions {
                expect(subscription, &n.to_string()).await;
            }
        }
    };
    tokio::join!(publisher, reader);
    server.stop().await;
}

#[tokio::test]
async fn a_publish_with_a_key_survives_a_lost_connection() {
    let server = TestServer::start().await;
    let (ada, mut at_ada) = connect(&server, "Ada").await;
    let publisher = {
        let ada = ada.clone();
        tokio::spawn(async move {
            for n in 1..=300 {
                let payload = Payload::text(n.to_string());
                ada.publish("t", payload).key(format!("key-{n}")).await.expect("published, over however many tries");
            }
        })
    };
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_millis(20)).await;
        bounce(&ada, &mut at_ada).await;
    }
    soon("the publisher", publisher).await.expect("no panic");
    let all = ada.history("t").all().await.expect("a history").messages;
    let texts: Vec<_> = all.iter().filter_map(|message| message.payload.content.as_deref()).collect();
    assert!((1..=300).map(|n| n.to_string()).eq(texts.iter().copied()), "each once and in order: {texts:?}");
    server.stop().await;
}

#[tokio::test]
async fn what_a_reconnect_cannot_bridge_is_told_before_what_follows() {
    let server =
        TestServer::start_with(|config| config.topics = vec![rule("pattern = 'short'\nhistory_messages = 2")]).await;
    let (ada, (bob, mut at_bob)) = (client(&server, "Ada").await, connect(&server, "Bob").await);
    let mut short = bob.subscribe("short").await.expect("subscribed");
    let mut pattern = bob.subscribe("p.*").await.expect("subscribed");
    publish(&ada, "short", "1").await;
    expect(&mut short, "1").await;
    let restart = Close::new(CloseCode::RESTART, "again").expect("a close");
    bob.send(&ClientMessage::Close(restart)).await.expect("sent");
    assert!(matches!(soon("the loss", at_bob.next()).await, Some(Event::Disconnected(_))));
    // On its way back it waits for a while at random: these are published meanwhile, or live.
    for n in 2..=9 {
        publish(&ada, "short", n.to_string()).await;
    }
    assert!(matches!(soon("the way back", at_bob.next()).await, Some(Event::Reconnected)));
    publish(&ada, "short", "end").await;
    let (mut seen, mut missed) = (Vec::new(), 0);
    loop {
        match next(&mut short).await {
            TopicEvent::Message(message) if message.payload == Payload::text("end") => break,
            TopicEvent::Message(message) => seen.push(message.offset),
            TopicEvent::Missed(_) => missed += 1,
            other => panic!("expected messages, got {other:?}"),
        }
    }
    assert!(seen.len() == 8 || missed == 1, "all of them, or told once: {seen:?}, {missed} times");
    assert!(seen.is_sorted(), "{seen:?}");

    let lost = next_missed(&mut pattern).await;
    assert_eq!((lost.topic.as_str(), lost.offsets), ("p.*", None));
    publish(&ada, "p.a", "on").await;
    expect(&mut pattern, "on").await;
    server.stop().await;
}

#[tokio::test]
async fn a_server_that_forgot_everything_is_told_as_a_loss() {
    let server = TestServer::start().await;
    let (bob, mut at_bob) = connect(&server, "Bob").await;
    let mut t = bob.subscribe("t").await.expect("subscribed");
    publish(&bob, "t", "before").await;
    expect(&mut t, "before").await;
    let (addr, keep) = (server.addr, tempfile::tempdir().expect("a folder"));
    let [cert, key] = ["server.pem", "server-key.pem"].map(|name| keep.path().join(name));
    std::fs::copy(&server.files.cert, &cert).expect("kept");
    std::fs::copy(&server.files.key, &key).expect("kept");
    server.stop().await;
    let server = TestServer::start_with(|config| {
        config.addr = addr;
        (config.tls.cert, config.tls.key) = (cert, key);
    })
    .await;
    assert!(matches!(soon("the loss", at_bob.next()).await, Some(Event::Disconnected(_))));
    assert!(matches!(soon("the way back", at_bob.next()).await, Some(Event::Reconnected)));
    assert_eq!(next_missed(&mut t).await.offsets, None);
    publish(&bob, "t", "after").await;
    assert_eq!(expect(&mut t, "after").await.offset, 1, "a new log");
    server.stop().await;
}

#[tokio::test]
async fn many_subscriptions_share_lanes_and_each_gets_its_own() {
    let server = TestServer::start().await;
    let (ada, (bob, mut at_bob)) = (client(&server, "Ada").await, connect(&server, "Bob").await);
    let mut subscriptions = Vec::new();
    for n in 0..100 {
        subscriptions.push(bob.subscribe(format!("many.{n}")).await.expect("subscribed"));
    }
    for round in ["first", "second"] {
        for n in 0..100 {
            publish(&ada, &format!("many.{n}"), format!("{round} {n}")).await;
        }
        for (n, subscription) in subscriptions.iter_mut().enumerate() {
            expect(subscription, &format!("{round} {n}")).await;
        }
        bounce(&bob, &mut at_bob).await;
    }
    server.stop().await;
}
