//! The client library against a scripted server, which does what a real one does only on a bad day.

#![allow(clippy::expect_used, clippy::panic)] // A test fails by panicking.

use std::time::Duration;

use crate::common::stage::Stage;
use crate::common::{library, soon};
use quic_websocket::message::{ClientMessage, CloseCode, Position};
use quic_websocket::{ClientError, Event};
use serde_json::{Value, json};

fn broadcast(content: &str) -> Value {
    json!({"type": "broadcast", "from": uuid::Uuid::nil(), "content": content, "timestamp": 1})
}

/// Connects a client, and returns the server's end as well.
macro_rules! connect {
    ($stage:expr, $builder:expr) => {{
        let (connected, played) = tokio::join!($builder.connect(), $stage.accept());
        let (client, events) = connected.expect("it connects");
        (client, events, played)
    }};
}

#[tokio::test]
async fn pings_are_answered_without_waiting_for_a_server_that_does_not_read() {
    let stage = Stage::with_window(1000);
    let (client, mut events, mut server) = connect!(stage, stage.builder());
    // Fills the stream, and blocks.
    let sender = client.clone();
    let blocked = tokio::spawn(async move { sender.echo_bytes(vec![0; 100_000]).await });
    let mut length = [0; 4];
    soon("the message's length", server.control.receive.read_exact(&mut length)).await.expect("it begins");
    for _ in 0..100 {
        server.control.say(json!({"type": "ping", "timestamp": 1})).await;
    }
    server.control.say(broadcast("still read")).await;
    let event = soon("the event after the pings", events.next()).await;
    assert!(matches!(event, Some(Event::Broadcast { .. })), "{event:?}");

    let mut body = vec![0; u32::from_be_bytes(length) as usize];
    soon("the rest of it", server.control.receive.read_exact(&mut body)).await.expect("it goes on");
    for _ in 0..100 {
        server.control.expect("pong").await;
    }
    server.connection.close(1000_u16.into(), b"");
    assert!(matches!(soon("the end", blocked).await.expect("no panic"), Err(ClientError::Lost)));
}

#[tokio::test]
async fn pending_calls_fail_at_once_when_the_connection_ends() {
    let stage = Stage::with_window(1000);
    let builder = stage.builder().reconnect(false).request_timeout(Duration::from_secs(600));
    let (client, mut events, mut server) = connect!(stage, builder);
    let (asks, sends) = (client.clone(), client.clone());
    let asked = tokio::spawn(async move { asks.echo("never answered").await });
    server.control.expect("text").await;
    let sent =
        tokio::spawn(async move { sends.send(&ClientMessage::Text { content: "x".repeat(100_000).into() }).await });
    let mut first = [0; 100];
    soon("the message's beginning", server.control.receive.read_exact(&mut first)).await.expect("it begins");
    server.control.say(json!({"type": "close", "code": 1001, "reason": "off"})).await;

    assert!(matches!(soon("the request's end", asked).await.expect("no panic"), Err(ClientError::Lost)));
    assert!(matches!(soon("the message's end", sent).await.expect("no panic"), Err(ClientError::Lost)));
    let event = soon("the last event", events.next()).await;
    assert!(matches!(&event, Some(Event::Closed(closed)) if closed.reason == "off"), "{event:?}");
}

#[tokio::test]
async fn the_last_event_arrives_even_if_the_others_were_not_read() {
    let stage = Stage::new();
    let (client, mut events, mut server) =
        connect!(stage, stage.builder().event_queue(1).request_timeout(Duration::from_secs(600)));
    for n in 0..50 {
        server.control.say(broadcast(&n.to_string())).await;
    }
    let closing = tokio::spawn(async move { client.close(CloseCode::NORMAL, "enough").await });
    server.control.expect("close").await;
    server.connection.close(1000_u16.into(), b"enough");
    soon("the close", closing).await.expect("no panic").expect("it may be sent");
    let mut seen = Vec::new();
    while let Some(event) = soon("the events", events.next()).await {
        seen.push(event);
    }
    assert!(matches!(seen.first(), Some(Event::Missed(49))), "{seen:?}");
    assert!(matches!(seen.get(1), Some(Event::Broadcast { .. })), "{seen:?}");
    assert!(matches!(seen.last(), Some(Event::Closed(closed)) if closed.code == CloseCode::NORMAL), "{seen:?}");
}

