//! The web pages that come with the server: each with its type, transferred again only if changed, and no files outside
//! them.

#![allow(clippy::expect_used, clippy::panic)] // A test fails by panicking.

use std::path::{Path, PathBuf};

use crate::common::TestServer;
use crate::common::bare::{Answer, Bare, plain};

/// Extensions of served files, and their types.
const SERVED: [(&str, &str); 7] = [
    ("html", "text/html; charset=utf-8"),
    ("js", "text/javascript; charset=utf-8"),
    ("css", "text/css; charset=utf-8"),
    ("svg", "image/svg+xml"),
    ("txt", "text/plain; charset=utf-8"),
    ("d.ts", "text/plain; charset=utf-8"),
    ("map", "application/json"),
];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("web")
}

/// The files below a folder, by their paths relative to the pages; without the thousands that are installed there for
/// tests.
fn files(folder: &Path, prefix: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).expect("the folder").map(|entry| entry.expect("an entry")) {
        let name = format!("{prefix}{}", entry.file_name().to_str().expect("a name"));
        if name == "node_modules" {
            continue;
        }
        if entry.path().is_dir() {
            found.extend(files(&entry.path(), &format!("{name}/")));
        } else {
            found.push(name);
        }
    }
    found
}

/// The type with which a file is served, if it is.
fn kind(name: &str) -> Option<&'static str> {
    if ["test/", "node_modules/"].iter().any(|private| name.starts_with(private)) {
        return None;
    }
    SERVED.iter().find(|(end, _)| name.ends_with(&format!(".{end}"))).map(|(_, kind)| *kind)
}

async fn ask(server: &TestServer, method: &str, path: &str, lines: &str) -> Answer {
    let request = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n");
    Bare::plain(server).await.ask(&request).await
}

#[tokio::test]
async fn every_page_is_served_with_its_type_and_again_only_if_it_changed() {
    let server = TestServer::start_with(plain).await;
    let mut served = 0;
    let named = [("", "index.html"), ("dashboard", "dashboard.html"), ("webrtc", "webrtc.html")];
    let all = files(&folder(), "");
    let paths = all.iter().map(|name| (name.as_str(), name.as_str()));
    for (path, name) in named.into_iter().filter(|(_, name)| all.iter().any(|file| file == name)).chain(paths) {
        let answer = ask(&server, "GET", &format!("/{path}"), "").await;
        let Some(kind) = kind(name) else {
            assert_eq!(answer.status, 404, "{name} is not served");
            continue;
        };
        served += 1;
        assert_eq!((answer.status, answer.field("content-type")), (200, Some(kind)), "/{path}: {}", answer.head);
        assert!(answer.body == std::fs::read(folder().join(name)).expect("the file"), "/{path} came changed");
        let tag = answer.field("etag").expect("a tag").to_owned();
        assert_eq!(answer.field("cache-control"), Some("no-cache"));
        assert_eq!(answer.field("access-control-allow-origin"), Some("*"), "pages elsewhere may have it, too");

        let head = ask(&server, "HEAD", &format!("/{path}"), "").await;
        assert_eq!((head.status, head.field("etag"), head.field("content-type")), (200, Some(&*tag), Some(kind)));
        assert_eq!(head.field("content-length"), Some(&*answer.body.len().to_string()));

        for known in [tag.clone(), format!("W/{tag}"), format!("\"other\", {tag}"), "*".to_owned()] {
            let same = ask(&server, "GET", &format!("/{path}"), &format!("If-None-Match: {known}\r\n")).await;
            assert_eq!((same.status, same.field("etag")), (304, Some(&*tag)), "/{path} is known as {known}");
            assert!(same.body.is_empty());
        }
        for other in ["\"other\"", "W/\"other\"", tag.trim_matches('"')] {
            let changed = ask(&server, "GET", &format!("/{path}"), &format!("If-None-Match: {other}\r\n")).await;
            assert_eq!(changed.status, 200, "/{path} is not known as {other}");
        }
        let queried = ask(&server, "GET", &format!("/{path}?room=1"), "").await;
        assert_eq!(queried.status, 200, "a query is the page's affair");
    }
    assert!(served > 1, "there are pages to serve");
    server.stop().await;
}

