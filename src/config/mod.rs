//! Every setting of the server: its default, its unit, its bounds. Read from a TOML file, then the environment
//! (`QWS_LIMITS__MAX_CLIENTS=500` sets `limits.max_clients`), then the command line; the later overrides the earlier.

mod address;
mod auth;
mod decode;
mod error;
mod http;
mod live;
mod load;
mod loaded;
mod rates;
mod schema;
mod topics;
mod tree;
mod webrtc;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

pub use quic_websocket_client::development_folder;
use serde::{Deserialize, Deserializer};

pub use self::address::parse_address;
pub(crate) use self::auth::MAX_TRIED;
pub use self::auth::{Auth, AuthKey, Grant, Jwks, Patterns, Secret, TokenAlgorithm};
pub use self::error::ConfigError;
pub use self::http::{Http, WebTransport};
pub(crate) use self::live::Live;
pub use self::live::is_live;
pub use self::loaded::{ENV_PREFIX, Loaded};
pub use self::rates::Rates;
pub use self::topics::{OverflowPolicy, TopicRule, Who};
pub use self::tree::Place;
pub use self::webrtc::WebRtc;
pub use crate::origin::Origin;

/// All settings.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Config {
    /// UDP address to listen on. Default 127.0.0.1:4433; port 0 takes any free one.
    #[serde(deserialize_with = "address::address")]
    pub addr: SocketAddr,
    /// The name told to clients, within the bounds of a [`ClientName`](crate::message::ClientName). Default
    /// `QUIC WebSocket Server`.
    pub name: String,
    /// Worker threads, each with an endpoint of its own; 0, the default, means one for each core. At most 256.
    pub workers: u64,
    /// Certificates.
    pub tls: Tls,
    /// What a peer can make grow, and how far.
    pub limits: Limits,
    /// How often peers may do something.
    pub rates: Rates,
    /// How long things may take.
    pub timing: Timing,
    /// The transport below.
    pub quic: Quic,
    /// WebSocket and web pages.
    pub http: Http,
    /// Clients on WebTransport.
    pub webtransport: WebTransport,
    /// What browsers need to reach each other.
    pub webrtc: WebRtc,
    /// What holds for which topics: the first rule that matches counts, and the defaults where none does. Default: none.
    pub topics: Vec<TopicRule>,
    /// Who is let in, and what each may do.
    pub auth: Auth,
    /// What is logged.
    pub log: Log,
}

/// Where the certificates are.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Tls {
    /// PEM file with the server's chain, its own certificate first. Default `server.pem` in [`development_folder`].
    pub cert: PathBuf,
    /// PEM file with its private key. Default `server-key.pem` in [`development_folder`]. Where both are left at their defaults and neither file
    /// exists, both are made for development, with a `ca.pem` beside the certificate.
    pub key: PathBuf,
    /// PEM file with the authorities that certify clients. `None` (in the file: an empty text), the default, asks clients
    /// for no certificate.
    #[serde(deserialize_with = "path_or_none")]
    pub client_ca: Option<PathBuf>,
    /// Whether a client without a certificate is turned away; needs `client_ca`. Default false.
    pub client_required: bool,
    /// The oldest version of TLS over TCP; QUIC is TLS 1.3 in any case. Default `1.3`. `1.2` is for proxies before this
    /// server that speak no other, such as nginx before 1.23.4 with its defaults.
    pub tcp_min_version: TlsVersion,
    /// Whether keys are exchanged by X25519MLKEM768 with clients that have it, so that what is recorded today stays secret
    /// when there are quantum computers. Default true.
    pub post_quantum: bool,
    /// How many days before the certificate expires the log begins to warn of it, once a day; 0 for never. Not before three
    /// quarters of its time are over. Default 14.
    pub expiry_warning_days: u64,
}

/// Versions of TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum TlsVersion {
    /// RFC 5246, with suites of ephemeral keys and authenticated encryption alone.
    #[serde(rename = "1.2")]
    Tls12,
    /// RFC 8446.
    #[serde(rename = "1.3")]
    Tls13,
}

