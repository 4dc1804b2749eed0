//! The compared servers as separate processes: start, readiness, external measurement, end.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use tempfile::TempDir;

use super::Extent;
use super::column::Column;
use super::peers::{self, Installed};
use crate::baseline;
use crate::congestion::Congestion;
use crate::link::Link;
use crate::load::crowd::Crowd;
use crate::load::{Interest, Target, Trust};
use crate::processes::{cpu_of, find_server, free_address};

const STARTUP: Duration = Duration::from_secs(15);
/// Timeout of one connection attempt, also over a lossy link.
const ATTEMPT: Duration = Duration::from_millis(1500);

/// Working folder of the servers: one certificate for all, and their logs. Removed at the end.
pub(super) struct Stage {
    folder: TempDir,
    benchmark: PathBuf,
    ours: Option<PathBuf>,
    nats: Option<Installed>,
    ws: Option<Installed>,
    extent: Extent,
}

impl Stage {
    pub(super) fn build(extent: &Extent) -> Result<Self> {
        let folder = tempfile::tempdir().context("cannot create a temporary folder")?;
        baseline::identity::create(folder.path())?;
        let benchmark = std::env::current_exe().context("cannot find this executable")?;
        let is_needed = [Column::Qws, Column::QwsWss].into_iter().any(|column| extent.wants(column));
        let ours = if is_needed { Some(find_server(&benchmark)?) } else { None };
        let mut extent = extent.clone();
        if let Some(before) = &mut extent.before {
            *before = fs::canonicalize(&before).with_context(|| format!("there is no {}", before.display()))?;
        }
        Ok(Self { folder, benchmark, ours, nats: None, ws: None, extent })
    }

    /// Looks for the servers of other projects, and returns their versions. Missing ones are reported and left out.
    pub(super) fn find_peers(&mut self) -> Vec<String> {
        let extent = &self.extent;
        let look = |column: Column, find: &dyn Fn() -> Result<Installed>| {
            let found = extent.wants(column).then(find)?;
            found.inspect_err(|reason| eprintln!("{} is left out: {reason:#}", column.title())).ok()
        };
        self.nats = look(Column::Nats, &|| peers::nats(&extent.nats));
        self.ws = look(Column::Ws, &|| peers::ws(&extent.node_ws));
        self.nats.iter().chain(&self.ws).map(|found| found.version.clone()).collect()
    }

    /// The columns that can be measured.
    pub(super) fn columns(&self) -> impl Iterator<Item = Column> {
        Column::ALL.into_iter().filter(|column| self.extent.wants(*column)).filter(|column| match column {
            Column::Before => self.extent.before.is_some(),
            Column::Nats => self.nats.is_some(),
            Column::Ws => self.ws.is_some(),
            Column::Qws | Column::Bare | Column::QwsWss | Column::Wss => true,
        })
    }

    /// Starts one server on loopback and returns once it accepts connections.
    pub(super) async fn start(&self, column: Column, workers: Option<u16>) -> Result<Server> {
        let workers = workers.unwrap_or(self.extent.workers);
        self.launch(Launch { column, workers, congestion: None, settings: "", link: None }).await
    }

    /// Starts one server and returns once it accepts connections.
    pub(super) async fn launch(&self, launch: Launch<'_>) -> Result<Server> {
        let column = launch.column;
        let log = self.folder.path().join(format!("{}.log", column.key()));
        let mut address = match launch.link {
            None => SocketAddr::from(([127, 0, 0, 1], 0)),
            Some(link) => SocketAddr::new(link.server_address(), 0),
        };
        if !matches!(column, Column::Bare | Column::Wss | Column::Ws) {
            // These do not report a port that the system has chosen. In a separate namespace every port is free.
            address = if launch.link.is_some() { SocketAddr::new(address.ip(), 4433) } else { free_address()? };
        }
        let program = self.command(&launch, address)?;
        let mut command = match launch.link {
            None => program,
            Some(link) => wrapped(link.server_command(), &program),
        };
        command.current_dir(self.folder.path()).stdin(Stdio::piped()).stderr(File::create(&log)?);
        // Output of a server that is not read must never block it.
        command.stdout(if address.port() == 0 { Stdio::piped() } else { Stdio::null() });
        let child = command.spawn().with_context(|| format!("cannot start {:?}", command.get_program()))?;
        let mut server = Server { column, child, log, target: self.target(&launch, address) };
        if address.port() == 0 {
            server.target.address = server.announced()?;
        }
        server.wait_until_served(launch.link).await?;
        Ok(server)
    }

