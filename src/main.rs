//! The binary: arguments and configuration, then [`Server::run`]; and the small subcommands. How it logs is in `telemetry`.

mod command;
mod settings;
mod telemetry;

use std::io::{self, IsTerminal, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use quic_websocket::config::{Loaded, LogFormat, MessageLog, parse_address};
use quic_websocket::message::ClientName;
use quic_websocket::tls::{ClientFiles, DEVELOPMENT_NAMES, DevelopmentFiles, certificate_name};
use quic_websocket::{CancellationToken, Config, Server};
use tracing::{error, info, warn};

use crate::command::say;
use crate::command::token::TokenCommand;
use crate::settings::{Settings, configuration};

// Gives memory back after a crowd has left, which glibc's does not reliably do with a thread for each worker, and takes
// 8 % less time for each connection.
#[cfg(all(feature = "jemalloc", not(target_env = "msvc")))]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Open files beside the connections: sockets, the workers' own, and what is read anew now and then.
const OTHER_FILES: u64 = 100;

/// The realtime messaging server for QUIC.
///
/// Every other setting is in the configuration file (--config) or the environment: QWS_LIMITS__MAX_CLIENTS=500 sets
/// limits.max_clients. The command line overrides the environment, and the environment overrides the file.
#[derive(Debug, Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: Serve,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a development certificate authority and a server certificate, or a client's.
    Certs(Certs),
    /// Create or inspect tokens.
    #[command(subcommand)]
    Token(TokenCommand),
}

/// Flags of the server itself.
#[derive(Debug, Clone, Args)]
struct Serve {
    /// UDP address to listen on, and the TCP address for WebSocket and web pages [default: 127.0.0.1:4433]
    #[arg(long, value_parser = parse_address)]
    addr: Option<SocketAddr>,
    /// Loopback address where WebSocket and the web pages are served without TLS as well, for development
    #[arg(long, value_name = "ADDR", value_parser = parse_address)]
    http: Option<SocketAddr>,
    /// The name told to clients [default: "QUIC WebSocket Server"]
    #[arg(long)]
    name: Option<String>,
    /// Most clients connected at once [default: 10000]
    #[arg(long, value_parser = whole_number)]
    max_clients: Option<u64>,
    /// PEM file with the certificate chain [default: certs/server.pem, made where it is missing; one named here has to be there]
    #[arg(long)]
    cert: Option<PathBuf>,
    /// PEM file with its private key [default: certs/server-key.pem]
    #[arg(long)]
    key: Option<PathBuf>,
    /// error, warn, info, debug, trace, or a filter; RUST_LOG overrides it [default: info]
    #[arg(long)]
    log_level: Option<String>,
    /// How a log line looks: text, or json for one object a line [default: text]
    #[arg(long, value_enum, hide_possible_values = true)]
    log_format: Option<LogFormat>,
    /// The level of the lines written for each message [default: debug]
    #[arg(long, value_enum)]
    log_messages: Option<MessageLog>,
    /// Worker threads; 0 means one for each core [default: 0]
    #[arg(long, value_parser = whole_number)]
    workers: Option<u64>,
    /// TOML file with settings; docs/quic-websocket.toml shows all of them
    #[arg(long)]
    config: Option<PathBuf>,
    /// Do not start if there is a warning about the settings, such as a QWS_ variable that names none
    #[arg(long)]
    strict: bool,
}

/// Flags of `certs`.
#[derive(Debug, Args)]
struct Certs {
    /// Folder for ca.pem, server.pem and server-key.pem
    #[arg(long, env = "QUIC_WEBSOCKET_CERTS", default_value = "certs")]
    dir: PathBuf,
    /// DNS name or IP address that the certificate is for; may be repeated [default: localhost, 127.0.0.1 and ::1]
    #[arg(long = "name")]
    names: Vec<String>,
    /// Make a certificate for a client of this name instead, and an authority for tls.client_ca: client-ca.pem,
    /// client.pem and client-key.pem
    #[arg(long, value_name = "NAME", conflicts_with = "names")]
    client: Option<String>,
    /// Replace what is there
    #[arg(long)]
    force: bool,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match cli.command {
        Some(Command::Certs(certs)) => make_certs(&certs).map(|()| ExitCode::SUCCESS),
        Some(Command::Token(token)) => command::token::run(token),
        None => serve(cli.serve),
    };
    result.unwrap_or_else(|e| {
        // Where that cannot be told either, the exit code tells.
        let _ = writeln!(io::stderr(), "Error: {e:#}");
        ExitCode::FAILURE
    })
}

fn make_certs(certs: &Certs) -> anyhow::Result<()> {
    if let Some(name) = &certs.client {
        return make_client_certs(certs, name);
    }
    let mut names = certs.names.iter().map(|name| certificate_name(name)).collect::<Result<Vec<_>, _>>()?;
    for name in DEVELOPMENT_NAMES {
        if !names.iter().any(|given| given == name) {
            names.push(name.to_owned());
        }
    }
    let files = DevelopmentFiles::inside(&certs.dir);
    files.make(&names, certs.force)?;
    say(format_args!("Made development certificates for {}:", names.join(", ")))?;
    say(format_args!("  {}  the authority; clients trust it with --ca", files.ca.display()))?;
    say(format_args!("  {}  the server's certificate", files.cert.display()))?;
    say(format_args!("  {}  its private key; keep it to yourself", files.key.display()))?;
    Ok(())
}

