//! The binary's log, as text and as JSON: whatever a peer sends, a line stays one line and shows its content.

#![cfg(unix)]
#![allow(clippy::expect_used, clippy::panic)] // A test fails by panicking.

use crate::common::process::Process;
use crate::common::{RawClient, endpoint_trusting, soon, until, web_transport};
use nix::sys::signal::Signal;
use quinn::TransportConfig;
use serde_json::{Value, json};
use web_transport_quinn::http::header::AUTHORIZATION;

/// Characters that move a cursor, end a line, reverse it or end a string.
const HOSTILE: &str = "a\u{1b}[2Jb\nc\rd\u{202e}e\u{2028}f\u{85}g\u{7f}h\"i\\";
/// The part of these that a name may contain.
const NAME: &str = "\u{200f}\"Ada\" \\ <b>{}\u{200b}";
const TOKEN: &str = "eyJ0-s3cret.t0ken";

/// A server's whole log, after a client of each kind has sent everything it can, and a drain.
async fn log_of(args: &[&str]) -> String {
    let folder = tempfile::tempdir().expect("a folder");
    let args = [&["--addr", "127.0.0.1:0", "--workers", "2"], args].concat();
    let mut process = Process::start(folder.path(), &args, &[]);
    let addr = log_addr(&mut process).await;
    let ca = folder.path().join("certs/ca.pem");
    let endpoint = endpoint_trusting(&ca, &["qws/1"], TransportConfig::default());

    let mut client = RawClient::connect(&endpoint, addr).await;
    for wrong in [json!({"client_name": HOSTILE}), json!({"client_name": NAME, "token": HOSTILE})] {
        let mut handshake = json!({"type": "handshake", "protocol_version": "1.0"});
        handshake.as_object_mut().expect("an object").extend(wrong.as_object().expect("an object").clone());
        client.control.say(handshake).await;
        client.control.expect_error(400).await;
    }
    let handshake = json!({"type": "handshake", "protocol_version": "1.0", "client_name": NAME, "token": TOKEN});
    client.handshake_with(handshake).await;
    for (said, heard) in [
        (json!({"type": "text", "content": HOSTILE}), "text"),
        (json!({"type": "subscribe", "topic": "a.b", "lane": "control"}), "subscribed"),
        (json!({"type": "publish", "topic": "a.b", "content": HOSTILE}), "message"),
        (json!({"type": "broadcast", "content": HOSTILE}), "broadcast"),
        (json!({"type": HOSTILE}), "error"),
        (json!({"type": "ping", "id": HOSTILE}), "pong"),
    ] {
        client.control.say(said).await;
        client.control.expect(heard).await;
    }
    client.control.say(json!({"type": "close", "code": 4000, "reason": HOSTILE})).await;
    client.closed().await;

    let mut rude = RawClient::connect(&endpoint, addr).await;
    rude.handshake("Bob").await;
    rude.connection.close(4001_u32.into(), HOSTILE.as_bytes());
    let stranger = RawClient::connect(&endpoint, addr).await;
    stranger.connection.close(4002_u32.into(), HOSTILE.as_bytes());
    until("the end of each client", || process.stderr().matches("disconnected. Total clients: 0").count() > 0).await;
    process.signal(Signal::SIGTERM);
    assert_eq!(process.ended().await, Some(0), "{}", process.stderr());
    process.stderr()
}

/// The address in a log, as text or as JSON.
async fn log_addr(process: &mut Process) -> std::net::SocketAddr {
    let mut addr = None;
    until("the line with the address", || {
        let log = process.stderr();
        let told = log.split_once("Listening on: ").and_then(|(_, rest)| rest.split_once(['\n', '"']));
        addr = told.and_then(|(addr, _)| addr.parse().ok());
        addr.is_some()
    })
    .await;
    addr.expect("an address")
}

/// Whether a server at an address, with these settings, warns that anyone may connect to it.
async fn warns(addr: &str, environment: &[(&str, &str)]) -> bool {
    let folder = tempfile::tempdir().expect("a folder");
    let mut process = Process::start(folder.path(), &["--addr", addr], environment);
    // That is decided before anything is served.
    process.listening().await;
    process.stderr().contains("without authentication")
}

