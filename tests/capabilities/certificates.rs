//! Certificates are replaced while the server runs: new connections get the new one, existing connections are not
//! affected, and an unusable file changes nothing.

#![cfg(unix)]
#![allow(clippy::expect_used, clippy::panic)] // A test fails by panicking.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::symlink;
use std::path::Path;

use crate::common::over::Over;
use crate::common::process::Process;
use crate::common::{RawClient, TestServer, endpoint_trusting, soon, tls_trusting, until, web_socket};
use nix::sys::signal::Signal;
use quic_websocket::Client;
use quic_websocket::tls::{DevelopmentFiles, Trust};
use quinn::TransportConfig;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

fn make(files: &DevelopmentFiles) {
    files.make(&["localhost".into()], true).expect("certificates");
}

fn in_file(path: &Path) -> CertificateDer<'static> {
    CertificateDer::from_pem_file(path).expect("a certificate")
}

/// The certificate that a new connection is shown, if it is trusted by this authority.
async fn shown(addr: SocketAddr, ca: &Path) -> Option<CertificateDer<'static>> {
    let endpoint = endpoint_trusting(ca, &["qws/1"], TransportConfig::default());
    let connection = soon("an answer", endpoint.connect(addr, "localhost").expect("it begins")).await.ok()?;
    let identity = connection.peer_identity().expect("a server presents its certificate");
    let chain = identity.downcast::<Vec<CertificateDer<'static>>>().expect("certificates");
    Some(chain[0].clone())
}

/// The same over TCP.
async fn shown_over_tcp(addr: SocketAddr, ca: &Path) -> Option<CertificateDer<'static>> {
    let tls =
        web_socket::tls_over(web_socket::connect(addr).await, tls_trusting(ca).with_no_client_auth()).await.ok()?;
    tls.get_ref().1.peer_certificates().map(|chain| chain[0].clone())
}

/// Waits until new connections on every worker are shown the certificate in the files, over UDP and over TCP, which use
/// the same address here.
async fn until_shown(addr: SocketAddr, files: &DevelopmentFiles) {
    let expected = Some(in_file(&files.cert));
    soon("the new certificate", async {
        let mut in_a_row = 0;
        while in_a_row < 8 {
            let both = shown(addr, &files.ca).await == expected && shown_over_tcp(addr, &files.ca).await == expected;
            in_a_row = if both { in_a_row + 1 } else { 0 };
        }
    })
    .await;
}

#[tokio::test]
async fn new_connections_get_a_replaced_certificate_and_existing_ones_continue() {
    let server = TestServer::start().await;
    let mut old = Vec::new();
    assert_eq!(server.http, Some(server.addr), "one number for UDP and TCP");
    for over in Over::ALL {
        old.push(over.party(&server, "Ada").await);
    }
    for _ in 0..2 {
        make(&server.files);
        until_shown(server.addr, &server.files).await;
        for client in &mut old {
            client.control.lives("an existing client").await;
        }
    }
    for over in Over::ALL {
        over.party(&server, "new").await.control.lives("the next client").await;
    }
    server.stop().await;
}

#[tokio::test]
async fn files_behind_a_replaced_link_are_reloaded() {
    let folder = tempfile::tempdir().expect("a folder");
    let [before, after] = ["1", "2"].map(|name| DevelopmentFiles::inside(&folder.path().join(name)));
    make(&before);
    make(&after);
    // As Kubernetes stores secrets: each file is a link through one link, which is replaced as a whole.
    symlink("1", folder.path().join("data")).expect("a link");
    for file in ["server.pem", "server-key.pem"] {
        symlink(Path::new("data").join(file), folder.path().join(file)).expect("a link");
    }
    let server = TestServer::start_with(|config| {
        config.tls.cert = folder.path().join("server.pem");
        config.tls.key = folder.path().join("server-key.pem");
    })
    .await;
    until_shown(server.addr, &before).await;
    symlink("2", folder.path().join("new")).expect("a link");
    fs::rename(folder.path().join("new"), folder.path().join("data")).expect("the link is turned");
    until_shown(server.addr, &after).await;
    server.stop().await;
}

