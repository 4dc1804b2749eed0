//! The client library with a second WebSocket: what it is for, and its loss.

#![allow(clippy::expect_used, clippy::panic)] // A test fails by panicking.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use quic_websocket::message::CloseCode;
use quic_websocket::{Carrier, Client};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Mutex;
use tokio::task::{AbortHandle, JoinSet};

use crate::common::library::{builder, expect, publish};
use crate::common::{TestServer, soon, until};

/// Passes TCP connections on to a server, and can end each of them.
struct Proxy {
    addr: SocketAddr,
    passing: Arc<Mutex<Vec<AbortHandle>>>,
    count: Arc<AtomicUsize>,
    _accepting: JoinSet<()>,
}

impl Proxy {
    async fn start(to: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let addr = listener.local_addr().expect("an address");
        let (passing, count) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicUsize::new(0)));
        let (held, counted) = (Arc::clone(&passing), Arc::clone(&count));
        let mut accepting = JoinSet::new();
        accepting.spawn(async move {
            let mut tasks = JoinSet::new();
            while let Ok((mut client, _)) = listener.accept().await {
                let task = tasks.spawn(async move {
                    let mut server = TcpStream::connect(to).await.expect("it connects");
                    let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
                });
                held.lock().await.push(task);
                counted.fetch_add(1, Ordering::Relaxed);
            }
        });
        Self { addr, passing, count, _accepting: accepting }
    }

    fn connections(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Cuts the connection with this number.
    async fn cut(&self, number: usize) {
        self.passing.lock().await[number].abort();
    }
}

async fn server() -> (TestServer, Proxy) {
    let server = TestServer::start_with(|config| config.http.plain_addr = "127.0.0.1:0".parse().ok()).await;
    let proxy = Proxy::start(server.plain_http.expect("it serves plain HTTP")).await;
    (server, proxy)
}

async fn client(proxy: &Proxy, bulk_socket: bool) -> Client {
    let url = format!("ws://{}/ws", proxy.addr);
    let builder = Client::builder(proxy.addr.to_string()).carriers([Carrier::WebSocket]).bulk_socket(bulk_socket);
    builder.websocket_url(&url).expect("a URL").connect().await.expect("it connects").0
}

#[tokio::test]
async fn bulk_comes_on_a_second_socket_of_the_same_client() {
    let (server, proxy) = server().await;
    let publisher = builder(&server).connect().await.expect("it connects").0;
    for (bulk_socket, connections) in [(false, 1), (true, 3)] {
        let ada = client(&proxy, bulk_socket).await;
        let mut bulk = ada.subscribe("bulk").on_bulk_lane().await.expect("it subscribes");
        let mut small = ada.subscribe("small").await.expect("it subscribes");
        assert_eq!((proxy.connections(), server.status.clients()), (connections, 2));
        for n in 0..20 {
            publish(&publisher, "bulk", format!("{n} {}", "x".repeat(50_000))).await;
            publish(&publisher, "small", n.to_string()).await;
        }
        for n in 0..20 {
            expect(&mut small, &n.to_string()).await;
        }
        for n in 0..20 {
            expect(&mut bulk, &format!("{n} {}", "x".repeat(50_000))).await;
        }
        assert_eq!(ada.echo("still one client").await.expect("an echo"), "Echo: still one client");
        ada.close(CloseCode::NORMAL, "").await.expect("it closes");
        until("the client's end", || server.status.clients() == 1).await;
    }
    server.stop().await;
}

#[tokio::test]
async fn after_the_loss_of_the_second_socket_nothing_is_missing() {
    let (server, proxy) = server().await;
    let publisher = builder(&server).connect().await.expect("it connects").0;
    let ada = client(&proxy, true).await;
    let mut bulk = ada.subscribe("bulk").on_bulk_lane().await.expect("it subscribes");
    for n in 0..100 {
        publish(&publisher, "bulk", n.to_string()).await;
        if n == 50 {
            assert_eq!(proxy.connections(), 2);
            proxy.cut(1).await;
        }
    }
    for n in 0..100 {
        expect(&mut bulk, &n.to_string()).await;
    }
    // The client opens another one, on which later subscriptions come.
    soon("another socket", async {
        while proxy.connections() < 3 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(ada.echo("the same connection").await.expect("an echo"), "Echo: the same connection");
    // Its first connection is lost: the client comes back with both.
    proxy.cut(0).await;
    publish(&publisher, "bulk", "after").await;
    expect(&mut bulk, "after").await;
    until("both connections", || proxy.connections() >= 5).await;
    server.stop().await;
}
