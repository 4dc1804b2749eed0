//! Settings of authentication and permissions. Knows no keys and checks no token: `auth` does both with these.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Deserializer};
use subtle::ConstantTimeEq;

use super::grant::MAX_SUBSCRIPTIONS;
use super::{ConfigError, Grant};

/// Claims with a meaning here or in RFC 7519, apart from the name claim.
const RESERVED_CLAIMS: [&str; 18] = [
    "sub",
    "exp",
    "nbf",
    "iat",
    "iss",
    "aud",
    "jti",
    "publish",
    "subscribe",
    "presence",
    "history",
    "subscriptions",
    "info",
    "direct",
    "signal",
    "list_clients",
    "broadcast",
    "max_rate",
];

/// Maximum number of keys tried for one token, because checking a signature takes time.
pub(crate) const MAX_TRIED: usize = 8;

/// Authentication by tokens (JSON Web Tokens, RFC 7519) and client certificates. Without any key and without
/// `tls.client_ca`, every client is accepted and may do everything.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Auth {
    /// Accepted issuers: a token's `iss` must be one of these. Default: not checked.
    pub issuers: Vec<String>,
    /// Accepted audiences: a token's `aud` must contain one of these. Default: not checked.
    pub audiences: Vec<String>,
    /// Tolerated clock difference to the token's issuer, in milliseconds, for `exp` and `nbf`; rounded up to seconds.
    /// Default 30,000; at most an hour.
    pub leeway_ms: u64,
    /// Time before a client's token expires at which it is warned, in milliseconds. Default 60,000; at most a day.
    pub warn_ms: u64,
    /// Whether a token without `exp` is refused. Default true.
    pub require_expiry: bool,
    /// Whether a token is valid for only one handshake or `refresh`; it then needs `jti` and `exp`, and a client needs
    /// a new token for each reconnect. Default false.
    pub single_use: bool,
    /// Used tokens remembered until they expire, with `single_use`; when the table is full, no client is accepted until
    /// some have expired. Default 100,000; 1 to 100,000,000.
    pub max_used_tokens: u64,
    /// File in which revocations are kept; it is created when needed, and its folder must exist. Default: none, and
    /// revocations last until the server stops (in the configuration file: an empty string).
    #[serde(deserialize_with = "super::path_or_none")]
    pub revocations_file: Option<PathBuf>,
    /// Revoked tokens and users; when there are as many, no more can be revoked until some are over. Default 100,000;
    /// 1 to 100,000,000.
    pub max_revocations: u64,
    /// Claim with the name shown to others; while its bearer is connected, others cannot choose that name. Empty:
    /// tokens contain no names. Default `name`.
    pub name_claim: String,
    /// Whether a name from a token is reserved for one user: while that user is connected, another user whose token
    /// contains the same name is refused. For issuers that give each name to one user only. Default false.
    pub exclusive_names: bool,
    /// Whether a client may choose a name if its token or certificate contains none. Default true.
    pub own_names: bool,
    /// Keys that sign tokens; at most 64. A token is tried with at most 8 of them: if more fit its algorithm, the token
    /// must name one (`kid`), and the keys need names. Default: none.
    pub keys: Vec<AuthKey>,
    /// A key set maintained by somebody else.
    pub jwks: Jwks,
    /// Permissions of a token for which it has no claims. Default: nothing.
    pub token: Grant,
    /// Permissions of a client certificate. Default: nothing.
    pub certificate: Grant,
    /// Permissions of clients with neither. Default: such clients are refused.
    pub anonymous: Option<Grant>,
}

/// One key that signs tokens, and the only algorithm it may be used with.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuthKey {
    /// Its name: if keys have names, a token that names one (`kid`) is checked with that one only. Default: none; the
    /// key is tried for every token.
    #[serde(default)]
    pub id: Option<String>,
    /// Its signature algorithm.
    pub algorithm: TokenAlgorithm,
    /// Its owner: a token that it signed must have this `iss`. Default: any accepted issuer.
    #[serde(default)]
    pub issuer: Option<String>,
    /// For HS256, HS384 and HS512: the secret, of at least 32, 48 or 64 bytes (RFC 7518 section 3.2).
    #[serde(default)]
    pub secret: Option<Secret>,
    /// File with the secret; surrounding white space is ignored.
    #[serde(default)]
    pub secret_file: Option<PathBuf>,
    /// For RS256, ES256 and EdDSA: PEM file with the public key.
    #[serde(default)]
    pub public_key: Option<PathBuf>,
}

