//! Any text as a configuration file and any environment over it: no panic, errors are short, and accepted values are
//! within their bounds.
#![no_main]
#![forbid(unsafe_code)]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use quic_websocket::Config;
use quic_websocket::config::{ConfigError, Loaded};

/// Longest error text about one wrong setting without the quoted part, in characters.
const FEW_WORDS: usize = 500;
/// Longest quoted part: a line of the file, or a value, literal or escaped.
const REPEATED: usize = 100;
const ESCAPED: usize = 10;

// Input: the file, then lines `NAME=VALUE` of the environment, each after a byte 0.
fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut parts = text.split('\0');
    let file = parts.next().unwrap_or_default();
    let environment: Vec<(String, String)> =
        parts.filter_map(|pair| pair.split_once('=')).map(|(name, value)| (name.into(), value.into())).collect();
    let loaded = if file.is_empty() { load(None, &environment) } else { load(Some(written(file)), &environment) };
    let is_long = text.split(['\0', '\n', '\r']).any(|line| line.len() > REPEATED);
    let judged = loaded.and_then(|loaded| {
        assert!(loaded.warnings().iter().all(|warning| !warning.is_empty() && !warning.contains('\n')));
        loaded.validate().map(|()| loaded.config)
    });
    match judged {
        Ok(config) => within_bounds(&config),
        Err(e) => {
            let text = e.to_string();
            assert!(!text.is_empty());
            assert!(is_long || text.chars().count() <= FEW_WORDS + REPEATED * ESCAPED, "a long text: {text}");
            if let Some(setting) = e.setting() {
                assert!(text.contains(setting), "{text}");
            }
        }
    }
});

fn load(file: Option<&Path>, environment: &[(String, String)]) -> Result<Loaded, ConfigError> {
    Loaded::read(file, environment.iter().cloned())
}

/// Path of the file; there is one for the whole run.
fn written(text: &str) -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    let path = PATH.get_or_init(|| std::env::temp_dir().join(format!("qws-fuzz-{}.toml", std::process::id())));
    let mut file = std::fs::File::create(path).expect("a file");
    file.write_all(text.as_bytes()).expect("it is written");
    path
}

fn within_bounds(config: &Config) {
    let (limits, timing, quic) = (&config.limits, &config.timing, &config.quic);
    assert!(config.workers <= 256);
    assert!((1..=64).contains(&config.name.chars().count()) && !config.name.chars().any(char::is_control));
    assert!(limits.max_message_bytes + 1024 <= limits.lane_backlog_bytes);
    assert!(limits.lane_backlog_bytes <= limits.client_backlog_bytes);
    assert!(limits.lane_backlog_messages <= limits.client_backlog_messages);
    assert!(limits.topic_lanes <= 16);
    assert!(quic.stream_receive_window <= quic.receive_window);
    assert!(timing.ping_interval_ms + timing.ping_timeout_ms < quic.idle_timeout_ms);
    let in_memory = config.topics.iter().filter(|rule| !rule.is_durable());
    assert!(in_memory.filter_map(|rule| rule.history_bytes).all(|bytes| bytes <= 1 << 30));
}
