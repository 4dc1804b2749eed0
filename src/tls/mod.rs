//! Certificates and TLS 1.3 settings of both sides: what a server shows, what a client believes, and the development
//! certificates that a server without any makes for itself.

mod client;
mod development;
mod server;

use std::path::PathBuf;
use std::sync::Arc;

use quinn::crypto::rustls::NoInitialCipherSuite;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use thiserror::Error;

pub use self::client::Trust;
pub(crate) use self::client::{client_config, https_config, server_name};
pub use self::development::{DEVELOPMENT_NAMES, DevelopmentFiles, ensure_certificates};
pub(crate) use self::server::ServerTls;

/// Why certificates cannot be used.
#[derive(Debug, Error)]
pub enum TlsError {
    /// A file is not there, or not readable.
    #[error("cannot read {}: {cause}; make certificates with ./generate_certs.sh, or name yours with {flag}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The flag that names it.
        flag: &'static str,
        /// What is wrong with it.
        cause: rustls::pki_types::pem::Error,
    },
    /// One of the two files is there, the other is not.
    #[error("{} is there but {} is not: a certificate needs its key; restore it, or remove both to have new ones made", present.display(), absent.display())]
    Half {
        /// The file that is there.
        present: PathBuf,
        /// The file that is not.
        absent: PathBuf,
    },
    /// Neither of the two files is there, in a folder that holds other things.
    #[error("neither {} nor {} is there; correct --cert and --key, or make certificates for development with ./generate_certs.sh", cert.display(), key.display())]
    Missing {
        /// The certificate's file.
        cert: PathBuf,
        /// The key's file.
        key: PathBuf,
    },
    /// A file that would be made is there already.
    #[error("{} is there already; replace it with --force", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// A file cannot be written.
    #[error("cannot write {}: {cause}; check that its folder is writable", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        cause: std::io::Error,
    },
    /// The system's own certificate authorities cannot be read.
    #[error("no certificate authority to check the server against: {0}; name one with --ca FILE")]
    NoRoots(String),
    /// Certificates cannot be made for these names.
    #[error("cannot make certificates: {0}")]
    Make(String),
    /// A file holds no certificate.
    #[error("there is no certificate in {}; make one with ./generate_certs.sh, or name yours with --cert", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// The certificate and the key do not fit together, or are of a kind that is not supported.
    #[error("cannot use the certificate {} with the key {}: {cause}; the key has to be the certificate's own", cert.display(), key.display())]
    Unusable {
        /// The certificate's file.
        cert: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// What is wrong with them.
        cause: rustls::Error,
    },
    /// The crypto library cannot be used.
    #[error("cannot set up TLS: {0}")]
    Setup(String),
    /// The crypto library has no cipher suite for QUIC.
    #[error(transparent)]
    NoSuite(#[from] NoInitialCipherSuite),
}

// Without `source`: the text above holds it, and whoever prints a chain of errors would print it twice.
impl From<rcgen::Error> for TlsError {
    fn from(error: rcgen::Error) -> Self {
        Self::Make(error.to_string())
    }
}

impl From<rustls::Error> for TlsError {
    fn from(error: rustls::Error) -> Self {
        Self::Setup(error.to_string())
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}
