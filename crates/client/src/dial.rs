//! From `host:port` to a connection on which the handshake was accepted: over QUIC, or over a WebSocket if QUIC does
//! not connect. QUIC gets a head start, then WebSocket is tried in parallel (as RFC 8305 does for addresses).

mod quic;
mod settings;
mod socket;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use quic_websocket_lane::LaneReader;
use quinn::Endpoint;
use tokio::time::{sleep, sleep_until, timeout};

pub(super) use self::quic::{Dialled, connection_error};
pub(super) use self::socket::{CLOSE_TIMEOUT, Opened, SocketUrl, parse_url};
use super::link::Link;
use super::second::Second;
use super::topics::Topics;
use super::{Carrier, ClientBuilder, ClientError};
use crate::message::Token;
use crate::tls;

/// How long one address of a host, or QUIC, is tried alone before the next is tried in parallel (RFC 8305 section 5).
const HEAD_START: Duration = Duration::from_millis(250);

/// Connects a client to its server.
pub(super) struct Dialer {
    endpoint: Option<Endpoint>,
    tls: Option<Arc<rustls::ClientConfig>>,
    /// The last time that QUIC failed and a WebSocket connected.
    quic_failed: Mutex<Option<Instant>>,
}

/// A connection, and the reader of its control lane.
pub(super) type Connected = (Link, LaneReader);

/// A second WebSocket, and the reader of its lane.
pub(super) type Attached = (Second, LaneReader);

impl Dialer {
    /// A dialer for the transports that the settings allow.
    pub(super) fn new(options: &ClientBuilder) -> Result<Self, ClientError> {
        let identity = options.identity.as_ref();
        let tls = match options.carriers.contains(&Carrier::WebSocket) {
            true => Some(tls::socket_config(&options.trust, identity)?),
            false => None,
        };
        let endpoint = match options.carriers.contains(&Carrier::Quic) {
            true => match (quic::endpoint(options), &tls) {
                // Without a UDP socket, WebSocket remains.
                (Err(ClientError::Socket(_)), Some(_)) => None,
                (endpoint, _) => Some(endpoint?),
            },
            false => None,
        };
        if endpoint.is_none() && tls.is_none() {
            return Err(ClientError::NoCarrier);
        }
        Ok(Self { endpoint, tls, quic_failed: Mutex::new(None) })
    }

    /// Whether a client on a WebSocket may move to QUIC.
    pub(super) fn has_quic(&self) -> bool {
        self.endpoint.is_some()
    }

    /// Closes QUIC, and waits at most `within` for its last packets to leave.
    pub(super) async fn close(&self, code: u16, reason: &str, within: Duration) {
        if let Some(endpoint) = &self.endpoint {
            endpoint.close(u32::from(code).into(), reason.as_bytes());
            let _ = timeout(within, endpoint.wait_idle()).await;
        }
    }

    fn record_quic_result(&self, did: bool) {
        *self.quic_failed.lock().unwrap_or_else(PoisonError::into_inner) = (!did).then(Instant::now);
    }

    fn is_quic_first(&self, options: &ClientBuilder) -> bool {
        let failed = *self.quic_failed.lock().unwrap_or_else(PoisonError::into_inner);
        failed.is_none_or(|at| options.retry_quic.is_some_and(|after| at.elapsed() >= after))
    }

    /// Connects and completes the handshake, over the way that succeeds.
    pub(super) async fn connect(
        &self,
        options: &ClientBuilder,
        token: Option<Token>,
        topics: &Arc<Topics>,
    ) -> Result<Connected, ClientError> {
        let within = options.connect_timeout;
        let connected = match (&self.endpoint, &self.tls) {
            (Some(_), Some(tls)) => timeout(within, self.race(options, token, topics, tls)).await,
            (Some(_), None) => timeout(within, self.over_quic(options, token, topics)).await,
            (None, Some(tls)) => timeout(within, over_socket(options, token, topics, tls)).await,
            (None, None) => return Err(ClientError::NoCarrier),
        };
        connected.unwrap_or_else(|_| Err(ClientError::NoAnswer { server: options.server.clone(), within }))
    }

    /// The same over QUIC only.
    pub(super) async fn connect_quic(
        &self,
        options: &ClientBuilder,
        token: Option<Token>,
        topics: &Arc<Topics>,
    ) -> Result<Connected, ClientError> {
        let within = options.connect_timeout;
        let connected = timeout(within, self.over_quic(options, token, topics)).await;
        let connected =
            connected.unwrap_or_else(|_| Err(ClientError::NoAnswer { server: options.server.clone(), within }));
        if connected.is_ok() {
            self.record_quic_result(true);
        }
        connected
    }

    /// Opens a second WebSocket for the session of a link.
    pub(super) async fn attach(&self, options: &ClientBuilder, link: &Link) -> Result<Attached, ClientError> {
        let tls = self.tls.as_ref().ok_or(ClientError::NoCarrier)?;
        let within = options.connect_timeout;
        let attached = async { Second::join(options, socket::connect(options, tls).await?, link).await };
        let late = || Err(ClientError::NoAnswer { server: options.server.clone(), within });
        timeout(within, attached).await.unwrap_or_else(|_| late())
    }

    async fn over_quic(
        &self,
        options: &ClientBuilder,
        token: Option<Token>,
        topics: &Arc<Topics>,
    ) -> Result<Connected, ClientError> {
        let Some(endpoint) = &self.endpoint else { return Err(ClientError::NoCarrier) };
        let dialled = quic::connect(endpoint, &options.server, Link::greeting(options, token, topics)).await?;
        Link::over_quic(options, dialled, topics).await
    }

