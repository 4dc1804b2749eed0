//! Describes a token for people: its content, and whether a server accepts it. Called by
//! `quic-websocket token explain`.

use std::fmt;
use std::sync::Arc;

use serde_json::Value;

use super::jws::{self, Jws};
use super::{Auth, AuthError, Identity};
use crate::Printable;
use crate::config::Config;
use crate::message::Token;

/// A description of a token.
#[derive(Debug)]
pub struct Explained {
    /// The content, or why no server accepts the token.
    content: Result<Content, &'static str>,
    /// The decision of a server, if there is a configuration to decide by.
    verdict: Option<Result<Identity, String>>,
}

/// The content of a token.
#[derive(Debug)]
struct Content {
    header: String,
    claims: String,
    /// Whether its algorithm is supported.
    is_known: bool,
}

impl Content {
    fn read(token: &Token) -> Result<Self, &'static str> {
        let jws = Jws::parse(token.as_str())?;
        let claims = jws.claims()?;
        let key = jws.key_id.as_ref().map_or("no key".to_owned(), |kid| format!("key {}", Printable::excerpt(kid)));
        let header = format!("{}, {key} named", Printable::excerpt(&jws.alg));
        let sound = |raw: &serde_json::value::RawValue| {
            serde_json::from_str::<Value>(raw.get()).unwrap_or_else(|_| Value::from(raw.get()))
        };
        let claims = claims.into_iter().map(|(name, raw)| (name, sound(&raw))).collect::<serde_json::Map<_, _>>();
        let claims = serde_json::to_string_pretty(&claims).map_err(|_| "its claims cannot be displayed")?;
        Ok(Self { header, claims, is_known: jws::algorithm(&jws.alg).is_some() })
    }
}

/// Reads a token. With a configuration, also decides whether a server with it would accept the token, which may fetch a
/// key set.
///
/// # Errors
/// [`AuthError`] if the configuration's keys cannot be used.
pub async fn explain(token: &Token, config: Option<Config>) -> Result<Explained, AuthError> {
    let mut verdict = None;
    if let Some(config) = config {
        let auth = Auth::new(Arc::new(config))?;
        let checked = tokio::select! {
            checked = auth.identify(Some(token), None) => checked,
            never = auth.keep_fetching() => match never {},
        };
        verdict = Some(checked.map_err(|denied| denied.to_string()));
    }
    Ok(Explained { content: Content::read(token), verdict })
}

impl Explained {
    /// Whether it is a signed token with a supported algorithm.
    pub fn is_token(&self) -> bool {
        self.content.as_ref().is_ok_and(|content| content.is_known)
    }

    /// Whether a server accepts it; `None` without a configuration.
    pub fn is_accepted(&self) -> Option<bool> {
        self.verdict.as_ref().map(Result::is_ok)
    }
}

impl fmt::Display for Explained {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.content {
            Ok(Content { header, claims, is_known }) => {
                let unknown = if *is_known { "" } else { " (unsupported algorithm)" };
                writeln!(f, "signed:  {header}{unknown}")?;
                for (number, line) in claims.lines().enumerate() {
                    writeln!(f, "{}{}", if number == 0 { "claims:  " } else { "         " }, Printable::new(line))?;
                }
            }
            Err(why) => writeln!(f, "This is not a valid token: {why}.")?,
        }
        match &self.verdict {
            None => write!(f, "server:  not checked; name its configuration with --config"),
            Some(Err(why)) => write!(f, "server:  refuses it: {}", Printable::new(why)),
            Some(Ok(identity)) => {
                writeln!(f, "server:  accepts it")?;
                if let Some(user) = &identity.user {
                    writeln!(f, "user:    {}", Printable::new(user))?;
                }
                if let Some(name) = &identity.name {
                    writeln!(f, "name:    {}", Printable::new(name.as_str()))?;
                }
                match identity.expires_at {
                    Some(at) => writeln!(f, "ends:    {}, leeway included", Utc(at))?,
                    None => writeln!(f, "ends:    never")?,
                }
                write!(f, "{}", identity.rights)
            }
        }
    }
}

/// Displays a time in Unix milliseconds, to the second.
struct Utc(u64);

impl fmt::Display for Utc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = i64::try_from(self.0 / 1000).ok();
        match seconds.and_then(|seconds| time::OffsetDateTime::from_unix_timestamp(seconds).ok()) {
            Some(at) => write!(f, "{} {:02}:{:02}:{:02} UTC", at.date(), at.hour(), at.minute(), at.second()),
            None => write!(f, "in the far future"),
        }
    }
}
