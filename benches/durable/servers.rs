//! The servers that store messages, as processes: this project's, NATS with JetStream, and Redis.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::baseline;
use crate::load::durable::{Kind, Publishers};
use crate::load::{Driver, Target, Trust};
use crate::processes::{cpu_of, find_server, free_address};

const STARTUP: Duration = Duration::from_secs(60);

/// What a server stores for, and how safely.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Product {
    /// This project's server, with topics of all levels.
    Own,
    /// The same with the binary of `--before`, which has no store.
    Before,
    /// NATS that syncs each message before it confirms it.
    NatsAlways,
    /// NATS with its default, a sync every two minutes.
    Nats,
    /// Redis that syncs before it replies.
    Redis,
}

impl Product {
    const fn key(self) -> &'static str {
        match self {
            Self::Own => "own",
            Self::Before => "before",
            Self::NatsAlways => "nats-always",
            Self::Nats => "nats",
            Self::Redis => "redis",
        }
    }
}

/// Programs, and a folder on the disk that is measured; removed at the end.
pub(super) struct Stage {
    folder: tempfile::TempDir,
    own: PathBuf,
    pub(super) before: Option<PathBuf>,
    nats: PathBuf,
    redis: PathBuf,
    workers: u16,
}

impl Stage {
    pub(super) fn build(
        folder: &Path,
        before: Option<&PathBuf>,
        nats: &Path,
        redis: &Path,
        workers: u16,
    ) -> Result<Self> {
        fs::create_dir_all(folder)?;
        let folder = tempfile::tempdir_in(fs::canonicalize(folder)?).context("cannot create a folder")?;
        baseline::identity::create(folder.path())?;
        let own = find_server(&std::env::current_exe()?)?;
        let before = before.map(fs::canonicalize).transpose().context("--before")?;
        Ok(Self { folder, own, before, nats: nats.to_owned(), redis: redis.to_owned(), workers })
    }

    pub(super) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Whether a program can be run.
    pub(super) fn has(&self, product: Product) -> bool {
        let program = match product {
            Product::Own => return true,
            Product::Before => return self.before.is_some(),
            Product::NatsAlways | Product::Nats => &self.nats,
            Product::Redis => &self.redis,
        };
        let is_there = Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
        is_there.is_ok_and(|status| status.success())
    }

    /// Starts a server on the folder that it had before, if it had one, and returns once it serves.
    pub(super) async fn start(&self, product: Product) -> Result<Server> {
        let folder = self.folder.path().join(product.key());
        fs::create_dir_all(&folder)?;
        let (address, plain) = (free_address()?, free_plain()?);
        let mut command = match product {
            Product::Own => self.own(&self.own, &folder, address, plain, true)?,
            Product::Before => {
                self.own(self.before.as_ref().context("--before is missing")?, &folder, address, plain, false)?
            }
            Product::NatsAlways | Product::Nats => {
                let sync = if product == Product::NatsAlways { ", sync_interval: always" } else { "" };
                let settings = format!(
                    "host: \"{}\"\nport: {}\nmax_payload: 8MB\njetstream {{ store_dir: {:?}{sync} }}\n",
                    plain.ip(),
                    plain.port(),
                    folder.join("store")
                );
                let file = folder.join("nats.conf");
                fs::write(&file, settings)?;
                let mut command = Command::new(&self.nats);
                command.arg("--config").arg(file);
                command
            }
            Product::Redis => {
                let mut command = Command::new(&self.redis);
                command.args(["--bind", "127.0.0.1", "--port", &plain.port().to_string(), "--save", ""]);
                command.args(["--appendonly", "yes", "--appendfsync", "always"]);
                // It would write everything once more at a moment of its own.
                command.args(["--auto-aof-rewrite-percentage", "0"]).arg("--dir").arg(&folder);
                command
            }
        };
        let log = folder.join("log");
        command.current_dir(&folder).stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(&log)?);
        let started = Instant::now();
        let child = command.spawn().with_context(|| format!("cannot start {:?}", command.get_program()))?;
        let target = Target {
            driver: Driver::Qws,
            address,
            name: "localhost".to_owned(),
            trust: Trust::Authority(self.folder.path().join("ca.pem")),
            sockets: 0,
            congestion: None,
            stream_window: None,
        };
        let mut server = Server { child, log, target, plain, ready_after: Duration::ZERO };
        server.wait_until_served(product).await?;
        server.ready_after = started.elapsed();
        Ok(server)
    }

    fn own(
        &self,
        binary: &Path,
        folder: &Path,
        address: SocketAddr,
        plain: SocketAddr,
        has_store: bool,
    ) -> Result<Command> {
        let mut settings = format!("[http]\nplain_addr = \"{plain}\"\n[limits]\nmax_topics = 300000\n");
        if has_store {
            settings += &format!("[store]\ndir = {:?}\nmax_bytes = 0\n", folder.join("store"));
            for level in ["os", "fsync"] {
                settings += &format!(
                    "[[topics]]\npattern = \"{level}.>\"\ndurability = \"{level}\"\nhistory_messages = 1000000\n\
                     history_bytes = 1073741824\nhistory_age_ms = 86400000\n"
                );
            }
        }
        let file = folder.join("server.toml");
        fs::write(&file, settings)?;
        let mut command = Command::new(binary);
        command.args(["--addr", &address.to_string(), "--workers", &self.workers.to_string(), "--log-level", "warn"]);
        let of_all = self.folder.path();
        command.arg("--cert").arg(of_all.join("server.pem")).arg("--key").arg(of_all.join("server-key.pem"));
        command.arg("--config").arg(file);
        Ok(command)
    }
}

fn free_plain() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

/// A running server; dropping it kills the process.
pub(super) struct Server {
    child: Child,
    log: PathBuf,
    pub(super) target: Target,
    /// Its address without TLS.
    pub(super) plain: SocketAddr,
    /// From the start of the process until the first client was served.
    pub(super) ready_after: Duration,
}

impl Server {
    async fn wait_until_served(&mut self, product: Product) -> Result<()> {
        let kind = match product {
            Product::Own | Product::Before => Kind::WebSocket,
            Product::NatsAlways | Product::Nats => Kind::JetStream,
            Product::Redis => Kind::Redis,
        };
        let started = Instant::now();
        loop {
            let Err(reason) = Publishers::connect(kind, &self.target, self.plain, 1).await else { return Ok(()) };
            if let Some(status) = self.child.try_wait()? {
                bail!("{product:?} ended with {status}: {}", fs::read_to_string(&self.log)?);
            }
            if started.elapsed() > STARTUP {
                bail!("{product:?} did not respond: {reason:#}");
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Processor time so far.
    pub(super) fn cpu(&self) -> Result<Duration> {
        cpu_of(&self.child.id().to_string())
    }

    /// Bytes that the process has sent to the storage layer.
    pub(super) fn written(&self) -> Result<u64> {
        self.field("io", "write_bytes:")
    }

    /// Resident memory, in bytes.
    pub(super) fn resident(&self) -> Result<u64> {
        Ok(self.field("status", "VmRSS:")? << 10)
    }

    fn field(&self, file: &str, name: &str) -> Result<u64> {
        let text = fs::read_to_string(format!("/proc/{}/{file}", self.child.id()))?;
        let line = text.lines().find_map(|line| line.strip_prefix(name)).with_context(|| name.to_owned())?;
        Ok(line.trim().trim_end_matches(" kB").parse()?)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // SIGKILL: nothing is closed in order.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
