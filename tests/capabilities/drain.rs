//! A server that is told to stop disconnects its clients in good order, and exits; told twice, it exits at once.

#![cfg(unix)]
#![allow(clippy::expect_used, clippy::panic)] // A test fails by panicking.

use crate::common::over::{Over, Party};
use crate::common::process::Process;
use crate::common::{PATIENCE, RawClient, TestServer, endpoint_trusting, soon, web_socket};
use nix::sys::signal::Signal;
use quic_websocket::tls::Trust;
use quic_websocket::{Client, Event};
use quinn::{ConnectionError, TransportConfig};
use serde_json::json;

/// Settings with which a client that does not read is stuck after a few messages.
fn narrow() -> TransportConfig {
    let mut transport = TransportConfig::default();
    transport.stream_receive_window(2000_u32.into());
    transport
}

/// Requests more than the window of a narrow client can hold, and reads nothing of it.
async fn clog(client: &mut RawClient) {
    for _ in 0..20 {
        client.control.say(json!({"type": "text", "content": "x".repeat(1000)})).await;
    }
}

#[tokio::test]
async fn each_termination_signal_closes_clients_and_exits_with_success() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let folder = tempfile::tempdir().expect("a folder");
        let mut process = Process::start(folder.path(), &["--addr", "127.0.0.1:0", "--workers", "2"], &[]);
        let addr = process.listening().await;
        let mut clients = Vec::new();
        for name in ["Ada", "Bob", "Cleo"] {
            let endpoint =
                endpoint_trusting(&folder.path().join("certs/ca.pem"), &["qws/1"], TransportConfig::default());
            let mut client = RawClient::connect(&endpoint, addr).await;
            client.handshake(name).await;
            clients.push(client);
        }
        process.signal(signal);
        for client in &mut clients {
            let close = client.expect_close(1001).await;
            assert!(close["reconnect_after_ms"].as_u64().is_some_and(|ms| ms <= 10_000), "{signal}: {close}");
        }
        assert_eq!(process.ended().await, Some(0), "exit code after {signal}: {}", process.stderr());
        assert!(process.stderr().contains(&format!("{signal}: draining")), "{}", process.stderr());
    }
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_hangup_ends_the_server_if_its_terminal_is_gone() {
    use std::io::Read;
    use std::os::unix::fs::OpenOptionsExt;
    use std::process::Stdio;

    use nix::fcntl::OFlag;
    use nix::pty::{grantpt, posix_openpt, ptsname_r, unlockpt};
    use nix::sys::signal::kill;
    use nix::unistd::Pid;

    let folder = tempfile::tempdir().expect("a folder");
    // The server must not inherit this end.
    let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let mut terminal = posix_openpt(flags).expect("a terminal");
    grantpt(&terminal).and_then(|()| unlockpt(&terminal)).expect("a terminal for this user");
    let its_end = std::fs::OpenOptions::new()
        .write(true)
        .custom_flags(OFlag::O_NOCTTY.bits())
        .open(ptsname_r(&terminal).expect("its name"))
        .expect("the other end of the terminal");
    let mut child = tokio::process::Command::new(env!("CARGO_BIN_EXE_quic-websocket"))
        .current_dir(folder.path())
        .args(["--addr", "127.0.0.1:0", "--workers", "1"])
        .env_remove("RUST_LOG")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::from(its_end))
        .kill_on_drop(true)
        .spawn()
        .expect("the binary starts");
    let pid = Pid::from_raw(i32::try_from(child.id().expect("it runs")).expect("a process id"));
    let shown = tokio::task::spawn_blocking(move || {
        let (mut all, mut buffer) = (String::new(), [0; 1000]);
        while !all.contains("Listening on") {
            let length = terminal.read(&mut buffer).expect("its terminal output");
            all.push_str(&String::from_utf8_lossy(&buffer[..length]));
        }
        terminal
    });
    drop(soon("the line with the address", shown).await.expect("no panic"));
    kill(pid, Signal::SIGHUP).expect("it runs");
    let ended = soon("the end of the process", child.wait()).await.expect("its state");
    assert_eq!(ended.code(), Some(0), "it drains, and output that cannot be written does not end it");
}

#[tokio::test]
async fn a_second_signal_ends_a_drain_delayed_by_a_client() {
    let folder = tempfile::tempdir().expect("a folder");
    let longer_than_the_test = (3 * PATIENCE).as_millis().to_string();
    let environment = [("QWS_ADDR", "127.0.0.1:0"), ("QWS_TIMING__DRAIN_TIMEOUT_MS", &longer_than_the_test)];
    let mut process = Process::start(folder.path(), &[], &environment);
    let addr = process.listening().await;
    let ca = folder.path().join("certs/ca.pem");
    let mut stuck = RawClient::connect(&endpoint_trusting(&ca, &["qws/1"], narrow()), addr).await;
    stuck.handshake("stuck").await;
    clog(&mut stuck).await;
    let endpoint = endpoint_trusting(&ca, &["qws/1"], TransportConfig::default());
    let mut neighbour = RawClient::connect(&endpoint, addr).await;
    neighbour.handshake("neighbour").await;

    process.signal(Signal::SIGTERM);
    neighbour.expect_close(1001).await;
    let refused = soon("an answer", endpoint.connect(addr, "localhost").expect("it begins")).await;
    assert!(refused.is_err(), "a draining server accepts no clients, and reports it");
    assert!(process.is_running(), "the stuck client is still owed its messages: {}", process.stderr());
    process.signal(Signal::SIGINT);
    assert_eq!(process.ended().await, Some(1), "{}", process.stderr());
    assert!(process.stderr().contains("SIGINT again: exiting at once"), "{}", process.stderr());
}

