//! The certificate that web pages trust by its hash: in development, or if the settings say so, clients on WebTransport
//! get one created for this purpose, and all others the usual one.

#![allow(clippy::expect_used, clippy::panic)] // A test fails by panicking.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use crate::common::over::Over;
use crate::common::web_transport;
use crate::common::{RawClient, TestServer, endpoint_trusting, now_ms, soon, until};
use quic_websocket::Config;
use quic_websocket::tls::{CertificateHash, DevelopmentFiles};
use quinn::crypto::rustls::HandshakeData;
use quinn::{Connection, TransportConfig};
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use web_transport_quinn::{ClientBuilder, Session, crypto};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::oid_registry::OID_EC_P256;
use x509_parser::prelude::FromDer;

const DAY_S: i64 = 24 * 60 * 60;

/// The configuration without any settings.
fn usual(config: &mut Config) {
    config.webtransport.short_lived_certificate = None;
}

fn hash(server: &TestServer) -> Option<CertificateHash> {
    server.status.short_lived().hash()
}

/// A session of a client that trusts certificates with one of these hashes.
async fn by_hash(addr: SocketAddr, hashes: &[[u8; 32]]) -> Option<Session> {
    let hashes = hashes.iter().map(|hash| hash.to_vec()).collect();
    let client = ClientBuilder::new().with_server_certificate_hashes(hashes).expect("a client");
    soon("an answer", client.connect(web_transport::request(addr, "/wt"))).await.ok()
}

fn certificate(connection: &Connection) -> CertificateDer<'static> {
    let identity = connection.peer_identity().expect("a server presents its certificate");
    let chain = identity.downcast::<Vec<CertificateDer<'static>>>().expect("certificates");
    chain[0].clone()
}

/// The certificate shown on native QUIC, or to clients that offer these protocols; with the negotiated protocol.
async fn shown(server: &TestServer, protocols: &[&str]) -> Option<(CertificateDer<'static>, Vec<u8>)> {
    let endpoint = endpoint_trusting(&server.files.ca, protocols, TransportConfig::default());
    let connecting = endpoint.connect(server.addr, "localhost").expect("it begins");
    let connection = soon("an answer", connecting).await.ok()?;
    let data = connection.handshake_data().expect("it is done").downcast::<HandshakeData>().expect("TLS");
    Some((certificate(&connection), data.protocol.expect("a protocol")))
}

fn sha256(certificate: &CertificateDer<'_>) -> Vec<u8> {
    crypto::sha256(&Arc::new(rustls::crypto::aws_lc_rs::default_provider()), certificate).as_ref().to_vec()
}

fn names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let names = certificate.subject_alternative_name().expect("no two of them").expect("it has names");
    let text = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => (*name).to_owned(),
        GeneralName::IPAddress(ip) => ip.iter().map(ToString::to_string).collect::<Vec<_>>().join("."),
        other => panic!("expected no {other:?}"),
    };
    names.value.general_names.iter().map(text).collect()
}

/// The files of a certificate that is not for development.
fn somebodys_own(folder: &tempfile::TempDir, names: &[&str]) -> DevelopmentFiles {
    let files = DevelopmentFiles::inside(folder.path());
    let params = CertificateParams::new(names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>());
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).expect("a key");
    let made = params.expect("parameters").self_signed(&key).expect("a certificate");
    std::fs::write(&files.cert, made.pem()).expect("written");
    std::fs::write(&files.key, key.serialize_pem()).expect("written");
    files
}

#[tokio::test]
async fn web_pages_get_a_certificate_they_can_trust_by_hash_and_others_the_usual_one() {
    let server = TestServer::start_with(usual).await;
    let told = hash(&server).expect("in development there is one");
    let session = by_hash(server.addr, &[told.sha256]).await.expect("the hash is good");
    let der = certificate(&session);
    assert_eq!(sha256(&der), told.sha256, "that of the certificate that is shown");
    let (_, own) = X509Certificate::from_der(&der).expect("a certificate");
    let holds = own.validity();
    assert!(holds.is_valid() && holds.not_after.timestamp() - holds.not_before.timestamp() <= 14 * DAY_S);
    assert_eq!(u64::try_from(holds.not_after.timestamp()).expect("after 1970") * 1000, told.not_after);
    assert!(told.not_after > now_ms() + 12 * 86_400_000);
    let curve = own.public_key().algorithm.parameters.as_ref().and_then(|curve| curve.as_oid().ok());
    assert_eq!(curve, Some(OID_EC_P256));
    assert_eq!(names(&own), ["localhost", "127.0.0.1"]);
    let mut page = web_transport::over(session).await;
    page.handshake("Ada").await;
    page.control.lives("a client connected by hash").await;

    let mut other = told.sha256;
    other[0] ^= 1;
    assert!(by_hash(server.addr, &[other]).await.is_none(), "another hash is not good");
    let in_file = CertificateDer::from_pem_file(&server.files.cert).expect("a certificate");
    for protocols in [&["qws/1"][..], &["qws/1", "h3"], &["h3", "qws/1"]] {
        assert_eq!(shown(&server, protocols).await, Some((in_file.clone(), b"qws/1".to_vec())), "{protocols:?}");
    }
    assert_eq!(shown(&server, &["h3"]).await, None, "the authority has not signed it");
    assert_eq!(hash(&server), Some(told), "it stays the same");
    server.stop().await;
}

