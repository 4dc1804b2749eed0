//! The server's TLS settings: made from files, and made again when these change, without affecting connections. Owns
//! the short-lived certificate of WebTransport and the warnings before an expiry. `Server` calls it, and passes new
//! settings to the workers.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use std::{fs, io};

use quic_websocket_client::tls::TlsError as SharedError;
use quinn::crypto::rustls::QuicServerConfig;
use rustls::SupportedProtocolVersion;
use rustls::crypto::aws_lc_rs;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ProducesTickets, ServerSessionMemoryCache, StoresServerSessions, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use tokio::time::sleep;
use tracing::{error, info, warn};

use super::expiry::{Expiry, ExpiryWatch};
use super::short_lived::{Certificate, PROTOCOLS, Publisher, ShortLived, Shown, is_for_development, wanted};
use super::validity::Phase;
use super::{
    TlsError, Validity, authorities, certificates, files as key_files, private_key, provider, provider_with, unreadable,
};
use crate::config::{self, TlsVersion};
use crate::reload::Cause;

/// The TLS settings of both transports.
#[derive(Clone)]
pub(crate) struct Sides {
    /// TLS 1.3 only, ALPN `qws/1` and `h3`.
    pub(crate) quic: Arc<QuicServerConfig>,
    /// TLS 1.3, and 1.2 if the settings allow it; ALPN `http/1.1`, with which every WebSocket starts.
    pub(crate) tcp: Arc<rustls::ServerConfig>,
}

/// The only problem with a certificate that time solves.
const NOT_YET: &str = "is not valid yet";

/// Longest time between two readings of the clock, which may be set meanwhile.
const RECHECK: Duration = Duration::from_secs(60);

/// Makes the TLS settings, and knows what they were made of.
pub(crate) struct ServerTls {
    files: config::Tls,
    /// Survives a change of the certificate: a client that resumes a session has checked the old one. Replaced if the
    /// clients' authorities change: a session vouches for a client certificate, and would go on doing so.
    resumption: Resumption,
    sessions: Option<usize>,
    /// Contents of the files of which the present settings were made.
    in_use: Contents,
    /// Contents when they were last looked at, so that each problem is logged once.
    seen: Contents,
    /// Whether the new certificate is not valid yet, and is checked again.
    is_early: bool,
    /// Setting for a short-lived certificate.
    setting: Option<bool>,
    short_lived: Option<Certificate>,
    publisher: Publisher,
    expiry: ExpiryWatch,
    clock: Box<dyn Fn() -> SystemTime + Send + Sync>,
}

impl ServerTls {
    /// Reads the files, and returns the settings as well: with stateless session tickets, or, for early data on QUIC,
    /// with at most `sessions` stored sessions. `short_lived` is the setting for such a certificate.
    pub(crate) fn load(
        files: &config::Tls,
        short_lived: Option<bool>,
        sessions: Option<usize>,
    ) -> Result<(Self, Sides), TlsError> {
        let contents = Contents::read(files);
        let mut tls = Self {
            files: files.clone(),
            resumption: Resumption::new(sessions)?,
            sessions,
            in_use: contents.clone(),
            seen: contents.clone(),
            is_early: false,
            setting: short_lived,
            short_lived: None,
            publisher: Publisher::new(),
            expiry: ExpiryWatch::new(files.expiry_warning_days),
            clock: Box::new(SystemTime::now),
        };
        let (settings, short_lived) = tls.settings(&contents, &tls.resumption)?;
        tls.short_lived = short_lived;
        tls.publisher.publish(tls.short_lived.as_ref());
        tls.expiry.begin(tls.validity(&contents));
        if let Err(e) = tls.is_in_time(&contents) {
            warn!("Clients will reject this server's certificate: {e}");
        }
        key_files::warn_of_readers(&files.key);
        Ok((tls, settings))
    }

    /// Whether the certificate in the files is a development certificate.
    pub(crate) fn is_for_development(&self) -> bool {
        let chain = text(&self.in_use.cert, &self.files.cert, "--cert")
            .and_then(|text| Ok(certificates(text, &self.files.cert, "--cert")?));
        chain.is_ok_and(|chain| chain.first().is_some_and(is_for_development))
    }

    /// The expiry of the certificate in the files.
    pub(crate) fn expiry(&self) -> Expiry {
        self.expiry.listener()
    }

    /// The short-lived certificate in use.
    pub(crate) fn short_lived(&self) -> ShortLived {
        self.publisher.listener()
    }

