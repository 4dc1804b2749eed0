//! Authentication: checks tokens and certificates, and returns an identity with its permissions. Knows the keys, never
//! a connection. Called by `session` at the handshake, by `handler` for `refresh` and by `http`; `handler::permit`
//! alone applies the permissions.

mod explain;
mod fetch;
mod identity;
mod jws;
mod key_set;
mod keys;
mod mint;
mod public_key;
mod revocation_list;
mod revocations;
mod sessions;
mod token;
mod used;
mod verifier;

use std::convert::Infallible;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::{fs, io};

use parking_lot::{Mutex, RwLock};
use thiserror::Error;
use tracing::{error, info};

pub use self::explain::{Explained, explain};
use self::fetch::Fetched;
pub(crate) use self::identity::Identity;
use self::identity::Rights;
use self::key_set::KeySet;
use self::keys::Key;
pub use self::mint::{Claims, SigningKey};
pub(crate) use self::revocation_list::{Change, RevocationError, RevocationList};
pub(crate) use self::revocations::{Page as RevocationPage, Revoked, Terms, TokenStamp};
pub(crate) use self::sessions::Sessions;
use self::token::Refused;
use self::used::{UseError, UsedToken, UsedTokens};
use crate::config::{Auth as Settings, Config};
use crate::message::{Token, now_ms};
use crate::reload::Cause;
use crate::tls::{self, Subject};

/// Why tokens cannot be checked or signed.
#[derive(Debug, Error)]
pub enum AuthError {
    /// A file cannot be read.
    #[error("cannot read the key {}: {}", path.display(), unreadable(cause))]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's error.
        cause: io::Error,
    },
    /// A key or a key set cannot be used.
    #[error("{origin}: {message}")]
    Key {
        /// The file or setting that contains it.
        origin: String,
        /// The problem, and what was expected.
        message: String,
    },
    /// The file with revocations cannot be used.
    #[error("setting auth.revocations_file = {}: {message}", path.display())]
    Revocations {
        /// The file.
        path: PathBuf,
        /// The problem, and what to do.
        message: String,
    },
    /// A token that no server would accept.
    #[error("{0}")]
    Claims(String),
    /// The address of a key set cannot be used.
    #[error("setting auth.jwks.url = {url:?}: {message}")]
    Url {
        /// The address.
        url: String,
        /// The problem.
        message: String,
    },
}

/// Why a file with a key cannot be read, and what to do.
fn unreadable(cause: &io::Error) -> String {
    match cause.kind() {
        io::ErrorKind::NotFound => "there is no such file; check its path".into(),
        io::ErrorKind::PermissionDenied => {
            "permission denied; let the user that runs this program read it and the folders above it (chown, chmod)"
                .into()
        }
        io::ErrorKind::IsADirectory => "it is a folder; name the file in it".into(),
        _ => format!("{cause}; check its path"),
    }
}

/// Longest `jti`, in bytes, by which a token is known.
pub(crate) const MAX_JTI_BYTES: usize = 128;

/// Why a client is refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum Denied {
    #[error("{0}")]
    Required(&'static str),
    #[error("token: {0}; get a new one")]
    BadToken(String),
    #[error("the client certificate has expired; get a new one")]
    BadCertificate,
    #[error("token: it is another user's; open another connection for it")]
    AnotherUser,
    #[error("token: it was used before, and this server accepts each only once; get a new one")]
    UsedBefore,
    #[error("tokens cannot be checked at the moment; try again later")]
    Unavailable,
}

impl Denied {
    /// The problem without the remedy.
    fn reason(self) -> String {
        match self {
            Self::BadToken(why) => why,
            other => other.to_string(),
        }
    }
}

/// Checks clients by tokens, certificates and settings.
pub(crate) struct Auth {
    config: Arc<Config>,
    /// Keys from the configuration and files; replaced as a whole when these change.
    keys: RwLock<Arc<[Key]>>,
    /// Contents of the files when they were last looked at; `None` for one that could not be read.
    seen: Mutex<Vec<Option<Vec<u8>>>>,
    /// Keys from an address.
    fetched: Option<Fetched>,
    used: Mutex<UsedTokens>,
    revocations: Arc<RevocationList>,
}

