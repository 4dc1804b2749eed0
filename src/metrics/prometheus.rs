//! The snapshot as Prometheus reads it (text format 0.0.4). What has a name that peers may choose, topics and single
//! clients, is left out: each would be a series of its own for as long as Prometheus keeps data.

use std::fmt::{self, Display, Write};

use super::counters::Totals;
use super::stats::{Spread, Stats};

impl Stats {
    /// The content type of [`prometheus`](Self::prometheus).
    pub const PROMETHEUS_TYPE: &'static str = "text/plain; version=0.0.4; charset=utf-8";

    /// The numbers as text for Prometheus, but for those of single topics and clients.
    pub fn prometheus(&self) -> String {
        let mut text = String::with_capacity(8 * 1024);
        // Writing to a text cannot fail.
        let _ = self.write(&mut Page(&mut text));
        text
    }

    fn write(&self, page: &mut Page<'_>) -> fmt::Result {
        let Self { queues, topics, totals, .. } = self;
        page.metric("info", GAUGE, "Which server this is; always 1.", [(label("version", self.version), 1)])?;
        page.one("uptime_seconds", GAUGE, "Time since the server began to count.", seconds(self.uptime_ms as f64))?;
        let clients = self.clients.by_carrier.iter().map(|(name, count)| (label("transport", name), count));
        page.metric("clients", GAUGE, "Clients that are connected.", clients)?;
        page.one("connections", GAUGE, "Connections, those without a handshake among them.", self.connections)?;
        page.one("handshakes", GAUGE, "Connections that are still to shake hands.", self.handshakes)?;
        page.one("queued_messages", GAUGE, "Messages that wait for clients.", queues.messages)?;
        page.one("queued_bytes", GAUGE, "Bytes that wait for clients.", queues.bytes)?;
        let help = "Bytes that wait for the client for which the most do.";
        page.one("queued_bytes_max_client", GAUGE, help, queues.max_client_bytes)?;
        page.one("topics", GAUGE, "Topics that are known.", topics.count)?;
        page.one("subscriptions", GAUGE, "Subscriptions to topics and patterns.", topics.subscriptions)?;
        let rtt = &self.rtt_ms;
        let help = "Round trip times of the clients on QUIC, spread over them.";
        page.metric("rtt_seconds", GAUGE, help, rtt.quantiles().map(|(q, ms)| (label("quantile", q), seconds(ms))))?;
        let help = "Parts of the packets to clients on QUIC that were lost, spread over them.";
        page.metric("loss_ratio", GAUGE, help, ratios(&self.loss_percent))?;
        page.one("measured_clients", GAUGE, "Clients of which the two above were taken.", rtt.clients)?;
        page.totals(totals)
    }
}

const GAUGE: &str = "gauge";
const COUNTER: &str = "counter";

/// What metrics are written on.
struct Page<'a>(&'a mut String);

impl Page<'_> {
    fn totals(&mut self, totals: &Totals) -> fmt::Result {
        for (name, help, count) in [
            ("messages_in", "Messages from clients.", totals.messages_in),
            ("bytes_in", "Bytes of messages from clients.", totals.bytes_in),
            ("messages_out", "Messages to clients that were taken to be sent.", totals.messages_out),
            ("bytes_out", "Bytes of messages to clients.", totals.bytes_out),
            ("published", "Messages that got a place in their topic.", totals.published),
            ("fanned_out", "Messages to all or to subscribers, one for each receiver.", totals.fanned_out),
            ("dropped", "Messages given up for newer ones at slow receivers.", totals.dropped),
            ("refused", "Requests and connections refused with 429.", totals.refused),
        ] {
            self.one(&format!("{name}_total"), COUNTER, help, count)?;
        }
        let accepted = totals.accepted.iter().map(|(name, count)| (label("transport", name), count));
        self.metric("accepted_total", COUNTER, "Clients that were let in.", accepted)?;
        let closed = totals.closed.iter().map(|(code, count)| (label("code", &code), count));
        self.metric("closed_total", COUNTER, "Connections that have ended, by closing code.", closed)
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

/// What is told apart. None of the values needs escaping: they are this program's own.
fn label(name: &str, value: &str) -> String {
    format!("{{{name}=\"{value}\"}}")
}

fn seconds(milliseconds: f64) -> f64 {
    milliseconds / 1000.0
}

fn ratios(percent: &Spread) -> [(String, f64); 4] {
    percent.quantiles().map(|(q, percent)| (label("quantile", q), percent / 100.0))
}

#[cfg(test)]
mod tests {
    use super::super::stats::{Clients, Queues, Topics};
    use super::super::{Metrics, Sent};
    use super::*;

    #[test]
    fn every_metric_has_its_help_and_type_once_and_its_values_behind_them() {
        let metrics = Metrics::new(1);
        metrics.of(0).fanned_out(Sent { messages: 3, bytes: 70 });
        metrics.of(0).accepted("webtransport");
        metrics.of(0).closed(4413);
        let stats = Stats {
            now: 0,
            uptime_ms: 1500,
            server_name: "a \"name\"\nof two lines".into(),
            version: "1.2.3",
            clients: Clients::from(metrics.totals().accepted),
            connections: 2,
            handshakes: 1,
            totals: metrics.totals(),
            queues: Queues::default(),
            topics: Topics::default(),
            rtt_ms: Spread::of(vec![2.0, 250.5]),
            loss_percent: Spread::of(vec![1.5]),
            list: Vec::new(),
        };
        let text = stats.prometheus();
        for line in [
            "# TYPE qws_clients gauge",
            r#"qws_clients{transport="webtransport"} 1"#,
            r#"qws_clients{transport="quic"} 0"#,
            "# TYPE qws_messages_out_total counter",
            "qws_messages_out_total 3",
            "qws_bytes_out_total 70",
            r#"qws_closed_total{code="4413"} 1"#,
            r#"qws_closed_total{code="other"} 0"#,
            r#"qws_rtt_seconds{quantile="0.5"} 0.002"#,
            r#"qws_rtt_seconds{quantile="1"} 0.2505"#,
            r#"qws_loss_ratio{quantile="0.99"} 0.015"#,
            r#"qws_info{version="1.2.3"} 1"#,
            "qws_uptime_seconds 1.5",
        ] {
            assert!(text.lines().any(|written| written == line), "{line} is missing in\n{text}");
        }
        let (mut seen, mut now) = (Vec::new(), "");
        for line in text.lines() {
            match line.split(' ').collect::<Vec<_>>()[..] {
                ["#", "HELP", name, ..] => {
                    assert!(!seen.contains(&name), "{name} comes twice");
                    seen.push(name);
                    now = name;
                }
                ["#", "TYPE", name, kind] => assert!(name == now && (kind == "counter") == name.ends_with("_total")),
                [value, number] => {
                    assert_eq!(value.split('{').next(), Some(now), "{line}");
                    number.parse::<f64>().expect("a number");
                }
                _ => panic!("{line}"),
            }
        }
        assert!(seen.len() > 20 && text.ends_with('\n'));
    }
}
