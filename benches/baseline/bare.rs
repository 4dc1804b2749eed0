//! Bare Quinn, tuned: length-prefixed frames, no JSON, no names, no meaningful limits.
//!
//! One `current_thread` runtime, direct writes into each client's stream, acknowledgement frequency and BBR. A frame
//! that begins with `BROADCAST` goes to every client, one that begins with `RELAY` and a name to the client with that
//! name, and any other is echoed on its stream. A client's later streams have priority over its first one.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::path::Path;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use bytes::{Bytes, BytesMut};
use quinn::crypto::rustls::QuicServerConfig;
use quinn::{
    AckFrequencyConfig, Connection, Endpoint, EndpointConfig, SendStream, TransportConfig, VarInt, WriteError,
};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::sync::Notify;

use super::{ADDRESS, BROADCAST, NAME, RELAY, identity};
use crate::congestion::Congestion;

/// Number of clients written to before the connections' own tasks get their turn to send packets.
const SLICE: usize = 64;
/// Backlog at which a client is disconnected.
const MAX_BACKLOG: usize = 64 << 20;
const MAX_FRAME: usize = 16 << 20;
const SOCKET_BUFFER: usize = 4 << 20;

/// Transport settings that differ from Quinn's defaults.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(crate) struct Tuning {
    #[arg(long, value_enum, default_value = "bbr")]
    congestion: Congestion,
    /// Packets that a client may receive before it must acknowledge
    #[arg(long, default_value_t = 100)]
    ack_every: u32,
    /// Longest time that it may delay an acknowledgement
    #[arg(long, default_value_t = 200)]
    ack_within_ms: u64,
}

/// Serves on an address until the process ends, and prints the address with its actual port.
pub(crate) fn serve(address: SocketAddr, certificate: &Path, key: &Path, tuning: &Tuning) -> Result<()> {
    super::end_with_parent();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let endpoint = bind(address, certificate, key, tuning)?;
        println!("Listening on: {}", endpoint.local_addr()?);
        let hub = Arc::new(Hub::default());
        tokio::spawn(Arc::clone(&hub).fan_out());
        while let Some(incoming) = endpoint.accept().await {
            let hub = Arc::clone(&hub);
            // A client that fails or leaves is not reported here: the generator reports missing messages.
            tokio::spawn(async move { serve_client(incoming, &hub).await.ok() });
        }
        Ok(())
    })
}

fn bind(address: SocketAddr, certificate: &Path, key: &Path, tuning: &Tuning) -> Result<Endpoint> {
    let tls = identity::server_config(certificate, key, &[b"qws/1"])?;
    let mut config = quinn::ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls)?));
    let mut frequency = AckFrequencyConfig::default();
    frequency.ack_eliciting_threshold(VarInt::from_u32(tuning.ack_every));
    frequency.max_ack_delay(Some(Duration::from_millis(tuning.ack_within_ms)));
    let mut transport = TransportConfig::default();
    transport.ack_frequency_config(Some(frequency));
    transport.congestion_controller_factory(tuning.congestion.factory());
    config.transport_config(Arc::new(transport));

    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_recv_buffer_size(SOCKET_BUFFER)?;
    socket.set_send_buffer_size(SOCKET_BUFFER)?;
    socket.bind(&address.into())?;
    let runtime = quinn::default_runtime().context("no async runtime")?;
    Ok(Endpoint::new(EndpointConfig::default(), Some(config), socket.into(), runtime)?)
}

async fn serve_client(incoming: quinn::Incoming, hub: &Arc<Hub>) -> Result<()> {
    let connection = incoming.await?;
    let (send, mut recv) = connection.accept_bi().await?;
    let client = Arc::new(Client::new(send));
    let place = hub.join(Arc::clone(&client));
    let outcome = tokio::select! {
        outcome = read_frames(&mut recv, &client, hub) => outcome,
        outcome = serve_more_streams(&connection, hub) => outcome,
    };
    hub.leave(place);
    outcome
}

/// Serves a client's later streams, which broadcasts do not reach.
async fn serve_more_streams(connection: &Connection, hub: &Arc<Hub>) -> Result<()> {
    loop {
        let (send, mut recv) = connection.accept_bi().await?;
        send.set_priority(1)?;
        let hub = Arc::clone(hub);
        // The task ends with the connection, which ends its stream.
        tokio::spawn(async move { read_frames(&mut recv, &Arc::new(Client::new(send)), &hub).await.ok() });
    }
}

async fn read_frames(recv: &mut quinn::RecvStream, client: &Arc<Client>, hub: &Hub) -> Result<()> {
    let mut buffer = vec![0; 16 << 10];
    let mut end = 0;
    while let Some(read) = recv.read(&mut buffer[end..]).await? {
        end += read;
        let was_full = end == buffer.len();
        // Consecutive frames with the same destination are forwarded as one write.
        let (mut start, mut run) = (0, 0);
        let mut run_goes = Destination::Back;
        while let Some(body) = buffer[start..end].first_chunk::<4>().map(|head| u32::from_be_bytes(*head)) {
            let total = 4 + usize::try_from(body)?;
            ensure!((5..=MAX_FRAME).contains(&total), "a frame of {body} bytes");
            if end - start < total {
                break;
            }
            let goes = Destination::of(&buffer[start + 4..start + total]);
            if buffer[start + 4] == NAME {
                hub.name(client, &buffer[start + 5..start + total]);
            }
            if goes != run_goes {
                hub.forward(client, run_goes, &buffer[run..start]);
                (run, run_goes) = (start, goes);
            }
            start += total;
        }
        hub.forward(client, run_goes, &buffer[run..start]);
        buffer.copy_within(start..end, 0);
        end -= start;
        if was_full && buffer.len() < MAX_FRAME {
            buffer.resize(buffer.len() * 2, 0);
        }
        client.writable().await;
    }
    Ok(())
}

