//! The client's token: a fixed one, or a new one each time that one is needed.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::time::timeout;

use super::ClientError;
use crate::message::Token;

/// The error of a program that cannot provide a token.
pub(super) type Failure = Box<dyn std::error::Error + Send + Sync>;

type Ask = dyn Fn() -> BoxFuture<'static, Result<String, Failure>> + Send + Sync;

/// The source of a client's tokens.
#[derive(Clone, Default)]
pub(super) enum TokenSource {
    /// No token, until `refresh` brings one.
    #[default]
    None,
    /// One token from the program.
    Fixed(Token),
    /// A function of the program, called each time.
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
    /// The time limit of that function.
    within: Duration,
}

impl Tokens {
    pub(super) fn new(source: TokenSource, within: Duration) -> Self {
        Self { source: Mutex::new(source), within }
    }

    fn source(&self) -> TokenSource {
        self.source.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether the program provides a new token each time.
    pub(super) fn are_renewable(&self) -> bool {
        matches!(self.source(), TokenSource::Asked(_))
    }

    /// The token for the next handshake or refresh.
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
        // Text from a file or a server often ends with a line break.
        Token::new(given.trim()).map(Some).map_err(|e| failed(e.to_string()))
    }

    /// Stores a token that the server accepted, unless the program provides one each time.
    pub(super) fn keep(&self, token: Token) {
        let mut source = self.source.lock().unwrap_or_else(PoisonError::into_inner);
        if !matches!(*source, TokenSource::Asked(_)) {
            *source = TokenSource::Fixed(token);
        }
    }
}
