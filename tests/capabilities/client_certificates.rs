//! A server with authorities for client certificates accepts theirs, refuses others in TLS, and refuses clients without
//! a certificate if they have no other credentials. A certificate makes its client a user.

#![allow(clippy::expect_used, clippy::panic)] // A test fails by panicking.

use crate::common::library::builder;
use crate::common::over::{Over, Party};
use crate::common::{RawClient, TestServer, soon, tokens, until, web_socket, web_transport};
use quic_websocket::message::ClientName;
use quic_websocket::tls::{ClientFiles, DevelopmentFiles};
use quic_websocket::{ClientBuilder, ClientError};
use quinn::{ConnectionError, TransportErrorCode};
use serde_json::json;

/// RFC 8446 section 6.2.
const UNSUPPORTED_CERTIFICATE: u8 = 43;
const DECRYPT_ERROR: u8 = 51;
const CERTIFICATE_REQUIRED: u8 = 116;

fn certified(folder: &tempfile::TempDir, name: &str) -> ClientFiles {
    let files = ClientFiles::inside(&folder.path().join(name));
    files.make(&ClientName::new(name).expect("a name"), true).expect("certificates");
    files
}

async fn server_trusting(clients: &ClientFiles, required: bool) -> TestServer {
    TestServer::start_with(|config| {
        config.tls.client_ca = Some(clients.ca.clone());
        config.tls.client_required = required;
    })
    .await
}

fn with(builder: ClientBuilder, files: &ClientFiles) -> ClientBuilder {
    builder.certificate(&files.cert, &files.key)
}

/// A connection of a client that presents a certificate.
async fn showing(over: Over, server: &TestServer, identity: &ClientFiles) -> Party {
    let identity = Some(identity);
    match over {
        Over::Native => RawClient::connect(&server.endpoint_showing(identity), server.addr).await.into(),
        Over::WebTransport => {
            let endpoint = server.endpoint_showing_for(identity, "h3");
            let connecting = endpoint.connect(server.addr, "localhost").expect("a connection begins");
            let connection = soon("a connection", connecting).await.expect("it connects");
            let session = web_transport::session(connection, server.addr, "/wt").await.expect("a session");
            web_transport::over(session).await.into()
        }
        Over::WebSocket => web_socket::open_showing(server, identity).await.expect("a WebSocket").into(),
    }
}

async fn refused(builder: ClientBuilder) -> String {
    match soon("an answer", builder.connect()).await {
        Err(error @ ClientError::Certificate { .. }) => error.to_string(),
        other => panic!("expected the certificate to be refused, got {:?}", other.map(|_| "a client")),
    }
}

#[tokio::test]
async fn a_client_is_accepted_with_its_authority_and_refused_with_another() {
    let folder = tempfile::tempdir().expect("a folder");
    let (ada, eve) = (certified(&folder, "Ada"), certified(&folder, "Eve"));
    for required in [false, true] {
        let server = server_trusting(&ada, required).await;
        let (client, _events) = with(builder(&server), &ada).connect().await.expect("a good certificate");
        client.echo("hello").await.expect("it is served");
        let error = refused(with(builder(&server), &eve)).await;
        assert!(error.contains("use one that the server trusts"), "it has a hint: {error}");
        until("no other connection", || server.status.connections() == 1).await;
        server.stop().await;
    }
}

#[tokio::test]
async fn a_client_without_a_certificate_is_rejected_only_if_one_is_required() {
    let folder = tempfile::tempdir().expect("a folder");
    let ada = certified(&folder, "Ada");
    let may_come = TestServer::start_with(|config| {
        config.tls.client_ca = Some(ada.ca.clone());
        config.auth = tokens::auth("[anonymous]\nsubscribe = 'news'");
    })
    .await;
    for over in Over::ALL {
        over.party(&may_come, "nobody").await.control.lives("a client without a certificate").await;
    }
    may_come.stop().await;

    let has_to_show_something = server_trusting(&ada, false).await;
    let handshake = json!({"type": "handshake", "protocol_version": "1.0"});
    for over in Over::ALL {
        assert_eq!(tokens::refused(over, &has_to_show_something, handshake.clone()).await.1, 4401);
    }
    has_to_show_something.stop().await;

    let server = server_trusting(&ada, true).await;
    refused(builder(&server)).await;
    // In TLS 1.3 the client's handshake is complete before the server notices that there is no certificate.
    assert!(web_socket::open_showing(&server, None).await.is_err(), "no certificate over TCP");
    server.stop().await;
}

#[tokio::test]
async fn a_client_is_the_user_of_its_certificate_unless_a_token_overrides_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let ada = certified(&folder, "Ada");
    let server = TestServer::start_with(|config| {
        config.tls.client_ca = Some(ada.ca.clone());
        config.auth = tokens::asking("[certificate]\npublish = 'own.>'\n[token]\npublish = 'tokens.>'");
    })
    .await;
    for (token, user, may, may_not) in
        [(None, "Ada", "own.x", "tokens.x"), (Some(tokens::token(json!({"sub": "bob"}))), "bob", "tokens.x", "own.x")]
    {
        for over in Over::ALL {
            let mut client = showing(over, &server, &ada).await;
            let mut handshake = json!({"type": "handshake", "protocol_version": "1.0"});
            if let Some(token) = &token {
                handshake["token"] = token.as_str().into();
            }
            assert_eq!(client.handshake_with(handshake).await["user"], user);
            client.control.say(json!({"type": "publish", "id": 1, "topic": may, "content": "x"})).await;
            client.control.expect("published").await;
            client.control.say(json!({"type": "publish", "id": 2, "topic": may_not, "content": "x"})).await;
            client.control.expect_error(403).await;
        }
    }
    server.stop().await;
}

