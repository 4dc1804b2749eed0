//! What the examples share: which server, whom to believe, and how a program ends.

use std::path::PathBuf;
use std::process::ExitCode;

use quic_websocket::message::Invalid;
use quic_websocket::tls::Trust;
use quic_websocket::{Client, ClientBuilder, Printable};

/// Where to connect to.
#[derive(clap::Args)]
pub(crate) struct ServerArgs {
    /// The server's address
    #[arg(long, global = true, default_value = "127.0.0.1:4433")]
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
    /// Believe any server: whoever is on the way can read and change everything
    #[arg(long, global = true)]
    insecure: bool,
    /// Token that tells the server who this is
    #[arg(long, global = true, env = "QUIC_WEBSOCKET_TOKEN", hide_env_values = true)]
    token: Option<String>,
}

impl ServerArgs {
    /// A client of that server. Warns where its certificate is not checked.
    pub(crate) fn client(self) -> Result<ClientBuilder, Invalid> {
        let trust = match (self.insecure, self.ca) {
            (true, _) => {
                eprintln!("⚠️  WARNING: --insecure: the server's certificate is NOT checked");
                Trust::Insecure
            }
            (false, Some(file)) => Trust::CaFile(file),
            (false, None) => Trust::Development,
        };
        let builder = Client::builder(self.server).trust(trust);
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

/// Tells what went wrong, if anything did.
pub(crate) fn exit(result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("❌ {}", Printable::new(&format!("{e:#}")));
            ExitCode::FAILURE
        }
    }
}
