//! The load generator: clients of this project's server, of bare Quinn and of WebSocket, and the load they make.
//!
//! It runs on a `current_thread` runtime of its own and does as little as it can for each message, because on a
//! small machine whatever it spends is missing at the server. It never knows the servers' code.

pub(crate) mod beside;
pub(crate) mod board;
pub(crate) mod connect;
pub(crate) mod crowd;
pub(crate) mod dial;
mod frame;
mod message;
mod peer;
mod sequence;
mod tls;
mod topics;

use std::net::SocketAddr;
use std::time::Duration;

pub(crate) use message::{Encoding, MIN_SIZE, Mode, Shape};
pub(crate) use tls::Trust;
pub(crate) use topics::name as topic_name;
pub(crate) use topics::{Audience, Lane, Topics};

use crate::congestion::Congestion;

/// How the clients speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Driver {
    /// This project's protocol over native QUIC.
    Qws,
    /// Length-prefixed frames over QUIC without a protocol above them.
    Bare,
    /// WebSocket over TLS.
    Wss,
}

/// Whom the clients connect to, and what they trust.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) driver: Driver,
    pub(crate) address: SocketAddr,
    /// The name that the certificate must carry.
    pub(crate) name: String,
    pub(crate) trust: Trust,
    /// UDP sockets that the clients share: as long as there are many, they spread over a server's workers.
    pub(crate) sockets: usize,
    /// Of the clients' own sending over QUIC, where it is not to be Quinn's default.
    pub(crate) congestion: Option<Congestion>,
    /// Bytes that a client takes on each stream before it reads, where that is not to be Quinn's default.
    pub(crate) stream_window: Option<u32>,
}

/// When a load ends: each sender stops there, and what is in flight is waited for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Limit {
    /// So many messages from each sender.
    Messages(u64),
    Time(Duration),
}