impl fmt::Debug for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Auth").finish_non_exhaustive()
    }
}

impl Auth {
    /// Reads the keys.
    pub(crate) fn new(config: Arc<Config>) -> Result<Self, AuthError> {
        // Before reading the keys, so that a change in between is noticed later.
        let seen = Mutex::new(contents(&config.auth));
        let keys = RwLock::new(read_keys(&config.auth)?);
        warn_of_readers(&config.auth);
        let fetched = config.auth.jwks.url.as_deref().map(|url| Fetched::new(url, &config.auth.jwks)).transpose()?;
        let revocations = Arc::new(RevocationList::load(&config.auth)?);
        Ok(Self { config, keys, seen, fetched, used: Mutex::default(), revocations })
    }

    /// The revoked tokens.
    pub(crate) fn revocations(&self) -> &Arc<RevocationList> {
        &self.revocations
    }

    /// Whether clients are authenticated.
    pub(crate) fn is_on(&self) -> bool {
        self.config.authenticates()
    }

    /// Reads the files again. If one cannot be used, nothing changes and the log says so.
    pub(crate) fn reload(&self, cause: Cause) {
        let contents = contents(&self.config.auth);
        let mut seen = self.seen.lock();
        if contents.is_empty() || (*seen == contents && cause == Cause::Changed) {
            return;
        }
        *seen = contents;
        match read_keys(&self.config.auth) {
            Ok(keys) => {
                info!(keys = keys.len(), "Keys for tokens reloaded: {} in use", keys.len());
                warn_of_readers(&self.config.auth);
                *self.keys.write() = keys;
            }
            Err(e) => error!("Keys for tokens not reloaded; the old ones stay in use: {e}"),
        }
    }

    /// Keeps the key set from an address up to date. Never returns.
    pub(crate) async fn keep_fetching(&self) -> Infallible {
        match &self.fetched {
            Some(fetched) => fetched.keep_up().await,
            None => std::future::pending().await,
        }
    }

    /// Identifies a client by what it presents. May wait for the key set.
    pub(crate) async fn identify(&self, token: Option<&Token>, certified: Option<Subject>) -> Result<Identity, Denied> {
        let settings = &self.config.auth;
        if let Some(token) = token.filter(|_| settings.accepts_tokens()) {
            let checked = self.check(token).await?;
            self.use_up(checked.once)?;
            return Ok(checked.identity);
        }
        self.without_token(certified)
    }

    /// As [`identify`](Self::identify), for a request besides the connection, which uses up no token.
    pub(crate) async fn recognise(
        &self,
        token: Option<&Token>,
        certified: Option<Subject>,
    ) -> Result<Identity, Denied> {
        match token.filter(|_| self.config.auth.accepts_tokens()) {
            Some(token) => Ok(self.check(token).await?.identity),
            None => self.without_token(certified),
        }
    }

    fn without_token(&self, certified: Option<Subject>) -> Result<Identity, Denied> {
        let settings = &self.config.auth;
        if !self.is_on() {
            return Ok(Identity::unrestricted());
        }
        if let Some(Subject { name, expires_at }) = certified {
            if expires_at <= now_ms() {
                return Err(Denied::BadCertificate);
            }
            let rights = Rights::granted(&settings.certificate, Some(name.as_str()));
            return Ok(Identity {
                user: Some(name.as_str().into()),
                expires_at: Some(expires_at),
                ..anonymous(rights)
            });
        }
        let Some(grant) = &settings.anonymous else {
            return Err(Denied::Required(match (settings.accepts_tokens(), self.config.tls.client_ca.is_some()) {
                (true, false) => "a token is required; send one in the handshake",
                (true, true) => "a token is required, or a client certificate with a name as its subject",
                _ => "a client certificate with a name as its subject is required; connect with one",
            }));
        };
        Ok(anonymous(Rights::granted(grant, None)))
    }