#[tokio::test]
async fn a_broken_file_leaves_the_old_certificate_in_use_and_is_reported_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut process = Process::start(folder.path(), &["--addr", "127.0.0.1:0", "--workers", "2"], &[]);
    let addr = process.listening().await;
    let files = DevelopmentFiles::inside(&folder.path().join("certs"));
    let old = (in_file(&files.cert), fs::read(&files.ca).expect("the CA"));
    let old_ca = folder.path().join("old-ca.pem");
    fs::write(&old_ca, &old.1).expect("written");

    let complaints = |process: &Process| {
        let log = process.stderr();
        log.lines().filter(|line| line.contains("ERROR") && line.contains("the old one stays in use")).count()
    };
    fs::write(&files.cert, "no certificate").expect("written");
    until("the message about the broken certificate", || complaints(&process) == 1).await;
    assert!(process.stderr().contains("there is no certificate in certs/server.pem"), "{}", process.stderr());
    assert_eq!(shown(addr, &old_ca).await.as_ref(), Some(&old.0));
    assert_eq!(shown_over_tcp(addr, &old_ca).await.as_ref(), Some(&old.0));
    // An unrelated change in the folder is no reason to repeat the message.
    fs::write(folder.path().join("certs/other"), "").expect("written");
    fs::remove_file(&files.key).expect("removed");
    until("the message about the missing key", || complaints(&process) == 2).await;
    assert_eq!(shown(addr, &old_ca).await.as_ref(), Some(&old.0));
    assert_eq!(shown_over_tcp(addr, &old_ca).await.as_ref(), Some(&old.0));

    make(&files);
    until_shown(addr, &files).await;
    assert_eq!(complaints(&process), 2, "{}", process.stderr());
    assert_eq!(process.stderr().matches("Certificate reloaded from certs/server.pem").count(), 1);
}

#[tokio::test]
async fn sighup_reloads_changes_that_watching_cannot_detect() {
    let folder = tempfile::tempdir().expect("a folder");
    let elsewhere = tempfile::tempdir().expect("a folder");
    let files = DevelopmentFiles::inside(elsewhere.path());
    make(&files);
    // The links stay the same: nothing happens in their folder.
    for (file, link) in [(&files.cert, "server.pem"), (&files.key, "server-key.pem")] {
        symlink(file, folder.path().join(link)).expect("a link");
    }
    let args = ["--addr", "127.0.0.1:0", "--workers", "2", "--cert", "server.pem", "--key", "server-key.pem"];
    let mut process = Process::start(folder.path(), &args, &[]);
    let addr = process.listening().await;
    let endpoint = endpoint_trusting(&files.ca, &["qws/1"], TransportConfig::default());
    let mut old = RawClient::connect(&endpoint, addr).await;
    old.handshake("Ada").await;

    process.signal(Signal::SIGHUP);
    until("an answer to a needless signal", || process.stderr().contains("nothing to reload")).await;
    make(&files);
    process.signal(Signal::SIGHUP);
    until_shown(addr, &files).await;
    old.control.lives("an existing client").await;
    assert!(process.is_running(), "{}", process.stderr());
}

/// Starts the binary with settings that prevent its start, and returns its output.
async fn refused(folder: &Path, args: &[&str], environment: &[(&str, &str)]) -> String {
    let mut process = Process::start(folder, &[&["--addr", "127.0.0.1:0"], args].concat(), environment);
    assert_eq!(process.ended().await, Some(1), "{args:?}: {}", process.stderr());
    process.stderr()
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("the folder").map(|entry| entry.expect("an entry").file_name());
    let mut names: Vec<_> = entries.map(|name| name.to_string_lossy().into_owned()).collect();
    names.retain(|name| !["stdout", "stderr"].contains(&name.as_str()));
    names.sort();
    names
}

#[tokio::test]
async fn a_configured_but_missing_file_is_an_error_and_nothing_is_created() {
    let folder = tempfile::tempdir().expect("a folder");
    let (cert, key) = ("tls/server.pem", "tls/server-key.pem");
    let setting = [("QWS_TLS__CERT", cert), ("QWS_TLS__KEY", key)];
    for (args, environment, flag) in [
        (&["--cert", cert, "--key", key][..], &[][..], "--cert"),
        (&["--cert", cert], &[], "--cert"),
        (&["--key", key], &[], "--cert"),
        (&[], &setting, "--cert"),
        (&[], &setting[..1], "--cert"),
    ] {
        let said = refused(folder.path(), args, environment).await;
        assert!(said.contains(&format!("does not exist; correct {flag}")), "{args:?}: {said}");
        assert_eq!(names(folder.path()), [""; 0], "{args:?} made something");
    }
    let files = DevelopmentFiles::inside(&folder.path().join("tls"));
    make(&files);
    fs::remove_file(&files.key).expect("removed");
    let said = refused(folder.path(), &["--cert", cert, "--key", key], &[]).await;
    assert!(said.contains("server-key.pem does not exist; correct --key"), "{said}");
}

