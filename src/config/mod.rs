//! Every setting of the server: its default, its unit, its bounds. Read from a TOML file, then the environment
//! (`QWS_LIMITS__MAX_CLIENTS=500` sets `limits.max_clients`), then the command line; the later overrides the earlier.

mod address;
mod auth;
mod decode;
mod error;
mod grant;
mod http;
mod live;
mod load;
mod loaded;
mod rates;
mod schema;
mod store;
mod topics;
mod tree;
mod webrtc;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

pub use quic_websocket_client::tls::development_folder;
use serde::{Deserialize, Deserializer};

pub use self::address::parse_address;
pub(crate) use self::auth::MAX_TRIED;
pub use self::auth::{Auth, AuthKey, Jwks, Secret, TokenAlgorithm};
pub use self::error::ConfigError;
pub(crate) use self::grant::MAX_SUBSCRIPTIONS;
pub use self::grant::{Grant, Patterns};
pub use self::http::{Http, WebTransport};
pub(crate) use self::live::Live;
pub use self::live::is_live;
pub use self::loaded::{ENV_PREFIX, Loaded};
pub use self::rates::Rates;
pub use self::store::Store;
pub(crate) use self::topics::History;
pub use self::topics::{Durability, OverflowPolicy, Presence, TopicRule, Who};
pub use self::tree::Place;
pub use self::webrtc::WebRtc;
pub use crate::origin::Origin;

/// All settings of the server.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Config {
    /// UDP address to listen on. Default 127.0.0.1:4433; port 0 uses any free port.
    #[serde(deserialize_with = "address::address")]
    pub addr: SocketAddr,
    /// Name sent to clients, within the bounds of a [`ClientName`](crate::message::ClientName). Default
    /// `QUIC WebSocket Server`.
    pub name: String,
    /// Worker threads, each with its own endpoint; 0, the default, is one per core. At most 256.
    pub workers: u64,
    /// Certificates and TLS.
    pub tls: Tls,
    /// Bounds of everything that a peer can make grow.
    pub limits: Limits,
    /// Rate limits, per client, per address and in total.
    pub rates: Rates,
    /// Time limits.
    pub timing: Timing,
    /// Settings of QUIC.
    pub quic: Quic,
    /// HTTP: WebSocket and web pages.
    pub http: Http,
    /// WebTransport.
    pub webtransport: WebTransport,
    /// STUN and TURN servers for WebRTC between browsers.
    pub webrtc: WebRtc,
    /// Rules for topics: the first whose pattern matches applies, and the defaults if none does. Default: none.
    pub topics: Vec<TopicRule>,
    /// The store of topics that are kept on a disk.
    pub store: Store,
    /// Authentication and permissions.
    pub auth: Auth,
    /// Logging.
    pub log: Log,
}

/// Certificates and TLS.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Tls {
    /// PEM file with the certificate chain, the server's own certificate first. Default `server.pem` in
    /// [`development_folder`].
    pub cert: PathBuf,
    /// PEM file with its private key. Default `server-key.pem` in [`development_folder`]. If both settings have their
    /// defaults and neither file exists, development files are created, with a `ca.pem` beside the certificate.
    pub key: PathBuf,
    /// PEM file with the authorities that certify clients. Default (in the file: an empty string): none, and no
    /// certificate is requested.
    #[serde(deserialize_with = "path_or_none")]
    pub client_ca: Option<PathBuf>,
    /// Whether clients without a certificate are rejected; requires `client_ca`. Default false.
    pub client_required: bool,
    /// Oldest TLS version over TCP; QUIC always uses TLS 1.3. Default `1.3`. `1.2` is for proxies limited to it, such
    /// as nginx before 1.23.4 with its defaults.
    pub tcp_min_version: TlsVersion,
    /// Whether X25519MLKEM768 is used with clients that support it, so that recorded traffic stays secret even from
    /// future quantum computers. Default true.
    pub post_quantum: bool,
    /// Days before the certificate expires from which the log warns once a day, but not before the last quarter of its
    /// lifetime; 0 is never. Default 14; at most 3,650.
    pub expiry_warning_days: u64,
}

