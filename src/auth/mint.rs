//! Creates tokens: for issuers written in Rust, for tests, and for `quic-websocket token mint`. A server never signs a
//! token.

use std::num::NonZeroU32;
use std::path::Path;

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde::Serialize;

use super::jws::RawClaims;
use super::{AuthError, keys, token, verifier};
use crate::config::{AuthKey, TokenAlgorithm};
use crate::message::Json;
use crate::tls::{ENCRYPTED, is_encrypted};

/// The claims of a token (docs/SECURITY.md). `None` leaves a claim out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Claims {
    /// User, 1 to [`MAX_USER_BYTES`](crate::message::MAX_USER_BYTES) bytes.
    pub sub: String,
    /// Expiry, in Unix seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exp: Option<u64>,
    /// Time of issue, in Unix seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub iat: Option<u64>,
    /// Start of validity, in Unix seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nbf: Option<u64>,
    /// Issuer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub iss: Option<String>,
    /// Audience: the servers that accept it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aud: Option<String>,
    /// Unique id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jti: Option<String>,
    /// Name that others see.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Topics that may be published to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub publish: Option<Vec<String>>,
    /// Topics and patterns that may be subscribed to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subscribe: Option<Vec<String>>,
    /// Topics whose members may be listed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub presence: Option<Vec<String>>,
    /// Topics whose history may be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub history: Option<Vec<String>>,
    /// Subscriptions that the server makes, at most 32.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subscriptions: Option<Vec<String>>,
    /// What others see about the user: any JSON.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub info: Option<Json>,
    /// Whether the client may send to single clients.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub direct: Option<bool>,
    /// Whether the client may signal to single clients.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signal: Option<bool>,
    /// Whether the client may list the connected clients.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub list_clients: Option<bool>,
    /// Whether the client may send to all clients.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub broadcast: Option<bool>,
    /// Messages per second that the client may send.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_rate: Option<NonZeroU32>,
}

impl Claims {
    /// Why no server would accept them, if so.
    fn what_is_wrong(&self) -> Option<String> {
        if let (Some(from), Some(until)) = (self.nbf, self.exp)
            && from >= until
        {
            return Some("it expires (exp) before it becomes valid (nbf)".into());
        }
        let raw = serde_json::to_string(self).and_then(|json| serde_json::from_str::<RawClaims>(&json));
        raw.map_or_else(|e| Some(e.to_string()), token::what_is_wrong)
    }
}

/// A key that signs tokens.
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
    /// A secret of the configuration, with which the server verifies tokens.
    ///
    /// # Errors
    /// [`AuthError`] if the key is not a secret, or is too short.
    pub fn from_config(key: &AuthKey) -> Result<Self, AuthError> {
        let algorithm = Algorithm::from(key.algorithm);
        if verifier::least_secret_bytes(algorithm).is_none() {
            let message = format!("a public key for {algorithm:?} cannot sign; use its private key");
            return Err(AuthError::Key { origin: "auth.keys".into(), message });
        }
        Ok(Self { algorithm, id: key.id.clone(), key: EncodingKey::from_secret(&keys::secret(key)?) })
    }

    /// A private key in a PEM file (PKCS #8), for RS256, ES256 and EdDSA. `id` is written to tokens as `kid`.
    ///
    /// # Errors
    /// [`AuthError`] if the file cannot be read or contains another kind of key.
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
                let message = format!("a key for {algorithm:?} is a secret, not a PEM file; use --secret-file");
                return Err(AuthError::Key { origin: path.display().to_string(), message });
            }
        };
        let wrong = |_| AuthError::Key {
            origin: path.display().to_string(),
            message: format!(
                "not a private key for {algorithm:?} in PEM (PKCS #8); convert one with `openssl pkey -in FILE`"
            ),
        };
        Ok(Self { algorithm, id, key: key.map_err(wrong)? })
    }

    /// Signs a token.
    ///
    /// # Errors
    /// [`AuthError`] if no server would accept the token, or the key cannot sign.
    pub fn sign(&self, claims: &Claims) -> Result<String, AuthError> {
        if let Some(why) = claims.what_is_wrong() {
            return Err(AuthError::Claims(format!("no server would accept this token: {why}")));
        }
        let mut header = Header::new(self.algorithm);
        header.kid.clone_from(&self.id);
        encode(&header, claims, &self.key).map_err(|_| AuthError::Key {
            origin: "the signing key".into(),
            message: format!("it cannot sign with {:?}; use a key for this algorithm", self.algorithm),
        })
    }
}
