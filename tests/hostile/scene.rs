//! Scene of an attack: a server, a neighbour on it, and the state that must be restored after the attack.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use quic_websocket::Config;
use quinn::{Endpoint, TransportConfig};
use serde_json::json;

use super::common::forms::Form;
use super::common::process::Process;
use super::common::{RawClient, TestServer, endpoint_trusting, until};
use super::neighbour::Neighbour;

/// Settings of every scene: topics are forgotten soon, so that tests can check it.
const SETTINGS: &str = "timing.topic_idle_ms = 100\ntiming.topic_key_ms = 100\ntiming.drain_timeout_ms = 2000\n";

/// Target of the attacks.
#[derive(Clone)]
pub(crate) struct Target {
    pub(crate) addr: SocketAddr,
    pub(crate) ca: PathBuf,
}

impl Target {
    /// A client endpoint on a separate socket.
    pub(crate) fn endpoint(&self) -> Endpoint {
        self.endpoint_with(TransportConfig::default())
    }

    pub(crate) fn endpoint_with(&self, transport: TransportConfig) -> Endpoint {
        endpoint_trusting(&self.ca, &["qws/1"], transport)
    }

    /// A connection without a handshake.
    pub(crate) async fn stranger(&self) -> RawClient {
        RawClient::connect(&self.endpoint(), self.addr).await
    }

    /// A client whose handshake was accepted.
    pub(crate) async fn client(&self, name: &str) -> RawClient {
        let mut client = self.stranger().await;
        client.handshake(name).await;
        client
    }

    /// The same with permission to send bodies compressed with zstd.
    pub(crate) async fn compressing(&self, name: &str) -> RawClient {
        self.compressing_with(Form::Zstd, name).await
    }

    /// The same with another compression.
    pub(crate) async fn compressing_with(&self, form: Form, name: &str) -> RawClient {
        let mut client = self.stranger().await;
        let mut offer = form.handshake();
        offer["client_name"] = json!(name);
        client.handshake_with(offer).await;
        client
    }
}

/// A server in this process and a neighbour on it.
pub(crate) struct Scene {
    pub(crate) target: Target,
    pub(crate) server: TestServer,
    neighbour: Neighbour,
    before: Counts,
}

#[derive(Debug, PartialEq, Eq)]
struct Counts {
    clients: usize,
    connections: usize,
    handshakes: usize,
    topics: usize,
    tasks: usize,
}

impl Counts {
    fn of(server: &TestServer) -> Self {
        Self {
            clients: server.status.clients(),
            connections: server.status.connections(),
            handshakes: server.status.handshakes(),
            topics: server.status.topics(),
            tasks: server.status.tasks(),
        }
    }
}

impl Scene {
    /// A server with settings as in a file, in addition to those of all scenes.
    pub(crate) async fn start(settings: &str) -> Self {
        let settings: Config = toml::from_str(&format!("{SETTINGS}{settings}")).expect("settings");
        let server = TestServer::start_with(|config| {
            let (addr, workers, tls) = (config.addr, config.workers, config.tls.clone());
            *config = settings;
            (config.addr, config.workers, config.tls) = (addr, workers, tls);
        })
        .await;
        let target = Target { addr: server.addr, ca: server.files.ca.clone() };
        let neighbour = Neighbour::move_in(&target).await;
        let before = Counts::of(&server);
        Self { target, server, neighbour, before }
    }

    /// Number of clients of the neighbour.
    pub(crate) fn clients(&self) -> usize {
        self.before.clients
    }

    /// Ends the scene: checks that the neighbour was not affected, and that nothing of the attack remains.
    pub(crate) async fn end(self) {
        let what = format!("all to be as before, {:?}", self.before);
        until(&what, || Counts::of(&self.server) == self.before).await;
        self.neighbour.move_out().await;
        self.server.stop().await;
    }
}

/// A server in a separate process, so that its memory can be measured, and a neighbour on it.
pub(crate) struct Watched {
    pub(crate) target: Target,
    process: Process,
    neighbour: Neighbour,
    _folder: tempfile::TempDir,
}

impl Watched {
    pub(crate) async fn start(settings: &str) -> Self {
        Self::start_with(&format!("{SETTINGS}{settings}")).await
    }

    /// The same with only these settings.
    pub(crate) async fn start_with(settings: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let settings =
            format!("addr = '127.0.0.1:0'\nworkers = 2\nlog.level = 'info,quic_websocket::client=warn'\n{settings}");
        std::fs::write(folder.path().join("config.toml"), settings).expect("written");
        let mut process = Process::start(folder.path(), &["--config", "config.toml"], &[]);
        let target = Target { addr: process.listening().await, ca: folder.path().join("certs/ca.pem") };
        let neighbour = Neighbour::move_in(&target).await;
        Self { target, process, neighbour, _folder: folder }
    }

    /// Its current resident memory.
    pub(crate) fn resident_kib(&self) -> u64 {
        self.process.resident_kib()
    }

    /// Peak of resident memory since the last call.
    pub(crate) fn peak_kib(&self) -> u64 {
        let process = PathBuf::from(format!("/proc/{}", self.process.pid()));
        let peak = number(&process.join("status"), "VmHWM:");
        // Resets the peak (proc_pid_clear_refs(5)).
        std::fs::write(process.join("clear_refs"), "5").expect("the peak is reset");
        peak
    }

    pub(crate) async fn end(mut self) {
        assert!(self.process.is_running(), "the server lives");
        self.neighbour.move_out().await;
    }
}

/// The number after a name in a file of the kernel.
fn number(file: &Path, name: &str) -> u64 {
    let text = std::fs::read_to_string(file).expect("the process lives");
    let line = text.lines().find_map(|line| line.strip_prefix(name)).expect("it is there");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}
