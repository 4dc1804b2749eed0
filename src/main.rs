//! The binary: command line and configuration, then [`Server::run`], or a subcommand. Logging is in `telemetry`,
//! settings in `settings`.

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
use crate::command::store::StoreCommand;
use crate::command::token::TokenCommand;
use crate::settings::{Settings, configuration};

// Returns memory to the system after many clients left, which glibc does not do reliably with one thread per worker,
// and takes 8 % less time per connection.
#[cfg(all(feature = "jemalloc", not(target_env = "msvc")))]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Open files besides connections: sockets, the workers' own, and files that are read again.
const OTHER_FILES: u64 = 100;

/// The realtime messaging server for QUIC.
///
/// All other settings are in the configuration file (--config) or in environment variables: QWS_LIMITS__MAX_CLIENTS=500
/// sets limits.max_clients. The command line overrides the environment, which overrides the file.
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
    /// Create a development certificate authority with a server certificate, or a client certificate.
    Certs(Certs),
    /// Create or inspect tokens.
    #[command(subcommand)]
    Token(TokenCommand),
    /// Look at the store of durable topics, check it, and export and import topics.
    #[command(subcommand)]
    Store(StoreCommand),
}

/// Flags of the server itself.
#[derive(Debug, Clone, Args)]
struct Serve {
    /// UDP address to listen on, also the TCP address for WebSocket and web pages [default: 127.0.0.1:4433]
    #[arg(long, value_parser = parse_address)]
    addr: Option<SocketAddr>,
    /// Loopback address that also serves WebSocket and the web pages without TLS, for development
    #[arg(long, value_name = "ADDR", value_parser = parse_address)]
    http: Option<SocketAddr>,
    /// Name sent to clients [default: "QUIC WebSocket Server"]
    #[arg(long)]
    name: Option<String>,
    /// Maximum number of connected clients [default: 10000]
    #[arg(long, value_parser = whole_number)]
    max_clients: Option<u64>,
    /// PEM file with the certificate chain; a file named here must exist [default: certs/server.pem, created if
    /// missing]
    #[arg(long)]
    cert: Option<PathBuf>,
    /// PEM file with the certificate's private key [default: certs/server-key.pem]
    #[arg(long)]
    key: Option<PathBuf>,
    /// Log level (error, warn, info, debug, trace) or filter; RUST_LOG overrides it [default: info]
    #[arg(long)]
    log_level: Option<String>,
    /// Log format: text, or json for one object per line [default: text]
    #[arg(long, value_enum, hide_possible_values = true)]
    log_format: Option<LogFormat>,
    /// Level of the lines written for each message [default: debug]
    #[arg(long, value_enum)]
    log_messages: Option<MessageLog>,
    /// Worker threads; 0 is one per core [default: 0]
    #[arg(long, value_parser = whole_number)]
    workers: Option<u64>,
    /// TOML file with settings; docs/quic-websocket.toml lists all of them
    #[arg(long)]
    config: Option<PathBuf>,
    /// Do not start if there are warnings about the settings, such as an unknown QWS_ variable
    #[arg(long)]
    strict: bool,
}

