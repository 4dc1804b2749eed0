//! The opening handshake (RFC 6455 section 4.2), and other content of the request.

use serde_json::{Value, json};

use super::common::bare::{Answer, Bare, FIN, HELLO, TEXT, frame, opening, plain};
use super::common::tokens::{asking, token};
use super::common::{TestServer, until};

async fn ask(server: &TestServer, request: &str) -> Answer {
    Bare::plain(server).await.ask(request).await
}

#[tokio::test]
async fn an_opening_handshake_is_accepted_by_the_standard_else_refused_with_the_reason() {
    let server = TestServer::start_with(plain).await;
    for lines in [
        &[][..],
        &["connection: UPGRADE"],
        &["Sec-WebSocket-Protocol: chat, qws.v1"],
        &["Sec-WebSocket-Protocol: chat", "sec-websocket-protocol: qws.v1"],
        &["Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits"],
        &["Origin: https://anybody.example"],
    ] {
        let answer = ask(&server, &opening("/ws", lines)).await;
        assert_eq!(answer.status, 101, "{lines:?}: {answer:?}");
        assert_eq!(answer.field("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
        assert_eq!(answer.field("sec-websocket-protocol"), Some("qws.v1"));
        assert_eq!(answer.field("sec-websocket-extensions"), None, "none is served");
        assert!(answer.field("upgrade").is_some_and(|upgrade| upgrade.eq_ignore_ascii_case("websocket")), "{answer:?}");
    }
    for (lines, status, names) in [
        (&["Sec-WebSocket-Version:"][..], 426, "Sec-WebSocket-Version"),
        (&["Sec-WebSocket-Version: 8"], 426, "Sec-WebSocket-Version"),
        (&["Sec-WebSocket-Version: 14"], 426, "Sec-WebSocket-Version"),
        (&["Sec-WebSocket-Key:"], 400, "Sec-WebSocket-Key"),
        (&["Sec-WebSocket-Key: c2hvcnQ="], 400, "Sec-WebSocket-Key"),
        (&["Sec-WebSocket-Key: no base64 of that leng!!"], 400, "Sec-WebSocket-Key"),
        (&["Upgrade:"], 400, "Upgrade"),
        (&["Upgrade: h2c"], 400, "Upgrade"),
        (&["Connection: keep-alive"], 400, "Upgrade"),
        (&["Sec-WebSocket-Protocol:"], 400, "qws.v1"),
        (&["Sec-WebSocket-Protocol: chat, qws.v2, QWS.V1"], 400, "qws.v1"),
        (&["Authorization: Basic YTpi"], 400, "authorization"),
        (&["Authorization: Bearer"], 400, "authorization"),
        (&["Authorization: Bearer a.b.c", "Authorization: Bearer a.b.c"], 400, "authorization"),
        (&["Authorization: Bearer two words"], 400, "token"),
    ] {
        let answer = ask(&server, &opening("/ws", lines)).await;
        let said = String::from_utf8_lossy(&answer.body);
        assert_eq!(answer.status, status, "{lines:?}: {said}");
        assert!(said.to_lowercase().contains(&names.to_lowercase()), "{lines:?} has to name {names}: {said}");
        if status == 426 {
            assert_eq!(answer.field("sec-websocket-version"), Some("13"), "{lines:?}: {answer:?}");
        }
    }
    until("all to be gone", || server.status.connections() == 0).await;
    server.stop().await;
}

#[tokio::test]
async fn only_get_of_http_1_1_opens_one_and_only_on_its_path() {
    let server = TestServer::start_with(plain).await;
    for (request, statuses) in [
        (opening("/ws", &[]).replacen("GET", "POST", 1), &[405][..]),
        (opening("/ws", &[]).replacen("GET", "HEAD", 1), &[405]),
        (opening("/ws", &[]).replacen("GET", "PUT", 1), &[405]),
        (opening("/ws", &[]).replacen("HTTP/1.1", "HTTP/1.0", 1), &[400]),
        (opening("/WS", &[]), &[404]),
        (opening("/ws/", &[]), &[404]),
        // Off unless enabled.
        (opening("/echo", &[]), &[404]),
    ] {
        let answer = ask(&server, &request).await;
        assert!(statuses.contains(&answer.status), "{request}: {answer:?}");
        if answer.status == 405 {
            assert!(answer.field("allow").is_some_and(|allowed| allowed.contains("GET")), "{answer:?}");
            let is_told = String::from_utf8_lossy(&answer.body).contains("this method is not allowed");
            assert!(is_told || request.starts_with("HEAD"), "{answer:?}");
        }
    }
    // A query is ignored, and the absolute form of HTTP is accepted.
    for path in ["/ws?", "/ws?room=1&token=x", "http://localhost/ws"] {
        assert_eq!(ask(&server, &opening(path, &[])).await.status, 101, "{path}");
    }
    // The same with TLS.
    let mut secure = Bare::tls(&server).await;
    secure.upgrade("/ws").await;
    secure.send(&frame(FIN | TEXT, HELLO)).await;
    assert_eq!(secure.hear().await["accepted"], true);
    server.stop().await;
}

#[tokio::test]
async fn pages_of_unlisted_origins_may_not_connect_if_origins_are_set() {
    let server = TestServer::start_with(|config| {
        plain(config);
        config.http.origins = vec!["https://app.example".parse().expect("an origin")];
        config.http.echo = true;
    })
    .await;
    for path in ["/ws", "/echo"] {
        for (lines, status) in [
            (&[][..], 101),
            (&["Origin: https://app.example"], 101),
            (&["Origin: HTTPS://APP.example"], 101),
            // The server's own pages; `floods.rs` tests those that only look like them.
            (&["Origin: http://localhost"], 101),
            (&["Host: localhost:80", "Origin: http://localhost:80"], 101),
            (&["Origin: https://localhost"], 403),
            (&["Host: localhost:80", "Origin: http://localhost:81"], 403),
            (&["Origin: https://evil.example"], 403),
            (&["Origin: https://app.example.evil.example"], 403),
            (&["Origin: null"], 403),
            (&["Origin: https://app.example, https://evil.example"], 403),
            (&["Origin: https://app.example", "Origin: https://evil.example"], 400),
            (&["Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="], 400),
        ] {
            let answer = ask(&server, &opening(path, lines)).await;
            assert_eq!(answer.status, status, "{path} {lines:?}: {answer:?}");
        }
    }
    for (origin, status) in [("https://localhost", 101), ("http://localhost", 403), ("https://evil.example", 403)] {
        let answer = Bare::tls(&server).await.ask(&opening("/ws", &[&format!("Origin: {origin}")])).await;
        assert_eq!(answer.status, status, "{origin} over TLS: {answer:?}");
    }
    server.stop().await;
}

#[tokio::test]
async fn pages_without_an_origin_and_of_subdomains_connect_if_listed() {
    let server = TestServer::start_with(|config| {
        plain(config);
        let origins = ["null", "https://*.example.com:443"];
        config.http.origins = origins.map(|origin| origin.parse().expect("an origin")).to_vec();
    })
    .await;
    for (origin, status) in [
        ("null", 101),
        ("https://app.example.com", 101),
        ("https://a.b.example.com", 101),
        ("https://example.com", 403),
        ("https://app.example.com:8443", 403),
        ("http://app.example.com", 403),
        ("https://evil.example/.example.com", 403),
    ] {
        let answer = ask(&server, &opening("/ws", &[&format!("Origin: {origin}")])).await;
        assert_eq!(answer.status, status, "{origin}: {answer:?}");
    }
    server.stop().await;
}

/// The response to a handshake over a connection that came with a token, and the close code if it was refused.
async fn shake_hands(server: &TestServer, lines: &[&str], handshake: &[u8]) -> (Value, Option<u16>) {
    let mut socket = Bare::plain(server).await;
    assert_eq!(socket.ask(&opening("/ws", lines)).await.status, 101, "{lines:?}");
    socket.send(&frame(FIN | TEXT, handshake)).await;
    let response = socket.hear().await;
    let code = if response["accepted"] == true { None } else { socket.closed().await.0 };
    (response, code)
}

#[tokio::test]
async fn a_token_may_be_in_the_request_and_the_one_in_the_handshake_takes_precedence() {
    let auth = asking("");
    let server = TestServer::start_with(|config| {
        plain(config);
        config.auth = auth;
    })
    .await;
    let (ada, bob) = (token(json!({"sub": "ada"})), token(json!({"sub": "bob"})));
    let with = |token: &str| json!({"type": "handshake", "protocol_version": "1.0", "token": token}).to_string();
    for (line, handshake, user) in [
        (format!("Authorization: Bearer {ada}"), String::from_utf8_lossy(HELLO).into_owned(), "ada"),
        (format!("authorization: bearer  {ada}"), String::from_utf8_lossy(HELLO).into_owned(), "ada"),
        (format!("Authorization: Bearer {ada}"), with(&bob), "bob"),
        ("Authorization: Bearer rubbish".into(), with(&bob), "bob"),
    ] {
        let (response, _) = shake_hands(&server, &[&line], handshake.as_bytes()).await;
        assert_eq!((&response["accepted"], &response["user"]), (&json!(true), &json!(user)), "{line}: {response}");
    }
    let expired = token(json!({"exp": 1}));
    for (line, handshake, reason) in [
        (String::from("X-None: 1"), String::from_utf8_lossy(HELLO).into_owned(), "token is required"),
        ("Authorization: Bearer rubbish".into(), String::from_utf8_lossy(HELLO).into_owned(), "token: "),
        (format!("Authorization: Bearer {expired}"), String::from_utf8_lossy(HELLO).into_owned(), "expired"),
        (format!("Authorization: Bearer {ada}"), with(&expired), "expired"),
    ] {
        let (response, code) = shake_hands(&server, &[&line], handshake.as_bytes()).await;
        assert_eq!((&response["accepted"], code), (&json!(false), Some(4401)), "{line}: {response}");
        assert!(response["reason"].as_str().is_some_and(|why| why.contains(reason)), "{line}: {response}");
    }
    until("all to be gone", || server.status.connections() == 0).await;
    server.stop().await;
}
