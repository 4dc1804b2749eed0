//! The snapshot in Prometheus's text format 0.0.4. Topics and single clients are left out, because peers choose their
//! names: each would be a series of its own for as long as Prometheus keeps data.

use std::fmt::{self, Display, Write};

use super::counters::Totals;
use super::stats::{Percentiles, Stats};
use super::store::{Latency, StoreState, StoreStats};

impl Stats {
    /// The content type of [`prometheus`](Self::prometheus).
    pub const PROMETHEUS_TYPE: &'static str = "text/plain; version=0.0.4; charset=utf-8";

    /// The snapshot as text for Prometheus, without single topics and clients.
    pub fn prometheus(&self) -> String {
        let mut text = String::with_capacity(8 * 1024);
        // Writing to a string cannot fail.
        let _ = self.write(&mut Page(&mut text));
        text
    }

    fn write(&self, page: &mut Page<'_>) -> fmt::Result {
        let Self { queues, topics, totals, .. } = self;
        page.metric("info", GAUGE, "Version of the server; always 1.", [(label("version", self.version), 1)])?;
        page.one("uptime_seconds", GAUGE, "Time since the server started.", seconds(self.uptime_ms as f64))?;
        let help = "Expiry of the certificate shown to clients, in Unix time.";
        let expiry = self.certificate_expires_at.map(|ms| (String::new(), ms / 1000));
        page.metric("certificate_expiry_timestamp_seconds", GAUGE, help, expiry)?;
        let clients = self.clients.by_carrier.iter().map(|(name, count)| (label("transport", name), count));
        page.metric("clients", GAUGE, "Connected clients.", clients)?;
        page.one("connections", GAUGE, "Connections, including those without a finished handshake.", self.connections)?;
        page.one("handshakes", GAUGE, "Connections without a finished handshake.", self.handshakes)?;
        page.one("queued_messages", GAUGE, "Messages queued for clients.", queues.messages)?;
        page.one("queued_bytes", GAUGE, "Bytes queued for clients.", queues.bytes)?;
        let help = "Bytes queued for the client with the most.";
        page.one("queued_bytes_max_client", GAUGE, help, queues.max_client_bytes)?;
        page.one("topics", GAUGE, "Known topics.", topics.count)?;
        let memory = "Memory of the history and idempotency keys of all topics.";
        page.one("topic_memory_bytes", GAUGE, memory, topics.memory_bytes)?;
        page.one("subscriptions", GAUGE, "Subscriptions to topics and patterns.", topics.subscriptions)?;
        page.one("consumers", GAUGE, "Durable consumers.", topics.consumers.count)?;
        let help = "Messages that durable consumers have delivered and that are not yet acknowledged.";
        page.one("consumer_in_flight", GAUGE, help, topics.consumers.in_flight)?;
        let help = "Unacknowledged messages of the durable consumer with the most.";
        page.one("consumer_lag_max", GAUGE, help, topics.consumers.max_lag)?;
        let help = "Requests to other clients that are not yet answered.";
        page.one("open_requests", GAUGE, help, self.requests.open)?;
        let help = "Subscriptions and clients that answer requests.";
        page.one("request_responders", GAUGE, help, self.requests.responders)?;
        if let Some(store) = &self.store {
            page.store(store)?;
        }
        page.percentiles(
            "rtt_seconds",
            "Round trip times, by percentile of the clients on QUIC.",
            &self.rtt_ms,
            1000.0,
        )?;
        let help = "Ratio of lost packets, by percentile of the clients on QUIC.";
        page.percentiles("loss_ratio", help, &self.loss_percent, 100.0)?;
        let help = "Clients whose round trip and loss were measured.";
        page.one("measured_clients", GAUGE, help, self.rtt_ms.clients)?;
        page.totals(totals)
    }
}

const GAUGE: &str = "gauge";
const COUNTER: &str = "counter";

/// Writes metrics to a text.
struct Page<'a>(&'a mut String);

