//! Certificates for trying things out: an authority and what it signs, made in one go.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};

use super::TlsError;
use crate::message::ClientName;

/// Names for which development certificates hold.
pub const DEVELOPMENT_NAMES: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// Who signs them.
pub(super) const AUTHORITY: &str = "quic-websocket development CA";

/// Days for which development certificates hold.
const DEVELOPMENT_DAYS: i64 = 365;

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
        refuse_existing([&self.ca, &self.cert, &self.key], force)?;
        let mut server = CertificateParams::new(names.to_vec())?;
        server.distinguished_name.push(DnType::CommonName, "quic-websocket development server");
        server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        Signed::make(AUTHORITY, server)?.write(&self.ca, &self.cert, &self.key)
    }
}

/// The three files that a client needs to show who it is, and a server to believe it, in one folder: for trying that out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientFiles {
    /// The certificate authority, for servers to believe in. Its key is thrown away: it can sign nothing else.
    pub ca: PathBuf,
    /// The client's certificate.
    pub cert: PathBuf,
    /// The client's key, mode 0600.
    pub key: PathBuf,
}

impl ClientFiles {
    /// The usual names inside `folder`.
    pub fn inside(folder: &Path) -> Self {
        let [ca, cert, key] = ["client-ca.pem", "client.pem", "client-key.pem"].map(|name| folder.join(name));
        Self { ca, cert, key }
    }

    /// Makes a certificate authority and a P-256 certificate for the client of this name, and writes them.
    ///
    /// # Errors
    /// As [`DevelopmentFiles::make`].
    pub fn make(&self, name: &ClientName, force: bool) -> Result<(), TlsError> {
        refuse_existing([&self.ca, &self.cert, &self.key], force)?;
        let mut client = CertificateParams::new(Vec::new())?;
        client.distinguished_name.push(DnType::CommonName, name.as_str());
        client.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        Signed::make("quic-websocket development client CA", client)?.write(&self.ca, &self.cert, &self.key)
    }
}

fn refuse_existing(files: [&PathBuf; 3], force: bool) -> Result<(), TlsError> {
    match files.into_iter().find(|path| !force && path.exists()) {
        Some(path) => Err(TlsError::Exists { path: path.clone() }),
        None => Ok(()),
    }
}

/// An authority and the one thing that it signed, as PEM.
struct Signed {
    ca: String,
    cert: String,
    key: String,
}

impl Signed {
    fn make(authority: &str, mut leaf: CertificateParams) -> Result<Self, TlsError> {
        let now = time::OffsetDateTime::now_utc();
        let (from, until) = (now - time::Duration::days(1), now + time::Duration::days(DEVELOPMENT_DAYS));

        let mut ca = CertificateParams::new(Vec::new())?;
        ca.distinguished_name.push(DnType::CommonName, authority);
        ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        (ca.not_before, ca.not_after) = (from, until);
        let ca_key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
        let ca_pem = ca.self_signed(&ca_key)?.pem();

        leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        leaf.use_authority_key_identifier_extension = true;
        (leaf.not_before, leaf.not_after) = (from, until);
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
        let cert = leaf.signed_by(&key, &Issuer::from_params(&ca, &ca_key))?.pem();
        Ok(Self { ca: ca_pem, cert, key: key.serialize_pem() })
    }

    fn write(&self, ca: &Path, cert: &Path, key: &Path) -> Result<(), TlsError> {
        write(ca, &self.ca, 0o644)?;
        write(cert, &self.cert, 0o644)?;
        write(key, &self.key, 0o600)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::{ServerTls, Trust, client_config};

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
        let tls = crate::config::Tls { cert: files.cert.clone(), key: files.key.clone(), ..Default::default() };
        ServerTls::load(&tls, None, None).map(|_| ()).expect("a server can use them");
        client_config(&Trust::CaFile(files.ca.clone()), None, false).expect("a client can use them");
        assert!(matches!(files.make(&["localhost".into()], false), Err(TlsError::Exists { .. })));

        fs::remove_file(&files.key).expect("removed");
        let half = ensure_certificates(&files.cert, &files.key).expect_err("half a set");
        assert!(half.to_string().contains("server-key.pem is not"), "{half}");

        let [cert, key] = ["servr.pem", "servr-key.pem"].map(|name| files.ca.with_file_name(name));
        let mistyped = ensure_certificates(&cert, &key).expect_err("other names in a folder that is in use");
        assert!(matches!(mistyped, TlsError::Missing { .. }) && !cert.exists(), "{mistyped}");
    }
}