#[tokio::test]
async fn every_response_forbids_foreign_scripts_and_frames() {
    let server = TestServer::start_with(plain).await;
    for (method, path, status) in
        [("GET", "/", 200), ("HEAD", "/", 200), ("GET", "/none", 404), ("POST", "/", 405), ("GET", "/ws", 400)]
    {
        let answer = ask(&server, method, path, "").await;
        assert_eq!(answer.status, status, "{method} {path}");
        let policy = answer.field("content-security-policy").expect("a policy");
        for part in
            ["default-src 'self'", "base-uri 'none'", "frame-ancestors 'none'", "connect-src 'self' https: wss: ws:"]
        {
            assert!(policy.contains(part), "{method} {path}: {policy}");
        }
        assert!(!policy.contains("script-src"), "scripts come from here alone: {policy}");
        assert_eq!(answer.field("x-content-type-options"), Some("nosniff"), "{method} {path}");
        assert_eq!(answer.field("referrer-policy"), Some("no-referrer"), "{method} {path}");
        if status == 405 {
            assert_eq!(answer.field("allow"), Some("GET, HEAD"));
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn nothing_but_the_pages_is_served() {
    let server = TestServer::start_with(plain).await;
    let absolute = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
    for path in [
        "/../Cargo.toml",
        "/../README.md",
        "/../docs/quic-websocket.toml",
        "/../examples/common/mod.rs",
        "/..%2fCargo.toml",
        "/%2e%2e/Cargo.toml",
        "/%2e%2e%2fCargo.toml",
        "/..\\Cargo.toml",
        "/..%5cCargo.toml",
        "/./../web/../Cargo.toml",
        "/vendor/../../Cargo.toml",
        &format!("/{}", absolute.display()),
        "//etc/hostname",
        "/package.json",
        "/package-lock.json",
        "/README.md",
        "/test/",
        "/test/pages.test.js",
        "/./test/pages.test.js",
        "/vendor/../test/pages.test.js",
        "/vendor//../test/pages.test.js",
        "/./qws.js",
        "//qws.js",
        "/vendor//uPlot.esm.js",
        "/.gitignore",
        "/index.html/",
        "/index.html%00.js",
        "/index",
        "/none.html",
    ] {
        let answer = ask(&server, "GET", path, "").await;
        assert!([400, 404].contains(&answer.status), "{path}: {answer:?}");
        assert!(!String::from_utf8_lossy(&answer.body).contains("[package]"), "{path}: {answer:?}");
    }
    assert!(Path::new("web/test/pages.test.js").exists(), "the requested file exists");
    // A file with a page's extension elsewhere: the folder's own path does not help.
    let outside = tempfile::Builder::new().suffix(".html").tempfile_in(env!("CARGO_MANIFEST_DIR")).expect("a file");
    let name = outside.path().file_name().expect("a name").to_str().expect("text").to_owned();
    for path in [format!("/../{name}"), format!("/vendor/../../{name}"), outside.path().display().to_string()] {
        assert_eq!(ask(&server, "GET", &path, "").await.status, 404, "{path}");
    }
    server.stop().await;
}

#[tokio::test]
async fn a_request_names_its_host_exactly_once() {
    let server = TestServer::start_with(plain).await;
    for (lines, status) in [
        ("HTTP/1.1\r\n", 400),
        ("HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n", 400),
        ("HTTP/1.1\r\nHost: \r\n", 400),
        ("HTTP/1.1\r\nHost: localhost\r\n", 200),
        ("HTTP/1.0\r\n", 200),
    ] {
        let answer = Bare::plain(&server).await.ask(&format!("GET /qws.js {lines}\r\n")).await;
        assert_eq!(answer.status, status, "{lines:?}: {answer:?}");
    }
    for (hosts, status) in [("", 400), ("Host: localhost\r\n", 200), ("Host: a\r\nHost: a\r\n", 400)] {
        let whole = format!("GET http://localhost/qws.js HTTP/1.1\r\n{hosts}\r\n");
        assert_eq!(Bare::plain(&server).await.ask(&whole).await.status, status, "{hosts:?}");
    }
    server.stop().await;
}

#[tokio::test]
async fn several_requests_may_share_a_connection_also_over_tls() {
    let server = TestServer::start_with(plain).await;
    let request = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let mut connection = Bare::plain(&server).await;
    connection.send(request.repeat(3).as_bytes()).await;
    let first = connection.answer(true).await;
    for _ in 0..2 {
        assert_eq!(connection.answer(true).await.body, first.body);
    }
    assert_eq!(Bare::tls(&server).await.ask(request).await.body, first.body);
    server.stop().await;
}