    fn command(&self, launch: &Launch<'_>, address: SocketAddr) -> Result<Command> {
        let (folder, column) = (self.folder.path(), launch.column);
        let missing = || format!("{} is not part of this comparison", column.title());
        Ok(match column {
            Column::Qws | Column::QwsWss => self.own(self.ours.as_ref().with_context(missing)?, launch, address)?,
            Column::Before => self.own(self.extent.before.as_ref().with_context(missing)?, launch, address)?,
            Column::Nats => self.nats.as_ref().with_context(missing)?.nats_command(folder, address)?,
            Column::Ws => self.ws.as_ref().with_context(missing)?.ws_command(folder)?,
            Column::Bare | Column::Wss => {
                let mut command = Command::new(&self.benchmark);
                let role = if column == Column::Bare { "serve-bare" } else { "serve-wss" };
                command.args([role, &address.to_string()]);
                command.arg(folder.join("server.pem")).arg(folder.join("server-key.pem"));
                if let (Column::Bare, Some(congestion)) = (column, launch.congestion) {
                    command.args(["--congestion", congestion.name()]);
                    // The values that this project's server requests: with its own defaults, bare Quinn would notice
                    // losses later.
                    command.args(["--ack-every", "10", "--ack-within-ms", "25"]);
                }
                command
            }
        })
    }

    fn own(&self, binary: &Path, launch: &Launch<'_>, address: SocketAddr) -> Result<Command> {
        let folder = self.folder.path();
        let mut command = Command::new(binary);
        let workers = launch.workers.to_string();
        command.args(["--addr", &address.to_string(), "--workers", &workers, "--max-clients", "20000"]);
        command.args(["--log-level", "warn"]);
        command.arg("--cert").arg(folder.join("server.pem")).arg("--key").arg(folder.join("server-key.pem"));
        if !launch.settings.is_empty() {
            let settings = folder.join("server.toml");
            fs::write(&settings, launch.settings)?;
            command.arg("--config").arg(settings);
        }
        if let Some(congestion) = launch.congestion {
            command.env("QWS_QUIC__CONGESTION", congestion.name());
        }
        Ok(command)
    }

    fn target(&self, launch: &Launch<'_>, address: SocketAddr) -> Target {
        Target {
            driver: launch.column.driver(),
            address,
            name: "localhost".to_owned(),
            trust: Trust::Authority(self.folder.path().join("ca.pem")),
            sockets: self.extent.sockets,
            congestion: launch.congestion,
            stream_window: None,
        }
    }
}

/// How to start one server.
#[derive(Clone, Copy)]
pub(super) struct Launch<'a> {
    pub(super) column: Column,
    /// Of this project's server.
    pub(super) workers: u16,
    /// Congestion controller of both ends, over QUIC.
    pub(super) congestion: Option<Congestion>,
    /// TOML for this project's server.
    pub(super) settings: &'a str,
    /// Link with the server on its far side, if it is not on loopback.
    pub(super) link: Option<&'a Link>,
}

/// The same program, arguments and environment behind another command.
fn wrapped(mut outer: Command, program: &Command) -> Command {
    outer.arg(program.get_program()).args(program.get_args());
    outer.envs(program.get_envs().filter_map(|(name, value)| Some((name, value?))));
    outer
}

/// Connects once.
async fn attempt(target: Target) -> Result<()> {
    let crowd = tokio::time::timeout(ATTEMPT, Crowd::connect(&target, 1, Interest::Own)).await??;
    crowd.disconnect().await;
    Ok(())
}

/// A running server; dropping it ends the process.
pub(super) struct Server {
    pub(super) column: Column,
    child: Child,
    log: PathBuf,
    pub(super) target: Target,
}

impl Server {
    /// The address in the line that a baseline prints once it is listening.
    fn announced(&mut self) -> Result<SocketAddr> {
        let mut line = String::new();
        if let Some(stdout) = self.child.stdout.take() {
            BufReader::new(stdout).read_line(&mut line)?;
        }
        let address = line.trim().strip_prefix("Listening on: ").and_then(|address| address.parse().ok());
        address.with_context(|| self.failure("did not start"))
    }

    async fn wait_until_served(&mut self, link: Option<&Link>) -> Result<()> {
        let started = Instant::now();
        loop {
            let attempt = match link {
                None => attempt(self.target.clone()).await,
                Some(link) => {
                    let target = self.target.clone();
                    link.on_client_side(move || attempt(target)).await
                }
            };
            let Err(reason) = attempt else { return Ok(()) };
            if let Some(status) = self.child.try_wait()? {
                bail!(self.failure(&format!("ended with {status}")));
            }
            if started.elapsed() > STARTUP {
                bail!(self.failure(&format!("did not respond within {} s: {reason:#}", STARTUP.as_secs())));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    fn failure(&self, what: &str) -> String {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let tail: Vec<_> = log.lines().rev().take(5).collect();
        let tail: Vec<_> = tail.into_iter().rev().collect();
        format!("the {} server {what}; its log ends:\n{}", self.column.title(), tail.join("\n"))
    }

    /// Processor time used by the process so far.
    pub(super) fn cpu(&self) -> Result<Duration> {
        cpu_of(&self.child.id().to_string())
    }

    /// Resident memory of the process in bytes.
    pub(super) fn memory(&self) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS")?;
        let kilobytes: u64 = line.trim().trim_end_matches("kB").trim().parse()?;
        Ok(kilobytes << 10)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The process may have ended by itself; either way nothing of it remains.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
