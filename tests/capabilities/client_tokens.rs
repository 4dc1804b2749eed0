//! The client library with a token: it is warned before the token expires, presents the next one, and reconnects with
//! it.

#![allow(clippy::expect_used, clippy::panic)] // A test fails by panicking.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::common::library::{builder, publish};
use crate::common::tokens::{asking, now, token};
use crate::common::{TestServer, soon, until};
use quic_websocket::message::{ClientMessage, Close, CloseCode};
use quic_websocket::{ClientError, Ended, Event, TopicEvent};
use serde_json::json;

async fn server() -> TestServer {
    let auth = asking("leeway_ms = 0");
    TestServer::start_with(|config| config.auth = auth).await
}

#[tokio::test]
async fn a_refreshed_token_outlives_the_first_one_and_the_connection() {
    let server = server().await;
    let exp = now() + 2;
    let first = token(json!({"exp": exp, "publish": "t"}));
    let connecting = builder(&server).token(&first).expect("a token").connect();
    let (client, mut events) = soon("a connection", connecting).await.expect("it connects");
    match soon("a warning", events.next()).await {
        Some(Event::Expiring { expires_at, .. }) => assert_eq!(expires_at, exp * 1000),
        other => panic!("expected to be warned, got {other:?}"),
    }
    let later = now() + 600;
    let second = token(json!({"exp": later, "publish": "t"}));
    let refreshed = soon("a reply", client.refresh(&second)).await.expect("it is taken");
    assert_eq!(refreshed, Some(later * 1000));
    until("the end of the first token", || now() > exp).await;
    publish(&client, "t", "still there").await;

    let restart = Close::new(CloseCode::RESTART, "again").expect("a close");
    client.send(&ClientMessage::Close(restart)).await.expect("it is sent");
    assert!(matches!(soon("the end", events.next()).await, Some(Event::Disconnected(_))));
    assert!(matches!(soon("the way back", events.next()).await, Some(Event::Reconnected)));
    publish(&client, "t", "back with the second one").await;
    server.stop().await;
}

#[tokio::test]
async fn a_refused_token_changes_nothing_and_an_expired_one_is_final() {
    let server = server().await;
    let connecting = builder(&server).token(&token(json!({"exp": now() + 2}))).expect("a token").connect();
    let (client, mut events) = soon("a connection", connecting).await.expect("it connects");
    for (bad, code) in [(token(json!({"exp": 1})), 401), (token(json!({"sub": "eve"})), 403)] {
        match client.refresh(&bad).await {
            Err(ClientError::Server(error)) => assert_eq!(error.code, code),
            other => panic!("expected {code}, got {other:?}"),
        }
    }
    client.refresh("no token\n").await.expect_err("it cannot be one");
    client.ping().await.expect("the first one holds on");
    loop {
        match soon("the end", events.next()).await {
            Some(Event::Expiring { .. }) => {}
            Some(Event::Closed(closed)) => break assert_eq!(closed.code, CloseCode::UNAUTHORIZED),
            other => panic!("expected to be closed for good, got {other:?}"),
        }
    }
    let again = builder(&server).token(&token(json!({"exp": 1}))).expect("a token").connect().await;
    match again.err() {
        Some(ClientError::Refused { code, reason, .. }) => {
            assert_eq!(code, CloseCode::UNAUTHORIZED);
            assert!(reason.contains("expired"), "{reason}");
        }
        other => panic!("expected to be refused, got {other:?}"),
    }
    server.stop().await;
}

