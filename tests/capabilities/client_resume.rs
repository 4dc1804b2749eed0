//! Subscriptions and publishes of the client library when connections are lost: nothing is lost or duplicated, or the
//! loss is reported.

#![allow(clippy::expect_used, clippy::panic)] // A test fails by panicking.

use std::time::Duration;

use crate::common::library::{builder, client, connect, expect, next, next_missed, publish};
use crate::common::relay::{Link, Relay};
use crate::common::stage::{Played, Stage};
use crate::common::topics::rule;
use crate::common::{TestServer, framed, soon, until};
use quic_websocket::message::{ClientMessage, Close, CloseCode, Payload};
use quic_websocket::tls::Trust;
use quic_websocket::{Client, Event, Events, TopicEvent};
use serde_json::{Value, json};

/// Makes the server close the connection with a code that allows reconnecting; waits until it is up again.
async fn bounce(client: &Client, events: &mut Events) {
    assert_eq!(bounced(client, events).await, CloseCode::RESTART);
}

/// The same if the packet with the code may be lost; returns the code that arrived.
async fn bounced(client: &Client, events: &mut Events) -> CloseCode {
    let mut code = None;
    let restart = Close::new(CloseCode::RESTART, "again").expect("a close");
    // If the packet was lost, it reconnects as well.
    let _ = client.send(&ClientMessage::Close(restart)).await;
    loop {
        match soon("the way back", events.next()).await {
            Some(Event::Reconnected) => return code.expect("it was lost before"),
            Some(Event::Disconnected(closed)) => code = Some(closed.code),
            other => panic!("expected a reconnect, got {other:?}"),
        }
    }
}

