//! The client library if QUIC does not get through: over a WebSocket, back on QUIC once it gets through, and
//! temporarily without a server.

#![allow(clippy::expect_used, clippy::panic)] // A test fails by panicking.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::common::library::{builder, client, connect, expect, publish};
use crate::common::relay::{Link, Relay};
use crate::common::tokens::asking;
use crate::common::topics::rule;
use crate::common::{TestServer, soon, until};
use quic_websocket::message::{ClientMessage, Close, CloseCode, Payload};
use quic_websocket::tls::Trust;
use quic_websocket::{Carrier, Client, ClientBuilder, ClientError, Event};

/// A client whose WebSocket goes to the server, and whose QUIC goes to `quic`.
fn apart(server: &TestServer, quic: String) -> ClientBuilder {
    let url = format!("wss://{}/ws", server.http.expect("it serves HTTP"));
    let builder = Client::builder(quic).trust(Trust::CaFile(server.files.ca.clone())).websocket_url(&url);
    builder.expect("an address").settle(Duration::from_millis(50)).retry_quic(None)
}

/// An address that never answers.
fn nowhere() -> (std::net::UdpSocket, String) {
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").expect("a socket");
    let addr = silent.local_addr().expect("its address").to_string();
    (silent, addr)
}

#[tokio::test]
async fn a_websocket_carries_everything_if_quic_does_not_get_through() {
    let server = TestServer::start().await;
    let (_silent, quic) = nowhere();
    let ada = apart(&server, quic).name("Ada").expect("a name").compression(true).connect();
    let (ada, mut at_ada) = soon("a connection", ada).await.expect("it connects");
    let (bob, mut at_bob) = connect(&server, "Bob").await;
    assert_eq!((ada.carrier(), bob.carrier()), (Some(Carrier::WebSocket), Some(Carrier::Quic)));
    assert!(ada.stats().is_none() && bob.stats().is_some());

    assert_eq!(ada.echo("hello").await.expect("a reply"), "Echo: hello");
    let bytes = vec![7; 300_000];
    assert!(ada.echo_bytes(bytes.clone()).await.expect("a reply") == bytes, "300,000 bytes came back changed");
    ada.ping().await.expect("a pong");
    let listed = ada.list_clients().await.expect("a list");
    let own = listed.iter().find(|info| Some(info.id) == ada.id()).expect("it is there");
    assert_eq!((own.name.as_deref(), &*own.transport), (Some("Ada"), "websocket"));
    assert!(matches!(ada.open_lane().await, Err(ClientError::OneLane)));

    let mut room = ada.subscribe("chat.lobby").presence(true).await.expect("subscribed");
    let mut pattern = ada.subscribe("other.*").datagrams().await.expect("subscribed");
    publish(&bob, "chat.lobby", "from QUIC").await;
    publish(&ada, "chat.lobby", "from a WebSocket").await;
    publish(&bob, "other.a", "by a pattern").await;
    expect(&mut room, "from QUIC").await;
    expect(&mut room, "from a WebSocket").await;
    expect(&mut pattern, "by a pattern").await;
    assert_eq!(ada.history("chat.lobby").await.expect("a history").messages.len(), 2);

    bob.direct(ada.id().expect("an id"), Payload::text("to you")).await.expect("delivered");
    assert!(matches!(soon("a direct", at_ada.next()).await, Some(Event::Direct { .. })));
    ada.broadcast(Payload::text("to all")).await.expect("delivered");
    assert!(matches!(soon("a broadcast", at_bob.next()).await, Some(Event::Broadcast { .. })));

    // It reconnects the same way, with its subscriptions.
    let restart = Close::new(CloseCode::RESTART, "again").expect("a close");
    ada.send(&ClientMessage::Close(restart)).await.expect("sent");
    assert!(matches!(soon("its own broadcast", at_ada.next()).await, Some(Event::Broadcast { .. })));
    match soon("the loss", at_ada.next()).await {
        Some(Event::Disconnected(closed)) => {
            assert_eq!((closed.code, closed.reason.as_str()), (CloseCode::RESTART, "again"))
        }
        other => panic!("expected Disconnected, got {other:?}"),
    }
    publish(&bob, "chat.lobby", "meanwhile").await;
    assert!(matches!(soon("the way back", at_ada.next()).await, Some(Event::Reconnected)));
    expect(&mut room, "meanwhile").await;
    publish(&bob, "other.a", "again").await;
    expect(&mut pattern, "again").await;

    ada.close(CloseCode(4999), "enough").await.expect("it may be sent");
    match soon("the last event", at_ada.next()).await {
        Some(Event::Closed(closed)) => assert_eq!((closed.code, closed.reason.as_str()), (CloseCode(4999), "enough")),
        other => panic!("expected Closed, got {other:?}"),
    }
    until("the server's count", || server.status.connections() == 1).await;
    server.stop().await;
}

