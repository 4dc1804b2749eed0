//! The binary: its certificates, its settings and their sources, and its messages about wrong ones.

#![cfg(unix)]
#![allow(clippy::expect_used, clippy::panic)] // A test fails by panicking.

use std::net::UdpSocket;
use std::os::unix::fs::PermissionsExt;

use crate::common::bare::{Bare, opening};
use crate::common::process::Process;
use crate::common::{RawClient, TestServer, endpoint_trusting, soon};
use nix::sys::signal::Signal;
use quinn::TransportConfig;
use serde_json::json;

#[tokio::test]
async fn missing_certificates_are_created_once_and_reported() {
    let folder = tempfile::tempdir().expect("a folder");
    let [ca, cert, key] = ["ca.pem", "server.pem", "server-key.pem"].map(|name| folder.path().join("certs").join(name));
    let mut contents = Vec::new();
    for first in [true, false] {
        let mut process = Process::start(folder.path(), &["--addr", "127.0.0.1:0"], &[]);
        let addr = process.listening().await;
        let log = process.stderr();
        assert_eq!(log.contains("No certificates found"), first, "{log}");
        assert_eq!(log.contains("certs/ca.pem"), first, "clients need to know what to trust: {log}");
        let mut client =
            RawClient::connect(&endpoint_trusting(&ca, &["qws/1"], TransportConfig::default()), addr).await;
        client.handshake("Ada").await;
        client.control.say(json!({"type": "text", "content": "hi"})).await;
        client.control.expect("text").await;
        contents.push([&ca, &cert, &key].map(|path| std::fs::read(path).expect("the file")));
        let mode = std::fs::metadata(&key).expect("the key").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "the key is for its owner alone");
    }
    assert!(contents[0] == contents[1], "certificates that are there are kept");
}

#[tokio::test]
async fn development_certificates_are_created_in_the_folder_from_the_environment() {
    let folder = tempfile::tempdir().expect("a folder");
    let [here, elsewhere] = ["here", "elsewhere"].map(|name| folder.path().join(name));
    std::fs::create_dir(&here).expect("a folder");
    let named = [("QUIC_WEBSOCKET_CERTS", elsewhere.to_str().expect("text"))];
    let mut process = Process::start(&here, &["--addr", "127.0.0.1:0"], &named);
    process.listening().await;
    assert!(elsewhere.join("ca.pem").exists() && elsewhere.join("server-key.pem").exists(), "{}", process.stderr());
    assert!(!here.join("certs").exists(), "and in no other folder");
}

#[tokio::test]
async fn a_certificate_without_its_key_is_refused_and_kept() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(folder.path().join("certs")).expect("a folder");
    std::fs::write(folder.path().join("certs/server.pem"), "mine").expect("written");
    let mut process = Process::start(folder.path(), &["--addr", "127.0.0.1:0"], &[]);
    assert_eq!(process.ended().await, Some(1));
    assert!(process.stderr().contains("certs/server-key.pem does not; restore it"), "{}", process.stderr());
    assert_eq!(std::fs::read_to_string(folder.path().join("certs/server.pem")).expect("the file"), "mine");
}

