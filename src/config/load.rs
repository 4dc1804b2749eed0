//! Checks every bound. Each setting with its least and greatest value is in one table here, and rules between settings
//! follow it. Called before a server starts and on each reload.

use super::{Config, ConfigError, DAY_MS, KIB, MIB};
use crate::message::ClientName;

impl Config {
    /// Checks every bound.
    ///
    /// # Errors
    /// [`ConfigError::OutOfBounds`] for the first value outside its bounds; [`ConfigError::Needs`],
    /// [`ConfigError::NeedsStore`], [`ConfigError::Name`], [`ConfigError::Excluded`], [`ConfigError::Auth`],
    /// [`ConfigError::NotLoopback`], [`ConfigError::AdminToken`], [`ConfigError::IceServer`], [`ConfigError::Rule`].
    pub fn validate(&self) -> Result<(), ConfigError> {
        let (limits, timing, quic, auth) = (&self.limits, &self.timing, &self.quic, &self.auth);
        let max_lane = u64::from(u32::MAX);
        for (setting, value, least, most) in [
            ("workers", self.workers, 0, 256),
            ("limits.max_clients", limits.max_clients, 1, 10_000_000),
            ("limits.user_connections", limits.user_connections, 0, 10_000_000),
            ("limits.max_handshakes", limits.max_handshakes, 1, 1_000_000),
            ("limits.retry_handshakes", limits.retry_handshakes, 0, 1_000_000),
            ("limits.info_bytes", limits.info_bytes, 0, 8192),
            ("limits.max_message_bytes", limits.max_message_bytes, 1024, 64 * MIB),
            ("limits.max_request_lanes", limits.max_request_lanes, 0, 1024),
            ("limits.lane_pending_replies", limits.lane_pending_replies, 1, 65_536),
            ("limits.meta_bytes", limits.meta_bytes, 2, 65_536),
            ("limits.client_requests", limits.client_requests, 1, 65_536),
            ("limits.responder_requests", limits.responder_requests, 1, 1_000_000),
            ("limits.client_unfinished_bytes", limits.client_unfinished_bytes, limits.max_message_bytes, max_lane),
            ("limits.lane_backlog_messages", limits.lane_backlog_messages, 1, max_lane),
            (
                "limits.lane_backlog_bytes",
                limits.lane_backlog_bytes,
                limits.max_message_bytes.saturating_add(KIB),
                max_lane,
            ),
            ("limits.client_backlog_messages", limits.client_backlog_messages, limits.lane_backlog_messages, max_lane),
            ("limits.client_backlog_bytes", limits.client_backlog_bytes, limits.lane_backlog_bytes, max_lane),
            ("limits.fanout_queue", limits.fanout_queue, 1, 65_536),
            ("limits.topic_lanes", limits.topic_lanes, 0, 16),
            ("limits.max_subscriptions", limits.max_subscriptions, 0, 1_000_000),
            ("limits.found_receivers", limits.found_receivers, 0, 1_000_000_000),
            ("limits.conflated_bytes", limits.conflated_bytes, 0, 1 << 32),
            ("limits.max_http_connections", limits.max_http_connections, 1, 1_000_000),
            ("limits.max_topics", limits.max_topics, 1, 100_000_000),
            ("limits.topic_memory_bytes", limits.topic_memory_bytes, 0, 1 << 40),
            ("limits.topic_keys", limits.topic_keys, 0, 1_000_000),
            ("limits.topic_consumers", limits.topic_consumers, 0, 10_000),
            ("limits.max_consumers", limits.max_consumers, 0, 100_000_000),
            ("limits.state_bytes", limits.state_bytes, 0, 65_536),
            ("limits.away_members", limits.away_members, 0, 100_000_000),
            ("limits.consumer_members", limits.consumer_members, 1, 1000),
            ("limits.compress_min_bytes", limits.compress_min_bytes, 1, max_lane),
            ("limits.tls_sessions", limits.tls_sessions, 1, 10_000_000),
            ("timing.handshake_timeout_ms", timing.handshake_timeout_ms, 10, 3_600_000),
            ("timing.body_timeout_ms", timing.body_timeout_ms, 10, 3_600_000),
            ("timing.ping_interval_ms", timing.ping_interval_ms, 10, 3_600_000),
            ("timing.ping_timeout_ms", timing.ping_timeout_ms, 10, 3_600_000),
            ("timing.drain_timeout_ms", timing.drain_timeout_ms, 0, 3_600_000),
            ("timing.close_timeout_ms", timing.close_timeout_ms, 0, 60_000),
            ("timing.block_timeout_ms", timing.block_timeout_ms, 1, 3_600_000),
            ("timing.topic_key_ms", timing.topic_key_ms, 1, 30 * DAY_MS),
            ("timing.consumer_idle_ms", timing.consumer_idle_ms, 1, 3653 * DAY_MS),
            ("timing.topic_idle_ms", timing.topic_idle_ms, 1, 30 * DAY_MS),
            ("auth.leeway_ms", auth.leeway_ms, 0, 3_600_000),
            ("auth.warn_ms", auth.warn_ms, 0, DAY_MS),
            ("auth.max_used_tokens", auth.max_used_tokens, 1, 100_000_000),
            ("auth.max_revocations", auth.max_revocations, 1, 100_000_000),
            ("auth.keys (how many)", auth.keys.len() as u64, 0, 64),
            ("auth.jwks.refresh_ms", auth.jwks.refresh_ms, 1000, 30 * DAY_MS),
            ("auth.jwks.cooldown_ms", auth.jwks.cooldown_ms, 10, 3_600_000),
            ("auth.jwks.timeout_ms", auth.jwks.timeout_ms, 10, 60_000),
            ("auth.jwks.max_bytes", auth.jwks.max_bytes, 1024, 16 * MIB),
            ("quic.send_window", quic.send_window, 16 * 1024, 1 << 30),
            ("quic.stream_receive_window", quic.stream_receive_window, 16 * 1024, 1 << 30),
            ("quic.receive_window", quic.receive_window, quic.stream_receive_window, 1 << 30),
            ("quic.datagram_send_buffer", quic.datagram_send_buffer, 2048, 1 << 30),
            ("quic.datagram_receive_buffer", quic.datagram_receive_buffer, 2048, 1 << 30),
            (
                "quic.idle_timeout_ms",
                quic.idle_timeout_ms,
                timing.ping_interval_ms.saturating_add(timing.ping_timeout_ms).saturating_add(1),
                7_200_001,
            ),
            ("quic.ack_eliciting_threshold", quic.ack_eliciting_threshold, 1, 1000),
            ("quic.max_ack_delay_ms", quic.max_ack_delay_ms, 1, 1000),
            ("quic.socket_buffer_bytes", quic.socket_buffer_bytes, 64 * 1024, 1 << 30),
            ("quic.handover_queue", quic.handover_queue, 1, 1_000_000),
            ("quic.resets_per_second", quic.resets_per_second, 1, 1_000_000),
            ("tls.expiry_warning_days", self.tls.expiry_warning_days, 0, 3650),
        ]
        .into_iter()
        .chain(self.rates.bounds(limits))
        .chain(self.http.bounds())
        .chain(self.webrtc.bounds())
        .chain(self.store.bounds())
        {
            if !(least..=most).contains(&value) {
                let (setting, allowed) = (setting.to_owned(), format!("{least} to {most}"));
                return Err(ConfigError::OutOfBounds { setting, value, allowed });
            }
        }
        ClientName::new(&self.name).map_err(|_| ConfigError::Name { name: self.name.chars().take(100).collect() })?;
        self.http.validate()?;
        self.webrtc.validate()?;
        // If both are 0, the system chooses two different ports.
        let with_tls = self.http.addr.unwrap_or(self.addr);
        if self.http.enabled && self.http.plain_addr == Some(with_tls) && with_tls.port() != 0 {
            let (setting, other) = ("http.plain_addr", if self.http.addr.is_some() { "http.addr" } else { "addr" });
            let why = "they are the same address, and a port is served either with TLS or without; choose another port";
            return Err(ConfigError::Excluded { setting, other, why });
        }
        auth.validate(self.tls.client_ca.is_some())?;
        if self.quic.early_data && auth.single_use {
            let why = "a replayed copy of a client's first packets would use up its token";
            return Err(ConfigError::Excluded { setting: "auth.single_use", other: "quic.early_data", why });
        }
        if self.tls.client_required && self.tls.client_ca.is_none() {
            return Err(ConfigError::Needs { setting: "tls.client_required", other: "tls.client_ca" });
        }
        let least = 4 * self.store.segment_bytes;
        if self.store.max_bytes > 0 && self.store.max_bytes < least {
            // Space is given back by whole segments that newer ones have replaced.
            let (setting, value) = ("store.max_bytes".to_owned(), self.store.max_bytes);
            let allowed = format!("0, or at least {least} (4 times store.segment_bytes)");
            return Err(ConfigError::OutOfBounds { setting, value, allowed });
        }
        for (index, rule) in self.topics.iter().enumerate() {
            for (setting, value, least, most) in rule.bounds() {
                if !(least..=most).contains(&value) {
                    let (setting, allowed) = (format!("topics[{index}].{setting}"), format!("{least} to {most}"));
                    return Err(ConfigError::OutOfBounds { setting, value, allowed });
                }
            }
            if rule.is_durable() && self.store.dir.is_none() {
                return Err(ConfigError::NeedsStore { setting: format!("topics[{index}].durability") });
            }
            let refuse = |field: &str, why| Err(ConfigError::Rule { setting: format!("topics[{index}].{field}"), why });
            if let Some((field, why)) = rule.problem() {
                return refuse(field, why);
            }
            if rule.inbox && self.topics[..index].iter().any(|other| other.inbox) {
                return refuse("inbox", "another rule has it already, and a user has one inbox");
            }
            if rule.inbox && !auth.accepts_tokens() && self.tls.client_ca.is_none() {
                return refuse("inbox", "it needs users: set auth.keys, auth.jwks or tls.client_ca too");
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::path::Path;

    use super::*;
    use crate::config::{Congestion, Durability, TopicRule};
    use crate::message::TopicPattern;

    fn environment(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn the_defaults_are_within_their_own_bounds() {
        Config::default().validate().expect("the defaults hold");
    }

    #[test]
    fn all_settings_are_documented_with_their_defaults() {
        let documented = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/quic-websocket.toml");
        let config = Config::load(Some(Path::new(documented)), []).expect("the documented file is one");
        assert_eq!(format!("{config:?}"), format!("{:?}", Config::default()));
        let lines = std::fs::read_to_string(documented).expect("the file");
        let settings = lines.lines().filter(|line| line.contains(" = ") && !line.starts_with('#')).count();
        // Without the names of tables, the fields of the two grants, which are documented in words, and fields without
        // a default.
        let fields = format!("{config:?}").matches(": ").count() - 16 - 2 * 9 - 4;
        assert_eq!(fields, settings, "every setting is documented");
    }

    #[test]
    fn no_error_repeats_a_secret() {
        let key = "[[auth.keys]]\nalgorithm = 'HS256'\n";
        for text in [
            format!("{key}secrets = 'hunter2-hunter2'"),
            format!("{key}secret = 'hunter2-hunter2"),
            format!("{key}secret = hunter2-hunter2"),
            format!("{key}secret = ['hunter2-hunter2']"),
            format!("{key}secret = 'hunter2-hunter2' 5"),
            "[auth]\nkeys = 'secret: hunter2-hunter2'".into(),
            "[http]\nadmin_token = ['hunter2-hunter2']".into(),
            "[http]\nadmin_token = hunter2-hunter2".into(),
            "[http]\nadmin_tokens = 'hunter2-hunter2'".into(),
            "[auth]\nkeys = 'a \" secret \" hunter2-hunter2'".into(),
        ] {
            let mut file = tempfile::NamedTempFile::new().expect("a file");
            write!(file, "{text}").expect("written");
            let error = Config::load(Some(file.path()), []).expect_err("it is wrong").to_string();
            assert!(error.contains("line ") && !error.contains("hunter2"), "{text}: {error}");
        }
        for (variable, value, setting) in [
            ("QWS_AUTH__KEYS", "hunter2-hunter2", "auth.keys"),
            ("QWS_AUTH__KEYS", "[{ algorithm = 'HS256', secret = ['hunter2-hunter2'] }]", "auth.keys"),
        ] {
            let error = Config::load(None, environment(&[(variable, value)])).expect_err("it is wrong").to_string();
            assert!(error.contains(setting) && !error.contains("hunter2"), "{value}: {error}");
        }
    }

    #[test]
    fn every_limit_and_rate_is_in_the_table_of_bounds() {
        let read = |name: &str| {
            std::fs::read_to_string(format!("{}/docs/{name}", env!("CARGO_MANIFEST_DIR"))).expect("the file")
        };
        let (settings, bounds) = (read("quic-websocket.toml"), read("LIMITS.md"));
        let settings: toml::Table = settings.parse().expect("it is TOML");
        for table in ["limits", "rates"] {
            for key in settings[table].as_table().expect("a table").keys() {
                // These two are not bounds.
                let is_bound = !["compress_min_bytes", "loopback"].contains(&key.as_str());
                let name = format!("{table}.{}", key.strip_suffix("_burst").unwrap_or(key));
                assert!(!is_bound || bounds.contains(&name), "{name} is missing in docs/LIMITS.md");
            }
        }
    }

    #[test]
    fn the_environment_overrides_the_file() {
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
        let long = Config { name: "x".repeat(10_000), ..Config::default() };
        let error = long.validate().expect_err("too long a name").to_string();
        assert!(error.len() < 300, "the value is cut: {error}");
        for (name, shown) in [("two\nlines", r#""two\nlines""#), ("a\u{202e}b", r#""a\u{202e}b""#), (" ", r#"" ""#)] {
            let error = Config { name: name.into(), ..Config::default() }.validate().expect_err("no name").to_string();
            assert!(error.contains(&format!("setting name = {shown}: 1 to 64 characters")), "{error}");
        }
        let error = Config::load(Some(Path::new("/nonexistent/x.toml")), []).expect_err("no file");
        assert!(std::error::Error::source(&error).is_none(), "its text contains the cause already");
        assert!(error.to_string().contains("/nonexistent/x.toml"), "{error}");
        let mut config = Config::default();
        config.auth.single_use = true;
        let error = config.validate().expect_err("there are no keys").to_string();
        assert!(error.contains("auth.single_use needs keys"), "{error}");
        let mut twice = Config::default();
        twice.http.plain_addr = Some(twice.addr);
        let error = twice.validate().expect_err("one port cannot be both").to_string();
        assert!(error.contains("http.plain_addr cannot be used with addr: they are the same address"), "{error}");
        (config.auth.jwks.file, config.quic.early_data) = (Some("keys.json".into()), true);
        let error = config.validate().expect_err("they exclude each other").to_string();
        assert!(error.contains("auth.single_use cannot be used with quic.early_data"), "{error}");
        config.auth.single_use = false;
        config.tls.client_required = true;
        let error = config.validate().expect_err("no authority is set").to_string();
        assert!(error.contains("tls.client_required needs tls.client_ca"), "{error}");
        let mut config = Config::default();
        config.limits.max_message_bytes = 1;
        let error = config.validate().expect_err("below the bound").to_string();
        assert!(error.contains("limits.max_message_bytes = 1") && error.contains("1024 to"), "{error}");
    }

    #[test]
    fn the_largest_values_are_out_of_bounds_without_overflow() {
        let mut config = Config::default();
        config.limits.max_message_bytes = u64::MAX;
        assert!(config.validate().is_err());
        let mut config = Config::default();
        (config.timing.ping_interval_ms, config.timing.ping_timeout_ms) = (u64::MAX, u64::MAX);
        assert!(config.validate().is_err());
    }

    #[test]
    fn rules_for_topics_have_the_documented_defaults_and_bounds() {
        let documented = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/quic-websocket.toml");
        let text = std::fs::read_to_string(documented).expect("the file");
        let rule: String = text
            .lines()
            .skip_while(|line| !line.starts_with("# [[topics]]"))
            .take_while(|line| line.starts_with("# "))
            .map(|line| format!("{}\n", &line[2..]))
            .collect();
        let mut config: Config = toml::from_str(&rule).expect("the documented rule is one");
        let expected = TopicRule {
            pattern: TopicPattern::new("chat.>").expect("a pattern"),
            history_messages: Some(1000),
            history_bytes: Some(4 << 20),
            history_age_ms: Some(300_000),
            ..TopicRule::default()
        };
        assert_eq!(format!("{:?}", config.topics), format!("{:?}", [expected]));
        config.validate().expect("the documented rule holds");
        assert_eq!(config.topics[0].history(), TopicRule::default().history());
        config.topics[0].durability = Durability::Fsync;
        let error = config.validate().expect_err("there is no store").to_string();
        assert!(error.contains("topics[0].durability") && error.contains("store.dir"), "{error}");
        config.topics[0].durability = Durability::Memory;
        config.topics[0].history_messages = Some(1_000_001);
        let error = config.validate().expect_err("above the bound").to_string();
        assert!(error.contains("topics[0].history_messages = 1000001"), "{error}");
        let error = toml::from_str::<Config>("[[topics]]\npattern = 'a..b'").expect_err("no pattern").to_string();
        assert!(error.contains("topic: use A-Z"), "{error}");
    }
}
