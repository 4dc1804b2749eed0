//! Durable consumers and queue groups of the client library: what is acknowledged never comes again, all else does,
//! over reconnects and restarts of the server.

#![allow(clippy::expect_used, clippy::panic)] // A test fails by panicking.

use std::path::Path;
use std::time::Duration;

use crate::common::library::{client, connect, next, next_message, publish};
use crate::common::topics::rule;
use crate::common::{TestServer, soon};
use futures_util::{StreamExt, stream};
use quic_websocket::message::{AckMode, ClientMessage, Close, CloseCode, Stored, TopicMessage};
use quic_websocket::{Client, ClientError, Ended, Event, Events, Subscription, TopicEvent};

/// The next message, with the number of its delivery.
async fn delivery(subscription: &mut Subscription) -> (TopicMessage, u64) {
    let message = next_message(subscription).await;
    assert_eq!(message.durable.as_deref(), Some("w"), "{message:?}");
    let tries = message.tries.unwrap_or(1);
    (message, tries)
}

async fn expect(subscription: &mut Subscription, text: &str, tries: u64) -> TopicMessage {
    let (message, got) = delivery(subscription).await;
    assert_eq!((message.text(), got), (Some(text), tries));
    message
}

/// Loses the connection, and waits until it is back.
async fn bounce(client: &Client, events: &mut Events) {
    let restart = Close::new(CloseCode::RESTART, "again").expect("a close");
    let _ = client.send(&ClientMessage::Close(restart)).await;
    while !matches!(soon("the way back", events.next()).await, Some(Event::Reconnected)) {}
}

#[tokio::test]
async fn what_was_not_acknowledged_comes_again_after_a_reconnect_and_nothing_else() {
    let server = TestServer::start().await;
    let (ada, (bob, mut at_bob)) = (client(&server, "Ada").await, connect(&server, "Bob").await);
    for text in ["1", "2", "3"] {
        publish(&ada, "t", text).await;
    }
    let mut work = bob.subscribe("t").durable("w").recent(10).await.expect("subscribed");
    let first = expect(&mut work, "1", 1).await;
    let second = expect(&mut work, "2", 1).await;
    assert_eq!(work.ack(&second).await.expect("acknowledged"), 1);
    assert_eq!(work.position(), None);
    bounce(&bob, &mut at_bob).await;
    publish(&ada, "t", "4").await;
    let first_again = expect(&mut work, "1", 2).await;
    assert_eq!(first_again.offset, first.offset);
    expect(&mut work, "3", 2).await;
    expect(&mut work, "4", 1).await;
    let consumer = work.consumer().expect("it has one").clone();
    assert_eq!((consumer.topic(), consumer.name()), ("t", "w"));
    assert_eq!(consumer.ack(&first_again).await.expect("acknowledged"), 1);
    assert_eq!(consumer.ack(first.offset).await.expect("ignored"), 0, "it is done already");
    server.stop().await;
}

#[tokio::test]
async fn a_message_is_retried_rejected_or_done() {
    let server = TestServer::start_with(|config| {
        config.topics = vec![rule("pattern = 'jobs'\ndead_letter = 'dead'")];
    })
    .await;
    let ada = client(&server, "Ada").await;
    let mut dead = ada.subscribe("dead").await.expect("subscribed");
    let mut work = ada.subscribe("jobs").durable("w").max_in_flight(1).await.expect("subscribed");
    for text in ["1", "2"] {
        publish(&ada, "jobs", text).await;
    }
    let job = expect(&mut work, "1", 1).await;
    assert_eq!(work.retry(&job, Duration::ZERO).await.expect("heard"), 1);
    let job = expect(&mut work, "1", 2).await;
    assert_eq!(work.retry(&job, Duration::from_millis(20)).await.expect("heard"), 1);
    let job = expect(&mut work, "1", 3).await;
    assert_eq!(work.reject(&job).await.expect("heard"), 1);
    assert_eq!(next_message(&mut dead).await.text(), Some("1"));
    let job = expect(&mut work, "2", 1).await;
    work.consumer().expect("it has one").ack_unconfirmed(&job).await.expect("sent");
    assert!(matches!(work.retry(&job, Duration::from_secs(90_000)).await, Err(ClientError::Invalid(_))));
    publish(&ada, "jobs", "3").await;
    expect(&mut work, "3", 1).await;
    server.stop().await;
}

