//! Certificates and TLS settings of both sides: what a server shows, what a client believes, and the development
//! certificates that a server without any makes for itself.

mod development;
mod expiry;
mod files;
mod names;
mod reset_key;
mod server;
mod short_lived;
mod subject;
mod validity;

use std::io;
use std::path::PathBuf;

pub(crate) use quic_websocket_client::tls::{ENCRYPTED, https_config, is_encrypted, pem_parts, server_name};
pub use quic_websocket_client::tls::{PemError, Trust};
use quic_websocket_client::tls::{
    authorities, certificates, pem_certificates, private_key, provider, provider_with, unreadable,
};
use quinn::crypto::rustls::NoInitialCipherSuite;
use thiserror::Error;

pub use self::development::{ClientFiles, DEVELOPMENT_NAMES, DevelopmentFiles};
pub(crate) use self::development::{Made, ensure_certificates};
pub(crate) use self::expiry::Expiry;
pub(crate) use self::files::warn_of_readers;
pub use self::names::certificate_name;
pub(crate) use self::reset_key::ResetKey;
pub(crate) use self::server::{ServerTls, Sides};
pub use self::short_lived::{CertificateHash, ShortLived};
pub use self::subject::{Subject, subject};
pub(crate) use self::validity::Validity;

/// Why certificates cannot be used.
#[derive(Debug, Error)]
pub enum TlsError {
    /// Files that a client reads as well, or the crypto library, cannot be used.
    #[error(transparent)]
    Shared(#[from] quic_websocket_client::tls::TlsError),
    /// The key for stateless resets cannot be read.
    #[error("cannot read {}: {cause}; {}", path.display(), reset_key_advice(cause.kind()))]
    ReadResetKey {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        cause: io::Error,
    },
    /// A file holds no key for stateless resets.
    #[error("there is no key of 32 to 4096 bytes in {}, which quic.reset_key names; openssl rand -hex 32 makes one", path.display())]
    ResetKey {
        /// The file.
        path: PathBuf,
    },
    /// A certificate cannot be made for this name.
    #[error("cannot make a certificate for the name {name:?}: {why}")]
    Name {
        /// As it was given, the first 100 characters.
        name: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// One of the two files is there, the other is not.
    #[error("{} is there but {} is not: a certificate needs its key; restore it, or remove the other to have both made", present.display(), absent.display())]
    Half {
        /// The file that is there.
        present: PathBuf,
        /// The file that is not.
        absent: PathBuf,
    },
    /// A file that was named is not there.
    #[error("{} is not there: correct {flag}, or leave --cert and --key out to have certificates for development made in certs/", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
        /// The flag or setting that names it.
        flag: &'static str,
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
        cause: io::Error,
    },
    /// Certificates cannot be made for these names.
    #[error("cannot make certificates: {0}")]
    Make(String),
    /// No client believes the certificate at this time.
    #[error("the certificate {} {why}; get another one", path.display())]
    Time {
        /// Its file.
        path: PathBuf,
        /// Whether it has expired or is not valid yet, in words.
        why: &'static str,
    },
}

// Without `source`: the text above holds it, and whoever prints a chain of errors would print it twice.
impl From<rcgen::Error> for TlsError {
    fn from(error: rcgen::Error) -> Self {
        Self::Make(error.to_string())
    }
}

impl From<rustls::Error> for TlsError {
    fn from(error: rustls::Error) -> Self {
        Self::Shared(error.into())
    }
}

impl From<NoInitialCipherSuite> for TlsError {
    fn from(error: NoInitialCipherSuite) -> Self {
        Self::Shared(error.into())
    }
}

/// What to do about a key for stateless resets that cannot be read.
fn reset_key_advice(kind: io::ErrorKind) -> &'static str {
    match kind {
        io::ErrorKind::PermissionDenied => {
            "let the user that this program runs as read it, the folders around it included (chown, chmod)"
        }
        io::ErrorKind::NotFound => "correct quic.reset_key, or make the key with openssl rand -hex 32",
        _ => "name another file with quic.reset_key",
    }
}