impl Page<'_> {
    fn totals(&mut self, totals: &Totals) -> fmt::Result {
        for (name, help, count) in [
            ("messages_in", "Messages from clients.", totals.messages_in),
            ("bytes_in", "Bytes of messages from clients.", totals.bytes_in),
            ("messages_out", "Messages accepted for sending to clients.", totals.messages_out),
            ("bytes_out", "Bytes of messages to clients.", totals.bytes_out),
            ("published", "Messages accepted by their topic.", totals.published),
            ("broadcasts", "Messages from clients to all clients.", totals.broadcasts),
            ("fanned_out", "Messages to all clients and to subscribers, one per receiver.", totals.fanned_out),
            ("dropped", "Messages dropped for newer ones at slow receivers.", totals.dropped),
            ("filtered", "Messages that subscriptions left out by filter or echo.", totals.filtered),
            ("conflated", "Messages replaced by newer ones for subscriptions with a max_rate.", totals.conflated),
            ("refused", "Requests and connections refused with 429.", totals.refused),
            ("consumer_redelivered", "Messages that durable consumers delivered again.", totals.consumer_redelivered),
            ("consumer_dead", "Messages that durable consumers gave up, or that were rejected.", totals.consumer_dead),
            ("consumer_lost", "Messages that consumers had not processed when they were gone.", totals.consumer_lost),
            ("requests", "Requests to other clients that were passed on.", totals.requests),
            ("request_replies", "Replies to requests that were passed on.", totals.request_replies),
        ] {
            self.one(&format!("{name}_total"), COUNTER, help, count)?;
        }
        let failures = totals.request_failures.iter().map(|(code, count)| (label("code", &code), count));
        self.metric("request_failures_total", COUNTER, "Requests to other clients that failed, by code.", failures)?;
        let accepted = totals.accepted.iter().map(|(name, count)| (label("transport", name), count));
        self.metric("accepted_total", COUNTER, "Accepted clients.", accepted)?;
        let closed = totals.closed.iter().map(|(code, count)| (label("code", &code), count));
        self.metric("closed_total", COUNTER, "Closed connections, by close code.", closed)
    }

    fn store(&mut self, store: &StoreStats) -> fmt::Result {
        let states = StoreState::ALL.map(|(state, name)| (label("state", name), u8::from(state == store.state)));
        self.metric("store_state", GAUGE, "1 for the state of the store of durable topics, else 0.", states)?;
        for (name, kind, help, value) in [
            ("store_topics", GAUGE, "Topics on disk.", Some(store.topics)),
            ("store_bytes", GAUGE, "Bytes of the store's files.", Some(store.bytes)),
            ("store_live_bytes", GAUGE, "Bytes of the messages that topics keep on disk.", Some(store.live_bytes)),
            ("store_free_bytes", GAUGE, "Free bytes of the store's file system.", store.free_bytes),
            ("store_segments", GAUGE, "Files of the store's log.", Some(store.segments)),
            ("store_pending_bytes", GAUGE, "Bytes that are taken and not yet stored.", Some(store.pending_bytes)),
            ("store_damaged_ranges", GAUGE, "Ranges of files that cannot be read.", Some(store.damaged_ranges)),
            ("store_torn_bytes", GAUGE, "Bytes that the process before had not completed.", Some(store.torn_bytes)),
            ("store_written_bytes_total", COUNTER, "Bytes written to the log.", Some(store.written_bytes)),
            ("store_copied_bytes_total", COUNTER, "Bytes copied to give back space.", Some(store.copied_bytes)),
            ("store_groups_total", COUNTER, "Groups of messages written at once.", Some(store.groups)),
            ("store_clock_holds_total", COUNTER, "Times that the clock had jumped.", Some(store.clock_holds)),
        ] {
            self.metric(name, kind, help, value.map(|value| (String::new(), value)))?;
        }
        self.one(
            "store_recovery_seconds",
            GAUGE,
            "Time that opening the store took.",
            seconds(store.recovery_ms as f64),
        )?;
        let stored = [("os", store.stored.os), ("fsync", store.stored.fsync)];
        let stored = stored.map(|(level, count)| (label("level", level), count));
        self.metric("store_stored_total", COUNTER, "Messages stored, by durability.", stored)?;
        let times = |of: &Latency| of.percentiles().map(|(name, us)| (label("percentile", name), us as f64 / 1e6));
        self.metric("store_sync_seconds", GAUGE, "Time of a sync, by percentile.", times(&store.sync_us))?;
        let help = "Time until a message was stored, for topics with os, by percentile.";
        self.metric("store_os_seconds", GAUGE, help, times(&store.os_us))?;
        let help = "Time until a message was stored, for topics with fsync, by percentile.";
        self.metric("store_fsync_seconds", GAUGE, help, times(&store.fsync_us))?;
        let refused = [("full", store.refused.full), ("busy", store.refused.busy), ("failed", store.refused.failed)];
        let refused = refused.map(|(why, count)| (label("why", why), count));
        self.metric("store_refused_total", COUNTER, "Durable messages that the store did not take, by reason.", refused)
    }

    /// Writes the percentiles of a measurement; left out without clients, because 0 would be a measurement. The label
    /// is not `quantile`, which Prometheus reserves for summaries.
    fn percentiles(&mut self, name: &str, help: &str, percentiles: &Percentiles, per_unit: f64) -> fmt::Result {
        if percentiles.clients == 0 {
            return Ok(());
        }
        let values =
            percentiles.percentiles().map(|(percentile, value)| (label("percentile", percentile), value / per_unit));
        self.metric(name, GAUGE, help, values)
    }

    fn one(&mut self, name: &str, kind: &str, help: &str, value: impl Display) -> fmt::Result {
        self.metric(name, kind, help, [(String::new(), value)])
    }

    fn metric(
        &mut self,
        name: &str,
        kind: &str,
        help: &str,
        values: impl IntoIterator<Item = (String, impl Display)>,
    ) -> fmt::Result {
        writeln!(self.0, "# HELP qws_{name} {help}\n# TYPE qws_{name} {kind}")?;
        values.into_iter().try_for_each(|(label, value)| writeln!(self.0, "qws_{name}{label} {value}"))
    }
}

