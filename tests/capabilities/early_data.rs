//! Early data (docs/PROTOCOL.md, section 14): harmless requests are answered at once; everything else waits until the
//! client is confirmed, and is executed once. A copy of a first flight has no effect.

#![allow(clippy::expect_used, clippy::panic)] // A test fails by panicking.

use crate::common::packets::has_early_data;
use crate::common::tap::Tap;
use crate::common::tokens::asking;
use crate::common::{RawClient, TestServer, framed, soon, until};
use quic_websocket::config::{OverflowPolicy, TopicRule};
use quic_websocket::message::{ClientMessage, Close, CloseCode, TopicPattern};
use quic_websocket::tls::{DevelopmentFiles, Trust};
use quic_websocket::{Client, Config, Event, Events};
use quinn::{ConnectionError, Endpoint, ZeroRttAccepted};
use serde_json::{Value, json};
use tokio::net::UdpSocket;

fn allowing(config: &mut Config) {
    config.quic.early_data = true;
}

/// A client that has sent these messages as early data, and nothing else; the first is its handshake.
async fn early(endpoint: &Endpoint, tap: &Tap, messages: &[Value]) -> (RawClient, ZeroRttAccepted) {
    let (connection, accepted) = soon("a session to resume", async {
        loop {
            match endpoint.connect(tap.addr, "localhost").expect("it begins").into_0rtt() {
                Ok(early) => return early,
                // Session tickets arrive after the handshake.
                Err(connecting) => {
                    let connection = connecting.await.expect("it connects");
                    let mut client = RawClient::over(connection).await;
                    client.handshake("first visit").await;
                    client.connection.close(1000_u32.into(), b"");
                    // Its last packets must not be mistaken for the first ones of the next connection.
                    endpoint.wait_idle().await;
                }
            }
        }
    })
    .await;
    tap.hold();
    tap.take_seen();
    let mut client = RawClient::over(connection).await;
    let all: Vec<u8> = messages.iter().flat_map(|message| framed(message.to_string().as_bytes())).collect();
    client.control.raw(&all).await;
    until("the first flight", || {
        let sent = client.connection.stats();
        sent.frame_tx.stream > 0 && sent.udp_tx.datagrams == tap.count()
    })
    .await;
    (client, accepted)
}

fn handshake(name: &str) -> Value {
    json!({"type": "handshake", "protocol_version": "1.0", "client_name": name})
}

fn subscribe(topic: &str) -> Value {
    json!({"type": "subscribe", "id": "sub", "topic": topic, "presence": true, "lane": "control"})
}

/// Requests that affect others, and their results for `witness`.
fn effects(witness: &RawClient) -> Vec<Value> {
    vec![
        json!({"type": "publish", "id": "pub", "topic": "room", "content": "published"}),
        json!({"type": "direct", "id": "dir", "to": witness.id, "content": "direct"}),
        json!({"type": "broadcast", "id": "all", "content": "broadcast"}),
        json!({"type": "request", "id": "ask", "to": witness.id, "content": "request"}),
    ]
}

/// A client that receives everything on its control lane.
async fn witness(server: &TestServer) -> RawClient {
    let mut witness = server.stranger().await;
    witness.handshake_with(json!({"type": "handshake", "protocol_version": "1.0", "requests": true})).await;
    witness.control.say(subscribe("room")).await;
    witness.control.expect("subscribed").await;
    witness
}

/// Checks the messages that the witness gets from one client that used early data for every request.
async fn expect_effects(witness: &mut RawClient) {
    let mut heard = Vec::new();
    for _ in 0..5 {
        heard.push(witness.control.hear().await["type"].as_str().expect("a type").to_owned());
    }
    heard.sort();
    assert_eq!(heard, ["broadcast", "direct", "join", "message", "request"]);
    witness.control.lives("a client that received everything once").await;
}

