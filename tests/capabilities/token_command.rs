//! `quic-websocket token` creates tokens that a server accepts, and explains tokens.

#![allow(clippy::expect_used, clippy::panic)] // A test fails by panicking.

use std::path::Path;
use std::process::{Command, Output};

use crate::common::TestServer;
use crate::common::tokens::{SECRET, asking, handshake, token};
use serde_json::json;

fn run(folder: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_quic-websocket")).current_dir(folder).args(args).output().expect("it runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("UTF-8")
}

/// A folder with a server's configuration.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let config = format!("[auth]\n[[auth.keys]]\nid = 'k1'\nalgorithm = 'HS256'\nsecret = '{SECRET}'\n");
    std::fs::write(folder.path().join("qws.toml"), config).expect("written");
    folder
}

#[tokio::test]
async fn a_minted_token_is_accepted_and_explained() {
    let folder = folder();
    let mint = [
        "token",
        "mint",
        "--config",
        "qws.toml",
        "--sub",
        "ada",
        "--name",
        "Ada",
        "--publish",
        "chat.>",
        "--subscribe",
        "chat.>",
        "--subscribe",
        "news",
        "--subscribe",
        "room.${user}.>",
        "--subscriptions",
        "user.${user}.>",
        "--info",
        "{\"n\" :9007199254740993}",
        "--direct",
        "--max-rate",
        "50",
        "--expires",
        "15m",
    ];
    let minted = run(folder.path(), &mint);
    assert!(minted.status.success(), "{}", text(&minted.stderr));
    let token = text(&minted.stdout);
    let settings = asking("");
    let server = TestServer::start_with(|config| config.auth = settings).await;
    let mut client = server.stranger().await;
    let response = client.handshake_with(handshake(token.trim())).await;
    assert_eq!((&response["user"], &response["client_name"]), (&json!("ada"), &json!("Ada")));
    assert_eq!(response["subscriptions"], json!(["user.ada.>"]));
    assert_eq!(response["info"].to_string(), "{\"n\":9007199254740993}");
    server.stop().await;

    let explained = run(folder.path(), &["token", "explain", token.trim(), "--config", "qws.toml"]);
    let told = text(&explained.stdout);
    assert!(explained.status.success(), "{told}");
    for line in [
        "signed:  HS256, key k1 named",
        "\"sub\": \"ada\"",
        "server:  accepts it",
        "user:    ada",
        "name:    Ada",
        "may:     publish to chat.>",
        "subscribe to chat.> news room.ada.> user.ada.>",
        "is subscribed to user.ada.>",
        "\"iat\": 1",
        "send to single clients, signal to single clients, list the connected clients",
    ] {
        assert!(told.contains(line), "{line} is missing in\n{told}");
    }
    let unasked = run(folder.path(), &["token", "explain", token.trim()]);
    assert!(unasked.status.success() && text(&unasked.stdout).contains("server:  not checked"));
}

#[test]
fn a_refused_token_is_explained_with_the_reason() {
    let folder = folder();
    let expired = token(json!({"exp": 1_000_000_000, "name": "a\u{1b}[31m"}));
    let explained = run(folder.path(), &["token", "explain", &expired, "--config", "qws.toml"]);
    let told = text(&explained.stdout);
    assert_eq!(explained.status.code(), Some(1), "{told}");
    assert!(told.contains("refuses it: token: it has expired (exp)"), "{told}");
    assert!(!told.contains('\u{1b}'), "nothing in a token acts on the terminal");
    for (rubbish, says) in [
        ("rubbish", "not a JSON Web Token"),
        ("a.b.c.d.e", "it is encrypted (JWE)"),
        ("eyJhbGciOiJub25lIn0.e30.", "none, no key named (unsupported algorithm)"),
        ("eyJhbGciOiJSUzUxMiJ9.e30.AA", "RS512, no key named (unsupported algorithm)"),
    ] {
        for config in [&[][..], &["--config", "qws.toml"]] {
            let explained = run(folder.path(), &[&["token", "explain", rubbish], config].concat());
            assert_eq!(explained.status.code(), Some(1), "{rubbish} {config:?}");
            assert!(text(&explained.stdout).contains(says), "{rubbish}: {}", text(&explained.stdout));
        }
    }
}

