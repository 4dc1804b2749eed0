//! Limits per address on connections and handshakes, and on handshakes in total: above them, clients are refused until
//! there is room.

#![allow(clippy::expect_used, clippy::panic)] // A test fails by panicking.

use std::net::IpAddr;
use std::time::Duration;

use crate::common::library;
use crate::common::limits::{limited, refusal};
use crate::common::over::{Over, Party};
use crate::common::packets::{Answer, begin_only};
use crate::common::{TestServer, soon, until, web_socket};
use quic_websocket::config::Rates;
use quic_websocket::message::{ClientMessage, Close, CloseCode};
use quic_websocket::{ClientError, Event};
use quinn::{ConnectionError, TransportErrorCode};
use serde_json::json;
use tokio::io::AsyncReadExt;
use tokio_tungstenite::tungstenite::Error;

/// Tries to connect, without a message; returns whether that succeeded.
async fn knocks(server: &TestServer) -> bool {
    let connecting = server.endpoint().connect(server.addr, "localhost").expect("a connection begins");
    match soon("an answer", connecting).await {
        Ok(_) => true,
        Err(ConnectionError::ConnectionClosed(close)) => {
            assert_eq!(close.error_code, TransportErrorCode::CONNECTION_REFUSED);
            false
        }
        Err(other) => panic!("expected to be let in or refused, got {other:?}"),
    }
}

#[tokio::test]
async fn one_connection_too_many_from_an_address_gets_an_error_and_places_become_free_again() {
    let server = limited(|rates| rates.address_connections = 2).await;
    let (mut ada, mut bob) = (server.client("Ada").await, server.client("Bob").await);
    for over in Over::ALL {
        let mut late = over.newcomer(&server).await;
        late.control.say(json!({"type": "handshake", "id": 1, "protocol_version": "1.0"})).await;
        refusal(&late.control.hear().await, 1);
        late.expect_close(4429).await;
    }
    assert_eq!(server.status.clients(), 2);
    ada.control.lives("a client with a place").await;
    bob.control.say(json!({"type": "close"})).await;
    bob.closed().await;
    until("the others to be gone", || server.status.connections() == 1).await;
    for over in Over::ALL {
        let mut cid = over.party(&server, "Cid").await;
        cid.control.lives("the client in Bob's place").await;
        cid.control.say(json!({"type": "close"})).await;
        cid.closed().await;
        until("Cid to be gone", || server.status.connections() == 1).await;
    }
    server.stop().await;
}

#[tokio::test]
async fn a_silent_connection_without_a_place_is_closed_soon() {
    let server = TestServer::start_with(|config| {
        config.rates.loopback = true;
        config.rates.address_connections = 1;
        config.timing.close_timeout_ms = 50;
        config.timing.handshake_timeout_ms = 60_000;
    })
    .await;
    let mut client = server.client("Ada").await;
    let mut silent = server.stranger().await;
    // A stream becomes known only once something is sent on it.
    silent.control.raw(&[0]).await;
    assert_eq!(silent.closed().await.0, 4408);
    assert_eq!(Over::WebSocket.newcomer(&server).await.closed().await.0, 4408);
    client.control.lives("the client with the place").await;
    server.stop().await;
}

#[tokio::test]
async fn handshakes_from_one_address_above_the_rate_are_refused_until_time_has_passed() {
    let server = limited(|rates| (rates.address_handshakes, rates.address_handshakes_burst) = (2, 4)).await;
    let mut neighbour = server.client("neighbour").await;
    let mut let_in = 0;
    while knocks(&server).await {
        let_in += 1;
    }
    assert!(let_in >= 3, "{let_in} of a burst of four, of which the neighbour has one");
    // TCP handshakes count as well.
    let addr = server.http.expect("it serves HTTP");
    let mut late = web_socket::connect(addr).await;
    assert!(soon("the end", late.read_u8()).await.is_err(), "one more is not served");
    neighbour.control.lives("an accepted client").await;
    tokio::time::sleep(Duration::from_millis(501)).await;
    assert!(knocks(&server).await, "two are let in each second");
    server.stop().await;
}

#[tokio::test]
async fn handshakes_from_all_addresses_above_the_rate_are_refused_until_time_has_passed() {
    let server = limited(|rates| (rates.handshakes, rates.handshakes_burst) = (2, 3)).await;
    let mut let_in = 0;
    while knocks(&server).await {
        let_in += 1;
    }
    assert!(let_in >= 3, "{let_in} of a burst of three");
    tokio::time::sleep(Duration::from_millis(501)).await;
    assert!(knocks(&server).await, "two are let in each second");
    server.stop().await;
}

#[tokio::test]
async fn forged_addresses_use_up_no_share_if_addresses_are_validated() {
    let server = TestServer::start_with(|config| {
        config.limits.retry_handshakes = 0;
        config.rates.loopback = true;
        (config.rates.address_handshakes, config.rates.address_handshakes_burst) = (1, 2);
    })
    .await;
    let attacker = server.endpoint();
    for n in 0..20 {
        assert_eq!(begin_only(&attacker, server.addr).await, Answer::Retry, "packet {n}");
    }
    server.client("Ada").await.control.lives("a client with a validated address").await;
    server.stop().await;
}

#[tokio::test]
async fn the_client_library_reports_too_many_connections() {
    let server = limited(|rates| rates.address_connections = 1).await;
    let first = library::client(&server, "first").await;
    match library::builder(&server).connect().await {
        Err(error @ ClientError::Refused { code: CloseCode::RATE_LIMITED, .. }) => {
            assert!(error.retry_after().is_some_and(|wait| !wait.is_zero()), "{error:?}");
        }
        other => panic!("expected to be refused, got {other:?}"),
    }
    first.ping().await.expect("the client with the place is served");
    server.stop().await;
}

