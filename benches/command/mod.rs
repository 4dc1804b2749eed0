//! Command line of the benchmark: one load against one server, or the comparison of several.
//!
//! `examples/benchmark.rs` and `benches/compare.rs` only call [`run`].

mod single;

use std::net::{SocketAddr, ToSocketAddrs as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use clap::{Parser, Subcommand, ValueEnum};
use quic_websocket::config::development_folder;

use crate::baseline;
use crate::comparison::{self, Column, Extent};
use crate::compression;
use crate::durable;
use crate::fairness;
use crate::link;
use crate::load::{Driver, Encoding, Limit, MIN_SIZE, Mode, Target, Trust};

/// Measures a realtime messaging server: rates, latencies and losses.
#[derive(Debug, Parser)]
#[command(name = "benchmark", max_term_width = 100)]
pub(crate) struct Args {
    #[command(subcommand)]
    role: Option<Role>,

    /// The server, as host:port
    #[arg(long, default_value = "127.0.0.1:4433")]
    server: String,
    /// Clients connected at the same time; in direct mode, as many again that answer
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=20_000))]
    clients: u16,
    /// Messages from each sender (connections of each client in connect mode)
    #[arg(long, default_value_t = 100)]
    messages: u64,
    /// Bytes of payload in each message
    #[arg(long, default_value_t = 1024)]
    message_size: usize,
    /// Send for this many seconds instead of counting messages
    #[arg(long)]
    duration: Option<f64>,
    /// Messages that each sender has in flight at once
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=65_536))]
    window: u64,
    /// Clients that send, in broadcast and topic mode
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    senders: u16,
    /// What the clients do
    #[arg(long, value_enum, default_value = "echo")]
    mode: Mode,
    /// How the payload travels
    #[arg(long, value_enum, default_value = "text")]
    payload: Encoding,
    /// Protocol of the clients: this project's, or that of another server
    #[arg(long, value_enum, default_value = "qws")]
    driver: Driver,
    /// In topic mode: additional subscribers that never read
    #[arg(long, default_value_t = 0)]
    stalled: u16,
    /// In connect mode: resume TLS sessions
    #[arg(long)]
    resume: bool,
    /// UDP sockets shared by the clients; 0 for one each, as real clients have
    #[arg(long, default_value_t = 0)]
    sockets: u16,
    /// The authority that signed the server's certificate [default: certs/ca.pem]
    #[arg(long, value_name = "FILE", hide_default_value = true)]
    #[arg(default_value_os_t = development_folder().join("ca.pem"))]
    ca: PathBuf,
    /// Accept any certificate
    #[arg(long)]
    insecure: bool,
    /// Print one JSON document instead of the summary
    #[arg(long)]
    json: bool,

    /// Start this project's server, two baselines, and NATS and Node's ws if they are installed, and compare them under
    /// the same loads
    #[arg(long)]
    compare: bool,
    /// Rounds of the comparison
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=100))]
    rounds: u16,
    /// A short comparison: fewer rounds, shorter loads; for a quick look, not for publication
    #[arg(long)]
    quick: bool,
    /// Only the rows of the comparison whose names contain this text
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    /// Instead of the comparison: measure the server's cost per delivery, by subscribers and by topics
    #[arg(long)]
    curves: bool,
    /// Instead of the comparison: measure how flows with each congestion controller share a bottleneck with TCP; needs
    /// root, on Linux
    #[arg(long)]
    fairness: bool,
    /// Instead of the comparison: measure what compression saves and costs, in this process
    #[arg(long)]
    compression: bool,
    /// Instead of the comparison: measure durable topics next to memory topics, and NATS JetStream and Redis Streams if
    /// they are installed
    #[arg(long)]
    durable: bool,
    /// A folder on the disk to measure, for --durable
    #[arg(long, value_name = "FOLDER", default_value = "target")]
    folder: PathBuf,
    /// The binary of Redis, for --durable
    #[arg(long, value_name = "PATH", default_value = "redis-server")]
    redis: PathBuf,
    /// MiB in the store whose restart is measured, for --durable
    #[arg(long, value_name = "MIB", default_value_t = 1024)]
    restart_mib: u64,
    /// Folder for plots: of the curves (default: docs/plots), and of the rows under loss
    #[arg(long, value_name = "FOLDER")]
    plots: Option<PathBuf>,
    /// Only these columns of the comparison, separated by commas
    #[arg(long, value_enum, value_delimiter = ',', value_name = "COLUMNS")]
    columns: Vec<Column>,
    /// Another binary of this project's server, to compare with: the column `before`
    #[arg(long, value_name = "PATH")]
    before: Option<PathBuf>,
    /// The binary of NATS, 2.10 or newer
    #[arg(long, value_name = "PATH", default_value = "nats-server")]
    nats: PathBuf,
    /// A folder in which `npm install ws` was run; NODE_PATH is used as well
    #[arg(long, value_name = "FOLDER", default_value = ".")]
    node_ws: PathBuf,
    /// Workers of this project's server in the comparison; the bare baseline has one
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    workers: u16,
    /// Passed by `cargo bench`
    #[arg(long, hide = true)]
    bench: bool,
}

