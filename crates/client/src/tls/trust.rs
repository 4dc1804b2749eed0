//! Which servers a client trusts, and the certificate that it presents.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use quinn::crypto::rustls::QuicClientConfig;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ConfigBuilder, DigitallySignedStruct, RootCertStore, SignatureScheme, WantsVerifier};

use super::{TlsError, authorities, certificates, private_key, provider, unreadable};
use crate::development::development_folder;
use crate::message::ALPN;

/// What the files are for, in errors about them.
const AUTHORITY: &str = "the certificate authority";
const CERTIFICATE: &str = "the client's certificate";
const KEY: &str = "the client's key";

/// The servers that a client trusts.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Trust {
    /// Servers with a certificate from one of the system's authorities.
    #[default]
    System,
    /// The same, and servers with a certificate from `ca.pem` in
    /// [`development_folder`](super::development_folder), if it exists: for development next to a server that made its
    /// own certificates.
    Development,
    /// Servers with a certificate from the authorities in this PEM file.
    CaFile(PathBuf),
    /// All servers, unchecked. Anyone on the network path can read and change everything; for development only.
    Insecure,
}

/// The TLS settings of a client's QUIC endpoint. `identity` names the files of the client's certificate and key;
/// `early_data` is whether to offer early data when a session is resumed.
#[doc(hidden)]
pub fn client_config(
    trust: &Trust,
    identity: Option<&(PathBuf, PathBuf)>,
    early_data: bool,
) -> Result<Arc<QuicClientConfig>, TlsError> {
    let builder =
        rustls::ClientConfig::builder_with_provider(provider()).with_protocol_versions(&[&rustls::version::TLS13]);
    let builder = builder.map_err(TlsError::setup)?;
    let mut config = trusting(builder, trust, identity)?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.enable_early_data = early_data;
    Ok(Arc::new(QuicClientConfig::try_from(config).map_err(TlsError::setup)?))
}

/// The TLS side of a client's WebSocket.
pub(crate) fn socket_config(
    trust: &Trust,
    identity: Option<&(PathBuf, PathBuf)>,
) -> Result<Arc<rustls::ClientConfig>, TlsError> {
    // A proxy before the server may know TLS 1.2 alone.
    let builder = rustls::ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
    let builder = builder.map_err(TlsError::setup)?;
    let mut config = trusting(builder, trust, identity)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

fn trusting(
    builder: ConfigBuilder<rustls::ClientConfig, WantsVerifier>,
    trust: &Trust,
    identity: Option<&(PathBuf, PathBuf)>,
) -> Result<rustls::ClientConfig, TlsError> {
    let builder = match trust {
        Trust::Insecure => builder.dangerous().with_custom_certificate_verifier(Arc::new(BelieveAll(provider()))),
        Trust::CaFile(path) => builder.with_root_certificates(file_roots(path)?),
        Trust::System => builder.with_root_certificates(system_roots(None)?),
        Trust::Development => {
            let ca = development_folder().join("ca.pem");
            builder.with_root_certificates(system_roots(ca.exists().then_some(&*ca))?)
        }
    };
    match identity {
        Some((cert, key)) => {
            let chain = certificates(&read(cert, CERTIFICATE)?, cert, CERTIFICATE)?;
            let private = private_key(&read(key, KEY)?, key, KEY)?;
            builder.with_client_auth_cert(chain, private).map_err(|cause| TlsError::unusable(cert, key, &cause))
        }
        None => Ok(builder.with_no_client_auth()),
    }
}

/// The TLS settings for fetching over HTTPS: trusts the system's authorities if it is used, otherwise none.
#[doc(hidden)]
pub fn https_config(is_used: bool) -> Result<rustls::ClientConfig, TlsError> {
    let builder = rustls::ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
    let builder = builder.map_err(TlsError::setup)?;
    let roots = if is_used { system_roots(None)? } else { RootCertStore::empty() };
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

fn read(path: &Path, setting: &'static str) -> Result<Vec<u8>, TlsError> {
    fs::read(path).map_err(|e| unreadable(path, setting, e.kind()))
}

fn file_roots(path: &Path) -> Result<RootCertStore, TlsError> {
    authorities(&read(path, AUTHORITY)?, path, AUTHORITY)
}

fn system_roots(development: Option<&Path>) -> Result<RootCertStore, TlsError> {
    let mut roots = development.map_or_else(|| Ok(RootCertStore::empty()), file_roots)?;
    let system = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(system.certs);
    if roots.is_empty() {
        let why: Vec<String> = system.errors.iter().map(ToString::to_string).collect();
        return Err(TlsError::NoRoots(if why.is_empty() { "the system has none".into() } else { why.join("; ") }));
    }
    Ok(roots)
}

/// Takes any certificate, but still has the server prove that it holds the certificate's key.
#[derive(Debug)]
struct BelieveAll(Arc<CryptoProvider>);

impl ServerCertVerifier for BelieveAll {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// The host part of `host:port`, as certificates name it.
#[doc(hidden)]
pub fn server_name(host: &str) -> &str {
    let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    if bare.parse::<IpAddr>().is_ok() { bare } else { host }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ipv6_brackets_are_not_part_of_the_name() {
        assert_eq!(["[::1]", "127.0.0.1", "example.org"].map(server_name), ["::1", "127.0.0.1", "example.org"]);
    }
}
