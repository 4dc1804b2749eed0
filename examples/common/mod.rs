//! What the examples share: which server, which authorities to trust, how a line is shown, and how a program ends.

use std::fmt::Display;
use std::io::{self, ErrorKind, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use quic_websocket::message::Invalid;
use quic_websocket::tls::Trust;
use quic_websocket::{Carrier, Client, ClientBuilder, Printable};

/// Tells something beside what the program shows. Where nobody reads that, it is not told.
macro_rules! note {
    ($($what:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stderr(), $($what)*);
    }};
}

/// Where to connect to.
#[derive(clap::Args)]
pub(crate) struct ServerArgs {
    /// The server, as host:port
    #[arg(long, global = true, default_value = "127.0.0.1:4433", value_name = "HOST:PORT", value_parser = host_and_port)]
    pub(crate) server: String,
    /// PEM file with the authority that signed the server's certificate [default: certs/ca.pem and the system's]
    #[arg(long, global = true, conflicts_with = "insecure")]
    ca: Option<PathBuf>,
    /// PEM file with this client's own certificate, for servers that ask for one
    #[arg(long, global = true, requires = "key")]
    cert: Option<PathBuf>,
    /// PEM file with its private key
    #[arg(long, global = true, requires = "cert")]
    key: Option<PathBuf>,
    /// Do not check the server's certificate (unsafe: anyone in between can read and change everything)
    #[arg(long, global = true)]
    insecure: bool,
    /// What may carry the connection [default: quic, and websocket where that does not come through]
    #[arg(long, global = true, value_enum)]
    carrier: Option<CarrierArg>,
    /// Token that tells the server who this is
    #[arg(long, global = true, env = "QUIC_WEBSOCKET_TOKEN", hide_env_values = true)]
    token: Option<String>,
}

/// Checks what can be checked before a host is looked up.
fn host_and_port(text: &str) -> Result<String, String> {
    let expected = |why: &str| Err(format!("{why}; expected host:port, such as 127.0.0.1:4433 or chat.example:4433"));
    if let Some((scheme, rest)) = text.split_once("://") {
        let host = rest.split('/').next().unwrap_or_default();
        let port = if host.contains(':') { "" } else { ":4433" };
        return expected(&format!("{scheme}:// does not belong here, write {host}{port}"));
    }
    let (host, port) = match text.rsplit_once(':') {
        // An IPv6 address without brackets ends in what looks like a port.
        Some((host, port)) if !host.contains(':') || host.ends_with(']') => (host, port),
        Some(_) if text.ends_with(']') => return expected(&format!("the port is missing, write {text}:4433")),
        Some(_) => return expected(&format!("an IPv6 address stands in brackets, as [{text}]:4433")),
        None => return expected(&format!("the port is missing, write {text}:4433")),
    };
    match port.parse::<u16>() {
        Ok(1..) if !host.is_empty() => Ok(text.to_owned()),
        Ok(1..) => expected("the host is missing"),
        _ => expected(&format!("{port:?} is no port from 1 to 65535")),
    }
}

/// What carries a connection.
#[derive(Clone, Copy, clap::ValueEnum)]
enum CarrierArg {
    Quic,
    #[value(name = "websocket")]
    WebSocket,
}

impl ServerArgs {
    /// A client of that server. Warns where its certificate is not checked.
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

/// Shows a line at once. An error where nobody reads any more: pass it on, and the program ends quietly ([`exit`]).
pub(crate) fn show(line: impl Display) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()
}

/// Tells what went wrong, if anything did. That the reader of a pipe has had enough (`| head -1`) is nothing wrong.
pub(crate) fn exit(result: anyhow::Result<()>) -> ExitCode {
    let is_unread = |cause: &(dyn std::error::Error + 'static)| {
        cause.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == ErrorKind::BrokenPipe)
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) if e.chain().any(is_unread) => ExitCode::SUCCESS,
        Err(e) => {
            note!("❌ {}", Printable::new(&format!("{e:#}")));
            ExitCode::FAILURE
        }
    }
}
