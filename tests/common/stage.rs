//! A server scripted by the test, which does to clients what a real one does only on a bad day.

use std::net::SocketAddr;
use std::sync::Arc;

use quic_websocket::tls::{DevelopmentFiles, Trust};
use quic_websocket::{Client, ClientBuilder};
use quinn::crypto::rustls::QuicServerConfig;
use quinn::{Connection, Endpoint, TransportConfig};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::json;

use super::{RawLane, soon};

/// An endpoint that accepts connections as a server does; the test does the rest.
pub struct Stage {
    pub endpoint: Endpoint,
    pub addr: SocketAddr,
    pub files: DevelopmentFiles,
    /// The id that it assigns to its clients.
    pub client_id: uuid::Uuid,
    _folder: tempfile::TempDir,
}

/// The server's end of a connection on which the handshake was accepted.
pub struct Played {
    pub connection: Connection,
    pub control: RawLane,
}

impl Stage {
    pub fn new() -> Self {
        Self::with_window(1 << 20)
    }

    /// A server with this receive window on each stream.
    pub fn with_window(window: u32) -> Self {
        Self::with(window, |_| {})
    }

    /// A server with a certificate created by the test, instead of the existing files.
    pub fn showing(make: impl FnOnce(&DevelopmentFiles)) -> Self {
        Self::with(1 << 20, make)
    }

    fn with(window: u32, make: impl FnOnce(&DevelopmentFiles)) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let files = DevelopmentFiles::inside(folder.path());
        files.make(&["127.0.0.1".into()], false).expect("certificates");
        make(&files);
        let mut tls =
            rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
                .with_protocol_versions(&[&rustls::version::TLS13])
                .expect("TLS 1.3")
                .with_no_client_auth()
                .with_single_cert(
                    vec![CertificateDer::from_pem_file(&files.cert).expect("the certificate")],
                    PrivateKeyDer::from_pem_file(&files.key).expect("its key"),
                )
                .expect("they fit");
        tls.alpn_protocols = vec![b"qws/1".to_vec()];
        let mut transport = TransportConfig::default();
        transport.stream_receive_window(window.into());
        let mut config =
            quinn::ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls).expect("QUIC over TLS")));
        config.transport_config(Arc::new(transport));
        let endpoint = Endpoint::server(config, "127.0.0.1:0".parse().expect("an address")).expect("a socket");
        let addr = endpoint.local_addr().expect("its address");
        Self { endpoint, addr, files, client_id: uuid::Uuid::new_v4(), _folder: folder }
    }

    pub fn builder(&self) -> ClientBuilder {
        Client::builder(self.addr.to_string()).trust(Trust::CaFile(self.files.ca.clone()))
    }

    /// Accepts one client.
    pub async fn accept(&self) -> Played {
        let incoming = soon("a connection", self.endpoint.accept()).await.expect("the endpoint lives");
        let connection = incoming.await.expect("it connects");
        let (send, receive) = soon("the control lane", connection.accept_bi()).await.expect("a stream");
        let mut control = RawLane { send, receive };
        control.expect("handshake").await;
        let id = self.client_id;
        control
            .say(json!({"type": "handshake_response", "accepted": true, "server_name": "Stage", "client_id": id}))
            .await;
        Played { connection, control }
    }
}