/// What a peer can make grow, and how far.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Limits {
    /// Connected clients; more are refused with 1013. Default 10,000.
    pub max_clients: u64,
    /// Connections whose handshake is not done; more are refused at once. Default 1,024.
    pub max_handshakes: u64,
    /// With this many handshakes under way a new address must prove itself by a Retry first (RFC 9000 section 8.1.2).
    /// Default 128; 0 asks it of everybody.
    pub retry_handshakes: u64,
    /// Largest body in bytes, before and after inflating. Default 1 MiB; 1 KiB to 64 MiB.
    pub max_message_bytes: u64,
    /// Request lanes of a client that are served at once, the control lane not counted; more wait until others end.
    /// Default 32; at most 1,024.
    pub max_request_lanes: u64,
    /// Replies of one lane that may be pending while the lane is read on. Default 256; 1 to 65,536.
    pub lane_pending_replies: u64,
    /// Bytes of bodies that a client has begun to send and not finished, on all its lanes together; then 1009. At least
    /// `max_message_bytes`; at most 4 GiB. Default 8 MiB.
    pub client_unfinished_bytes: u64,
    /// Messages that wait for one lane beyond what QUIC has taken; then 4413, or what the topic's rule says. Default 1,024.
    pub lane_backlog_messages: u64,
    /// Bytes that wait for one lane, likewise; at least 1 KiB more than `max_message_bytes`. Default 2 MiB.
    pub lane_backlog_bytes: u64,
    /// Messages that wait for one client, on all its lanes. Default 4,096.
    pub client_backlog_messages: u64,
    /// Bytes that wait for one client, on all its lanes. Once replies alone make up as many, no request lane is read on.
    /// Default 4 MiB.
    pub client_backlog_bytes: u64,
    /// Messages on their way to one worker's clients, for topics and for everything else each; a sender waits beyond.
    /// Default 256; at most 65,536.
    pub fanout_queue: u64,
    /// Topic lanes that the server opens for one client. Default 16; 0 to 16.
    pub topic_lanes: u64,
    /// Subscriptions of one client; more get `error` 403. Default 1,024.
    pub max_subscriptions: u64,
    /// Receivers in the lists of who gets which topic's messages, on each worker, about 16 bytes each: whoever has subscribed to
    /// a pattern stands in the list of each topic that it matches. Lists beyond are made anew for each message.
    /// Default 1,000,000; at most 1,000,000,000.
    pub found_receivers: u64,
    /// Connections over TCP that are no WebSocket, or not yet: to fetch pages, to open one. More are closed at once.
    /// Default 1,024.
    pub max_http_connections: u64,
    /// Topics in all, those that only keep their history among them; more get `error` 503. Default 100,000.
    pub max_topics: u64,
    /// Bytes of memory for the history and the idempotency keys of all topics together, with what the allocator adds;
    /// where they are used up, topics keep less than their rules allow. Default 256 MiB.
    pub topic_memory_bytes: u64,
    /// Idempotency keys remembered for each topic; the oldest are forgotten beyond. Default 1,000.
    pub topic_keys: u64,
    /// Bodies of at least this many bytes are compressed for clients that agreed to it. Default 1,024.
    pub compress_min_bytes: u64,
    /// With `quic.early_data`, TLS sessions that are kept for clients that come back, two for each connection; the oldest
    /// are forgotten beyond, and their clients make a full handshake. Default 10,000.
    pub tls_sessions: u64,
}

/// How long things may take, in milliseconds.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Timing {
    /// From the connection's first packet to its accepted handshake; then 4408. Default 10,000.
    pub handshake_timeout_ms: u64,
    /// From the first byte of a body to its last, on one lane; then 4408. The time in which the lane waits for what came before
    /// does not count. Default 60,000: enough for 1 MiB at 140 kbit/s.
    pub body_timeout_ms: u64,
    /// A client from which nothing came for so long is pinged. Default 25,000.
    pub ping_interval_ms: u64,
    /// And closed with 4408 where nothing comes for this long after. Default 10,000.
    pub ping_timeout_ms: u64,
    /// At shutdown, the time in which clients are told to leave and queues are flushed. Default 10,000.
    pub drain_timeout_ms: u64,
    /// What was queued before a close gets this long to arrive. Default 1,000.
    pub close_timeout_ms: u64,
    /// How long a `publish` waits for subscribers under the policy `block`; then `error` 503. Default 5,000.
    pub block_timeout_ms: u64,
    /// How long idempotency keys are remembered. Default 120,000.
    pub topic_key_ms: u64,
    /// A topic without subscribers, history and keys is forgotten after this long, and its positions with it.
    /// Default 300,000.
    pub topic_idle_ms: u64,
}

