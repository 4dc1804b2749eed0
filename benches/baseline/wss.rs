//! WebSocket over TLS as a good engineer would write it: tokio-tungstenite over tokio-rustls on the work-stealing
//! runtime with two threads, one task and one channel per client, every message encoded once.
//!
//! A message that begins with `BROADCAST` goes to every client, any other is echoed. Messages that are ready together
//! are flushed together: a flush for each, as in most tutorials, costs several times as much if many are in flight.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use anyhow::Result;
use futures_util::{FutureExt as _, SinkExt as _, StreamExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use super::{BROADCAST, identity};

const THREADS: usize = 2;

type Socket = WebSocketStream<TlsStream<TcpStream>>;

/// Serves on an address until the process ends, and prints the address with its actual port.
pub(crate) fn serve(address: SocketAddr, certificate: &Path, key: &Path) -> Result<()> {
    super::end_with_parent();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(THREADS).enable_all().build()?;
    let acceptor = TlsAcceptor::from(Arc::new(identity::server_config(certificate, key, &[])?));
    // Accepting on a worker thread, not on the blocked main thread, keeps new tasks where they will run.
    runtime.block_on(async { tokio::spawn(accept(address, acceptor)).await? })
}

async fn accept(address: SocketAddr, acceptor: TlsAcceptor) -> Result<()> {
    let listener = TcpListener::bind(address).await?;
    println!("Listening on: {}", listener.local_addr()?);
    let room = Arc::new(Room::default());
    loop {
        let (stream, _) = listener.accept().await?;
        let (acceptor, room) = (acceptor.clone(), Arc::clone(&room));
        // A client that fails or leaves is not reported here: the generator reports missing messages.
        tokio::spawn(async move { serve_client(stream, &acceptor, &room).await.ok() });
    }
}

async fn serve_client(stream: TcpStream, acceptor: &TlsAcceptor, room: &Room) -> Result<()> {
    stream.set_nodelay(true)?;
    let stream = acceptor.accept(stream).await?;
    // Joins before the upgrade is answered: from then on the client expects every broadcast.
    let (sender, receiver) = unbounded_channel();
    let member = room.join(sender);
    let outcome = match tokio_tungstenite::accept_async(stream).await {
        Ok(socket) => converse(socket, receiver, room).await,
        Err(error) => Err(error.into()),
    };
    room.leave(member);
    outcome
}

async fn converse(mut socket: Socket, mut receiver: UnboundedReceiver<Message>, room: &Room) -> Result<()> {
    loop {
        tokio::select! {
            received = socket.next() => {
                let mut next = Some(received);
                while let Some(received) = next {
                    let Some(message) = received.transpose()? else { return Ok(()) };
                    if is_broadcast(&message) {
                        room.broadcast(&message);
                    } else if message.is_text() || message.is_binary() {
                        socket.feed(message).await?;
                    }
                    next = socket.next().now_or_never();
                }
            }
            Some(message) = receiver.recv() => {
                socket.feed(message).await?;
                while let Ok(message) = receiver.try_recv() {
                    socket.feed(message).await?;
                }
            }
        }
        socket.flush().await?;
    }
}

fn is_broadcast(message: &Message) -> bool {
    match message {
        Message::Text(text) => text.as_bytes().first() == Some(&BROADCAST),
        Message::Binary(bytes) => bytes.first() == Some(&BROADCAST),
        _ => false,
    }
}

/// The connected clients, as channels to their tasks.
#[derive(Default)]
struct Room {
    members: RwLock<HashMap<u64, UnboundedSender<Message>>>,
    next: AtomicU64,
}

impl Room {
    fn join(&self, sender: UnboundedSender<Message>) -> u64 {
        let member = self.next.fetch_add(1, Ordering::Relaxed);
        self.members.write().unwrap_or_else(PoisonError::into_inner).insert(member, sender);
        member
    }

    fn leave(&self, member: u64) {
        self.members.write().unwrap_or_else(PoisonError::into_inner).remove(&member);
    }

    fn broadcast(&self, message: &Message) {
        for sender in self.members.read().unwrap_or_else(PoisonError::into_inner).values() {
            // A member whose task has just ended is about to be removed.
            sender.send(message.clone()).ok();
        }
    }
}
