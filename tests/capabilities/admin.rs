//! The admin API over HTTP: what each route does, and which requests are refused.

#![allow(clippy::expect_used, clippy::panic)] // A test fails by panicking.

use crate::common::admin::{TOKEN, bearer, get, plain, post, send, server};
use crate::common::over::Over;
use crate::common::topics::{Subscriber, rule};
use crate::common::web_socket::tls;
use crate::common::{RawClient, TestServer, soon, until};
use quic_websocket::Config;
use quic_websocket::message::CloseCode;
use quinn::TransportConfig;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

#[tokio::test]
async fn the_api_returns_the_servers_own_statistics() {
    let server = server(|_| {}).await;
    let mut clients = Vec::new();
    for over in Over::ALL {
        clients.push(over.party(&server, over.name()).await);
    }
    let answer = get(&server, "/api/stats", &[]).await;
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/json")), "{answer:?}");
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    let stats = answer.json();
    assert_eq!(stats["clients"], json!({"quic": 1, "webtransport": 1, "websocket": 1, "total": 3}));
    assert_eq!(stats["totals"]["accepted"], json!({"quic": 1, "webtransport": 1, "websocket": 1}));
    let list = stats["list"].as_array().expect("a list");
    for client in &clients {
        let listed = list.iter().find(|listed| listed["id"] == client.id.as_str()).expect("it is listed");
        assert_eq!((&listed["name"], &listed["transport"]), (&json!(client.over.name()), &json!(client.over.name())));
        assert!(listed["address"].as_str().is_some_and(|address| address.starts_with("127.0.0.1:")), "{listed}");
        assert_eq!((listed["rtt_ms"].is_null(), &listed["user"]), (client.over == Over::WebSocket, &Value::Null));
    }
    for name in
        ["now", "uptime_ms", "server_name", "version", "connections", "handshakes", "queues", "topics", "rtt_ms"]
    {
        assert!(!stats[name].is_null(), "{name} is missing in {stats}");
    }
    assert_eq!(get(&server, "/api/stats?clients=2", &[]).await.json()["list"].as_array().map(Vec::len), Some(2));
    for wrong in ["clients=0", "clients=1001", "clients=-1", "clients=all", "clients=", "client=5"] {
        let why = get(&server, &format!("/api/stats?{wrong}"), &[]).await.refusal(400);
        assert!(why.contains("clients: 1 to 1000"), "{why}");
    }

    let answer = get(&server, "/metrics", &[]).await;
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("text/plain; version=0.0.4; charset=utf-8")));
    for carrier in Over::ALL {
        let line = format!("qws_clients{{transport=\"{}\"}} 1", carrier.name());
        assert!(answer.body.lines().any(|written| written == line), "{line} is missing in {}", answer.body);
    }
    server.stop().await;
}

#[tokio::test]
async fn a_published_message_reaches_subscribers_without_a_sender() {
    let server = server(|config| config.topics = vec![rule("pattern = 'news'\npublish = 'nobody'")]).await;
    let mut subscriber = Subscriber::connect(&server, "Ada").await;
    let subscribed = subscriber.subscribe(json!({"topic": "news"})).await;
    for offset in 1..=2 {
        let content = "two\nlines, \"quoted\" \u{1f600}";
        let answer = post(&server, "/api/publish", &[], &json!({"topic": "news", "content": content})).await;
        let place = json!({"topic": "news", "epoch": subscribed["epoch"], "offset": offset});
        assert_eq!((answer.status, answer.json()), (200, place));
        let message = subscriber.hear("news").await;
        assert_eq!((&message["content"], &message["offset"]), (&json!(content), &json!(offset)));
        assert_eq!(message.get("from"), None, "no client has sent it: {message}");
    }
    let totals = || server.status.stats(0).totals;
    until("it is counted", || (totals().published, totals().fanned_out) == (2, 2)).await;
    server.stop().await;
}

