//! The server's side of TLS: made from files, and made again when they have changed, without a connection noticing.

use std::path::Path;
use std::sync::Arc;
use std::{fs, io};

use quinn::crypto::rustls::QuicServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::ProducesTickets;
use tracing::{error, info};

use super::{TlsError, provider};
use crate::config;
use crate::message::ALPN;
use crate::reload::Cause;

/// What a server's TLS settings are made of.
pub(crate) struct ServerTls {
    files: config::Tls,
    /// Outlives a change of the certificate: who resumes a session has seen the old one, and believed it.
    tickets: Arc<dyn ProducesTickets>,
    /// What the files held when the settings in use were made.
    in_use: Contents,
    /// What they held the last time that they were looked at: of what cannot be used is told once.
    seen: Contents,
}

impl ServerTls {
    /// Reads the files. Gives the settings of the QUIC endpoints with it: TLS 1.3 only, ALPN `qws/1`, stateless session
    /// tickets.
    pub(crate) fn load(files: &config::Tls) -> Result<(Self, Arc<QuicServerConfig>), TlsError> {
        let contents = Contents::read(files);
        let tickets = aws_lc_rs::Ticketer::new()?;
        let settings = settings(files, &contents, &tickets)?;
        Ok((Self { files: files.clone(), tickets, in_use: contents.clone(), seen: contents }, settings))
    }

    /// Reads the files again, and gives new settings where they hold something new that can be used. Else all stays as
    /// it is. What came of it is logged; of files that are as they were, only where somebody asked.
    pub(crate) fn reload(&mut self, cause: Cause) -> Option<Arc<QuicServerConfig>> {
        let contents = Contents::read(&self.files);
        let is_news = contents != self.seen || cause == Cause::Asked;
        self.seen.clone_from(&contents);
        if !is_news {
            return None;
        }
        let cert = self.files.cert.display();
        if contents == self.in_use {
            info!("The certificate {cert} and its key are those in use: nothing to reload");
            return None;
        }
        match settings(&self.files, &contents, &self.tickets) {
            Ok(settings) => {
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

/// What the files held, or why they could not be read.
#[derive(Clone, PartialEq)]
struct Contents {
    cert: Result<Vec<u8>, io::ErrorKind>,
    key: Result<Vec<u8>, io::ErrorKind>,
}

impl Contents {
    fn read(files: &config::Tls) -> Self {
        let read = |path: &Path| fs::read(path).map_err(|e| e.kind());
        Self { cert: read(&files.cert), key: read(&files.key) }
    }
}

fn settings(
    files: &config::Tls,
    contents: &Contents,
    tickets: &Arc<dyn ProducesTickets>,
) -> Result<Arc<QuicServerConfig>, TlsError> {
    let chain = certificates(&contents.cert, &files.cert, "--cert")?;
    if chain.is_empty() {
        return Err(TlsError::Empty { path: files.cert.clone() });
    }
    let unread = |cause| TlsError::Read { path: files.key.clone(), flag: "--key", cause };
    let private = bytes(&contents.key).and_then(PrivateKeyDer::from_pem_slice).map_err(unread)?;
    let unusable = |cause| TlsError::Unusable { cert: files.cert.clone(), key: files.key.clone(), cause };
    let mut config = rustls::ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(chain, private)
        .map_err(unusable)?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.ticketer = Arc::clone(tickets);
    Ok(Arc::new(QuicServerConfig::try_from(config)?))
}

fn certificates(
    content: &Result<Vec<u8>, io::ErrorKind>,
    path: &Path,
    flag: &'static str,
) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let unread = |cause| TlsError::Read { path: path.to_owned(), flag, cause };
    bytes(content).and_then(|bytes| CertificateDer::pem_slice_iter(bytes).collect()).map_err(unread)
}

fn bytes(content: &Result<Vec<u8>, io::ErrorKind>) -> Result<&[u8], pem::Error> {
    content.as_deref().map_err(|&kind| pem::Error::Io(kind.into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::DevelopmentFiles;

    fn files(made: &DevelopmentFiles) -> config::Tls {
        config::Tls { cert: made.cert.clone(), key: made.key.clone() }
    }

    #[test]
    fn a_key_of_another_certificate_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let [one, two] = ["1", "2"].map(|name| DevelopmentFiles::inside(&folder.path().join(name)));
        for files in [&one, &two] {
            files.make(&["localhost".into()], false).expect("made");
        }
        let load = |cert: &Path, key: &Path| {
            ServerTls::load(&config::Tls { cert: cert.to_owned(), key: key.to_owned() }).map(|_| ())
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
        let (mut tls, _) = ServerTls::load(&files(&made)).expect("loaded");
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
}
