//! A key set fetched from an address: cached and refreshed; if a fetch fails, the last set stays in use. One task owned
//! by `Server` fetches it; checks of tokens read the cache.

use std::convert::Infallible;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use reqwest::Url;
use reqwest::redirect::Policy;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{error, info};

use super::AuthError;
use super::key_set::{KeySet, Skipped};
use super::keys::Key;
use crate::Printable;
use crate::config::Jwks;
use crate::tls;

/// User agent of the requests. Firewalls in front of issuers reject requests without one (403).
const USER_AGENT: &str = concat!("quic-websocket/", env!("CARGO_PKG_VERSION"));
/// Accepted types; without them some issuers answer with a web page.
const ACCEPT: &str = "application/jwk-set+json, application/json";

/// A key set at an address.
pub(super) struct Fetched {
    url: Url,
    /// The address as it is shown: without parts that may be secret.
    shown: String,
    http: reqwest::Client,
    refresh: Duration,
    cooldown: Duration,
    patience: Duration,
    max_bytes: usize,
    issuer: Option<String>,
    state: watch::Sender<State>,
    /// Requests a fetch.
    wanted: Notify,
}

/// The result of the fetches.
#[derive(Clone, Default)]
struct State {
    keys: Arc<[Key]>,
    /// Number of successful fetches.
    fetched: u64,
    /// Time of the last fetch, successful or not.
    tried: Option<Instant>,
}

impl Fetched {
    pub(super) fn new(address: &str, settings: &Jwks) -> Result<Self, AuthError> {
        // Without parts that may be secret.
        let told = address.split(['?', '#']).next().unwrap_or_default();
        let told = told.rsplit_once('@').map_or(told, |(_, host)| host);
        let wrong = |message: String| AuthError::Url { url: told.to_owned(), message };
        let url = Url::parse(address).map_err(|e| wrong(format!("not a valid URL: {e}")))?;
        if url.port() == Some(0) {
            return Err(wrong("port 0 cannot be used".into()));
        }
        let is_here = match url.host_str() {
            Some("localhost") => true,
            Some(host) => tls::server_name(host).parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback()),
            None => false,
        };
        // Who can change the keys in transit can impersonate anyone.
        if !(url.scheme() == "https" || url.scheme() == "http" && is_here) {
            return Err(wrong("it must be https, or http on this machine".into()));
        }
        let patience = Duration::from_millis(settings.timeout_ms);
        let crypto = tls::https_config(url.scheme() == "https").map_err(|e| wrong(e.to_string()))?;
        let builder = reqwest::Client::builder();
        // A proxy cannot reach this machine's loopback addresses.
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

    /// Requests a fetch and waits for it. False if there was none: the last one was too recent, or it failed.
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
        // After a timeout the known set has to do.
        let changed = timeout(self.patience, state.changed()).await;
        changed.is_ok_and(|changed| changed.is_ok()) && state.borrow().fetched > before
    }

    /// Fetches the set periodically and on request.
    pub(super) async fn keep_up(&self) -> Infallible {
        let mut due = Instant::now();
        let mut logged: Vec<Skipped> = Vec::new();
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
                Ok(KeySet { keys, skipped }) => {
                    let (count, before) = {
                        let state = self.state.borrow();
                        (state.fetched, state.keys.len())
                    };
                    if std::mem::take(&mut failed) || count == 0 || keys.len() != before {
                        info!(keys = keys.len(), "Fetched {} keys from {}", keys.len(), self.shown);
                    }
                    // Not again for each fetch of the same set.
                    if skipped != logged {
                        KeySet::log_skipped(&skipped, &self.shown);
                        logged = skipped;
                    }
                    self.state.send_replace(State { keys: keys.into(), fetched: count + 1, tried: Some(now) });
                    due = now + self.refresh;
                }
                Err(message) => {
                    failed = true;
                    let kept = match self.state.borrow().fetched {
                        0 => "until a fetch succeeds, tokens signed by them are refused",
                        _ => "the last ones stay in use",
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
        let mut response = request.send().await.map_err(|e| problem(e, self.patience))?;
        let status = response.status();
        if status.is_redirection() {
            return Err(format!("the answer is {status}, and redirects are not followed; set the address it leads to"));
        }
        if !status.is_success() {
            return Err(format!("the answer is {status}"));
        }
        let mut body = Vec::new();
        while let Some(piece) = response.chunk().await.map_err(|e| problem(e, self.patience))? {
            if body.len() + piece.len() > self.max_bytes {
                return Err(format!("more than {} bytes (auth.jwks.max_bytes)", self.max_bytes));
            }
            body.extend_from_slice(&piece);
        }
        KeySet::read(&body, "the answer", self.issuer.as_deref()).map_err(|e| e.to_string())
    }
}

/// An address without parts that may be secret.
fn shown(url: &Url) -> String {
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    format!("{}://{}{port}{}", url.scheme(), url.host_str().unwrap_or_default(), url.path())
}

/// Why a fetch failed, in plain words, and what to do. The library's own texts leave their causes out.
fn problem(error: reqwest::Error, patience: Duration) -> String {
    if error.is_timeout() {
        return format!("no answer within {} ms (auth.jwks.timeout_ms)", patience.as_millis());
    }
    let is_connect = error.is_connect();
    let error = error.without_url();
    let mut cause: &dyn std::error::Error = &error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    let kind = cause.downcast_ref::<io::Error>().map(io::Error::kind);
    let cause = cause.to_string();
    match kind {
        Some(io::ErrorKind::ConnectionRefused) => "connection refused; check the address in auth.jwks.url".into(),
        _ if cause.contains("certificate") => {
            format!("the server's certificate is not trusted ({cause}); install its authority on this system")
        }
        _ if is_connect => format!("cannot connect: {cause}"),
        _ => format!("the answer is incomplete: {cause}"),
    }
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

    #[tokio::test]
    async fn a_failed_fetch_is_explained_in_plain_words() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = format!("http://{}/keys", listener.local_addr().expect("its address"));
        let settings = Jwks { timeout_ms: 50, ..Jwks::default() };
        let failure = async || {
            let fetched = Fetched::new(&address, &settings).expect("an address");
            fetched.fetch().await.err().expect("nothing answers")
        };
        assert_eq!(failure().await, "no answer within 50 ms (auth.jwks.timeout_ms)");
        drop(listener);
        assert_eq!(failure().await, "connection refused; check the address in auth.jwks.url");
    }
}