#[tokio::test]
async fn queued_messages_are_sent_before_the_close() {
    let server = TestServer::start().await;
    let mut late_readers = Vec::new();
    let narrow_reader = RawClient::connect(&server.endpoint_with(narrow()), server.addr).await;
    for mut late_reader in [narrow_reader.into(), web_socket::open_narrow(&server).await.into()] {
        Party::handshake(&mut late_reader, "late reader").await;
        late_readers.push(late_reader);
    }
    let mut sender = server.client("sender").await;
    for n in 0..50 {
        sender.control.say(json!({"type": "broadcast", "id": n, "content": format!("{n} {}", "x".repeat(5000))})).await;
        sender.control.expect("broadcast").await;
        assert_eq!(sender.control.expect("ok").await["delivered"], 3);
    }
    server.drain();
    sender.expect_close(1001).await;
    for late_reader in &mut late_readers {
        for n in 0..50 {
            let heard = late_reader.control.expect("broadcast").await;
            assert!(heard["content"].as_str().is_some_and(|text| text.starts_with(&format!("{n} "))), "{n}: {heard}");
        }
        late_reader.expect_close(1001).await;
    }
    server.stop().await;
}

#[tokio::test]
async fn a_client_that_does_not_read_delays_the_drain_only_until_its_timeout() {
    let server = TestServer::start_with(|config| config.timing.drain_timeout_ms = 300).await;
    let mut stuck = RawClient::connect(&server.endpoint_with(narrow()), server.addr).await;
    stuck.handshake("stuck").await;
    clog(&mut stuck).await;
    let unannounced = RawClient::connect(&server.endpoint(), server.addr).await;
    // Until its last packet has arrived, QUIC cannot send the code (RFC 9000 section 10.2.3).
    crate::common::until("the server to know both", || server.status.connections() == 2).await;
    server.drain();
    assert_eq!(unannounced.closed().await.0, 1001, "a client without a handshake is sent away too");
    assert_eq!(stuck.closed().await.0, 1001);
    server.stop().await;
}

#[tokio::test]
async fn clients_are_told_to_come_back_at_different_times() {
    let server = TestServer::start_with(|config| config.timing.drain_timeout_ms = 10_000).await;
    let mut clients = Vec::new();
    for over in Over::in_turn().take(9) {
        clients.push(over.party(&server, "Ada").await);
    }
    server.drain();
    let mut times = std::collections::HashSet::new();
    for client in &mut clients {
        times.insert(client.expect_close(1001).await["reconnect_after_ms"].as_u64().expect("a time"));
    }
    assert!(times.len() > 4, "9 clients are told to come back at {times:?}");
    assert!(times.iter().all(|&ms| ms <= 10_000), "within the drain's time: {times:?}");
    server.stop().await;
}

/// Starts the binary on a port, with this many workers.
async fn begin(folder: &std::path::Path, addr: &str, workers: &str) -> (Process, std::net::SocketAddr) {
    let mut process = Process::start(folder, &["--addr", addr, "--workers", workers], &[]);
    let addr = process.listening().await;
    (process, addr)
}

#[tokio::test]
async fn clients_of_a_killed_server_notice_by_a_reset_once_it_is_back() {
    let folder = tempfile::tempdir().expect("a folder");
    let ca = folder.path().join("certs/ca.pem");
    let (mut process, addr) = begin(folder.path(), "127.0.0.1:0", "2").await;
    let mut raw = Vec::new();
    for name in ["Ada", "Bob", "Cleo", "Dan"] {
        let mut client =
            RawClient::connect(&endpoint_trusting(&ca, &["qws/1"], TransportConfig::default()), addr).await;
        client.handshake(name).await;
        raw.push(client);
    }
    let builder = || Client::builder(addr.to_string()).trust(Trust::CaFile(ca.clone())).connect_timeout(PATIENCE);
    let (busy, mut at_busy) = builder().connect().await.expect("it connects");
    // A client that only listens sends keep-alive packets.
    let idle = builder().keep_alive(Some(std::time::Duration::from_millis(50)));
    let (_idle, mut at_idle) = idle.connect().await.expect("it connects");

    process.signal(Signal::SIGKILL);
    process.ended().await;
    // Connection ids belong to other workers now: any of them can respond for an unknown one.
    let (_process, _) = begin(folder.path(), &addr.to_string(), "3").await;
    for client in &mut raw {
        // Any packet it sends, or its retransmission, is answered by the reset.
        let _ = client.control.send.write_all(b"x").await;
        match soon("the reset", client.connection.closed()).await {
            ConnectionError::Reset => {}
            other => panic!("expected a stateless reset, got {other}"),
        }
    }
    let _ = busy.broadcast(quic_websocket::message::Payload::text("is anybody there?")).await;
    for events in [&mut at_busy, &mut at_idle] {
        match soon("the loss", events.next()).await {
            Some(Event::Disconnected(lost)) => assert!(lost.reason.contains("reset"), "{lost:?}"),
            other => panic!("expected the loss, got {other:?}"),
        }
        assert!(matches!(soon("the way back", events.next()).await, Some(Event::Reconnected)));
    }
    busy.echo("hi").await.expect("it is served");
}