#[tokio::test]
async fn certs_creates_certificates_for_a_name_and_replaces_none_unless_forced() {
    let folder = tempfile::tempdir().expect("a folder");
    let make = async |args: &[&str]| {
        let mut process = Process::start(folder.path(), &[&["certs", "--dir", "mine"], args].concat(), &[]);
        (process.ended().await, process.stdout(), process.stderr())
    };
    let read = || std::fs::read(folder.path().join("mine/server.pem")).expect("the certificate");

    let (code, said, _) = make(&["--name", "chat.example", "--name", "192.0.2.7"]).await;
    assert_eq!(code, Some(0), "{said}");
    for expected in ["chat.example", "192.0.2.7", "localhost", "mine/ca.pem", "mine/server.pem", "mine/server-key.pem"]
    {
        assert!(said.contains(expected), "{expected} is in: {said}");
    }
    let first = read();

    let (code, _, error) = make(&[]).await;
    assert_eq!(code, Some(1));
    assert!(error.contains("mine/ca.pem already exists") && error.contains("--force"), "{error}");
    assert!(read() == first, "the certificate was not touched");

    assert_eq!(make(&["--force", "--name", "chat.example"]).await.0, Some(0));
    assert!(read() != first, "the certificate was replaced");

    let args = ["--addr", "127.0.0.1:0", "--cert", "mine/server.pem", "--key", "mine/server-key.pem"];
    let mut process = Process::start(folder.path(), &args, &[]);
    let addr = process.listening().await;
    let endpoint = endpoint_trusting(&folder.path().join("mine/ca.pem"), &["qws/1"], TransportConfig::default());
    for (name, believed) in [("chat.example", true), ("localhost", true), ("other.example", false)] {
        let connected = soon("an answer", endpoint.connect(addr, name).expect("it begins")).await;
        assert_eq!(connected.is_ok(), believed, "as {name}: {connected:?}");
    }
}

