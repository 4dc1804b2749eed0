//! Which servers a client trusts ([`Trust`]), and the TLS settings of its connections.

mod pem;
mod trust;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{fmt, io};

use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{self, kx_group};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use thiserror::Error;

pub use self::pem::PemError;
#[doc(hidden)]
pub use self::pem::{Part, certificates as pem_certificates, parts as pem_parts};
pub use self::trust::Trust;
pub(crate) use self::trust::socket_config;
#[doc(hidden)]
pub use self::trust::{client_config, https_config, server_name};
pub use crate::development::development_folder;

/// Why TLS cannot be set up.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A file does not exist, or cannot be read.
    #[error(
        "cannot read {}: {}; {}",
        path.display(), unreadable_cause(cause), unreadable_advice(cause.kind(), setting)
    )]
    #[non_exhaustive]
    Read {
        /// The file.
        path: PathBuf,
        /// What the file is for, or the setting that names it.
        setting: &'static str,
        /// The problem.
        cause: io::Error,
    },
    /// A file is damaged, or not in a supported form of PEM.
    #[error("cannot use {} for {setting}: {cause}", path.display())]
    #[non_exhaustive]
    Pem {
        /// The file.
        path: PathBuf,
        /// What the file is for, or the setting that names it.
        setting: &'static str,
        /// The problem, and its line.
        cause: PemError,
    },
    /// A file holds no private key.
    #[error("there is no private key in {}; use another file for {setting}", path.display())]
    #[non_exhaustive]
    NoKey {
        /// The file.
        path: PathBuf,
        /// What the file is for, or the setting that names it.
        setting: &'static str,
    },
    /// A private key is encrypted.
    #[error("cannot use {}: {ENCRYPTED}, and use that file", path.display())]
    #[non_exhaustive]
    Encrypted {
        /// Its file.
        path: PathBuf,
    },
    /// A file holds no certificate.
    #[error("there is no certificate in {}; use another file for {setting}", path.display())]
    #[non_exhaustive]
    Empty {
        /// The file.
        path: PathBuf,
        /// What the file is for, or the setting that names it.
        setting: &'static str,
    },
    /// The certificate and the key do not belong together, or are of a kind that is not supported.
    #[error("cannot use the certificate {} with the key {}: {cause}", cert.display(), key.display())]
    #[non_exhaustive]
    Unusable {
        /// The certificate's file.
        cert: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// The problem, and what to do.
        cause: String,
    },
    /// A file contains a certificate that cannot be an authority.
    #[error("cannot use {} as a certificate authority: {cause}; use another file for {setting}", path.display())]
    #[non_exhaustive]
    Authority {
        /// The file.
        path: PathBuf,
        /// What the file is for, or the setting that names it.
        setting: &'static str,
        /// The problem.
        cause: String,
    },
    /// The system's own certificate authorities cannot be read.
    #[error("no certificate authority to check the server against: {0}; trust one by its file")]
    NoRoots(String),
    /// The crypto library cannot be used.
    #[error("cannot set up TLS: {0}")]
    Setup(String),
}

// These take the errors of other libraries, which are no part of the public interface. Without `source`, because the
// text contains it, and a printed chain of errors would repeat it.
impl TlsError {
    /// The crypto library cannot be used.
    #[doc(hidden)]
    pub fn setup(cause: impl fmt::Display) -> Self {
        Self::Setup(cause.to_string())
    }

    /// The certificate and the key do not belong together, or are of a kind that is not supported.
    #[doc(hidden)]
    pub fn unusable(cert: &Path, key: &Path, cause: &rustls::Error) -> Self {
        Self::Unusable { cert: cert.to_owned(), key: key.to_owned(), cause: unusable_cause(cause) }
    }

    /// A file contains a certificate that cannot be an authority.
    #[doc(hidden)]
    pub fn authority(path: &Path, setting: &'static str, cause: impl fmt::Display) -> Self {
        Self::Authority { path: path.to_owned(), setting, cause: cause.to_string() }
    }
}

/// The certificates in PEM text, of which there has to be one at least.
#[doc(hidden)]
pub fn certificates(text: &[u8], path: &Path, setting: &'static str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let damaged = |cause| TlsError::Pem { path: path.to_owned(), setting, cause };
    let found = pem::certificates(text).map_err(damaged)?;
    if found.is_empty() {
        return Err(TlsError::Empty { path: path.to_owned(), setting });
    }
    Ok(found.into_iter().map(CertificateDer::from).collect())
}

/// The authorities in PEM text.
#[doc(hidden)]
pub fn authorities(text: &[u8], path: &Path, setting: &'static str) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(text, path, setting)? {
        roots.add(certificate).map_err(|e| TlsError::authority(path, setting, authority_cause(&e)))?;
    }
    Ok(roots)
}

/// What is said of a private key that is encrypted.
#[doc(hidden)]
pub const ENCRYPTED: &str = "its private key is encrypted, and no passphrase is asked for here: decrypt it with \
                             `openssl pkey -in KEY -out PLAIN`";

/// Whether a PEM text holds an encrypted private key: in PKCS #8 (RFC 7468 section 11), or as OpenSSL did it before.
#[doc(hidden)]
pub fn is_encrypted(pem: &[u8]) -> bool {
    let has = |words: &[u8]| pem.windows(words.len()).any(|window| window == words);
    has(b"-----BEGIN ENCRYPTED PRIVATE KEY-----") || has(b"Proc-Type: 4,ENCRYPTED")
}

