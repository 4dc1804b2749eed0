//! Who is let in, and what each may do.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, de};
use subtle::ConstantTimeEq;

use super::ConfigError;
use crate::message::TopicPattern;
use crate::pattern_index::{PatternIndex, Sought};

/// The claims that mean something here or in RFC 7519, beside that for the name.
const CLAIMS: [&str; 16] = [
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
    "direct",
    "signal",
    "list_clients",
    "broadcast",
    "max_rate",
];

/// Most keys with which one token is tried: checking a signature takes its time.
pub(crate) const MAX_TRIED: usize = 8;
/// Who is let in, by tokens (JSON Web Tokens, RFC 7519) and client certificates. Without any key, and without
/// `tls.client_ca`, everybody is and may do everything.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Auth {
    /// A token's `iss` has to be one of these. Default: none are asked for.
    pub issuers: Vec<String>,
    /// A token's `aud` has to name one of these. Default: none are asked for.
    pub audiences: Vec<String>,
    /// How far the clock of who issues tokens may be off, in milliseconds, for `exp` and `nbf`. Rounded up to seconds.
    /// Default 30,000; at most an hour.
    pub leeway_ms: u64,
    /// A client is warned so long before its token expires. Default 60,000.
    pub warn_ms: u64,
    /// Whether a token without `exp` is refused. Default true.
    pub require_expiry: bool,
    /// Whether a token is good for one handshake or `refresh` alone; it needs a `jti` and an `exp` then. A client that
    /// comes back has to get another one. Default false.
    pub single_use: bool,
    /// Used tokens that are remembered until they expire, with `single_use`; where there are more, nobody is let in until
    /// some have. Default 100,000.
    pub max_used_tokens: u64,
    /// The claim that holds the name which others see; while its bearer is there, others cannot choose that name. Empty:
    /// tokens hold no names. Default `name`.
    pub name_claim: String,
    /// Whether a name from a token is one user's alone, so that a second user whose token gives the same name is refused
    /// while the first is there: for issuers that give each name to one user only. Default false.
    pub exclusive_names: bool,
    /// Whether a client whose token, or certificate, gives it no name may choose one. Default true.
    pub own_names: bool,
    /// The keys with which tokens may be signed. Default: none. At most 64. A token is tried with 8 of them at most: where
    /// more are for its algorithm, it has to name one (`kid`), and keys have to have names.
    pub keys: Vec<AuthKey>,
    /// A set of keys that somebody else keeps.
    pub jwks: Jwks,
    /// What a token grants where it does not say. Default: nothing.
    pub token: Grant,
    /// What a client certificate grants. Default: nothing.
    pub certificate: Grant,
    /// What who has neither may do. Default: such clients are not let in.
    pub anonymous: Option<Grant>,
}

/// One key with which tokens may be signed, and the one algorithm that it is for.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuthKey {
    /// Its name: of the keys that have one, a token which names its key (`kid`) is checked with that one alone. Default:
    /// none, and checked with every token.
    #[serde(default)]
    pub id: Option<String>,
    /// What it signs with.
    pub algorithm: TokenAlgorithm,
    /// Whose it is: a token that it signed has this `iss`. Default: any that is taken at all.
    #[serde(default)]
    pub issuer: Option<String>,
    /// For HS256, HS384 and HS512: the secret, of at least 32, 48 or 64 bytes (RFC 7518 section 3.2).
    #[serde(default)]
    pub secret: Option<Secret>,
    /// The same in a file; white space around it does not count.
    #[serde(default)]
    pub secret_file: Option<PathBuf>,
    /// For RS256, ES256 and EdDSA: a PEM file with the public key.
    #[serde(default)]
    pub public_key: Option<PathBuf>,
}

impl AuthKey {
    /// A secret in a file.
    pub fn secret_in(file: PathBuf, algorithm: TokenAlgorithm, id: Option<String>) -> Self {
        Self { id, algorithm, issuer: None, secret: None, secret_file: Some(file), public_key: None }
    }
}

/// A set of keys (JSON Web Key Set, RFC 7517 section 5).
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Jwks {
    /// Where it lies. Default: nowhere (in the file: an empty text). Read anew when it changes.
    #[serde(deserialize_with = "super::path_or_none")]
    pub file: Option<PathBuf>,
    /// Where it is to be fetched: https, or http on this machine. Default: nowhere (in the file: an empty text).
    #[serde(deserialize_with = "text_or_none")]
    pub url: Option<String>,
    /// Whose keys these are: a token that one of them signed has this `iss`. Default: any that is taken at all (in the file:
    /// an empty text).
    #[serde(deserialize_with = "text_or_none")]
    pub issuer: Option<String>,
    /// And how often, in milliseconds. What was fetched last holds until it is fetched again. Default 300,000.
    pub refresh_ms: u64,
    /// Where a token names an unknown key the set is fetched at once, but not sooner than this after the last time.
    /// Default 10,000.
    pub cooldown_ms: u64,
    /// How long fetching may take. Default 5,000.
    pub timeout_ms: u64,
    /// Largest set in bytes. Default 256 KiB.
    pub max_bytes: u64,
}

