//! The realtime messaging server for QUIC, and its client.
//!
//! A client asks and is answered, hears what others send, and comes back by itself after a lost connection:
//!
//! ```
//! use quic_websocket::{Client, Event, TopicEvent, message::{CloseCode, Payload}};
//! # use quic_websocket::{CancellationToken, Config, Server, tls::{DevelopmentFiles, Trust}};
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # tokio::runtime::Runtime::new()?.block_on(async {
//! # let folder = std::env::temp_dir().join(format!("qws-doc-{}", std::process::id()));
//! # let mut config = Config::default();
//! # config.addr = "127.0.0.1:0".parse()?;
//! # let files = DevelopmentFiles::inside(&folder);
//! # files.make(&["127.0.0.1".into()], true)?;
//! # (config.tls.cert, config.tls.key) = (files.cert, files.key);
//! # let running = Server::bind(config)?;
//! # let (server, trust) = (running.local_addr().to_string(), Trust::CaFile(files.ca));
//! # let shutdown = CancellationToken::new();
//! # let running = tokio::spawn(running.run(shutdown.clone()));
//!
//! let (client, mut events) = Client::builder(server).name("Ada")?.trust(trust).connect().await?;
//! assert_eq!(client.echo("hello").await?, "Echo: hello");
//!
//! let reached = client.broadcast(Payload::text("to everybody, and so to me")).await?;
//! assert_eq!(reached, 1);
//! if let Some(Event::Message(message)) = events.next().await {
//!     println!("{message:?}");
//! }
//!
//! let mut lobby = client.subscribe("chat.lobby").recent(10).await?;
//! client.publish("chat.lobby", Payload::text("to all who are there")).await?;
//! if let Some(TopicEvent::Message(message)) = lobby.next().await {
//!     println!("{message:?}");
//! }
//! client.close(CloseCode::NORMAL, "done").await?;
//! # shutdown.cancel();
//! # running.await??;
//! # std::fs::remove_dir_all(folder)?;
//! # Ok(()) })}
//! ```
//!
//! [`Server`] is the same server that the binary runs, for tests and for programs that bring their own. The protocol is
//! in docs/PROTOCOL.md, the map of the code in ARCHITECTURE.md.

pub mod auth;
mod client;
pub mod config;
mod error;
pub mod frame;
mod handler;
mod http;
mod limits;
mod log;
pub mod message;
pub mod metrics;
mod outbound;
mod pattern_index;
mod printable;
mod registry;
mod reload;
mod server;
mod session;
mod status;
pub mod tls;
mod topic;
mod transport;
mod worker;

pub use client::{
    Carrier, Client, ClientBuilder, ClientError, ConnectionStats, Event, Events, History, HistoryBuilder, Lane, Missed,
    PublishBuilder, Published, SubscribeBuilder, Subscription, TopicEvent,
};
pub use config::Config;
pub use error::ServerError;
pub use printable::Printable;
pub use reload::Reload;
pub use server::Server;
pub use status::ServerStatus;
pub use tokio_util::sync::CancellationToken;