    /// Tries both. The handshake on the WebSocket waits until the client has chosen it.
    async fn race(
        &self,
        options: &ClientBuilder,
        token: Option<Token>,
        topics: &Arc<Topics>,
        tls: &Arc<rustls::ClientConfig>,
    ) -> Result<Connected, ClientError> {
        let started = tokio::time::Instant::now();
        let is_quic_first = self.is_quic_first(options);
        let settle = started + options.settle;
        let shown = token.clone();
        let quic = async {
            if !is_quic_first {
                // It failed recently, so the socket gets the head start.
                sleep_until(settle).await;
            }
            self.over_quic(options, shown, topics).await
        };
        let socket = async {
            if is_quic_first {
                sleep(HEAD_START.min(options.settle)).await;
            }
            socket::connect(options, tls).await
        };
        tokio::pin!(quic, socket);
        let opened = tokio::select! {
            biased;
            connected = &mut quic => match connected {
                Err(error) if is_transport_error(&error) => {
                    // The head start is over. If both fail, the error of QUIC is the more useful one.
                    let opened = tokio::select! {
                        opened = socket::connect(options, tls) => opened,
                        opened = &mut socket => opened,
                    };
                    opened.map_err(|other| if is_more_useful(&other) { other } else { error })
                }
                connected => {
                    self.record_quic_result(connected.is_ok());
                    return connected;
                }
            },
            opened = &mut socket => match opened {
                Ok(opened) if is_quic_first => tokio::select! {
                    biased;
                    connected = &mut quic => match connected {
                        Err(error) if is_transport_error(&error) => Ok(opened),
                        connected => {
                            self.record_quic_result(connected.is_ok());
                            return connected;
                        }
                    },
                    () = sleep_until(settle) => Ok(opened),
                },
                Ok(opened) => Ok(opened),
                Err(other) => {
                    let connected = tokio::select! {
                        connected = &mut quic => connected,
                        // An answer of the server itself need not wait for QUIC.
                        () = sleep_until(settle), if is_more_useful(&other) => return Err(other),
                    };
                    if connected.is_ok() {
                        self.record_quic_result(true);
                    }
                    return connected.map_err(|error| if is_more_useful(&other) { other } else { error });
                }
            },
        }?;
        self.record_quic_result(false);
        Link::over_socket(options, opened, Link::greeting(options, token, topics), topics).await
    }
}

async fn over_socket(
    options: &ClientBuilder,
    token: Option<Token>,
    topics: &Arc<Topics>,
    tls: &Arc<rustls::ClientConfig>,
) -> Result<Connected, ClientError> {
    let opened = socket::connect(options, tls).await?;
    Link::over_socket(options, opened, Link::greeting(options, token, topics), topics).await
}

/// Whether another way may reach the server: the server itself has not refused.
fn is_transport_error(error: &ClientError) -> bool {
    matches!(error, ClientError::Connection { .. } | ClientError::NoAnswer { .. } | ClientError::Socket(_))
}

/// Whether the error of the second way is the one to report.
fn is_more_useful(error: &ClientError) -> bool {
    !is_transport_error(error)
}

/// The addresses with the two families alternating, beginning with the first one's (RFC 8305 section 4).
fn alternate(addrs: impl Iterator<Item = SocketAddr>) -> Vec<SocketAddr> {
    let mut addrs = addrs.peekable();
    let is_ipv4_first = addrs.peek().is_some_and(SocketAddr::is_ipv4);
    let (first, second): (Vec<_>, Vec<_>) = addrs.partition(|addr| addr.is_ipv4() == is_ipv4_first);
    let mut second = second.into_iter();
    let mut turns: Vec<_> = first.into_iter().flat_map(|addr| [Some(addr), second.next()]).flatten().collect();
    turns.extend(second);
    turns
}

/// The addresses of a `host:port`.
async fn addresses(server: &str) -> Result<Vec<SocketAddr>, ClientError> {
    let found = tokio::net::lookup_host(server).await.map_err(|error| {
        let (server, message) = (server.to_owned(), error.to_string());
        match error.kind() {
            std::io::ErrorKind::InvalidInput => ClientError::Address { server, message },
            // The name may resolve later.
            _ => ClientError::Connection { server, message },
        }
    })?;
    Ok(alternate(found))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_an_address_that_is_none_is_wrong_for_good() {
        for wrong in ["localhost", "localhost:port", "localhost:70000", ""] {
            let error = addresses(wrong).await.expect_err("it is no address");
            assert!(matches!(error, ClientError::Address { .. }), "{wrong}: {error}");
        }
        // Too long for a name, so no resolver is asked.
        let unknown = format!("{}.invalid:4433", "x".repeat(64));
        let error = addresses(&unknown).await.expect_err("it does not resolve");
        assert!(matches!(error, ClientError::Connection { .. }), "{error}");
    }

    #[test]
    fn address_families_take_turns() {
        let addrs = |texts: &[&str]| texts.iter().map(|text| text.parse().expect("an address")).collect::<Vec<_>>();
        let given = addrs(&["[::1]:1", "[::2]:1", "[::3]:1", "10.0.0.1:1"]);
        let turns = addrs(&["[::1]:1", "10.0.0.1:1", "[::2]:1", "[::3]:1"]);
        assert_eq!(alternate(given.into_iter()), turns);
        let given = addrs(&["10.0.0.1:1", "[::1]:1", "[::2]:1"]);
        assert_eq!(alternate(given.clone().into_iter()), given);
    }
}