#[tokio::test]
async fn unread_events_delay_nothing() {
    let stage = Stage::new();
    let (client, mut events, mut server) = connect!(stage, stage.builder().event_queue(2));
    for n in 0..50 {
        server.control.say(broadcast(&n.to_string())).await;
    }
    let (echo, ()) = tokio::join!(client.echo("hi"), async {
        let asked = server.control.expect("text").await;
        server.control.say(json!({"type": "text", "re": asked["id"], "content": "still read"})).await;
    });
    assert_eq!(echo.expect("a reply"), "still read");
    assert!(matches!(events.try_next(), Some(Event::Missed(48))));
    // Also when used as a stream.
    let rest: Vec<_> = futures_util::StreamExt::collect(futures_util::StreamExt::take(&mut events, 2)).await;
    assert!(rest.iter().all(|event| matches!(event, Event::Broadcast { .. })), "{rest:?}");
}

#[tokio::test]
async fn a_late_reply_is_not_an_event() {
    let stage = Stage::new();
    let builder = stage.builder().request_timeout(Duration::from_millis(50));
    let (client, mut events, mut server) = connect!(stage, builder);
    let error = client.echo("slow").await.expect_err("no answer");
    assert!(matches!(error, ClientError::Timeout(_)), "{error}");
    let asked = server.control.expect("text").await;
    server.control.say(json!({"type": "text", "content": "late", "timestamp": 1, "re": asked["id"]})).await;
    server.control.say(broadcast("next")).await;
    let event = soon("the next event", events.next()).await;
    assert!(matches!(event, Some(Event::Broadcast { .. })), "{event:?}");
}

#[tokio::test]
async fn a_client_closed_while_reconnecting_stops() {
    let stage = Stage::new();
    // Longer than the test may take: nothing ends because of it.
    let (client, mut events, server) = connect!(stage, stage.builder().request_timeout(Duration::from_secs(600)));
    server.connection.close(1012_u16.into(), b"restart");
    stage.endpoint.set_server_config(None);
    let event = soon("the loss", events.next()).await;
    assert!(matches!(event, Some(Event::Disconnected(_))), "{event:?}");
    let waiting = client.clone();
    let waiting = tokio::spawn(async move { waiting.echo("meanwhile").await });
    soon("the close", client.close(CloseCode::NORMAL, "no matter")).await.expect("it may be sent");
    assert!(matches!(soon("the last event", events.next()).await, Some(Event::Closed(_))));
    assert!(events.next().await.is_none());
    assert!(matches!(soon("its end", waiting).await.expect("no panic"), Err(ClientError::Closed { .. })));
}

#[tokio::test]
async fn recent_messages_all_come_after_a_reconnect_however_offsets_jump() {
    let stage = Stage::new();
    let (client, _events, mut server) = connect!(stage, stage.builder());
    let answer = |asked: &Value, newest: u64| {
        let recovered = asked.get("since").map(|_| true);
        json!({"type": "subscribed", "re": asked["id"], "topic": "t", "epoch": "e", "offset": newest,
            "recovered": recovered})
    };
    let message = |offset: u64| {
        let content = offset.to_string();
        json!({"type": "message", "topic": "t", "offset": offset, "content": content, "timestamp": 1})
    };
    let (subscription, ()) = tokio::join!(client.subscribe("t").recent(3).open(), async {
        let asked = server.control.expect("subscribe").await;
        server.control.say(answer(&asked, 100)).await;
    });
    let mut t = subscription.expect("subscribed");
    // The connection is lost before any of them comes.
    server.connection.close(1012_u16.into(), b"restart");
    let mut server = stage.accept().await;
    let asked = server.control.expect("history").await;
    let since = json!({"epoch": "e", "offset": 101});
    assert_eq!((&asked["since"], &asked["limit"], &asked["reverse"]), (&since, &json!(3), &json!(true)));
    let page = [100, 70, 40].map(message);
    let page =
        json!({"type": "history", "re": asked["id"], "topic": "t", "epoch": "e", "messages": page, "more": true});
    server.control.say(page).await;
    let asked = server.control.expect("subscribe").await;
    assert_eq!(asked["since"], json!({"epoch": "e", "offset": 39}));
    server.control.say(answer(&asked, 130)).await;
    for offset in [40, 70, 100, 130] {
        server.control.say(message(offset)).await;
        library::expect(&mut t, &offset.to_string()).await;
    }
    assert_eq!(t.position(), Some(Position { epoch: "e".into(), offset: 130 }));
    server.connection.close(1012_u16.into(), b"restart");
    let mut server = stage.accept().await;
    let asked = server.control.expect("subscribe").await;
    assert_eq!(asked["since"], json!({"epoch": "e", "offset": 130}));
}