/// Flags of `certs`.
#[derive(Debug, Args)]
struct Certs {
    /// Folder for ca.pem, server.pem and server-key.pem
    #[arg(long, env = "QUIC_WEBSOCKET_CERTS", default_value = "certs")]
    dir: PathBuf,
    /// DNS name or IP address of the server; may be repeated [always included: localhost, 127.0.0.1 and ::1]
    #[arg(long = "name")]
    names: Vec<String>,
    /// Create a certificate for a client of this name instead, with an authority for tls.client_ca: client-ca.pem,
    /// client.pem and client-key.pem
    #[arg(long, value_name = "NAME", conflicts_with = "names")]
    client: Option<String>,
    /// Replace existing files
    #[arg(long)]
    force: bool,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match cli.command {
        Some(Command::Certs(certs)) => make_certs(&certs).map(|()| ExitCode::SUCCESS),
        Some(Command::Token(token)) => command::token::run(token),
        Some(Command::Store(store)) => command::store::run(store),
        None => serve(cli.serve),
    };
    result.unwrap_or_else(|e| {
        // If this cannot be written either, the exit code remains.
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
    say(format_args!("Created development certificates for {}:", names.join(", ")))?;
    say(format_args!("  {}  the authority, for --ca of clients", files.ca.display()))?;
    say(format_args!("  {}  the server's certificate", files.cert.display()))?;
    say(format_args!("  {}  its private key; keep it secret", files.key.display()))?;
    Ok(())
}

fn make_client_certs(certs: &Certs, name: &str) -> anyhow::Result<()> {
    let files = ClientFiles::inside(&certs.dir);
    let client = ClientName::new(name).with_context(|| format!("--client {name:?}"))?;
    files.make(&client, certs.force)?;
    say(format_args!("Created a development certificate for the client {name:?}:"))?;
    say(format_args!("  {}  the authority, for tls.client_ca of servers", files.ca.display()))?;
    say(format_args!("  {}  the client's certificate, for --cert", files.cert.display()))?;
    say(format_args!("  {}  its private key, for --key; keep it secret", files.key.display()))?;
    Ok(())
}

/// clap's own message would be Rust's.
fn whole_number(text: &str) -> Result<u64, &'static str> {
    text.parse().map_err(|_| "expected a whole number, such as 4")
}

fn serve(flags: Serve) -> anyhow::Result<ExitCode> {
    let loaded = configuration(&flags)?;
    let format = loaded.config.log.format;
    telemetry::start(&loaded.config.log)?;
    match (bind_and_run(flags, loaded), format) {
        // With a JSON log, the last line is JSON as well.
        (Err(e), LogFormat::Json) => {
            error!("{e:#}");
            Ok(ExitCode::FAILURE)
        }
        (end, _) => end,
    }
}

/// Raises the limit of open files as far as the system allows, and warns if that is less than the settings need: one
/// per WebSocket client or other TCP connection. QUIC needs one socket per worker for all clients.
fn raise_open_files(config: &Config) {
    let limits = &config.limits;
    let wanted = limits.max_clients.saturating_add(limits.max_http_connections).saturating_add(OTHER_FILES);
    match rlimit::increase_nofile_limit(rlimit::INFINITY) {
        Ok(most) if most < wanted => warn!(
            "The limit of open files is {most}, but the settings need up to {wanted}, one per WebSocket client. Raise \
             it (ulimit -n, or LimitNOFILE= of a systemd service), or lower limits.max_clients"
        ),
        Ok(_) => {}
        Err(e) => warn!("Cannot raise the limit of open files: {e}. Each WebSocket client needs one"),
    }
}

fn bind_and_run(flags: Serve, loaded: Loaded) -> anyhow::Result<ExitCode> {
    let config = loaded.config.clone();
    let authenticates = config.authenticates();
    loaded.validate()?;
    loaded.warnings().iter().for_each(|warning| warn!("{warning}"));
    raise_open_files(&config);
    let server = Server::bind(config)?;
    let is_beyond = |address: SocketAddr| !address.ip().is_loopback();
    if !authenticates && (is_beyond(server.local_addr()) || server.http_addr().is_some_and(is_beyond)) {
        warn!(
            "Listening beyond this machine without authentication: anyone who can reach the port has full access; see \
             docs/SECURITY.md"
        );
    }
    // This thread only waits for signals; the workers serve the clients.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime for signals")?;
    runtime.block_on(run(server, Settings::new(flags, loaded)))
}

/// Serves until the first SIGTERM or Ctrl-C, then drains; a second one ends the server at once. SIGHUP makes it read
/// its files again.
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
                        info!("SIGHUP: reloading certificates, authorities and keys");
                        reload.reload();
                        continue;
                    }
                    Signal::End(name) => name,
                };
                if asked {
                    warn!("{signal} again: exiting at once");
                    return Ok(ExitCode::FAILURE);
                }
                info!("{signal}: draining; send it again to exit at once");
                asked = true;
                shutdown.cancel();
            }
        }
    }
}

/// The effect of a signal.
enum Signal {
    /// Ends the server; with the signal's name.
    End(&'static str),
    /// Reads its files again.
    #[cfg(unix)]
    Reload,
}

/// The signals that a server listens for.
#[cfg(unix)]
struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
    hangup: tokio::signal::unix::Signal,
    /// Whether stderr was a terminal at the start: closing the terminal sends SIGHUP as well.
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
            // A closed terminal is no longer one.
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
        // If this fails, Ctrl-C ends the process by default.
        let _ = tokio::signal::ctrl_c().await;
        Signal::End("Ctrl-C")
    }
}
