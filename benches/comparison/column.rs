//! The compared servers, in the order of the table's columns.

use crate::load::{Driver, Mode};

/// One compared server with one protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Column {
    /// This project's server over QUIC.
    Qws,
    /// The same with the binary of `--before`.
    Before,
    /// Bare Quinn.
    Bare,
    /// This project's server over WebSocket.
    QwsWss,
    /// The WebSocket baseline.
    Wss,
    /// nats-server with TLS.
    Nats,
    /// Node's package `ws` with TLS.
    Ws,
}

impl Column {
    pub(super) const COUNT: usize = 7;
    pub(super) const ALL: [Self; Self::COUNT] =
        [Self::Qws, Self::Before, Self::Bare, Self::QwsWss, Self::Wss, Self::Nats, Self::Ws];

    pub(super) const fn driver(self) -> Driver {
        match self {
            Self::Qws | Self::Before => Driver::Qws,
            Self::Bare => Driver::Bare,
            Self::QwsWss => Driver::QwsWss,
            Self::Wss | Self::Ws => Driver::Wss,
            Self::Nats => Driver::Nats,
        }
    }

    /// In tables.
    pub(super) const fn title(self) -> &'static str {
        match self {
            Self::Qws => "qws",
            Self::Before => "qws before",
            Self::Bare => "bare Quinn",
            Self::QwsWss => "qws WSS",
            Self::Wss => "WSS",
            Self::Nats => "NATS",
            Self::Ws => "ws",
        }
    }

    /// In JSON.
    pub(super) const fn key(self) -> &'static str {
        match self {
            Self::Qws => "qws",
            Self::Before => "before",
            Self::Bare => "bare",
            Self::QwsWss => "qws_wss",
            Self::Wss => "wss",
            Self::Nats => "nats",
            Self::Ws => "ws",
        }
    }

    /// Whether this server runs a workload. `ws` has no topics, and a broadcast of its own is the same to it.
    pub(super) const fn serves(self, mode: Mode) -> bool {
        self.driver().serves(mode) && !(matches!(self, Self::Ws) && matches!(mode, Mode::Topic))
    }

    /// Whether this is the server whose workers can be set.
    pub(super) const fn has_workers(self) -> bool {
        matches!(self, Self::Qws | Self::Before | Self::QwsWss)
    }

    pub(super) const fn place(self) -> usize {
        self as usize
    }
}

/// What the figures of this project's server over QUIC are divided by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Yardstick {
    Column(Column),
    /// The better of this server's own WebSocket and the baseline, in each round.
    BestWss,
}

impl Yardstick {
    pub(super) const ALL: [Self; 5] = [
        Self::Column(Column::Before),
        Self::Column(Column::Bare),
        Self::Column(Column::QwsWss),
        Self::BestWss,
        Self::Column(Column::Nats),
    ];

    pub(super) const fn title(self) -> &'static str {
        match self {
            Self::Column(column) => column.title(),
            Self::BestWss => "best WSS",
        }
    }

    pub(super) fn key(self) -> String {
        match self {
            Self::Column(column) => format!("qws_to_{}", column.key()),
            Self::BestWss => "qws_to_best_wss".to_owned(),
        }
    }
}