#[tokio::test]
async fn an_invalid_publish_is_refused_with_the_reason() {
    let server = server(|config| {
        config.limits.max_message_bytes = 2000;
        config.limits.max_topics = 1;
    })
    .await;
    let publish = async |body: Value| post(&server, "/api/publish", &[], &body).await;
    for (body, says) in [
        (json!({"topic": "a..b", "content": ""}), "topic: "),
        (json!({"topic": "a.*", "content": ""}), "topic: "),
        (json!({"topic": "a"}), "content"),
        (json!({"topic": "a", "content": 5}), "string"),
        (json!({"topic": "a", "content": "", "key": "k"}), "key"),
        (json!([]), "JSON object"),
        (json!(["a", "content"]), "JSON object"),
        (json!("a"), "JSON object"),
    ] {
        let why = publish(body).await.refusal(400);
        assert!(why.contains(says), "{why}");
    }
    let largest = "x".repeat(2000 - json!({"topic": "a", "content": ""}).to_string().len());
    assert_eq!(publish(json!({"topic": "a", "content": largest})).await.status, 200);
    let why = publish(json!({"topic": "a", "content": largest + "x"})).await.refusal(413);
    assert!(why.contains("limits.max_message_bytes"), "{why}");
    let why = publish(json!({"topic": "b", "content": ""})).await.refusal(503);
    assert!(why.contains("takes no more"), "{why}");
    let right = bearer(TOKEN);
    let whole = ["host: localhost", "content-type: application/json", &right];
    let malformed = send(plain(&server).await, "POST /api/publish", &whole, "{\"topic\":").await.refusal(400);
    assert!(malformed.contains("is expected"), "{malformed}");
    assert_eq!(server.status.stats(0).totals.published, 1);
    server.stop().await;
}

#[tokio::test]
async fn a_subscriber_without_room_delays_a_publish_until_its_timeout() {
    let server = server(|config| {
        config.limits.lane_backlog_messages = 5;
        config.timing.block_timeout_ms = 100;
        config.topics = vec![rule("pattern = '>'\noverflow = 'block'")];
    })
    .await;
    let mut transport = TransportConfig::default();
    transport.stream_receive_window(4000_u32.into());
    let mut stuck = RawClient::connect(&server.endpoint_with(transport), server.addr).await;
    stuck.handshake("stuck").await;
    stuck.control.say(json!({"type": "subscribe", "topic": "a", "id": 1})).await;
    stuck.control.expect("subscribed").await;
    let body = json!({"topic": "a", "content": "x".repeat(1000)});
    for _ in 0..20 {
        let answer = post(&server, "/api/publish", &[], &body).await;
        if answer.status != 200 {
            let why = answer.refusal(503);
            assert!(why.contains("does not read") && why.contains("nothing was published"), "{why}");
            return server.stop().await;
        }
    }
    panic!("a subscriber that does not read blocked no publish");
}

#[tokio::test]
async fn a_client_is_disconnected_with_the_requested_code_and_reason() {
    let server = server(|_| {}).await;
    for over in Over::ALL {
        let mut ended = over.party(&server, "ended").await;
        let mut neighbour = over.party(&server, "neighbour").await;
        let wish = json!({"client": ended.id, "code": 4000, "reason": "for a test"});
        let answer = post(&server, "/api/disconnect", &[], &wish).await;
        assert_eq!((answer.status, answer.json()), (200, json!({"clients": 1})));
        assert_eq!(ended.expect_close(4000).await["reason"], "for a test");
        neighbour.control.lives("neighbour").await;
        let answer = post(&server, "/api/disconnect", &[], &json!({"client": neighbour.id})).await;
        assert_eq!(answer.status, 200);
        assert_eq!(neighbour.expect_close(4403).await["reason"], "disconnected by an administrator");
        until("both are gone", || server.status.clients() == 0).await;
        let why = post(&server, "/api/disconnect", &[], &wish).await.refusal(404);
        assert!(why.contains(&ended.id), "{why}");
    }
    for wrong in [
        json!({"client": "nobody"}),
        json!({"client": uuid::Uuid::nil(), "code": 1006}),
        json!({"client": uuid::Uuid::nil(), "code": 70000}),
        json!({"client": uuid::Uuid::nil(), "reason": "x".repeat(124)}),
        json!({}),
        json!([uuid::Uuid::nil(), 4403, "why"]),
    ] {
        post(&server, "/api/disconnect", &[], &wrong).await.refusal(400);
    }
    let closed = server.status.stats(0).totals.closed;
    assert_eq!((closed.with(CloseCode::FORBIDDEN), closed.with(CloseCode(4000))), (3, 3));
    server.stop().await;
}

