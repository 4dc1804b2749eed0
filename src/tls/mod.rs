//! Certificates and TLS settings of the server: loading, reloading and expiry, development certificates, names in
//! client certificates, and the key for stateless resets. Knows no connection. Called by `server` and `auth`; what
//! clients use as well is in `quic_websocket_client::tls`.

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
    /// An error of the TLS code shared with the client library: in files that both read, or in the crypto library.
    #[error(transparent)]
    Shared(#[from] quic_websocket_client::tls::TlsError),
    /// The key for stateless resets cannot be read.
    #[error("cannot read the key for stateless resets {}: {}", path.display(), unreadable_reset_key(cause))]
    ReadResetKey {
        /// The file.
        path: PathBuf,
        /// The problem.
        cause: io::Error,
    },
    /// A file contains no key for stateless resets.
    #[error(
        "{}, which quic.reset_key names, is not a key of 32 to 4096 bytes; create one with openssl rand -hex 32",
        path.display()
    )]
    ResetKey {
        /// The file.
        path: PathBuf,
    },
    /// A certificate cannot be created for this name.
    #[error("cannot create a certificate for the name {name:?}: {why}")]
    Name {
        /// The name, cut after 100 characters.
        name: String,
        /// The problem.
        why: &'static str,
    },
    /// Of a certificate and its key, one file is missing.
    #[error(
        "{} exists but {} does not; restore it, or remove the other so that both are created",
        present.display(),
        absent.display()
    )]
    Half {
        /// The file that exists.
        present: PathBuf,
        /// The missing file.
        absent: PathBuf,
    },
    /// A file named by the user does not exist.
    #[error(
        "{} does not exist; correct {flag}, or leave --cert and --key out to create development certificates in certs/",
        path.display()
    )]
    Missing {
        /// The file.
        path: PathBuf,
        /// The flag or setting that names it.
        flag: &'static str,
    },
    /// A file to create already exists.
    #[error("{} already exists; replace it with --force", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// A file cannot be written.
    #[error("cannot write {}: {}", path.display(), unwritable(cause))]
    Write {
        /// The file.
        path: PathBuf,
        /// The system's error.
        cause: io::Error,
    },
    /// Certificates cannot be created.
    #[error("cannot create certificates: {0}")]
    Make(String),
    /// The certificate is not valid at this time, so clients reject it.
    #[error("the certificate {} {why}; get a new one", path.display())]
    Time {
        /// The certificate's file.
        path: PathBuf,
        /// Whether it has expired or is not valid yet, in words.
        why: &'static str,
    },
}

// Without `source`, because the text contains it, and a printed chain of errors would repeat it.
impl From<rcgen::Error> for TlsError {
    fn from(error: rcgen::Error) -> Self {
        Self::Make(error.to_string())
    }
}

impl From<rustls::Error> for TlsError {
    fn from(error: rustls::Error) -> Self {
        Self::Shared(quic_websocket_client::tls::TlsError::setup(error))
    }
}

impl From<NoInitialCipherSuite> for TlsError {
    fn from(error: NoInitialCipherSuite) -> Self {
        Self::Shared(quic_websocket_client::tls::TlsError::setup(error))
    }
}

/// Why the key for stateless resets cannot be read, and what to do.
fn unreadable_reset_key(cause: &io::Error) -> String {
    match cause.kind() {
        io::ErrorKind::PermissionDenied => {
            "permission denied; let the user that runs this program read it and the folders above it (chown, chmod)"
                .into()
        }
        io::ErrorKind::NotFound => {
            "there is no such file; correct quic.reset_key, or create the key with openssl rand -hex 32".into()
        }
        io::ErrorKind::IsADirectory => "it is a folder; name a file with quic.reset_key".into(),
        _ => format!("{cause}; name another file with quic.reset_key"),
    }
}

/// Why a file cannot be written, and what to do.
fn unwritable(cause: &io::Error) -> String {
    match cause.kind() {
        io::ErrorKind::PermissionDenied => {
            "permission denied; let the user that runs this program write to its folder (chown, chmod)".into()
        }
        io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists => {
            "its folder is a file; choose another folder".into()
        }
        io::ErrorKind::ReadOnlyFilesystem => "the file system is read-only; choose another folder".into(),
        io::ErrorKind::StorageFull => "the disk is full; free some space".into(),
        _ => format!("{cause}; check that its folder is writable"),
    }
}
