//! The server's side of TLS: made from files, and made again when they have changed, without a connection noticing.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{fs, io};

use quinn::crypto::rustls::QuicServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{
    ProducesTickets, ServerSessionMemoryCache, StoresServerSessions, VerifierBuilderError, WebPkiClientVerifier,
};
use tracing::{error, info};

use super::{TlsError, authorities, certificates, private_key, provider, unreadable};
use crate::config;
use crate::message::{ALPN, ALPN_WEBTRANSPORT};
use crate::reload::Cause;

/// The settings of both transports, with the same certificate.
#[derive(Clone)]
pub(crate) struct Sides {
    /// TLS 1.3 only, ALPN `qws/1` and `h3`.
    pub(crate) quic: Arc<QuicServerConfig>,
    /// TLS 1.3 only, ALPN `http/1.1`: a WebSocket needs no other, and begins with nothing else.
    pub(crate) tcp: Arc<rustls::ServerConfig>,
}

/// What a server's TLS settings are made of.
pub(crate) struct ServerTls {
    files: config::Tls,
    /// Outlives a change of the certificate: who resumes a session has seen the old one, and believed it. Not one of the
    /// clients' authorities: a session says that a certificate was good, and would go on saying so.
    resumption: Resumption,
    sessions: Option<usize>,
    /// What the files held when the settings in use were made.
    in_use: Contents,
    /// What they held the last time that they were looked at: of what cannot be used is told once.
    seen: Contents,
}

impl ServerTls {
    /// Reads the files. Gives the settings with it: stateless session tickets; or, on QUIC, early data, and so many sessions
    /// kept for that.
    pub(crate) fn load(files: &config::Tls, sessions: Option<usize>) -> Result<(Self, Sides), TlsError> {
        let contents = Contents::read(files);
        let resumption = Resumption::new(sessions)?;
        let settings = settings(files, &contents, &resumption)?;
        let tls = Self { files: files.clone(), resumption, sessions, in_use: contents.clone(), seen: contents };
        Ok((tls, settings))
    }

    /// Reads the files again, and gives new settings where they hold something new that can be used. Else all stays as
    /// it is. What came of it is logged; of files that are as they were, only where somebody asked.
    pub(crate) fn reload(&mut self, cause: Cause) -> Option<Sides> {
        let contents = Contents::read(&self.files);
        let is_news = contents != self.seen || cause == Cause::Asked;
        self.seen.clone_from(&contents);
        if !is_news {
            return None;
        }
        let cert = self.files.cert.display();
        if contents == self.in_use {
            info!("The certificate {cert} and what belongs to it are in use as they are: nothing to reload");
            return None;
        }
        let is_same_authority = contents.client_ca == self.in_use.client_ca;
        let resumption = if is_same_authority { Ok(self.resumption.clone()) } else { Resumption::new(self.sessions) };
        let made = resumption.and_then(|resumption| {
            let settings = settings(&self.files, &contents, &resumption)?;
            Ok((settings, resumption))
        });
        match made {
            Ok((settings, resumption)) => {
                self.resumption = resumption;
                info!("Certificate reloaded from {cert}; new connections get it");
                self.in_use = contents;
                Some(settings)
            }
            Err(e) => {
                error!("Certificate not reloaded, the old one stays in use: {e}");
                None
            }
        }
    }
}

