//! Connections that start and do not continue, in great numbers; and packets that are not connections at all.

use std::net::SocketAddr;
use std::sync::Arc;

use quinn::{ConnectionError, TransportConfig};
use serde_json::json;
use tokio::net::UdpSocket;
use tokio::task::JoinSet;

use super::common::packets::first_packet;
use super::common::{RawClient, endpoint_trusting, framed, soon};
use super::scene::{Scene, Target};

const HALF_OPEN: usize = 10_000;

#[tokio::test]
async fn a_client_without_a_handshake_in_time_is_closed_and_locks_no_other_out() {
    let scene = Scene::start("timing.handshake_timeout_ms = 1000").await;
    let endpoints: Vec<_> = (0..8).map(|_| scene.target.endpoint()).collect();
    let mut waiting = JoinSet::new();
    let handshake = framed(br#"{"type":"handshake","protocol_version":"1.0"}"#);
    for n in 0..200 {
        let (endpoint, addr) = (endpoints[n % endpoints.len()].clone(), scene.target.addr);
        // Nothing, half a length, half a message, all but the last byte.
        let start = handshake[..[0, 2, 20, handshake.len() - 1][n % 4]].to_vec();
        waiting.spawn(async move {
            let mut client = RawClient::connect(&endpoint, addr).await;
            client.control.raw(&start).await;
            client.closed().await.0
        });
        if n % 20 == 0 {
            scene.target.client("newcomer").await.control.lives("a new client").await;
        }
    }
    // One whose bytes arrive so slowly that each is in time and the last is not.
    let mut slow = scene.target.stranger().await;
    let drops = async {
        for byte in &handshake {
            if slow.control.send.write_all(&[*byte]).await.is_err() {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        slow.closed().await.0
    };
    assert_eq!(drops.await, 4408);
    while let Some(closed) = waiting.join_next().await {
        assert_eq!(closed.expect("it is closed"), 4408);
    }
    scene.end().await;
}

/// Sends the first packets of this many connections that never continue, from a few addresses.
pub(crate) async fn half_open(target: &Target, count: usize) -> Flood {
    let attacker = target.endpoint();
    let mut sockets = Vec::new();
    for _ in 0..100 {
        let socket = Arc::new(UdpSocket::bind("127.0.0.1:0").await.expect("a socket"));
        socket.connect(target.addr).await.expect("an address");
        sockets.push(socket);
    }
    let (mut retries, mut buffer) = (0, [0; 2000]);
    for n in 0..count {
        let socket = &sockets[n % sockets.len()];
        socket.send(&first_packet(&attacker).await).await.expect("it leaves");
        while let Ok(length) = socket.try_recv(&mut buffer) {
            // The type of a packet with a long header (RFC 9000 section 17.2): 3 is Retry.
            retries += usize::from(length > 0 && buffer[0] & 0xb0 == 0xb0);
        }
    }
    Flood { retries, _sockets: sockets }
}

/// Result of a flood; the sockets stay open, so that the server gets no indication that they are abandoned.
pub(crate) struct Flood {
    retries: usize,
    _sockets: Vec<Arc<UdpSocket>>,
}

#[tokio::test]
async fn ten_thousand_half_open_connections_hold_few_places_and_lock_no_client_out() {
    let scene = Scene::start("timing.handshake_timeout_ms = 3000").await;
    let status = scene.server.status.clone();
    let target = scene.target.clone();
    let flood = tokio::spawn(async move { half_open(&target, HALF_OPEN).await });
    let (mut most, mut newcomers) = (0, 0);
    while !flood.is_finished() {
        scene.target.client("newcomer").await.control.lives("a new client").await;
        most = most.max(status.handshakes());
        newcomers += 1;
    }
    let flood = flood.await.expect("all are sent");
    assert!(most <= 140, "{most} places were held by addresses that were not proven");
    assert!(newcomers > 0 && flood.retries > HALF_OPEN / 2, "{newcomers} newcomers, {} retries", flood.retries);
    scene.end().await;
}

/// Packets that start nothing: too short, of unknown versions, of no connection, truncated, replayed, with a forged
/// token.
async fn junk(to: SocketAddr, count: usize, sound: &[u8]) {
    let mut random = fastrand::Rng::with_seed(29);
    let mut sockets = Vec::new();
    for _ in 0..20 {
        let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a socket");
        socket.connect(to).await.expect("an address");
        sockets.push(socket);
    }
    for n in 0..count {
        let length = random.usize(1..1400);
        let mut packet: Vec<u8> = std::iter::repeat_with(|| random.u8(..)).take(length).collect();
        match n % 6 {
            // A short header: a packet of a connection that does not exist, for any worker.
            0 => packet[0] = packet[0] & 0x3f | 0x40,
            1 => packet[0] |= 0xc0,
            // Version 1, followed by garbage.
            2 if length > 5 => packet[..5].copy_from_slice(&[0xc3, 0, 0, 0, 1]),
            3 => packet = sound[..random.usize(1..sound.len())].to_vec(),
            // The same first packet from many addresses.
            4 => packet = sound.to_vec(),
            5 => {
                packet = sound.to_vec();
                let at = random.usize(..sound.len());
                packet[at] ^= 1 << random.u8(..8);
            }
            _ => {}
        }
        sockets[n % sockets.len()].send(&packet).await.expect("it leaves");
        if n % 64 == 0 {
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test]
async fn packets_that_belong_to_no_connection_disturb_no_client() {
    let scene = Scene::start("timing.handshake_timeout_ms = 1000").await;
    let sound = first_packet(&scene.target.endpoint()).await;
    junk(scene.target.addr, 12_000, &sound).await;
    scene.target.client("newcomer").await.control.lives("a new client").await;
    scene.end().await;
}

#[tokio::test]
async fn a_client_with_another_protocol_or_without_trust_is_gone_at_once() {
    let scene = Scene::start("").await;
    let mut failing = JoinSet::new();
    let folder = tempfile::tempdir().expect("a folder");
    let other = quic_websocket::tls::DevelopmentFiles::inside(folder.path());
    other.make(&["localhost".into()], false).expect("certificates");
    for n in 0..100 {
        let (ca, protocol) = if n % 2 == 0 { (&scene.target.ca, "h2") } else { (&other.ca, "qws/1") };
        let endpoint = endpoint_trusting(ca, &[protocol], TransportConfig::default());
        let connecting = endpoint.connect(scene.target.addr, "localhost").expect("it begins");
        failing.spawn(async move { soon("its end", connecting).await.err() });
    }
    while let Some(failed) = failing.join_next().await {
        let error = failed.expect("it ends").expect("it does not connect");
        assert!(matches!(error, ConnectionError::ConnectionClosed(_) | ConnectionError::TransportError(_)), "{error}");
    }
    scene.end().await;
}

/// Connects and disconnects this many times, in every possible way.
pub(crate) async fn come_and_go(target: &Target, count: usize) {
    let endpoints: Vec<_> = (0..8).map(|_| target.endpoint()).collect();
    let mut visits = JoinSet::new();
    for n in 0..count {
        let (endpoint, addr) = (endpoints[n % endpoints.len()].clone(), target.addr);
        visits.spawn(async move {
            let mut client = RawClient::connect(&endpoint, addr).await;
            match n % 4 {
                0 => client.connection.close(1000_u32.into(), b""),
                1 => {
                    client.handshake("for a moment").await;
                    client.connection.close(quinn::VarInt::MAX, &[0xff; 500]);
                }
                2 => {
                    client.handshake("for a moment").await;
                    client
                        .control
                        .say(json!({"type": "subscribe", "topic": "visited", "presence": true, "id": 1}))
                        .await;
                    client.connection.close(0_u32.into(), "\u{202e}\r\n\u{1b}[2J".as_bytes());
                }
                _ => {
                    client.handshake("for a moment").await;
                    client.control.say(json!({"type": "close"})).await;
                    client.closed().await;
                }
            }
        });
        if visits.len() >= 50 {
            visits.join_next().await.expect("some").expect("a visit");
        }
    }
    while let Some(ended) = visits.join_next().await {
        ended.expect("a visit");
    }
}

#[tokio::test]
async fn storms_of_short_connections_leave_no_client_behind() {
    let scene = Scene::start("").await;
    come_and_go(&scene.target, 800).await;
    scene.end().await;
}
