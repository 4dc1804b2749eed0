//! How a socket ends (RFC 6455 section 7): the closing handshake from either side, ends without one, and connections
//! that never complete a request.

use std::time::{Duration, Instant};

use serde_json::json;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use super::common::bare::{Bare, CLOSE, FIN, TEXT, close, frame, opening, plain};
use super::common::over::Over;
use super::common::tokens::{asking, token};
use super::common::{TestServer, soon, until};

async fn echo_server() -> TestServer {
    TestServer::start_with(|config| {
        plain(config);
        config.http.echo = true;
    })
    .await
}

#[tokio::test]
async fn a_close_frame_is_answered_with_its_code_and_the_connection_ends() {
    let server = echo_server().await;
    for path in ["/ws", "/echo"] {
        let begin = async || match path {
            "/ws" => Bare::client(&server).await,
            _ => Bare::echo(&server).await,
        };
        for code in [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 3000, 3999, 4000, 4999] {
            let mut socket = begin().await;
            socket.send(&close(code, "Grüße".as_bytes())).await;
            assert_eq!(socket.closed().await, (Some(code), "Grüße".into()), "{path}");
        }
        let mut socket = begin().await;
        socket.send(&frame(CLOSE, b"")).await;
        assert_eq!(socket.closed().await, (None, String::new()), "{path}: no code is answered with none");
        let mut socket = begin().await;
        socket.send(&close(1000, &[b'x'; 123])).await;
        assert_eq!(socket.closed().await.0, Some(1000), "{path}: the longest reason");
        for code in [0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535] {
            let mut socket = begin().await;
            socket.send(&close(code, b"")).await;
            assert_eq!(socket.closed().await.0, Some(1002), "{path}: {code} must not be in a close frame");
        }
    }
    until("all to be gone", || server.status.connections() == 0).await;
    server.stop().await;
}

#[tokio::test]
async fn the_servers_close_frame_has_every_code_a_client_may_request() {
    let server = TestServer::start_with(plain).await;
    for code in [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 4999] {
        let mut client = Bare::client(&server).await;
        let message = json!({"type": "close", "code": code, "reason": "Grüße"});
        client.send(&frame(FIN | TEXT, message.to_string().as_bytes())).await;
        assert_eq!(client.closed().await, (Some(code), "Grüße".into()));
    }
    server.stop().await;
}

