//! How flows share one bottleneck: bulk from the far side of a lossy link over QUIC, with each of Quinn's congestion
//! controllers, next to bulk over TCP with the kernel's. Neither the server nor its protocol is involved: fairness
//! depends on the controller, which the server only selects.

use std::io::Read as _;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{Endpoint, TransportConfig};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::congestion::Congestion;
use crate::link::{Conditions, Link};

const DELAY_MS: u64 = 20;
const RATE_MBIT: f64 = 20.0;
const LOSSES: [f64; 3] = [0.0, 0.01, 0.05];
/// Time until flows have found their shares, then time over which they are counted.
const WARM_UP: Duration = Duration::from_secs(4);
const COUNTED: Duration = Duration::from_secs(8);
const SEED: u64 = 7;
const PIECE: usize = 64 * 1024;

/// Combinations of a controller with numbers of flows over QUIC and over TCP.
const MIXES: [(Option<Congestion>, usize, usize); 6] = [
    (Some(Congestion::Bbr), 1, 1),
    (Some(Congestion::Bbr), 2, 2),
    (Some(Congestion::Bbr), 4, 0),
    (Some(Congestion::Cubic), 2, 2),
    (Some(Congestion::Cubic), 4, 0),
    (None, 0, 4),
];

/// Measures all combinations at all losses, and prints a table row for each. Never returns false: nothing can be lost.
pub(crate) async fn run(only: Option<&str>, is_quick: bool) -> Result<bool> {
    println!(
        "Goodput in Mbit/s of each flow on a link of {RATE_MBIT} Mbit/s, {} ms there and back, queue 100 ms, {} s each",
        2 * DELAY_MS,
        COUNTED.as_secs()
    );
    println!("| flows | loss, % | QUIC, each | TCP (CUBIC), each | QUIC's share of a fair one | total |");
    println!("|---|---|---|---|---|---|");
    for (congestion, quic, tcp) in MIXES {
        let name = match congestion {
            Some(congestion) => format!("{quic} {} next to {tcp} TCP", congestion.name()),
            None => format!("{tcp} TCP"),
        };
        if only.is_some_and(|only| !name.contains(only)) {
            continue;
        }
        for loss in if is_quick { &LOSSES[1..2] } else { &LOSSES[..] } {
            let rates = measure(congestion, quic, tcp, *loss).await?;
            println!("{}", row(&name, *loss, rates.split_at(quic)));
        }
    }
    Ok(true)
}

fn row(name: &str, loss: f64, (quic, tcp): (&[f64], &[f64])) -> String {
    let list = |rates: &[f64]| match rates {
        [] => "-".to_owned(),
        rates => rates.iter().map(|rate| format!("{rate:.1}")).collect::<Vec<_>>().join(", "),
    };
    let total: f64 = quic.iter().chain(tcp).sum();
    let fair = total / (quic.len() + tcp.len()) as f64;
    let share = match (quic, tcp) {
        ([], _) | (_, []) => "-".to_owned(),
        _ => format!("{:.2}", quic.iter().sum::<f64>() / quic.len() as f64 / fair),
    };
    format!("| {name} | {} | {} | {} | {share} | {total:.1} |", loss * 100.0, list(quic), list(tcp))
}

/// Rate of each flow in Mbit/s, those over QUIC first.
async fn measure(congestion: Option<Congestion>, quic: usize, tcp: usize, loss: f64) -> Result<Vec<f64>> {
    let conditions = Conditions { delay_ms: DELAY_MS, loss, rate_mbit: RATE_MBIT, seed: SEED };
    let link = Link::make(&conditions)?;
    let address = link.server_address();
    let congestion = congestion.unwrap_or(Congestion::Cubic);
    let identity = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
    let mut roots = rustls::RootCertStore::empty();
    roots.add(identity.cert.der().clone())?;
    let (told, listening) = tokio::sync::oneshot::channel();
    let done = CancellationToken::new();
    let until = done.clone();
    let sender = link.on_server_side(async move || {
        until.run_until_cancelled(serve(address, identity, congestion, told)).await.unwrap_or(Ok(()))
    });
    let receiver = async {
        // Also on failure.
        let _done = done.drop_guard();
        let (quic_at, tcp_at) = listening.await.context("the senders did not start")?;
        link.on_client_side(move || receive(roots, quic_at, tcp_at, quic, tcp)).await
    };
    let (sent, rates) = tokio::join!(sender, receiver);
    sent.and(rates)
}

