//! Splits a token into header, claims and signature (RFC 7515 section 7.1). Nothing in it is trusted yet: `token`
//! checks the signature. Pure.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64_URL;
use jsonwebtoken::Algorithm;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::verifier::Verifier;
use crate::message::mend_names;

/// The claims of a token by name, as raw JSON.
pub(super) type RawClaims = BTreeMap<String, Box<RawValue>>;

/// Supported algorithms by their names in tokens and keys. Ed25519 has two (RFC 8037, RFC 9864).
const ALGORITHMS: [(&str, Algorithm); 7] = [
    ("HS256", Algorithm::HS256),
    ("HS384", Algorithm::HS384),
    ("HS512", Algorithm::HS512),
    ("RS256", Algorithm::RS256),
    ("ES256", Algorithm::ES256),
    ("EdDSA", Algorithm::EdDSA),
    ("Ed25519", Algorithm::EdDSA),
];

/// The supported algorithm of this name.
pub(super) fn algorithm(name: &str) -> Option<Algorithm> {
    ALGORITHMS.iter().find(|(known, _)| *known == name).map(|&(_, algorithm)| algorithm)
}

/// The names of all supported algorithms.
pub(super) fn algorithms() -> String {
    ALGORITHMS.map(|(name, _)| name).join(", ")
}

/// A signed token, not verified.
#[derive(Debug)]
pub(super) struct Jws<'a> {
    /// The algorithm's name in the header.
    pub(super) alg: String,
    /// The name of the key that allegedly signed it.
    pub(super) key_id: Option<String>,
    /// Whether it has extensions that must be understood (RFC 7515 section 4.1.11).
    pub(super) is_critical: bool,
    signed: &'a str,
    claims: &'a str,
    signature: &'a str,
}

impl<'a> Jws<'a> {
    /// Splits a token, or returns why it is invalid. The error contains nothing of the token.
    pub(super) fn parse(token: &'a str) -> Result<Self, &'static str> {
        let parts: Vec<&str> = token.split('.').collect();
        let (header, claims, signature) = match parts[..] {
            [header, claims, signature] => (header, claims, signature),
            [_, _, _, _, _] => return Err("it is encrypted (JWE); use a signed one (JWS)"),
            _ => return Err("it is not a JSON Web Token (three parts separated by dots)"),
        };
        let signed = &token[..header.len() + 1 + claims.len()];
        let unreadable = "it is not a JSON Web Token (its header is not a JSON object in base64url)";
        let header = BASE64_URL.decode(header).map_err(|_| unreadable)?;
        let mut header: Map<String, Value> = serde_json::from_slice(&header).map_err(|_| unreadable)?;
        let mut text = |name: &str, wrong| match header.remove(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(wrong),
        };
        let alg = text("alg", "its header's alg is not a string")?;
        let key_id = text("kid", "its header's kid is not a string")?;
        let alg = alg.ok_or("its header names no algorithm (alg)")?;
        let is_critical = header.get("crit").is_some_and(|crit| !crit.is_null());
        Ok(Self { alg, key_id, is_critical, signed, claims, signature })
    }

    /// Whether this key signed it. The key's algorithm must be the token's.
    pub(super) fn is_signed_by(&self, key: &Verifier) -> bool {
        BASE64_URL.decode(self.signature).is_ok_and(|signature| key.has_signed(self.signed.as_bytes(), &signature))
    }

    /// Its claims.
    pub(super) fn claims(&self) -> Result<RawClaims, &'static str> {
        let unreadable = "its claims are not a JSON object in base64url";
        let claims = BASE64_URL.decode(self.claims).ok().and_then(|claims| String::from_utf8(claims).ok());
        let claims = claims.ok_or(unreadable)?;
        let read = serde_json::from_str(&claims).or_else(|_| {
            // Names of ignored claims may hold anything, such as half a surrogate pair.
            serde_json::from_str(mend_names(&claims).as_deref().unwrap_or_default())
        });
        read.map_err(|_| unreadable)
    }
}