#[tokio::test]
async fn harmless_requests_are_answered_early_and_all_others_executed_once_later() {
    let server = TestServer::start_with(allowing).await;
    let tap = Tap::start(server.addr).await;
    let endpoint = server.endpoint();
    let mut witness = witness(&server).await;
    let mut messages = vec![
        handshake("Ada"),
        subscribe("room"),
        json!({"type": "list_clients", "id": "list"}),
        json!({"type": "presence", "id": "who", "topic": "room"}),
        json!({"type": "ping", "id": "ping"}),
    ];
    messages.extend(effects(&witness));
    let (mut ada, accepted) = early(&endpoint, &tap, &messages).await;
    until("the first visits to be over", || server.status.clients() == 1).await;
    let others = 1;

    // The first flight arrives, the second does not: the server cannot know whether the client is real.
    tap.pass().await;
    ada.control.expect("handshake_response").await;
    assert_eq!(ada.control.expect("subscribed").await["re"], "sub");
    assert_eq!(ada.control.expect("client_list").await["total"], others, "she is not there yet");
    assert_eq!(ada.control.expect("presence").await["total"], 1, "nor on the topic");
    assert_eq!(ada.control.expect("pong").await["re"], "ping");
    witness.control.lives("a client that received nothing").await;
    witness.control.say(json!({"type": "broadcast", "id": 1, "content": "to all"})).await;
    witness.control.expect("broadcast").await;
    assert_eq!(witness.control.expect("ok").await["delivered"], others, "nor is she counted");
    assert_eq!(server.status.clients(), others);

    tap.open().await;
    assert!(soon("the confirmation", accepted).await, "the early data was taken");
    expect_effects(&mut witness).await;
    until("her to be there", || server.status.clients() == others + 1).await;
    let mut replies = Vec::new();
    while replies.len() < 3 {
        let message = ada.control.hear().await;
        if let Some(re) = message["re"].as_str() {
            assert_ne!(message["type"], "error", "{message}");
            replies.push(re.to_owned());
        }
    }
    assert_eq!(replies, ["pub", "dir", "all"], "in the order in which they were asked");
    server.stop().await;
}

#[tokio::test]
async fn subscriptions_of_the_server_begin_once_the_client_is_confirmed() {
    let server = TestServer::start_with(|config| {
        allowing(config);
        config.auth = asking("[anonymous]\nsubscriptions = ['room']\npublish = 'room'");
        config.limits.topic_lanes = 0;
    })
    .await;
    let tap = Tap::start(server.addr).await;
    let endpoint = server.endpoint();
    let mut hello = handshake("Ada");
    hello["since"] = json!({"room": {"epoch": "none", "offset": 0}});
    let own = json!({"type": "subscribe", "id": "sub", "topic": "room"});
    let (mut ada, accepted) = early(&endpoint, &tap, &[hello, own]).await;
    tap.pass().await;
    assert_eq!(ada.control.expect("handshake_response").await["subscriptions"], json!(["room"]));
    // The place is taken, and nothing else has happened.
    ada.control.expect_error(409).await;
    tap.open().await;
    assert!(soon("the confirmation", accepted).await, "the early data was taken");
    let made = ada.control.expect("subscribed").await;
    assert_eq!((&made["by"], &made["recovered"]), (&json!("server"), &json!(false)), "{made}");
    ada.control.say(json!({"type": "publish", "topic": "room", "content": "x"})).await;
    assert_eq!(ada.control.expect("message").await["content"], "x");
    server.stop().await;
}

#[tokio::test]
async fn a_client_that_resumes_its_session_in_early_data_is_back_once_it_is_confirmed() {
    for state in [None, Some(json!("new"))] {
        let server = TestServer::start_with(|config| {
            allowing(config);
            config.topics = vec![toml::from_str("pattern = 'room'\npresence_grace_ms = 600000").expect("a rule")];
        })
        .await;
        let tap = Tap::start(server.addr).await;
        let endpoint = server.endpoint();
        let mut witness = witness(&server).await;
        let mut ada = server.stranger().await;
        let session = ada.handshake("Ada").await["session"].clone();
        ada.control.say(json!({"type": "subscribe", "topic": "room", "state": "old"})).await;
        assert_eq!(witness.control.expect("join").await["client"]["id"], ada.id);
        let was = ada.id.clone();
        ada.connection.close(0_u32.into(), b"");
        assert_eq!(witness.control.expect("state").await["client"]["away"], true);

        let mut hello = handshake("Ada");
        hello["resume"] = session;
        let mut wanted = subscribe("room");
        wanted["state"] = json!(state);
        let (mut ada, accepted) = early(&endpoint, &tap, &[hello, wanted]).await;
        tap.pass().await;
        ada.control.expect("handshake_response").await;
        // A copy of its packets must not be able to show anything, so that waits.
        if state.is_none() {
            ada.control.expect("subscribed").await;
        }
        witness.control.say(json!({"type": "presence", "topic": "room"})).await;
        let members = witness.control.expect("presence").await;
        let listed = members["clients"].as_array().expect("a list").iter().find(|member| member["id"] == was);
        assert_eq!(listed.expect("it is still away")["away"], true);

        tap.open().await;
        assert!(soon("the confirmation", accepted).await, "the early data was taken");
        let back = witness.control.expect("return").await;
        assert_eq!((&back["was"], &back["client"]["name"]), (&json!(was), &json!("Ada")));
        assert_eq!(back["client"]["state"], state.clone().unwrap_or(json!("old")));
        if state.is_some() {
            ada.control.expect("subscribed").await;
        }
        server.stop().await;
    }
}

