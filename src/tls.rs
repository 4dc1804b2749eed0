//! Certificates and TLS 1.3 settings of both sides: what a server shows, what a client believes, and the development
//! certificates that a server without any makes for itself.

use std::fs;
use std::io::Write;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use quinn::crypto::rustls::{NoInitialCipherSuite, QuicClientConfig, QuicServerConfig};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, RootCertStore, SignatureScheme};
use thiserror::Error;

use crate::message::ALPN;

/// Names for which development certificates hold.
pub const DEVELOPMENT_NAMES: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// Days for which development certificates hold.
const DEVELOPMENT_DAYS: i64 = 365;

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

/// The three files that a development set-up consists of, in one folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DevelopmentFiles {
    /// The certificate authority, for clients to believe in. Its key is thrown away: it can sign nothing else.
    pub ca: PathBuf,
    /// The server's certificate.
    pub cert: PathBuf,
    /// The server's key, mode 0600.
    pub key: PathBuf,
}

impl DevelopmentFiles {
    /// The usual names inside `folder`.
    pub fn inside(folder: &Path) -> Self {
        Self { ca: folder.join("ca.pem"), cert: folder.join("server.pem"), key: folder.join("server-key.pem") }
    }

    /// Makes a certificate authority and a P-256 certificate for `names` (DNS names or IP addresses), and writes them.
    ///
    /// # Errors
    /// [`TlsError::Exists`] unless `force`; [`TlsError::Write`] and [`TlsError::Make`].
    pub fn make(&self, names: &[String], force: bool) -> Result<(), TlsError> {
        if let Some(path) = [&self.ca, &self.cert, &self.key].into_iter().find(|path| !force && path.exists()) {
            return Err(TlsError::Exists { path: path.clone() });
        }
        let now = time::OffsetDateTime::now_utc();
        let (from, until) = (now - time::Duration::days(1), now + time::Duration::days(DEVELOPMENT_DAYS));

        let mut ca = CertificateParams::new(Vec::new())?;
        ca.distinguished_name.push(DnType::CommonName, "quic-websocket development CA");
        ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        (ca.not_before, ca.not_after) = (from, until);
        let ca_key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
        let ca_pem = ca.self_signed(&ca_key)?.pem();

        let mut leaf = CertificateParams::new(names.to_vec())?;
        leaf.distinguished_name.push(DnType::CommonName, "quic-websocket development server");
        leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        leaf.use_authority_key_identifier_extension = true;
        (leaf.not_before, leaf.not_after) = (from, until);
        let leaf_key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
        let leaf_pem = leaf.signed_by(&leaf_key, &Issuer::from_params(&ca, &ca_key))?.pem();

        write(&self.ca, &ca_pem, 0o644)?;
        write(&self.cert, &leaf_pem, 0o644)?;
        write(&self.key, &leaf_key.serialize_pem(), 0o600)
    }
}

/// Writes a file through a new one beside it, so that it is never half there and its mode holds from the beginning.
fn write(path: &Path, text: &str, mode: u32) -> Result<(), TlsError> {
    let error = |cause| TlsError::Write { path: path.to_owned(), cause };
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(error)?;
    }
    let beside = path.with_extension(format!("new-{}", std::process::id()));
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, mode);
    #[cfg(not(unix))]
    let _ = mode;
    let mut file = options.open(&beside).map_err(error)?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(error)?;
    fs::rename(&beside, path).map_err(error)
}

/// Sees that the two files are there: where neither is, makes a development set-up and gives its files back. That is done
/// only for files named as in [`DevelopmentFiles::inside`], or in a folder that is new or empty: for others it takes a
/// mistake in their names to be likelier.
///
/// # Errors
/// [`TlsError::Half`] where one of them is missing, [`TlsError::Missing`] where both are; what
/// [`DevelopmentFiles::make`] gives.
pub fn ensure_certificates(cert: &Path, key: &Path) -> Result<Option<DevelopmentFiles>, TlsError> {
    match (cert.exists(), key.exists()) {
        (true, true) => Ok(None),
        (true, false) => Err(TlsError::Half { present: cert.to_owned(), absent: key.to_owned() }),
        (false, true) => Err(TlsError::Half { present: key.to_owned(), absent: cert.to_owned() }),
        (false, false) => {
            let files =
                DevelopmentFiles { ca: cert.with_file_name("ca.pem"), cert: cert.to_owned(), key: key.to_owned() };
            let folder = cert.parent().unwrap_or(Path::new(""));
            let is_empty = || fs::read_dir(folder).map_or(true, |mut entries| entries.next().is_none());
            if files != DevelopmentFiles::inside(folder) && !is_empty() {
                return Err(TlsError::Missing { cert: cert.to_owned(), key: key.to_owned() });
            }
            // The authority beside them signed files that are gone, so it is of no more use.
            files.make(&DEVELOPMENT_NAMES.map(str::to_owned), true)?;
            Ok(Some(files))
        }
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// The TLS side of a server's QUIC endpoint: TLS 1.3 only, ALPN `qws/1`, stateless session tickets.
pub(crate) fn server_config(cert: &Path, key: &Path) -> Result<Arc<QuicServerConfig>, TlsError> {
    let read = |path: &Path, flag| {
        let path = path.to_owned();
        move |cause| TlsError::Read { path, flag, cause }
    };
    let chain = CertificateDer::pem_file_iter(cert)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(read(cert, "--cert"))?;
    if chain.is_empty() {
        return Err(TlsError::Empty { path: cert.to_owned() });
    }
    let private = PrivateKeyDer::from_pem_file(key).map_err(read(key, "--key"))?;
    let unusable = |cause| TlsError::Unusable { cert: cert.to_owned(), key: key.to_owned(), cause };
    let mut config = rustls::ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(chain, private)
        .map_err(unusable)?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.ticketer = aws_lc_rs::Ticketer::new()?;
    Ok(Arc::new(QuicServerConfig::try_from(config)?))
}

/// Which servers a client believes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Trust {
    /// Those certified by the system's authorities.
    #[default]
    System,
    /// Those certified by the system's authorities and, where it is there, by `certs/ca.pem` in the current folder: for
    /// trying things out beside a server that made its own certificates.
    Development,
    /// Those certified by the authorities in this PEM file.
    CaFile(PathBuf),
    /// All. Whoever is on the path can read and change everything; for trying things out only.
    Insecure,
}

/// Where a development set-up has its certificate authority, seen from the project's folder.
const DEVELOPMENT_CA: &str = "certs/ca.pem";

/// The TLS side of a client's QUIC endpoint.
pub(crate) fn client_config(trust: &Trust) -> Result<Arc<QuicClientConfig>, TlsError> {
    let builder =
        rustls::ClientConfig::builder_with_provider(provider()).with_protocol_versions(&[&rustls::version::TLS13])?;
    let mut config = match trust {
        Trust::Insecure => {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(BelieveAll(provider()))).with_no_client_auth()
        }
        Trust::CaFile(path) => builder.with_root_certificates(file_roots(path)?).with_no_client_auth(),
        Trust::System => builder.with_root_certificates(system_roots(None)?).with_no_client_auth(),
        Trust::Development => {
            let ca = Path::new(DEVELOPMENT_CA);
            builder.with_root_certificates(system_roots(ca.exists().then_some(ca))?).with_no_client_auth()
        }
    };
    config.alpn_protocols = vec![ALPN.to_vec()];
    Ok(Arc::new(QuicClientConfig::try_from(config)?))
}

