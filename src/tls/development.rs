//! Certificates for trying things out: an authority and what it signs, made in one go.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;
use std::{fs, process};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};

use rustls::pki_types::CertificateDer;
use time::OffsetDateTime;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

use super::validity::Standing;
use super::{TlsError, Validity, certificate_name, pem_certificates, short_lived, unreadable};
use crate::config;
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
    /// [`TlsError::Exists`] unless `force`; [`TlsError::Name`], [`TlsError::Write`] and [`TlsError::Make`].
    pub fn make(&self, names: &[String], force: bool) -> Result<(), TlsError> {
        self.make_at(names, force, SystemTime::now())
    }

    fn make_at(&self, names: &[String], force: bool, now: SystemTime) -> Result<(), TlsError> {
        refuse_existing([&self.ca, &self.cert, &self.key], force)?;
        let names = names.iter().map(|name| certificate_name(name)).collect::<Result<Vec<_>, _>>()?;
        let mut server = CertificateParams::new(names)?;
        server.distinguished_name.push(DnType::CommonName, "quic-websocket development server");
        server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        Signed::make(AUTHORITY, server, now)?.write(&self.ca, &self.cert, &self.key)
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
        let signed = Signed::make("quic-websocket development client CA", client, SystemTime::now())?;
        signed.write(&self.ca, &self.cert, &self.key)
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
    fn make(authority: &str, mut leaf: CertificateParams, now: SystemTime) -> Result<Self, TlsError> {
        // Whatever the clock says: a certificate begins in 1970 at the earliest, and ends in 9999 at the latest.
        let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        let now = i64::try_from(now).ok().and_then(|now| OffsetDateTime::from_unix_timestamp(now).ok());
        let now = now.ok_or_else(|| TlsError::Make("the clock of this machine is wrong".into()))?;
        let from = (now - time::Duration::days(1)).max(OffsetDateTime::UNIX_EPOCH);
        let until = now.checked_add(time::Duration::days(DEVELOPMENT_DAYS)).unwrap_or(now);

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
    let written = write_beside(path, text, mode).and_then(|beside| fs::rename(&beside, path));
    written.map_err(|cause| TlsError::Write { path: path.to_owned(), cause })
}

/// The same for a file that is not there yet: where another process writes it at the same time, the first one has it.
///
/// # Errors
/// [`io::ErrorKind::AlreadyExists`] where it is there.
pub(super) fn write_new(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    let beside = write_beside(path, text, mode)?;
    let linked = fs::hard_link(&beside, path);
    let removed = fs::remove_file(&beside);
    match linked {
        Ok(()) => removed,
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Err(e),
        // Not every file system has such links.
        Err(_) => create(path, text, mode, fs::OpenOptions::new().create_new(true)),
    }
}

/// Writes a file beside the one that it is to be, and gives its name. Its folder is made where there is none.
fn write_beside(path: &Path, text: &str, mode: u32) -> io::Result<PathBuf> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let beside = path.with_extension(format!("new-{}-{:08x}", process::id(), fastrand::u32(..)));
    create(&beside, text, mode, fs::OpenOptions::new().create(true).truncate(true))?;
    Ok(beside)
}

fn create(path: &Path, text: &str, mode: u32, options: &mut fs::OpenOptions) -> io::Result<()> {
    options.write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(options, mode);
    #[cfg(not(unix))]
    let _ = mode;
    let mut file = options.open(path)?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all())
}

/// A development set-up that was made because there was none that can be used.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Made {
    pub(crate) files: DevelopmentFiles,
    /// Why, in words.
    pub(crate) why: String,
}

/// Sees that the certificate and its key are there. Where nobody has said where they are, a development set-up is made in
/// `certs/`, also in the place of one that is of no more use. Files that somebody has named are never made: a mistake in
/// their names is likelier.
///
/// # Errors
/// [`TlsError::Missing`] for a named file that is not there, [`TlsError::Half`] where one of the two is missing; what
/// [`DevelopmentFiles::make`] gives.
pub(crate) fn ensure_certificates(files: &config::Tls, now: SystemTime) -> Result<Option<Made>, TlsError> {
    let usual = config::Tls::default();
    let [cert, key] = [(&files.cert, "--cert"), (&files.key, "--key")]
        .map(|(path, flag)| path.try_exists().map_err(|e| unreadable(path, flag, e.kind())));
    let (has_cert, has_key) = (cert?, key?);
    if (&files.cert, &files.key) != (&usual.cert, &usual.key) {
        return match (has_cert, has_key) {
            (false, _) => Err(TlsError::Missing { path: files.cert.clone(), flag: "--cert" }),
            (_, false) => Err(TlsError::Missing { path: files.key.clone(), flag: "--key" }),
            (true, true) => Ok(None),
        };
    }
    ensure_development(&files.cert, &files.key, (has_cert, has_key), now)
}