/// The transport below.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Quic {
    /// Congestion controller. Default `bbr`, for what it does under loss; Quinn calls its BBR experimental, and beside other
    /// flows it may take more or less than its share (docs/BENCHMARKS.md, "Fairness").
    pub congestion: Congestion,
    /// Bytes of a client that QUIC holds, sent and not acknowledged or waiting to be sent, before its lanes begin to
    /// queue. Bounds a client's memory, and its throughput to this much for each round trip. Default 1 MiB.
    pub send_window: u64,
    /// Bytes that a client may send on one lane ahead of the server's reading. Default 1 MiB.
    pub stream_receive_window: u64,
    /// The same for all its lanes. Default 2 MiB.
    pub receive_window: u64,
    /// Bytes of datagrams that wait to be sent to one client; the oldest are dropped beyond, so that what arrives is new.
    /// Default 32 KiB.
    pub datagram_send_buffer: u64,
    /// Bytes of datagrams from one client that wait to be read; the oldest are dropped beyond. Default 256 KiB.
    pub datagram_receive_buffer: u64,
    /// A connection without any packet for this long is gone; above `ping_interval_ms` + `ping_timeout_ms`.
    /// Default 45,000.
    pub idle_timeout_ms: u64,
    /// Packets that a peer may receive before it must acknowledge (QUIC Acknowledgement Frequency). Default 10.
    pub ack_eliciting_threshold: u64,
    /// And the longest it may wait with that, in milliseconds. Default 25.
    pub max_ack_delay_ms: u64,
    /// Whether clients that come back may send requests with their first packets (0-RTT): those that others might repeat
    /// wait until the client is known to be there. Default false.
    pub early_data: bool,
    /// UDP socket buffers in bytes, each way; the system may cut them. Packets of connections that a worker has not looked at
    /// yet may take as much again. Default 4 MiB.
    pub socket_buffer_bytes: u64,
    /// Packets on their way between two workers after a client's address changed. Default 1,024.
    pub handover_queue: u64,
    /// File with the key for stateless resets, by which clients notice at once that a server was killed and is back: at least
    /// 32 bytes. Servers that share an address need the same. `None` (in the file: an empty text), the default, is the file
    /// `reset-key` beside the certificate, which is made where there is none.
    #[serde(deserialize_with = "path_or_none")]
    pub reset_key: Option<PathBuf>,
    /// Stateless resets that each worker sends in a second, at most. Default 10,000; at least 1.
    pub resets_per_second: u64,
}

/// Congestion controllers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Congestion {
    /// Models the path's bandwidth and round trip; unmoved by random loss. The first version of BBR, experimental in Quinn.
    Bbr,
    /// RFC 9438.
    Cubic,
    /// RFC 9002 section 7.
    NewReno,
}

/// What is logged.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Log {
    /// `error`, `warn`, `info`, `debug`, `trace`, or a filter as in `RUST_LOG`. Default `info`.
    pub level: String,
    /// How a line looks. Default `text`.
    pub format: LogFormat,
    /// The level of the lines that are written for each message. Default `debug`.
    pub messages: MessageLog,
}

/// How a log line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Time, level and message: for people.
    #[default]
    Text,
    /// One JSON object, in which what the message tells stands in fields as well: for machines.
    Json,
}

/// The level of the lines that are written for each message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum MessageLog {
    /// For debugging.
    #[default]
    Debug,
    /// Always shown, for a look at a server with few messages.
    Info,
}

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

