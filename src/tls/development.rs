//! Creates development certificates: an authority and one certificate signed by it, for a server that has none and for
//! `quic-websocket certs`. Processes that create them in one folder at the same moment take turns.

use std::fs::File;
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

use super::validity::Phase;
use super::{TlsError, Validity, certificate_name, pem_certificates, short_lived, unreadable};
use crate::config;
use crate::message::ClientName;

/// Names in every development certificate.
pub const DEVELOPMENT_NAMES: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// Name of the authority that signs development certificates.
pub(super) const AUTHORITY: &str = "quic-websocket development CA";

/// Validity of development certificates, in days.
const DEVELOPMENT_DAYS: i64 = 365;

/// The three files of a development set-up, in one folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DevelopmentFiles {
    /// The certificate authority, for clients to trust. Its key is discarded, so it can sign nothing else.
    pub ca: PathBuf,
    /// The server's certificate.
    pub cert: PathBuf,
    /// The server's key, mode 0600.
    pub key: PathBuf,
}

impl DevelopmentFiles {
    /// The default file names in `folder`.
    pub fn inside(folder: &Path) -> Self {
        Self { ca: folder.join("ca.pem"), cert: folder.join("server.pem"), key: folder.join("server-key.pem") }
    }

    /// Creates a certificate authority and a P-256 certificate for `names` (DNS names or IP addresses), and writes
    /// them.
    ///
    /// # Errors
    /// [`TlsError::Exists`] unless `force`; [`TlsError::Name`], [`TlsError::Write`] and [`TlsError::Make`].
    pub fn make(&self, names: &[String], force: bool) -> Result<(), TlsError> {
        let _lock = FolderLock::of(&self.cert);
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

/// The files with which a client authenticates, and the authority for the server, in one folder: for tests and
/// development.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientFiles {
    /// The certificate authority, for servers to trust. Its key is discarded, so it can sign nothing else.
    pub ca: PathBuf,
    /// The client's certificate.
    pub cert: PathBuf,
    /// The client's key, mode 0600.
    pub key: PathBuf,
}

impl ClientFiles {
    /// The default file names in `folder`.
    pub fn inside(folder: &Path) -> Self {
        let [ca, cert, key] = ["client-ca.pem", "client.pem", "client-key.pem"].map(|name| folder.join(name));
        Self { ca, cert, key }
    }

