//! The keys of the configuration and of PEM files, which verify tokens; `key_set` has those of key sets. Each key is
//! for one algorithm, whatever a token claims, so a public key is never used as a secret (RFC 8725 section 3.1).

use std::fs;
use std::path::Path;

use jsonwebtoken::Algorithm;

use super::verifier::{Verifier, least_secret_bytes};
use super::{AuthError, public_key};
use crate::config::{AuthKey, TokenAlgorithm};

/// A key and the only algorithm it may be used with.
pub(super) struct Key {
    pub(super) id: Option<String>,
    pub(super) algorithm: Algorithm,
    /// The only issuer of its tokens; `None` for any accepted one.
    pub(super) issuer: Option<String>,
    pub(super) verifier: Verifier,
}

impl Key {
    /// Whether it may sign tokens with this `iss`.
    pub(super) fn is_of(&self, issuer: Option<&str>) -> bool {
        self.issuer.as_deref().is_none_or(|own| issuer == Some(own))
    }
}

impl From<TokenAlgorithm> for Algorithm {
    fn from(algorithm: TokenAlgorithm) -> Self {
        match algorithm {
            TokenAlgorithm::HS256 => Self::HS256,
            TokenAlgorithm::HS384 => Self::HS384,
            TokenAlgorithm::HS512 => Self::HS512,
            TokenAlgorithm::RS256 => Self::RS256,
            TokenAlgorithm::ES256 => Self::ES256,
            TokenAlgorithm::EdDSA => Self::EdDSA,
        }
    }
}

/// Byte order mark that some editors write; not part of a secret.
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// The secret of a key, from the configuration or its file.
pub(super) fn secret(key: &AuthKey) -> Result<Vec<u8>, AuthError> {
    let algorithm = Algorithm::from(key.algorithm);
    let (secret, origin) = match (&key.secret, &key.secret_file) {
        (Some(secret), None) => (secret.expose().as_bytes().to_vec(), "auth.keys: secret".to_owned()),
        (None, Some(path)) => {
            let text = read(path)?;
            let text = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(&text);
            (text.trim_ascii().to_vec(), path.display().to_string())
        }
        _ => {
            let message = format!("a key for {algorithm:?} needs either secret or secret_file");
            return Err(AuthError::Key { origin: "auth.keys".into(), message });
        }
    };
    if secret.starts_with(b"-----BEGIN") {
        let message = format!("this is PEM, not a secret for {algorithm:?}; create one with openssl rand -base64 64");
        return Err(AuthError::Key { origin, message });
    }
    match Verifier::secret(algorithm, &secret) {
        Ok(_) => Ok(secret),
        Err(message) => Err(AuthError::Key { origin, message }),
    }
}

/// Parses a key of the configuration.
pub(super) fn from_config(key: &AuthKey) -> Result<Key, AuthError> {
    let algorithm = Algorithm::from(key.algorithm);
    let wrong = |message: String| AuthError::Key { origin: "auth.keys".into(), message };
    let verifier = if least_secret_bytes(algorithm).is_some() {
        if key.public_key.is_some() {
            return Err(wrong(format!(
                "a key for {algorithm:?} is a secret; set secret or secret_file, not public_key"
            )));
        }
        Verifier::secret(algorithm, &secret(key)?).map_err(wrong)?
    } else {
        let (Some(path), None, None) = (&key.public_key, &key.secret, &key.secret_file) else {
            return Err(wrong(format!(
                "a key for {algorithm:?} needs only public_key, a PEM file with the public key"
            )));
        };
        public_key(path, algorithm)?
    };
    Ok(Key { id: key.id.clone(), algorithm, issuer: key.issuer.clone(), verifier })
}

fn public_key(path: &Path, algorithm: Algorithm) -> Result<Verifier, AuthError> {
    public_key::decode(&read(path)?, algorithm).map_err(|why| AuthError::Key {
        origin: path.display().to_string(),
        message: format!("not a public key for {algorithm:?} in PEM: {why}"),
    })
}

pub(super) fn read(path: &Path) -> Result<Vec<u8>, AuthError> {
    fs::read(path).map_err(|cause| AuthError::Read { path: path.to_owned(), cause })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(toml: &str) -> String {
        let key: AuthKey = toml::from_str(toml).expect("a key's table");
        from_config(&key).err().map(|e| e.to_string()).expect("no key")
    }

    #[test]
    fn a_secret_in_a_file_is_read_without_surrounding_white_space() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("secret");
        let written = "s".repeat(32);
        for text in [written.clone(), format!("{written}\r\n"), format!("\u{feff}{written}\n")] {
            fs::write(&path, text).expect("written");
            let key = AuthKey::secret_in(path.clone(), TokenAlgorithm::HS256, None);
            assert_eq!(secret(&key).expect("a secret"), written.as_bytes());
        }
    }

    #[test]
    fn errors_about_a_key_say_what_is_expected() {
        let long = "x".repeat(47);
        let named = |table: &str| table.replace('|', "\n");
        for (table, expected) in [
            ("algorithm = 'HS256'".to_owned(), "needs either secret or secret_file"),
            (named("algorithm = 'HS256'|secret = 'short'"), "5 bytes are too few for HS256; use at least 32"),
            (named(&format!("algorithm = 'HS384'|secret = '{long}'")), "47 bytes are too few for HS384"),
            (
                named(&format!("algorithm = 'HS256'|secret = '{long}'|secret_file = 'x'")),
                "either secret or secret_file",
            ),
            (
                named(&format!("algorithm = 'HS256'|secret = '{long}'|public_key = 'x'")),
                "set secret or secret_file, not public_key",
            ),
            (
                named(&format!("algorithm = 'HS256'|secret = '-----BEGIN PUBLIC KEY-----{long}'")),
                "this is PEM, not a secret",
            ),
            ("algorithm = 'RS256'".to_owned(), "needs only public_key"),
            (named(&format!("algorithm = 'ES256'|secret = '{long}'")), "needs only public_key"),
            (
                named("algorithm = 'EdDSA'|public_key = '/nonexistent.pem'"),
                "cannot read the key /nonexistent.pem: there is no such file",
            ),
        ] {
            let error = refused(&table);
            assert!(error.contains(expected), "{table}: {error}");
            assert!(!error.contains(&long), "the secret is not shown");
        }
        for unknown in ["none", "HS1", "RS512", "ES384"] {
            assert!(toml::from_str::<AuthKey>(&format!("algorithm = '{unknown}'")).is_err(), "{unknown}");
        }
    }
}