/// Role of this executable when the comparison starts it again.
#[derive(Debug, Subcommand)]
enum Role {
    #[command(hide = true)]
    ServeBare {
        address: SocketAddr,
        certificate: PathBuf,
        key: PathBuf,
        #[command(flatten)]
        tuning: baseline::bare::Tuning,
    },
    #[command(hide = true)]
    ServeWss { address: SocketAddr, certificate: PathBuf, key: PathBuf },
    #[command(hide = true)]
    Carry {
        #[command(flatten)]
        conditions: link::Conditions,
    },
}

/// Executes the command line. `compare` is the default of `cargo bench`.
pub(crate) fn run(compare: bool) -> ExitCode {
    let mut args = Args::parse();
    if compare && args.role.is_none() && !args.bench {
        eprintln!("This is a benchmark: run it with `cargo bench`.");
        return ExitCode::SUCCESS;
    }
    args.compare |= compare;
    allow_many_files();
    match serve_or_measure(&args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("Error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Returns false if something was measured and messages were lost.
fn serve_or_measure(args: &Args) -> Result<bool> {
    match &args.role {
        Some(Role::ServeBare { address, certificate, key, tuning }) => {
            return baseline::bare::serve(*address, certificate, key, tuning).map(|()| true);
        }
        Some(Role::ServeWss { address, certificate, key }) => {
            return baseline::wss::serve(*address, certificate, key).map(|()| true);
        }
        Some(Role::Carry { .. }) | None => {}
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        tokio::select! {
            outcome = measure(args) => outcome,
            // Returning drops everything, including the servers and links that were started.
            reason = interrupted() => bail!("{}", reason?),
        }
    })
}

async fn measure(args: &Args) -> Result<bool> {
    if let Some(Role::Carry { conditions }) = &args.role {
        return link::run(conditions).await.map(|()| true);
    }
    if args.fairness {
        return fairness::run(args.only.as_deref(), args.quick).await;
    }
    if args.compression {
        print!("{}", compression::run()?);
        return Ok(true);
    }
    if args.durable {
        let extent = durable::Extent {
            rounds: args.rounds,
            is_quick: args.quick,
            workers: args.workers,
            only: args.only.clone(),
            before: args.before.clone(),
            nats: args.nats.clone(),
            redis: args.redis.clone(),
            folder: args.folder.clone(),
            restart_mib: args.restart_mib,
        };
        return durable::run(&extent).await.map(|()| true);
    }
    if args.compare || args.curves {
        ensure!(
            args.before.is_some() || !args.columns.contains(&Column::Before),
            "the column before needs --before PATH"
        );
        let extent = Extent {
            rounds: args.rounds,
            is_quick: args.quick,
            workers: args.workers,
            sockets: args.sockets.into(),
            only: args.only.clone(),
            columns: args.columns.clone(),
            before: args.before.clone(),
            nats: args.nats.clone(),
            node_ws: args.node_ws.clone(),
            curves: args.curves,
            plots: args.plots.clone(),
        };
        return comparison::run(&extent, args.json).await;
    }
    ensure!(args.message_size >= MIN_SIZE, "--message-size must be at least {MIN_SIZE}");
    ensure!(args.message_size <= 8 << 20, "--message-size must be at most 8 MiB");
    ensure!(args.driver.serves(args.mode), "the driver {} has no mode {}", name(&args.driver), name(&args.mode));
    ensure!(args.stalled == 0 || args.driver == Driver::Qws, "--stalled is for the driver qws");
    single::run(args, target(args)?).await
}

fn target(args: &Args) -> Result<Target> {
    let explain = || format!("--server {} is not host:port", args.server);
    let address: SocketAddr = args.server.to_socket_addrs().with_context(explain)?.next().with_context(explain)?;
    let (host, _) = args.server.rsplit_once(':').with_context(explain)?;
    let trust = if args.insecure {
        eprintln!("WARNING: --insecure: the server's certificate is NOT checked. The server may be anyone.");
        Trust::Anyone
    } else {
        ensure!(
            args.ca.is_file(),
            "there is no {}: make certificates with ./generate_certs.sh, name the authority's file with --ca, or \
             skip the check with --insecure",
            args.ca.display()
        );
        Trust::Authority(args.ca.clone())
    };
    Ok(Target {
        driver: args.driver,
        address,
        name: host.trim_matches(['[', ']']).to_owned(),
        trust,
        sockets: args.sockets.into(),
        congestion: None,
        stream_window: None,
    })
}

/// As on the command line.
fn name(value: &impl ValueEnum) -> String {
    value.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
}

fn limit(args: &Args) -> Result<Limit> {
    Ok(match args.duration {
        None => Limit::Messages(args.messages),
        Some(seconds) => Limit::Time(Duration::try_from_secs_f64(seconds).context("--duration")?),
    })
}

/// Raises the limit of open files for this process and its children to the maximum the system allows: TCP needs one per
/// client, and many systems start with 1,024. If it stays too low, connecting fails and says so.
fn allow_many_files() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < hard
    {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard).ok();
    }
}

async fn interrupted() -> Result<&'static str> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut terminate, mut hang_up) = (signal(SignalKind::terminate())?, signal(SignalKind::hangup())?);
    tokio::select! {
        pressed = tokio::signal::ctrl_c() => pressed.map(|()| "interrupted").map_err(Into::into),
        _ = terminate.recv() => Ok("terminated"),
        _ = hang_up.recv() => Ok("the terminal is gone"),
    }
}