#[tokio::test]
async fn a_reachable_server_without_authentication_warns() {
    assert!(!warns("127.0.0.1:0", &[]).await, "on this machine alone");
    assert!(warns("0.0.0.0:0", &[]).await);
    assert!(warns("127.0.0.1:0", &[("QWS_HTTP__ADDR", "0.0.0.0:0")]).await, "by WebSocket alone");
    let asking = ("QWS_AUTH__KEYS", "[{algorithm='HS256',secret='a secret of more than 32 bytes, for tests'}]");
    assert!(!warns("127.0.0.1:0", &[("QWS_HTTP__ADDR", "0.0.0.0:0"), asking]).await, "clients with a token");
}

#[tokio::test]
async fn the_log_names_the_user_of_a_token() {
    let keys = format!("[{{algorithm='HS256',secret='{}'}}]", crate::common::tokens::SECRET);
    for format in ["text", "json"] {
        let folder = tempfile::tempdir().expect("a folder");
        let args = ["--addr", "127.0.0.1:0", "--log-format", format];
        let mut process = Process::start(folder.path(), &args, &[("QWS_AUTH__KEYS", &keys)]);
        let addr = log_addr(&mut process).await;
        let endpoint = endpoint_trusting(&folder.path().join("certs/ca.pem"), &["qws/1"], TransportConfig::default());
        let mut client = RawClient::connect(&endpoint, addr).await;
        let token = crate::common::tokens::token(json!({"sub": "ada\"|1", "name": NAME}));
        client.handshake_with(crate::common::tokens::handshake(&token)).await;
        until("the line", || process.stderr().contains("handshake completed")).await;
        let log = process.stderr();
        assert_shows(&log);
        let id = &client.id;
        let told = format!("Client {id} handshake completed successfully: user={:?}, name={NAME:?}", "ada\"|1");
        if format == "json" {
            let lines = objects(&log);
            let done = line(&lines, &format!("Client {id} handshake completed"));
            assert_eq!((&done["user"], &done["client"]), (&json!("ada\"|1"), &json!(id)));
            assert_eq!(done["name"], "\\u{200f}\"Ada\" \\ <b>{}\\u{200b}");
            assert_eq!(done["message"], told);
        } else {
            assert!(log.contains(&told), "{told:?} is not in\n{log}");
        }
        assert!(!log.contains(&token), "the token is in the log");
    }
}

#[tokio::test]
async fn only_a_development_server_logs_the_dashboards_address_with_a_token() {
    let told =
        |log: &str| log.split_once("/dashboard#token=").map(|(_, token)| token.chars().take(32).collect::<String>());
    let folder = tempfile::tempdir().expect("a folder");
    let started = async |args: &[&str], settings: &[(&str, &str)]| {
        let mut process = Process::start(folder.path(), args, settings);
        process.listening().await;
        process.signal(Signal::SIGTERM);
        assert_eq!(process.ended().await, Some(0), "{}", process.stderr());
        process.stderr()
    };
    let log = started(&["--addr", "127.0.0.1:0", "--http", "127.0.0.1:0"], &[]).await;
    assert!(log.contains("INFO Dashboard, with an admin token") && log.contains("http://127.0.0.1:"), "{log}");
    let first = told(&log).expect("a token");
    assert!(first.bytes().all(|b| b.is_ascii_hexdigit()), "{first}");
    let second = told(&started(&["--addr", "127.0.0.1:0"], &[]).await).expect("a token");
    assert_ne!(first, second, "each start has its own");
    for (addr, name, value) in [
        ("127.0.0.1:0", "QWS_HTTP__ADMIN_TOKEN", "0123456789abcdef"),
        ("127.0.0.1:0", "QWS_HTTP__ADMIN_ADDR", "127.0.0.1:0"),
        ("127.0.0.1:0", "QWS_HTTP__ADDR", "0.0.0.0:0"),
        ("127.0.0.1:0", "QWS_HTTP__ENABLED", "false"),
        ("0.0.0.0:0", "QWS_NAME", "reached by others"),
    ] {
        let log = started(&["--addr", addr], &[(name, value)]).await;
        assert_eq!(told(&log), None, "{name}: {log}");
        assert!(!log.contains("0123456789abcdef"), "{log}");
    }
}

