//! Every setting of the server: its default, its unit, its bounds. Read from a TOML file, then the environment
//! (`QWS_LIMITS__MAX_CLIENTS=500` sets `limits.max_clients`), then the command line, the later over the earlier.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use thiserror::Error;

/// The environment variables that are settings begin with this; `__` stands between a table and its key.
pub const ENV_PREFIX: &str = "QWS_";

/// Why the settings cannot be used.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration file {}: {source}; check the path given with --config", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file, or the environment, does not hold what settings look like.
    #[error("{origin}: {message}")]
    Parse {
        /// Where it stands.
        origin: String,
        /// What is wrong with it.
        message: String,
    },
    /// A value outside of its bounds.
    #[error("setting {setting} = {value}: {allowed} is allowed")]
    OutOfBounds {
        /// Its name, with its table.
        setting: &'static str,
        /// What it was set to.
        value: u64,
        /// Its bounds.
        allowed: String,
    },
}

/// All settings.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Config {
    /// UDP address to listen on. Default 127.0.0.1:4433; port 0 takes any free one.
    pub addr: SocketAddr,
    /// The name told to clients. Default `QUIC WebSocket Server`.
    pub name: String,
    /// Worker threads, each with an endpoint of its own; 0, the default, means one for each core. At most 256.
    pub workers: u64,
    /// Certificates.
    pub tls: Tls,
    /// What a peer can make grow, and how far.
    pub limits: Limits,
    /// How long things may take.
    pub timing: Timing,
    /// The transport below.
    pub quic: Quic,
    /// What is logged.
    pub log: Log,
}

/// Where the certificates are.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Tls {
    /// PEM file with the server's chain, its own certificate first. Default `certs/server.pem`.
    pub cert: PathBuf,
    /// PEM file with its private key. Default `certs/server-key.pem`. Where neither file exists, both are made for
    /// development, with a `ca.pem` beside the certificate.
    pub key: PathBuf,
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
    /// Request lanes that a client may have open at once, the control lane not counted. Default 32; at most 1,024.
    pub max_request_lanes: u64,
    /// Messages that wait for one lane beyond what QUIC has taken; then 4413. Default 1,024.
    pub lane_backlog_messages: u64,
    /// Bytes that wait for one lane, likewise. Default 2 MiB.
    pub lane_backlog_bytes: u64,
    /// Messages that wait for one client, on all its lanes. Default 4,096.
    pub client_backlog_messages: u64,
    /// Bytes that wait for one client, on all its lanes. Default 4 MiB.
    pub client_backlog_bytes: u64,
    /// Messages on their way to one worker's clients; a sender waits beyond. Default 256; at most 65,536.
    pub fanout_queue: u64,
    /// Bodies of at least this many bytes are compressed for clients that agreed to it. Default 1,024.
    pub compress_min_bytes: u64,
}

/// How long things may take, in milliseconds.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Timing {
    /// From the connection's first packet to its accepted handshake; then 4408. Default 10,000.
    pub handshake_timeout_ms: u64,
    /// A client from which nothing came for so long is pinged. Default 25,000.
    pub ping_interval_ms: u64,
    /// And closed with 4408 where nothing comes for this long after. Default 10,000.
    pub ping_timeout_ms: u64,
    /// At shutdown, the time in which clients are told to leave and queues are flushed. Default 10,000.
    pub drain_timeout_ms: u64,
    /// What was queued before a close gets this long to arrive. Default 1,000.
    pub close_timeout_ms: u64,
}

/// The transport below.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Quic {
    /// Congestion controller. Default `bbr`.
    pub congestion: Congestion,
    /// Bytes of a client that QUIC holds, sent and not acknowledged or waiting to be sent, before its lanes begin to
    /// queue. Bounds a client's memory, and its throughput to this much for each round trip. Default 1 MiB.
    pub send_window: u64,
    /// Bytes that a client may send on one lane ahead of the server's reading. Default 1 MiB.
    pub stream_receive_window: u64,
    /// The same for all its lanes. Default 2 MiB.
    pub receive_window: u64,
    /// A connection without any packet for this long is gone; above `ping_interval_ms` + `ping_timeout_ms`.
    /// Default 45,000.
    pub idle_timeout_ms: u64,
    /// Packets that a peer may receive before it must acknowledge (QUIC Acknowledgement Frequency). Default 100.
    pub ack_eliciting_threshold: u64,
    /// And the longest it may wait with that, in milliseconds. Default 5.
    pub max_ack_delay_ms: u64,
    /// UDP socket buffers in bytes, each way; the system may cut them. Default 4 MiB.
    pub socket_buffer_bytes: u64,
    /// Packets on their way between two workers after a client's address changed. Default 1,024.
    pub handover_queue: u64,
}

/// Congestion controllers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Congestion {
    /// Models the path's bandwidth and round trip; unmoved by random loss.
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
    /// The level of the lines that are written for each message. Default `debug`.
    pub messages: MessageLog,
}

