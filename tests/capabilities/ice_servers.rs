//! `/ice-servers`: the servers with which browsers connect to each other, for clients that may signal and no others.

#![allow(clippy::expect_used, clippy::panic)] // A test fails by panicking.

use crate::common::bare::{Answer, Bare, plain};
use crate::common::tokens::{asking, token};
use crate::common::{TestServer, now_ms};
use quic_websocket::Config;
use serde_json::{Value, json};

fn with_servers(config: &mut Config) {
    plain(config);
    config.webrtc.stun = vec!["stun:stun.example.com:3478".into()];
    config.webrtc.turn = vec!["turn:turn.example.com".into(), "turns:turn.example.com:5349?transport=tcp".into()];
    config.webrtc.turn_secret = Some("shared with the relay".to_owned().into());
    config.webrtc.turn_credential_ms = 120_000;
}

async fn ask(server: &TestServer, lines: &str) -> Answer {
    let host = if lines.contains("Host:") { "" } else { "Host: localhost\r\n" };
    Bare::plain(server).await.ask(&format!("GET /ice-servers HTTP/1.1\r\n{host}{lines}\r\n")).await
}

fn bearer(claims: Value) -> String {
    format!("Authorization: Bearer {}\r\n", token(claims))
}

#[tokio::test]
async fn servers_come_with_credentials_that_expire() {
    let server = TestServer::start_with(with_servers).await;
    let answer = ask(&server, "").await;
    assert_eq!((answer.status, answer.field("cache-control")), (200, Some("no-store")));
    assert_eq!(answer.field("access-control-allow-origin"), None, "not for pages elsewhere");
    let told: Value = serde_json::from_slice(&answer.body).expect("JSON");
    let [stun, turn] = told["iceServers"].as_array().expect("servers").as_slice() else { panic!("{told}") };
    assert_eq!(stun, &json!({"urls": ["stun:stun.example.com:3478"]}));
    assert_eq!(turn["urls"], json!(["turn:turn.example.com", "turns:turn.example.com:5349?transport=tcp"]));
    let (until, user) = turn["username"].as_str().and_then(|name| name.split_once(':')).expect("a time and a user");
    let until: u64 = until.parse().expect("seconds");
    assert!((now_ms() / 1000 + 110..=now_ms() / 1000 + 120).contains(&until), "{until}");
    assert_eq!((user, turn["credential"].as_str().map(str::len)), ("anybody", Some(28)));
    server.stop().await;

    let without = TestServer::start_with(plain).await;
    assert_eq!(ask(&without, "").await.body, br#"{"iceServers":[]}"#);
    without.stop().await;
}

#[tokio::test]
async fn with_authentication_the_permission_to_signal_is_required() {
    let auth = asking("single_use = true");
    let server = TestServer::start_with(|config| {
        with_servers(config);
        config.auth = auth;
    })
    .await;
    for (lines, status) in [
        (String::new(), 401),
        ("Authorization: Basic YTpi\r\n".into(), 400),
        ("Authorization: Bearer no.good.one\r\n".into(), 401),
        (bearer(json!({"jti": "1", "signal": false})), 403),
        (bearer(json!({"jti": "2", "exp": 1})), 401),
    ] {
        let answer = ask(&server, &lines).await;
        assert_eq!(answer.status, status, "{lines}: {answer:?}");
        let told: Value = serde_json::from_slice(&answer.body).expect("JSON");
        assert!(told["error"].is_string(), "{told}");
    }
    let good = bearer(json!({"jti": "3", "signal": true}));
    // A request does not use up a single-use token.
    for _ in 0..2 {
        let told: Value = serde_json::from_slice(&ask(&server, &good).await.body).expect("JSON");
        let user = told["iceServers"][1]["username"].as_str().and_then(|name| name.split_once(':'));
        assert_eq!(user.map(|(_, user)| user), Some("ada"), "{told}");
    }
    server.stop().await;
}

#[tokio::test]
async fn guessing_tokens_is_limited_here_too() {
    let auth = asking("");
    let server = TestServer::start_with(|config| {
        with_servers(config);
        config.auth = auth;
    })
    .await;
    let mut statuses = Vec::new();
    for _ in 0..40 {
        statuses.push(ask(&server, "Authorization: Bearer no.good.one\r\n").await.status);
    }
    assert!(statuses[..10].iter().all(|&status| status == 401), "{statuses:?}");
    assert!(statuses.contains(&429), "{statuses:?}");
    server.stop().await;
}

#[tokio::test]
async fn pages_of_listed_origins_may_read_the_response_and_others_are_refused() {
    let server = TestServer::start_with(|config| {
        with_servers(config);
        let origins = ["null", "https://*.example.com"];
        config.http.origins = origins.map(|origin| origin.parse().expect("an origin")).to_vec();
    })
    .await;
    for (origin, status, is_named) in [
        ("https://app.example.com", 200, true),
        ("null", 200, true),
        ("http://localhost", 200, false),
        ("https://evil.example", 403, false),
        ("https://example.com", 403, false),
    ] {
        let answer = ask(&server, &format!("Origin: {origin}\r\n")).await;
        assert_eq!(answer.status, status, "{origin}: {answer:?}");
        let allowed = answer.field("access-control-allow-origin");
        assert_eq!(allowed, is_named.then_some(origin), "{origin}: {answer:?}");
        let before = format!(
            "OPTIONS /ice-servers HTTP/1.1\r\nHost: localhost\r\nOrigin: {origin}\r\n\
             Access-Control-Request-Method: GET\r\nAccess-Control-Request-Headers: authorization\r\n\r\n"
        );
        let answer = Bare::plain(&server).await.ask(&before).await;
        let expected = if is_named {
            204
        } else if status == 403 {
            403
        } else {
            405
        };
        assert_eq!(answer.status, expected, "{origin}: {answer:?}");
        assert_eq!(answer.field("access-control-allow-headers"), is_named.then_some("authorization"), "{answer:?}");
    }
    server.stop().await;
}

#[tokio::test]
async fn a_page_that_rebinds_its_own_name_to_the_server_gets_nothing() {
    let server = TestServer::start_with(|config| {
        with_servers(config);
        config.http.origins = vec!["https://app.example.com".parse().expect("an origin")];
    })
    .await;
    for (host, status) in [
        ("127.0.0.1:8080", 200),
        ("[::1]", 200),
        ("app.example.com", 200),
        ("evil.example:8080", 403),
        ("localhost.evil.example", 403),
    ] {
        assert_eq!(ask(&server, &format!("Host: {host}\r\n")).await.status, status, "{host}");
    }
    server.stop().await;
}