/// Checks that no character of a log affects a terminal or reverses the text around it.
fn assert_shows(log: &str) {
    for line in log.lines() {
        let hidden = |c: char| c.is_control() || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}');
        assert!(!line.contains(hidden), "{line:?}");
    }
}

/// The parsed lines of a JSON log.
fn objects(log: &str) -> Vec<Value> {
    let read = |line: &str| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
    log.lines().map(read).collect()
}

/// The line that begins with this message.
fn line<'a>(lines: &'a [Value], message: &str) -> &'a Value {
    let begins = |line: &&Value| line["message"].as_str().is_some_and(|text| text.starts_with(message));
    lines.iter().find(begins).unwrap_or_else(|| panic!("no line {message:?} in {lines:#?}"))
}

#[tokio::test]
async fn a_json_log_has_one_object_per_line_with_the_message_content_as_fields() {
    let log = log_of(&["--log-format", "json", "--log-messages", "info"]).await;
    assert_shows(&log);
    let lines = objects(&log);
    for line in &lines {
        let is_text = |field: &str| line[field].as_str().is_some_and(|text| !text.is_empty());
        assert!(["timestamp", "level", "message"].into_iter().all(is_text), "{line}");
    }
    let new = line(&lines, "New connection from ");
    assert_eq!(new["level"], "INFO");
    let id = new["client"].as_str().expect("the client's id");
    let peer = new["peer"].as_str().expect("the peer's address");
    assert_eq!(new["message"], format!("New connection from {peer}, assigned ID: {id}"));
    assert!(new["worker"].as_u64().is_some_and(|worker| worker < 2), "{new}");

    let escaped = "a\\u{1b}[2Jb\\u{a}c\\u{d}d\\u{202e}e\\u{2028}f\\u{85}g\\u{7f}h\"i\\";
    let handshake = line(&lines, &format!("Handshake from client {id}: "));
    assert_eq!((&handshake["client"], &handshake["version"]), (&json!(id), &json!("1.0")));
    assert_eq!(handshake["name"], "\\u{200f}\"Ada\" \\ <b>{}\\u{200b}");
    let text = line(&lines, "Text message from ");
    assert_eq!(text["client"], id);
    assert_eq!(text["message"], format!("Text message from {id}: {escaped}"));
    let published = line(&lines, "Publish from ");
    assert_eq!((&published["client"], &published["topic"]), (&json!(id), &json!("a.b")));
    assert_eq!(line(&lines, "Broadcast message sent to ")["clients"], 1);
    let closing = line(&lines, &format!("Client {id} closing connection: "));
    assert_eq!((&closing["code"], &closing["reason"]), (&json!(4000), &json!(escaped)));
    let closed = lines.iter().find(|line| line["code"] == 4001).expect("the client that closed without a reason");
    assert_eq!(closed["reason"], escaped);
    assert!(closed["peer"].is_string() && closed["client"].is_string(), "{closed}");
}

#[tokio::test]
async fn text_lines_repeat_nothing_and_stay_one_line_each() {
    let log = log_of(&["--log-messages", "info"]).await;
    assert_shows(&log);
    let lines: Vec<_> = log.lines().map(|line| line.split_once("Z ").expect("a time").1).collect();
    let (_, told) = log.split_once("New connection from ").expect("a connection");
    let (peer, told) = told.split_once(", assigned ID: ").expect("its id");
    let (id, _) = told.split_once('\n').expect("a line");
    assert!(peer.parse::<std::net::SocketAddr>().is_ok() && id.len() == 36, "{peer:?} {id:?}");
    let escaped = "a\\u{1b}[2Jb\\u{a}c\\u{d}d\\u{202e}e\\u{2028}f\\u{85}g\\u{7f}h\"i\\";
    for expected in [
        format!(" INFO New connection from {peer}, assigned ID: {id}"),
        format!(" INFO Handshake from client {id}: name=Some({NAME:?}), version=1.0"),
        format!(" INFO Client {id} handshake completed successfully"),
        format!(" INFO Text message from {id}: {escaped}"),
        format!(" INFO Client {id} subscribes to a.b"),
        format!(" INFO Publish from {id} to a.b: {escaped}"),
        format!(" INFO Broadcast message from {id}: {escaped}"),
        format!(" INFO Client {id} closing connection: 4000 - {escaped}"),
    ] {
        assert!(lines.contains(&&*expected), "no line {expected:?} in\n{log}");
    }
    let all_begin = |line: &&str| [" INFO ", " WARN "].iter().any(|level| line.starts_with(level));
    assert!(lines.iter().all(all_begin), "{log}");
}