impl AuthKey {
    /// A key whose secret is in a file.
    pub fn secret_in(file: PathBuf, algorithm: TokenAlgorithm, id: Option<String>) -> Self {
        Self { id, algorithm, issuer: None, secret: None, secret_file: Some(file), public_key: None }
    }
}

/// A set of keys (JSON Web Key Set, RFC 7517 section 5).
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Jwks {
    /// File with the set, read again when it changes. Default: none (in the configuration file: an empty string).
    #[serde(deserialize_with = "super::path_or_none")]
    pub file: Option<PathBuf>,
    /// Address from which the set is fetched: https, or http on this machine. Default: none (in the configuration file:
    /// an empty string).
    #[serde(deserialize_with = "text_or_none")]
    pub url: Option<String>,
    /// Owner of these keys: a token that one of them signed must have this `iss`. Default: any accepted issuer (in the
    /// configuration file: an empty string).
    #[serde(deserialize_with = "text_or_none")]
    pub issuer: Option<String>,
    /// Time between two fetches of `url`, in milliseconds. Until a fetch succeeds, the last set stays in use. Default
    /// 300,000; 1 second to 30 days.
    pub refresh_ms: u64,
    /// Minimum time between two fetches that tokens with unknown keys trigger, in milliseconds. Default 10,000; 10 to
    /// 3,600,000.
    pub cooldown_ms: u64,
    /// Time limit of one fetch, in milliseconds. Default 5,000; 10 to 60,000.
    pub timeout_ms: u64,
    /// Largest set in bytes. Default 256 KiB; 1 KiB to 16 MiB.
    pub max_bytes: u64,
}

/// Signature algorithms (RFC 7518 section 3.1, RFC 8037 section 3.1). There is no `none`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, clap::ValueEnum)]
pub enum TokenAlgorithm {
    /// HMAC with SHA-256.
    #[value(name = "HS256")]
    HS256,
    /// HMAC with SHA-384.
    #[value(name = "HS384")]
    HS384,
    /// HMAC with SHA-512.
    #[value(name = "HS512")]
    HS512,
    /// RSASSA-PKCS1-v1_5 with SHA-256; 2,048 to 8,192 bits.
    #[value(name = "RS256")]
    RS256,
    /// ECDSA on P-256 with SHA-256.
    #[value(name = "ES256")]
    ES256,
    /// Ed25519, under either of its names (RFC 8037, RFC 9864).
    #[value(name = "EdDSA", alias = "Ed25519")]
    #[serde(alias = "Ed25519")]
    EdDSA,
}

fn text_or_none<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    Ok(Some(String::deserialize(deserializer)?).filter(|text| !text.is_empty()))
}

