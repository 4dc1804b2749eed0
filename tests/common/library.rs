//! The client library as tests use it: publishing and subscribing.

use quic_websocket::message::{Payload, Position, TopicMessage};
use quic_websocket::tls::Trust;
use quic_websocket::{Client, ClientBuilder, Events, Missed, Subscription, TopicEvent};

use super::{TestServer, soon};

/// Settings of a client that trusts this server.
pub fn builder(server: &TestServer) -> ClientBuilder {
    Client::builder(server.addr.to_string()).trust(Trust::CaFile(server.files.ca.clone()))
}

/// A client with a name, and its events.
pub async fn connect(server: &TestServer, name: &str) -> (Client, Events) {
    builder(server).name(name).expect("a name").connect().await.expect("it connects")
}

/// A client whose events are not needed.
pub async fn client(server: &TestServer, name: &str) -> Client {
    connect(server, name).await.0
}

/// The next event; there must be one.
pub async fn next(subscription: &mut Subscription) -> TopicEvent {
    let what = format!("an event of {}", subscription.topic());
    soon(&what, subscription.next()).await.unwrap_or_else(|| panic!("{what}: it is over"))
}

/// The next event, which must be a message.
pub async fn next_message(subscription: &mut Subscription) -> TopicMessage {
    match next(subscription).await {
        TopicEvent::Message(message) => message,
        other => panic!("expected a message of {}, got {other:?}", subscription.topic()),
    }
}

/// The next event, which must report missed messages.
pub async fn next_missed(subscription: &mut Subscription) -> Missed {
    match next(subscription).await {
        TopicEvent::Missed(missed) => missed,
        other => panic!("expected a loss of {}, got {other:?}", subscription.topic()),
    }
}

/// The next message, which must have this text.
pub async fn expect(subscription: &mut Subscription, text: &str) -> TopicMessage {
    let message = next_message(subscription).await;
    assert_eq!(message.payload, Payload::text(text), "of {}", subscription.topic());
    message
}

/// Publishes a text; returns its position.
pub async fn publish(client: &Client, topic: &str, text: impl Into<String>) -> Position {
    client.publish(topic, Payload::text(text.into())).await.expect("it is published").position
}