#[tokio::test]
async fn nothing_is_lost_or_duplicated_over_reconnects() {
    const COUNT: u64 = 2000;
    let server =
        TestServer::start_with(|config| config.topics = vec![rule("pattern = '>'\nhistory_messages = 10_000")]).await;
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
async fn nothing_is_lost_or_duplicated_over_a_bad_link() {
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
                assert!(bounced(&ada, &mut at_ada).await.may_reconnect());
            }
            let publish = |topic| ada.publish(topic, Payload::text(n.to_string())).key(format!("5b1e-{n}")).send();
            let published = tokio::join!(publish("a"), publish("b"), publish("c"));
            assert!(matches!(published, (Ok(_), Ok(_), Ok(_))), "{published:?}");
        }
    };
    let reader = async {
        for n in 1..=COUNT {
            if n % 130 == 0 {
                assert!(bounced(&bob, &mut at_bob).await.may_reconnect());
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
async fn messages_missed_by_a_reconnect_are_reported_before_later_ones() {
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
    // Before it reconnects it waits for a random time: these are published meanwhile, or live.
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
    assert!(seen.len() == 8 || missed == 1, "all of them, or one report: {seen:?}, {missed} times");
    assert!(seen.is_sorted(), "{seen:?}");

    let lost = next_missed(&mut pattern).await;
    assert_eq!((lost.topic.as_str(), lost.offsets), ("p.*", None));
    publish(&ada, "p.a", "on").await;
    expect(&mut pattern, "on").await;
    server.stop().await;
}

#[tokio::test]
async fn a_server_that_forgot_everything_is_reported_as_a_loss() {
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

#[tokio::test]
async fn unread_events_delay_no_reconnect() {
    let server = TestServer::start().await;
    let ada = client(&server, "Ada").await;
    let (bob, mut at_bob) = builder(&server).event_queue(1).connect().await.expect("it connects");
    for round in 0..3 {
        let before = bob.id();
        for _ in 0..round {
            // More than the queue can hold.
            ada.direct(before.expect("an id"), Payload::text("unread")).await.expect("delivered");
        }
        let restart = Close::new(CloseCode::RESTART, "again").expect("a close");
        bob.send(&ClientMessage::Close(restart)).await.expect("sent");
        until("another connection", || bob.id().is_some_and(|id| Some(id) != before)).await;
        bob.echo("it serves").await.expect("a reply");
    }
    bob.close(CloseCode::NORMAL, "done").await.expect("closed");
    let mut seen = Vec::new();
    while let Some(event) = soon("the events", at_bob.next()).await {
        seen.push(event);
    }
    assert!(matches!(seen.first(), Some(Event::Disconnected(_))), "{seen:?}");
    assert!(matches!(seen.last(), Some(Event::Closed(_))), "{seen:?}");
    server.stop().await;
}

/// Makes a scripted server answer the next `subscribe`, and returns the request.
async fn answer(server: &mut Played, lane: u64, offset: u64) -> Value {
    let asked = server.control.expect("subscribe").await;
    let (topic, re) = (&asked["topic"], &asked["id"]);
    let recovered = asked.get("since").map(|_| true);
    server
        .control
        .say(json!({"type": "subscribed", "re": re, "topic": topic, "epoch": "e", "offset": offset,
            "recovered": recovered, "lane": lane}))
        .await;
    asked
}

/// Opens a topic lane with messages on it.
async fn topic_lane(server: &Played, lane: u64, offsets: std::ops::RangeInclusive<u64>) -> quinn::SendStream {
    let mut stream = server.connection.open_uni().await.expect("a stream");
    let mut bodies = vec![json!({"type": "lane", "lane": lane, "priority": 128})];
    bodies.extend(offsets.map(|offset| {
        json!({"type": "message", "topic": "t", "offset": offset, "content": offset.to_string(), "timestamp": 1})
    }));
    for body in bodies {
        stream.write_all(&framed(body.to_string().as_bytes())).await.expect("it takes bytes");
    }
    stream
}

#[tokio::test]
async fn a_lost_topic_lane_is_recovered_over_another_connection() {
    let stage = Stage::new();
    let (connected, mut server) = tokio::join!(stage.builder().connect(), stage.accept());
    let (client, mut events) = connected.expect("it connects");
    let (subscription, _) = tokio::join!(client.subscribe("t").open(), answer(&mut server, 1, 0));
    let mut t = subscription.expect("subscribed");
    let mut lane = topic_lane(&server, 1, 1..=2).await;
    expect(&mut t, "1").await;
    expect(&mut t, "2").await;
    lane.reset(0_u8.into()).expect("it is open");
    match soon("the loss", events.next()).await {
        Some(Event::Disconnected(closed)) => assert!(closed.reason.contains("topic lane 1"), "{closed:?}"),
        other => panic!("expected Disconnected, got {other:?}"),
    }
    let mut server = stage.accept().await;
    let asked = answer(&mut server, 1, 3).await;
    assert_eq!(asked["since"], json!({"epoch": "e", "offset": 2}));
    let mut lane = topic_lane(&server, 1, 3..=3).await;
    expect(&mut t, "3").await;
    assert!(matches!(soon("the way back", events.next()).await, Some(Event::Reconnected)));

    // A lane without subscriptions may end.
    drop(t);
    let farewell = server.control.expect("unsubscribe").await;
    server.control.say(json!({"type": "ok", "re": farewell["id"], "topic": "t"})).await;
    lane.finish().expect("it is open");
    soon("the end of the lane", lane.stopped()).await.expect("it was read to its end");
    let (echo, ()) = tokio::join!(client.echo("hi"), async {
        let asked = server.control.expect("text").await;
        server.control.say(json!({"type": "text", "re": asked["id"], "content": "still here"})).await;
    });
    assert_eq!(echo.expect("a reply"), "still here");
}

#[tokio::test]
async fn an_unreadable_message_ends_the_client_and_is_not_skipped() {
    for broken in [r#"{"type":"gap","topic":"t","first":1}"#, "{", "\u{2}not zstd"] {
        let stage = Stage::new();
        let (connected, mut server) = tokio::join!(stage.builder().connect(), stage.accept());
        let (_client, mut events) = connected.expect("it connects");
        server.control.say(json!({"type": "of a newer server"})).await;
        server.control.body(broken.as_bytes()).await;
        match soon("the end", events.next()).await {
            Some(Event::Closed(closed)) => assert_eq!(closed.code, CloseCode::PROTOCOL_ERROR, "{broken}: {closed:?}"),
            other => panic!("{broken}: expected Closed, got {other:?}"),
        }
    }
}