/// The level of the lines that are written for each message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum MessageLog {
    /// Seen by whoever debugs.
    #[default]
    Debug,
    /// Seen by everybody: for a look at a server with few messages.
    Info,
}

const MIB: u64 = 1 << 20;

impl Default for Config {
    fn default() -> Self {
        Self {
            addr: SocketAddr::from(([127, 0, 0, 1], 4433)),
            name: "QUIC WebSocket Server".into(),
            workers: 0,
            tls: Tls::default(),
            limits: Limits::default(),
            timing: Timing::default(),
            quic: Quic::default(),
            log: Log::default(),
        }
    }
}

impl Default for Tls {
    fn default() -> Self {
        Self { cert: "certs/server.pem".into(), key: "certs/server-key.pem".into() }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_clients: 10_000,
            max_handshakes: 1024,
            retry_handshakes: 128,
            max_message_bytes: MIB,
            max_request_lanes: 32,
            lane_backlog_messages: 1024,
            lane_backlog_bytes: 2 * MIB,
            client_backlog_messages: 4096,
            client_backlog_bytes: 4 * MIB,
            fanout_queue: 256,
            compress_min_bytes: 1024,
        }
    }
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            handshake_timeout_ms: 10_000,
            ping_interval_ms: 25_000,
            ping_timeout_ms: 10_000,
            drain_timeout_ms: 10_000,
            close_timeout_ms: 1000,
        }
    }
}

impl Timing {
    pub(crate) fn handshake_timeout(&self) -> Duration {
        Duration::from_millis(self.handshake_timeout_ms)
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
            idle_timeout_ms: 45_000,
            ack_eliciting_threshold: 100,
            max_ack_delay_ms: 5,
            socket_buffer_bytes: 4 * MIB,
            handover_queue: 1024,
        }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self { level: "info".into(), messages: MessageLog::default() }
    }
}

impl Config {
    /// Reads the file, where there is one, and the environment over it. Call [`validate`](Self::validate) once the
    /// command line has had its say.
    ///
    /// # Errors
    /// [`ConfigError`] names the file or variable and what is wrong in it.
    pub fn load(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        let (mut table, origin) = match file {
            None => (toml::Table::new(), "the environment".to_owned()),
            Some(path) => {
                let text = std::fs::read_to_string(path)
                    .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
                let origin = path.display().to_string();
                // Judged on its own first: these messages show the line.
                let parse_error =
                    |e: toml::de::Error| ConfigError::Parse { origin: origin.clone(), message: e.to_string() };
                toml::from_str::<Self>(&text).map_err(parse_error)?;
                (text.parse::<toml::Table>().map_err(parse_error)?, format!("{origin} or the environment"))
            }
        };
        for (variable, value) in environment {
            if let Some(setting) = variable.strip_prefix(ENV_PREFIX) {
                set(&mut table, &variable, &setting.to_ascii_lowercase(), &value)?;
            }
        }
        serde_path_to_error::deserialize(table).map_err(|e: serde_path_to_error::Error<toml::de::Error>| {
            let message = format!("setting {}: {}", e.path(), e.inner().message().trim_end());
            ConfigError::Parse { origin, message }
        })
    }

