//! A point on the path to the server where packets are observed, held and recorded: for an attacker, or a network that
//! loses a client's second flight.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::net::UdpSocket;
use tokio::task::JoinSet;

/// A running tap between one client at a time and a server; ends when dropped.
pub struct Tap {
    pub addr: SocketAddr,
    back: Arc<UdpSocket>,
    state: Arc<Mutex<State>>,
    _tasks: JoinSet<()>,
}

struct State {
    server: SocketAddr,
    client: Option<SocketAddr>,
    holds: bool,
    held: Vec<Vec<u8>>,
    seen: Vec<Vec<u8>>,
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().expect("no thread panicked")
}

impl Tap {
    pub async fn start(server: SocketAddr) -> Self {
        let front = Arc::new(UdpSocket::bind("127.0.0.1:0").await.expect("a socket"));
        let back = Arc::new(UdpSocket::bind("127.0.0.1:0").await.expect("a socket"));
        let addr = front.local_addr().expect("its address");
        let state = State { server, client: None, holds: false, held: Vec::new(), seen: Vec::new() };
        let state = Arc::new(Mutex::new(state));
        let mut tasks = JoinSet::new();
        tasks.spawn(forward(Arc::clone(&front), Arc::clone(&back), Arc::clone(&state)));
        tasks.spawn(backward(front, Arc::clone(&back), Arc::clone(&state)));
        Self { addr, back, state, _tasks: tasks }
    }

    /// From now on forwards the client's packets to this server.
    pub fn turn_to(&self, server: SocketAddr) {
        lock(&self.state).server = server;
    }

    /// From now on holds the client's packets.
    pub fn hold(&self) {
        lock(&self.state).holds = true;
    }

    /// Releases the held packets, and continues to hold.
    pub async fn pass(&self) {
        let (server, held) = {
            let mut state = lock(&self.state);
            (state.server, std::mem::take(&mut state.held))
        };
        for packet in held {
            self.back.send_to(&packet, server).await.expect("it leaves");
        }
    }

    /// Releases the held packets, and stops holding.
    pub async fn open(&self) {
        lock(&self.state).holds = false;
        self.pass().await;
    }

    /// Drops the held packets.
    pub fn lose(&self) {
        lock(&self.state).held.clear();
    }

    /// The client's packets since the last call.
    pub fn take_seen(&self) -> Vec<Vec<u8>> {
        std::mem::take(&mut lock(&self.state).seen)
    }

    /// Number of packets from the client since they were last taken.
    pub fn count(&self) -> u64 {
        lock(&self.state).seen.len() as u64
    }
}

async fn forward(front: Arc<UdpSocket>, back: Arc<UdpSocket>, state: Arc<Mutex<State>>) {
    let mut buffer = vec![0; 65_536];
    loop {
        let Ok((length, client)) = front.recv_from(&mut buffer).await else { continue };
        let packet = &buffer[..length];
        let to = {
            let mut state = lock(&state);
            state.client = Some(client);
            state.seen.push(packet.to_vec());
            if state.holds {
                state.held.push(packet.to_vec());
                continue;
            }
            state.server
        };
        let _ = back.send_to(packet, to).await;
    }
}

async fn backward(front: Arc<UdpSocket>, back: Arc<UdpSocket>, state: Arc<Mutex<State>>) {
    let mut buffer = vec![0; 65_536];
    loop {
        let Ok(length) = back.recv(&mut buffer).await else { continue };
        let client = lock(&state).client;
        if let Some(client) = client {
            let _ = front.send_to(&buffer[..length], client).await;
        }
    }
}
