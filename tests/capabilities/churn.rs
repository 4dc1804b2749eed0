//! Ten thousand clients come and go, well-behaved and not, and leave nothing behind.

#![cfg(target_os = "linux")]
#![allow(clippy::expect_used, clippy::panic)] // A test fails by panicking.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::common::over::Party;
use crate::common::process::Process;
use crate::common::{RawClient, endpoint_trusting, soon, web_socket};
use quinn::{Endpoint, TransportConfig};
use serde_json::json;
use tokio::task::JoinSet;

/// Clients of each of five kinds connected at once.
const AT_ONCE: usize = 25;
/// A wave is more than a thousand clients; all are gone before the next, so that none takes more memory than another.
const ROUNDS: usize = 10;
const WAVES: usize = 10;

async fn newcomer(endpoint: &Endpoint, addr: SocketAddr) -> RawClient {
    let mut client = RawClient::connect(endpoint, addr).await;
    client.handshake("here for a moment").await;
    client
}

/// Connects, and ends with `close`.
async fn clean(endpoint: Endpoint, addr: SocketAddr) {
    let mut client = newcomer(&endpoint, addr).await;
    client.control.say(json!({"type": "close"})).await;
    client.closed().await;
}

/// Connects, and closes the connection in the middle of an exchange.
async fn abrupt(endpoint: Endpoint, addr: SocketAddr) {
    let mut client = newcomer(&endpoint, addr).await;
    client.control.say(json!({"type": "text", "content": "x".repeat(5000)})).await;
    client.connection.close(1000_u32.into(), b"");
}

/// Disconnects before its handshake.
async fn unannounced(endpoint: Endpoint, addr: SocketAddr) {
    let mut client = RawClient::connect(&endpoint, addr).await;
    client.control.raw(&[0, 0]).await;
    client.connection.close(1000_u32.into(), b"");
}

/// Connects by WebSocket, and ends in one of the above ways.
async fn on_a_socket(ca: PathBuf, addr: SocketAddr, n: usize) {
    let mut client: Party = web_socket::open_at(addr, &ca).await.into();
    match n % 3 {
        0 => {}
        1 => {
            client.handshake("here for a moment").await;
            client.control.say(json!({"type": "close"})).await;
            client.closed().await;
        }
        _ => {
            client.handshake("here for a moment").await;
            client.control.say(json!({"type": "text", "content": "x".repeat(5000)})).await;
        }
    }
}

/// Connect, and are never heard of again: their machine was switched off.
fn vanishing(ca: &Path, addr: SocketAddr) {
    let machine = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let clients = machine.block_on(async {
        let endpoint = endpoint_trusting(ca, &["qws/1"], TransportConfig::default());
        let mut clients = JoinSet::new();
        for _ in 0..AT_ONCE {
            let endpoint = endpoint.clone();
            clients.spawn(async move { newcomer(&endpoint, addr).await });
        }
        clients.join_all().await
    });
    drop(machine);
    drop(clients);
}

/// A wave of clients, from the first connection until all of them are gone.
async fn wave(endpoints: &[Endpoint], ca: &Path, addr: SocketAddr, server: &Process) {
    for round in 0..ROUNDS {
        let mut visits = JoinSet::new();
        let ca = ca.to_owned();
        let also_ca = ca.clone();
        visits.spawn_blocking(move || vanishing(&also_ca, addr));
        for n in 0..AT_ONCE {
            let endpoint = &endpoints[(round + n) % endpoints.len()];
            visits.spawn(clean(endpoint.clone(), addr));
            visits.spawn(abrupt(endpoint.clone(), addr));
            visits.spawn(unannounced(endpoint.clone(), addr));
            visits.spawn(on_a_socket(ca.clone(), addr, n));
        }
        visits.join_all().await;
    }
    let mut asker = newcomer(&endpoints[0], addr).await;
    soon("the end of all clients that left", async {
        loop {
            tokio::time::sleep(Duration::from_millis(20)).await;
            asker.control.say(json!({"type": "list_clients"})).await;
            let list = asker.control.expect("client_list").await;
            // Clients without a handshake are not listed, but counted.
            if list["total"] == 1 && server.stderr().trim_end().ends_with("Total clients: 1") {
                return;
            }
        }
    })
    .await;
    asker.connection.close(1000_u32.into(), b"");
}

#[tokio::test]
async fn ten_thousand_clients_leave_no_trace() {
    let folder = tempfile::tempdir().expect("a folder");
    let environment = [
        ("QWS_ADDR", "127.0.0.1:0"),
        ("QWS_WORKERS", "2"),
        ("QWS_TIMING__PING_INTERVAL_MS", "1000"),
        ("QWS_TIMING__PING_TIMEOUT_MS", "1000"),
        ("QWS_QUIC__IDLE_TIMEOUT_MS", "3000"),
    ];
    let mut server = Process::start(folder.path(), &[], &environment);
    let addr = server.listening().await;
    let ca: PathBuf = folder.path().join("certs/ca.pem");
    let endpoints: Vec<_> = (0..8).map(|_| endpoint_trusting(&ca, &["qws/1"], TransportConfig::default())).collect();

    let mut resident = Vec::new();
    for _ in 0..WAVES {
        wave(&endpoints, &ca, addr, &server).await;
        resident.push(server.resident_kib());
    }
    // The size varies by some MiB from wave to wave, without a trend; leftovers of each would add up.
    let typical = |waves: &[u64]| {
        let mut waves = waves.to_vec();
        waves.sort_unstable();
        waves[waves.len() / 2]
    };
    let (first, last) = resident.split_at(WAVES / 2);
    let (before, after) = (typical(first), typical(last));
    assert!(after <= before + before / 10, "from {before} KiB to {after} KiB, wave by wave {resident:?}");
}
