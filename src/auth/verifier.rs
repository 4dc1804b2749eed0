//! Verifies signatures: one key for one algorithm, parsed when it is read. An unusable key is an error here, not a
//! refused token later. Pure.

use std::fmt;
use std::ops::RangeInclusive;

use aws_lc_rs::hmac;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ED25519, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents,
};
use jsonwebtoken::Algorithm;

/// Accepted lengths of an RSA modulus, in bits.
const RSA_BITS: RangeInclusive<usize> = 2048..=8192;
/// Longest RSA exponent, in bytes: `65537` has three.
const MAX_EXPONENT_BYTES: usize = 4;
/// Bytes of a coordinate on P-256, and of an Ed25519 key.
const COORDINATE: usize = 32;

/// A key that verifies signatures of one algorithm.
pub(super) enum Verifier {
    /// HS256, HS384, HS512.
    Secret(Box<hmac::Key>),
    /// RS256, ES256, EdDSA.
    Public(ParsedPublicKey),
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Secret(_) => "Secret(..)",
            Self::Public(_) => "Public(..)",
        })
    }
}

impl Verifier {
    /// A secret, which must be long enough for its algorithm (RFC 7518 section 3.2).
    pub(super) fn secret(algorithm: Algorithm, secret: &[u8]) -> Result<Self, String> {
        let hmac = match algorithm {
            Algorithm::HS256 => hmac::HMAC_SHA256,
            Algorithm::HS384 => hmac::HMAC_SHA384,
            Algorithm::HS512 => hmac::HMAC_SHA512,
            _ => return Err(format!("{algorithm:?} does not use a secret")),
        };
        match least_secret_bytes(algorithm) {
            Some(least) if secret.len() < least => Err(format!(
                "{} bytes are too few for {algorithm:?}; use at least {least}, as from `openssl rand -base64 {least}`",
                secret.len()
            )),
            _ => Ok(Self::Secret(Box::new(hmac::Key::new(hmac, secret)))),
        }
    }

    /// An RSA key for RS256, from its big-endian numbers, with or without leading zeros.
    pub(super) fn rsa(modulus: &[u8], exponent: &[u8]) -> Result<Self, String> {
        let (n, e) = (number(modulus), number(exponent));
        let bits = n.first().map_or(0, |first| 8 * n.len() - first.leading_zeros() as usize);
        if !RSA_BITS.contains(&bits) {
            return Err(format!("{bits} bits: an RSA key must have {} to {}", RSA_BITS.start(), RSA_BITS.end()));
        }
        let is_odd = |number: &[u8]| number.last().is_some_and(|last| last & 1 == 1);
        if !is_odd(n) {
            return Err("its RSA modulus is even, so it is damaged".into());
        }
        if !is_odd(e) || e == [1] || e.len() > MAX_EXPONENT_BYTES {
            return Err(format!(
                "its RSA exponent is invalid; expected an odd number from 3 on, of at most {MAX_EXPONENT_BYTES} bytes"
            ));
        }
        let parsed = RsaPublicKeyComponents { n, e }.to_parsed_public_key(&RSA_PKCS1_2048_8192_SHA256);
        parsed.map(Self::Public).map_err(|_| "its numbers are not an RSA key".into())
    }

    /// A key on P-256 for ES256, from its big-endian coordinates, with or without leading zeros.
    pub(super) fn p256(x: &[u8], y: &[u8]) -> Result<Self, String> {
        let mut point = [0; 1 + 2 * COORDINATE];
        point[0] = 4;
        for (coordinate, end) in [(number(x), 1 + COORDINATE), (number(y), 1 + 2 * COORDINATE)] {
            if coordinate.len() > COORDINATE {
                return Err(format!("a coordinate on P-256 has {COORDINATE} bytes, not {}", coordinate.len()));
            }
            point[end - coordinate.len()..end].copy_from_slice(coordinate);
        }
        Self::point(&point)
    }

    /// A key on P-256 for ES256, in the form of X.509 (SEC 1 section 2.3.3).
    pub(super) fn point(point: &[u8]) -> Result<Self, String> {
        let parsed = ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point);
        parsed.map(Self::Public).map_err(|_| "its point is not on the curve P-256".into())
    }

    /// An Ed25519 key for EdDSA.
    pub(super) fn ed25519(key: &[u8]) -> Result<Self, String> {
        if key.len() != COORDINATE {
            return Err(format!("an Ed25519 key has {COORDINATE} bytes, not {}", key.len()));
        }
        let parsed = ParsedPublicKey::new(&ED25519, key);
        parsed.map(Self::Public).map_err(|_| "its bytes are not an Ed25519 key".into())
    }

    /// Whether this key signed the message.
    pub(super) fn has_signed(&self, message: &[u8], signature: &[u8]) -> bool {
        match self {
            Self::Secret(key) => hmac::verify(key, message, signature).is_ok(),
            Self::Public(key) => key.verify_sig(message, signature).is_ok(),
        }
    }
}

/// Minimum bytes of a secret for an algorithm (RFC 7518 section 3.2); `None` if the key is not a secret.
pub(super) fn least_secret_bytes(algorithm: Algorithm) -> Option<usize> {
    match algorithm {
        Algorithm::HS256 => Some(32),
        Algorithm::HS384 => Some(48),
        Algorithm::HS512 => Some(64),
        _ => None,
    }
}

/// A number without leading zeros, which X.509 adds for the sign, and some libraries by mistake.
fn number(bytes: &[u8]) -> &[u8] {
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    &bytes[zeros..]
}