/// A secret string, which `Debug` does not show.
#[derive(Clone, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// The secret in plain text.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether `text` is the secret, compared in constant time.
    pub(crate) fn is(&self, text: &str) -> bool {
        self.0.as_bytes().ct_eq(text.as_bytes()).into()
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl Default for Auth {
    fn default() -> Self {
        Self {
            issuers: Vec::new(),
            audiences: Vec::new(),
            leeway_ms: 30_000,
            warn_ms: 60_000,
            require_expiry: true,
            single_use: false,
            max_used_tokens: 100_000,
            revocations_file: None,
            max_revocations: 100_000,
            name_claim: "name".into(),
            exclusive_names: false,
            own_names: true,
            keys: Vec::new(),
            jwks: Jwks::default(),
            token: Grant::default(),
            certificate: Grant::default(),
            anonymous: None,
        }
    }
}

impl Default for Jwks {
    fn default() -> Self {
        Self {
            file: None,
            url: None,
            issuer: None,
            refresh_ms: 300_000,
            cooldown_ms: 10_000,
            timeout_ms: 5000,
            max_bytes: 256 * 1024,
        }
    }
}

impl Auth {
    /// Checks that some token can be accepted with these settings, and one from each key.
    pub(super) fn validate(&self, has_client_ca: bool) -> Result<(), ConfigError> {
        let defaults = Self::default();
        let accepts_tokens = self.accepts_tokens();
        let keys = "keys in auth.keys or auth.jwks";
        for (setting, is_set) in [
            ("auth.issuers", !self.issuers.is_empty()),
            ("auth.audiences", !self.audiences.is_empty()),
            ("auth.single_use", self.single_use),
            ("auth.revocations_file", self.revocations_file.is_some()),
            ("auth.exclusive_names", self.exclusive_names),
            ("auth.token", self.token != defaults.token),
        ] {
            if is_set && !accepts_tokens {
                return Err(ConfigError::Needs { setting, other: keys });
            }
        }
        if self.certificate != defaults.certificate && !has_client_ca {
            return Err(ConfigError::Needs { setting: "auth.certificate", other: "tls.client_ca" });
        }
        if !(self.own_names || accepts_tokens || has_client_ca || self.anonymous.is_some()) {
            let other = "keys in auth.keys or auth.jwks, tls.client_ca, or auth.anonymous";
            return Err(ConfigError::Needs { setting: "auth.own_names", other });
        }
        if self.jwks.issuer.is_some() && self.jwks.file.is_none() && self.jwks.url.is_none() {
            return Err(ConfigError::Needs { setting: "auth.jwks.issuer", other: "auth.jwks.file or auth.jwks.url" });
        }
        let anonymous = self.anonymous.as_ref();
        let grants = [("auth.token", Some(&self.token)), ("auth.certificate", Some(&self.certificate))];
        for (setting, grant) in grants.into_iter().chain([("auth.anonymous", anonymous)]) {
            let subscriptions = grant.and_then(|grant| grant.subscriptions.as_ref());
            if subscriptions.is_some_and(|patterns| patterns.len() > MAX_SUBSCRIPTIONS) {
                let why = format!("use at most {MAX_SUBSCRIPTIONS} topics or patterns");
                return Err(ConfigError::Auth { setting: format!("{setting}.subscriptions"), why });
            }
        }
        self.validate_texts()?;
        self.validate_keys()
    }

    fn validate_texts(&self) -> Result<(), ConfigError> {
        let wrong = |setting: &str, why: &str| ConfigError::Auth { setting: setting.to_owned(), why: why.to_owned() };
        for (setting, texts) in [("auth.issuers", &self.issuers), ("auth.audiences", &self.audiences)] {
            if texts.iter().any(|text| text.trim().is_empty()) {
                return Err(wrong(setting, "it contains an empty string, which no token has; remove it"));
            }
        }
        let has_other_meaning = RESERVED_CLAIMS.iter().any(|claim| *claim == self.name_claim && *claim != "sub");
        if has_other_meaning {
            let why = "this claim has another meaning; use one such as \"name\" or \"sub\"";
            return Err(wrong("auth.name_claim", why));
        }
        Ok(())
    }

    fn validate_keys(&self) -> Result<(), ConfigError> {
        let wrong = |setting: String, why: String| Err(ConfigError::Auth { setting, why });
        let is_foreign = |issuer: &Option<String>| {
            issuer.as_ref().is_some_and(|own| !self.issuers.is_empty() && !self.issuers.contains(own))
        };
        let foreign = "it is not in auth.issuers, so no token signed by this key is accepted; add it there";
        if is_foreign(&self.jwks.issuer) {
            return wrong("auth.jwks.issuer".into(), foreign.into());
        }
        for (at, key) in self.keys.iter().enumerate() {
            let setting = |field: &str| format!("auth.keys, number {}: {field}", at + 1);
            for (field, text) in [("id", &key.id), ("issuer", &key.issuer)] {
                if text.as_ref().is_some_and(|text| text.trim().is_empty()) {
                    return wrong(setting(field), "it is empty; set it, or leave it out".into());
                }
            }
            if is_foreign(&key.issuer) {
                return wrong(setting("issuer"), foreign.into());
            }
            let nameless = self.keys.iter().filter(|other| other.id.is_none() && other.algorithm == key.algorithm);
            // A key without a name is tried for every token, whatever key the token names.
            if nameless.count() > MAX_TRIED {
                let why = format!(
                    "more than {MAX_TRIED} keys for {:?} have none, but a token is tried with at most so many; add ids",
                    key.algorithm
                );
                return wrong("auth.keys: id".into(), why);
            }
        }
        Ok(())
    }

    /// Files that contain keys.
    pub(crate) fn files(&self) -> impl Iterator<Item = &PathBuf> {
        let of_keys = self.keys.iter().flat_map(|key| [&key.secret_file, &key.public_key]);
        of_keys.flatten().chain(&self.jwks.file)
    }

    /// Whether there is any key to check tokens with.
    pub fn accepts_tokens(&self) -> bool {
        !self.keys.is_empty() || self.jwks.file.is_some() || self.jwks.url.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "[[keys]]\nalgorithm = 'HS256'\nsecret = 'a secret of more than 32 bytes, for tests'\n";

    fn refused(toml: &str) -> String {
        let auth: Auth = toml::from_str(toml).expect("the table auth");
        auth.validate(false).expect_err(toml).to_string()
    }

    #[test]
    fn settings_that_no_token_could_satisfy_are_refused() {
        let with_key = |more: &str| format!("{more}\n{KEY}");
        for (toml, says) in [
            (with_key("issuers = ['']"), "auth.issuers: it contains an empty string"),
            (with_key("audiences = ['qws', ' ']"), "auth.audiences: it contains an empty string"),
            (with_key("name_claim = 'exp'"), "auth.name_claim: this claim has another meaning"),
            (with_key("name_claim = 'publish'"), "auth.name_claim: this claim has another meaning"),
            (format!("{KEY}id = ''"), "auth.keys, number 1: id: it is empty"),
            (format!("{KEY}{KEY}issuer = ' '"), "auth.keys, number 2: issuer: it is empty"),
            (format!("issuers = ['a']\n{KEY}issuer = 'b'"), "number 1: issuer: it is not in auth.issuers"),
            (with_key("issuers = ['a']\njwks = { file = 'x', issuer = 'b' }"), "auth.jwks.issuer: it is not in"),
            (KEY.repeat(9), "more than 8 keys for HS256"),
            ("issuers = ['a']".into(), "auth.issuers needs keys"),
            ("audiences = ['a']\n[anonymous]".into(), "auth.audiences needs keys"),
            ("single_use = true\n[anonymous]".into(), "auth.single_use needs keys"),
            ("exclusive_names = true\n[anonymous]".into(), "auth.exclusive_names needs keys"),
            ("[anonymous]\n[token]\ndirect = true".into(), "auth.token needs keys"),
            (with_key("certificate = { direct = true }"), "auth.certificate needs tls.client_ca"),
            ("own_names = false".into(), "auth.own_names needs"),
            (with_key("jwks = { issuer = 'a' }"), "auth.jwks.issuer needs auth.jwks.file or auth.jwks.url"),
        ] {
            let error = refused(&toml);
            assert!(error.contains(says), "{toml}: {error}");
        }
        for good in [
            String::new(),
            with_key("issuers = ['a', 'b']\nname_claim = 'sub'"),
            with_key("name_claim = ''\nown_names = false"),
            format!("issuers = ['a']\n{KEY}issuer = 'a'\nid = 'k'"),
            "jwks = { url = 'https://id.example/keys', issuer = 'a' }\nissuers = ['a']".into(),
            "[anonymous]\ndirect = true".into(),
            KEY.repeat(8) + "[[keys]]\nid = 'k'\nalgorithm = 'HS256'\nsecret = 'x'",
        ] {
            let auth: Auth = toml::from_str(&good).expect("the table auth");
            auth.validate(false).unwrap_or_else(|e| panic!("{good}: {e}"));
        }
        let certificate: Auth = toml::from_str("certificate = { direct = true }").expect("the table auth");
        certificate.validate(true).expect("there is an authority");
    }
}