    /// Checks every bound.
    ///
    /// # Errors
    /// [`ConfigError::OutOfBounds`] for the first value that is outside.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let (limits, timing, quic) = (&self.limits, &self.timing, &self.quic);
        let max_lane = u64::from(u32::MAX);
        for (setting, value, least, most) in [
            ("workers", self.workers, 0, 256),
            ("limits.max_clients", limits.max_clients, 1, 10_000_000),
            ("limits.max_handshakes", limits.max_handshakes, 1, 1_000_000),
            ("limits.retry_handshakes", limits.retry_handshakes, 0, 1_000_000),
            ("limits.max_message_bytes", limits.max_message_bytes, 1024, 64 * MIB),
            ("limits.max_request_lanes", limits.max_request_lanes, 0, 1024),
            ("limits.lane_backlog_messages", limits.lane_backlog_messages, 1, max_lane),
            ("limits.lane_backlog_bytes", limits.lane_backlog_bytes, limits.max_message_bytes, max_lane),
            ("limits.client_backlog_messages", limits.client_backlog_messages, limits.lane_backlog_messages, max_lane),
            ("limits.client_backlog_bytes", limits.client_backlog_bytes, limits.lane_backlog_bytes, max_lane),
            ("limits.fanout_queue", limits.fanout_queue, 1, 65_536),
            ("limits.compress_min_bytes", limits.compress_min_bytes, 1, max_lane),
            ("timing.handshake_timeout_ms", timing.handshake_timeout_ms, 10, 3_600_000),
            ("timing.ping_interval_ms", timing.ping_interval_ms, 10, 3_600_000),
            ("timing.ping_timeout_ms", timing.ping_timeout_ms, 10, 3_600_000),
            ("timing.drain_timeout_ms", timing.drain_timeout_ms, 0, 3_600_000),
            ("timing.close_timeout_ms", timing.close_timeout_ms, 0, 60_000),
            ("quic.send_window", quic.send_window, 16 * 1024, 1 << 30),
            ("quic.stream_receive_window", quic.stream_receive_window, 16 * 1024, 1 << 30),
            ("quic.receive_window", quic.receive_window, quic.stream_receive_window, 1 << 30),
            (
                "quic.idle_timeout_ms",
                quic.idle_timeout_ms,
                timing.ping_interval_ms + timing.ping_timeout_ms + 1,
                7_200_001,
            ),
            ("quic.ack_eliciting_threshold", quic.ack_eliciting_threshold, 1, 1000),
            ("quic.max_ack_delay_ms", quic.max_ack_delay_ms, 1, 1000),
            ("quic.socket_buffer_bytes", quic.socket_buffer_bytes, 64 * 1024, 1 << 30),
            ("quic.handover_queue", quic.handover_queue, 1, 1_000_000),
        ] {
            if !(least..=most).contains(&value) {
                return Err(ConfigError::OutOfBounds { setting, value, allowed: format!("{least} to {most}") });
            }
        }
        Ok(())
    }

    /// How many workers are started.
    pub(crate) fn worker_count(&self) -> usize {
        match usize::try_from(self.workers) {
            Ok(0) | Err(_) => std::thread::available_parallelism().map_or(1, Into::into),
            Ok(count) => count,
        }
    }
}

/// Sets `limits__max_clients` in the tree of tables; the value is read as TOML where it is TOML, else as text.
fn set(table: &mut toml::Table, variable: &str, setting: &str, value: &str) -> Result<(), ConfigError> {
    let mut path: Vec<&str> = setting.split("__").collect();
    let Some(key) = path.pop() else { return Ok(()) };
    let mut table = table;
    for step in path {
        let entry = table.entry(step).or_insert_with(|| toml::Value::Table(toml::Table::new()));
        table = entry.as_table_mut().ok_or_else(|| ConfigError::Parse {
            origin: variable.to_owned(),
            message: format!("{step} is a setting, not a table of settings"),
        })?;
    }
    let value = format!("v = {value}")
        .parse::<toml::Table>()
        .ok()
        .and_then(|mut parsed| parsed.remove("v"))
        .unwrap_or_else(|| toml::Value::String(value.to_owned()));
    table.insert(key.to_owned(), value);
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn environment(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn the_defaults_are_within_their_own_bounds() {
        Config::default().validate().expect("the defaults hold");
    }

    #[test]
    fn the_documented_settings_are_all_settings_with_their_defaults() {
        let documented = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/quic-websocket.toml");
        let config = Config::load(Some(Path::new(documented)), []).expect("the documented file is one");
        assert_eq!(format!("{config:?}"), format!("{:?}", Config::default()));
        let lines = std::fs::read_to_string(documented).expect("the file");
        let settings = lines.lines().filter(|line| line.contains(" = ") && !line.starts_with('#')).count();
        assert_eq!(format!("{config:?}").matches(": ").count() - 5, settings, "every setting is documented");
    }

    #[test]
    fn the_environment_stands_over_the_file() {
        let mut file = tempfile::NamedTempFile::new().expect("a file");
        write!(file, "name = 'from file'\n[limits]\nmax_clients = 5\nmax_handshakes = 6").expect("written");
        let env = environment(&[
            ("QWS_LIMITS__MAX_CLIENTS", "7"),
            ("QWS_QUIC__CONGESTION", "cubic"),
            ("QWS_ADDR", "127.0.0.1:0"),
            ("OTHER", "x"),
        ]);
        let config = Config::load(Some(file.path()), env).expect("it loads");
        assert_eq!((config.limits.max_clients, config.limits.max_handshakes), (7, 6));
        assert_eq!((config.name.as_str(), config.quic.congestion), ("from file", Congestion::Cubic));
        assert_eq!(config.addr.port(), 0);
    }

    #[test]
    fn a_wrong_setting_is_named() {
        let error = Config::load(None, environment(&[("QWS_LIMITS__MAX_CLINTS", "7")])).expect_err("a misspelling");
        assert!(error.to_string().contains("max_clints"), "{error}");
        let error = Config::load(Some(Path::new("/nonexistent/x.toml")), []).expect_err("no file");
        assert!(error.to_string().contains("/nonexistent/x.toml"), "{error}");
        let mut config = Config::default();
        config.limits.max_message_bytes = 1;
        let error = config.validate().expect_err("below the bound").to_string();
        assert!(error.contains("limits.max_message_bytes = 1") && error.contains("1024 to"), "{error}");
    }
}