#[tokio::test]
async fn a_port_in_use_is_a_readable_error() {
    let server = TestServer::start().await;
    let alone = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    for addr in [server.addr, alone.local_addr().expect("its address")] {
        for workers in ["1", "3"] {
            let folder = tempfile::tempdir().expect("a folder");
            let args = ["--addr", &addr.to_string(), "--workers", workers];
            let mut process = Process::start(folder.path(), &args, &[]);
            assert_eq!(process.ended().await, Some(1), "{addr} is taken");
            let error = process.stderr();
            assert!(error.contains(&format!("Error: cannot listen on UDP {addr}")), "{error}");
            assert!(error.contains("another program") && error.contains("--addr"), "what to do: {error}");
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn a_wrong_setting_is_named_whatever_its_source() {
    let file = |text| ("settings.toml", text);
    // Arguments, environment, file; exit code; text that the error contains.
    for (args, environment, (name, text), code, named) in [
        (vec!["--addr", "nonsense"], vec![], file(""), 2, "--addr"),
        (vec!["--addr", "localhost:1"], vec![], file(""), 2, "such as 127.0.0.1:1 or [::1]:1"),
        (vec!["--http", "8080"], vec![], file(""), 2, "127.0.0.1:8080"),
        (vec!["--workers=-1"], vec![], file(""), 2, "--workers"),
        (vec!["--workers", "two"], vec![], file(""), 2, "expected a whole number"),
        (vec!["--wrokers", "1"], vec![], file(""), 2, "--wrokers"),
        (vec!["--log-messages", "loud"], vec![], file(""), 2, "--log-messages"),
        (vec!["--workers", "257"], vec![], file(""), 1, "--workers: setting workers = 257: expected 0 to 256"),
        (vec!["--max-clients", "0"], vec![], file(""), 1, "limits.max_clients = 0"),
        (vec!["--log-level", "info,,=="], vec![], file(""), 1, "log.level"),
        (vec!["--log-level", "verbose"], vec![], file(""), 1, "log.level"),
        (vec!["--config", "absent.toml"], vec![], file(""), 1, "absent.toml: there is no such file"),
        (vec!["--config", "."], vec![], file(""), 1, "it is a folder"),
        (vec!["--strict"], vec![("QWS_FOO", "1")], file(""), 1, "qws_foo"),
        (vec!["--strict"], vec![("QWS_LIMITS__MAX_CLINTS", "5")], file(""), 1, "did you mean qws_limits__max_clients?"),
        (
            vec!["--strict"],
            vec![],
            file("[[topics]]\npattern = '>'\n[[topics]]\npattern = 'a'"),
            1,
            "line 3: setting topics[1]",
        ),
        (vec!["--addr", "192.0.2.1:0"], vec![], file(""), 1, "this machine does not have that address"),
        (vec![], vec![("RUST_LOG", "a=b=c")], file(""), 1, "RUST_LOG"),
        (vec![], vec![("QWS_WORKERS", "many")], file(""), 1, "setting workers"),
        (vec![], vec![("QWS_ADDR", "nonsense")], file(""), 1, "setting addr"),
        (vec![], vec![("QWS_LIMITS__MAX_CLIENTS", "many")], file(""), 1, "setting limits.max_clients"),
        (vec![], vec![("QWS_LIMITS__MAX_CLIENTS", "-5")], file(""), 1, "setting limits.max_clients"),
        (vec![], vec![("QWS_HTTP__ORIGINS", "https://app.example/chat")], file(""), 1, "https://app.example"),
        (vec![], vec![("QWS_QUIC__CONGESTION", "reno")], file(""), 1, "setting quic.congestion"),
        (
            vec![],
            vec![("QWS_QUIC__IDLE_TIMEOUT_MS", "100")],
            file(""),
            1,
            "quic.idle_timeout_ms = 100: expected 35001 to",
        ),
        (vec![], vec![], file("workers = 'two'"), 1, "workers"),
        (vec![], vec![], file("workers ="), 1, "settings.toml"),
        (
            vec![],
            vec![],
            file("[limits]\nmax_clinets = 5"),
            1,
            "line 2: there is no setting limits.max_clinets; did you",
        ),
        (
            vec![],
            vec![],
            file("[[topics]]\npriority = 5"),
            1,
            "settings.toml, line 1: setting topics[0]: pattern is missing",
        ),
        (
            vec![],
            vec![],
            file("[timing]\nping_interval_ms = 0"),
            1,
            "line 2: setting timing.ping_interval_ms = 0: expected 10 to",
        ),
    ] {
        let folder = tempfile::tempdir().expect("a folder");
        let mut args = args.clone();
        if !text.is_empty() {
            std::fs::write(folder.path().join(name), text).expect("written");
            args.extend(["--config", name]);
        }
        let mut process = Process::start(folder.path(), &args, &environment);
        let case = format!("{args:?} {environment:?} {text:?}");
        assert_eq!(process.ended().await, Some(code), "{case}: {}", process.stderr());
        let error = process.stderr().to_lowercase();
        assert!(!error.contains("u64") && !error.contains("sequence"), "{case} is in plain words: {error}");
        assert!(error.contains("error") && error.contains(&named.to_lowercase()), "{case} names {named}: {error}");
        assert!(!folder.path().join("certs").exists(), "{case}: nothing was begun");
    }
}

#[tokio::test]
async fn unknown_variables_cause_a_warning_and_change_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    // As Kubernetes sets them for a service named qws.
    let environment = [
        ("QWS_PORT", "tcp://10.0.0.7:4433"),
        ("QWS_SERVICE_HOST", "10.0.0.7"),
        ("QWS_PORT_4433_TCP_ADDR", "10.0.0.7"),
        ("QWS_LOG__LEVEL", ""),
        ("QWS_NAME", "4711"),
        ("QWS_HTTP__ADMIN_TOKEN", "1234567890123456"),
        ("QWS_HTTP__ECHO", "True"),
        ("QWS_HTTP__PROXIES", "10.0.0.0/8,192.0.2.7"),
    ];
    let mut process = Process::start(folder.path(), &["--addr", "127.0.0.1:0"], &environment);
    process.listening().await;
    let log = process.stderr();
    let warning = log.lines().find(|line| line.contains("WARN") && line.contains("QWS_")).expect("a warning");
    for named in ["QWS_PORT", "QWS_SERVICE_HOST", "QWS_PORT_4433_TCP_ADDR"] {
        assert!(warning.contains(named), "{named}: {log}");
    }
    assert!(!warning.contains("QWS_LOG__LEVEL") && log.contains("Starting QUIC WebSocket server: 4711"), "{log}");
}

#[tokio::test]
async fn sighup_applies_changeable_settings_and_names_the_others() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("settings.toml");
    std::fs::write(&file, "[http]\norigins = ['https://a.example']").expect("written");
    let args = ["--addr", "127.0.0.1:0", "--http", "127.0.0.1:0", "--config", "settings.toml", "--name", "fixed"];
    let mut process = Process::start(folder.path(), &args, &[]);
    process.listening().await;
    let mut plain = None;
    crate::common::until("the address without TLS", || {
        let log = process.stderr();
        let line = log.split_once("on this machine only: http://").and_then(|(_, rest)| rest.split_once('\n'));
        plain = line.and_then(|(addr, _)| addr.parse::<std::net::SocketAddr>().ok());
        plain.is_some()
    })
    .await;
    let status = async |origin: &str| {
        let lines = format!("Origin: {origin}");
        let request = opening("/ws", &[&lines]);
        let stream = tokio::net::TcpStream::connect(plain.expect("an address")).await.expect("it connects");
        Bare { stream: Box::new(stream) }.ask(&request).await.status
    };
    assert_eq!((status("https://a.example").await, status("https://b.example").await), (101, 403));

    std::fs::write(&file, "name = 'other'\n[http]\norigins = ['https://b.example']\n[limits]\nmax_clients = 5")
        .expect("written");
    process.signal(Signal::SIGHUP);
    crate::common::until("what has to wait", || {
        process.stderr().contains("that require a restart: limits.max_clients\n")
    })
    .await;
    assert!(process.stderr().contains("now in use: http.origins\n"), "{}", process.stderr());
    assert_eq!((status("https://a.example").await, status("https://b.example").await), (403, 101));

    std::fs::write(&file, "[http]\norigins = ['b.example']").expect("written");
    process.signal(Signal::SIGHUP);
    crate::common::until("the error", || process.stderr().contains("settings.toml, line 2: setting http.origins[0]"))
        .await;
    assert!(process.stderr().contains("the settings cannot be used; the old ones stay in use"), "{}", process.stderr());
    assert_eq!(status("https://b.example").await, 101, "nothing has changed");
}

#[tokio::test]
async fn rust_log_overrides_the_flag_which_overrides_the_file() {
    // A key for tokens is missing, so the process exits by itself, after its warning about certificates.
    let keys = "[[auth.keys]]\nalgorithm = 'ES256'\npublic_key = 'missing.pem'\n";
    for (rust_log, flag, file, warns) in [
        (None, None, None, true),
        (Some("error"), None, None, false),
        (None, Some("error"), None, false),
        (None, None, Some("error"), false),
        (Some("warn"), Some("error"), None, true),
        (Some("error"), Some("warn"), None, false),
        (None, Some("warn"), Some("error"), true),
    ] {
        let folder = tempfile::tempdir().expect("a folder");
        let mut args = vec!["--addr", "127.0.0.1:0", "--config", "settings.toml"];
        args.extend(flag.iter().flat_map(|level| ["--log-level", level]));
        let text = file.map_or(String::new(), |level| format!("[log]\nlevel = '{level}'\n"));
        std::fs::write(folder.path().join("settings.toml"), text + keys).expect("written");
        let environment: Vec<_> = rust_log.iter().map(|&level| ("RUST_LOG", level)).collect();
        let mut process = Process::start(folder.path(), &args, &environment);
        process.ended().await;
        let warned = process.stderr().contains("WARN");
        assert_eq!(warned, warns, "RUST_LOG {rust_log:?}, flag {flag:?}, file {file:?}: {}", process.stderr());
    }
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn the_configured_number_of_workers_runs() {
    let cores = std::thread::available_parallelism().expect("the number of cores").get();
    for (flag, expected) in [("1", 1), ("3", 3), ("0", cores)] {
        let folder = tempfile::tempdir().expect("a folder");
        let mut process = Process::start(folder.path(), &["--addr", "127.0.0.1:0", "--workers", flag], &[]);
        process.listening().await;
        let pid = process.pid();
        let workers = || {
            let threads = std::fs::read_dir(format!("/proc/{pid}/task")).expect("its threads");
            let names = threads.flatten().filter_map(|thread| std::fs::read_to_string(thread.path().join("comm")).ok());
            names.filter(|name| name.starts_with("worker-")).count()
        };
        crate::common::until(&format!("{expected} workers with --workers {flag}"), || workers() == expected).await;
        process.signal(Signal::SIGTERM);
        assert_eq!(process.ended().await, Some(0), "{}", process.stderr());
    }
}