#[tokio::test]
async fn a_datagram_in_early_data_waits() {
    let server = TestServer::start_with(allowing).await;
    let tap = Tap::start(server.addr).await;
    let endpoint = server.endpoint();
    let mut witness = witness(&server).await;
    let (mut ada, accepted) = early(&endpoint, &tap, &[handshake("Ada")]).await;
    let direct = json!({"type": "direct", "to": witness.id, "content": "direct"});
    ada.connection.send_datagram(direct.to_string().into()).expect("a datagram leaves");
    until("it to be under way", || {
        let sent = ada.connection.stats();
        sent.frame_tx.datagram == 1 && sent.udp_tx.datagrams == tap.count()
    })
    .await;
    tap.pass().await;
    ada.control.expect("handshake_response").await;
    witness.control.lives("a client that received nothing").await;
    tap.open().await;
    soon("the confirmation", accepted).await;
    assert_eq!(witness.control.expect("direct").await["content"], "direct");
    server.stop().await;
}

#[tokio::test]
async fn a_subscription_that_answers_requests_waits_until_the_client_is_confirmed() {
    let server = TestServer::start_with(allowing).await;
    let tap = Tap::start(server.addr).await;
    let endpoint = server.endpoint();
    let mut witness = witness(&server).await;
    let mut offer = subscribe("sum");
    offer["requests"] = json!(true);
    let (mut ada, accepted) = early(&endpoint, &tap, &[handshake("Ada"), offer]).await;
    tap.pass().await;
    ada.control.expect("handshake_response").await;
    let request = json!({"type": "request", "id": 1, "topic": "sum", "data": 1});
    witness.control.say(request.clone()).await;
    witness.control.expect_error(404).await;
    tap.open().await;
    soon("the confirmation", accepted).await;
    ada.control.expect("subscribed").await;
    witness.control.say(request).await;
    assert_eq!(ada.control.expect("request").await["data"], 1);
    server.stop().await;
}

#[tokio::test]
async fn a_unidirectional_stream_in_early_data_closes_the_connection() {
    let server = TestServer::start_with(allowing).await;
    let tap = Tap::start(server.addr).await;
    let endpoint = server.endpoint();
    let mut witness = witness(&server).await;
    let (ada, accepted) = early(&endpoint, &tap, &[handshake("Ada")]).await;
    let mut stream = soon("a stream", ada.connection.open_uni()).await.expect("a stream");
    stream.write_all(b"x").await.expect("the stream takes bytes");
    tap.open().await;
    soon("the confirmation, or the end", accepted).await;
    match soon("the server's close", ada.connection.closed()).await {
        ConnectionError::ApplicationClosed(close) => assert_eq!(close.error_code.into_inner(), 1002),
        // If the server is faster than the confirmation, QUIC withholds the code (RFC 9000 section 10.2.3).
        ConnectionError::ConnectionClosed(close) => assert_eq!(u64::from(close.error_code), 0x0c),
        other => panic!("expected the server to close, got {other}"),
    }
    witness.control.lives("a client that received nothing").await;
    server.stop().await;
}

