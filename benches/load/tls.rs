//! How clients check a server's certificate, and whether they resume sessions.
//!
//! Certificate verifications are counted: a resumed session needs none, so the count is that of full handshakes.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context as _, Result};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CipherSuite, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

/// Accepted certificates.
#[derive(Debug, Clone)]
pub(crate) enum Trust {
    /// Those signed by an authority in this PEM file.
    Authority(PathBuf),
    /// Any: the server may be anyone.
    Anyone,
}

/// TLS 1.3 configurations with separate session tickets; verified certificates are counted.
pub(super) fn client_configs(
    trust: &Trust,
    alpn: &[&[u8]],
    resume: bool,
    count: usize,
    verified: &Arc<AtomicU64>,
) -> Result<Vec<Arc<ClientConfig>>> {
    let mut provider = aws_lc_rs::default_provider();
    // In the order of browsers; AES-256 would use SHA-384, which is slow on processors that accelerate SHA-256 only.
    provider.cipher_suites.sort_by_key(|suite| suite.suite() != CipherSuite::TLS13_AES_128_GCM_SHA256);
    let provider = Arc::new(provider);
    let authority = match trust {
        Trust::Anyone => None,
        Trust::Authority(path) => {
            let mut roots = RootCertStore::empty();
            let explain =
                || format!("cannot read the certificates in {} (name another file with --ca)", path.display());
            for certificate in CertificateDer::pem_file_iter(path).with_context(explain)? {
                roots.add(certificate.with_context(explain)?)?;
            }
            Some(WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build()?)
        }
    };
    let verifier = Verifier { authority, provider: Arc::clone(&provider), verified: Arc::clone(verified) };
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    let configs = (0..count).map(|_| {
        let mut config = config.clone();
        config.resumption = if resume { Resumption::in_memory_sessions(1) } else { Resumption::disabled() };
        Arc::new(config)
    });
    Ok(configs.collect())
}

/// The usual verification with a counter; without an authority only the signatures are checked.
#[derive(Debug)]
struct Verifier {
    authority: Option<Arc<WebPkiServerVerifier>>,
    provider: Arc<CryptoProvider>,
    verified: Arc<AtomicU64>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.verified.fetch_add(1, Ordering::Relaxed);
        match &self.authority {
            Some(authority) => authority.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now),
            None => Ok(ServerCertVerified::assertion()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
