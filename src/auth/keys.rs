//! The keys with which tokens are signed: from the configuration, PEM files and key sets. Each key is for one algorithm,
//! whatever a token says: so a public key is never taken for a secret (RFC 8725 section 3.1).

use std::fs;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64_URL;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, JwkSet, KeyAlgorithm, KeyOperations, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde_json::Value;
use tracing::debug;

use super::AuthError;
use super::public_key::{self, RSA_BITS};
use crate::config::{AuthKey, TokenAlgorithm};
use crate::printable::Printable;

/// Most keys in one set.
const MAX_KEYS: usize = 64;

/// A key and the algorithm that it is for.
pub(super) struct Key {
    pub(super) id: Option<String>,
    pub(super) algorithm: Algorithm,
    /// Who alone signs with it; `None` for whoever may issue tokens here.
    pub(super) issuer: Option<String>,
    pub(super) decoding: DecodingKey,
}

impl Key {
    /// Whether it may have signed a token with this `iss`.
    pub(super) fn is_of(&self, issuer: Option<&Value>) -> bool {
        self.issuer.as_deref().is_none_or(|own| issuer.and_then(Value::as_str) == Some(own))
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

/// The least bytes of a secret for an algorithm (RFC 7518 section 3.2); `None` where the key is no secret.
pub(super) fn least_secret_bytes(algorithm: Algorithm) -> Option<usize> {
    match algorithm {
        Algorithm::HS256 => Some(32),
        Algorithm::HS384 => Some(48),
        Algorithm::HS512 => Some(64),
        _ => None,
    }
}

/// The secret of a key in the configuration, from there or from its file.
pub(super) fn secret(key: &AuthKey) -> Result<Vec<u8>, AuthError> {
    let algorithm = Algorithm::from(key.algorithm);
    let (secret, origin) = match (&key.secret, &key.secret_file) {
        (Some(secret), None) => (secret.expose().as_bytes().to_vec(), "auth.keys: secret".to_owned()),
        (None, Some(path)) => (read(path)?.trim_ascii().to_vec(), path.display().to_string()),
        _ => {
            let message = format!("a key for {algorithm:?} needs either secret or secret_file");
            return Err(AuthError::Key { origin: "auth.keys".into(), message });
        }
    };
    match least_secret_bytes(algorithm) {
        _ if secret.starts_with(b"-----BEGIN") => {
            let message = format!("this is PEM, which holds no secret for {algorithm:?}");
            Err(AuthError::Key { origin, message })
        }
        Some(least) if secret.len() < least => {
            let message = format!(
                "{} bytes are too few for {algorithm:?}: use at least {least}, as from `openssl rand -base64 {least}`",
                secret.len()
            );
            Err(AuthError::Key { origin, message })
        }
        _ => Ok(secret),
    }
}

/// A key of the configuration.
pub(super) fn from_config(key: &AuthKey) -> Result<Key, AuthError> {
    let algorithm = Algorithm::from(key.algorithm);
    let wrong = |message: String| AuthError::Key { origin: "auth.keys".into(), message };
    let decoding = if least_secret_bytes(algorithm).is_some() {
        if key.public_key.is_some() {
            return Err(wrong(format!("a key for {algorithm:?} is a secret, not a public_key")));
        }
        DecodingKey::from_secret(&secret(key)?)
    } else {
        let (Some(path), None, None) = (&key.public_key, &key.secret, &key.secret_file) else {
            return Err(wrong(format!(
                "a key for {algorithm:?} needs public_key, the PEM file of the public key, alone"
            )));
        };
        public_key(path, algorithm)?
    };
    Ok(Key { id: key.id.clone(), algorithm, issuer: key.issuer.clone(), decoding })
}

fn public_key(path: &Path, algorithm: Algorithm) -> Result<DecodingKey, AuthError> {
    public_key::decode(&read(path)?, algorithm).map_err(|why| AuthError::Key {
        origin: path.display().to_string(),
        message: format!("not a public key in PEM for {algorithm:?}: {why}"),
    })
}

pub(super) fn read(path: &Path) -> Result<Vec<u8>, AuthError> {
    fs::read(path).map_err(|cause| AuthError::Read { path: path.to_owned(), cause })
}

/// The keys of a set (RFC 7517 section 5). Those that are for something else are left out; one at least has to be usable,
/// unless there is none at all.
pub(super) fn from_set(json: &[u8], origin: &str, issuer: Option<&str>) -> Result<Vec<Key>, AuthError> {
    let wrong = |message: String| AuthError::Key { origin: origin.to_owned(), message };
    let set: JwkSet = serde_json::from_slice(json).map_err(|e| wrong(format!("not a JSON Web Key Set: {e}")))?;
    if set.keys.len() > MAX_KEYS {
        return Err(wrong(format!("{} keys are too many: at most {MAX_KEYS} are taken", set.keys.len())));
    }
    let mut keys = Vec::new();
    for jwk in &set.keys {
        let id = jwk.common.key_id.clone();
        match usable(jwk) {
            Ok((algorithm, decoding)) => keys.push(Key { id, algorithm, issuer: issuer.map(str::to_owned), decoding }),
            Err(why) => {
                debug!("Key {} of {origin} is left out: {why}", Printable::excerpt(id.as_deref().unwrap_or("-")))
            }
        }
    }
    // An empty set withdraws all keys; one of which none can be used is a mistake.
    if keys.is_empty() && !set.keys.is_empty() {
        return Err(wrong("no key in it can be used: RS256, ES256, EdDSA, HS256, HS384 and HS512 are taken".into()));
    }
    Ok(keys)
}

/// A key's algorithm and the key itself, or why it cannot be used.
fn usable(jwk: &Jwk) -> Result<(Algorithm, DecodingKey), String> {
    if jwk.common.public_key_use.as_ref().is_some_and(|to| *to != PublicKeyUse::Signature) {
        return Err("it is not for signatures".into());
    }
    if jwk.common.key_operations.as_ref().is_some_and(|to| !to.contains(&KeyOperations::Verify)) {
        return Err("it is not for verifying".into());
    }
    let named = jwk.common.key_algorithm.as_ref();
    let is_named = |algorithm| named.is_none_or(|named| *named == algorithm);
    let algorithm = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) if is_named(KeyAlgorithm::RS256) => Algorithm::RS256,
        AlgorithmParameters::EllipticCurve(key)
            if key.curve == EllipticCurve::P256 && is_named(KeyAlgorithm::ES256) =>
        {
            Algorithm::ES256
        }
        AlgorithmParameters::OctetKeyPair(key)
            if key.curve == EllipticCurve::Ed25519 && is_named(KeyAlgorithm::EdDSA) =>
        {
            Algorithm::EdDSA
        }
        // A secret does not tell by itself what it is for.
        AlgorithmParameters::OctetKey(_) => match named {
            Some(KeyAlgorithm::HS256) => Algorithm::HS256,
            Some(KeyAlgorithm::HS384) => Algorithm::HS384,
            Some(KeyAlgorithm::HS512) => Algorithm::HS512,
            _ => return Err("a secret has to name HS256, HS384 or HS512 as its alg".into()),
        },
        _ => return Err("its kind or algorithm is not taken".into()),
    };
    if let AlgorithmParameters::RSA(key) = &jwk.algorithm {
        let modulus = BASE64_URL.decode(&key.n).map_err(|_| "its modulus cannot be read")?;
        let bits = 8 * modulus.iter().skip_while(|byte| **byte == 0).count();
        if !RSA_BITS.contains(&bits) {
            return Err(format!("{bits} bits: an RSA key has {} to {}", RSA_BITS.start(), RSA_BITS.end()));
        }
    }
    let decoding = DecodingKey::from_jwk(jwk).map_err(|e| e.to_string())?;
    if let Some(least) = least_secret_bytes(algorithm)
        && decoding.try_get_as_bytes().is_ok_and(|secret| secret.len() < least)
    {
        return Err(format!("a secret for {algorithm:?} has at least {least} bytes"));
    }
    Ok((algorithm, decoding))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(toml: &str) -> String {
        let key: AuthKey = toml::from_str(toml).expect("a key's table");
        from_config(&key).err().map(|e| e.to_string()).expect("no key")
    }

