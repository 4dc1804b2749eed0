//! Frames without messages, and messages that arrive slowly: the cost of a socket stays small, its neighbours are not
//! affected, and a client that is only slow is served.

use std::time::Duration;

use serde_json::json;
use tokio::io::AsyncReadExt;
use tokio::time::{Instant, sleep};

use super::common::bare::{Bare, CONTINUATION, FIN, PING, PONG, TEXT, frame, opening, plain};
use super::common::{TestServer, soon, until};

async fn server_with(change: impl FnOnce(&mut quic_websocket::Config)) -> TestServer {
    TestServer::start_with(|config| {
        plain(config);
        change(config);
    })
    .await
}

#[tokio::test]
async fn a_client_that_sends_only_control_frames_is_closed() {
    let server = server_with(|_| {}).await;
    for kind in [PING, PONG] {
        let mut client = Bare::client(&server).await;
        let flood = frame(kind, b"x").repeat(500);
        // The server may have closed the connection before everything is sent.
        let _ = client.try_send(&flood).await;
        while let Some((first, payload)) = client.frame().await {
            if first == FIN | 8 {
                assert_eq!(payload.get(..2), Some(&4429_u16.to_be_bytes()[..]));
                break;
            }
        }
        until("the client to be gone", || server.status.clients() == 0).await;
    }
    server.stop().await;
}

#[tokio::test]
async fn keep_alives_are_answered_however_long_a_client_stays() {
    let server = server_with(|_| {}).await;
    let mut client = Bare::client(&server).await;
    for n in 0..90_u8 {
        client.send(&frame(PING, &[n; 125])).await;
        assert_eq!(client.frame().await, Some((PONG, vec![n; 125])));
    }
    client.lives("a client that pings").await;
    server.stop().await;
}

#[tokio::test]
async fn countless_empty_fragments_delay_no_neighbour_and_end_in_time() {
    let server = server_with(|config| {
        config.timing.body_timeout_ms = 1500;
        config.workers = 1;
    })
    .await;
    let mut flooder = Bare::client(&server).await;
    let mut neighbour = Bare::client(&server).await;
    flooder.send(&frame(TEXT, b"{")).await;
    let flood = frame(CONTINUATION, b"").repeat(10_000);
    let flooding = async {
        // Until the server has closed the connection.
        while flooder.try_send(&flood).await.is_ok() {}
    };
    let asking = async {
        let mut slowest = Duration::ZERO;
        for n in 0..50 {
            let begun = Instant::now();
            neighbour.lives(&n.to_string()).await;
            slowest = slowest.max(begun.elapsed());
        }
        slowest
    };
    let ((), slowest) = soon("both", async { tokio::join!(flooding, asking) }).await;
    assert!(slowest < Duration::from_secs(2), "the neighbour waited {slowest:?}");
    until("the flooder to be gone", || server.status.clients() == 1).await;
    server.stop().await;
}

#[tokio::test]
async fn a_slow_message_is_a_sign_of_life() {
    let server = server_with(|config| {
        (config.timing.ping_interval_ms, config.timing.ping_timeout_ms) = (150, 150);
    })
    .await;
    let mut client = Bare::client(&server).await;
    let text = json!({"type": "text", "id": 1, "content": "x".repeat(120)}).to_string();
    // Far longer than the server waits for a sign of life.
    for byte in frame(FIN | TEXT, text.as_bytes()) {
        client.send(&[byte]).await;
        sleep(Duration::from_millis(8)).await;
    }
    loop {
        let message = client.hear().await;
        if message["type"] == "text" {
            break assert_eq!(message["re"], 1);
        }
        assert_eq!(message["type"], "ping", "{message}");
    }
    server.stop().await;
}

#[tokio::test]
async fn pings_do_not_extend_the_timeout_of_a_message() {
    let server = server_with(|config| config.timing.body_timeout_ms = 400).await;
    let mut client = Bare::client(&server).await;
    // A ping in two pieces does not start a message.
    let ping = frame(PING, b"half");
    client.send(&ping[..3]).await;
    sleep(Duration::from_millis(50)).await;
    client.send(&ping[3..]).await;
    assert_eq!(client.frame().await, Some((PONG, b"half".to_vec())));
    sleep(Duration::from_millis(600)).await;
    client.lives("an idle client").await;

    client.send(&frame(TEXT, b"{\"type\":")).await;
    for _ in 0..5 {
        sleep(Duration::from_millis(50)).await;
        client.send(&frame(PING, b"")).await;
        assert_eq!(client.frame().await, Some((PONG, Vec::new())));
    }
    let last = client.hear().await;
    assert_eq!((&last["type"], &last["code"]), (&json!("close"), &json!(4408)));
    assert_eq!(client.closed().await.0, Some(4408));
    server.stop().await;
}

#[tokio::test]
async fn echo_sockets_are_counted_and_closed_when_silent() {
    let server = server_with(|config| {
        config.http.echo = true;
        // A socket has a place in addition to that of its request, which is free again a moment after the response.
        config.limits.max_http_connections = 3;
        config.timing.body_timeout_ms = 1000;
    })
    .await;
    let mut one = Bare::echo(&server).await;
    // Whether it is opened; without a place even for the request, the connection ends.
    let open = async |socket: &mut Bare| {
        let mut head = [0; 12];
        let sent = socket.try_send(opening("/echo", &[]).as_bytes()).await;
        let answered = sent.is_ok() && socket.stream.read_exact(&mut head).await.is_ok();
        answered && head == *b"HTTP/1.1 101" && !socket.rest_of_head().await.is_empty()
    };
    let mut other = Bare::plain(&server).await;
    while !soon("an answer", open(&mut other)).await {
        other = Bare::plain(&server).await;
    }
    assert!(!open(&mut Bare::plain(&server).await).await, "a third has no place");
    for socket in [&mut one, &mut other] {
        assert_eq!(socket.closed().await.0, Some(4408));
    }
    soon("a place", async {
        loop {
            let mut next = Bare::plain(&server).await;
            if next.try_send(opening("/echo", &[]).as_bytes()).await.is_ok() && next.frame().await.is_some() {
                break;
            }
        }
    })
    .await;
    server.stop().await;
}

#[tokio::test]
async fn a_page_that_rebinds_its_own_name_to_the_server_is_not_its_own() {
    let server =
        server_with(|config| config.http.origins = vec!["https://app.example".parse().expect("an origin")]).await;
    for (host, origin, status) in [
        ("localhost:80", "http://localhost:80", 101),
        ("evil.example", "http://evil.example", 403),
        ("localhost:80", "https://localhost:80", 403),
        ("evil.example", "https://app.example", 101),
    ] {
        let lines = [format!("Host: {host}"), format!("Origin: {origin}")];
        let answer = Bare::plain(&server).await.ask(&opening("/ws", &[&lines[0], &lines[1]])).await;
        assert_eq!(answer.status, status, "{host} {origin}");
    }
    server.stop().await;
}
