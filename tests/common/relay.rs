//! A lossy link in one process: a UDP relay in front of the server that drops and delays packets, seeded.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

/// Effect of the link on each packet, in either direction.
#[derive(Debug, Clone, Copy)]
pub struct Link {
    /// Share of the packets that are lost, from 0 to 1.
    pub loss: f64,
    /// Delay of the others.
    pub delay: Duration,
    pub seed: u64,
}

/// A running relay; ends when dropped.
pub struct Relay {
    pub addr: SocketAddr,
    is_shut: Arc<AtomicBool>,
    _tasks: JoinSet<()>,
}

impl Relay {
    /// Relays between clients and a server.
    pub async fn start(server: SocketAddr, link: Link) -> Self {
        let front = Arc::new(UdpSocket::bind("127.0.0.1:0").await.expect("a socket"));
        let addr = front.local_addr().expect("its address");
        let (mut tasks, is_shut) = (JoinSet::new(), Arc::<AtomicBool>::default());
        tasks.spawn(forward(front, server, link, Arc::clone(&is_shut)));
        Self { addr, is_shut, _tasks: tasks }
    }

    /// Blocks all packets to the server, or lets them through again.
    pub fn shut(&self, shut: bool) {
        self.is_shut.store(shut, Ordering::Relaxed);
    }
}

/// Receives packets from clients, with a separate socket towards the server for each client.
async fn forward(front: Arc<UdpSocket>, server: SocketAddr, link: Link, is_shut: Arc<AtomicBool>) {
    let mut clients: HashMap<SocketAddr, mpsc::Sender<Packet>> = HashMap::new();
    let mut tasks = JoinSet::new();
    let mut random = fastrand::Rng::with_seed(link.seed);
    let mut buffer = vec![0; 65_536];
    loop {
        let Ok((length, client)) = front.recv_from(&mut buffer).await else { continue };
        if is_shut.load(Ordering::Relaxed) {
            continue;
        }
        if let Entry::Vacant(unknown) = clients.entry(client) {
            let back = Arc::new(UdpSocket::bind("127.0.0.1:0").await.expect("a socket"));
            back.connect(server).await.expect("an address");
            let (to_server, packets) = mpsc::channel(10_000);
            tasks.spawn(carry(packets, Arc::clone(&back), None));
            let (to_client, packets) = mpsc::channel(10_000);
            tasks.spawn(carry(packets, Arc::clone(&front), Some(client)));
            let seed = random.u64(..);
            tasks.spawn(backward(back, to_client, Link { seed, ..link }));
            unknown.insert(to_server);
        }
        spoil(&clients[&client], &buffer[..length], link, &mut random);
    }
}

/// Receives packets from the server for one client.
async fn backward(back: Arc<UdpSocket>, to_client: mpsc::Sender<Packet>, link: Link) {
    let mut random = fastrand::Rng::with_seed(link.seed);
    let mut buffer = vec![0; 65_536];
    loop {
        let Ok(length) = back.recv(&mut buffer).await else { continue };
        spoil(&to_client, &buffer[..length], link, &mut random);
    }
}

struct Packet {
    due: Instant,
    bytes: Vec<u8>,
}

fn spoil(queue: &mpsc::Sender<Packet>, bytes: &[u8], link: Link, random: &mut fastrand::Rng) {
    if random.f64() >= link.loss {
        // A full queue drops packets, as a router's does.
        let _ = queue.try_send(Packet { due: Instant::now() + link.delay, bytes: bytes.to_vec() });
    }
}

/// Sends packets when they are due, in order.
async fn carry(mut packets: mpsc::Receiver<Packet>, socket: Arc<UdpSocket>, to: Option<SocketAddr>) {
    while let Some(Packet { due, bytes }) = packets.recv().await {
        sleep_until(due).await;
        // A client that has left receives nothing more.
        let _ = match to {
            Some(client) => socket.send_to(&bytes, client).await,
            None => socket.send(&bytes).await,
        };
    }
}
