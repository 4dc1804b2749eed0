//! The token that a client shows: always the same one, or another one each time that one is needed.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::time::timeout;

use super::ClientError;
use crate::message::Token;

/// Why a program has no token to show.
pub(super) type Failure = Box<dyn std::error::Error + Send + Sync>;

type Ask = dyn Fn() -> BoxFuture<'static, Result<String, Failure>> + Send + Sync;

/// Where a client's tokens come from.
#[derive(Clone, Default)]
pub(super) enum TokenSource {
    /// It shows none, until it is given one by `refresh`.
    #[default]
    None,
    /// The program gave one.
    Fixed(Token),
    /// The program is asked each time.
    Asked(Arc<Ask>),
}

impl fmt::Debug for TokenSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "None",
            Self::Fixed(_) => "Fixed",
            Self::Asked(_) => "Asked",
        })
    }
}

/// The tokens of one client.
#[derive(Debug)]
pub(super) struct Tokens {
    source: Mutex<TokenSource>,
    /// How long the program may take to give one.
    within: Duration,
}

impl Tokens {
    pub(super) fn new(source: TokenSource, within: Duration) -> Self {
        Self { source: Mutex::new(source), within }
    }

    fn source(&self) -> TokenSource {
        self.source.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether there is another one each time.
    pub(super) fn are_asked_for(&self) -> bool {
        matches!(self.source(), TokenSource::Asked(_))
    }

    /// The token to show now.
    pub(super) async fn next(&self) -> Result<Option<Token>, ClientError> {
        let ask = match self.source() {
            TokenSource::None => return Ok(None),
            TokenSource::Fixed(token) => return Ok(Some(token)),
            TokenSource::Asked(ask) => ask,
        };
        let failed = |message: String| ClientError::Token { message };
        let given = timeout(self.within, ask()).await;
        let given = given.map_err(|_| failed(format!("none came within {:?}", self.within)))?;
        let given = given.map_err(|e| failed(e.to_string()))?;
        // What comes out of a file or off a server tends to end with a line break.
        Token::new(given.trim()).map(Some).map_err(|e| failed(e.to_string()))
    }

    /// Keeps a token that the server took. Where the program is asked each time, that goes on.
    pub(super) fn keep(&self, token: Token) {
        let mut source = self.source.lock().unwrap_or_else(PoisonError::into_inner);
        if !matches!(*source, TokenSource::Asked(_)) {
            *source = TokenSource::Fixed(token);
        }
    }
}