/// The receivers of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Destination {
    /// Its sender.
    Back,
    Everyone,
    To([u8; ADDRESS]),
}

impl Destination {
    fn of(body: &[u8]) -> Self {
        match body.split_first() {
            Some((&BROADCAST, _)) => Self::Everyone,
            Some((&RELAY, rest)) => rest.first_chunk().map_or(Self::Back, |address| Self::To(*address)),
            _ => Self::Back,
        }
    }
}

/// The connected clients, and the frames queued for all of them.
#[derive(Default)]
struct Hub {
    /// A slot stays empty after its client left until the next one takes it, so that slice boundaries never shift.
    clients: Mutex<Vec<Option<Arc<Client>>>>,
    /// Those that have named themselves.
    named: Mutex<HashMap<[u8; ADDRESS], Arc<Client>>>,
    pending: Mutex<BytesMut>,
    wake: Notify,
}

impl Hub {
    fn join(&self, client: Arc<Client>) -> usize {
        let mut clients = lock(&self.clients);
        let place = clients.iter().position(Option::is_none).unwrap_or(clients.len());
        if place == clients.len() {
            clients.push(Some(client));
        } else {
            clients[place] = Some(client);
        }
        place
    }

    fn leave(&self, place: usize) {
        let left = lock(&self.clients)[place].take();
        lock(&self.named).retain(|_, client| left.as_ref().is_none_or(|left| !Arc::ptr_eq(left, client)));
    }

    fn name(&self, client: &Arc<Client>, address: &[u8]) {
        if let Some(address) = address.first_chunk() {
            lock(&self.named).insert(*address, Arc::clone(client));
        }
    }

    fn forward(&self, client: &Arc<Client>, goes: Destination, frames: &[u8]) {
        if frames.is_empty() {
            return;
        }
        match goes {
            Destination::Back => client.write(&Bytes::copy_from_slice(frames)),
            Destination::Everyone => {
                lock(&self.pending).extend_from_slice(frames);
                self.wake.notify_one();
            }
            Destination::To(address) => {
                let named = lock(&self.named).get(&address).cloned();
                if let Some(named) = named {
                    named.write(&Bytes::copy_from_slice(frames));
                }
            }
        }
    }

    /// Sends the queued frames, as one shared piece, to every client; frames published meanwhile form the next piece.
    async fn fan_out(self: Arc<Self>) {
        loop {
            self.wake.notified().await;
            loop {
                let frames = lock(&self.pending).split().freeze();
                if frames.is_empty() {
                    break;
                }
                let mut first = 0;
                while self.write_slice(first, &frames) {
                    first += SLICE;
                    tokio::task::yield_now().await;
                }
            }
        }
    }

    /// Writes to one slice of clients; false if no clients remain after it.
    fn write_slice(&self, first: usize, frames: &Bytes) -> bool {
        let clients = lock(&self.clients);
        let end = clients.len().min(first + SLICE);
        for client in clients[first..end].iter().flatten() {
            client.write(frames);
        }
        end < clients.len()
    }
}

/// The sending side of one client: the stream, and its backlog.
struct Client {
    lane: Mutex<Lane>,
    drained: Notify,
}

struct Lane {
    send: SendStream,
    backlog: VecDeque<Bytes>,
    waiting: usize,
}

impl Client {
    fn new(send: SendStream) -> Self {
        let lane = Lane { send, backlog: VecDeque::new(), waiting: 0 };
        Self { lane: Mutex::new(lane), drained: Notify::new() }
    }

    /// Polls the stream once; only the rest becomes a backlog with a task that drains it.
    fn write(self: &Arc<Self>, frames: &Bytes) {
        let mut lane = lock(&self.lane);
        let was_idle = lane.backlog.is_empty();
        if lane.waiting + frames.len() > MAX_BACKLOG {
            lane.send.reset(VarInt::from_u32(4413)).ok();
            return;
        }
        lane.backlog.push_back(frames.clone());
        lane.waiting += frames.len();
        if was_idle && lane.poll_drain(&mut Context::from_waker(Waker::noop())).is_pending() {
            let client = Arc::clone(self);
            tokio::spawn(async move {
                std::future::poll_fn(|cx| lock(&client.lane).poll_drain(cx)).await.ok();
                client.drained.notify_waiters();
            });
        }
    }

    /// Returns once nothing is queued for this client: a client that does not read its echoes is not read from.
    async fn writable(&self) {
        loop {
            let mut drained = pin!(self.drained.notified());
            drained.as_mut().enable();
            if lock(&self.lane).backlog.is_empty() {
                return;
            }
            drained.await;
        }
    }
}

impl Lane {
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), WriteError>> {
        while !self.backlog.is_empty() {
            let poll = pin!(self.send.write_chunks(self.backlog.make_contiguous())).poll(cx);
            match poll {
                Poll::Ready(Ok(written)) => {
                    self.backlog.drain(..written.chunks);
                    self.waiting -= written.bytes;
                }
                Poll::Ready(Err(error)) => {
                    self.backlog.clear();
                    self.waiting = 0;
                    return Poll::Ready(Err(error));
                }
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(Ok(()))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
