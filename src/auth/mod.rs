//! Who a client is: checks tokens and certificates, and says what they allow. Knows the keys, never a connection. Called
//! by `client` at the handshake and by `handler` for `refresh`; what is allowed is asked in `handler`'s `permit` alone.

mod explain;
mod fetch;
mod identity;
mod jws;
mod key_set;
mod keys;
mod mint;
mod public_key;
mod token;
mod used;
mod verifier;

use std::convert::Infallible;
use std::fmt;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

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
use self::token::Refused;
use self::used::{NotTaken, UsedToken, UsedTokens};
use crate::config::{Auth as Settings, Config};
use crate::message::{Token, now_ms};
use crate::reload::Cause;
use crate::tls::{self, Subject};

/// Why nobody can be let in by tokens.
#[derive(Debug, Error)]
pub enum AuthError {
    /// A file is not readable.
    #[error("cannot read {}: {cause}; check the path of this key", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        cause: std::io::Error,
    },
    /// A key, or a set of keys, cannot be used.
    #[error("{origin}: {message}")]
    Key {
        /// Where it stands.
        origin: String,
        /// What is wrong with it, and what is expected.
        message: String,
    },
    /// A token that would not be taken.
    #[error("{0}")]
    Claims(String),
    /// The address of a key set cannot be used.
    #[error("setting auth.jwks.url = {url:?}: {message}")]
    Url {
        /// The address.
        url: String,
        /// What is wrong with it.
        message: String,
    },
}

/// Why a client is not let in.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum Denied {
    #[error("{0}")]
    Nothing(&'static str),
    #[error("token: {0}; get another one")]
    BadToken(String),
    #[error("the client certificate has expired; get another one")]
    BadCertificate,
    #[error("token: it is another user's; open another connection for that")]
    AnotherUser,
    #[error("token: it was used before, and each is good only once here; get another one")]
    UsedBefore,
    #[error("tokens cannot be checked at present; try again later")]
    Unavailable,
}

impl Denied {
    /// What is wrong, without what to do.
    fn reason(self) -> String {
        match self {
            Self::BadToken(why) => why,
            other => other.to_string(),
        }
    }
}

/// All that is known of tokens.
pub(crate) struct Auth {
    config: Arc<Config>,
    /// From the configuration and from files; replaced as a whole when these change.
    keys: RwLock<Arc<[Key]>>,
    /// What the files held when they were last looked at; `None` for one that could not be read.
    seen: Mutex<Vec<Option<Vec<u8>>>>,
    /// From an address.
    fetched: Option<Fetched>,
    used: Mutex<UsedTokens>,
}

impl fmt::Debug for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Auth").finish_non_exhaustive()
    }
}

impl Auth {
    /// Reads the keys.
    pub(crate) fn new(config: Arc<Config>) -> Result<Self, AuthError> {
        // Before they are read: a change in between is seen the next time.
        let seen = Mutex::new(contents(&config.auth));
        let keys = RwLock::new(read_keys(&config.auth)?);
        warn_of_readers(&config.auth);
        let fetched = config.auth.jwks.url.as_deref().map(|url| Fetched::new(url, &config.auth.jwks)).transpose()?;
        Ok(Self { config, keys, seen, fetched, used: Mutex::default() })
    }

    /// Whether anybody is asked who they are.
    pub(crate) fn is_on(&self) -> bool {
        self.config.asks_who()
    }

    /// Reads the files anew. Where one cannot be used all stays as it was, and the log says so.
    pub(crate) fn reload(&self, cause: Cause) {
        let contents = contents(&self.config.auth);
        let mut seen = self.seen.lock();
        if contents.is_empty() || (*seen == contents && cause == Cause::Changed) {
            return;
        }
        *seen = contents;
        match read_keys(&self.config.auth) {
            Ok(keys) => {
                info!(keys = keys.len(), "Keys for tokens reloaded: {} are in use", keys.len());
                warn_of_readers(&self.config.auth);
                *self.keys.write() = keys;
            }
            Err(e) => error!("Keys for tokens not reloaded, the old ones stay in use: {e}"),
        }
    }

