//! The load generator: clients of this project's server, of bare Quinn, of WebSocket and of NATS, and their loads.
//!
//! It runs on its own `current_thread` runtime and does as little as possible per message, because on a small machine
//! it competes with the server for processor time. It never uses the servers' code.

mod bare;
pub(crate) mod beside;
pub(crate) mod board;
pub(crate) mod connect;
pub(crate) mod crowd;
pub(crate) mod dial;
pub(crate) mod durable;
mod frame;
mod message;
mod nats;
mod peer;
mod redis;
mod sequence;
mod template;
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
    /// WebSocket over TLS without a protocol above it.
    Wss,
    /// This project's protocol over WebSocket over TLS.
    QwsWss,
    /// NATS over TLS, which begins at once.
    Nats,
}

impl Driver {
    pub(crate) const fn is_quic(self) -> bool {
        matches!(self, Self::Qws | Self::Bare)
    }

    /// Whether it speaks this project's protocol.
    pub(crate) const fn is_ours(self) -> bool {
        matches!(self, Self::Qws | Self::QwsWss)
    }

    /// Whether it has messages for this mode.
    pub(crate) const fn serves(self, mode: Mode) -> bool {
        match self {
            Self::Qws | Self::QwsWss => true,
            Self::Bare => true,
            Self::Wss => !mode.is_asked(),
            Self::Nats => !matches!(mode, Mode::Echo),
        }
    }
}

/// Messages that clients receive in a load, to which they may have to subscribe first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Interest {
    /// Their own, as echoes, or none.
    Own,
    Broadcasts,
    Topics(Topics),
    /// Requests from other clients, and the answers to their own.
    Requests,
    /// The same as requests that the server keeps account of, if it does.
    Calls,
}

/// Server that the clients connect to, and the certificates they trust.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) driver: Driver,
    pub(crate) address: SocketAddr,
    /// Name that the certificate must contain.
    pub(crate) name: String,
    pub(crate) trust: Trust,
    /// UDP sockets shared by the clients; 0 for one each, as real clients have, if there may be so many.
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
