//! What the examples share: which server, whom to believe, and how a program ends.

use std::path::PathBuf;
use std::process::ExitCode;

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
    /// Believe any server: whoever is on the way can read and change everything
    #[arg(long, global = true)]
    insecure: bool,
}

impl ServerArgs {
    /// A client of that server. Warns where its certificate is not checked.
    pub(crate) fn client(self) -> ClientBuilder {
        let trust = match (self.insecure, self.ca) {
            (true, _) => {
                eprintln!("⚠️  WARNING: --insecure: the server's certificate is NOT checked");
                Trust::Insecure
            }
            (false, Some(file)) => Trust::CaFile(file),
            (false, None) => Trust::Development,
        };
        Client::builder(self.server).trust(trust)
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
