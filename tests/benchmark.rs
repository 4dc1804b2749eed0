//! The benchmark counts what it measures: each mode over each carrier of this server.

#![allow(clippy::expect_used, clippy::panic)] // A test fails by panicking.

mod common;

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use common::stage::{Played, Stage};
use common::{TestServer, soon, until};
use serde_json::{Value, json};
use tokio::process::Command;

fn benchmark() -> Command {
    let path: PathBuf = Path::new(env!("CARGO_BIN_EXE_quic-websocket")).with_file_name("examples").join("benchmark");
    let mut command = Command::new(path);
    command.kill_on_drop(true).stdin(Stdio::null());
    command
}

fn benchmark_of(server: std::net::SocketAddr, ca: &Path) -> Command {
    let mut command = benchmark();
    command.args(["--server", &server.to_string(), "--ca"]).arg(ca);
    command
}

async fn output(mut command: Command) -> Output {
    soon("the benchmark's end", command.output()).await.expect("it runs")
}

/// Runs the benchmark, and returns its report.
async fn report(mut command: Command, what: &str) -> Value {
    command.arg("--json");
    let output = output(command).await;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{what}: {said}");
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// The drivers of this project's protocol, with the addresses of a server.
fn carriers(server: &TestServer) -> [(&'static str, std::net::SocketAddr); 2] {
    [("qws", server.addr), ("qws-wss", server.http.expect("it serves HTTP"))]
}

#[tokio::test]
async fn everything_is_counted_in_each_mode_on_each_carrier() {
    let server = TestServer::start().await;
    for (driver, address) in carriers(&server) {
        for (mode, clients, expected) in [
            ("echo", 3, 3 * 40),
            ("broadcast", 4, 4 * 40),
            ("topic", 4, 4 * 40),
            ("direct", 3, 3 * 40),
            ("request", 3, 3 * 40),
        ] {
            for payload in ["text", "binary"] {
                let mut command = benchmark_of(address, &server.files.ca);
                let clients = clients.to_string();
                command.args(["--driver", driver, "--mode", mode, "--clients", &clients, "--payload", payload]);
                command.args(["--messages", "40", "--window", "8"]);
                let what = format!("{driver}, {mode}, {payload}");
                let report = report(command, &what).await;
                assert_eq!((&report["received"], &report["lost"]), (&json!(expected), &json!(0)), "{what}: {report}");
                assert!(report["latency_us"]["p99"].as_f64().is_some_and(|p99| p99 > 0.0), "{what}: {report}");
            }
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn messages_that_arrive_in_fragments_are_counted() {
    let server = TestServer::start().await;
    for payload in ["text", "binary"] {
        let (driver, address) = carriers(&server)[1];
        let mut command = benchmark_of(address, &server.files.ca);
        command.args(["--driver", driver, "--mode", "topic", "--clients", "2", "--payload", payload]);
        command.args(["--messages", "10", "--window", "4", "--message-size", "100000"]);
        let report = report(command, payload).await;
        assert_eq!((&report["received"], &report["corrupted"]), (&json!(20), &json!(0)), "{payload}: {report}");
    }
    server.stop().await;
}

#[tokio::test]
async fn connections_are_counted_on_each_carrier() {
    let server = TestServer::start().await;
    for (driver, address) in carriers(&server) {
        for resume in [false, true] {
            let mut command = benchmark_of(address, &server.files.ca);
            command.args(["--driver", driver, "--mode", "connect", "--clients", "2", "--messages", "5"]);
            command.args(resume.then_some("--resume"));
            let report = report(command, driver).await;
            assert_eq!((&report["connected"], &report["failed"]), (&json!(10), &json!(0)), "{driver}: {report}");
            let resumed = report["resumed"].as_u64().expect("a number");
            assert_eq!(resumed > 0, resume, "{driver}: {report}");
        }
    }
    server.stop().await;
}

/// UDP sockets of a process.
#[cfg(target_os = "linux")]
fn udp_sockets(pid: u32) -> usize {
    let files = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("its files");
    let names = files.filter_map(|file| std::fs::read_link(file.ok()?.path()).ok());
    let sockets: Vec<_> =
        names.filter_map(|name| Some(name.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned())).collect();
    let table = std::fs::read_to_string(format!("/proc/{pid}/net/udp")).expect("the table of sockets");
    let inodes = table.lines().skip(1).filter_map(|line| line.split_whitespace().nth(9));
    inodes.filter(|inode| sockets.iter().any(|socket| socket == inode)).count()
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn each_client_has_a_socket_of_its_own() {
    let server = TestServer::start().await;
    // The server notices the end of killed clients later, so they add up.
    for (sockets, expected, connected) in [(None, 6, 6), (Some("2"), 2, 12)] {
        let mut command = benchmark_of(server.addr, &server.files.ca);
        command.args(["--mode", "echo", "--clients", "6", "--duration", "60"]).stdout(Stdio::null());
        command.args(sockets.map(|count| ["--sockets", count]).into_iter().flatten());
        let mut running = command.spawn().expect("it starts");
        until("its clients", || server.status.connections() == connected).await;
        // Before the load runs, the benchmark may not yet have opened everything that it opens.
        let received = || server.status.stats(0).totals.messages_in;
        let before = received();
        until("its load", || received() > before + 100).await;
        // The kernel's table may lack a socket, or show it twice, while others come and go.
        let pid = running.id().expect("it runs");
        until("its sockets", || udp_sockets(pid) == expected).await;
        running.kill().await.expect("it is there");
    }
    server.stop().await;
}

#[tokio::test]
async fn a_mode_that_a_driver_does_not_have_is_refused() {
    for (driver, mode) in [("wss", "request"), ("wss", "direct"), ("nats", "echo")] {
        let mut command = benchmark();
        command.args(["--insecure", "--driver", driver, "--mode", mode]);
        let output = output(command).await;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains("has no mode"), "{driver}, {mode}: {said}");
    }
}

#[tokio::test]
async fn what_is_lost_is_reported_as_a_failure() {
    let stage = Stage::new();
    let mut command = benchmark_of(stage.addr, &stage.files.ca);
    command.args(["--clients", "1", "--messages", "5", "--window", "5", "--message-size", "64"]);
    // The first echo is left out, and the others arrive.
    let serve = async {
        let Played { connection, mut control } = stage.accept().await;
        let mut heard = 0;
        while let Ok(body) = control.try_hear_body().await {
            let asked: Value = serde_json::from_slice(&body).expect("JSON");
            heard += 1;
            if heard > 1 {
                let echo = format!("Echo: {}", asked["content"].as_str().expect("text"));
                control.say(json!({"type": "text", "content": echo, "re": asked["id"], "timestamp": 1})).await;
            }
        }
        drop(connection);
    };
    let (output, ()) = tokio::join!(output(command), serve);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(!output.status.success(), "{said}");
    let lost = said.lines().find(|line| line.trim_start().starts_with("lost")).expect("a line about losses");
    assert_eq!(lost.split_whitespace().nth(1), Some("1"), "{said}");
}

/// A comparison needs /proc.
#[cfg(target_os = "linux")]
mod comparison {
    use super::*;

    /// A short comparison of one row.
    fn quick(only: &str, columns: &str) -> Command {
        let mut command = benchmark();
        command.args(["--compare", "--quick", "--rounds", "1", "--only", only, "--columns", columns]);
        command
    }

    /// The row of a report with this figure.
    fn row<'a>(report: &'a Value, metric: &str) -> &'a Value {
        let rows = report["rows"].as_array().expect("rows");
        rows.iter().find(|row| row["metric"] == metric).unwrap_or_else(|| panic!("no {metric}: {report}"))
    }

    #[tokio::test]
    async fn a_comparison_has_both_carriers_both_baselines_and_another_binary() {
        let mut command = quick("fan-out to 100, 128 B, 16", "qws,before,bare,qws-wss,wss");
        command.args(["--before", env!("CARGO_BIN_EXE_quic-websocket")]);
        let report = report(command, "a comparison").await;
        assert_eq!(report["remarks"], json!([]), "nothing is lost: {report}");
        for column in ["qws", "before", "bare", "qws_wss", "wss"] {
            for metric in ["messages/s", "p99, us", "generator CPU, us each"] {
                let median = &row(&report, metric)[column]["median"];
                assert!(median.as_f64().is_some_and(|median| median > 0.0), "{column}, {metric}: {report}");
            }
        }
        let rate = row(&report, "messages/s");
        let median = |what: &str| rate[what]["median"].as_f64().expect("a number");
        let best = median("qws_wss").max(median("wss"));
        assert!((median("qws_to_best_wss") - median("qws") / best).abs() < 1e-6, "{rate}");
        assert!(rate["qws_to_best_wss"]["met"].is_boolean() && rate["qws_to_before"]["met"].is_null(), "{rate}");
    }

    #[tokio::test]
    async fn requests_are_compared_in_round_trips_with_an_absolute_goal() {
        for kind in ["direct", "request"] {
            is_compared(kind).await;
        }
    }

    async fn is_compared(kind: &str) {
        let report = report(quick(kind, "qws,bare,qws-wss"), kind).await;
        assert_eq!(report["remarks"], json!([]), "nothing is lost: {report}");
        let rows = report["rows"].as_array().expect("rows");
        let pipelined = |row: &&Value| row["work"].as_str().is_some_and(|work| work.contains("64 in flight"));
        let cpu = rows.iter().filter(pipelined).find(|row| row["metric"] == "server CPU, us each").expect("its cost");
        assert_eq!(cpu["qws"]["goal"], json!(9.0), "{cpu}");
        let rate = row(&report, "round trips/s");
        for of in ["qws_wss", "bare", "qws_to_bare"] {
            assert!(rate[of]["median"].as_f64().is_some_and(|rate| rate > 0.0), "{of}: {report}");
        }
    }

    /// Runs one row on a server of another project. Without that server, says so.
    async fn peer_report(column: &str, only: &str) -> Option<Value> {
        let mut command = quick(only, column);
        command.arg("--json");
        let output = output(command).await;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{column}: {said}");
        if said.contains("is left out") {
            eprintln!("not tested: {said}");
            return None;
        }
        Some(serde_json::from_slice(&output.stdout).expect("JSON"))
    }

    #[tokio::test]
    async fn nats_is_measured_if_it_is_installed() {
        for (only, metric) in [
            ("fan-out to 100, 128 B, 16", "messages/s"),
            ("topic to 100, 128 B, 16 in flight", "messages/s"),
            ("direct", "round trips/s"),
            ("request", "round trips/s"),
            ("connections, full", "connections/s"),
        ] {
            let Some(report) = peer_report("nats", only).await else { return };
            assert_eq!(report["remarks"], json!([]), "{only}: {report}");
            let rate = row(&report, metric)["nats"]["median"].as_f64();
            assert!(rate.is_some_and(|rate| rate > 0.0), "{only}: {report}");
        }
    }

    #[tokio::test]
    async fn ws_is_measured_if_it_is_installed() {
        for (only, metric) in [
            ("echo, 10 x 1024 B, 64 in flight", "messages/s"),
            ("fan-out to 100, 128 B, 16", "messages/s"),
            ("connections, full", "connections/s"),
        ] {
            let Some(report) = peer_report("ws", only).await else { return };
            assert_eq!(report["remarks"], json!([]), "{only}: {report}");
            let rate = row(&report, metric)["ws"]["median"].as_f64();
            assert!(rate.is_some_and(|rate| rate > 0.0), "{only}: {report}");
        }
    }

    #[tokio::test]
    async fn a_missing_peer_is_left_out_with_a_reason() {
        let mut command = quick("echo, 1 client", "bare,nats,ws");
        command.args(["--json", "--nats", "/nowhere/nats-server", "--node-ws", "/nowhere"]);
        let output = output(command).await;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{said}");
        assert!(said.contains("NATS is left out: ") && said.contains("ws is left out: "), "{said}");
        let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        let rate = row(&report, "messages/s");
        assert!(rate["bare"]["median"].is_number() && rate["nats"].is_null() && rate["ws"].is_null(), "{rate}");
    }

    #[tokio::test]
    async fn durable_topics_are_measured_next_to_memory_topics() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut command = benchmark();
        command.args(["--durable", "--quick", "--rounds", "1", "--only", "1 topics, 16 in flight"]);
        command.args(["--nats", "/nowhere/nats-server", "--redis", "/nowhere/redis-server"]);
        command.arg("--folder").arg(folder.path());
        let output = output(command).await;
        let [table, said] = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
        assert!(output.status.success(), "{said}");
        assert!(table.contains("fdatasync of 4 KiB: p50 "), "{table}");
        for topics in ["memory", "os", "fsync", "memory, QUIC", "os, QUIC", "fsync, QUIC"] {
            let row = table.lines().find(|line| line.contains(&format!("| {topics} |"))).expect("a row");
            let rate = row.split('|').nth(5).and_then(|rate| rate.trim().parse::<f64>().ok());
            assert!(rate.is_some_and(|rate| rate > 0.0), "{row}");
        }
    }
}
