//! Connections that consist of one packet, as whoever floods a server sends them.

use std::net::SocketAddr;

use quinn::Endpoint;
use tokio::net::UdpSocket;

use super::soon;

/// What kind of packet a server answered with (RFC 9000 section 17); header protection does not hide that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// It begins a connection.
    Initial,
    /// It wants the address proven first.
    Retry,
}

/// The first packet of a new connection, which has a sound ClientHello in it and was sent nowhere yet.
pub async fn first_packet(endpoint: &Endpoint) -> Vec<u8> {
    let mut packet = vec![0; 2000];
    let trap = UdpSocket::bind("127.0.0.1:0").await.expect("a socket");
    let connecting = endpoint.connect(trap.local_addr().expect("an address"), "localhost").expect("it begins");
    let length = soon("a first packet", trap.recv(&mut packet)).await.expect("a packet");
    drop(connecting);
    packet.truncate(length);
    packet
}

/// Sends the first packet of a new connection, from an address of its own, and says what comes back. No more is sent.
pub async fn begin_only(endpoint: &Endpoint, server: SocketAddr) -> Answer {
    let mut packet = [0; 2000];
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a socket");
    socket.send_to(&first_packet(endpoint).await, server).await.expect("it leaves");
    soon("an answer to a first packet", socket.recv(&mut packet)).await.expect("an answer");
    // Without the fixed bit, which may be random (RFC 9287).
    match packet[0] & 0xb0 {
        0x80 => Answer::Initial,
        0xb0 => Answer::Retry,
        first => panic!("expected an answer to a first packet, got one of type {first:#x}"),
    }
}
