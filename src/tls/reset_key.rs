//! Loads the key from which stateless reset tokens are derived (RFC 9000 section 10.3). A server that was killed knows
//! none of its old connections after a restart: with the same key it can tell their clients, which reconnect at once
//! instead of after their idle timeout. Called once, by `server`.

use std::path::{Path, PathBuf};
use std::{fs, io};

use rustls::crypto::CryptoProvider;
use tracing::warn;

use super::{TlsError, development, files, provider};
use crate::config::Config;

/// Name of the file beside the certificate.
const NAME: &str = "reset-key";
/// Random bytes of a new key.
const KEY_BYTES: usize = 32;
/// Minimum bytes of a key: with a shorter one, which could be guessed, anyone could end any connection.
const LEAST_BYTES: usize = 32;
/// Maximum bytes of a key; a longer file is something else.
const MOST_BYTES: usize = 4096;

/// The key. It has no `Debug`, so it cannot be logged.
pub(crate) struct ResetKey(Vec<u8>);

impl ResetKey {
    /// Reads the key from the file in the settings, which must exist, or from the one beside the certificate, which is
    /// created if missing. If that fails, the key lasts as long as the process, and the log says so.
    pub(crate) fn load(config: &Config) -> Result<Self, TlsError> {
        if let Some(path) = &config.quic.reset_key {
            let key = read(path)
                .map_err(|cause| TlsError::ReadResetKey { path: path.clone(), cause: cause.kind().into() })?;
            files::warn_of_readers(path);
            return key.ok_or_else(|| TlsError::ResetKey { path: path.clone() });
        }
        let path = beside(&config.tls.cert);
        let kept = match read(&path) {
            Ok(Some(key)) => {
                files::warn_of_readers(&path);
                return Ok(key);
            }
            Ok(None) => {
                warn!("{} is not a key of {LEAST_BYTES} bytes or more; creating another", path.display());
                fs::remove_file(&path)
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(e) => Err(e),
        };
        let kept = kept.and_then(|()| Self::make(&path));
        kept.or_else(|e| {
            warn!(
                "No key for stateless resets in {}: {e}. If this server is killed and restarted, QUIC clients will \
                 notice only after their idle timeout; name an existing file with quic.reset_key",
                path.display()
            );
            random().map(Self)
        })
    }

    /// Creates a key in a new file, or uses the one that another server created there in the meantime.
    fn make(path: &Path) -> io::Result<Self> {
        let key = random().map_err(|e| io::Error::other(e.to_string()))?;
        let text: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
        match development::write_new(path, &format!("{text}\n"), 0o600) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            made => made?,
        }
        read(path)?.ok_or_else(|| io::Error::other("the file was changed while it was created"))
    }

    /// The key in Quinn's form.
    pub(crate) fn hmac(&self) -> std::sync::Arc<dyn quinn::crypto::HmacKey> {
        std::sync::Arc::new(aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, &self.0))
    }
}

/// Path of the key that belongs to a certificate.
fn beside(cert: &Path) -> PathBuf {
    cert.with_file_name(NAME)
}

/// The key in a file; `None` if its length is not that of a key.
fn read(path: &Path) -> io::Result<Option<ResetKey>> {
    let key = fs::read(path)?.trim_ascii().to_vec();
    Ok((LEAST_BYTES..=MOST_BYTES).contains(&key.len()).then_some(ResetKey(key)))
}

fn random() -> Result<Vec<u8>, TlsError> {
    let mut key = vec![0; KEY_BYTES];
    let provider: &CryptoProvider = &provider();
    provider.secure_random.fill(&mut key).map_err(|_| rustls::Error::FailedToGetRandomBytes)?;
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(folder: &Path) -> Config {
        let mut config = Config::default();
        config.tls.cert = folder.join("server.pem");
        config
    }

    #[test]
    fn a_key_is_created_once_and_only_its_owner_can_read_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let config = config(folder.path());
        let made = ResetKey::load(&config).expect("made");
        assert_eq!(ResetKey::load(&config).expect("read").0, made.0);
        assert_eq!(made.0.len(), 2 * KEY_BYTES);
        let path = folder.path().join("reset-key");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = fs::metadata(&path).expect("the key is there").permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "the key's mode");
        }
        fs::write(&path, "short\n").expect("written");
        let other = ResetKey::load(&config).expect("made again");
        assert!(other.0 != made.0 && other.0.len() == 2 * KEY_BYTES);
        assert_eq!(ResetKey::load(&config).expect("read").0, other.0);
    }

    #[test]
    fn a_named_key_must_exist_and_be_valid() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut config = config(folder.path());
        let path = folder.path().join("shared");
        config.quic.reset_key = Some(path.clone());
        let error = ResetKey::load(&config).err().map(|error| error.to_string()).expect("no key");
        assert!(error.contains("there is no such file; correct quic.reset_key"), "{error}");
        assert!(!error.contains("generate_certs") && !error.contains("entity not found"), "{error}");
        assert!(!path.exists(), "nothing is created, because the name may be a typo");
        fs::write(&path, "short").expect("written");
        assert!(matches!(ResetKey::load(&config), Err(TlsError::ResetKey { .. })));
        fs::write(&path, [b'k'; LEAST_BYTES]).expect("written");
        assert!(ResetKey::load(&config).is_ok());
    }

    #[test]
    fn a_server_starts_with_a_folder_that_cannot_be_written_to() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("no-folder");
        fs::write(&file, "").expect("written");
        assert!(ResetKey::load(&config(&file)).is_ok());
    }
}