#[tokio::test]
async fn each_start_creates_another_certificate() {
    let mut told = Vec::new();
    for _ in 0..2 {
        let server = TestServer::start_with(usual).await;
        told.push(hash(&server).expect("there is one").sha256);
        server.stop().await;
    }
    assert_ne!(told[0], told[1]);
}

#[tokio::test]
async fn the_setting_decides_whether_there_is_one_and_by_default_the_usual_certificate() {
    let folder = tempfile::tempdir().expect("a folder");
    let own = somebodys_own(&folder, &["app.example", "*.app.example", "127.0.0.1"]);
    for (setting, is_own, expected) in [
        (None, true, None),
        (Some(false), true, None),
        (Some(true), true, Some(&["app.example", "*.app.example", "127.0.0.1"][..])),
        (Some(false), false, None),
        (Some(true), false, Some(&["localhost", "127.0.0.1"])),
    ] {
        let server = TestServer::start_with(|config| {
            config.webtransport.short_lived_certificate = setting;
            if is_own {
                (config.tls.cert, config.tls.key) = (own.cert.clone(), own.key.clone());
            }
        })
        .await;
        let told = hash(&server);
        assert_eq!(told.is_some(), expected.is_some(), "{setting:?}");
        let usual = if is_own { &own.cert } else { &server.files.cert };
        let usual = CertificateDer::from_pem_file(usual).expect("a certificate");
        let hashes = [told.map_or_else(|| sha256(&usual).try_into().expect("32 bytes"), |told| told.sha256)];
        let der =
            certificate(&by_hash(server.addr, &hashes).await.expect("the hash matches the presented certificate"));
        match expected {
            Some(expected) => assert_eq!(names(&X509Certificate::from_der(&der).expect("a certificate").1), expected),
            None => assert_eq!(der, usual),
        }
        server.stop().await;
    }
}

#[tokio::test]
async fn a_replaced_certificate_with_other_names_creates_another_and_drops_no_client() {
    let server = TestServer::start_with(usual).await;
    let first = hash(&server).expect("there is one");
    let mut clients = vec![server.client("Ada").await];
    let by_first = by_hash(server.addr, &[first.sha256]).await.expect("the hash is good");
    clients.push(over(by_first).await);
    server.files.make(&["localhost".into(), "192.0.2.7".into()], true).expect("certificates");
    until("another hash", || hash(&server) != Some(first)).await;
    let second = hash(&server).expect("there is one").sha256;
    let by_second = soon("the new certificate on all workers", async {
        loop {
            if let Some(session) = by_hash(server.addr, &[second]).await {
                return session;
            }
        }
    })
    .await;
    clients.push(over(by_second).await);
    for client in &mut clients {
        client.control.lives("a connected client").await;
    }
    // A certificate that is not for development: no page needs a hash.
    let folder = tempfile::tempdir().expect("a folder");
    let own = somebodys_own(&folder, &["localhost"]);
    for (from, to) in [(&own.key, &server.files.key), (&own.cert, &server.files.cert)] {
        replace(from, to);
    }
    until("no hash", || hash(&server).is_none()).await;
    for client in &mut clients {
        client.control.lives("a connected client").await;
    }
    server.stop().await;
}

async fn over(session: Session) -> RawClient {
    let mut client = web_transport::over(session).await;
    client.handshake("by hash").await;
    client
}

fn replace(from: &Path, to: &Path) {
    std::fs::rename(from, to).expect("replaced");
}

#[tokio::test]
async fn clients_of_the_authority_reach_both_carriers_if_configured() {
    let server = TestServer::start_with(|config| config.webtransport.short_lived_certificate = Some(false)).await;
    for over in Over::QUIC {
        over.client(&server, "Ada").await.control.lives("a client that trusts the authority").await;
    }
    server.stop().await;
}