#[tokio::test]
async fn the_client_library_reconnects_after_a_refused_connection() {
    let server = limited(|rates| (rates.address_handshakes, rates.address_handshakes_burst) = (2, 1)).await;
    let (client, mut events) = library::connect(&server, "Ada").await;
    // Another client uses up the handshakes allowed to the address, so that the first reconnection attempts are
    // refused.
    while knocks(&server).await {}
    client
        .send(&ClientMessage::Close(Close::new(CloseCode::RESTART, "as if the server had").expect("a close")))
        .await
        .expect("it leaves");
    loop {
        match soon("its return", events.next()).await.expect("an event") {
            Event::Reconnected => break,
            Event::Disconnected(closed) => assert_eq!(closed.code, CloseCode::RESTART),
            other => panic!("expected it to come back, got {other:?}"),
        }
    }
    client.ping().await.expect("it is served");
    server.stop().await;
}

#[tokio::test]
async fn the_client_library_reconnects_once_its_address_has_room() {
    let server = limited(|rates| rates.address_connections = 1).await;
    let (client, mut events) = library::connect(&server, "Ada").await;
    let waiting = library::builder(&server).retry_first(true).connect();
    let mut waiting = tokio::spawn(waiting);
    client
        .send(&ClientMessage::Close(Close::new(CloseCode::RESTART, "as if the server had").expect("a close")))
        .await
        .expect("it leaves");
    assert!(matches!(soon("the loss", events.next()).await, Some(Event::Disconnected(_))));
    // One of the two gets the place, and leaves it to the other.
    let (other, _) = tokio::select! {
        event = events.next() => {
            assert!(matches!(event, Some(Event::Reconnected)), "{event:?}");
            client.close(CloseCode::NORMAL, "done").await.expect("closed");
            soon("the other", waiting).await.expect("no panic").expect("it connects")
        }
        other = soon("a connection", &mut waiting) => {
            let (other, _) = other.expect("no panic").expect("it connects");
            other.close(CloseCode::NORMAL, "done").await.expect("closed");
            assert!(matches!(soon("the way back", events.next()).await, Some(Event::Reconnected)));
            (client, events)
        }
    };
    other.ping().await.expect("it is served");
    server.stop().await;
}

/// A server behind proxies in these networks, whose limits apply to everyone.
async fn behind(proxies: &str, change: impl FnOnce(&mut Rates)) -> TestServer {
    TestServer::start_with(|config| {
        config.rates.loopback = true;
        config.http.proxies = vec![proxies.parse().expect("a network")];
        change(&mut config.rates);
    })
    .await
}

/// Opens a WebSocket through a proxy on behalf of this client; returns the HTTP status if it is refused.
async fn proxied(server: &TestServer, client: &str) -> Result<Party, (u16, bool)> {
    let mut request = web_socket::request(server, "/ws");
    request.headers_mut().insert("X-Forwarded-For", client.parse().expect("a value"));
    match web_socket::ask(server, request).await {
        Ok(socket) => Ok(Party::from(socket)),
        Err(Error::Http(answer)) => Err((answer.status().as_u16(), answer.headers().contains_key("Retry-After"))),
        Err(other) => panic!("expected an answer, got {other}"),
    }
}

#[tokio::test]
async fn clients_behind_a_known_proxy_count_by_their_own_addresses() {
    let server = behind("127.0.0.0/8", |rates| rates.address_connections = 1).await;
    let mut clients = Vec::new();
    for n in 1..=20 {
        let mut client = proxied(&server, &format!("192.0.2.1, 198.51.100.{n}")).await.expect("a WebSocket");
        client.handshake("Ada").await;
        clients.push(client);
    }
    let mut addresses: Vec<_> = server.status.stats(100).list.iter().map(|client| client.address.ip()).collect();
    addresses.sort();
    assert_eq!(addresses, (1..=20).map(|n| IpAddr::from([198, 51, 100, n])).collect::<Vec<_>>());
    let mut late = proxied(&server, "198.51.100.7").await.expect("a WebSocket");
    late.control.say(json!({"type": "handshake", "id": 1, "protocol_version": "1.0"})).await;
    refusal(&late.control.hear().await, 1);
    late.expect_close(4429).await;
    clients[6].control.lives("the client with the place").await;
    assert_eq!(proxied(&server, "somebody").await.err().expect("an address is expected").0, 400);
    server.stop().await;
}

#[tokio::test]
async fn handshakes_behind_a_known_proxy_count_by_client_address() {
    let rate = |rates: &mut Rates| (rates.address_handshakes, rates.address_handshakes_burst) = (1, 2);
    let server = behind("127.0.0.0/8", rate).await;
    let mut clients = Vec::new();
    for n in [1, 1, 2, 2, 3] {
        clients.push(proxied(&server, &format!("198.51.100.{n}")).await.expect("a WebSocket"));
    }
    let refused = proxied(&server, "198.51.100.1").await.err().expect("one too many");
    assert_eq!(refused, (429, true), "with a time to try again");
    server.stop().await;
}

#[tokio::test]
async fn only_a_known_proxy_may_name_the_client_address() {
    let server = behind("192.0.2.0/24", |rates| rates.address_connections = 8).await;
    let mut client = proxied(&server, "198.51.100.1").await.expect("a WebSocket");
    client.handshake("Ada").await;
    assert!(server.status.stats(1).list[0].address.ip().is_loopback());
    server.stop().await;
}
