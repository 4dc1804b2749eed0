//! Making tokens: for whoever issues them in Rust, for tests, and for the command line.

use std::num::NonZeroU32;
use std::path::Path;

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde::Serialize;

use super::jws::RawClaims;
use super::{AuthError, keys, token, verifier};
use crate::config::{AuthKey, TokenAlgorithm};
use crate::tls::{ENCRYPTED, is_encrypted};

/// What a token says (docs/SECURITY.md). What is left out is not in it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Claims {
    /// Who it is for, 1 to [`MAX_USER_BYTES`](crate::message::MAX_USER_BYTES) bytes.
    pub sub: String,
    /// Until when it holds, in Unix seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exp: Option<u64>,
    /// From when on, in Unix seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nbf: Option<u64>,
    /// Who issued it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub iss: Option<String>,
    /// For which servers it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aud: Option<String>,
    /// What makes it different from all others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jti: Option<String>,
    /// The name that others see.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Topics to which to publish.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub publish: Option<Vec<String>>,
    /// Topics and patterns to which to subscribe.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subscribe: Option<Vec<String>>,
    /// Topics of which to ask who is there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub presence: Option<Vec<String>>,
    /// Topics of which to read what was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub history: Option<Vec<String>>,
    /// Whether to send to single clients.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub direct: Option<bool>,
    /// Whether to signal to single clients.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signal: Option<bool>,
    /// Whether to list who is connected.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub list_clients: Option<bool>,
    /// Whether to send to all clients.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub broadcast: Option<bool>,
    /// Messages each second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_rate: Option<NonZeroU32>,
}

impl Claims {
    /// Why no server would take them, if so.
    fn what_is_wrong(&self) -> Option<String> {
        if let (Some(from), Some(until)) = (self.nbf, self.exp)
            && from >= until
        {
            return Some("it expires (exp) before it begins to hold (nbf)".into());
        }
        let raw = serde_json::to_string(self).and_then(|json| serde_json::from_str::<RawClaims>(&json));
        raw.map_or_else(|e| Some(e.to_string()), token::what_is_wrong)
    }
}

/// What signs tokens.
pub struct SigningKey {
    algorithm: Algorithm,
    id: Option<String>,
    key: EncodingKey,
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SigningKey").field("algorithm", &self.algorithm).field("id", &self.id).finish_non_exhaustive()
    }
}

impl SigningKey {
    /// A secret of the configuration: what the server checks with signs as well.
    ///
    /// # Errors
    /// [`AuthError`] where the key is not a secret, or too short a one.
    pub fn from_config(key: &AuthKey) -> Result<Self, AuthError> {
        let algorithm = Algorithm::from(key.algorithm);
        if verifier::least_secret_bytes(algorithm).is_none() {
            let message = format!("a public key for {algorithm:?} signs nothing; name its private key");
            return Err(AuthError::Key { origin: "auth.keys".into(), message });
        }
        Ok(Self { algorithm, id: key.id.clone(), key: EncodingKey::from_secret(&keys::secret(key)?) })
    }

    /// A private key in a PEM file (PKCS #8), for RS256, ES256 and EdDSA. `id` is told as `kid`.
    ///
    /// # Errors
    /// [`AuthError`] where the file cannot be read or holds another kind of key.
    pub fn from_pem(algorithm: TokenAlgorithm, id: Option<String>, path: &Path) -> Result<Self, AuthError> {
        let algorithm = Algorithm::from(algorithm);
        let pem = keys::read(path)?;
        if is_encrypted(&pem) {
            let message = format!("{ENCRYPTED}, and name that with --private-key");
            return Err(AuthError::Key { origin: path.display().to_string(), message });
        }
        let key = match algorithm {
            Algorithm::RS256 => EncodingKey::from_rsa_pem(&pem),
            Algorithm::ES256 => EncodingKey::from_ec_pem(&pem),
            Algorithm::EdDSA => EncodingKey::from_ed_pem(&pem),
            _ => {
                let message = format!("a key for {algorithm:?} is a secret, not a PEM file");
                return Err(AuthError::Key { origin: path.display().to_string(), message });
            }
        };
        let wrong = |_| AuthError::Key {
            origin: path.display().to_string(),
            message: format!(
                "not a private key in PEM (PKCS #8) for {algorithm:?}; `openssl pkey -in FILE` writes a key in that form"
            ),
        };
        Ok(Self { algorithm, id, key: key.map_err(wrong)? })
    }

    /// Signs a token.
    ///
    /// # Errors
    /// [`AuthError`] if no server would take such a token, or the key cannot sign.
    pub fn sign(&self, claims: &Claims) -> Result<String, AuthError> {
        if let Some(why) = claims.what_is_wrong() {
            return Err(AuthError::Claims(format!("no server would take this token: {why}")));
        }
        let mut header = Header::new(self.algorithm);
        header.kid.clone_from(&self.id);
        encode(&header, claims, &self.key)
            .map_err(|e| AuthError::Key { origin: "the signing key".into(), message: e.to_string() })
    }
}