#[test]
fn a_revoked_token_is_explained_as_such() {
    let folder = folder();
    let config =
        format!("[auth]\nrevocations_file = 'revoked.json'\n[[auth.keys]]\nalgorithm = 'HS256'\nsecret = '{SECRET}'\n");
    std::fs::write(folder.path().join("revoking.toml"), config).expect("written");
    let explain = |id: &str| {
        let token = token(json!({ "jti": id }));
        let explained = run(folder.path(), &["token", "explain", &token, "--config", "revoking.toml"]);
        text(&explained.stdout)
    };
    assert!(explain("a").contains("accepts it"), "there is no file yet");
    let revoked = json!({"version": 1, "revocations": [{"jti": "a"}]});
    std::fs::write(folder.path().join("revoked.json"), revoked.to_string()).expect("written");
    let told = explain("a");
    assert!(told.contains("refuses it: token: it was revoked"), "{told}");
    assert!(explain("b").contains("accepts it"));
}

#[cfg(target_os = "linux")]
#[test]
fn an_output_that_accepts_nothing_is_a_readable_error() {
    let folder = folder();
    for args in [
        &["token", "mint", "--config", "qws.toml", "--sub", "ada"][..],
        &["token", "explain", "rubbish"],
        &["certs", "--dir", "certs"],
    ] {
        let full = std::fs::File::options().write(true).open("/dev/full").expect("the full disk");
        let mut command = Command::new(env!("CARGO_BIN_EXE_quic-websocket"));
        let refused = command.current_dir(folder.path()).args(args).stdout(full).output().expect("it runs");
        let told = text(&refused.stderr);
        assert_eq!(refused.status.code(), Some(1), "{args:?}: {told}");
        assert!(told.contains("cannot write to standard output"), "{args:?}: {told}");
    }
}

#[test]
fn claims_that_cannot_be_signed_are_reported() {
    let folder = folder();
    std::fs::write(folder.path().join("short"), "short").expect("written");
    let encrypted = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIIB\n-----END ENCRYPTED PRIVATE KEY-----\n";
    std::fs::write(folder.path().join("encrypted"), encrypted).expect("written");
    for (args, expected) in [
        (&["--sub", "ada"][..], "no key to sign with"),
        (&["--sub", "ada", "--secret-file", "short"], "5 bytes are too few for HS256; use at least 32"),
        (&["--sub", "ada", "--secret-file", "gone"], "cannot read the key gone: there is no such file"),
        (&["--sub", "ada", "--private-key", "short"], "short: not a private key for EdDSA in PEM"),
        (&["--sub", "ada", "--config", "qws.toml", "--publish", "a..b"], "topic: use A-Z a-z 0-9"),
        (&["--sub", "ada", "--config", "qws.toml", "--expires", "soon"], "a number with s, m, h or d"),
        (&["--sub", "ada", "--config", "qws.toml", "--expires", "0s"], "valid for no time"),
        (&["--sub", "ada", "--config", "qws.toml", "--expires", "0d"], "valid for no time"),
        (&["--sub", "ada", "--config", "qws.toml", "--expires", "1h", "--not-before", "1h"], "expires (exp) before"),
        (&["--sub", "", "--config", "qws.toml"], "its claim sub is out of bounds"),
        (&["--sub", "ada ", "--config", "qws.toml"], "its claim sub is out of bounds"),
        (&["--sub", "ad\u{200b}a", "--config", "qws.toml"], "its claim sub is out of bounds"),
        (&["--sub", &"x".repeat(129), "--config", "qws.toml"], "its claim sub is out of bounds"),
        (&["--sub", "ada", "--name", "", "--config", "qws.toml"], "its claim name is out of bounds"),
        (&["--sub", "ada", "--private-key", "encrypted"], "encrypted: its private key is encrypted"),
    ] {
        let refused = run(folder.path(), &[&["token", "mint"], args].concat());
        let told = text(&refused.stderr);
        assert!(!refused.status.success() && told.contains(expected), "{args:?}: {told}");
        assert!(refused.stdout.is_empty(), "{args:?}");
    }
}
