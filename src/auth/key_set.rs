//! Parses key sets (RFC 7517 section 5). Each key is parsed on its own, in the forms that real issuers and libraries
//! write: an unusable one is skipped, and the log says which and why. Pure except for the log.

use std::fmt;

use base64::Engine;
use base64::alphabet::URL_SAFE;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use jsonwebtoken::Algorithm;
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use tracing::{info, warn};

use super::AuthError;
use super::jws;
use super::keys::Key;
use super::verifier::{Verifier, least_secret_bytes};
use crate::Printable;

/// Maximum number of keys in one set.
const MAX_KEYS: usize = 64;
/// Keys that an error names if none in a set can be used.
const MAX_NAMED: usize = 3;

/// Base64url as in RFC 7515, and as others write it: padded, or with unused bits set in the last digit.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// A parsed key set.
pub(super) struct KeySet {
    pub(super) keys: Vec<Key>,
    pub(super) skipped: Vec<Skipped>,
}

/// A key that was skipped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Skipped {
    /// Its `kid`, or its number in the set.
    which: String,
    why: Why,
}

/// Why a key was skipped.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Why {
    /// It has another purpose: issuers publish all their keys in one set.
    OtherPurpose(String),
    /// It cannot verify anything, or must not.
    Unusable(String),
}

impl fmt::Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Why::OtherPurpose(why) | Why::Unusable(why)) = &self.why;
        write!(f, "{}: {why}", self.which)
    }
}

impl KeySet {
    /// Parses a set. At least one key must be usable, unless the set is empty.
    pub(super) fn read(json: &[u8], origin: &str, issuer: Option<&str>) -> Result<Self, AuthError> {
        let wrong = |message: String| AuthError::Key { origin: origin.to_owned(), message };
        let unreadable = |e: serde_json::Error| wrong(format!("not a JSON Web Key Set: {e}"));
        let members = members(json).map_err(unreadable)?;
        if members.len() > MAX_KEYS {
            return Err(wrong(format!("it has {} keys, but at most {MAX_KEYS} are supported", members.len())));
        }
        let mut set = Self { keys: Vec::new(), skipped: Vec::new() };
        for (at, member) in members.iter().enumerate() {
            let mut which = format!("number {}", at + 1);
            match key(member, &mut which) {
                Ok((id, algorithm, verifier)) => {
                    set.keys.push(Key { id, algorithm, issuer: issuer.map(str::to_owned), verifier });
                }
                Err(why) => set.skipped.push(Skipped { which, why }),
            }
        }
        // An empty set withdraws all keys; a set without a usable key is a mistake.
        if set.keys.is_empty() && !set.skipped.is_empty() {
            let told: Vec<String> = set.skipped.iter().take(MAX_NAMED).map(Skipped::to_string).collect();
            let more = if set.skipped.len() > MAX_NAMED { "; ..." } else { "" };
            return Err(wrong(format!("none of its keys can be used: {}{more}", told.join("; "))));
        }
        Ok(set)
    }

    /// Logs which keys were skipped.
    pub(super) fn log_skipped(skipped: &[Skipped], origin: &str) {
        for key in skipped {
            match &key.why {
                Why::OtherPurpose(_) => info!("Skipped a key of {origin}, {key}"),
                Why::Unusable(_) => warn!("Skipped an unusable key of {origin}, {key}"),
            }
        }
    }
}

/// The keys of a set as raw JSON.
fn members(json: &[u8]) -> Result<Vec<Box<RawValue>>, serde_json::Error> {
    use serde::de::Error;
    let mut set: std::collections::BTreeMap<String, Box<RawValue>> = serde_json::from_slice(json)?;
    let keys = set.remove("keys").ok_or_else(|| serde_json::Error::missing_field("keys"))?;
    serde_json::from_str(keys.get())
}