    /// Creates a certificate authority and a P-256 certificate for the client of this name, and writes them.
    ///
    /// # Errors
    /// As [`DevelopmentFiles::make`].
    pub fn make(&self, name: &ClientName, force: bool) -> Result<(), TlsError> {
        let _lock = FolderLock::of(&self.cert);
        refuse_existing([&self.ca, &self.cert, &self.key], force)?;
        let mut client = CertificateParams::new(Vec::new())?;
        client.distinguished_name.push(DnType::CommonName, name.as_str());
        client.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let signed = Signed::make("quic-websocket development client CA", client, SystemTime::now())?;
        signed.write(&self.ca, &self.cert, &self.key)
    }
}

/// Excludes other processes that create certificates in a folder, until it is dropped or its process ends:
/// otherwise the certificate of one process could end up beside the key of another.
struct FolderLock {
    _locked: Option<File>,
}

impl FolderLock {
    /// Waits for the lock on the folder of a file, which is created if it is missing. Without a lock in a folder that
    /// cannot be written to: nothing can be created there.
    fn of(file: &Path) -> Self {
        let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        // If this fails, so does writing the files, which reports the error.
        let _ = fs::create_dir_all(folder);
        let lock = |file: File| file.lock().map(|()| file);
        // Windows cannot open a folder, and NFS cannot lock one, so there a file in it is locked.
        let locked = File::open(folder).and_then(lock).or_else(|_| {
            let mut options = fs::OpenOptions::new();
            options.write(true).create(true).truncate(false).open(folder.join(".lock")).and_then(lock)
        });
        Self { _locked: locked.ok() }
    }
}

fn exists(path: &Path, flag: &'static str) -> Result<bool, TlsError> {
    Ok(path.try_exists().map_err(|e| unreadable(path, flag, e.kind()))?)
}

fn refuse_existing(files: [&PathBuf; 3], force: bool) -> Result<(), TlsError> {
    match files.into_iter().find(|path| !force && path.exists()) {
        Some(path) => Err(TlsError::Exists { path: path.clone() }),
        None => Ok(()),
    }
}

/// An authority and the one certificate that it signed, as PEM.
struct Signed {
    ca: String,
    cert: String,
    key: String,
}

impl Signed {
    fn make(authority: &str, mut leaf: CertificateParams, now: SystemTime) -> Result<Self, TlsError> {
        // Whatever the clock says, a certificate starts in 1970 at the earliest and ends in 9999 at the latest.
        let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        let now = i64::try_from(now).ok().and_then(|now| OffsetDateTime::from_unix_timestamp(now).ok());
        let now = now.ok_or_else(|| TlsError::Make("the clock of this machine is wrong; set it".into()))?;
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

/// Writes a file by renaming a new one, so that it is never incomplete and has its mode from the start.
fn write(path: &Path, text: &str, mode: u32) -> Result<(), TlsError> {
    let written = write_beside(path, text, mode).and_then(|beside| fs::rename(&beside, path));
    written.map_err(|cause| TlsError::Write { path: path.to_owned(), cause })
}

/// As [`write`], for a file that does not exist: if other processes write it at the same time, the first one wins.
///
/// # Errors
/// [`io::ErrorKind::AlreadyExists`] if it exists.
pub(super) fn write_new(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    let beside = write_beside(path, text, mode)?;
    let linked = fs::hard_link(&beside, path);
    let removed = fs::remove_file(&beside);
    match linked {
        Ok(()) => removed,
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Err(e),
        // Not every file system supports hard links.
        Err(_) => create(path, text, mode, fs::OpenOptions::new().create_new(true)),
    }
}

/// Writes a temporary file beside `path` and returns its path. Creates the folder if it is missing.
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

/// A development set-up that was created because there was no usable one.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Made {
    pub(crate) files: DevelopmentFiles,
    /// The reason, for the log.
    pub(crate) why: String,
}

/// Ensures that the certificate and its key exist. If the settings have their defaults, a development set-up is created
/// when it is missing or no longer usable. Files named by the user are never created, because a typo is more likely.
///
/// # Errors
/// [`TlsError::Missing`] for a named file that does not exist, [`TlsError::Half`] if one of the two is missing, and the
/// errors of [`DevelopmentFiles::make`].
pub(crate) fn ensure_certificates(files: &config::Tls, now: SystemTime) -> Result<Option<Made>, TlsError> {
    let defaults = config::Tls::default();
    if (&files.cert, &files.key) != (&defaults.cert, &defaults.key) {
        return match (exists(&files.cert, "--cert")?, exists(&files.key, "--key")?) {
            (false, _) => Err(TlsError::Missing { path: files.cert.clone(), flag: "--cert" }),
            (_, false) => Err(TlsError::Missing { path: files.key.clone(), flag: "--key" }),
            (true, true) => Ok(None),
        };
    }
    ensure_development(&files.cert, &files.key, now)
}

/// As [`ensure_certificates`], for the files of a development set-up.
fn ensure_development(cert: &Path, key: &Path, now: SystemTime) -> Result<Option<Made>, TlsError> {
    let _lock = FolderLock::of(cert);
    // Only now: another process may have created them while this one waited for the lock.
    let (has_cert, has_key) = (exists(cert, "--cert")?, exists(key, "--key")?);
    let own = if has_cert { Own::read(cert, now) } else { None };
    let (names, why) = match (has_cert, has_key, own) {
        (false, false, _) => (Vec::new(), "No certificates found".to_owned()),
        (true, false, Some(own)) => (own.names, format!("{} has no key beside it", cert.display())),
        (true, true, Some(Own { names, phase: Phase::Expired })) => (names, format!("{} has expired", cert.display())),
        (true, true, Some(Own { names, phase: Phase::NotYetValid })) => {
            (names, format!("{} is not valid yet (the clock was wrong when it was created, or is now)", cert.display()))
        }
        (true, true, _) => return Ok(None),
        (true, false, None) => return Err(TlsError::Half { present: cert.to_owned(), absent: key.to_owned() }),
        (false, true, _) => return Err(TlsError::Half { present: key.to_owned(), absent: cert.to_owned() }),
    };
    let files = DevelopmentFiles { ca: cert.with_file_name("ca.pem"), cert: cert.to_owned(), key: key.to_owned() };
    // The authority beside them is replaced as well, because it signed only files that are replaced.
    let names = if names.is_empty() { DEVELOPMENT_NAMES.map(str::to_owned).into() } else { names };
    files.make_at(&names, true, now)?;
    Ok(Some(Made { files, why }))
}

/// A development certificate created by this program.
struct Own {
    names: Vec<String>,
    phase: Phase,
}

impl Own {
    /// Reads one; `None` if it is another certificate or cannot be read.
    fn read(path: &Path, now: SystemTime) -> Option<Self> {
        let certificate = pem_certificates(&fs::read(path).ok()?).ok()?.into_iter().next().map(CertificateDer::from)?;
        let (_, read) = X509Certificate::from_der(&certificate).ok()?;
        let is_own = short_lived::is_for_development(&certificate);
        let phase = Validity::of(&certificate)?.phase(now);
        is_own.then(|| Self { names: short_lived::names(&read), phase })
    }
}

#[cfg(test)]
mod tests {
    use quic_websocket_client::tls::client_config;