#[tokio::test]
async fn a_token_callback_supplies_tokens_when_they_are_needed() {
    let server = server().await;
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    // The first token expires soon; the next call fails, and the one after that succeeds.
    let give = move || {
        let n = counted.fetch_add(1, Ordering::Relaxed);
        async move {
            match n {
                0 => Ok(format!(" {}\n", token(json!({"exp": now() + 3, "name": "Ada L", "publish": "t"})))),
                1 => Err("no luck".to_owned()),
                _ => Ok(token(json!({"exp": now() + 600, "name": "Ada L", "publish": "t"}))),
            }
        }
    };
    let connecting = builder(&server).token_from(give).connect();
    let (client, mut events) = soon("a connection", connecting).await.expect("it connects");
    assert_eq!((client.user().as_deref(), client.client_name().as_deref()), (Some("ada"), Some("Ada L")));
    let ends = client.expires_at().expect("it ends");
    let warned = soon("a warning", events.next()).await;
    assert!(matches!(warned, Some(Event::Expiring { .. })), "{warned:?}");
    until("the end of the first token", || now() * 1000 > ends).await;
    publish(&client, "t", "still there").await;
    assert_eq!(asked.load(Ordering::Relaxed), 3);

    let restart = Close::new(CloseCode::RESTART, "again").expect("a close");
    client.send(&ClientMessage::Close(restart)).await.expect("it is sent");
    assert!(matches!(soon("the end", events.next()).await, Some(Event::Disconnected(_))));
    assert!(matches!(soon("the way back", events.next()).await, Some(Event::Reconnected)));
    assert_eq!(asked.load(Ordering::Relaxed), 4, "once at each connect");
    server.stop().await;
}

#[tokio::test]
async fn a_refused_token_is_replaced_once_another_is_available() {
    let server = server().await;
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    // As with a file that has not been renewed yet: the first token is valid, the next two are not.
    let give = move || {
        let ends = if matches!(counted.fetch_add(1, Ordering::Relaxed), 1 | 2) { 1 } else { now() + 600 };
        async move { Ok::<_, String>(token(json!({"exp": ends}))) }
    };
    let connecting = builder(&server).token_from(give.clone()).connect();
    let (client, mut events) = soon("a connection", connecting).await.expect("it connects");
    let restart = Close::new(CloseCode::RESTART, "again").expect("a close");
    client.send(&ClientMessage::Close(restart)).await.expect("it is sent");
    assert!(matches!(soon("the end", events.next()).await, Some(Event::Disconnected(_))));
    assert!(matches!(soon("the way back", events.next()).await, Some(Event::Reconnected)));
    assert_eq!((asked.load(Ordering::Relaxed), client.user().as_deref()), (4, Some("ada")));

    // Failures of the first connection are returned to the caller, as always, unless configured otherwise.
    asked.store(1, Ordering::Relaxed);
    let refused = builder(&server).token_from(give.clone()).connect().await.err();
    assert!(matches!(refused, Some(ClientError::Refused { code: CloseCode::UNAUTHORIZED, .. })), "{refused:?}");
    let connecting = builder(&server).token_from(give).retry_first(true).connect();
    assert!(soon("a connection", connecting).await.is_ok());
    server.stop().await;
}

#[tokio::test]
async fn a_failing_token_callback_is_reported_and_called_again_if_requested() {
    let server = server().await;
    let error =
        builder(&server).token_from(|| async { Err("the file is gone") }).connect().await.expect_err("no token");
    assert!(matches!(&error, ClientError::Token { message, .. } if message == "the file is gone"), "{error}");
    let asked = AtomicUsize::new(0);
    let give = move || {
        let is_there = asked.fetch_add(1, Ordering::Relaxed) > 0;
        async move { if is_there { Ok(token(json!({}))) } else { Err("not yet") } }
    };
    let connecting = builder(&server).token_from(give).retry_first(true).connect();
    let (client, _) = soon("a connection", connecting).await.expect("it connects");
    assert_eq!(client.user().as_deref(), Some("ada"));
    server.stop().await;
}

#[tokio::test]
async fn a_subscription_that_is_no_longer_allowed_ends_with_the_reason() {
    let server = server().await;
    let connecting = builder(&server).token(&token(json!({"subscribe": "t"}))).expect("a token").connect();
    let (client, _events) = soon("a connection", connecting).await.expect("it connects");
    let mut subscription = client.subscribe("t").await.expect("subscribed");
    client.refresh(&token(json!({"subscribe": "other"}))).await.expect("it is taken");
    match soon("the end", subscription.next()).await {
        Some(TopicEvent::Ended(Ended::ByServer(error))) => assert_eq!(error.code, 403),
        other => panic!("expected the end, got {other:?}"),
    }
    server.stop().await;
}