/// The first private key in PEM text.
#[doc(hidden)]
pub fn private_key(text: &[u8], path: &Path, setting: &'static str) -> Result<PrivateKeyDer<'static>, TlsError> {
    let damaged = |cause| TlsError::Pem { path: path.to_owned(), setting, cause };
    for part in pem::parts(text).map_err(damaged)? {
        let make: fn(Vec<u8>) -> PrivateKeyDer<'static> = match part.label.as_str() {
            "PRIVATE KEY" | "ENCRYPTED PRIVATE KEY" => |der| PrivateKeyDer::Pkcs8(der.into()),
            "RSA PRIVATE KEY" => |der| PrivateKeyDer::Pkcs1(der.into()),
            "EC PRIVATE KEY" => |der| PrivateKeyDer::Sec1(der.into()),
            _ => continue,
        };
        if part.is_encrypted {
            return Err(TlsError::Encrypted { path: path.to_owned() });
        }
        return Ok(make(part.content));
    }
    Err(TlsError::NoKey { path: path.to_owned(), setting })
}

#[doc(hidden)]
pub fn unreadable(path: &Path, setting: &'static str, kind: io::ErrorKind) -> TlsError {
    TlsError::Read { path: path.to_owned(), setting, cause: kind.into() }
}

/// Why a file cannot be read.
fn unreadable_cause(cause: &io::Error) -> String {
    match cause.kind() {
        io::ErrorKind::NotFound => "there is no such file".into(),
        io::ErrorKind::PermissionDenied => "permission denied".into(),
        io::ErrorKind::IsADirectory => "it is a folder".into(),
        _ => cause.to_string(),
    }
}

/// Why a certificate and a key cannot be used together, and what to do about it.
fn unusable_cause(cause: &rustls::Error) -> String {
    match cause {
        rustls::Error::InconsistentKeys(_) => {
            "the key belongs to another certificate; use the certificate's own key".into()
        }
        rustls::Error::InvalidCertificate(_) => "the certificate is damaged or of an unknown form; use another".into(),
        // The only general error here is that no kind of key fits.
        rustls::Error::General(_) => {
            "the key is damaged, or is not of a supported kind (RSA, ECDSA P-256 to P-521, Ed25519); use another".into()
        }
        other => format!("{other}; use another pair"),
    }
}

/// Why a certificate cannot be used as an authority.
fn authority_cause(error: &rustls::Error) -> String {
    match error {
        rustls::Error::InvalidCertificate(rustls::CertificateError::BadEncoding) => "the certificate is damaged".into(),
        other => other.to_string(),
    }
}

/// What to do about a file that cannot be read.
fn unreadable_advice(kind: io::ErrorKind, setting: &str) -> String {
    match kind {
        io::ErrorKind::PermissionDenied => {
            "let the user that this program runs as read it, the folders around it included (chown, chmod)".into()
        }
        io::ErrorKind::NotFound => format!("correct the path of {setting}"),
        _ => format!("use another file for {setting}"),
    }
}

/// The cryptography of both sides, with a post-quantum key exchange if the peer supports it.
#[doc(hidden)]
pub fn provider() -> Arc<CryptoProvider> {
    provider_with(true)
}

/// The same with the order of key exchanges said here: which one rustls prefers depends on features of the whole
/// program.
#[doc(hidden)]
pub fn provider_with(post_quantum: bool) -> Arc<CryptoProvider> {
    let classical = [kx_group::X25519, kx_group::SECP256R1, kx_group::SECP384R1];
    let hybrid = post_quantum.then_some(kx_group::X25519MLKEM768);
    let kx_groups = hybrid.into_iter().chain(classical).collect();
    Arc::new(CryptoProvider { kx_groups, ..aws_lc_rs::default_provider() })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use quic_websocket::tls::DevelopmentFiles;

    use super::*;

    /// The error of a client that shows this certificate and key.
    fn refused(cert: &Path, key: &Path) -> String {
        let identity = (cert.to_owned(), key.to_owned());
        let error = socket_config(&Trust::Insecure, Some(&identity)).expect_err("they cannot be used");
        error.to_string()
    }

    #[test]
    fn errors_name_the_file_the_problem_and_the_remedy_in_plain_words() {
        let folder = tempfile::tempdir().expect("a folder");
        let [one, other] = ["one", "other"].map(|name| {
            let files = DevelopmentFiles::inside(&folder.path().join(name));
            files.make(&["localhost".into()], false).expect("certificates");
            files
        });
        let damaged = folder.path().join("damaged.pem");
        fs::write(&damaged, "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n").expect("written");
        let gone = folder.path().join("gone.pem");
        for (said, words) in [
            (
                refused(&one.cert, &other.key),
                ["the key belongs to another certificate", "use the certificate's own key"],
            ),
            (refused(&one.cert, &damaged), ["the key is damaged", "use another"]),
            (
                refused(&gone, &one.key),
                ["gone.pem: there is no such file", "correct the path of the client's certificate"],
            ),
            (refused(folder.path(), &one.key), ["it is a folder", "use another file for the client's certificate"]),
        ] {
            assert!(words.iter().all(|word| said.contains(word)), "{said}");
            for raw in ["KeyMismatch", "InvalidKeyFormat", "entity not found", "os error", "--"] {
                assert!(!said.contains(raw), "{said}");
            }
        }
    }
}
