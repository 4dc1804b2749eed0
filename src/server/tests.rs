//! Renewal of the short-lived certificate on a running server.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use tokio::time::{sleep, timeout};
use web_transport_quinn::{ClientBuilder, RecvStream, SendStream, Session};

use super::*;
use crate::tls::{DevelopmentFiles, Trust};
use crate::{Client, Event};

const PATIENCE: Duration = Duration::from_secs(20);
const DAY_S: u64 = 24 * 60 * 60;

/// A WebTransport session of a page that trusts a certificate by its hash, with its control lane.
struct Page {
    session: Session,
    lane: (SendStream, RecvStream),
}

impl Page {
    async fn open(addr: SocketAddr, sha256: [u8; 32]) -> Option<Self> {
        let builder = ClientBuilder::new();
        let client = builder.with_server_certificate_hashes(vec![sha256.to_vec()]).expect("a client");
        let url = format!("https://{addr}/wt").parse::<reqwest::Url>().expect("a URL");
        let session = timeout(PATIENCE, client.connect(url)).await.expect("in time").ok()?;
        let lane = session.open_bi().await.expect("a stream");
        let mut page = Self { session, lane };
        page.ask(br#"{"type":"handshake","protocol_version":"1.0"}"#).await;
        Some(page)
    }

    async fn ask(&mut self, body: &[u8]) {
        let (send, receive) = &mut self.lane;
        let length = u32::try_from(body.len()).expect("a length").to_be_bytes();
        send.write_all(&[&length, body].concat()).await.expect("the stream takes bytes");
        let mut length = [0; 4];
        timeout(PATIENCE, receive.read_exact(&mut length)).await.expect("in time").expect("a reply");
        receive.read_exact(&mut vec![0; u32::from_be_bytes(length) as usize]).await.expect("a reply");
    }
}

#[tokio::test]
async fn a_short_lived_certificate_is_replaced_without_dropping_a_client() {
    let folder = tempfile::tempdir().expect("a folder");
    let files = DevelopmentFiles::inside(folder.path());
    files.make(&["127.0.0.1".into()], false).expect("certificates");
    let mut config = Config { addr: "127.0.0.1:0".parse().expect("an address"), workers: 2, ..Config::default() };
    (config.tls.cert, config.tls.key) = (files.cert.clone(), files.key.clone());
    let mut server = Server::bind(config).expect("it binds");
    let ahead = Arc::new(AtomicU64::new(0));
    let days = Arc::clone(&ahead);
    server.tls.set_clock(move || SystemTime::now() + Duration::from_secs(days.load(Ordering::Relaxed) * DAY_S));
    let (addr, status, reloader) = (server.local_addr(), server.status(), server.reloader());
    let current_hash = move || status.short_lived().hash().expect("there is one").sha256;
    let shutdown = CancellationToken::new();
    let running = tokio::spawn(server.run(shutdown.clone()));

    let builder = Client::builder(addr.to_string()).trust(Trust::CaFile(files.ca.clone()));
    let (client, mut events) = builder.connect().await.expect("it connects");
    let mut hashes = vec![current_hash()];
    let mut pages = vec![Page::open(addr, hashes[0]).await.expect("the hash is good")];
    for round in 1..3 {
        ahead.fetch_add(12, Ordering::Relaxed);
        // Makes the server check the clock.
        reloader.reload();
        let replaced = async {
            while hashes.contains(&current_hash()) {
                sleep(Duration::from_millis(2)).await;
            }
            // The workers receive it one after the other.
            loop {
                if let Some(page) = Page::open(addr, current_hash()).await {
                    return page;
                }
            }
        };
        let page = timeout(PATIENCE, replaced).await.expect("in time");
        pages.push(page);
        hashes.push(current_hash());
        for page in &mut pages {
            page.ask(br#"{"type":"ping"}"#).await;
        }
        client.echo(&format!("round {round}")).await.expect("it is served");
    }
    for old in &hashes[..2] {
        assert!(Page::open(addr, *old).await.is_none(), "an old hash no longer works");
    }
    assert!(pages.iter().all(|page| page.session.close_reason().is_none()));
    let event = timeout(Duration::from_millis(1), events.next()).await;
    assert!(!matches!(event, Ok(Some(Event::Reconnected | Event::Closed(_)))), "{event:?}");
    shutdown.cancel();
    timeout(PATIENCE, running).await.expect("in time").expect("no panic").expect("a clean end");
}