/// Parses a key into its name, algorithm and verifier. `which` is replaced by its name once that is known.
fn key(member: &RawValue, which: &mut String) -> Result<(Option<String>, Algorithm, Verifier), Why> {
    let unusable = |why: &str| Why::Unusable(why.to_owned());
    let jwk: Map<String, Value> =
        serde_json::from_str(member.get()).map_err(|_| unusable("it is not a JSON object with valid strings"))?;
    let jwk = Jwk(jwk);
    let id = jwk.text("kid")?;
    if let Some(id) = id {
        *which = format!("\"{}\"", Printable::excerpt(id));
    }
    if jwk.text("use")?.is_some_and(|to| to != "sig") {
        return Err(Why::OtherPurpose("it is not for signatures (use)".into()));
    }
    match jwk.0.get("key_ops") {
        None | Some(Value::Null) => {}
        Some(Value::Array(to)) if to.iter().any(|to| to == "verify") => {}
        Some(Value::Array(_)) => return Err(Why::OtherPurpose("it is not for verifying (key_ops)".into())),
        Some(_) => return Err(unusable("its key_ops is not a list")),
    }
    let (algorithm, verifier) = jwk.verifier()?;
    Ok((id.map(str::to_owned), algorithm, verifier))
}

/// A JSON Web Key.
struct Jwk(Map<String, Value>);