#[tokio::test]
async fn with_upto_one_acknowledgement_covers_all_before() {
    let server = TestServer::start().await;
    let (ada, mut at_ada) = connect(&server, "Ada").await;
    let mut work = ada.subscribe("t").durable("w").ack_mode(AckMode::UpTo).await.expect("subscribed");
    for text in ["1", "2", "3"] {
        publish(&ada, "t", text).await;
    }
    expect(&mut work, "1", 1).await;
    let second = expect(&mut work, "2", 1).await;
    assert_eq!(work.ack(&second).await.expect("acknowledged"), 2);
    bounce(&ada, &mut at_ada).await;
    expect(&mut work, "3", 2).await;
    let other = client(&server, "Bob").await;
    let refused = other.subscribe("t").durable("w").ack_mode(AckMode::Each).await;
    assert!(matches!(refused, Err(ClientError::Server(error)) if error.code == 409));
    server.stop().await;
}

#[tokio::test]
async fn a_client_that_takes_over_ends_the_subscription_of_the_other() {
    let server = TestServer::start().await;
    let (ada, bob) = (client(&server, "Ada").await, client(&server, "Bob").await);
    publish(&ada, "t", "1").await;
    let mut older = ada.subscribe("t").durable("w").recent(1).await.expect("subscribed");
    expect(&mut older, "1", 1).await;
    let mut newer = bob.subscribe("t").durable("w").await.expect("subscribed");
    let ended = next(&mut older).await;
    assert!(matches!(&ended, TopicEvent::Ended(Ended::TakenOver { .. })), "{ended:?}");
    expect(&mut newer, "1", 2).await;
    newer.forget().await.expect("forgotten");
    let gone = ada.consumer("t", "w").expect("a name").ack(1).await;
    assert!(matches!(&gone, Err(ClientError::Server(error)) if error.code == 404), "{gone:?}");
    let plain = ada.subscribe("u").await.expect("subscribed");
    assert!(matches!(plain.ack(1).await, Err(ClientError::Invalid(_))));
    server.stop().await;
}

#[tokio::test]
async fn members_of_a_group_and_of_a_shared_consumer_divide_the_messages() {
    let server = TestServer::start().await;
    let (ada, bob) = (client(&server, "Ada").await, client(&server, "Bob").await);
    for durable in [false, true] {
        let topic = if durable { "shared" } else { "group" };
        let member = async |client: &Client| {
            let subscribe = client.subscribe(topic).share();
            let subscribe = if durable { subscribe.durable("w") } else { subscribe };
            subscribe.await.expect("subscribed")
        };
        let mut members = stream::select(member(&ada).await, member(&bob).await);
        for text in ["1", "2", "3", "4"] {
            publish(&ada, topic, text).await;
        }
        let mut got = Vec::new();
        while got.len() < 4 {
            match soon("a message", members.next()).await {
                Some(TopicEvent::Message(message)) => got.push(message.offset),
                other => panic!("{other:?}"),
            }
        }
        got.sort_unstable();
        assert_eq!(got, [1, 2, 3, 4], "{topic}");
    }
    server.stop().await;
}

/// A server that keeps all topics in this directory.
async fn on_disk(dir: &Path) -> TestServer {
    TestServer::start_with(|config| {
        config.store.dir = Some(dir.to_owned());
        config.store.segment_bytes = 1 << 20;
        config.store.min_free_bytes = 0;
        config.topics = vec![rule("pattern = '>'\ndurability = 'fsync'")];
    })
    .await
}

#[tokio::test]
async fn a_consumer_continues_after_a_restart_of_the_server_and_history_begins_at_a_time() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = on_disk(dir.path()).await;
    let ada = client(&server, "Ada").await;
    let mut work = ada.subscribe("t").durable("w").await.expect("subscribed");
    let published = ada.publish("t", "1").await.expect("published");
    assert_eq!(published.stored, Some(Stored::Fsync));
    publish(&ada, "t", "2").await;
    let first = expect(&mut work, "1", 1).await;
    assert_eq!(work.ack(&first).await.expect("acknowledged"), 1);
    drop((work, ada));
    server.stop().await;

    let server = on_disk(dir.path()).await;
    let ada = client(&server, "Ada").await;
    let mut work = ada.subscribe("t").durable("w").await.expect("subscribed");
    let (second, _) = delivery(&mut work).await;
    assert_eq!(second.text(), Some("2"));
    let page = ada.history("t").since_time(first.timestamp).await.expect("a page");
    assert_eq!((&*page.epoch, page.messages.len()), (&*published.position.epoch, 2));
    let before = ada.history("t").since_time(first.timestamp).reverse().all().await.expect("a page");
    assert!(before.messages.is_empty(), "{before:?}");
    let mut all = ada.subscribe("u").since_time(first.timestamp).await.expect("subscribed");
    publish(&ada, "u", "x").await;
    assert_eq!(next_message(&mut all).await.text(), Some("x"));
    server.stop().await;
}
