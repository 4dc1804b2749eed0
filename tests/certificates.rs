//! Certificates are replaced while the server runs: new connections get the new one, old connections notice nothing, and
//! a file that cannot be used changes nothing.

#![cfg(unix)]
#![allow(clippy::expect_used, clippy::panic)] // A test fails by panicking.

mod common;

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::symlink;
use std::path::Path;

use common::over::Over;
use common::process::Process;
use common::{RawClient, TestServer, endpoint_trusting, soon, tls_trusting, until, web_socket};
use nix::sys::signal::Signal;
use quic_websocket::tls::DevelopmentFiles;
use quinn::TransportConfig;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

fn make(files: &DevelopmentFiles) {
    files.make(&["localhost".into()], true).expect("certificates");
}

fn in_file(path: &Path) -> CertificateDer<'static> {
    CertificateDer::from_pem_file(path).expect("a certificate")
}

/// Which certificate a new connection is shown, where it believes in this authority.
async fn shown(addr: SocketAddr, ca: &Path) -> Option<CertificateDer<'static>> {
    let endpoint = endpoint_trusting(ca, &["qws/1"], TransportConfig::default());
    let connection = soon("an answer", endpoint.connect(addr, "localhost").expect("it begins")).await.ok()?;
    let identity = connection.peer_identity().expect("a server shows who it is");
    let chain = identity.downcast::<Vec<CertificateDer<'static>>>().expect("certificates");
    Some(chain[0].clone())
}

/// The same over TCP.
async fn shown_over_tcp(addr: SocketAddr, ca: &Path) -> Option<CertificateDer<'static>> {
    let tls =
        web_socket::tls_over(web_socket::connect(addr).await, tls_trusting(ca).with_no_client_auth()).await.ok()?;
    tls.get_ref().1.peer_certificates().map(|chain| chain[0].clone())
}

/// Waits until new connections, on whichever worker, are shown what is in the files, over UDP and over TCP, which have the same
/// address here.
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
async fn new_connections_get_a_replaced_certificate_and_old_ones_live_on() {
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
            client.control.lives("who was there before").await;
        }
    }
    for over in Over::ALL {
        over.party(&server, "new").await.control.lives("who came after").await;
    }
    server.stop().await;
}

#[tokio::test]
async fn files_behind_a_link_that_is_turned_are_read_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let [before, after] = ["1", "2"].map(|name| DevelopmentFiles::inside(&folder.path().join(name)));
    make(&before);
    make(&after);
    // As Kubernetes keeps secrets: each file a link through one link, which is replaced as a whole.
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
async fn a_broken_file_leaves_the_old_certificate_in_use_and_is_told_of_once() {
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
    until("the broken certificate to be told of", || complaints(&process) == 1).await;
    assert!(process.stderr().contains("there is no certificate in certs/server.pem"), "{}", process.stderr());
    assert_eq!(shown(addr, &old_ca).await.as_ref(), Some(&old.0));
    assert_eq!(shown_over_tcp(addr, &old_ca).await.as_ref(), Some(&old.0));
    // Something else happens in the folder: no reason to say the same again.
    fs::write(folder.path().join("certs/other"), "").expect("written");
    fs::remove_file(&files.key).expect("removed");
    until("the missing key to be told of", || complaints(&process) == 2).await;
    assert_eq!(shown(addr, &old_ca).await.as_ref(), Some(&old.0));
    assert_eq!(shown_over_tcp(addr, &old_ca).await.as_ref(), Some(&old.0));

    make(&files);
    until_shown(addr, &files).await;
    assert_eq!(complaints(&process), 2, "{}", process.stderr());
    assert_eq!(process.stderr().matches("Certificate reloaded from certs/server.pem").count(), 1);
}

#[tokio::test]
async fn sighup_reloads_what_no_watching_shows() {
    let folder = tempfile::tempdir().expect("a folder");
    let elsewhere = tempfile::tempdir().expect("a folder");
    let files = DevelopmentFiles::inside(elsewhere.path());
    make(&files);
    // The links stay as they are: nothing happens in their folder.
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
    old.control.lives("who was there before").await;
    assert!(process.is_running(), "{}", process.stderr());
}