/// A certificate that expires in this many seconds, by its own authority.
fn expiring(folder: &tempfile::TempDir, seconds: i64) -> ClientFiles {
    use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
    let now = time::OffsetDateTime::now_utc();
    let key = || KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).expect("a key");
    let mut ca = CertificateParams::new(Vec::new()).expect("parameters");
    ca.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let (ca_key, leaf_key) = (key(), key());
    let mut leaf = CertificateParams::new(Vec::new()).expect("parameters");
    leaf.distinguished_name.push(DnType::CommonName, "Ada");
    leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    (leaf.not_before, leaf.not_after) = (now - time::Duration::days(1), now + time::Duration::seconds(seconds));
    let files = ClientFiles::inside(folder.path());
    let signed = leaf.signed_by(&leaf_key, &Issuer::from_params(&ca, &ca_key)).expect("a certificate");
    for (path, text) in [
        (&files.ca, ca.self_signed(&ca_key).expect("an authority").pem()),
        (&files.cert, signed.pem()),
        (&files.key, leaf_key.serialize_pem()),
    ] {
        std::fs::write(path, text).expect("written");
    }
    files
}

#[tokio::test]
async fn a_client_is_closed_when_its_certificate_expires() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = server_trusting(&expiring(&folder, 3), true).await;
    let identity = ClientFiles::inside(folder.path());
    let ends = async |over| {
        let mut client = showing(over, &server, &identity).await;
        let response = client.handshake_with(json!({"type": "handshake", "protocol_version": "1.0"})).await;
        let ends = client.control.expect("expiring").await["expires_at"].clone();
        assert_eq!(response["expires_at"], ends);
        client.expect_close(4401).await;
        assert!(crate::common::now_ms() >= ends.as_u64().expect("a time"), "not before its time");
    };
    tokio::join!(ends(Over::Native), ends(Over::WebTransport), ends(Over::WebSocket));
    server.stop().await;
}

#[tokio::test]
async fn a_refusal_is_a_tls_alert() {
    let folder = tempfile::tempdir().expect("a folder");
    let (ada, eve) = (certified(&folder, "Ada"), certified(&folder, "Eve"));
    let server = server_trusting(&ada, true).await;
    // Eve's authority has the right name and the wrong key; and a server's certificate is not valid for clients.
    let DevelopmentFiles { ca, cert, key } = server.files.clone();
    let servers = ClientFiles { ca, cert, key };
    for (identity, alert) in
        [(None, CERTIFICATE_REQUIRED), (Some(&eve), DECRYPT_ERROR), (Some(&servers), UNSUPPORTED_CERTIFICATE)]
    {
        let endpoint = server.endpoint_showing(identity);
        let connecting = endpoint.connect(server.addr, "localhost").expect("it begins");
        // The client's handshake is complete before the server has seen its certificate; what counts is how the
        // connection ends.
        let error = match soon("an answer", connecting).await {
            Ok(connection) => soon("the refusal", connection.closed()).await,
            Err(error) => error,
        };
        let ConnectionError::ConnectionClosed(close) = &error else { panic!("expected an alert, got {error}") };
        assert_eq!(close.error_code, TransportErrorCode::crypto(alert), "{error}");
        let error = web_socket::open_showing(&server, identity).await.err().expect("refused over TCP as well");
        let named = match alert {
            CERTIFICATE_REQUIRED => "CertificateRequired",
            DECRYPT_ERROR => "DecryptError",
            _ => "UnsupportedCertificate",
        };
        assert!(error.to_string().contains(named), "expected {named}, got {error}");
    }
    assert_eq!(server.status.connections(), 0);
    server.stop().await;
}

#[cfg(unix)]
#[tokio::test]
async fn certs_creates_a_client_certificate_that_a_server_accepts() {
    use crate::common::process::Process;
    use quic_websocket::Client;
    use quic_websocket::tls::Trust;

    let folder = tempfile::tempdir().expect("a folder");
    let mut maker = Process::start(folder.path(), &["certs", "--client", "Ada"], &[]);
    assert_eq!(maker.ended().await, Some(0), "{}", maker.stderr());
    let files = ClientFiles::inside(&folder.path().join("certs"));
    for path in [&files.ca, &files.cert, &files.key] {
        let shown = path.strip_prefix(folder.path()).expect("inside").display().to_string();
        assert!(maker.stdout().contains(&shown), "{}", maker.stdout());
    }
    let mut again = Process::start(folder.path(), &["certs", "--client", "Ada"], &[]);
    assert_eq!(again.ended().await, Some(1), "nothing is replaced unasked");

    let environment = [
        ("QWS_ADDR", "127.0.0.1:0"),
        ("QWS_TLS__CLIENT_CA", "certs/client-ca.pem"),
        ("QWS_TLS__CLIENT_REQUIRED", "true"),
    ];
    let mut server = Process::start(folder.path(), &[], &environment);
    let addr = server.listening().await.to_string();
    let trust = Trust::CaFile(folder.path().join("certs/ca.pem"));
    let (client, _events) =
        with(Client::builder(&*addr), &files).trust(trust.clone()).connect().await.expect("it connects");
    client.echo("hello").await.expect("it is served");
    refused(Client::builder(&*addr).trust(trust)).await;
}