    #[test]
    fn a_key_that_cannot_be_used_is_told_with_what_is_expected() {
        let long = "x".repeat(47);
        let named = |table: &str| table.replace('|', "\n");
        for (table, expected) in [
            ("algorithm = 'HS256'".to_owned(), "needs either secret or secret_file"),
            (named("algorithm = 'HS256'|secret = 'short'"), "5 bytes are too few for HS256: use at least 32"),
            (named(&format!("algorithm = 'HS384'|secret = '{long}'")), "47 bytes are too few for HS384"),
            (
                named(&format!("algorithm = 'HS256'|secret = '{long}'|secret_file = 'x'")),
                "either secret or secret_file",
            ),
            (
                named(&format!("algorithm = 'HS256'|secret = '{long}'|public_key = 'x'")),
                "is a secret, not a public_key",
            ),
            (
                named(&format!("algorithm = 'HS256'|secret = '-----BEGIN PUBLIC KEY-----{long}'")),
                "this is PEM, which holds no secret",
            ),
            ("algorithm = 'RS256'".to_owned(), "needs public_key"),
            (named(&format!("algorithm = 'ES256'|secret = '{long}'")), "needs public_key"),
            (named("algorithm = 'EdDSA'|public_key = '/nonexistent.pem'"), "cannot read /nonexistent.pem"),
        ] {
            let error = refused(&table);
            assert!(error.contains(expected), "{table}: {error}");
            assert!(!error.contains(&long), "the secret is not told");
        }
        for unknown in ["none", "HS1", "RS512", "ES384"] {
            assert!(toml::from_str::<AuthKey>(&format!("algorithm = '{unknown}'")).is_err(), "{unknown}");
        }
    }
}