    /// Identifies the same user by another token. May wait for the key set.
    pub(crate) async fn renew(&self, token: &Token, before: &Identity) -> Result<Identity, Denied> {
        if !self.config.auth.accepts_tokens() {
            return Err(Denied::BadToken("this server does not accept tokens".into()));
        }
        // An anonymous client cannot become a user, whatever the token claims.
        if before.user.is_none() {
            return Err(Denied::AnotherUser);
        }
        let checked = self.check(token).await?;
        if checked.identity.user != before.user {
            return Err(Denied::AnotherUser);
        }
        self.use_up(checked.once)?;
        Ok(checked.identity)
    }

    /// Checks a token.
    async fn check(&self, token: &Token) -> Result<token::Checked, Denied> {
        let checked = match self.check_now(token) {
            Err(Refused::UnknownKey(why)) => {
                let Some(fetched) = &self.fetched else { return Err(Denied::BadToken(why)) };
                // Keys change, so the newest set may contain it.
                let is_newest = fetched.newest().await;
                match self.check_now(token) {
                    Err(Refused::UnknownKey(_)) if !is_newest => return Err(Denied::Unavailable),
                    checked => checked,
                }
            }
            checked => checked,
        };
        let checked = checked.map_err(|refused| match refused {
            Refused::UnknownKey(why) => Denied::BadToken(why),
            Refused::Bad(denied) => denied,
        })?;
        if self.revocations.cover(&checked.identity) {
            return Err(Denied::BadToken("it was revoked".into()));
        }
        Ok(checked)
    }

    /// Uses up a token that is valid only once.
    fn use_up(&self, once: Option<UsedToken>) -> Result<(), Denied> {
        let Some(once) = once else { return Ok(()) };
        let most = usize::try_from(self.config.auth.max_used_tokens).unwrap_or(usize::MAX);
        let mut used = self.used.lock();
        used.use_up(once, most, now_ms()).map_err(|why| match why {
            UseError::Reused => Denied::UsedBefore,
            UseError::Full => Denied::Unavailable,
        })
    }

    fn check_now(&self, token: &Token) -> Result<token::Checked, Refused> {
        let own = Arc::clone(&self.keys.read());
        let fetched = self.fetched.as_ref().map(Fetched::keys).unwrap_or_default();
        let keys: Vec<&Key> = own.iter().chain(fetched.iter()).collect();
        let info_bytes = usize::try_from(self.config.limits.info_bytes).unwrap_or(usize::MAX);
        token::check(token.as_str(), &keys, &self.config.auth, info_bytes)
    }
}

/// The identity of an anonymous client.
fn anonymous(rights: Rights) -> Identity {
    Identity { user: None, name: None, rights, expires_at: None, max_rate: None, info: None, token: None }
}

/// Warns of secret files that others can read, and so sign tokens with.
fn warn_of_readers(settings: &Settings) {
    settings.keys.iter().filter_map(|key| key.secret_file.as_deref()).for_each(tls::warn_of_readers);
}

fn contents(settings: &Settings) -> Vec<Option<Vec<u8>>> {
    settings.files().map(|path| fs::read(path).ok()).collect()
}

fn read_keys(settings: &Settings) -> Result<Arc<[Key]>, AuthError> {
    let mut keys = settings.keys.iter().map(keys::from_config).collect::<Result<Vec<_>, _>>()?;
    if let Some(path) = &settings.jwks.file {
        let (set, issuer) = (keys::read(path)?, settings.jwks.issuer.as_deref());
        let origin = path.display().to_string();
        let KeySet { keys: of_set, skipped } = KeySet::read(&set, &origin, issuer)?;
        KeySet::log_skipped(&skipped, &origin);
        keys.extend(of_set);
    }
    Ok(keys.into())
}