/// A label. None of the values needs escaping, because all are this program's own.
fn label(name: &str, value: &str) -> String {
    format!("{{{name}=\"{value}\"}}")
}

fn seconds(milliseconds: f64) -> f64 {
    milliseconds / 1000.0
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::process::{Command, Stdio};

    use quic_websocket_lane::Sent;

    use super::super::Metrics;
    use super::super::stats::{Clients, OpenRequests, Queues, Topics};
    use super::super::store::{ByLevel, Refused};
    use super::*;

    fn stats(metrics: &Metrics) -> Stats {
        Stats {
            now: 0,
            uptime_ms: 1500,
            server_name: "a \"name\"\nof two lines".into(),
            version: "1.2.3",
            certificate_expires_at: Some(1_790_000_000_000),
            clients: Clients::from(metrics.totals().accepted),
            connections: 2,
            handshakes: 1,
            totals: metrics.totals(),
            queues: Queues::default(),
            topics: Topics::default(),
            requests: OpenRequests::default(),
            store: Some(StoreStats {
                state: StoreState::Full,
                topics: 3,
                bytes: 4,
                live_bytes: 0,
                free_bytes: None,
                segments: 1,
                written_bytes: 0,
                copied_bytes: 0,
                pending_bytes: 0,
                stored: ByLevel { os: 5, fsync: 6 },
                groups: 0,
                group_records_p50: 0,
                sync_us: Latency { p50: 250, p90: 500, p99: 1000, max: 2000, count: 9 },
                os_us: Latency::default(),
                fsync_us: Latency::default(),
                refused: Refused { full: 7, ..Refused::default() },
                damaged_ranges: 0,
                recovery_ms: 1500,
                torn_bytes: 0,
                clock_holds: 0,
            }),
            rtt_ms: Percentiles::of(vec![2.0, 250.5]),
            loss_percent: Percentiles::of(vec![1.5]),
            list: Vec::new(),
        }
    }

    #[test]
    fn every_metric_has_help_and_type_once_before_its_values() {
        let metrics = Metrics::new(1);
        metrics.of(0).fanned_out(Sent { messages: 3, bytes: 70 });
        metrics.of(0).accepted("webtransport");
        metrics.of(0).closed(4413);
        let text = stats(&metrics).prometheus();
        for line in [
            "# TYPE qws_clients gauge",
            r#"qws_clients{transport="webtransport"} 1"#,
            r#"qws_clients{transport="quic"} 0"#,
            "# TYPE qws_messages_out_total counter",
            "qws_messages_out_total 3",
            "qws_bytes_out_total 70",
            r#"qws_closed_total{code="4413"} 1"#,
            r#"qws_closed_total{code="other"} 0"#,
            r#"qws_rtt_seconds{percentile="50"} 0.002"#,
            r#"qws_rtt_seconds{percentile="100"} 0.2505"#,
            r#"qws_loss_ratio{percentile="99"} 0.015"#,
            r#"qws_info{version="1.2.3"} 1"#,
            r#"qws_store_state{state="full"} 1"#,
            r#"qws_store_state{state="ok"} 0"#,
            r#"qws_store_stored_total{level="fsync"} 6"#,
            r#"qws_store_sync_seconds{percentile="99"} 0.001"#,
            "qws_store_recovery_seconds 1.5",
            r#"qws_store_refused_total{why="full"} 7"#,
            "qws_uptime_seconds 1.5",
            "qws_certificate_expiry_timestamp_seconds 1790000000",
        ] {
            assert!(text.lines().any(|written| written == line), "{line} is missing in\n{text}");
        }
        lint(&text);
    }

    #[test]
    fn measurements_without_clients_are_left_out() {
        let mut stats = stats(&Metrics::new(1));
        (stats.rtt_ms, stats.loss_percent) = (Percentiles::of(vec![]), Percentiles::of(vec![]));
        let text = stats.prometheus();
        assert!(!text.contains("rtt_seconds") && !text.contains("loss_ratio"), "{text}");
        assert!(text.contains("qws_measured_clients 0"), "{text}");
        lint(&text);
    }

    /// The rules of `promtool check metrics`, and promtool itself if it is installed.
    fn lint(text: &str) {
        let (mut seen, mut now, mut kind_now) = (Vec::new(), "", "");
        for line in text.lines() {
            match line.split(' ').collect::<Vec<_>>()[..] {
                ["#", "HELP", name, _, ..] => {
                    assert!(!seen.contains(&name), "{name} comes twice");
                    assert!(name.starts_with("qws_") && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'));
                    assert_ne!(kind_now, "HELP", "{now} has no type");
                    seen.push(name);
                    (now, kind_now) = (name, "HELP");
                }
                ["#", "TYPE", name, kind @ ("counter" | "gauge")] => {
                    assert_eq!((name, kind_now), (now, "HELP"), "its help comes first");
                    assert_eq!(kind == "counter", name.ends_with("_total"), "{name} is a {kind}");
                    // Units are base units and come last; `_count`, `_sum` and `_bucket` are for histograms.
                    let is_odd = |part: &str| {
                        let odd = "ms milliseconds minutes hours days percent kb mb kilobytes megabytes kib mib count \
                                   sum bucket";
                        odd.split(' ').any(|odd| odd == part) || ["counter", "gauge"].contains(&part)
                    };
                    assert!(!name.split('_').any(is_odd), "{name}");
                    kind_now = kind;
                }
                [value, number] => {
                    let (name, labels) = value.split_once('{').unwrap_or((value, ""));
                    assert_eq!(name, now, "{line}");
                    assert!(["counter", "gauge"].contains(&kind_now), "{name} has no type");
                    let is_reserved = labels.starts_with("quantile=") || labels.starts_with("le=");
                    assert!(!is_reserved, "{line}: this is for summaries and histograms");
                    number.parse::<f64>().expect("a number");
                }
                _ => panic!("{line}"),
            }
        }
        assert!(seen.len() > 20 && text.ends_with('\n'));
        promtool(text);
    }

    fn promtool(text: &str) {
        let mut command = Command::new("promtool");
        command.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let Ok(mut promtool) = command.spawn() else { return };
        promtool.stdin.take().expect("its input").write_all(text.as_bytes()).expect("it reads");
        let output = promtool.wait_with_output().expect("its end");
        let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && said.trim().is_empty(), "promtool: {said}");
    }
}