    /// Reads the files again, and returns new settings if they changed and are usable; else nothing changes. Logs the
    /// result; for unchanged files only on request.
    pub(crate) fn reload(&mut self, cause: Cause) -> Option<Sides> {
        let contents = Contents::read(&self.files);
        let is_news = contents != self.seen || cause == Cause::Requested;
        self.seen.clone_from(&contents);
        if !is_news && !self.is_early {
            return None;
        }
        let was_early = std::mem::take(&mut self.is_early);
        let cert = self.files.cert.display();
        if contents == self.in_use {
            info!("Certificate {cert} unchanged; nothing to reload");
            return None;
        }
        let is_same_authority = contents.client_ca == self.in_use.client_ca;
        let resumption = if is_same_authority { Ok(self.resumption.clone()) } else { Resumption::new(self.sessions) };
        let in_time = if contents.cert == self.in_use.cert { Ok(()) } else { self.is_in_time(&contents) };
        let made = in_time.and(resumption).and_then(|resumption| {
            let (settings, short_lived) = self.settings(&contents, &resumption)?;
            Ok((settings, short_lived, resumption))
        });
        match made {
            Ok((settings, short_lived, resumption)) => {
                self.resumption = resumption;
                info!("Certificate reloaded from {cert}; new connections use it");
                self.expiry.begin(self.validity(&contents));
                if contents.key != self.in_use.key {
                    key_files::warn_of_readers(&self.files.key);
                }
                self.in_use = contents;
                self.short_lived = short_lived;
                self.publisher.publish(self.short_lived.as_ref());
                Some(settings)
            }
            Err(e) => {
                self.is_early = matches!(e, TlsError::Time { why: NOT_YET, .. });
                if is_news || !was_early {
                    error!("Certificate not reloaded; the old one stays in use: {e}");
                }
                None
            }
        }
    }

    #[cfg(test)]
    pub(crate) fn set_clock(&mut self, clock: impl Fn() -> SystemTime + Send + Sync + 'static) {
        self.clock = Box::new(clock);
    }

    /// Waits until the short-lived certificate should be replaced. Cancel safe.
    pub(crate) async fn outlived(&self) {
        let Some(short_lived) = &self.short_lived else { return std::future::pending().await };
        loop {
            let left = short_lived.left((self.clock)());
            if left.is_zero() {
                return;
            }
            sleep(left.min(RECHECK)).await;
        }
    }

    /// Returns new settings with another short-lived certificate, if the present one has [outlived](Self::outlived) its
    /// time. If that fails, nothing changes.
    pub(crate) fn renew(&mut self) -> Option<Sides> {
        match self.settings(&self.in_use, &self.resumption) {
            Ok((settings, short_lived)) => {
                self.short_lived = short_lived;
                self.publisher.publish(self.short_lived.as_ref());
                Some(settings)
            }
            Err(e) => {
                error!("Cannot renew the WebTransport certificate; the old one stays in use for an hour: {e}");
                let now = (self.clock)();
                if let Some(short_lived) = &mut self.short_lived {
                    short_lived.extend(now);
                }
                None
            }
        }
    }

    /// Waits until a warning about the expiry of the certificate is due. Cancel safe.
    pub(crate) async fn expiring(&self) {
        while let Some(left) = self.expiry.next((self.clock)()) {
            if left.is_zero() {
                return;
            }
            sleep(left.min(RECHECK)).await;
        }
        std::future::pending().await
    }

    /// Logs that warning. The next one is due a day later.
    pub(crate) fn warn_of_expiry(&mut self) {
        let now = (self.clock)();
        self.expiry.warn(&self.files.cert.display().to_string(), now);
    }

    /// Validity of the certificate in the files.
    fn validity(&self, contents: &Contents) -> Option<Validity> {
        let path = &self.files.cert;
        let chain = certificates(text(&contents.cert, path, "--cert").ok()?, path, "--cert").ok()?;
        Validity::of(chain.first()?)
    }

    /// Whether the certificate in the files is valid now.
    fn is_in_time(&self, contents: &Contents) -> Result<(), TlsError> {
        let why = match self.validity(contents).map(|validity| validity.phase((self.clock)())) {
            Some(Phase::Expired) => "has expired",
            Some(Phase::NotYetValid) => NOT_YET,
            Some(Phase::Valid) | None => return Ok(()),
        };
        Err(TlsError::Time { path: self.files.cert.clone(), why })
    }

    /// Makes settings of the files' contents. Keeps the short-lived certificate while it is usable.
    fn settings(&self, contents: &Contents, resumption: &Resumption) -> Result<(Sides, Option<Certificate>), TlsError> {
        let regular = regular(&self.files, contents)?;
        let names = regular.cert.first().and_then(|own| wanted(self.setting, own));
        let now = (self.clock)();
        let short_lived = match (&self.short_lived, names) {
            (_, None) => None,
            (Some(kept), Some(names)) if kept.serves(&names, now) => Some(kept.clone()),
            (_, Some(names)) => Some(Certificate::make(names, now)?),
        };
        let shown = Shown { regular, short_lived: short_lived.as_ref().map(|made| Arc::clone(&made.key)) };
        Ok((sides(&self.files, contents, resumption, shown)?, short_lived))
    }
}