fn make_client_certs(certs: &Certs, name: &str) -> anyhow::Result<()> {
    let files = ClientFiles::inside(&certs.dir);
    let client = ClientName::new(name).with_context(|| format!("--client {name:?}"))?;
    files.make(&client, certs.force)?;
    say(format_args!("Made a development certificate for the client {name:?}:"))?;
    say(format_args!("  {}  the authority; servers trust it with tls.client_ca", files.ca.display()))?;
    say(format_args!("  {}  the client's certificate, for --cert", files.cert.display()))?;
    say(format_args!("  {}  its private key, for --key; keep it to yourself", files.key.display()))?;
    Ok(())
}

/// What clap says of its own accord is in the words of Rust.
fn whole_number(text: &str) -> Result<u64, &'static str> {
    text.parse().map_err(|_| "expected a whole number, such as 4")
}

fn serve(flags: Serve) -> anyhow::Result<ExitCode> {
    let loaded = configuration(&flags)?;
    let format = loaded.config.log.format;
    telemetry::start(&loaded.config.log)?;
    match (bind_and_run(flags, loaded), format) {
        // Whoever reads the log as JSON gets its last line as JSON, too.
        (Err(e), LogFormat::Json) => {
            error!("{e:#}");
            Ok(ExitCode::FAILURE)
        }
        (end, _) => end,
    }
}

/// Allows itself as many open files as the system lets it have, and says where they do not do for the limits: each client
/// over WebSocket is one, and each other connection over TCP, while QUIC needs one socket a worker for all clients.
fn raise_open_files(config: &Config) {
    let limits = &config.limits;
    let wanted = limits.max_clients.saturating_add(limits.max_http_connections).saturating_add(OTHER_FILES);
    match rlimit::increase_nofile_limit(rlimit::INFINITY) {
        Ok(most) if most < wanted => warn!(
            "The system lets this process have {most} open files, and the limits ask for {wanted}: one for each client over \
             WebSocket. Raise it (ulimit -n, or LimitNOFILE= of a systemd service), or lower limits.max_clients"
        ),
        Ok(_) => {}
        Err(e) => warn!("Cannot raise the limit of open files: {e}. Each client over WebSocket needs one"),
    }
}

fn bind_and_run(flags: Serve, loaded: Loaded) -> anyhow::Result<ExitCode> {
    let config = loaded.config.clone();
    let asks_who = config.asks_who();
    loaded.validate()?;
    loaded.warnings().iter().for_each(|warning| warn!("{warning}"));
    raise_open_files(&config);
    let server = Server::bind(config)?;
    let is_beyond = |address: SocketAddr| !address.ip().is_loopback();
    if !asks_who && (is_beyond(server.local_addr()) || server.http_addr().is_some_and(is_beyond)) {
        warn!(
            "Listening beyond this machine without authentication: any client may connect and do everything; see docs/SECURITY.md"
        );
    }
    // Signals are all that this thread waits for; clients are served by the workers' own.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime that waits for signals")?;
    runtime.block_on(run(server, Settings::new(flags, loaded)))
}

/// Serves until the first SIGTERM or Ctrl-C, then drains; a second one ends it at once. SIGHUP has it read its files.
#[cfg_attr(not(unix), allow(unused_mut, unused_variables))]
async fn run(server: Server, mut settings: Settings) -> anyhow::Result<ExitCode> {
    let mut signals = Signals::new().context("cannot listen for signals")?;
    let shutdown = CancellationToken::new();
    let reload = server.reloader();
    let server = server.run(shutdown.clone());
    tokio::pin!(server);
    let mut asked = false;
    loop {
        tokio::select! {
            result = &mut server => {
                result?;
                return Ok(ExitCode::SUCCESS);
            }
            signal = signals.next() => {
                let signal = match signal {
                    #[cfg(unix)]
                    Signal::Reload => {
                        settings.read_again(&reload);
                        info!("SIGHUP: reading certificates, authorities and keys again");
                        reload.reload();
                        continue;
                    }
                    Signal::End(name) => name,
                };
                if asked {
                    warn!("{signal} again: ending at once");
                    return Ok(ExitCode::FAILURE);
                }
                info!("{signal}: draining; send it again to end at once");
                asked = true;
                shutdown.cancel();
            }
        }
    }
}

/// What a signal asks of a server.
enum Signal {
    /// To end; with the signal's name.
    End(&'static str),
    /// To read its files again.
    #[cfg(unix)]
    Reload,
}

/// The signals that a server listens for.
#[cfg(unix)]
struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
    hangup: tokio::signal::unix::Signal,
    /// Whether it was started from a terminal, whose end is a hangup as well.
    has_terminal: bool,
}

#[cfg(unix)]
impl Signals {
    fn new() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
            has_terminal: io::stderr().is_terminal(),
        })
    }

    async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.terminate.recv() => Signal::End("SIGTERM"),
            _ = self.interrupt.recv() => Signal::End("SIGINT"),
            // A terminal that was closed is none any more.
            _ = self.hangup.recv() => match self.has_terminal && !io::stderr().is_terminal() {
                true => Signal::End("SIGHUP"),
                false => Signal::Reload,
            },
        }
    }
}

/// The signals that a server listens for.
#[cfg(not(unix))]
struct Signals;

#[cfg(not(unix))]
impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self)
    }

    async fn next(&mut self) -> Signal {
        // Where Ctrl-C cannot be listened for, it ends the process by itself.
        let _ = tokio::signal::ctrl_c().await;
        Signal::End("Ctrl-C")
    }
}