    /// Fetches the key set from its address, again and again. Never ends.
    pub(crate) async fn keep_fetching(&self) -> Infallible {
        match &self.fetched {
            Some(fetched) => fetched.keep_up().await,
            None => std::future::pending().await,
        }
    }

    /// Says who somebody is, from what they show. May wait for the key set.
    pub(crate) async fn identify(&self, token: Option<&Token>, certified: Option<Subject>) -> Result<Identity, Denied> {
        let settings = &self.config.auth;
        if let Some(token) = token.filter(|_| settings.takes_tokens()) {
            let checked = self.check(token).await?;
            self.use_up(checked.once)?;
            return Ok(checked.identity);
        }
        self.without_token(certified)
    }

    /// The same for a question beside the connection, which uses up no token.
    pub(crate) async fn recognise(
        &self,
        token: Option<&Token>,
        certified: Option<Subject>,
    ) -> Result<Identity, Denied> {
        match token.filter(|_| self.config.auth.takes_tokens()) {
            Some(token) => Ok(self.check(token).await?.identity),
            None => self.without_token(certified),
        }
    }

    fn without_token(&self, certified: Option<Subject>) -> Result<Identity, Denied> {
        let settings = &self.config.auth;
        if !self.is_on() {
            return Ok(Identity::anybody());
        }
        if let Some(Subject { name, expires_at }) = certified {
            if expires_at <= now_ms() {
                return Err(Denied::BadCertificate);
            }
            let rights = Rights::new(&settings.certificate, &settings.certificate);
            return Ok(Identity { user: Some(name.as_str().into()), expires_at: Some(expires_at), ..nobody(rights) });
        }
        let Some(grant) = &settings.anonymous else {
            return Err(Denied::Nothing(match (settings.takes_tokens(), self.config.tls.client_ca.is_some()) {
                (true, false) => "a token is required; send one in the handshake",
                (true, true) => "a token is required, or a client certificate whose subject is a name",
                _ => "a client certificate whose subject is a name is required; connect with one",
            }));
        };
        Ok(nobody(Rights::new(grant, grant)))
    }

    /// Says who the same user is by another token. May wait for the key set.
    pub(crate) async fn renew(&self, token: &Token, before: &Identity) -> Result<Identity, Denied> {
        if !self.config.auth.takes_tokens() {
            return Err(Denied::BadToken("this server takes none".into()));
        }
        // Nobody in particular becomes nobody else, whatever the token says.
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
                // Keys change: the newest set may hold it.
                let is_newest = fetched.newest().await;
                match self.check_now(token) {
                    Err(Refused::UnknownKey(_)) if !is_newest => return Err(Denied::Unavailable),
                    checked => checked,
                }
            }
            checked => checked,
        };
        checked.map_err(|refused| match refused {
            Refused::UnknownKey(why) => Denied::BadToken(why),
            Refused::Bad(denied) => denied,
        })
    }

    /// Uses up a token that is good only once.
    fn use_up(&self, once: Option<UsedToken>) -> Result<(), Denied> {
        let Some(once) = once else { return Ok(()) };
        let most = usize::try_from(self.config.auth.max_used_tokens).unwrap_or(usize::MAX);
        let mut used = self.used.lock();
        used.take(once, most, now_ms()).map_err(|why| match why {
            NotTaken::Again => Denied::UsedBefore,
            NotTaken::Full => Denied::Unavailable,
        })
    }

    fn check_now(&self, token: &Token) -> Result<token::Checked, Refused> {
        let own = Arc::clone(&self.keys.read());
        let fetched = self.fetched.as_ref().map(Fetched::keys).unwrap_or_default();
        let keys: Vec<&Key> = own.iter().chain(fetched.iter()).collect();
        token::check(token.as_str(), &keys, &self.config.auth)
    }
}

/// Who has shown nothing.
fn nobody(rights: Rights) -> Identity {
    Identity { user: None, name: None, rights, expires_at: None, max_rate: None }
}

/// Warns of secrets that others can read, and sign tokens with.
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
        let KeySet { keys: of_set, left_out } = KeySet::read(&set, &origin, issuer)?;
        KeySet::tell(&left_out, &origin);
        keys.extend(of_set);
    }
    Ok(keys.into())
}