/// Each route, with its parameters.
/// Each route with a body, and the status of a request that is served.
const ROUTES: [(&str, &str, u16); 13] = [
    ("GET /api/stats", "", 200),
    ("GET /api/topics", "", 200),
    ("GET /api/history?topic=b", "", 200),
    ("GET /api/members?topic=b", "", 200),
    ("GET /api/clients?user=nobody", "", 200),
    ("GET /metrics", "", 200),
    ("GET /api/revocations", "", 200),
    ("POST /api/publish", r#"{"topic":"a","content":"x"}"#, 200),
    ("POST /api/disconnect", r#"{"client":"00000000-0000-4000-8000-000000000000"}"#, 404),
    ("POST /api/subscribe", r#"{"user":"nobody","topic":"a"}"#, 404),
    ("POST /api/unsubscribe", r#"{"user":"nobody","topic":"a"}"#, 404),
    // The servers here accept no tokens.
    ("POST /api/revoke", r#"{"jti":"a"}"#, 409),
    ("POST /api/unrevoke", r#"{"jti":"a"}"#, 409),
];

/// A connection to the separate address of the admin API.
async fn admin(server: &TestServer) -> TcpStream {
    let addr = server.admin.expect("it has an address of its own");
    soon("a connection", TcpStream::connect(addr)).await.expect("it connects")
}

#[tokio::test]
async fn without_a_token_no_request_is_served_at_the_clients_addresses_not_even_from_this_machine() {
    for change in [
        |config: &mut Config| config.http.admin_addr = "127.0.0.1:0".parse().ok(),
        // A server reachable from other machines creates no token for itself.
        |config: &mut Config| config.http.addr = "0.0.0.0:0".parse().ok(),
    ] {
        let server = server(|config| {
            config.http.admin_token = None;
            change(config);
        })
        .await;
        assert_eq!(server.admin_token, None);
        let json = "content-type: application/json";
        for (route, body, _) in ROUTES {
            // As nginx forwards requests, by default and with a Host chosen by the client.
            for host in ["host: localhost", "host: 127.0.0.1:8080", "host: quic.example"] {
                for shown in ["x-nothing: 1", &bearer(TOKEN), "authorization: Bearer"] {
                    let answer = send(plain(&server).await, route, &[host, json, shown], body).await;
                    let why = answer.refusal(403);
                    assert!(why.contains("http.admin_token") && why.contains("http.admin_addr"), "{route}: {why}");
                }
            }
            let over_tls = send(tls(&server).await, route, &["host: localhost:4433", json], body).await;
            over_tls.refusal(403);
        }
        assert_eq!(server.status.stats(0).totals.published, 0);
        server.stop().await;
    }
}

#[tokio::test]
async fn a_development_server_creates_a_token_at_each_start() {
    let mut tokens = Vec::new();
    for _ in 0..2 {
        let server = server(|config| config.http.admin_token = None).await;
        let token = server.admin_token.clone().expect("one was made");
        assert_eq!((token.len(), get(&server, "/api/stats", &[&bearer(&token)]).await.status), (32, 200));
        get(&server, "/api/stats", &["authorization: Bearer 0"]).await.refusal(401);
        tokens.push(token);
        server.stop().await;
    }
    assert_ne!(tokens[0], tokens[1]);
}

#[tokio::test]
async fn the_admin_address_needs_no_token_and_answers_only_to_names_of_this_machine() {
    let server = server(|config| config.http.admin_addr = "127.0.0.1:0".parse().ok()).await;
    let json = "content-type: application/json";
    for (path, status) in [("/dashboard", 200), ("/", 303), ("/ws", 404), ("/ice-servers", 404)] {
        let answer = send(admin(&server).await, &format!("GET {path}"), &["host: localhost"], "").await;
        assert_eq!(answer.status, status, "{path}: {answer:?}");
    }
    for (route, body, served) in ROUTES {
        for host in ["localhost", "LOCALHOST:8080", "127.0.0.1:8080", "127.9.9.9", "[::1]:8080"] {
            let answer = send(admin(&server).await, route, &[&format!("host: {host}"), json], body).await;
            assert_eq!(answer.status, served, "{route} {host}: {answer:?}");
        }
        for host in [
            "attacker.example",
            "attacker.example:8080",
            "localhost.attacker.example",
            "192.0.2.1",
            "[2001:db8::1]",
            "127.0.0.1.attacker.example",
        ] {
            let answer = send(admin(&server).await, route, &[&format!("host: {host}"), json], body).await;
            let why = answer.refusal(403);
            assert!(why.contains("http.admin_addr"), "{route} {host}: {why}");
        }
        for host in ["", "localhost@attacker.example", "a b", "localhost\r\nhost: attacker.example"] {
            let answer = send(admin(&server).await, route, &[&format!("host: {host}"), json], body).await;
            assert_eq!(answer.status, 400, "{route} {host:?}: {answer:?}");
        }
        // The authority in the request takes precedence over Host.
        let (method, path) = route.split_once(' ').expect("a method and a path");
        let line = format!("{method} http://attacker.example{path}");
        send(admin(&server).await, &line, &["host: localhost", json], body).await.refusal(403);
        for of_proxy in [
            "x-forwarded-for: 192.0.2.1",
            "forwarded: for=192.0.2.1",
            "via: 1.1 proxy",
            "x-real-ip: 192.0.2.1",
            "x-forwarded-proto: https",
        ] {
            let answer = send(admin(&server).await, route, &["host: localhost", json, of_proxy], body).await;
            answer.refusal(403);
        }
        let foreign = ["host: localhost:8080", json, "origin: https://attacker.example"];
        let why = send(admin(&server).await, route, &foreign, body).await.refusal(403);
        assert!(why.contains("Origin"), "{why}");
        send(plain(&server).await, route, &["host: localhost", json], body).await.refusal(401);
    }
    server.stop().await;
}

#[tokio::test]
async fn clients_that_use_up_all_connections_do_not_lock_the_administrator_out() {
    let server = server(|config| {
        config.http.admin_addr = "127.0.0.1:0".parse().ok();
        config.limits.max_http_connections = 1;
        config.workers = 1;
    })
    .await;
    let mut held = plain(&server).await;
    held.write_all(b"GET /").await.expect("the beginning of a request");
    // Connections are accepted in order, so the first one has the place.
    let mut second = plain(&server).await;
    assert_eq!(soon("its end", second.read(&mut [0])).await.ok().unwrap_or(0), 0, "there is one place");
    let answer = send(admin(&server).await, "GET /metrics", &["host: localhost"], "").await;
    assert_eq!(answer.status, 200, "{answer:?}");
    drop(held);
    server.stop().await;
}

#[tokio::test]
async fn with_a_token_only_requests_that_present_it_are_served() {
    let json = "content-type: application/json";
    // No more wrong tokens than an address may show at once.
    for routes in ROUTES.chunks(5) {
        let server = server(|_| {}).await;
        for &(route, body, served) in routes {
            let right = bearer(TOKEN);
            // By any name, and through a proxy.
            for host in ["host: quic.example", "host: localhost"] {
                let headers = [host, json, &right, "x-forwarded-for: 192.0.2.1"];
                let answer = send(plain(&server).await, route, &headers, body).await;
                assert_eq!(answer.status, served, "{route}: {answer:?}");
            }
            for wrong in ["x-nothing: 1", "authorization: Basic YTpi", "authorization: Bearer", &bearer(&TOKEN[1..])] {
                let answer = send(plain(&server).await, route, &["host: localhost", json, wrong], body).await;
                let why = answer.refusal(401);
                assert_eq!(answer.header("www-authenticate"), Some("Bearer"), "{answer:?}");
                assert!(why.contains("Authorization") && !why.contains(&TOKEN[1..]), "{why}");
            }
        }
        server.stop().await;
    }
}

#[tokio::test]
async fn after_too_many_guesses_no_token_is_checked() {
    let server = server(|_| {}).await;
    let show = async |token: &str| get(&server, "/metrics", &[&bearer(token)]).await;
    for n in 0..10 {
        show(&format!("wrong{n}")).await.refusal(401);
    }
    // One attempt per second is allowed, and that second may be over by now.
    soon("a refusal of the right token", async {
        loop {
            while show("wrong").await.status != 429 {}
            let answer = show(TOKEN).await;
            if answer.status == 429 {
                answer.refusal(429);
                let wait: u64 = answer.header("retry-after").and_then(|wait| wait.parse().ok()).expect("seconds");
                assert_eq!(wait, 1, "{answer:?}");
                break;
            }
            assert_eq!(answer.status, 200, "{answer:?}");
        }
    })
    .await;
    soon("a second", async {
        while show(TOKEN).await.status != 200 {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    })
    .await;
    server.stop().await;
}

#[tokio::test]
async fn pages_of_other_origins_and_forms_are_refused_with_or_without_a_token() {
    for own_address in [false, true] {
        let server = server(|config| config.http.admin_addr = "127.0.0.1:0".parse().ok()).await;
        let plain = async |server| if own_address { admin(server).await } else { plain(server).await };
        let right = if own_address { "x-nothing: 1".to_owned() } else { bearer(TOKEN) };
        let json = "content-type: application/json";
        for (route, body, served) in ROUTES {
            for origin in
                ["https://attacker.example", "null", "http://localhost", "http://localhost:8081", "localhost:8080"]
            {
                let headers = ["host: localhost:8080", json, &right, &format!("origin: {origin}")];
                let why = send(plain(&server).await, route, &headers, body).await.refusal(403);
                assert!(why.contains("Origin"), "{route} {origin}: {why}");
            }
            let own = ["host: localhost:8080", json, &right, "origin: http://localhost:8080"];
            let status = send(plain(&server).await, route, &own, body).await.status;
            assert_eq!(status, served, "{route}");
        }
        for (route, body, served) in ROUTES.into_iter().filter(|(route, ..)| route.starts_with("POST")) {
            for kind in ["content-type: text/plain", "content-type: application/x-www-form-urlencoded", "accept: */*"] {
                let why =
                    send(plain(&server).await, route, &["host: localhost", kind, &right], body).await.refusal(400);
                assert!(why.contains("Content-Type"), "{route} {kind}: {why}");
            }
            let with_charset = ["host: localhost", "content-type: Application/JSON; charset=utf-8", &right];
            let status = send(plain(&server).await, route, &with_charset, body).await.status;
            assert_eq!(status, served, "{route}");
        }
        assert_eq!(server.status.stats(0).totals.published, 2, "the pages' own, and the one with a charset");
        server.stop().await;
    }
}

#[tokio::test]
async fn other_methods_are_refused_and_no_other_paths_exist() {
    let server = server(|_| {}).await;
    let right = bearer(TOKEN);
    let json = "content-type: application/json";
    for line in ["POST /api/stats", "DELETE /metrics", "GET /api/publish", "PUT /api/disconnect"] {
        let answer = send(plain(&server).await, line, &["host: localhost", json, &right], "").await;
        answer.refusal(405);
        let answer = send(plain(&server).await, line, &["host: localhost", json], "").await;
        answer.refusal(401);
    }
    assert_eq!(get(&server, "/api/nothing", &[]).await.status, 404, "unknown paths need no token");
    assert_eq!(get(&server, "/certificate-hash", &[]).await.status, 404, "there is none here");
    server.stop().await;
}