/// Versions of TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum TlsVersion {
    /// RFC 5246, only with ephemeral keys and authenticated encryption.
    #[serde(rename = "1.2")]
    Tls12,
    /// RFC 8446.
    #[serde(rename = "1.3")]
    Tls13,
}

/// Bounds of everything that a peer can make grow.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Limits {
    /// Connected clients; more are refused with 1013. Default 10,000; 1 to 10,000,000.
    pub max_clients: u64,
    /// Connections of one user; more get `error` 429 and are refused with 4429. Default 100; 0 for any number, at most
    /// 10,000,000.
    pub user_connections: u64,
    /// Connections without a finished handshake; more are refused at once. Default 1,024; 1 to 1,000,000.
    pub max_handshakes: u64,
    /// Unfinished handshakes from which on new addresses are validated by a Retry (RFC 9000 section 8.1.2). Default
    /// 128; 0 validates every address.
    pub retry_handshakes: u64,
    /// Longest `info` of a token, in bytes, which others see; a token with a longer one is refused. Default 1,024; at
    /// most 8,192, as a token.
    pub info_bytes: u64,
    /// Largest body in bytes, before and after decompression. Default 1 MiB; 1 KiB to 64 MiB.
    pub max_message_bytes: u64,
    /// Request lanes served concurrently per client, the control lane not counted; others wait. Default 32; at most
    /// 1,024.
    pub max_request_lanes: u64,
    /// Replies of one lane that may be pending while the lane is read on. Default 256; 1 to 65,536.
    pub lane_pending_replies: u64,
    /// Longest `meta` of a message, in bytes. Default 1,024; 2 to 65,536.
    pub meta_bytes: u64,
    /// Open requests of one client to other clients; more get `error` 429. Default 256; 1 to 65,536.
    pub client_requests: u64,
    /// Open requests that one client has to answer; if all that answer have as many, further ones get `error` 503.
    /// Default 1,000; 1 to 1,000,000.
    pub responder_requests: u64,
    /// Bytes of unfinished bodies of one client, on all its lanes; more close it with 1009. Default 8 MiB;
    /// `max_message_bytes` to 4 GiB.
    pub client_unfinished_bytes: u64,
    /// Messages queued for one lane beyond what QUIC holds; more close the client with 4413, or follow the topic's
    /// rule. Default 1,024.
    pub lane_backlog_messages: u64,
    /// Bytes queued for one lane, likewise; at least 1 KiB more than `max_message_bytes`. Default 2 MiB.
    pub lane_backlog_bytes: u64,
    /// Messages queued for one client on all its lanes. Default 4,096.
    pub client_backlog_messages: u64,
    /// Bytes queued for one client on all its lanes; at least `lane_backlog_bytes`. Once its replies alone are as many,
    /// no request lane is read. Default 4 MiB.
    pub client_backlog_bytes: u64,
    /// Deliveries on their way to one worker's clients, for topics and for everything else separately; further senders
    /// wait. Default 256; 1 to 65,536.
    pub fanout_queue: u64,
    /// Topic lanes that the server opens for one client. Default 16; 0 to 16.
    pub topic_lanes: u64,
    /// Subscriptions of one client; more get `error` 403. Default 1,024; at most 1,000,000.
    pub max_subscriptions: u64,
    /// Receivers in each worker's cached lists of topics, about 16 bytes each; a subscriber to a pattern is in the list
    /// of each topic that matches. Lists that do not fit are computed for each message. Default 1,000,000; at most
    /// 1,000,000,000.
    pub found_receivers: u64,
    /// Bytes of messages that subscriptions with a `max_rate` hold back for one client; beyond that the message that
    /// would go first goes at once. Default 2 MiB; at most 4 GiB.
    pub conflated_bytes: u64,
    /// TCP connections that are not WebSockets, or not yet; more are closed at once. Default 1,024; 1 to 1,000,000.
    pub max_http_connections: u64,
    /// Topics in total, including those that only keep history; more get `error` 503. Default 100,000; 1 to
    /// 100,000,000.
    pub max_topics: u64,
    /// Bytes of memory for the history and idempotency keys of all topics, allocator overhead included; when it is used
    /// up, topics keep less than their rules allow. Default 256 MiB; at most 1 TiB.
    pub topic_memory_bytes: u64,
    /// Idempotency keys remembered per topic; beyond that the oldest are forgotten. Default 1,000; at most 1,000,000.
    pub topic_keys: u64,
    /// Durable consumers per topic; more get `error` 503. Default 64; at most 10,000.
    pub topic_consumers: u64,
    /// Durable consumers in total, of about 500 bytes each, and 100 more for each message in flight; more get `error`
    /// 503. Default 100,000; at most 100,000,000.
    pub max_consumers: u64,
    /// Longest `state` of a member of a topic, in bytes; a longer one gets `error` 400. Default 1,024; at most 65,536.
    pub state_bytes: u64,
    /// Members of topics whose connections are lost and that may come back (`presence_grace_ms`), of all topics; more
    /// leave at once. Default 100,000; at most 100,000,000.
    pub away_members: u64,
    /// Clients that share one durable consumer; more get `error` 503. Default 64; 1 to 1,000.
    pub consumer_members: u64,
    /// Smallest body in bytes that is compressed, for clients that negotiated compression. Default 1,024; at least 1.
    pub compress_min_bytes: u64,
    /// TLS sessions kept for returning clients with `quic.early_data`, two per connection; beyond that the oldest are
    /// forgotten, and their clients make a full handshake. Default 10,000; 1 to 10,000,000.
    pub tls_sessions: u64,
}

