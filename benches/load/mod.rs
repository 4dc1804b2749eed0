//! The load generator: clients of this project's server, of bare Quinn and of WebSocket, and their loads.
//!
//! It runs on its own `current_thread` runtime and does as little as possible per message, because on a small machine
//! it competes with the server for processor time. It never uses the servers' code.

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

/// Protocol of the clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Driver {
    /// This project's protocol over native QUIC.
    Qws,
    /// Length-prefixed frames over QUIC without a protocol above them.
    Bare,
    /// WebSocket over TLS.
    Wss,
}

/// Server that the clients connect to, and the certificates they trust.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) driver: Driver,
    pub(crate) address: SocketAddr,
    /// Name that the certificate must contain.
    pub(crate) name: String,
    pub(crate) trust: Trust,
    /// UDP sockets shared by the clients: if there are many, they spread over a server's workers.
    pub(crate) sockets: usize,
    /// Congestion controller of the clients over QUIC, if not Quinn's default.
    pub(crate) congestion: Option<Congestion>,
    /// Receive window of each stream of a client, if not Quinn's default.
    pub(crate) stream_window: Option<u32>,
}

/// When a load ends: each sender stops then, and messages in flight are waited for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Limit {
    /// This many messages from each sender.
    Messages(u64),
    Time(Duration),
}