#[tokio::test]
async fn a_port_in_use_is_detected_before_certificates_are_created() {
    let folder = tempfile::tempdir().expect("a folder");
    let taken = std::net::UdpSocket::bind("127.0.0.1:0").expect("a socket");
    let addr = taken.local_addr().expect("its address").to_string();
    let mut process = Process::start(folder.path(), &["--addr", &addr], &[]);
    assert_eq!(process.ended().await, Some(1));
    assert!(process.stderr().contains("another program already listens there"), "{}", process.stderr());
    assert_eq!(names(folder.path()), [""; 0], "something was made");
}

#[tokio::test]
async fn an_unusable_key_is_reported_with_its_actual_problem() {
    use std::os::unix::fs::PermissionsExt;

    let folder = tempfile::tempdir().expect("a folder");
    let files = DevelopmentFiles::inside(folder.path());
    make(&files);
    let good = fs::read_to_string(&files.key).expect("the key");
    let args = ["--cert", "server.pem", "--key", "server-key.pem"];
    let encrypted = good.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY");
    for (text, why) in [
        (encrypted.as_str(), "is encrypted"),
        ("", "no private key in"),
        (&good[..good.len() / 2], "line 1: what begins here as PRIVATE KEY has no end"),
    ] {
        fs::write(&files.key, text).expect("written");
        let said = refused(folder.path(), &args, &[]).await;
        assert!(said.contains(why) && said.contains("server-key.pem"), "{said}");
        assert!(!said.contains("generate_certs"), "{said}");
    }
    fs::write(&files.key, &good).expect("written");
    fs::set_permissions(&files.key, fs::Permissions::from_mode(0o644)).expect("its mode");
    let secret = folder.path().join("token-secret");
    fs::write(&secret, "x".repeat(32)).expect("written");
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o644)).expect("its mode");
    let keys = ("QWS_AUTH__KEYS", "[{ algorithm = 'HS256', secret_file = 'token-secret' }]");
    let mut process = Process::start(folder.path(), &[&["--addr", "127.0.0.1:0"][..], &args].concat(), &[keys]);
    process.listening().await;
    for key in ["server-key.pem", "token-secret"] {
        let warning = format!("Every user of this machine can read the key {key}");
        assert!(process.stderr().contains(&warning), "{key}: {}", process.stderr());
    }
}

#[tokio::test]
async fn a_chain_with_concatenated_parts_is_presented_whole() {
    let folder = tempfile::tempdir().expect("a folder");
    let [one, two] = ["1", "2"].map(|name| DevelopmentFiles::inside(&folder.path().join(name)));
    make(&one);
    make(&two);
    let text = |path: &Path| fs::read_to_string(path).expect("a file").trim_end().to_owned();
    let glued = format!("\u{feff}{}{}", text(&one.cert), text(&one.ca));
    fs::write(&one.cert, glued).expect("written");
    let server = TestServer::start_with(|config| {
        (config.tls.cert, config.tls.key) = (one.cert.clone(), one.key.clone());
    })
    .await;
    // Two authorities in one file; the second one signed the certificate.
    let both = folder.path().join("both.pem");
    fs::write(&both, format!("\u{feff}{}{}", text(&two.ca), text(&one.ca))).expect("written");
    let client = Client::builder(server.addr.to_string()).trust(Trust::CaFile(both));
    // The address is not one of the names.
    let error = client.clone().connect().await.expect_err("another name").to_string();
    assert!(error.contains("connect by a name that is in the certificate"), "{error}");
    let connection = endpoint_trusting(&one.ca, &["qws/1"], TransportConfig::default());
    let connection = soon("an answer", connection.connect(server.addr, "localhost").expect("it begins")).await;
    let identity = connection.expect("it connects").peer_identity().expect("a server presents its certificate");
    let chain = identity.downcast::<Vec<CertificateDer<'static>>>().expect("certificates");
    assert_eq!(chain.len(), 2, "the authority is shown, too");
    server.stop().await;
}

/// A certificate with another validity period, and its authority, in a folder.
fn made_for(folder: &Path, days: std::ops::Range<i64>) -> DevelopmentFiles {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

    let files = DevelopmentFiles::inside(folder);
    fs::create_dir_all(folder).expect("a folder");
    let now = time::OffsetDateTime::now_utc();
    let mut ca = CertificateParams::new(Vec::new()).expect("parameters");
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca_key = KeyPair::generate().expect("a key");
    let mut leaf = CertificateParams::new(["127.0.0.1".to_owned()]).expect("parameters");
    leaf.not_before = now + time::Duration::days(days.start);
    leaf.not_after = now + time::Duration::days(days.end);
    let key = KeyPair::generate().expect("a key");
    let cert = leaf.signed_by(&key, &Issuer::from_params(&ca, &ca_key)).expect("a certificate");
    fs::write(&files.ca, ca.self_signed(&ca_key).expect("an authority").pem()).expect("written");
    fs::write(&files.cert, cert.pem()).expect("written");
    fs::write(&files.key, key.serialize_pem()).expect("written");
    files
}