#[tokio::test]
async fn data_after_a_close_frame_is_ignored() {
    let server = echo_server().await;
    let mut watcher = Bare::client(&server).await;
    watcher.send(&frame(FIN | TEXT, br#"{"type":"subscribe","topic":"a","lane":"control"}"#)).await;
    watcher.hear().await;
    let mut socket = Bare::client(&server).await;
    let late = frame(FIN | TEXT, br#"{"type":"publish","topic":"a","content":"too late"}"#);
    socket.send(&[close(1000, b""), late, frame(FIN | TEXT, b"\xff")].concat()).await;
    assert_eq!(socket.closed().await.0, Some(1000));
    until("it to be gone", || server.status.clients() == 1).await;
    watcher.lives("a client that received nothing of it").await;

    let mut echo = Bare::echo(&server).await;
    echo.send(&[close(1000, b""), frame(FIN | TEXT, b"too late")].concat()).await;
    assert_eq!(echo.closed().await.0, Some(1000));
    server.stop().await;
}

#[tokio::test]
async fn a_client_that_drops_its_connection_is_gone_at_once() {
    let server = TestServer::start_with(plain).await;
    // Also in the middle of a message, before its handshake, and behind TLS.
    let mut inside = Bare::client(&server).await;
    inside.send(&frame(TEXT, b"{")).await;
    let mut before = Bare::plain(&server).await;
    before.upgrade("/ws").await;
    let mut secure = Bare::tls(&server).await;
    secure.upgrade("/ws").await;
    let lively = Bare::client(&server).await;
    until("all to be there", || server.status.connections() == 4).await;
    let began = Instant::now();
    drop((inside, before, secure, lively));
    until("all to be gone", || server.status.connections() == 0).await;
    assert!(began.elapsed() < Duration::from_secs(5), "well before their next ping is due");
    server.stop().await;
}

#[tokio::test]
async fn a_client_that_does_not_answer_the_close_is_disconnected() {
    let server = TestServer::start_with(|config| {
        plain(config);
        config.timing.close_timeout_ms = 100;
    })
    .await;
    let mut client = Bare::client(&server).await;
    client.send(&frame(FIN | TEXT, br#"{"type":"close","code":4000}"#)).await;
    assert_eq!(client.frame().await.map(|(first, _)| first), Some(CLOSE));
    assert!(client.frame().await.is_none(), "the server ends the connection");
    until("it to be gone", || server.status.connections() == 0).await;
    server.stop().await;
}

#[tokio::test]
async fn a_reason_too_long_for_a_close_frame_is_truncated_there_and_complete_in_the_message() {
    let auth = asking("");
    let server = TestServer::start_with(|config| {
        plain(config);
        config.auth = auth;
    })
    .await;
    let token = token(json!({"name": "a\u{202e}b"}));
    let mut client = Bare::plain(&server).await;
    client.upgrade("/ws").await;
    let handshake = json!({"type": "handshake", "protocol_version": "1.0", "token": token});
    client.send(&frame(FIN | TEXT, handshake.to_string().as_bytes())).await;
    assert_eq!(client.hear().await["accepted"], false);
    let said = client.hear().await;
    let whole = said["reason"].as_str().expect("a reason");
    assert!(whole.len() > 123, "this shows nothing: {whole}");
    assert_eq!(client.closed().await, (Some(4401), whole[..123].to_owned()));
    server.stop().await;
}

#[tokio::test]
async fn a_drain_sends_the_time_to_come_back_and_closes_with_1001() {
    let server = echo_server().await;
    let mut clients = [Bare::client(&server).await, Bare::client(&server).await];
    let mut unannounced = Bare::plain(&server).await;
    unannounced.upgrade("/ws").await;
    let mut idle = Bare::plain(&server).await;
    assert_eq!(idle.ask("GET /none HTTP/1.1\r\nHost: localhost\r\n\r\n").await.status, 404);
    let mut half = Bare::plain(&server).await;
    half.send(b"GET / HTTP/1.1\r\n").await;
    let mut echo = Bare::echo(&server).await;
    until("all to be there", || server.status.connections() == 3).await;
    server.drain();
    for client in &mut clients {
        let said = client.hear().await;
        assert_eq!((&said["type"], &said["code"]), (&json!("close"), &json!(1001)));
        assert!(said["reconnect_after_ms"].is_u64(), "{said}");
        let (code, reason) = client.closed().await;
        assert_eq!((code, said["reason"].as_str()), (Some(1001), Some(&*reason)));
    }
    assert_eq!(unannounced.closed().await.0, Some(1001));
    for other in [&mut idle, &mut half, &mut echo] {
        let mut rest = Vec::new();
        // A reset is an end as well.
        let _ = soon("the end of a connection that is no client's", other.stream.read_to_end(&mut rest)).await;
    }
    server.stop().await;
}

#[tokio::test]
async fn a_full_server_reports_it_and_closes_with_1013() {
    let server = TestServer::start_with(|config| {
        plain(config);
        config.limits.max_clients = 1;
    })
    .await;
    let mut first = Over::Native.party(&server, "Ada").await;
    let mut late = Bare::plain(&server).await;
    late.upgrade("/ws").await;
    late.send(&frame(FIN | TEXT, super::common::bare::HELLO)).await;
    assert_eq!(late.hear().await["accepted"], false);
    assert_eq!(late.closed().await.0, Some(1013));
    first.control.lives("the client with the place").await;
    server.stop().await;
}

#[tokio::test]
async fn one_handshake_too_many_is_told_to_try_again() {
    let server = TestServer::start_with(|config| {
        plain(config);
        config.limits.max_handshakes = 1;
    })
    .await;
    let mut first = Bare::plain(&server).await;
    first.upgrade("/ws").await;
    let answer = Bare::plain(&server).await.ask(&opening("/ws", &[])).await;
    assert_eq!((answer.status, answer.field("retry-after")), (503, Some("1")), "{answer:?}");
    first.send(&frame(FIN | TEXT, super::common::bare::HELLO)).await;
    assert_eq!(first.hear().await["accepted"], true);
    Bare::client(&server).await.lives("a later client").await;
    server.stop().await;
}

/// Waits for the end of a connection, and returns the data before it.
async fn end(connection: &mut Bare) -> String {
    let mut rest = Vec::new();
    let _ = soon("the end of the connection", connection.stream.read_to_end(&mut rest)).await;
    String::from_utf8_lossy(&rest).into_owned()
}

#[tokio::test]
async fn a_connection_that_never_completes_a_request_is_closed_in_time() {
    let server = TestServer::start_with(|config| {
        plain(config);
        config.timing.handshake_timeout_ms = 1500;
    })
    .await;
    let mut neighbour = Over::Native.party(&server, "neighbour").await;
    let mut silent = Bare::plain(&server).await;
    let mut half = Bare::plain(&server).await;
    half.send(b"GET /ws HTTP/1.1\r\nHost: loc").await;
    let mut idle = Bare::plain(&server).await;
    assert_eq!(idle.ask("GET /none HTTP/1.1\r\nHost: localhost\r\n\r\n").await.status, 404);
    // A byte now and then does not extend the time, either.
    let mut slow = Bare::plain(&server).await;
    let trickle = async {
        while slow.try_send(b"G").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    for (what, connection) in [("silent", &mut silent), ("half a request", &mut half), ("idle", &mut idle)] {
        end(connection).await;
        assert_eq!(server.status.connections(), 1, "{what}: none of these was a client");
    }
    soon("the end of one byte at a time", trickle).await;
    // Inside TLS, and before TLS is established.
    let addr = server.http.expect("it serves HTTP");
    for begun in [&b""[..], &[0x16, 0x03, 0x01, 0x02, 0x00, 0x01]] {
        let mut stream = TcpStream::connect(addr).await.expect("it connects");
        tokio::io::AsyncWriteExt::write_all(&mut stream, begun).await.expect("it takes bytes");
        let mut rest = Vec::new();
        let _ = soon("the end of half a TLS handshake", stream.read_to_end(&mut rest)).await;
    }
    let mut secure = Bare::tls(&server).await;
    end(&mut secure).await;
    // A WebSocket without a handshake already counts as a client, and gets a reason.
    let mut unannounced = Bare::plain(&server).await;
    unannounced.upgrade("/ws").await;
    assert_eq!(unannounced.hear().await["code"], 4408);
    assert_eq!(unannounced.closed().await.0, Some(4408));
    neighbour.control.lives("an accepted client").await;
    server.stop().await;
}

#[tokio::test]
async fn a_request_with_an_oversized_head_is_refused() {
    let server = TestServer::start_with(plain).await;
    let fits = format!("X-Long: {}", "x".repeat(14_000));
    assert_eq!(Bare::plain(&server).await.ask(&opening("/ws", &[&fits])).await.status, 101);
    for (what, request) in [
        ("one long field", opening("/ws", &[&format!("X-Long: {}", "x".repeat(20_000))])),
        ("a long path", opening(&format!("/{}", "x".repeat(20_000)), &[])),
        ("many fields", opening("/ws", &(0..200).map(|_| "X-Short: x").collect::<Vec<_>>())),
        ("no end", format!("GET / HTTP/1.1\r\nX-Long: {}", "x".repeat(20_000))),
    ] {
        let mut connection = Bare::plain(&server).await;
        // It may end before everything was sent.
        let _ = soon("room", connection.try_send(request.as_bytes())).await;
        let said = end(&mut connection).await;
        assert!(
            said.is_empty() || said.starts_with("HTTP/1.1 431") || said.starts_with("HTTP/1.1 414"),
            "{what}: {said}"
        );
    }
    assert_eq!(server.status.connections(), 0);
    server.stop().await;
}

#[tokio::test]
async fn plain_connections_have_a_limit_that_sockets_do_not_use_up() {
    let server = TestServer::start_with(|config| {
        plain(config);
        config.limits.max_http_connections = 2;
    })
    .await;
    let mut sockets = Vec::new();
    for _ in 0..5 {
        sockets.push(Bare::client(&server).await);
    }
    let knock = async || {
        let mut connection = Bare::plain(&server).await;
        if connection.try_send(b"GET /none HTTP/1.1\r\nHost: localhost\r\n\r\n").await.is_err() {
            return None;
        }
        let mut first = [0; 12];
        match soon("an answer, or the end", connection.stream.read_exact(&mut first)).await {
            Ok(_) => Some(connection),
            Err(_) => None,
        }
    };
    // The places of the sockets' requests are free again a moment after their responses.
    let mut held = Vec::new();
    soon("two places", async {
        while held.len() < 2 {
            held.extend(knock().await);
        }
    })
    .await;
    for n in 0..5 {
        assert!(knock().await.is_none(), "connection {n} beside the two that are there");
    }
    for socket in &mut sockets {
        socket.lives("a client with a socket").await;
    }
    held.clear();
    soon("a place", async { while knock().await.is_none() {} }).await;
    server.stop().await;
}