#[tokio::test]
async fn a_dropped_client_closes_its_websocket() {
    let server = TestServer::start().await;
    let (_silent, quic) = nowhere();
    let (ada, events) = apart(&server, quic).carriers([Carrier::WebSocket]).connect().await.expect("it connects");
    ada.echo("hello").await.expect("a reply");
    drop((ada, events));
    until("the server's count", || server.status.connections() == 0).await;
    server.stop().await;
}

#[tokio::test]
async fn a_client_on_a_websocket_moves_to_quic_without_loss_or_duplicates() {
    const COUNT: u64 = 400;
    let server = TestServer::start().await;
    let relay = Relay::start(server.addr, Link { loss: 0.0, delay: Duration::ZERO, seed: 1 }).await;
    relay.shut(true);
    let builder = apart(&server, relay.addr.to_string()).connect_timeout(Duration::from_secs(2));
    let connecting = builder.retry_quic(Some(Duration::from_millis(20))).name("Ada").expect("a name").connect();
    let (ada, mut at_ada) = soon("a connection", connecting).await.expect("it connects");
    assert_eq!(ada.carrier(), Some(Carrier::WebSocket));
    let (first_id, bob) = (ada.id(), client(&server, "Bob").await);
    let mut room = ada.subscribe("chat.lobby").await.expect("subscribed");
    let (said, moved) = (tokio::sync::watch::channel(0).0, tokio::sync::Notify::new());
    let talk = async {
        for n in 1..=COUNT {
            publish(&bob, "chat.lobby", n.to_string()).await;
            bob.broadcast(Payload::text(n.to_string())).await.expect("delivered");
            said.send_replace(n);
            if n == 50 {
                relay.shut(false);
            }
            if n == COUNT - 50 {
                soon("the move", moved.notified()).await;
            }
        }
    };
    let listen = async {
        for n in 1..=COUNT {
            expect(&mut room, &n.to_string()).await;
        }
    };
    let ask = async {
        while *said.borrow() < COUNT {
            assert_eq!(ada.echo("still there?").await.expect("a reply"), "Echo: still there?");
        }
    };
    let hear = async {
        let mut heard = 0;
        while heard < COUNT {
            match soon("an event", at_ada.next()).await {
                Some(Event::Broadcast { payload, .. }) => {
                    heard += 1;
                    assert_eq!(payload.content.as_deref(), Some(heard.to_string().as_str()), "each once, in order");
                }
                Some(Event::Moved) => moved.notify_one(),
                other => panic!("expected broadcasts and the move, got {other:?}"),
            }
        }
    };
    tokio::join!(talk, listen, ask, hear);
    assert_eq!(ada.carrier(), Some(Carrier::Quic));
    assert_ne!(ada.id(), first_id);
    until("the end of the WebSocket", || server.status.connections() == 2).await;
    server.stop().await;
}