/// How a token is signed (RFC 7518 section 3.1, RFC 8037 section 3.1). There is no `none`.
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

/// What somebody may do: in the configuration, and as claims of a token. What is left out is taken from elsewhere, or not
/// granted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Grant {
    /// Topics to which to publish.
    pub publish: Option<Patterns>,
    /// Topics and patterns to which to subscribe.
    pub subscribe: Option<Patterns>,
    /// Topics of which to ask, and be told, who is there. Where it is left out: those of `subscribe`.
    pub presence: Option<Patterns>,
    /// Topics of which to read what was: `history`, `since` and `recent`. Where it is left out: those of `subscribe`.
    pub history: Option<Patterns>,
    /// Whether to send to single clients.
    pub direct: Option<bool>,
    /// Whether to negotiate WebRTC with single clients. Where it is left out: as `direct`.
    pub signal: Option<bool>,
    /// Whether to list who is connected. Where it is left out: as `direct`.
    pub list_clients: Option<bool>,
    /// Whether to send to all clients.
    pub broadcast: Option<bool>,
}

/// Topics and patterns: at most 256. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Patterns {
    texts: Arc<[TopicPattern]>,
    /// Where there are more than [`FEW`](Self::FEW).
    index: Option<Arc<PatternIndex<()>>>,
}

impl PartialEq for Patterns {
    fn eq(&self, other: &Self) -> bool {
        self.texts == other.texts
    }
}

impl Eq for Patterns {}

impl Patterns {
    /// Most that stand in one list.
    pub const MAX: usize = 256;

    /// So many are compared one by one.
    const FEW: usize = 8;

    fn new(texts: Vec<TopicPattern>) -> Self {
        let index = (texts.len() > Self::FEW).then(|| {
            let mut index = PatternIndex::default();
            texts.iter().for_each(|text| index.add(text, ()));
            Arc::new(index)
        });
        Self { texts: texts.into(), index }
    }

    /// Everything.
    pub fn everything() -> Self {
        Self::new(vec![TopicPattern::everything()])
    }

    /// Whether one of them matches all that a topic, or a pattern, names.
    pub fn cover(&self, wanted: &TopicPattern) -> bool {
        self.cover_text(wanted.as_str())
    }

    /// Whether one of them matches a topic.
    pub fn match_topic(&self, topic: &str) -> bool {
        self.cover_text(topic)
    }

    fn cover_text(&self, text: &str) -> bool {
        match &self.index {
            Some(index) => index.covers(&Sought::new(text)),
            None => self.texts.iter().any(|pattern| pattern.covers_text(text)),
        }
    }

    /// Them.
    pub fn as_slice(&self) -> &[TopicPattern] {
        &self.texts
    }
}

impl<'de> Deserialize<'de> for Patterns {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        /// A list of one may be written without its brackets.
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Texts {
            One(String),
            Many(Vec<String>),
        }
        let texts = match Texts::deserialize(deserializer) {
            Ok(Texts::One(text)) => vec![text],
            Ok(Texts::Many(texts)) if texts.len() <= Self::MAX => texts,
            Ok(Texts::Many(_)) => return Err(de::Error::custom(format!("at most {} patterns are allowed", Self::MAX))),
            Err(_) => return Err(de::Error::custom("a list of topics or patterns is expected")),
        };
        texts
            .iter()
            .map(|text| TopicPattern::new(text).map_err(de::Error::custom))
            .collect::<Result<_, _>>()
            .map(Self::new)
    }
}

fn text_or_none<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    Ok(Some(String::deserialize(deserializer)?).filter(|text| !text.is_empty()))
}

