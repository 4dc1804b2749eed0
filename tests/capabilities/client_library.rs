//! The client library against a real server: requests, lanes, errors, close, and reconnecting after a lost connection.

#![allow(clippy::expect_used, clippy::panic)] // A test fails by panicking.

use std::time::Duration;

use crate::common::library::{builder, connect};
use crate::common::stage::Stage;
use crate::common::{TestServer, soon, until};
use quic_websocket::message::{ClientMessage, CloseCode, Payload, ServerMessage};
use quic_websocket::tls::Trust;
use quic_websocket::{Carrier, Client, ClientError, Event, Events};

async fn next_event(events: &mut Events) -> Event {
    soon("an event", events.next()).await.expect("the client is open")
}

#[tokio::test]
async fn a_hundred_requests_at_once_each_get_their_own_reply() {
    let server = TestServer::start().await;
    let (client, _events) = connect(&server, "Ada").await;
    let mut requests = tokio::task::JoinSet::new();
    for n in 0..100 {
        let client = client.clone();
        requests.spawn(async move { (n, client.echo(&format!("request {n}")).await) });
    }
    for (n, echo) in requests.join_all().await {
        assert_eq!(echo.expect("a reply"), format!("Echo: request {n}"));
    }
    let bytes = vec![7; 300_000];
    assert!(client.echo_bytes(bytes.clone()).await.expect("a reply") == bytes, "300,000 bytes came back changed");
    assert!(client.ping().await.expect("a pong") < crate::common::PATIENCE);
    let stats = client.stats().expect("it is connected");
    assert!(stats.sent_bytes > 300_000 && stats.received_bytes > 300_000, "{stats:?}");
    server.stop().await;
}

