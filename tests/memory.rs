//! Subscribers that do not read cost the server no more than the configured bytes, measured on its process.

#![cfg(target_os = "linux")]
#![allow(clippy::expect_used, clippy::panic)] // A test fails by panicking.

mod common;

use common::process::Process;
use common::{RawClient, endpoint_trusting};
use quinn::TransportConfig;
use serde_json::json;

const KIB: u64 = 1024;
/// Backlog of one client, and the data that QUIC holds for it.
const BACKLOG: u64 = 256 * KIB;
const SEND_WINDOW: u64 = 64 * KIB;
const HISTORY: u64 = 512 * KIB;
const STALLED: u64 = 40;
/// Published data: more than ten times the backlog of all subscribers together.
const MESSAGES: u64 = 10_000;
const SIZE: usize = 16 * 1024;

#[tokio::test]
async fn forty_stalled_subscribers_stay_within_their_bounds_while_much_is_published() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = folder.path().join("config.toml");
    let settings = format!(
        "addr = '127.0.0.1:0'\nworkers = 2\n\
         [limits]\nmax_message_bytes = 65536\nlane_backlog_bytes = {0}\nclient_backlog_bytes = {BACKLOG}\n\
         [timing]\nping_interval_ms = 600000\n\
         [quic]\nidle_timeout_ms = 700000\nsend_window = {SEND_WINDOW}\n\
         [[topics]]\npattern = '>'\noverflow = 'drop_oldest'\nhistory_bytes = {HISTORY}\n",
        BACKLOG / 2
    );
    std::fs::write(&config, settings).expect("written");
    let mut server = Process::start(folder.path(), &["--config", "config.toml"], &[]);
    let addr = server.listening().await;
    let endpoint = |window: u32| {
        let mut transport = TransportConfig::default();
        transport.stream_receive_window(window.into());
        endpoint_trusting(&folder.path().join("certs/ca.pem"), &["qws/1"], transport)
    };
    let mut publisher = RawClient::connect(&endpoint(1_000_000), addr).await;
    publisher.handshake("publisher").await;
    let mut stalled = Vec::new();
    for _ in 0..STALLED {
        let mut client = RawClient::connect(&endpoint(2000), addr).await;
        client.handshake("stalled").await;
        for topic in ["a", "b", "c"] {
            client.control.say(json!({"type": "subscribe", "topic": topic, "id": 1})).await;
            client.control.expect("subscribed").await;
        }
        stalled.push(client);
    }
    let before = server.resident_kib();
    let mut most = before;
    let content = "x".repeat(SIZE);
    for n in 0..MESSAGES {
        let topic = ["a", "b", "c"][usize::try_from(n % 3).expect("small")];
        publisher.control.say(json!({"type": "publish", "topic": topic, "content": content, "id": n})).await;
        assert_eq!(publisher.control.expect("published").await["re"], n);
        if n % 500 == 0 {
            most = most.max(server.resident_kib());
        }
    }
    // The bytes of a message are shared by all its receivers, but a stalled one may hold old ones; here each client is
    // counted separately, as if nothing were shared. The rest is for the allocator and the log.
    let allowed = (STALLED * (BACKLOG + SEND_WINDOW) + 3 * HISTORY) / KIB + 8 * KIB;
    assert!(most - before <= allowed, "it grew by {} KiB; {allowed} KiB are configured", most - before);
    for client in &mut stalled {
        client.control.lives("a client that does not read its topics").await;
    }
}
