//! Shared by the examples: arguments for the server and its certificates, output of lines, and the exit code.

use std::fmt::Display;
use std::io::{self, ErrorKind, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use quic_websocket::message::Invalid;
use quic_websocket::tls::Trust;
use quic_websocket::{Carrier, Client, ClientBuilder, ClientError, Printable};

/// Prints a line to standard error, and ignores a closed one.
macro_rules! note {
    ($($what:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stderr(), $($what)*);
    }};
}

/// The server to connect to, and how.
#[derive(clap::Args)]
pub(crate) struct ServerArgs {
    /// The server, as host:port
    #[arg(long, global = true, default_value = "127.0.0.1:4433")]
    #[arg(value_name = "HOST:PORT", value_parser = host_and_port)]
    pub(crate) server: String,
    /// PEM file with the authority that signed the server's certificate [default: certs/ca.pem and the system's]
    #[arg(long, global = true, conflicts_with = "insecure")]
    ca: Option<PathBuf>,
    /// PEM file with this client's own certificate, for servers that ask for one
    #[arg(long, global = true, requires = "key")]
    cert: Option<PathBuf>,
    /// PEM file with the private key of --cert
    #[arg(long, global = true, requires = "cert")]
    key: Option<PathBuf>,
    /// Do not check the server's certificate (unsafe: anyone in between can read and change everything)
    #[arg(long, global = true)]
    insecure: bool,
    /// Carrier of the connection [default: quic, or websocket if QUIC does not get through]
    #[arg(long, global = true, value_enum)]
    carrier: Option<CarrierArg>,
    /// Token that proves the user's identity to the server
    #[arg(long, global = true, env = "QUIC_WEBSOCKET_TOKEN", hide_env_values = true)]
    token: Option<String>,
}

/// Checks the syntax of host:port; the host is looked up later.
fn host_and_port(text: &str) -> Result<String, String> {
    let expected = |why: &str| Err(format!("{why}; expected host:port, such as 127.0.0.1:4433 or chat.example:4433"));
    if let Some((scheme, rest)) = text.split_once("://") {
        let host = rest.split('/').next().unwrap_or_default();
        let port = if host.contains(':') { "" } else { ":4433" };
        return expected(&format!("remove {scheme}://, write {host}{port}"));
    }
    let (host, port) = match text.rsplit_once(':') {
        // An IPv6 address without brackets ends in what looks like a port.
        Some((host, port)) if !host.contains(':') || host.ends_with(']') => (host, port),
        Some(_) if text.ends_with(']') => return expected(&format!("the port is missing, write {text}:4433")),
        Some(_) => return expected(&format!("put the IPv6 address in brackets, as in [{text}]:4433")),
        None => return expected(&format!("the port is missing, write {text}:4433")),
    };
    match port.parse::<u16>() {
        Ok(1..) if !host.is_empty() => Ok(text.to_owned()),
        Ok(1..) => expected("the host is missing"),
        _ => expected(&format!("{port:?} is not a port from 1 to 65535")),
    }
}

/// Values of `--carrier`.
#[derive(Clone, Copy, clap::ValueEnum)]
enum CarrierArg {
    Quic,
    #[value(name = "websocket")]
    WebSocket,
}

impl ServerArgs {
    /// The builder of a client of this server. Warns if the certificate is not checked.
    pub(crate) fn client(self) -> Result<ClientBuilder, Invalid> {
        let trust = match (self.insecure, self.ca) {
            (true, _) => {
                note!("⚠️  WARNING: --insecure: the server's certificate is NOT checked");
                Trust::Insecure
            }
            (false, Some(file)) => Trust::CaFile(file),
            (false, None) => Trust::Development,
        };
        let builder = Client::builder(self.server).trust(trust);
        let builder = match self.carrier {
            Some(CarrierArg::Quic) => builder.carriers([Carrier::Quic]),
            Some(CarrierArg::WebSocket) => builder.carriers([Carrier::WebSocket]),
            None => builder,
        };
        let builder = match self.cert.zip(self.key) {
            Some((cert, key)) => builder.certificate(cert, key),
            None => builder,
        };
        match &self.token {
            Some(token) => builder.token(token),
            None => Ok(builder),
        }
    }
}

/// Prints a line and flushes it. Returns an error if standard output is closed: pass it on to [`exit_code`], which ends
/// the program quietly.
pub(crate) fn show(line: impl Display) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()
}

/// The exit code of a result; prints the error if there is one. A closed pipe (`| head -1`) is not an error.
pub(crate) fn exit_code(result: anyhow::Result<()>) -> ExitCode {
    let is_closed_pipe = |cause: &(dyn std::error::Error + 'static)| {
        cause.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == ErrorKind::BrokenPipe)
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) if e.chain().any(is_closed_pipe) => ExitCode::SUCCESS,
        Err(e) => {
            note!("❌ {}{}", Printable::new(&format!("{e:#}")), flags(&e));
            ExitCode::FAILURE
        }
    }
}

/// The flags that help against an error.
fn flags(error: &anyhow::Error) -> &'static str {
    match error.downcast_ref::<ClientError>() {
        Some(e @ ClientError::Untrusted { .. }) if e.to_string().contains("trust the authority") => " (--ca FILE)",
        Some(ClientError::Certificate { .. }) => " (--cert FILE --key FILE)",
        _ => "",
    }
}
