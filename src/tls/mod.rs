//! Certificates and TLS 1.3 settings of both sides: what a server shows, what a client believes, and the development
//! certificates that a server without any makes for itself.

mod client;
mod development;
mod server;
mod short_lived;
mod subject;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use quinn::crypto::rustls::NoInitialCipherSuite;
use rustls::RootCertStore;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use thiserror::Error;

pub use self::client::Trust;
pub(crate) use self::client::{client_config, https_config, server_name, socket_config};
pub use self::development::{ClientFiles, DEVELOPMENT_NAMES, DevelopmentFiles, ensure_certificates};
pub(crate) use self::server::{ServerTls, Sides};
pub use self::short_lived::{CertificateHash, ShortLived};
pub use self::subject::{Subject, subject};

/// Why certificates cannot be used.
#[derive(Debug, Error)]
pub enum TlsError {
    /// A file is not there, or not readable.
    #[error("cannot read {}: {cause}; make certificates with ./generate_certs.sh, or name yours with {flag}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The flag or setting that names it.
        flag: &'static str,
        /// What is wrong with it.
        cause: pem::Error,
    },
    /// A private key is encrypted.
    #[error("cannot use {}: {ENCRYPTED}, and name that with --key", path.display())]
    Encrypted {
        /// Its file.
        path: PathBuf,
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
        cause: io::Error,
    },
    /// The system's own certificate authorities cannot be read.
    #[error("no certificate authority to check the server against: {0}; name one with --ca FILE")]
    NoRoots(String),
    /// Certificates cannot be made for these names.
    #[error("cannot make certificates: {0}")]
    Make(String),
    /// A file holds no certificate.
    #[error("there is no certificate in {}; make one with ./generate_certs.sh, or name yours with {flag}", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
        /// The flag or setting that names it.
        flag: &'static str,
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
    /// No client believes the certificate at this time.
    #[error("the certificate {} {why}; get another one", path.display())]
    Time {
        /// Its file.
        path: PathBuf,
        /// Whether it has expired or is not valid yet, in words.
        why: &'static str,
    },
    /// A file holds something that is no certificate authority.
    #[error("cannot use {} as a certificate authority: {cause}; name another with {flag}", path.display())]
    Authority {
        /// The file.
        path: PathBuf,
        /// The flag or setting that names it.
        flag: &'static str,
        /// What is wrong with it.
        cause: String,
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

/// The certificates in PEM text, of which there has to be one at least.
fn certificates(text: &[u8], path: &Path, flag: &'static str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let unread = |cause| TlsError::Read { path: path.to_owned(), flag, cause };
    let found: Vec<_> = CertificateDer::pem_slice_iter(text).collect::<Result<_, _>>().map_err(unread)?;
    if found.is_empty() {
        return Err(TlsError::Empty { path: path.to_owned(), flag });
    }
    Ok(found)
}

/// The authorities in PEM text.
fn authorities(text: &[u8], path: &Path, flag: &'static str) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(text, path, flag)? {
        let refused = |e: rustls::Error| TlsError::Authority { path: path.to_owned(), flag, cause: e.to_string() };
        roots.add(certificate).map_err(refused)?;
    }
    Ok(roots)
}

/// What is said of a private key that is encrypted.
pub(crate) const ENCRYPTED: &str = "its private key is encrypted, and no passphrase is asked for here: decrypt it with `openssl pkey -in KEY -out PLAIN`";

/// Whether a PEM text holds an encrypted private key: in PKCS #8 (RFC 7468 section 11), or as OpenSSL did it before.
pub(crate) fn is_encrypted(pem: &[u8]) -> bool {
    let has = |words: &[u8]| pem.windows(words.len()).any(|window| window == words);
    has(b"-----BEGIN ENCRYPTED PRIVATE KEY-----") || has(b"Proc-Type: 4,ENCRYPTED")
}

/// The one key in PEM text.
fn private_key(text: &[u8], path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    if is_encrypted(text) {
        return Err(TlsError::Encrypted { path: path.to_owned() });
    }
    PrivateKeyDer::from_pem_slice(text).map_err(|cause| TlsError::Read { path: path.to_owned(), flag: "--key", cause })
}

fn unreadable(path: &Path, flag: &'static str, kind: io::ErrorKind) -> TlsError {
    TlsError::Read { path: path.to_owned(), flag, cause: pem::Error::Io(kind.into()) }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}