#[tokio::test]
async fn an_unconfirmed_client_delays_no_publisher_and_takes_no_place() {
    let server = TestServer::start_with(|config| {
        allowing(config);
        config.limits.max_clients = 2;
        let mut rule = TopicRule::default();
        rule.pattern = TopicPattern::new("held.>").expect("a pattern");
        rule.overflow = OverflowPolicy::Block;
        config.topics = vec![rule];
    })
    .await;
    let tap = Tap::start(server.addr).await;
    let endpoint = server.endpoint();
    let mut witness = witness(&server).await;
    let ping = json!({"type": "ping", "id": "ping"});
    let messages = [handshake("Ada"), ping.clone(), subscribe("held.back"), ping];
    let (mut ada, accepted) = early(&endpoint, &tap, &messages).await;
    until("the first visits to be over", || server.status.connections() == 1).await;
    tap.pass().await;
    ada.control.expect("handshake_response").await;
    ada.control.expect("pong").await;

    let mut bob = server.client("Bob").await;
    bob.control.say(json!({"type": "publish", "id": 1, "topic": "held.back", "content": "not held up"})).await;
    bob.control.expect("published").await;
    witness.control.lives("a served client").await;
    tap.open().await;
    assert!(soon("the confirmation", accepted).await, "the early data was taken");
    // Bob was first. If her subscription had not waited, its reply would be before this.
    ada.expect_close(1013).await;
    bob.control.lives("the client with the place").await;
    server.stop().await;
}

/// Sends copies of packets from separate addresses, so that each worker gets some; returns the sockets.
async fn replay(server: &TestServer, packets: &[Vec<u8>]) -> Vec<UdpSocket> {
    let mut sockets = Vec::new();
    for _ in 0..8 {
        let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a socket");
        for packet in packets {
            socket.send_to(packet, server.addr).await.expect("it leaves");
        }
        sockets.push(socket);
    }
    sockets
}

#[tokio::test]
async fn a_copy_of_a_first_flight_that_never_arrived_has_no_effect() {
    let server = TestServer::start_with(|config| {
        allowing(config);
        config.timing.handshake_timeout_ms = 1500;
    })
    .await;
    let tap = Tap::start(server.addr).await;
    let endpoint = server.endpoint();
    let mut witness = witness(&server).await;
    let messages = [vec![handshake("Ada"), subscribe("room")], effects(&witness)].concat();
    let (ada, _accepted) = early(&endpoint, &tap, &messages).await;
    let flight = tap.take_seen();
    assert!(flight.iter().any(|packet| has_early_data(packet)), "there is something to repeat");
    tap.lose();
    until("the first visits to be over", || server.status.connections() == 1).await;
    let before = (1, 1);

    let sockets = replay(&server, &flight).await;
    // A connection is counted once its first lane is open: the server has accepted the early data, of one copy only.
    until("a copy to be taken", || server.status.connections() > before.1).await;
    assert_eq!(server.status.connections(), before.1 + 1, "a session is good once");
    witness.control.lives("a client that received nothing").await;
    until("the copy to be given up", || server.status.connections() == before.1).await;
    witness.control.lives("a client that received nothing to the end").await;
    assert_eq!(server.status.clients(), before.0, "no client resulted");
    drop((sockets, ada));
    server.stop().await;
}

#[tokio::test]
async fn a_copy_of_a_first_flight_that_was_served_has_no_effect() {
    let server = TestServer::start_with(|config| {
        allowing(config);
        config.timing.handshake_timeout_ms = 1500;
    })
    .await;
    let tap = Tap::start(server.addr).await;
    let endpoint = server.endpoint();
    let mut witness = witness(&server).await;
    let messages = [vec![handshake("Ada"), subscribe("room")], effects(&witness)].concat();
    let (ada, accepted) = early(&endpoint, &tap, &messages).await;
    let flight = tap.take_seen();
    tap.open().await;
    assert!(soon("the confirmation", accepted).await, "the early data was taken");
    expect_effects(&mut witness).await;
    until("the first visits to be over", || server.status.connections() == 2).await;
    let before = (2, 2);

    let sockets = replay(&server, &flight).await;
    // On the worker that does not have the original, a copy starts a connection, and gets no further.
    let answers =
        sockets.iter().map(|socket| Box::pin(async move { socket.recv(&mut [0; 2000]).await.expect("an answer") }));
    soon("an answer to a copy", futures_util::future::select_all(answers)).await;
    witness.control.lives("a client that received nothing more").await;
    assert_eq!((server.status.clients(), server.status.connections()), before);
    drop(ada);
    server.stop().await;
}