/// How clients resume sessions.
#[derive(Clone)]
enum Resumption {
    /// By tickets that contain everything needed, any number of times.
    Tickets(Arc<dyn ProducesTickets>),
    /// By sessions stored here, each usable once, so that early data is accepted at most once.
    Sessions(Arc<dyn StoresServerSessions>),
}

impl Resumption {
    fn new(sessions: Option<usize>) -> Result<Self, TlsError> {
        Ok(match sessions {
            None => Self::Tickets(aws_lc_rs::Ticketer::new()?),
            Some(most) => Self::Sessions(ServerSessionMemoryCache::new(most)),
        })
    }
}

/// Content of a file, or why it could not be read.
type Content = Result<Vec<u8>, io::ErrorKind>;

/// Contents of the files.
#[derive(Clone, PartialEq)]
struct Contents {
    cert: Content,
    key: Content,
    /// Content of the authorities' file, if one is set.
    client_ca: Option<Content>,
}

impl Contents {
    fn read(files: &config::Tls) -> Self {
        let read = |path: &PathBuf| fs::read(path).map_err(|e| e.kind());
        Self { cert: read(&files.cert), key: read(&files.key), client_ca: files.client_ca.as_ref().map(read) }
    }
}

/// The certificate in the files with its key.
fn regular(files: &config::Tls, contents: &Contents) -> Result<Arc<CertifiedKey>, TlsError> {
    let chain = certificates(text(&contents.cert, &files.cert, "--cert")?, &files.cert, "--cert")?;
    let private = private_key(text(&contents.key, &files.key, "--key")?, &files.key, "--key")?;
    let key = CertifiedKey::from_der(chain, private, &provider());
    Ok(Arc::new(key.map_err(|cause| SharedError::unusable(&files.cert, &files.key, &cause))?))
}

fn sides(files: &config::Tls, contents: &Contents, resumption: &Resumption, shown: Shown) -> Result<Sides, TlsError> {
    let verifier = match files.client_ca.as_ref().zip(contents.client_ca.as_ref()) {
        Some((path, content)) => client_verifier(path, content, files.client_required)?,
        None => WebPkiClientVerifier::no_client_auth(),
    };
    let provider = provider_with(files.post_quantum);
    let config = |versions: &[&'static SupportedProtocolVersion], shown| {
        let builder =
            rustls::ServerConfig::builder_with_provider(Arc::clone(&provider)).with_protocol_versions(versions)?;
        let builder = builder.with_client_cert_verifier(Arc::clone(&verifier));
        Ok::<_, TlsError>(builder.with_cert_resolver(Arc::new(shown)))
    };
    let over_tcp: &[&SupportedProtocolVersion] = match files.tcp_min_version {
        TlsVersion::Tls12 => &[&TLS13, &TLS12],
        TlsVersion::Tls13 => &[&TLS13],
    };
    let mut tcp = config(over_tcp, Shown { regular: Arc::clone(&shown.regular), short_lived: None })?;
    let mut config = config(&[&TLS13], shown)?;
    tcp.alpn_protocols = vec![b"http/1.1".to_vec()];
    // A separate one, because a session records what was negotiated over its own transport.
    tcp.ticketer = aws_lc_rs::Ticketer::new()?;
    config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).into();
    match resumption {
        Resumption::Tickets(tickets) => config.ticketer = Arc::clone(tickets),
        Resumption::Sessions(sessions) => {
            config.session_storage = Arc::clone(sessions);
            // The only value that QUIC allows (RFC 9001 section 4.6.1); its flow control bounds early data.
            config.max_early_data_size = u32::MAX;
        }
    }
    Ok(Sides { quic: Arc::new(QuicServerConfig::try_from(config)?), tcp: Arc::new(tcp) })
}

/// Checks client certificates against the authorities in a file.
fn client_verifier(path: &Path, content: &Content, required: bool) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    const SETTING: &str = "tls.client_ca";
    let roots = Arc::new(authorities(text(content, path, SETTING)?, path, SETTING)?);
    let builder = WebPkiClientVerifier::builder_with_provider(roots, provider());
    let builder = if required { builder } else { builder.allow_unauthenticated() };
    Ok(builder.build().map_err(|cause| SharedError::authority(path, SETTING, cause))?)
}

fn text<'a>(content: &'a Content, path: &Path, flag: &'static str) -> Result<&'a [u8], TlsError> {
    Ok(content.as_deref().map_err(|&kind| unreadable(path, flag, kind))?)
}

#[cfg(test)]
mod tests;