#[tokio::test]
async fn clients_see_each_other_and_reach_each_other() {
    let server = TestServer::start().await;
    let (ada, mut at_ada) = connect(&server, "Ada").await;
    let (bob, mut at_bob) = connect(&server, "Bob").await;
    let names: Vec<_> = ada.list_clients().await.expect("a list").into_iter().filter_map(|c| c.name).collect();
    assert!(names.len() == 2 && names.contains(&"Bob".to_owned()), "{names:?}");

    assert_eq!(ada.broadcast("all").await.expect("delivered"), 2);
    ada.direct(bob.id().expect("an id"), Payload::binary("bytes")).await.expect("delivered");
    let data = serde_json::json!({"sdp": [1, null]});
    bob.signal(ada.id().expect("an id"), &data).await.expect("delivered");

    let heard = next_event(&mut at_bob).await;
    assert!(matches!(&heard, Event::Broadcast { from, payload, .. }
        if Some(from.id) == ada.id() && *payload == Payload::text("all")));
    let heard = next_event(&mut at_bob).await;
    assert!(matches!(&heard, Event::Direct { payload, .. } if *payload == Payload::binary("bytes")));
    assert!(matches!(next_event(&mut at_ada).await, Event::Broadcast { .. }));
    let heard = next_event(&mut at_ada).await;
    assert!(matches!(&heard, Event::Signal { data, .. } if data.as_str() == r#"{"sdp":[1,null]}"#), "{heard:?}");

    let nobody = uuid::Uuid::new_v4();
    match ada.direct(nobody, Payload::text("?")).await {
        Err(ClientError::Server(error)) => {
            assert_eq!(error.code, 404);
            assert!(error.message.contains(&nobody.to_string()), "{}", error.message);
        }
        other => panic!("expected error 404, got {other:?}"),
    }
    server.stop().await;
}

#[tokio::test]
async fn a_request_lane_answers_in_order() {
    let server = TestServer::start().await;
    let (client, _events) = builder(&server).compression(true).connect().await.expect("it connects");
    let mut lane = client.open_lane().await.expect("a lane");
    let mut sent = Vec::new();
    for n in 0..50 {
        let text = format!("{n} {}", "x".repeat(2000));
        sent.push((lane.send(&ClientMessage::Text { content: text.clone().into() }).await.expect("sent"), text));
    }
    for (id, text) in sent {
        let reply = soon("a reply", lane.receive()).await.expect("the lane lives").expect("a reply");
        assert_eq!(reply.re, Some(id));
        assert!(matches!(&reply.message, ServerMessage::Text { content, .. } if **content == *format!("Echo: {text}")));
    }
    let pong = lane.request(&ClientMessage::Ping { timestamp: Some(7) }).await.expect("a pong");
    assert!(matches!(pong, ServerMessage::Pong { timestamp: Some(7), .. }));
    lane.finish().await.expect("the server ends it too");
    client.echo("the others go on").await.expect("a reply");
    server.stop().await;
}

#[tokio::test]
async fn a_finished_lane_executes_all_its_requests() {
    let server = TestServer::start().await;
    let (ada, _events) = connect(&server, "Ada").await;
    let (bob, mut at_bob) = connect(&server, "Bob").await;
    let to = bob.id().expect("an id");
    let mut lane = ada.open_lane().await.expect("a lane");
    for n in 0..300 {
        let payload = Payload::text(format!("{n} {}", "x".repeat(1000)));
        lane.send(&ClientMessage::Direct { to: to.into(), payload }).await.expect("sent");
    }
    lane.finish().await.expect("the server ends it too");
    for n in 0..300 {
        let heard = next_event(&mut at_bob).await;
        assert!(
            matches!(&heard, Event::Direct { payload, .. }
                if payload.content.as_deref().is_some_and(|text| text.starts_with(&format!("{n} ")))),
            "message {n}: {heard:?}"
        );
    }
    server.stop().await;
}

#[tokio::test]
async fn a_dropped_call_leaves_its_lane_intact() {
    let server = TestServer::start().await;
    let (client, _events) = connect(&server, "Ada").await;
    let mut lane = client.open_lane().await.expect("a lane");
    let large = "x".repeat(900_000);
    for _ in 0..5 {
        // Polled once: the stream accepts what its window allows, and the rest is dropped.
        let echo = ClientMessage::Text { content: large.clone().into() };
        let dropped = tokio::time::timeout(Duration::ZERO, lane.request(&echo)).await;
        assert!(dropped.is_err(), "there can be no answer yet");
        let pong = soon("a pong", lane.request(&ClientMessage::Ping { timestamp: Some(7) })).await.expect("a pong");
        assert!(matches!(pong, ServerMessage::Pong { timestamp: Some(7), .. }));
    }
    // A lane dropped with half a message on it is the only one affected.
    let echo = ClientMessage::Text { content: large.into() };
    assert!(tokio::time::timeout(Duration::ZERO, lane.request(&echo)).await.is_err());
    drop(lane);
    client.echo("the others go on").await.expect("a reply");
    server.stop().await;
}

#[tokio::test]
async fn close_waits_for_the_server_and_is_the_last_event() {
    let server = TestServer::start().await;
    let (client, mut events) = connect(&server, "Ada").await;
    for (code, reason) in [(CloseCode(1006), "x"), (CloseCode(5000), "x"), (CloseCode::NORMAL, &*"x".repeat(124))] {
        let error = client.close(code, reason).await.expect_err("must not be sent");
        assert!(matches!(error, ClientError::Invalid(_)), "{error}");
    }
    client.echo("and it is as before").await.expect("a reply");
    client.close(CloseCode(4999), "enough").await.expect("it may be sent");
    match soon("the last event", events.next()).await {
        Some(Event::Closed(closed)) => assert_eq!((closed.code, closed.reason.as_str()), (CloseCode(4999), "enough")),
        other => panic!("expected Closed, got {other:?}"),
    }
    assert!(events.next().await.is_none());
    assert!(matches!(client.echo("late").await, Err(ClientError::Closed { code: CloseCode(4999), .. })));
    until("the server's count", || server.status.connections() == 0).await;
    server.stop().await;
}

#[tokio::test]
async fn dropping_the_last_handle_disconnects() {
    let server = TestServer::start().await;
    let (client, events) = connect(&server, "Ada").await;
    let clone = client.clone();
    drop(client);
    clone.echo("still here").await.expect("a reply");
    drop((clone, events));
    until("the server's count", || server.status.connections() == 0).await;
    server.stop().await;
}

#[tokio::test]
async fn a_client_reconnects_after_the_server_restarts() {
    let server = TestServer::start().await;
    let (client, mut events) = connect(&server, "Ada").await;
    let (addr, files) = (server.addr, server.files.clone());
    let (first_id, keep) = (client.id(), tempfile::tempdir().expect("a folder"));
    let [cert, key] = ["server.pem", "server-key.pem"].map(|name| keep.path().join(name));
    std::fs::copy(&files.cert, &cert).expect("kept");
    std::fs::copy(&files.key, &key).expect("kept");
    let pending = client.clone();
    server.stop().await;

    match soon("the news of the loss", events.next()).await {
        Some(Event::Disconnected(closed)) => assert_eq!(closed.code, CloseCode::GOING_AWAY),
        other => panic!("expected Disconnected, got {other:?}"),
    }
    // Requested without a connection: answered by the next one.
    let asked = tokio::spawn(async move { pending.echo("meanwhile").await });
    let server = TestServer::start_with(|config| {
        config.addr = addr;
        (config.tls.cert, config.tls.key) = (cert, key);
    })
    .await;
    assert!(matches!(soon("the way back", events.next()).await, Some(Event::Reconnected)));
    assert_eq!(soon("the reply", asked).await.expect("no panic").expect("a reply"), "Echo: meanwhile");
    assert_ne!(client.id(), first_id, "a new connection has a new id");
    assert_eq!(client.list_clients().await.expect("a list")[0].name.as_deref(), Some("Ada"));
    server.stop().await;
}

#[tokio::test]
async fn a_client_that_must_not_reconnect_reports_it() {
    let server = TestServer::start().await;
    let (client, mut events) = builder(&server).reconnect(false).connect().await.expect("it connects");
    server.drain();
    let event = soon("the end", events.next()).await;
    assert!(matches!(event, Some(Event::Closed(closed)) if closed.code == CloseCode::GOING_AWAY));
    assert!(matches!(client.echo("late").await, Err(ClientError::Closed { .. })));
    server.stop().await;
}

#[tokio::test]
async fn impossible_requests_fail_at_once_with_an_explanation() {
    let server = TestServer::start_with(|config| {
        config.limits.max_clients = 1;
        config.limits.max_message_bytes = 2000;
    })
    .await;
    let (client, _events) = connect(&server, "Ada").await;

    let error = builder(&server).connect().await.expect_err("the server is full");
    assert!(matches!(error, ClientError::Refused { code: CloseCode::TRY_LATER, .. }), "{error}");

    let error = client.echo(&"x".repeat(3000)).await.expect_err("above the limit");
    assert!(matches!(error, ClientError::TooLarge { most: 2000, .. }), "{error}");
    client.echo("and the connection lives on").await.expect("a reply");

    let stranger = tempfile::tempdir().expect("a folder");
    let other = quic_websocket::tls::DevelopmentFiles::inside(stranger.path());
    other.make(&["localhost".into()], false).expect("certificates");
    let error = builder(&server).trust(Trust::CaFile(other.ca)).connect().await.expect_err("another authority");
    assert!(
        matches!(error, ClientError::Untrusted { .. }) && error.to_string().contains("trust the authority"),
        "{error}"
    );

    for address in ["nonsense", "127.0.0.1:99999"] {
        let error = Client::builder(address).trust(Trust::Insecure).connect().await.expect_err("no address");
        assert!(matches!(error, ClientError::Address { .. }), "{address}: {error}");
    }
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").expect("a socket");
    let nobody = silent.local_addr().expect("its address").to_string();
    let error = Client::builder(nobody)
        .trust(Trust::Insecure)
        .connect_timeout(Duration::from_millis(200))
        .connect()
        .await
        .expect_err("no answer");
    assert!(matches!(error, ClientError::NoAnswer { .. }), "{error}");
    server.stop().await;
}

#[tokio::test]
async fn a_client_that_only_listens_answers_pings_by_itself() {
    let server = TestServer::start_with(|config| {
        config.timing.ping_interval_ms = 50;
        config.timing.ping_timeout_ms = 2000;
    })
    .await;
    let (client, mut events) = connect(&server, "Ada").await;
    let quiet = tokio::time::timeout(Duration::from_millis(500), events.next()).await;
    assert!(quiet.is_err(), "pings are no events, and nothing else happened: {quiet:?}");
    client.echo("still here").await.expect("a reply");
    server.stop().await;
}

#[tokio::test]
async fn the_hint_about_a_certificate_depends_on_its_problem() {
    let made = |names: &[&str], from: i32, until: i32| {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        move |files: &quic_websocket::tls::DevelopmentFiles| {
            let mut params = rcgen::CertificateParams::new(names).expect("names");
            (params.not_before, params.not_after) =
                (rcgen::date_time_ymd(from, 1, 1), rcgen::date_time_ymd(until, 1, 1));
            let key = rcgen::KeyPair::generate().expect("a key");
            let certificate = params.self_signed(&key).expect("a certificate");
            std::fs::write(&files.cert, certificate.pem()).expect("written");
            std::fs::write(&files.ca, certificate.pem()).expect("written");
            std::fs::write(&files.key, key.serialize_pem()).expect("written");
        }
    };
    for (names, from, until, what, hint) in [
        (&["127.0.0.1"], 2001, 2002, "expired", "needs a new one"),
        (&["127.0.0.1"], 2900, 2901, "not valid yet", "clock"),
        (&["chat.example"], 2001, 2901, "not valid for name", "connect by a name"),
    ] {
        let stage = Stage::showing(made(names, from, until));
        let connecting = stage.builder().carriers([Carrier::Quic]).connect();
        let connecting = tokio::spawn(connecting);
        let incoming = soon("a connection", stage.endpoint.accept()).await.expect("the endpoint lives");
        let error = tokio::select! {
            error = connecting => error.expect("no panic").expect_err("it is not trusted"),
            () = async { let _ = incoming.await; std::future::pending().await } => unreachable!("it waits"),
        };
        let said = error.to_string();
        assert!(matches!(error, ClientError::Untrusted { .. }), "{said}");
        assert!(said.contains(what) && said.contains(hint) && !said.contains("trust the authority"), "{said}");
    }
}