/// The same for the files of a development set-up.
fn ensure_development(
    cert: &Path,
    key: &Path,
    (has_cert, has_key): (bool, bool),
    now: SystemTime,
) -> Result<Option<Made>, TlsError> {
    let own = if has_cert { Own::read(cert, now) } else { None };
    let (names, why) = match (has_cert, has_key, own) {
        (false, false, _) => (Vec::new(), "No certificates found".to_owned()),
        (true, false, Some(own)) => (own.names, format!("{} has no key beside it", cert.display())),
        (true, true, Some(Own { names, standing: Standing::Expired })) => {
            (names, format!("{} has expired", cert.display()))
        }
        (true, true, Some(Own { names, standing: Standing::Early })) => {
            (names, format!("{} is not valid yet: the clock was wrong when it was made, or is now", cert.display()))
        }
        (true, true, _) => return Ok(None),
        (true, false, None) => return Err(TlsError::Half { present: cert.to_owned(), absent: key.to_owned() }),
        (false, true, _) => return Err(TlsError::Half { present: key.to_owned(), absent: cert.to_owned() }),
    };
    let files = DevelopmentFiles { ca: cert.with_file_name("ca.pem"), cert: cert.to_owned(), key: key.to_owned() };
    // The authority beside them signed files that are of no more use, so it is of none.
    let names = if names.is_empty() { DEVELOPMENT_NAMES.map(str::to_owned).into() } else { names };
    files.make_at(&names, true, now)?;
    Ok(Some(Made { files, why }))
}

/// A certificate that was made here for development.
struct Own {
    names: Vec<String>,
    standing: Standing,
}

impl Own {
    /// Reads one; `None` where it is another, or cannot be read.
    fn read(path: &Path, now: SystemTime) -> Option<Self> {
        let certificate = pem_certificates(&fs::read(path).ok()?).ok()?.into_iter().next().map(CertificateDer::from)?;
        let (_, read) = X509Certificate::from_der(&certificate).ok()?;
        let is_own = short_lived::is_for_development(&certificate);
        let standing = Validity::of(&certificate)?.standing(now);
        is_own.then(|| Self { names: short_lived::names(&read), standing })
    }
}

#[cfg(test)]
mod tests {
    use quic_websocket_client::tls::client_config;

    use super::*;
    use crate::tls::{ServerTls, Trust};

    fn ensure(files: &DevelopmentFiles, now: SystemTime) -> Result<Option<Made>, TlsError> {
        let exists = (files.cert.exists(), files.key.exists());
        ensure_development(&files.cert, &files.key, exists, now)
    }

    fn load(files: &DevelopmentFiles) {
        let tls = config::Tls { cert: files.cert.clone(), key: files.key.clone(), ..Default::default() };
        ServerTls::load(&tls, None, None).map(|_| ()).expect("a server can use them");
        client_config(&Trust::CaFile(files.ca.clone()), None, false).expect("a client can use them");
    }

    #[test]
    fn development_certificates_are_made_once_and_the_key_is_the_owners_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let files = DevelopmentFiles::inside(&folder.path().join("certs"));
        let made = ensure(&files, SystemTime::now()).expect("made");
        assert_eq!(made.map(|made| made.files).as_ref(), Some(&files));
        assert_eq!(ensure(&files, SystemTime::now()).expect("kept"), None);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = fs::metadata(&files.key).expect("the key is there").permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "the key's mode");
        }
        load(&files);
        assert!(matches!(files.make(&["localhost".into()], false), Err(TlsError::Exists { .. })));
    }

    #[test]
    fn what_is_of_no_more_use_is_made_again_for_the_same_names() {
        let folder = tempfile::tempdir().expect("a folder");
        let files = DevelopmentFiles::inside(folder.path());
        let now = SystemTime::now();
        let year = std::time::Duration::from_secs(366 * 24 * 60 * 60);
        for (made_at, why) in [
            (SystemTime::UNIX_EPOCH, "has expired"),
            (now - year, "has expired"),
            (now + year, "is not valid yet"),
            (SystemTime::UNIX_EPOCH + 8000 * year, "is not valid yet"),
        ] {
            files.make_at(&["chat.example".into(), "192.0.2.7".into()], true, made_at).expect("made");
            let made = ensure(&files, now).expect("made again").expect("it was needed");
            assert!(made.why.contains(why), "{}", made.why);
            let own = Own::read(&files.cert, now).expect("one for development");
            assert_eq!((own.names, own.standing), (vec!["chat.example".into(), "192.0.2.7".into()], Standing::Good));
            load(&files);
        }
        fs::remove_file(&files.key).expect("removed");
        let made = ensure(&files, now).expect("made again").expect("it was needed");
        assert!(made.why.contains("has no key"), "{}", made.why);
        load(&files);

        let foreign = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
        fs::write(&files.cert, foreign.cert.pem()).expect("written");
        fs::remove_file(&files.key).expect("removed");
        let half = ensure(&files, now).expect_err("somebody's own, and half of it").to_string();
        assert!(half.contains("server-key.pem is not"), "{half}");
        fs::write(&files.key, foreign.signing_key.serialize_pem()).expect("written");
        assert_eq!(ensure(&files, now + 9000 * year).expect("somebody's own"), None, "as it is, whatever the time");
    }

    #[test]
    fn nothing_is_made_in_the_place_of_a_file_that_was_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let made = DevelopmentFiles::inside(folder.path());
        made.make(&["localhost".into()], false).expect("made");
        let other = folder.path().join("new").join("server.pem");
        for (cert, key, missing) in [
            (&other, &made.key, "new/server.pem is not there: correct --cert"),
            (&made.cert, &other, "new/server.pem is not there: correct --key"),
            (&other, &other, "correct --cert"),
        ] {
            let files = config::Tls { cert: cert.clone(), key: key.clone(), ..Default::default() };
            let error = ensure_certificates(&files, SystemTime::now()).expect_err("one is missing").to_string();
            assert!(error.contains(missing), "{error}");
            assert!(!folder.path().join("new").exists(), "nothing is made");
        }
        let files = config::Tls { cert: made.cert.clone(), key: made.key.clone(), ..Default::default() };
        assert_eq!(ensure_certificates(&files, SystemTime::now()).expect("both are there"), None);
    }
}