/// Time limits, in milliseconds.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Timing {
    /// Time from a connection's first packet to its accepted handshake; then it is closed with 4408. Default 10,000.
    pub handshake_timeout_ms: u64,
    /// Time from the first byte of a body to its last, on one lane; then the client is closed with 4408. Time in which
    /// the lane waits for earlier requests is not counted. Default 60,000: enough for 1 MiB at 140 kbit/s.
    pub body_timeout_ms: u64,
    /// Silence after which a client is pinged. Default 25,000.
    pub ping_interval_ms: u64,
    /// Silence after that ping until the client is closed with 4408. Default 10,000.
    pub ping_timeout_ms: u64,
    /// Time for a shutdown: clients are told, queues flushed, connections closed. Default 8,000; Docker kills after
    /// 10,000.
    pub drain_timeout_ms: u64,
    /// Time to send queued data before a close. Default 1,000; at most 60,000.
    pub close_timeout_ms: u64,
    /// Time that a `publish` waits for subscribers under the policy `block`; then it gets `error` 503. Default 5,000.
    pub block_timeout_ms: u64,
    /// Time for which idempotency keys are remembered. Default 120,000; at most 30 days.
    pub topic_key_ms: u64,
    /// Time after which a durable consumer without clients is forgotten. Default 30 days; at most 10 years.
    pub consumer_idle_ms: u64,
    /// Time after which a topic without subscribers, history and keys is forgotten, with its positions. Default
    /// 300,000; at most 30 days.
    pub topic_idle_ms: u64,
}