fn transport(congestion: Congestion) -> Arc<TransportConfig> {
    let mut transport = TransportConfig::default();
    transport.congestion_controller_factory(congestion.factory());
    // Only the bottleneck limits a flow.
    transport.send_window(16 << 20).stream_receive_window((16_u32 << 20).into()).receive_window((16_u32 << 20).into());
    Arc::new(transport)
}

/// Sends to every client that connects, as fast as possible. Does not return.
async fn serve(
    address: IpAddr,
    identity: rcgen::CertifiedKey<rcgen::KeyPair>,
    congestion: Congestion,
    told: tokio::sync::oneshot::Sender<(SocketAddr, SocketAddr)>,
) -> Result<()> {
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(identity.signing_key.serialize_der()));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(vec![identity.cert.der().clone()], key)?;
    let mut config = quinn::ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls)?));
    config.transport_config(transport(congestion));
    let endpoint = Endpoint::server(config, (address, 0).into())?;
    let listener = TcpListener::bind((address, 0)).await?;
    told.send((endpoint.local_addr()?, listener.local_addr()?)).ok();
    let piece: Arc<[u8]> = vec![0x5a; PIECE].into();
    loop {
        let piece = Arc::clone(&piece);
        tokio::select! {
            Some(incoming) = endpoint.accept() => drop(tokio::spawn(async move {
                let connection = incoming.await?;
                let mut stream = connection.open_uni().await?;
                loop {
                    stream.write_all(&piece).await?;
                }
                #[allow(unreachable_code)]
                Ok::<_, anyhow::Error>(())
            })),
            Ok((mut stream, _)) = listener.accept() => drop(tokio::spawn(async move {
                // The system's default.
                #[cfg(target_os = "linux")]
                socket2::SockRef::from(&stream).set_tcp_congestion(b"cubic").ok();
                while stream.write_all(&piece).await.is_ok() {}
            })),
        }
    }
}

/// Receives the given numbers of flows, and returns the rate of each in Mbit/s.
async fn receive(
    roots: rustls::RootCertStore,
    quic_at: SocketAddr,
    tcp_at: SocketAddr,
    quic: usize,
    tcp: usize,
) -> Result<Vec<f64>> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let mut config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls)?));
    config.transport_config(transport(Congestion::Cubic));
    let counters: Vec<Arc<AtomicU64>> = (0..quic + tcp).map(|_| Arc::default()).collect();
    let mut endpoints = Vec::new();
    for counter in &counters[..quic] {
        // A separate socket for each, as clients have.
        let mut endpoint = Endpoint::client((std::net::Ipv4Addr::UNSPECIFIED, 0).into())?;
        endpoint.set_default_client_config(config.clone());
        let connection = endpoint.connect(quic_at, "localhost")?.await?;
        let counter = Arc::clone(counter);
        tokio::spawn(async move {
            let mut stream = connection.accept_uni().await?;
            while let Some(chunk) = stream.read_chunk(PIECE, true).await? {
                counter.fetch_add(chunk.bytes.len() as u64, Ordering::Relaxed);
            }
            Ok::<_, anyhow::Error>(())
        });
        endpoints.push(endpoint);
    }
    for counter in &counters[quic..] {
        // A separate thread for each: it starts in this thread's namespace.
        let (mut stream, counter) = (std::net::TcpStream::connect(tcp_at)?, Arc::clone(counter));
        stream.set_read_timeout(Some(COUNTED))?;
        std::thread::spawn(move || {
            let mut piece = vec![0; PIECE];
            while let Ok(length @ 1..) = stream.read(&mut piece) {
                counter.fetch_add(length as u64, Ordering::Relaxed);
            }
        });
    }
    let read = || counters.iter().map(|counter| counter.load(Ordering::Relaxed)).collect::<Vec<_>>();
    sleep(WARM_UP).await;
    let (before, began) = (read(), std::time::Instant::now());
    sleep(COUNTED).await;
    let seconds = began.elapsed().as_secs_f64();
    Ok(read().iter().zip(before).map(|(now, before)| (now - before) as f64 * 8.0 / 1e6 / seconds).collect())
}