/// How a client comes back without a full handshake.
#[derive(Clone)]
enum Resumption {
    /// By a ticket that holds all that is needed, any number of times.
    Tickets(Arc<dyn ProducesTickets>),
    /// By a session that is kept here and good once. So the server takes early data once, if at all.
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

/// What a file held, or why it could not be read.
type Content = Result<Vec<u8>, io::ErrorKind>;

/// What the files held.
#[derive(Clone, PartialEq)]
struct Contents {
    cert: Content,
    key: Content,
    /// Where the setting names one.
    client_ca: Option<Content>,
}

impl Contents {
    fn read(files: &config::Tls) -> Self {
        let read = |path: &PathBuf| fs::read(path).map_err(|e| e.kind());
        Self { cert: read(&files.cert), key: read(&files.key), client_ca: files.client_ca.as_ref().map(read) }
    }
}

fn settings(files: &config::Tls, contents: &Contents, resumption: &Resumption) -> Result<Sides, TlsError> {
    let chain = certificates(text(&contents.cert, &files.cert, "--cert")?, &files.cert, "--cert")?;
    let private = private_key(text(&contents.key, &files.key, "--key")?, &files.key)?;
    let unusable = |cause| TlsError::Unusable { cert: files.cert.clone(), key: files.key.clone(), cause };
    let builder =
        rustls::ServerConfig::builder_with_provider(provider()).with_protocol_versions(&[&rustls::version::TLS13])?;
    let builder = match files.client_ca.as_ref().zip(contents.client_ca.as_ref()) {
        Some((path, content)) => {
            builder.with_client_cert_verifier(client_verifier(path, content, files.client_required)?)
        }
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_single_cert(chain, private).map_err(unusable)?;
    let mut tcp = config.clone();
    tcp.alpn_protocols = vec![b"http/1.1".to_vec()];
    // Its own: a session says what the other transport agreed on.
    tcp.ticketer = aws_lc_rs::Ticketer::new()?;
    // Who speaks both gets the former.
    config.alpn_protocols = vec![ALPN.to_vec(), ALPN_WEBTRANSPORT.to_vec()];
    match resumption {
        Resumption::Tickets(tickets) => config.ticketer = Arc::clone(tickets),
        Resumption::Sessions(sessions) => {
            config.session_storage = Arc::clone(sessions);
            // The only amount that QUIC knows (RFC 9001 section 4.6.1): its flow control is what bounds early data.
            config.max_early_data_size = u32::MAX;
        }
    }
    Ok(Sides { quic: Arc::new(QuicServerConfig::try_from(config)?), tcp: Arc::new(tcp) })
}

/// What checks the certificates of clients against the authorities in a file.
fn client_verifier(path: &Path, content: &Content, required: bool) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    const SETTING: &str = "tls.client_ca";
    let roots = Arc::new(authorities(text(content, path, SETTING)?, path, SETTING)?);
    let builder = WebPkiClientVerifier::builder_with_provider(roots, provider());
    let builder = if required { builder } else { builder.allow_unauthenticated() };
    let refused =
        |e: VerifierBuilderError| TlsError::Authority { path: path.to_owned(), flag: SETTING, cause: e.to_string() };
    builder.build().map_err(refused)
}

fn text<'a>(content: &'a Content, path: &Path, flag: &'static str) -> Result<&'a [u8], TlsError> {
    content.as_deref().map_err(|&kind| unreadable(path, flag, kind))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::ClientName;
    use crate::tls::{ClientFiles, DevelopmentFiles};

    fn files(made: &DevelopmentFiles) -> config::Tls {
        config::Tls { cert: made.cert.clone(), key: made.key.clone(), ..config::Tls::default() }
    }

    #[test]
    fn a_key_of_another_certificate_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let [one, two] = ["1", "2"].map(|name| DevelopmentFiles::inside(&folder.path().join(name)));
        for files in [&one, &two] {
            files.make(&["localhost".into()], false).expect("made");
        }
        let load = |cert: &Path, key: &Path| {
            let files = config::Tls { cert: cert.to_owned(), key: key.to_owned(), ..config::Tls::default() };
            ServerTls::load(&files, None).map(|_| ())
        };
        assert!(matches!(load(&one.cert, &two.key), Err(TlsError::Unusable { .. })));
        fs::write(&two.cert, "no certificate").expect("written");
        assert!(matches!(load(&two.cert, &two.key), Err(TlsError::Empty { .. })));
        assert!(matches!(load(&one.cert, Path::new("/nonexistent")), Err(TlsError::Read { .. })));
    }

    #[test]
    fn only_files_that_changed_and_can_be_used_make_new_settings() {
        let folder = tempfile::tempdir().expect("a folder");
        let made = DevelopmentFiles::inside(folder.path());
        made.make(&["localhost".into()], false).expect("made");
        let (mut tls, _) = ServerTls::load(&files(&made), None).expect("loaded");
        assert!(tls.reload(Cause::Changed).is_none(), "they are as they were");
        made.make(&["localhost".into()], true).expect("made");
        assert!(tls.reload(Cause::Changed).is_some(), "both are new");
        assert!(tls.reload(Cause::Asked).is_none(), "and known by now");

        let good = fs::read(&made.key).expect("the key");
        fs::remove_file(&made.key).expect("removed");
        assert!(tls.reload(Cause::Changed).is_none(), "the key is gone");
        fs::write(&made.key, &good).expect("written");
        assert!(tls.reload(Cause::Changed).is_none(), "and back");
        fs::write(&made.cert, "no certificate").expect("written");
        assert!(tls.reload(Cause::Asked).is_none(), "the certificate is none");
        made.make(&["localhost".into()], true).expect("made");
        assert!(tls.reload(Cause::Changed).is_some(), "a mistake does not last");
    }
    #[test]
    fn a_changed_authority_of_clients_ends_the_sessions_that_it_vouched_for() {
        let folder = tempfile::tempdir().expect("a folder");
        let made = DevelopmentFiles::inside(folder.path());
        made.make(&["localhost".into()], false).expect("made");
        let clients = ClientFiles::inside(folder.path());
        let name = ClientName::new("Ada").expect("a name");
        clients.make(&name, false).expect("made");
        let files = config::Tls { client_ca: Some(clients.ca.clone()), ..files(&made) };
        for sessions in [None, Some(100)] {
            let (mut tls, _) = ServerTls::load(&files, sessions).expect("loaded");
            let known = |tls: &ServerTls, key: &[u8]| match &tls.resumption {
                Resumption::Tickets(tickets) => tickets.decrypt(key).is_some(),
                Resumption::Sessions(sessions) => sessions.get(key).is_some(),
            };
            let key = match &tls.resumption {
                Resumption::Tickets(tickets) => tickets.encrypt(b"a session").expect("a ticket"),
                Resumption::Sessions(sessions) => {
                    assert!(sessions.put(b"its key".to_vec(), b"a session".to_vec()));
                    b"its key".to_vec()
                }
            };
            made.make(&["localhost".into()], true).expect("made");
            assert!(tls.reload(Cause::Changed).is_some(), "another certificate");
            assert!(known(&tls, &key));
            fs::write(&clients.ca, "no authority").expect("written");
            assert!(tls.reload(Cause::Changed).is_none(), "no authority");
            assert!(known(&tls, &key), "all is as it was");
            clients.make(&name, true).expect("made");
            assert!(tls.reload(Cause::Changed).is_some(), "another authority");
            assert!(!known(&tls, &key));
        }
    }
}
