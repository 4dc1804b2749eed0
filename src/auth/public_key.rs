//! Parses a public key in PEM and checks it against its algorithm: an unusable key is an error when it is read, not
//! when clients are refused later. Pure.

use jsonwebtoken::Algorithm;
use x509_parser::certificate::X509Certificate;
use x509_parser::oid_registry::{OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_SIG_ED25519};
use x509_parser::prelude::FromDer;
use x509_parser::public_key::{PublicKey, RSAPublicKey};
use x509_parser::x509::SubjectPublicKeyInfo;

use super::verifier::Verifier;
use crate::tls::pem_parts;

/// Parses the key in `pem` for one algorithm, or returns the problem.
pub(super) fn decode(pem: &[u8], algorithm: Algorithm) -> Result<Verifier, String> {
    let block = pem_parts(pem).map_err(|e| e.to_string())?.into_iter().next();
    let block = block.ok_or("expected a PUBLIC KEY block")?;
    let unreadable = || format!("its {} block is damaged", block.label);
    match block.label.as_str() {
        "PUBLIC KEY" => {
            let (_, key) = SubjectPublicKeyInfo::from_der(&block.content).map_err(|_| unreadable())?;
            verifier(&key, algorithm)
        }
        "CERTIFICATE" => {
            let (_, certificate) = X509Certificate::from_der(&block.content).map_err(|_| unreadable())?;
            verifier(certificate.public_key(), algorithm)
        }
        "RSA PUBLIC KEY" if algorithm == Algorithm::RS256 => {
            let (_, key) = RSAPublicKey::from_der(&block.content).map_err(|_| unreadable())?;
            Verifier::rsa(key.modulus, key.exponent)
        }
        private if private.contains("PRIVATE") => Err("it contains a private key, which only the \
             issuer of tokens may have; extract the public one with `openssl pkey -in KEY -pubout`"
            .into()),
        _ => Err("expected a PUBLIC KEY block".into()),
    }
}

fn verifier(key: &SubjectPublicKeyInfo<'_>, algorithm: Algorithm) -> Result<Verifier, String> {
    let kind = &key.algorithm.algorithm;
    let bytes = &*key.subject_public_key.data;
    match algorithm {
        Algorithm::RS256 => match key.parsed() {
            Ok(PublicKey::RSA(key)) => Verifier::rsa(key.modulus, key.exponent),
            _ => Err("expected an RSA key".into()),
        },
        Algorithm::ES256 => {
            let curve = key.algorithm.parameters.as_ref().and_then(|curve| curve.as_oid().ok());
            let fits = *kind == OID_KEY_TYPE_EC_PUBLIC_KEY && curve.is_some_and(|curve| curve == OID_EC_P256);
            if fits { Verifier::point(bytes) } else { Err("expected a key on the curve P-256".into()) }
        }
        _ if *kind == OID_SIG_ED25519 => Verifier::ed25519(bytes),
        _ => Err("expected an Ed25519 key".into()),
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519};

    use super::*;

    const RSA_1024: &str = "-----BEGIN PUBLIC KEY-----
MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDcGYw9Chvmc3eSgj4PxGI333ez
ULnsiA1/tp5WRYz4CTnslyUVA294uu/+VJn7XLQSu8QUQW6Zfz+NuhciSxlt6rHr
u+TY8EUPjPg6FnT2olbYvA96MPjaxu62hvcHpwwFn8UodJ/jmT7gIaogC5pFXP1S
7OONpts7mQvp+h7X9QIDAQAB
-----END PUBLIC KEY-----
";
    const RSA_2048: &str = "-----BEGIN PUBLIC KEY-----
MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAnofCfTqWZnyhnA9LmkLD
y5AsbLjboDweZ0pYlQAcGEYXIlyeu9hbuB/0lHQu9NH4T11UK/o1e1CV/vn8iDie
OXnqOafBVW3H8bNOYnM1HW9bBIjbSokbiw2YjBhjnkX9Tl7yGgJ5ClTCapLYr/rQ
7qNmkcj//M2paAZE2fppalOxBZK24VuLHpLENmyK3yBAwO0H6/oswU+k6/aTOrqE
qhg9Kuj2v5wbrlvlQhStYd5BKDftyDIuqiMVT3SLwg8bUGUuz75pYfGnoT0I2orS
G9UujyGDqTj84LC9/XZ7PvRYd3Trdn1zOrdlIcH+XXjwJ9yv9bfrPSoHwjedrWeL
wwIDAQAB
-----END PUBLIC KEY-----
";
    const RSA_2048_PKCS1: &str = "-----BEGIN RSA PUBLIC KEY-----
MIIBCgKCAQEAnofCfTqWZnyhnA9LmkLDy5AsbLjboDweZ0pYlQAcGEYXIlyeu9hb
uB/0lHQu9NH4T11UK/o1e1CV/vn8iDieOXnqOafBVW3H8bNOYnM1HW9bBIjbSokb
iw2YjBhjnkX9Tl7yGgJ5ClTCapLYr/rQ7qNmkcj//M2paAZE2fppalOxBZK24VuL
HpLENmyK3yBAwO0H6/oswU+k6/aTOrqEqhg9Kuj2v5wbrlvlQhStYd5BKDftyDIu
qiMVT3SLwg8bUGUuz75pYfGnoT0I2orSG9UujyGDqTj84LC9/XZ7PvRYd3Trdn1z
OrdlIcH+XXjwJ9yv9bfrPSoHwjedrWeLwwIDAQAB
-----END RSA PUBLIC KEY-----
";

    #[test]
    fn a_key_is_accepted_only_for_its_own_algorithm() {
        let key = |algorithm| KeyPair::generate_for(algorithm).expect("a key");
        let (p256, p384, ed) = (key(&PKCS_ECDSA_P256_SHA256), key(&PKCS_ECDSA_P384_SHA384), key(&PKCS_ED25519));
        let certificate = CertificateParams::new(Vec::new()).and_then(|params| params.self_signed(&p256)).expect("one");
        let (private, secret) = (p256.serialize_pem(), "a secret of more than 32 bytes, for tests alone");
        for (pem, good_for) in [
            (RSA_2048, Some(Algorithm::RS256)),
            (RSA_2048_PKCS1, Some(Algorithm::RS256)),
            (&p256.public_key_pem(), Some(Algorithm::ES256)),
            (&certificate.pem(), Some(Algorithm::ES256)),
            (&ed.public_key_pem(), Some(Algorithm::EdDSA)),
            (RSA_1024, None),
            (&p384.public_key_pem(), None),
            (&private, None),
            (secret, None),
            ("", None),
        ] {
            for algorithm in [Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA] {
                let decoded = decode(pem.as_bytes(), algorithm).err();
                assert_eq!(decoded.is_none(), good_for == Some(algorithm), "{algorithm:?}, {pem}: {decoded:?}");
            }
        }
        let why = decode(private.as_bytes(), Algorithm::ES256).expect_err("a private key");
        assert!(why.contains("private") && !why.contains(&private[40..60]), "{why}");
        assert!(decode(RSA_1024.as_bytes(), Algorithm::RS256).err().is_some_and(|why| why.starts_with("1024 bits")));
    }
}