#[tokio::test]
async fn a_certificate_outside_its_validity_is_reported_as_such_on_both_sides() {
    let folder = tempfile::tempdir().expect("a folder");
    for (days, of_server, of_client) in [
        (-20..-10, "has expired", "the server needs a new one"),
        (10..20, "is not valid yet", "this machine's clock"),
        (-99..1, "expires in 23 hours", ""),
        (-99..5, "expires in 4 days", ""),
    ] {
        let files = made_for(&folder.path().join(format!("{}", days.start)), days);
        let (cert, key) = (files.cert.to_string_lossy(), files.key.to_string_lossy());
        let args = ["--addr", "127.0.0.1:0", "--workers", "1", "--cert", &cert, "--key", &key];
        let mut process =
            Process::start(folder.path(), &args, &[("QWS_WEBTRANSPORT__SHORT_LIVED_CERTIFICATE", "false")]);
        let addr = process.listening().await;
        until("the warning", || process.stderr().contains(of_server)).await;
        let connected = Client::builder(addr.to_string()).trust(Trust::CaFile(files.ca)).connect().await;
        match connected {
            Ok(_) => assert!(of_client.is_empty(), "{of_server}, and a client believes it"),
            Err(e) => assert!(!of_client.is_empty() && e.to_string().contains(of_client), "{e}"),
        }
    }
}

#[tokio::test]
async fn a_self_signed_certificate_is_reported_as_such() {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};

    let folder = tempfile::tempdir().expect("a folder");
    let files = DevelopmentFiles::inside(folder.path());
    // As created by `openssl req -x509`.
    let mut own = CertificateParams::new(["127.0.0.1".to_owned()]).expect("parameters");
    own.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().expect("a key");
    fs::write(&files.cert, own.self_signed(&key).expect("a certificate").pem()).expect("written");
    fs::write(&files.key, key.serialize_pem()).expect("written");
    let server = TestServer::start_with(|config| {
        (config.tls.cert, config.tls.key) = (files.cert.clone(), files.key.clone());
    })
    .await;
    let client = Client::builder(server.addr.to_string()).trust(Trust::CaFile(files.cert));
    let error = client.connect().await.expect_err("no server's certificate").to_string();
    assert!(error.contains("CA:FALSE"), "{error}");
    server.stop().await;
}

#[tokio::test]
async fn certificates_are_created_for_names_only() {
    for (name, why) in [("", "it is empty"), ("https://a.example", "without https://"), ("a b", "letters")] {
        let folder = tempfile::tempdir().expect("a folder");
        let mut process = Process::start(folder.path(), &["certs", "--name", name], &[]);
        assert_eq!(process.ended().await, Some(1), "{name:?}");
        assert!(process.stderr().contains(why), "{name:?}: {}", process.stderr());
        assert_eq!(names(folder.path()), [""; 0], "{name:?} made something");
    }
    let folder = tempfile::tempdir().expect("a folder");
    let args = ["certs", "--name", "*.Bücher.example", "--name", "[2001:db8::7]"];
    let mut process = Process::start(folder.path(), &args, &[]);
    assert_eq!(process.ended().await, Some(0), "{}", process.stderr());
    assert!(process.stdout().contains("for *.xn--bcher-kva.example, 2001:db8::7, localhost"), "{}", process.stdout());
}

#[tokio::test]
async fn tls_1_2_over_tcp_is_accepted_if_enabled_and_its_refusal_is_logged() {
    let folder = tempfile::tempdir().expect("a folder");
    for (version, is_spoken) in [("1.3", false), ("1.2", true)] {
        let args = ["--addr", "127.0.0.1:0", "--workers", "1"];
        let mut process = Process::start(folder.path(), &args, &[("QWS_TLS__TCP_MIN_VERSION", version)]);
        let addr = process.listening().await;
        let old = crate::common::tls_speaking(&rustls::version::TLS12, &folder.path().join("certs/ca.pem"));
        let old = old.with_no_client_auth();
        let tls = web_socket::tls_over(web_socket::connect(addr).await, old).await;
        assert_eq!(tls.is_ok(), is_spoken, "{version}: {tls:?}");
        if let Ok(tls) = tls {
            let (_, session) = tls.get_ref();
            assert_eq!(session.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_2));
        } else {
            until("the refusal in the log", || process.stderr().contains("set tls.tcp_min_version")).await;
        }
    }
}