    use super::*;
    use crate::tls::{ServerTls, Trust};

    fn ensure(files: &DevelopmentFiles, now: SystemTime) -> Result<Option<Made>, TlsError> {
        ensure_development(&files.cert, &files.key, now)
    }

    fn load(files: &DevelopmentFiles) {
        let tls = config::Tls { cert: files.cert.clone(), key: files.key.clone(), ..Default::default() };
        ServerTls::load(&tls, None, None).map(|_| ()).expect("a server can use them");
        client_config(&Trust::CaFile(files.ca.clone()), None, false).expect("a client can use them");
    }

    #[test]
    fn development_certificates_are_created_once_with_a_private_key_mode() {
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
    fn processes_that_start_at_the_same_moment_use_one_certificate_with_its_key() {
        let folder = tempfile::tempdir().expect("a folder");
        for round in 0..20 {
            let files = DevelopmentFiles::inside(&folder.path().join(round.to_string()));
            if round % 2 == 1 {
                files.make_at(&["localhost".into()], false, SystemTime::UNIX_EPOCH).expect("expired ones");
            }
            let start = std::sync::Barrier::new(8);
            let made = std::thread::scope(|scope| {
                let one = || {
                    start.wait();
                    let made = ensure(&files, SystemTime::now()).expect("they exist now");
                    load(&files);
                    made.is_some()
                };
                let all: Vec<_> = (0..8).map(|_| scope.spawn(one)).collect();
                all.into_iter().map(|one| one.join().expect("no panic")).filter(|made| *made).count()
            });
            assert_eq!(made, 1, "round {round}: one of them creates the files, the others use them");
        }
    }

    #[test]
    fn unusable_development_certificates_are_replaced_for_the_same_names() {
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
            assert_eq!((own.names, own.phase), (vec!["chat.example".into(), "192.0.2.7".into()], Phase::Valid));
            load(&files);
        }
        fs::remove_file(&files.key).expect("removed");
        let made = ensure(&files, now).expect("made again").expect("it was needed");
        assert!(made.why.contains("has no key"), "{}", made.why);
        load(&files);

        let foreign = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
        fs::write(&files.cert, foreign.cert.pem()).expect("written");
        fs::remove_file(&files.key).expect("removed");
        let half = ensure(&files, now).expect_err("a foreign certificate without its key").to_string();
        assert!(half.contains("server-key.pem does not"), "{half}");
        fs::write(&files.key, foreign.signing_key.serialize_pem()).expect("written");
        assert_eq!(
            ensure(&files, now + 9000 * year).expect("a foreign certificate"),
            None,
            "unchanged, whatever the time"
        );
    }

    #[test]
    fn a_named_file_is_never_created() {
        let folder = tempfile::tempdir().expect("a folder");
        let made = DevelopmentFiles::inside(folder.path());
        made.make(&["localhost".into()], false).expect("made");
        let other = folder.path().join("new").join("server.pem");
        for (cert, key, missing) in [
            (&other, &made.key, "new/server.pem does not exist; correct --cert"),
            (&made.cert, &other, "new/server.pem does not exist; correct --key"),
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