#[tokio::test]
async fn even_at_trace_no_token_is_logged_and_every_line_of_every_crate_is_escaped() {
    let log = log_of(&["--log-format", "json", "--log-level", "trace"]).await;
    assert!(!log.contains("s3cret"), "the token is in the log");
    assert_shows(&log);
    let lines = objects(&log);
    let of_quinn = |line: &Value| line["target"].as_str().is_some_and(|target| target.starts_with("quinn"));
    assert!(lines.iter().any(of_quinn), "the lines of other crates are there");

    let log = log_of(&["--log-level", "trace"]).await;
    assert!(!log.contains("s3cret"), "the token is in the log");
    assert_shows(&log);
    for line in log.lines() {
        let (_, line) = line.split_once("Z ").unwrap_or_else(|| panic!("a second line: {line:?}"));
        let levels = ["TRACE ", "DEBUG ", " INFO ", " WARN ", "ERROR "];
        assert!(levels.iter().any(|level| line.starts_with(level)), "{line:?}");
    }
    for fields in [" drive{id=0}", " new connection id=0 icid="] {
        assert!(log.contains(fields), "{fields:?}, of another crate, is not in\n{log}");
    }
}

#[tokio::test]
async fn message_content_is_logged_only_if_enabled() {
    for format in ["text", "json"] {
        let log = log_of(&["--log-format", format]).await;
        assert!(log.contains("closing connection: 4000"), "{log}");
        for said in ["Text message", "Publish", "Broadcast message", "s3cret"] {
            assert!(!log.contains(said), "{said:?} is in\n{log}");
        }
    }
}

#[tokio::test]
async fn the_final_error_in_a_json_log_is_json_too() {
    let folder = tempfile::tempdir().expect("a folder");
    let taken = std::net::UdpSocket::bind("127.0.0.1:0").expect("a socket");
    let addr = taken.local_addr().expect("its address").to_string();
    let mut process = Process::start(folder.path(), &["--addr", &addr], &[("QWS_LOG__FORMAT", "json")]);
    assert_eq!(process.ended().await, Some(1), "{}", process.stderr());
    let lines = objects(&process.stderr());
    let last = lines.last().expect("a line");
    assert_eq!(last["level"], "ERROR", "{last}");
    assert!(last["message"].as_str().is_some_and(|text| text.contains(&addr)), "{last}");
}

#[tokio::test]
async fn a_token_in_a_session_request_is_never_logged_at_any_level() {
    for level in ["info", "info,web_transport_quinn=trace,web_transport_proto", "trace"] {
        let folder = tempfile::tempdir().expect("a folder");
        let args = ["--addr", "127.0.0.1:0", "--workers", "2"];
        let settings = [("QWS_LOG__LEVEL", level), ("QWS_WEBTRANSPORT__SHORT_LIVED_CERTIFICATE", "false")];
        let mut process = Process::start(folder.path(), &args, &settings);
        let addr = process.listening().await;
        let endpoint = endpoint_trusting(&folder.path().join("certs/ca.pem"), &["h3"], TransportConfig::default());
        let connecting = endpoint.connect(addr, "localhost").expect("a connection begins");
        let connection = soon("a connection", connecting).await.expect("it connects");
        let bearer = format!("Bearer {TOKEN}").parse().expect("a value");
        let request = web_transport::request(addr, "/wt").with_header(AUTHORIZATION, bearer);
        let session = web_transport::ask(connection, request).await.expect("a session");
        let mut client = web_transport::over(session).await;
        client.handshake("Ada").await;
        // Without closing the session.
        client.connection.close(0x100_u32.into(), b"");
        until("the line about its end", || process.stderr().contains("disconnected")).await;
        process.signal(Signal::SIGTERM);
        process.ended().await;
        assert!(!process.stderr().contains("s3cret"), "{level}: {}", process.stderr());
    }
}
