//! What a token says, and whether a server takes it: in words, for people.

use std::fmt;
use std::sync::Arc;

use jsonwebtoken::dangerous::insecure_decode_claims;
use jsonwebtoken::decode_header;
use serde_json::{Map, Value};

use super::{Auth, AuthError, Identity};
use crate::config::Config;
use crate::message::Token;
use crate::printable::Printable;

/// A token in words.
#[derive(Debug)]
pub struct Explained {
    header: Option<String>,
    claims: Option<String>,
    /// What a server says to it, where there is one to go by.
    verdict: Option<Result<Identity, String>>,
}

/// Reads a token, and where there is a configuration, asks whether a server with it lets the token's bearer in. May fetch a
/// key set.
///
/// # Errors
/// [`AuthError`] where the configuration's keys cannot be used.
pub async fn explain(token: &Token, config: Option<Config>) -> Result<Explained, AuthError> {
    let header = decode_header(token.as_str()).ok().map(|header| {
        let key = header.kid.map_or("no key".to_owned(), |kid| format!("key {}", Printable::excerpt(&kid)));
        format!("{:?}, {key} named", header.alg)
    });
    let claims = insecure_decode_claims::<Map<String, Value>>(token.as_str()).ok();
    let claims = claims.and_then(|claims| serde_json::to_string_pretty(&claims).ok());
    let mut verdict = None;
    if let Some(config) = config {
        let auth = Auth::new(Arc::new(config))?;
        let checked = tokio::select! {
            checked = auth.identify(Some(token), None) => checked,
            never = auth.keep_fetching() => match never {},
        };
        verdict = Some(checked.map_err(|denied| denied.to_string()));
    }
    Ok(Explained { header, claims, verdict })
}

impl Explained {
    /// Whether a server takes it; `None` without one to go by.
    pub fn is_taken(&self) -> Option<bool> {
        self.verdict.as_ref().map(Result::is_ok)
    }
}

impl fmt::Display for Explained {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.header, &self.claims) {
            (Some(header), Some(claims)) => {
                writeln!(f, "signed:  {header}")?;
                for (number, line) in claims.lines().enumerate() {
                    writeln!(f, "{}{}", if number == 0 { "claims:  " } else { "         " }, Printable::new(line))?;
                }
            }
            _ => {
                writeln!(f, "This is no JSON Web Token that is taken here: it has to be signed, by a known algorithm.")?
            }
        }
        match &self.verdict {
            None => write!(f, "server:  not asked; name its configuration with --config"),
            Some(Err(why)) => write!(f, "server:  refuses it: {}", Printable::new(why)),
            Some(Ok(identity)) => {
                writeln!(f, "server:  takes it")?;
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

/// A time in Unix milliseconds, to the second.
struct Utc(u64);

impl fmt::Display for Utc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = i64::try_from(self.0 / 1000).ok();
        match seconds.and_then(|seconds| time::OffsetDateTime::from_unix_timestamp(seconds).ok()) {
            Some(at) => write!(f, "{} {:02}:{:02}:{:02} UTC", at.date(), at.hour(), at.minute(), at.second()),
            None => write!(f, "in a very long time"),
        }
    }
}