/// Text that is nobody else's business: it is not shown where settings are.
#[derive(Clone, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// The text.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether it is this text. The time that takes tells nothing of where they differ.
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
    /// Checks that what is set can work: that there can be a token, and one by each key, that is taken.
    pub(super) fn validate(&self, has_client_ca: bool) -> Result<(), ConfigError> {
        let usual = Self::default();
        let takes_tokens = self.takes_tokens();
        let keys = "keys in auth.keys or auth.jwks";
        for (setting, is_set) in [
            ("auth.issuers", !self.issuers.is_empty()),
            ("auth.audiences", !self.audiences.is_empty()),
            ("auth.single_use", self.single_use),
            ("auth.exclusive_names", self.exclusive_names),
            ("auth.token", self.token != usual.token),
        ] {
            if is_set && !takes_tokens {
                return Err(ConfigError::Needs { setting, other: keys });
            }
        }
        if self.certificate != usual.certificate && !has_client_ca {
            return Err(ConfigError::Needs { setting: "auth.certificate", other: "tls.client_ca" });
        }
        if !(self.own_names || takes_tokens || has_client_ca || self.anonymous.is_some()) {
            let other = "keys in auth.keys or auth.jwks, tls.client_ca, or auth.anonymous";
            return Err(ConfigError::Needs { setting: "auth.own_names", other });
        }
        if self.jwks.issuer.is_some() && self.jwks.file.is_none() && self.jwks.url.is_none() {
            return Err(ConfigError::Needs { setting: "auth.jwks.issuer", other: "auth.jwks.file or auth.jwks.url" });
        }
        self.validate_texts()?;
        self.validate_keys()
    }

    fn validate_texts(&self) -> Result<(), ConfigError> {
        let wrong = |setting: &str, why: &str| ConfigError::Auth { setting: setting.to_owned(), why: why.to_owned() };
        for (setting, texts) in [("auth.issuers", &self.issuers), ("auth.audiences", &self.audiences)] {
            if texts.iter().any(|text| text.trim().is_empty()) {
                return Err(wrong(setting, "an empty text is in it, which no token has; take it out"));
            }
        }
        let has_other_meaning = CLAIMS.iter().any(|claim| *claim == self.name_claim && *claim != "sub");
        if has_other_meaning {
            let why = "this claim has another meaning, and is no name; use one like \"name\", or \"sub\"";
            return Err(wrong("auth.name_claim", why));
        }
        Ok(())
    }

    fn validate_keys(&self) -> Result<(), ConfigError> {
        let wrong = |setting: String, why: String| Err(ConfigError::Auth { setting, why });
        let is_foreign = |issuer: &Option<String>| {
            issuer.as_ref().is_some_and(|own| !self.issuers.is_empty() && !self.issuers.contains(own))
        };
        let foreign = "it is not among auth.issuers, so no token by such a key is taken; add it there";
        if is_foreign(&self.jwks.issuer) {
            return wrong("auth.jwks.issuer".into(), foreign.into());
        }
        for (at, key) in self.keys.iter().enumerate() {
            let setting = |field: &str| format!("auth.keys, number {}: {field}", at + 1);
            for (field, text) in [("id", &key.id), ("issuer", &key.issuer)] {
                if text.as_ref().is_some_and(|text| text.trim().is_empty()) {
                    return wrong(setting(field), "it is empty, as that of no token is; leave it out".into());
                }
            }
            if is_foreign(&key.issuer) {
                return wrong(setting("issuer"), foreign.into());
            }
            let nameless = self.keys.iter().filter(|other| other.id.is_none() && other.algorithm == key.algorithm);
            // With these every token is tried, whatever key it names.
            if nameless.count() > MAX_TRIED {
                let why = format!(
                    "more than {MAX_TRIED} keys for {:?} have none, and no token is tried with so many; give them ids",
                    key.algorithm
                );
                return wrong("auth.keys: id".into(), why);
            }
        }
        Ok(())
    }

    /// The files from which keys are read.
    pub(crate) fn files(&self) -> impl Iterator<Item = &PathBuf> {
        let of_keys = self.keys.iter().flat_map(|key| [&key.secret_file, &key.public_key]);
        of_keys.flatten().chain(&self.jwks.file)
    }

    /// Whether tokens can be checked at all.
    pub fn takes_tokens(&self) -> bool {
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
    fn what_no_token_could_pass_is_no_setting() {
        let with_key = |more: &str| format!("{more}\n{KEY}");
        for (toml, says) in [
            (with_key("issuers = ['']"), "auth.issuers: an empty text"),
            (with_key("audiences = ['qws', ' ']"), "auth.audiences: an empty text"),
            (with_key("name_claim = 'exp'"), "auth.name_claim: this claim has another meaning"),
            (with_key("name_claim = 'publish'"), "auth.name_claim: this claim has another meaning"),
            (format!("{KEY}id = ''"), "auth.keys, number 1: id: it is empty"),
            (format!("{KEY}{KEY}issuer = ' '"), "auth.keys, number 2: issuer: it is empty"),
            (format!("issuers = ['a']\n{KEY}issuer = 'b'"), "number 1: issuer: it is not among auth.issuers"),
            (with_key("issuers = ['a']\njwks = { file = 'x', issuer = 'b' }"), "auth.jwks.issuer: it is not among"),
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
