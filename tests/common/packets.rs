//! Connections that consist of a single packet, as in floods.

use std::net::SocketAddr;

use quinn::Endpoint;
use tokio::net::UdpSocket;

use super::soon;

/// Type of a packet from a server (RFC 9000 section 17); header protection does not hide it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// Starts a connection.
    Initial,
    /// Requests address validation.
    Retry,
}

/// The first packet of a new connection, with a valid ClientHello, sent nowhere yet.
pub async fn first_packet(endpoint: &Endpoint) -> Vec<u8> {
    let mut packet = vec![0; 2000];
    let trap = UdpSocket::bind("127.0.0.1:0").await.expect("a socket");
    let connecting = endpoint.connect(trap.local_addr().expect("an address"), "localhost").expect("it begins");
    let length = soon("a first packet", trap.recv(&mut packet)).await.expect("a packet");
    drop(connecting);
    packet.truncate(length);
    packet
}

/// Sends only the first packet of a new connection, from a separate address, and returns the type of the response.
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

/// Whether a datagram contains a packet with early data (RFC 9000 sections 12.2 and 17.2.3). Types and lengths of
/// packets with a long header are not encrypted.
pub fn has_early_data(mut datagram: &[u8]) -> bool {
    while datagram.first().is_some_and(|first| first & 0x80 != 0) {
        let kind = (datagram[0] >> 4) & 3;
        if kind == 1 {
            return true;
        }
        let mut rest = &datagram[5..];
        for _connection_id in 0..2 {
            rest = &rest[1 + usize::from(rest[0])..];
        }
        if kind == 0 {
            let token = integer(&mut rest);
            rest = &rest[token..];
        }
        let length = integer(&mut rest);
        datagram = &rest[length..];
    }
    false
}

/// Reads a variable-length integer (RFC 9000 section 16).
fn integer(bytes: &mut &[u8]) -> usize {
    let length = 1 << (bytes[0] >> 6);
    let (integer, rest) = bytes.split_at(length);
    *bytes = rest;
    integer[1..].iter().fold(usize::from(integer[0] & 0x3f), |sum, &byte| (sum << 8) | usize::from(byte))
}