/// The TLS side of fetching something over HTTPS: the system's authorities are believed, or where it is not used, nobody.
pub(crate) fn https_config(is_used: bool) -> Result<rustls::ClientConfig, TlsError> {
    let builder = rustls::ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
    let roots = if is_used { system_roots(None)? } else { RootCertStore::empty() };
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

fn file_roots(path: &Path) -> Result<RootCertStore, TlsError> {
    let read = |cause| TlsError::Read { path: path.to_owned(), flag: "--ca", cause };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(path).map_err(read)? {
        roots.add(certificate.map_err(read)?)?;
    }
    if roots.is_empty() {
        return Err(read(rustls::pki_types::pem::Error::NoItemsFound));
    }
    Ok(roots)
}

fn system_roots(development: Option<&Path>) -> Result<RootCertStore, TlsError> {
    let mut roots = development.map_or_else(|| Ok(RootCertStore::empty()), file_roots)?;
    let system = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(system.certs);
    if roots.is_empty() {
        let why: Vec<String> = system.errors.iter().map(ToString::to_string).collect();
        return Err(TlsError::NoRoots(if why.is_empty() { "the system has none".into() } else { why.join("; ") }));
    }
    Ok(roots)
}

/// Takes any certificate, but still has the server prove that it holds the certificate's key.
#[derive(Debug)]
struct BelieveAll(Arc<CryptoProvider>);

impl ServerCertVerifier for BelieveAll {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::PeerIncompatible(rustls::PeerIncompatible::Tls12NotOffered))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// The host part of `host:port`, as certificates name it.
pub(crate) fn server_name(host: &str) -> &str {
    let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    if bare.parse::<IpAddr>().is_ok() { bare } else { host }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn development_certificates_are_made_once_and_the_key_is_the_owners_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let files = DevelopmentFiles::inside(&folder.path().join("certs"));
        let made = ensure_certificates(&files.cert, &files.key).expect("made");
        assert_eq!(made.as_ref(), Some(&files));
        assert_eq!(ensure_certificates(&files.cert, &files.key).expect("kept"), None);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = fs::metadata(&files.key).expect("the key is there").permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "the key's mode");
        }
        server_config(&files.cert, &files.key).expect("a server can use them");
        client_config(&Trust::CaFile(files.ca.clone())).expect("a client can use them");
        assert!(matches!(files.make(&["localhost".into()], false), Err(TlsError::Exists { .. })));

        fs::remove_file(&files.key).expect("removed");
        let half = ensure_certificates(&files.cert, &files.key).expect_err("half a set");
        assert!(half.to_string().contains("server-key.pem is not"), "{half}");

        let [cert, key] = ["servr.pem", "servr-key.pem"].map(|name| files.ca.with_file_name(name));
        let mistyped = ensure_certificates(&cert, &key).expect_err("other names in a folder that is in use");
        assert!(matches!(mistyped, TlsError::Missing { .. }) && !cert.exists(), "{mistyped}");
    }

    #[test]
    fn a_key_of_another_certificate_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let [one, two] = ["1", "2"].map(|name| DevelopmentFiles::inside(&folder.path().join(name)));
        for files in [&one, &two] {
            files.make(&["localhost".into()], false).expect("made");
        }
        assert!(matches!(server_config(&one.cert, &two.key), Err(TlsError::Unusable { .. })));
        fs::write(&two.cert, "no certificate").expect("written");
        assert!(matches!(server_config(&two.cert, &two.key), Err(TlsError::Empty { .. })));
        assert!(matches!(server_config(&one.cert, Path::new("/nonexistent")), Err(TlsError::Read { .. })));
    }

    #[test]
    fn ipv6_brackets_are_not_part_of_the_name() {
        assert_eq!(["[::1]", "127.0.0.1", "example.org"].map(server_name), ["::1", "127.0.0.1", "example.org"]);
    }
}