#[tokio::test]
async fn while_the_websocket_still_owes_a_reply_quic_is_read_already() {
    let server = TestServer::start_with(|config| {
        config.topics = vec![rule("pattern = 'slow'\noverflow = 'block'")];
        config.limits.lane_backlog_messages = 4;
        config.timing.block_timeout_ms = 60_000;
    })
    .await;
    let relay = Relay::start(server.addr, Link { loss: 0.0, delay: Duration::ZERO, seed: 1 }).await;
    relay.shut(true);
    let builder = apart(&server, relay.addr.to_string()).connect_timeout(Duration::from_secs(2));
    let builder = builder.retry_quic(Some(Duration::from_millis(20))).request_timeout(Duration::from_secs(60));
    let (ada, mut at_ada) = soon("a connection", builder.connect()).await.expect("it connects");
    assert_eq!(ada.carrier(), Some(Carrier::WebSocket));

    // A publisher that waits for a subscriber that does not read.
    let bob = client(&server, "Bob").await;
    let unread = bob.subscribe("slow").queue(1).await.expect("subscribed");
    let (publisher, count) = (ada.clone(), Arc::new(AtomicU64::new(0)));
    let counted = Arc::clone(&count);
    let publishing = tokio::spawn(async move {
        while publisher.publish("slow", Payload::text("x".repeat(100_000))).await.is_ok() {
            counted.fetch_add(1, Ordering::Relaxed);
        }
    });
    let mut published = 0;
    while published == 0 || published != count.load(Ordering::Relaxed) {
        published = count.load(Ordering::Relaxed);
        tokio::time::sleep(Duration::from_secs(1)).await;
    }

    relay.shut(false);
    until("the move to QUIC", || ada.carrier() == Some(Carrier::Quic)).await;
    assert_eq!(ada.echo("over QUIC").await.expect("a reply"), "Echo: over QUIC");
    bob.broadcast(Payload::text("once")).await.expect("delivered");
    match soon("the broadcast", at_ada.next()).await {
        Some(Event::Broadcast { payload, .. }) => assert_eq!(payload, Payload::text("once")),
        other => panic!("the WebSocket has not brought its reply, and yet: {other:?}"),
    }
    drop(unread);
    assert!(matches!(soon("the end of the move", at_ada.next()).await, Some(Event::Moved)));
    bob.broadcast(Payload::text("and the next")).await.expect("delivered");
    match soon("the next broadcast", at_ada.next()).await {
        Some(Event::Broadcast { payload, .. }) => assert_eq!(payload, Payload::text("and the next")),
        other => panic!("expected the next broadcast, got {other:?}"),
    }
    publishing.abort();
    server.stop().await;
}

#[tokio::test]
async fn errors_and_refusals_are_reported_over_a_websocket_too() {
    let auth = asking("");
    let server = TestServer::start_with(|config| config.auth = auth).await;
    let (_silent, quic) = nowhere();
    let builder = apart(&server, quic.clone());
    match soon("an answer", builder.clone().connect()).await {
        Err(ClientError::Refused { code, .. }) => assert_eq!(code, CloseCode::UNAUTHORIZED),
        other => panic!("expected to be refused, got {other:?}"),
    }
    let stranger = tempfile::tempdir().expect("a folder");
    let other = quic_websocket::tls::DevelopmentFiles::inside(stranger.path());
    other.make(&["localhost".into()], false).expect("certificates");
    let error = builder.clone().trust(Trust::CaFile(other.ca)).connect().await.expect_err("another authority");
    assert!(
        matches!(error, ClientError::Untrusted { .. }) && error.to_string().contains("trust the authority"),
        "{error}"
    );

    let alone = builder.clone().carriers([Carrier::Quic]).connect_timeout(Duration::from_millis(100));
    assert!(matches!(alone.connect().await, Err(ClientError::NoAnswer { .. })));
    assert!(matches!(builder.carriers([]).connect().await, Err(ClientError::NoCarrier)));
    for wrong in ["ws://chat.example/ws", "https://127.0.0.1/ws", "127.0.0.1:4433"] {
        Client::builder(quic.clone()).websocket_url(wrong).expect_err("not safe, or no WebSocket");
    }
    server.stop().await;
}

#[tokio::test]
async fn a_client_can_start_before_its_server() {
    let server = TestServer::start().await;
    let (addr, keep) = (server.addr, tempfile::tempdir().expect("a folder"));
    let [cert, key, ca] = ["server.pem", "server-key.pem", "ca.pem"].map(|name| keep.path().join(name));
    for (from, to) in [(&server.files.cert, &cert), (&server.files.key, &key), (&server.files.ca, &ca)] {
        std::fs::copy(from, to).expect("kept");
    }
    let builder = builder(&server).trust(Trust::CaFile(ca)).connect_timeout(Duration::from_secs(1));
    server.stop().await;
    let patient = tokio::spawn(builder.clone().retry_first(true).connect());
    builder.clone().connect().await.expect_err("no server is running, and this client does not wait");
    let server = TestServer::start_with(|config| {
        config.addr = addr;
        (config.tls.cert, config.tls.key) = (cert, key);
    })
    .await;
    let (client, _events) = soon("a connection", patient).await.expect("no panic").expect("it connects");
    client.echo("hello").await.expect("a reply");

    // An error that retrying cannot fix is reported at once.
    let untrusting = builder.trust(Trust::System).retry_first(true).connect();
    let error = soon("an answer", untrusting).await.expect_err("its authority is unknown");
    assert!(matches!(error, ClientError::Untrusted { .. } | ClientError::Tls(_)), "{error}");
    server.stop().await;
}
