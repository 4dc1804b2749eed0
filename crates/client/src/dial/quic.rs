//! From `host:port` to a QUIC connection.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use bytes::Bytes;
use quinn::{Connecting, Connection, ConnectionError, Endpoint, RecvStream, SendStream, TransportErrorCode};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::{HEAD_START, addresses, settings};
use crate::link::link_end;
use crate::tls;
use crate::{ClientBuilder, ClientError};

/// An endpoint for a client's connections. Its socket reaches servers of both address families if the system can.
pub(super) fn endpoint(options: &ClientBuilder) -> Result<Endpoint, ClientError> {
    let crypto = tls::client_config(&options.trust, options.identity.as_ref(), options.early_data)?;
    let mut endpoint = Endpoint::client((Ipv6Addr::UNSPECIFIED, 0).into())
        .or_else(|_| Endpoint::client((Ipv4Addr::UNSPECIFIED, 0).into()))
        .map_err(ClientError::Socket)?;
    endpoint.set_default_client_config(settings::client_config(options.keep_alive, crypto));
    Ok(endpoint)
}

/// A connection, with a control lane on which the first message has been sent.
pub(crate) struct Dialled {
    pub(crate) connection: Connection,
    pub(crate) control: (SendStream, RecvStream),
}

/// Connects to the first address of the server that answers, and sends `first` on the control lane: with the first
/// packets if the TLS session allows early data.
pub(super) async fn connect(endpoint: &Endpoint, server: &str, first: Bytes) -> Result<Dialled, ClientError> {
    let error = |message: String| ClientError::Address { server: server.to_owned(), message };
    let (host, _) = server.rsplit_once(':').ok_or_else(|| error("the port is missing".into()))?;
    connect_to_any(endpoint, addresses(server).await?, server, tls::server_name(host), first).await
}

async fn connect_to_any(
    endpoint: &Endpoint,
    addrs: Vec<SocketAddr>,
    server: &str,
    name: &str,
    first: Bytes,
) -> Result<Dialled, ClientError> {
    let failed = |message: String| ClientError::Connection { server: server.to_owned(), message };
    let mut addrs = addrs.into_iter();
    // Dropping it ends the attempts that are no longer needed.
    let mut attempts = JoinSet::new();
    let mut first_error = None;
    loop {
        match addrs.next().map(|addr| endpoint.connect(addr, name)) {
            Some(Ok(connecting)) => drop(attempts.spawn(attempt(connecting, first.clone()))),
            Some(Err(e)) => {
                first_error.get_or_insert_with(|| failed(e.to_string()));
                continue;
            }
            None if attempts.is_empty() => {
                return Err(first_error.unwrap_or_else(|| failed("its name has no address".into())));
            }
            None => {}
        }
        tokio::select! {
            Some(attempt) = attempts.join_next() => match attempt {
                Ok(Ok(dialled)) => return Ok(dialled),
                Ok(Err(e)) => drop(first_error.get_or_insert_with(|| connection_error(server, &e))),
                Err(e) => drop(first_error.get_or_insert_with(|| failed(e.to_string()))),
            },
            () = sleep(HEAD_START), if addrs.len() > 0 => {}
        }
    }
}

/// One attempt to connect, to the end of its TLS handshake: only then is the server known.
async fn attempt(connecting: Connecting, first: Bytes) -> Result<Dialled, ConnectionError> {
    let connection = match connecting.into_0rtt() {
        Ok((connection, accepted)) => {
            let early = begin(&connection, first.clone()).await;
            let is_accepted = accepted.await;
            if let Some(lost) = connection.close_reason() {
                return Err(lost);
            }
            if is_accepted {
                return Ok(Dialled { control: early?, connection });
            }
            // The early data and its lane are void; the connection itself is usable.
            connection
        }
        Err(connecting) => connecting.await?,
    };
    let control = begin(&connection, first).await?;
    Ok(Dialled { connection, control })
}

/// Opens the control lane. If the stream accepts nothing, reading it fails.
async fn begin(connection: &Connection, first: Bytes) -> Result<(SendStream, RecvStream), ConnectionError> {
    let (mut send, receive) = connection.open_bi().await?;
    let _ = send.write_chunk(first).await;
    Ok((send, receive))
}

/// The client's error for a connection that failed.
pub(crate) fn connection_error(server: &str, error: &ConnectionError) -> ClientError {
    let server = server.to_owned();
    match error {
        ConnectionError::TransportError(e) if e.reason.contains("certificate") => {
            ClientError::Untrusted { server, message: e.reason.clone() }
        }
        ConnectionError::ConnectionClosed(close) if is_about_certificate(close.error_code) => {
            ClientError::Certificate { server, message: close.to_string() }
        }
        ConnectionError::ApplicationClosed(_) => {
            let closed = link_end(&error.clone().into());
            ClientError::Refused { server, code: closed.code, reason: closed.reason, retry_after: None }
        }
        other => ClientError::Connection { server, message: other.to_string() },
    }
}

/// Whether a server closes with one of the TLS alerts (RFC 8446 section 6.2) that concern the client's certificate, as
/// QUIC codes it (RFC 9001 section 4.8).
fn is_about_certificate(code: TransportErrorCode) -> bool {
    // bad_certificate to unknown_ca, access_denied, decrypt_error (a wrong signature), certificate_required.
    (42..=49).chain([51, 116]).any(|alert| code == TransportErrorCode::crypto(alert))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::Arc;
    use std::time::Duration;

    use quic_websocket::tls::DevelopmentFiles;
    use quinn::crypto::rustls::QuicServerConfig;
    use rustls::version::TLS13;

    use super::*;
    use crate::Client;
    use crate::message::ALPN;
    use crate::tls::{Trust, certificates, private_key, provider};

    #[tokio::test]
    async fn an_address_without_an_answer_does_not_prevent_the_next() {
        let folder = tempfile::tempdir().expect("a folder");
        let files = DevelopmentFiles::inside(folder.path());
        files.make(&["localhost".into()], false).expect("certificates");
        let chain = fs::read(&files.cert).expect("the certificate");
        let chain = certificates(&chain, &files.cert, "--cert").expect("the certificate");
        let key = private_key(&fs::read(&files.key).expect("the key"), &files.key, "the key").expect("the key");
        let crypto = rustls::ServerConfig::builder_with_provider(provider()).with_protocol_versions(&[&TLS13]);
        let crypto = crypto.expect("TLS 1.3").with_no_client_auth().with_single_cert(chain, key);
        let mut crypto = crypto.expect("they fit");
        crypto.alpn_protocols = vec![ALPN.to_vec()];
        let crypto = Arc::new(QuicServerConfig::try_from(crypto).expect("a server's settings"));
        let any: SocketAddr = "127.0.0.1:0".parse().expect("an address");
        let server = Endpoint::server(quinn::ServerConfig::with_crypto(crypto), any).expect("a server");
        let silent = std::net::UdpSocket::bind(any).expect("a socket");
        let addrs = vec![silent.local_addr().expect("its address"), server.local_addr().expect("its address")];
        let served = tokio::spawn(async move { server.accept().await.expect("somebody comes").await });

        let endpoint = endpoint(&Client::builder("").trust(Trust::CaFile(files.ca))).expect("an endpoint");
        let connection = connect_to_any(&endpoint, addrs.clone(), "both", "localhost", Bytes::from_static(b"first"));
        let connection = tokio::time::timeout(Duration::from_secs(10), connection).await.expect("in time");
        let remote = connection.expect("it connects").connection.remote_address();
        assert_eq!(remote.port(), addrs[1].port());
        served.await.expect("no panic").expect("the server has it too");
    }
}
