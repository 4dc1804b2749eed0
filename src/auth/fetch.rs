//! A key set that is fetched from an address: cached, refreshed, and what was fetched last kept while it cannot be.

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use reqwest::Url;
use reqwest::redirect::Policy;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{error, info};

use super::AuthError;
use super::key_set::{KeySet, LeftOut};
use super::keys::Key;
use crate::Printable;
use crate::config::Jwks;
use crate::tls;

/// Who asks. Firewalls before issuers answer 403 to those that do not say.
const USER_AGENT: &str = concat!("quic-websocket/", env!("CARGO_PKG_VERSION"));
/// What is asked for: some issuers answer with a page otherwise.
const ACCEPT: &str = "application/jwk-set+json, application/json";

/// A key set at an address.
pub(super) struct Fetched {
    url: Url,
    /// As it is shown: without what may be a secret in it.
    shown: String,
    http: reqwest::Client,
    refresh: Duration,
    cooldown: Duration,
    patience: Duration,
    max_bytes: usize,
    issuer: Option<String>,
    state: watch::Sender<State>,
    /// Asks for the newest set.
    wanted: Notify,
}

/// What was fetched.
#[derive(Clone, Default)]
struct State {
    keys: Arc<[Key]>,
    /// How often that worked.
    fetched: u64,
    /// When somebody last tried, with or without success.
    tried: Option<Instant>,
}

impl Fetched {
    pub(super) fn new(address: &str, settings: &Jwks) -> Result<Self, AuthError> {
        // Without what may be a secret in it.
        let told = address.split(['?', '#']).next().unwrap_or_default();
        let told = told.rsplit_once('@').map_or(told, |(_, host)| host);
        let wrong = |message: String| AuthError::Url { url: told.to_owned(), message };
        let url = Url::parse(address).map_err(|e| wrong(format!("not an address: {e}")))?;
        if url.port() == Some(0) {
            return Err(wrong("nothing can be fetched from port 0".into()));
        }
        let is_here = match url.host_str() {
            Some("localhost") => true,
            Some(host) => tls::server_name(host).parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback()),
            None => false,
        };
        // Whoever can change the keys on their way can be anybody.
        if !(url.scheme() == "https" || url.scheme() == "http" && is_here) {
            return Err(wrong("https is needed, or http on this machine".into()));
        }
        let patience = Duration::from_millis(settings.timeout_ms);
        let crypto = tls::https_config(url.scheme() == "https").map_err(|e| wrong(e.to_string()))?;
        let builder = reqwest::Client::builder();
        // What is on this machine is not asked of another one.
        let builder = if is_here { builder.no_proxy() } else { builder };
        let http = builder
            .tls_backend_preconfigured(crypto)
            .user_agent(USER_AGENT)
            .redirect(Policy::none())
            .timeout(patience)
            .build()
            .map_err(|e| wrong(e.to_string()))?;
        let shown = shown(&url);
        Ok(Self {
            url,
            shown,
            http,
            refresh: Duration::from_millis(settings.refresh_ms),
            cooldown: Duration::from_millis(settings.cooldown_ms),
            patience,
            issuer: settings.issuer.clone(),
            max_bytes: usize::try_from(settings.max_bytes).unwrap_or(usize::MAX),
            state: watch::Sender::new(State::default()),
            wanted: Notify::new(),
        })
    }

    pub(super) fn keys(&self) -> Arc<[Key]> {
        Arc::clone(&self.state.borrow().keys)
    }

    /// Has the set fetched, and waits for it. False where it was not: it was asked for a short time ago, or does not come.
    pub(super) async fn newest(&self) -> bool {
        let mut state = self.state.subscribe();
        let cools = |state: &State| state.tried.is_some_and(|tried| tried.elapsed() < self.cooldown);
        let before = {
            let state = state.borrow_and_update();
            if cools(&state) {
                return false;
            }
            state.fetched
        };
        self.wanted.notify_one();
        // Where it does not come in time, what is known has to do.
        let changed = timeout(self.patience, state.changed()).await;
        changed.is_ok_and(|changed| changed.is_ok()) && state.borrow().fetched > before
    }

    /// Fetches the set when its time has come, and when it is asked for.
    pub(super) async fn keep_up(&self) -> Infallible {
        let mut due = Instant::now();
        let mut told: Vec<LeftOut> = Vec::new();
        let mut failed = false;
        loop {
            // Both are cancel safe.
            tokio::select! {
                () = sleep_until(due) => {}
                () = self.wanted.notified() => {
                    let tried = self.state.borrow().tried;
                    if tried.is_some_and(|tried| tried.elapsed() < self.cooldown) {
                        continue;
                    }
                }
            }
            let fetched = self.fetch().await;
            let now = Instant::now();
            match fetched {
                Ok(KeySet { keys, left_out }) => {
                    let (count, before) = {
                        let state = self.state.borrow();
                        (state.fetched, state.keys.len())
                    };
                    if std::mem::take(&mut failed) || count == 0 || keys.len() != before {
                        info!(keys = keys.len(), "Fetched {} keys from {}", keys.len(), self.shown);
                    }
                    // Not each time that the same set is fetched.
                    if left_out != told {
                        KeySet::tell(&left_out, &self.shown);
                        told = left_out;
                    }
                    self.state.send_replace(State { keys: keys.into(), fetched: count + 1, tried: Some(now) });
                    due = now + self.refresh;
                }
                Err(message) => {
                    failed = true;
                    let kept = match self.state.borrow().fetched {
                        0 => "no token can be checked with them until that works",
                        _ => "those fetched last are kept",
                    };
                    error!("Cannot fetch keys from {}: {}; {kept}", self.shown, Printable::excerpt(&message));
                    self.state.send_modify(|state| state.tried = Some(now));
                    due = now + self.refresh.min(self.cooldown.max(Duration::from_secs(1)));
                }
            }
        }
    }

    async fn fetch(&self) -> Result<KeySet, String> {
        let request = self.http.get(self.url.clone()).header(reqwest::header::ACCEPT, ACCEPT);
        let mut response = request.send().await.map_err(in_words)?;
        let status = response.status();
        if status.is_redirection() {
            return Err(format!("the answer is {status}, and redirects are not followed: set the address it leads to"));
        }
        if !status.is_success() {
            return Err(format!("the answer is {status}"));
        }
        let mut body = Vec::new();
        while let Some(piece) = response.chunk().await.map_err(in_words)? {
            if body.len() + piece.len() > self.max_bytes {
                return Err(format!("more than {} bytes (auth.jwks.max_bytes)", self.max_bytes));
            }
            body.extend_from_slice(&piece);
        }
        KeySet::read(&body, "the answer", self.issuer.as_deref()).map_err(|e| e.to_string())
    }
}

/// An address as it is shown: without what may be a secret in it.
fn shown(url: &Url) -> String {
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    format!("{}://{}{port}{}", url.scheme(), url.host_str().unwrap_or_default(), url.path())
}

/// An error with its causes, which the library leaves out.
fn in_words(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_shown_with_its_port_and_without_secrets() {
        for (url, expected) in [
            ("https://id.example/keys", "https://id.example/keys"),
            ("https://id.example:8443/keys?key=secret#secret", "https://id.example:8443/keys"),
            ("https://user:secret@id.example:443/", "https://id.example/"),
            ("http://[::1]:8080/keys", "http://[::1]:8080/keys"),
        ] {
            assert_eq!(shown(&Url::parse(url).expect("an address")), expected);
        }
    }
}