#[tokio::test]
async fn a_subscription_in_early_data_gets_less_if_it_asks_for_that() {
    let server = TestServer::start_with(allowing).await;
    let tap = Tap::start(server.addr).await;
    let endpoint = server.endpoint();
    let mut witness = witness(&server).await;
    let publish = |meta: Value| json!({"type": "publish", "id": "pub", "topic": "room", "content": "", "meta": meta});
    for meta in [json!({"n": 1}), json!({"n": 2}), json!({})] {
        witness.control.say(publish(meta)).await;
    }
    let mut wanted = subscribe("room");
    (wanted["recent"], wanted["filter"], wanted["echo"]) = (json!(3), json!({"n": 2}), json!(false));
    let (mut ada, accepted) = early(&endpoint, &tap, &[handshake("Ada"), wanted, publish(json!({"n": 2}))]).await;
    tap.pass().await;
    ada.control.expect("handshake_response").await;
    assert_eq!(ada.control.expect("subscribed").await["offset"], 3);
    assert_eq!(ada.control.expect("message").await["offset"], 2);
    tap.open().await;
    assert!(soon("the confirmation", accepted).await, "the early data was taken");
    assert_eq!(ada.control.expect("published").await["offset"], 4);
    for n in [1, 2] {
        witness.control.say(publish(json!({"n": n}))).await;
    }
    assert_eq!(ada.control.expect("message").await["offset"], 6, "neither its own nor one that does not match");
    server.stop().await;
}

#[tokio::test]
async fn early_data_is_refused_unless_enabled() {
    let server = TestServer::start().await;
    let endpoint = server.endpoint();
    for _ in 0..3 {
        let connecting = endpoint.connect(server.addr, "localhost").expect("it begins");
        let Err(connecting) = connecting.into_0rtt() else { panic!("a session allows for early data") };
        let mut client = RawClient::over(soon("a connection", connecting).await.expect("it connects")).await;
        client.handshake("Ada").await;
        // The session ticket has arrived by then.
        client.control.lives("a served client").await;
    }
    server.stop().await;
}

/// Makes the server end the connection with a code that allows reconnecting, and waits until it has.
async fn come_back(client: &Client, events: &mut Events) {
    let close = Close::new(CloseCode::GOING_AWAY, "").expect("a code that a client may send");
    client.send(&ClientMessage::Close(close)).await.expect("it leaves");
    wait_for_return(events).await;
}

async fn wait_for_return(events: &mut Events) {
    soon("the client to come back", async {
        loop {
            match events.next().await.expect("an event") {
                Event::Reconnected => return,
                Event::Closed(closed) => panic!("closed for good: {closed:?}"),
                _ => {}
            }
        }
    })
    .await;
}

#[tokio::test]
async fn the_client_library_reconnects_with_early_data_and_without_if_it_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let files = DevelopmentFiles::inside(folder.path());
    files.make(&["localhost".into(), "127.0.0.1".into()], false).expect("certificates");
    let known = |config: &mut Config| {
        (config.tls.cert, config.tls.key) = (files.cert.clone(), files.key.clone());
        allowing(config);
    };
    let server = TestServer::start_with(known).await;
    let tap = Tap::start(server.addr).await;
    let builder = Client::builder(tap.addr.to_string()).trust(Trust::CaFile(files.ca.clone())).early_data(true);
    let (client, mut events) = builder.connect().await.expect("it connects");
    client.echo("first").await.expect("it is served");
    for visit in ["second", "third"] {
        tap.take_seen();
        come_back(&client, &mut events).await;
        client.echo(visit).await.expect("it is served");
        assert!(tap.take_seen().iter().any(|packet| has_early_data(packet)), "{visit}");
    }

    // The next server does not know these sessions.
    let next = TestServer::start_with(known).await;
    tap.turn_to(next.addr);
    server.stop().await;
    soon("the way back", async {
        wait_for_return(&mut events).await;
        client.echo("elsewhere").await.expect("it is served");
    })
    .await;
    assert_eq!(next.status.clients(), 1);
    next.stop().await;
}