impl Default for Config {
    fn default() -> Self {
        Self {
            addr: SocketAddr::from(([127, 0, 0, 1], 4433)),
            name: "QUIC WebSocket Server".into(),
            workers: 0,
            tls: Tls::default(),
            limits: Limits::default(),
            rates: Rates::default(),
            timing: Timing::default(),
            quic: Quic::default(),
            http: Http::default(),
            webtransport: WebTransport::default(),
            webrtc: WebRtc::default(),
            topics: Vec::new(),
            auth: Auth::default(),
            log: Log::default(),
        }
    }
}

impl Default for Tls {
    fn default() -> Self {
        Self {
            cert: development_folder().join("server.pem"),
            key: development_folder().join("server-key.pem"),
            client_ca: None,
            client_required: false,
            tcp_min_version: TlsVersion::Tls13,
            post_quantum: true,
            expiry_warning_days: 14,
        }
    }
}

fn path_or_none<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<PathBuf>, D::Error> {
    let path = PathBuf::deserialize(deserializer)?;
    Ok(Some(path).filter(|path| !path.as_os_str().is_empty()))
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_clients: 10_000,
            max_handshakes: 1024,
            retry_handshakes: 128,
            max_message_bytes: MIB,
            max_request_lanes: 32,
            lane_pending_replies: 256,
            client_unfinished_bytes: 8 * MIB,
            lane_backlog_messages: 1024,
            lane_backlog_bytes: 2 * MIB,
            client_backlog_messages: 4096,
            client_backlog_bytes: 4 * MIB,
            fanout_queue: 256,
            topic_lanes: 16,
            max_subscriptions: 1024,
            found_receivers: 1_000_000,
            max_http_connections: 1024,
            max_topics: 100_000,
            topic_memory_bytes: 256 * MIB,
            topic_keys: 1000,
            compress_min_bytes: 1024,
            tls_sessions: 10_000,
        }
    }
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            handshake_timeout_ms: 10_000,
            body_timeout_ms: 60_000,
            ping_interval_ms: 25_000,
            ping_timeout_ms: 10_000,
            drain_timeout_ms: 8000,
            close_timeout_ms: 1000,
            block_timeout_ms: 5000,
            topic_key_ms: 120_000,
            topic_idle_ms: 300_000,
        }
    }
}

impl Timing {
    pub(crate) fn handshake_timeout(&self) -> Duration {
        Duration::from_millis(self.handshake_timeout_ms)
    }

    pub(crate) fn body_timeout(&self) -> Duration {
        Duration::from_millis(self.body_timeout_ms)
    }

    pub(crate) fn ping_interval(&self) -> Duration {
        Duration::from_millis(self.ping_interval_ms)
    }

    pub(crate) fn ping_timeout(&self) -> Duration {
        Duration::from_millis(self.ping_timeout_ms)
    }

    pub(crate) fn drain_timeout(&self) -> Duration {
        Duration::from_millis(self.drain_timeout_ms)
    }

    pub(crate) fn block_timeout(&self) -> Duration {
        Duration::from_millis(self.block_timeout_ms)
    }

    pub(crate) fn close_timeout(&self) -> Duration {
        Duration::from_millis(self.close_timeout_ms)
    }
}

impl Default for Quic {
    fn default() -> Self {
        Self {
            congestion: Congestion::Bbr,
            send_window: MIB,
            stream_receive_window: MIB,
            receive_window: 2 * MIB,
            datagram_send_buffer: 32 * 1024,
            datagram_receive_buffer: MIB / 4,
            idle_timeout_ms: 45_000,
            ack_eliciting_threshold: 10,
            max_ack_delay_ms: 25,
            early_data: false,
            socket_buffer_bytes: 4 * MIB,
            handover_queue: 1024,
            reset_key: None,
            resets_per_second: 10_000,
        }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self { level: "info".into(), format: LogFormat::default(), messages: MessageLog::default() }
    }
}

impl Config {
    /// Whether clients are asked who they are.
    pub fn asks_who(&self) -> bool {
        self.auth.takes_tokens() || self.tls.client_ca.is_some() || self.auth.anonymous.is_some()
    }

    /// How many workers are started.
    pub(crate) fn worker_count(&self) -> usize {
        match usize::try_from(self.workers) {
            Ok(0) | Err(_) => std::thread::available_parallelism().map_or(1, Into::into),
            Ok(count) => count,
        }
    }
}