impl Jwk {
    /// A string field, if it is present.
    fn text(&self, name: &str) -> Result<Option<&str>, Why> {
        match self.0.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(Why::Unusable(format!("its {name} is not a string"))),
        }
    }

    /// The bytes of a field. Base64 is accepted in place of base64url, because some libraries write it.
    fn bytes(&self, name: &str) -> Result<Vec<u8>, Why> {
        let text = self.text(name)?.ok_or_else(|| Why::Unusable(format!("its {name} is missing")))?;
        let url: String = text
            .chars()
            .map(|c| match c {
                '+' => '-',
                '/' => '_',
                c => c,
            })
            .collect();
        LENIENT.decode(url).map_err(|_| Why::Unusable(format!("its {name} is not base64url")))
    }

    fn verifier(&self) -> Result<(Algorithm, Verifier), Why> {
        let kind = self.text("kty")?.ok_or_else(|| Why::Unusable("its kty is missing".into()))?;
        let named = self.text("alg")?;
        let (algorithm, crv) = match kind {
            "RSA" => (Algorithm::RS256, None),
            "EC" => (Algorithm::ES256, Some("P-256")),
            "OKP" => (Algorithm::EdDSA, Some("Ed25519")),
            // A secret alone does not show its algorithm.
            "oct" => {
                let named = named.and_then(jws::algorithm).filter(|named| least_secret_bytes(*named).is_some());
                let no_alg = || Why::OtherPurpose("a secret must name HS256, HS384 or HS512 (alg)".into());
                let algorithm = named.ok_or_else(no_alg)?;
                let verifier = Verifier::secret(algorithm, &self.bytes("k")?).map_err(Why::Unusable)?;
                return Ok((algorithm, verifier));
            }
            _ => return Err(Why::OtherPurpose("its type is not supported (kty)".into())),
        };
        if named.is_some_and(|named| jws::algorithm(named) != Some(algorithm)) {
            return Err(Why::OtherPurpose(format!(
                "its algorithm is not supported (alg); for this type only {algorithm:?} is"
            )));
        }
        if let Some(curve) = crv
            && self.text("crv")? != Some(curve)
        {
            return Err(Why::OtherPurpose(format!("its curve is not supported (crv); for this type only {curve} is")));
        }
        if self.0.get("d").is_some_and(|private| !private.is_null()) {
            let why = "it contains a private key (d), which only the issuer of tokens may have; publish it without d";
            return Err(Why::Unusable(why.into()));
        }
        let verifier = match algorithm {
            Algorithm::RS256 => Verifier::rsa(&self.bytes("n")?, &self.bytes("e")?),
            Algorithm::ES256 => Verifier::p256(&self.bytes("x")?, &self.bytes("y")?),
            _ => Verifier::ed25519(&self.bytes("x")?),
        };
        verifier.map(|verifier| (algorithm, verifier)).map_err(Why::Unusable)
    }
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::{STANDARD, URL_SAFE, URL_SAFE_NO_PAD};
    use jsonwebtoken::EncodingKey;
    use jsonwebtoken::crypto::sign;
    use jsonwebtoken::jwk::Jwk as Usual;
    use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ED25519, PKCS_RSA_SHA256};
    use serde_json::json;

    use super::*;

    /// A key pair: the signing key, and the public key as in a set.
    fn pair(algorithm: Algorithm) -> (EncodingKey, Value) {
        let (kind, read): (_, fn(&[u8]) -> _) = match algorithm {
            Algorithm::RS256 => (&PKCS_RSA_SHA256, EncodingKey::from_rsa_pem),
            Algorithm::ES256 => (&PKCS_ECDSA_P256_SHA256, EncodingKey::from_ec_pem),
            _ => (&PKCS_ED25519, EncodingKey::from_ed_pem),
        };
        let made = KeyPair::generate_for(kind).expect("a key pair");
        let key = read(made.serialize_pem().as_bytes()).expect("a key");
        let public = match algorithm {
            Algorithm::EdDSA => {
                json!({"kty": "OKP", "crv": "Ed25519", "x": URL_SAFE_NO_PAD.encode(made.public_key_raw())})
            }
            _ => serde_json::to_value(Usual::from_encoding_key(&key, algorithm).expect("a public key")).expect("JSON"),
        };
        (key, public)
    }

    fn read(keys: &Value) -> KeySet {
        KeySet::read(json!({ "keys": keys }).to_string().as_bytes(), "a set", None).expect("a set")
    }

    /// Whether the only key of a set verifies what another key signed.
    fn checks(jwk: &Value, key: &EncodingKey, algorithm: Algorithm) -> bool {
        let set = read(&json!([jwk]));
        assert_eq!((set.keys.len(), set.keys[0].algorithm), (1, algorithm), "{jwk}");
        let signature = sign(b"a message", key, algorithm).expect("a signature");
        let verifier = &set.keys[0].verifier;
        assert!(!verifier.has_signed(b"another", &URL_SAFE_NO_PAD.decode(&signature).expect("base64")));
        verifier.has_signed(b"a message", &URL_SAFE_NO_PAD.decode(signature).expect("base64"))
    }

    fn with(jwk: &Value, name: &str, value: Value) -> Value {
        let mut jwk = jwk.clone();
        jwk[name] = value;
        jwk
    }

    /// A number of a key, in the forms that libraries write.
    fn forms(number: &Value) -> Vec<Value> {
        let bytes = URL_SAFE_NO_PAD.decode(number.as_str().expect("text")).expect("base64");
        let signed = [&[0], &bytes[..]].concat();
        let without_zeros: Vec<u8> = bytes.iter().copied().skip_while(|byte| *byte == 0).collect();
        let written = [
            URL_SAFE_NO_PAD.encode(&bytes),
            URL_SAFE.encode(&bytes),
            STANDARD.encode(&bytes),
            URL_SAFE_NO_PAD.encode(&signed),
            STANDARD.encode(signed),
            URL_SAFE_NO_PAD.encode(without_zeros),
        ];
        written.map(Value::from).into()
    }

    #[test]
    fn keys_are_accepted_in_the_forms_that_libraries_write() {
        let (key, jwk) = pair(Algorithm::RS256);
        for (n, e) in forms(&jwk["n"]).into_iter().zip(forms(&jwk["e"])) {
            assert!(checks(&with(&with(&jwk, "n", n), "e", e), &key, Algorithm::RS256));
        }
        // A key whose first byte is zero: every 256th is.
        let short = |jwk: &Value| jwk["x"].as_str().is_some_and(|x| x.starts_with("AA"));
        let (key, jwk) = (0..100_000).map(|_| pair(Algorithm::ES256)).find(|(_, jwk)| short(jwk)).expect("one");
        for (x, y) in forms(&jwk["x"]).into_iter().zip(forms(&jwk["y"])) {
            assert!(checks(&with(&with(&jwk, "x", x), "y", y), &key, Algorithm::ES256));
        }
        let (key, jwk) = pair(Algorithm::EdDSA);
        for alg in [Value::Null, "EdDSA".into(), "Ed25519".into()] {
            for x in &forms(&jwk["x"])[..3] {
                assert!(checks(&with(&with(&jwk, "x", x.clone()), "alg", alg.clone()), &key, Algorithm::EdDSA));
            }
        }
    }

    #[test]
    fn an_unusable_key_is_skipped_with_the_reason_and_the_others_stay() {
        let ((_, rsa), (_, ec), (_, ed)) = (pair(Algorithm::RS256), pair(Algorithm::ES256), pair(Algorithm::EdDSA));
        let bytes = |bytes: &[u8]| Value::from(URL_SAFE_NO_PAD.encode(bytes));
        let secret = bytes(&[7; 32]);
        for (odd, why) in [
            (with(&rsa, "n", bytes(&[255; 128])), "1024 bits"),
            (with(&rsa, "n", bytes(&[254; 256])), "modulus is even"),
            (with(&rsa, "n", Value::Null), "its n is missing"),
            (with(&rsa, "n", json!(65537)), "its n is not a string"),
            (with(&rsa, "n", json!("\u{fc}")), "its n is not base64url"),
            (with(&rsa, "e", bytes(&[1])), "exponent is invalid"),
            (with(&rsa, "e", bytes(&[])), "exponent is invalid"),
            (with(&rsa, "e", bytes(&[1, 0, 0])), "exponent is invalid"),
            (with(&rsa, "e", bytes(&[1, 0, 0, 0, 1])), "exponent is invalid"),
            (with(&rsa, "alg", json!("RS512")), "its algorithm is not supported"),
            (with(&rsa, "alg", json!("RSA-OAEP")), "its algorithm is not supported"),
            (with(&rsa, "use", json!("enc")), "not for signatures"),
            (with(&rsa, "key_ops", json!(["encrypt"])), "not for verifying"),
            (with(&rsa, "key_ops", json!("verify")), "key_ops is not a list"),
            (with(&rsa, "kid", json!(5)), "its kid is not a string"),
            (with(&rsa, "d", secret.clone()), "private key"),
            (with(&ec, "x", bytes(&[1; 33])), "has 32 bytes, not 33"),
            (with(&ec, "x", bytes(&[1; 32])), "not on the curve P-256"),
            (with(&ec, "crv", json!("P-384")), "its curve is not supported"),
            (with(&ec, "y", Value::Null), "its y is missing"),
            (with(&ed, "x", bytes(&[1; 31])), "has 32 bytes, not 31"),
            (with(&ed, "crv", json!("Ed448")), "its curve is not supported"),
            (json!({"kty": "oct", "k": secret}), "must name HS256"),
            (json!({"kty": "oct", "alg": "HS512", "k": secret}), "32 bytes are too few for HS512"),
            (json!({"kty": "AKP"}), "its type is not supported"),
            (json!({}), "its kty is missing"),
            (json!([]), "not a JSON object"),
            (json!("a key"), "not a JSON object"),
        ] {
            let set = read(&json!([odd, ed]));
            assert_eq!((set.keys.len(), set.skipped.len()), (1, 1), "{odd}");
            let told = set.skipped[0].to_string();
            assert!(told.contains(why) && told.starts_with("number 1: "), "{odd}: {told}");
            let alone = KeySet::read(json!({"keys": [odd]}).to_string().as_bytes(), "a set", None).err();
            let told = alone.expect("none is usable").to_string();
            assert!(told.contains("none of its keys can be used") && told.contains(why), "{told}");
        }
        // One key with half a surrogate pair, and one whose name would act on a terminal.
        let odd = format!(r#"{{"keys": [{{"kty": "RSA", "kid": "\ud83d"}}, {ed}, {{"kid": "\u001b[2J"}}]}}"#);
        let set = KeySet::read(odd.as_bytes(), "a set", None).expect("a set");
        assert_eq!((set.keys.len(), set.skipped.len()), (1, 2));
        assert_eq!(set.skipped[1].to_string(), r#""\u{1b}[2J": its kty is missing"#);
    }

    #[test]
    fn a_malformed_set_is_an_error_and_an_empty_one_is_not() {
        for wrong in ["", "[]", "{}", r#"{"keys": {}}"#, r#"[[]]"#, r#"{"keys": [}"#, r#"{"keys": 5}"#] {
            let error = KeySet::read(wrong.as_bytes(), "a set", None).err().expect("no set").to_string();
            assert!(error.starts_with("a set: not a JSON Web Key Set"), "{wrong}: {error}");
        }
        assert!(KeySet::read(br#"{"keys": []}"#, "a set", None).expect("a set").keys.is_empty());
    }
}