/// QUIC.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Quic {
    /// Congestion controller. Default `bbr`, because of its throughput under loss; Quinn calls its BBR experimental,
    /// and it may take more or less than its share beside other flows (docs/BENCHMARKS.md, "Fairness").
    pub congestion: Congestion,
    /// Bytes that QUIC holds per client, unacknowledged or unsent, before the client's lanes start to queue. Bounds a
    /// client's memory, and its throughput to this much per round trip. Default 1 MiB; 16 KiB to 1 GiB.
    pub send_window: u64,
    /// Bytes that a client may send ahead of the server's reading on one lane. Default 1 MiB; 16 KiB to 1 GiB.
    pub stream_receive_window: u64,
    /// The same on all its lanes together; at least `stream_receive_window`. Default 2 MiB; at most 1 GiB.
    pub receive_window: u64,
    /// Bytes of datagrams queued for one client; when full, the oldest are dropped, so that what arrives is recent.
    /// Default 32 KiB; 2 KiB to 1 GiB.
    pub datagram_send_buffer: u64,
    /// Bytes of unread datagrams from one client; when full, the oldest are dropped. Default 256 KiB; 2 KiB to 1 GiB.
    pub datagram_receive_buffer: u64,
    /// Time without any packet after which a connection is lost, in milliseconds; greater than `ping_interval_ms` +
    /// `ping_timeout_ms`. Default 45,000.
    pub idle_timeout_ms: u64,
    /// Packets that a peer may receive before it must acknowledge (QUIC Acknowledgement Frequency). Default 10; 1 to
    /// 1,000.
    pub ack_eliciting_threshold: u64,
    /// Longest time for which it may delay that, in milliseconds. Default 25; 1 to 1,000.
    pub max_ack_delay_ms: u64,
    /// Whether returning clients may send requests in their first packets (0-RTT); requests that are unsafe to replay
    /// wait for the end of the handshake. Default false.
    pub early_data: bool,
    /// UDP socket buffers in bytes, each way; the system may reduce them. As much again may be taken by packets of
    /// connections that a worker has not processed yet. Default 4 MiB; 64 KiB to 1 GiB.
    pub socket_buffer_bytes: u64,
    /// Packets on their way between two workers after a client's address changed. Default 1,024; 1 to 1,000,000.
    pub handover_queue: u64,
    /// File with the key for stateless resets, which let clients notice at once that the server was killed and
    /// restarted: at least 32 bytes, the same on all servers that share an address. Default (in the file: an empty
    /// string): `reset-key` beside the certificate, created if missing.
    #[serde(deserialize_with = "path_or_none")]
    pub reset_key: Option<PathBuf>,
    /// Stateless resets per worker and second. Default 10,000; 1 to 1,000,000.
    pub resets_per_second: u64,
}

/// Congestion controllers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Congestion {
    /// Models the path's bandwidth and round trip; insensitive to random loss. The first version of BBR, experimental
    /// in Quinn.
    Bbr,
    /// RFC 9438.
    Cubic,
    /// RFC 9002 section 7.
    NewReno,
}

/// Logging.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Log {
    /// Level or filter: `error`, `warn`, `info`, `debug`, `trace`, or a filter as in `RUST_LOG`. Default `info`.
    pub level: String,
    /// Format of the lines. Default `text`.
    pub format: LogFormat,
    /// Level of the lines written for each message. Default `debug`.
    pub messages: MessageLog,
}

/// Format of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Time, level and message, for people.
    #[default]
    Text,
    /// One JSON object per line, with the message's values as fields, for machines.
    Json,
}

/// Level of the lines written for each message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum MessageLog {
    /// Hidden at the default level.
    #[default]
    Debug,
    /// Shown at the default level, for a server with few messages.
    Info,
}

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const DAY_MS: u64 = 86_400_000;

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
            store: Store::default(),
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
            user_connections: 100,
            max_handshakes: 1024,
            retry_handshakes: 128,
            info_bytes: 1024,
            max_message_bytes: MIB,
            max_request_lanes: 32,
            lane_pending_replies: 256,
            meta_bytes: 1024,
            client_requests: 256,
            responder_requests: 1000,
            client_unfinished_bytes: 8 * MIB,
            lane_backlog_messages: 1024,
            lane_backlog_bytes: 2 * MIB,
            client_backlog_messages: 4096,
            client_backlog_bytes: 4 * MIB,
            fanout_queue: 256,
            topic_lanes: 16,
            max_subscriptions: 1024,
            found_receivers: 1_000_000,
            conflated_bytes: 2 * 1024 * 1024,
            max_http_connections: 1024,
            max_topics: 100_000,
            topic_memory_bytes: 256 * MIB,
            topic_keys: 1000,
            topic_consumers: 64,
            max_consumers: 100_000,
            state_bytes: 1024,
            away_members: 100_000,
            consumer_members: 64,
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
            consumer_idle_ms: 2_592_000_000,
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
    /// Whether clients are authenticated: by tokens, by certificates, or as anonymous ones with limited rights.
    pub fn authenticates(&self) -> bool {
        self.auth.accepts_tokens() || self.tls.client_ca.is_some() || self.auth.anonymous.is_some()
    }

    /// Number of workers to start.
    pub(crate) fn worker_count(&self) -> usize {
        match usize::try_from(self.workers) {
            Ok(0) | Err(_) => std::thread::available_parallelism().map_or(1, Into::into),
            Ok(count) => count,
        }
    }
}
