//! What checks signatures: one key for one algorithm, parsed when it is read. A key that can verify nothing is refused
//! here, and not noticed only when no token is taken any more. Pure.

use std::fmt;
use std::ops::RangeInclusive;

use aws_lc_rs::hmac;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ED25519, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents,
};
use jsonwebtoken::Algorithm;

/// How long an RSA modulus may be, in bits.
const RSA_BITS: RangeInclusive<usize> = 2048..=8192;
/// The longest RSA exponent that is taken, in bytes: `65537` has three.
const MAX_EXPONENT_BYTES: usize = 4;
/// Bytes of a coordinate on P-256, and of an Ed25519 key.
const COORDINATE: usize = 32;

/// A key that checks signatures by one algorithm.
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
    /// A secret. It has to be long enough for its algorithm (RFC 7518 section 3.2).
    pub(super) fn secret(algorithm: Algorithm, secret: &[u8]) -> Result<Self, String> {
        let hmac = match algorithm {
            Algorithm::HS256 => hmac::HMAC_SHA256,
            Algorithm::HS384 => hmac::HMAC_SHA384,
            Algorithm::HS512 => hmac::HMAC_SHA512,
            _ => return Err(format!("a secret is none for {algorithm:?}")),
        };
        match least_secret_bytes(algorithm) {
            Some(least) if secret.len() < least => Err(format!(
                "{} bytes are too few for {algorithm:?}: use at least {least}, as from `openssl rand -base64 {least}`",
                secret.len()
            )),
            _ => Ok(Self::Secret(Box::new(hmac::Key::new(hmac, secret)))),
        }
    }

    /// An RSA key for RS256, from its numbers, in big-endian bytes. Zeros may stand before them.
    pub(super) fn rsa(modulus: &[u8], exponent: &[u8]) -> Result<Self, String> {
        let (n, e) = (number(modulus), number(exponent));
        let bits = n.first().map_or(0, |first| 8 * n.len() - first.leading_zeros() as usize);
        if !RSA_BITS.contains(&bits) {
            return Err(format!("{bits} bits: an RSA key has {} to {}", RSA_BITS.start(), RSA_BITS.end()));
        }
        let is_odd = |number: &[u8]| number.last().is_some_and(|last| last & 1 == 1);
        if !is_odd(n) {
            return Err("its RSA modulus is even, as that of no key is".into());
        }
        if !is_odd(e) || e == [1] || e.len() > MAX_EXPONENT_BYTES {
            return Err(format!(
                "its RSA exponent is none: an odd number from 3 on, of at most {MAX_EXPONENT_BYTES} bytes"
            ));
        }
        let parsed = RsaPublicKeyComponents { n, e }.to_parsed_public_key(&RSA_PKCS1_2048_8192_SHA256);
        parsed.map(Self::Public).map_err(|_| "its numbers make no RSA key".into())
    }

    /// A key on P-256 for ES256, from its coordinates, in big-endian bytes. Zeros may stand before them, or be left out.
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

    /// A key on P-256 for ES256, as it stands in X.509 (SEC 1 section 2.3.3).
    pub(super) fn point(point: &[u8]) -> Result<Self, String> {
        let parsed = ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point);
        parsed.map(Self::Public).map_err(|_| "its point is none of the curve P-256".into())
    }

    /// An Ed25519 key for EdDSA.
    pub(super) fn ed25519(key: &[u8]) -> Result<Self, String> {
        if key.len() != COORDINATE {
            return Err(format!("an Ed25519 key has {COORDINATE} bytes, not {}", key.len()));
        }
        let parsed = ParsedPublicKey::new(&ED25519, key);
        parsed.map(Self::Public).map_err(|_| "its bytes make no Ed25519 key".into())
    }

    /// Whether this key has signed a message.
    pub(super) fn has_signed(&self, message: &[u8], signature: &[u8]) -> bool {
        match self {
            Self::Secret(key) => hmac::verify(key, message, signature).is_ok(),
            Self::Public(key) => key.verify_sig(message, signature).is_ok(),
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

/// A number without the zeros before it, which X.509 puts there for the sign, and some libraries by mistake.
fn number(bytes: &[u8]) -> &[u8] {
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    &bytes[zeros..]
}
