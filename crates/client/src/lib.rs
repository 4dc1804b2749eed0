//! The client library of quic-websocket, the realtime messaging server for QUIC.
//!
//! A [`Client`] connects over QUIC, or over WebSocket if QUIC is blocked. Requests return the server's replies,
//! subscriptions and [`Events`] deliver messages from other clients, and after a lost connection the client reconnects
//! and resumes every subscription:
//!
//! ```
//! use quic_websocket_client::{Client, CloseCode, TopicEvent};
//! # use quic_websocket::{CancellationToken, Config, Server, tls::{DevelopmentFiles, Trust}};
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # tokio::runtime::Runtime::new()?.block_on(async {
//! # let folder = std::env::temp_dir().join(format!("qws-client-doc-{}", std::process::id()));
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
//! let (client, _events) = Client::builder(server).name("Ada")?.trust(trust).connect().await?;
//! assert_eq!(client.echo("hello").await?, "Echo: hello");
//!
//! let mut lobby = client.subscribe("chat.lobby").recent(10).await?;
//! client.publish("chat.lobby", "hello, lobby").await?;
//! if let Some(TopicEvent::Message(message)) = lobby.next().await {
//!     println!("{}", message.text().unwrap_or_default());
//! }
//! client.close(CloseCode::NORMAL, "done").await?;
//! # shutdown.cancel();
//! # running.await??;
//! # std::fs::remove_dir_all(folder)?;
//! # Ok(()) })}
//! ```
//!
//! The client needs a Tokio runtime. [`message`] has the types of the protocol, which docs/PROTOCOL.md in the
//! repository of this crate specifies.

mod ask;
mod backoff;
mod builder;
mod client;
mod connection;
mod development;
mod dial;
mod driver;
mod error;
mod events;
mod handshake;
mod inbound;
mod lane;
mod link;
mod overlap;
mod pace;
mod requests;
mod second;
mod serve;
pub mod tls;
mod token;
mod topics;

pub use self::ask::{Answer, RequestBuilder, Target};
pub use self::builder::ClientBuilder;
pub use self::client::{Carrier, Client, ConnectionStats};
pub use self::error::{ClientError, FailedRequest};
pub use self::events::{Event, Events};
pub use self::lane::Lane;
pub use self::message::{CloseCode, Payload};
pub use self::serve::{Asked, Refusal, ServeBuilder, Service};
pub use self::tls::Trust;
pub use self::topics::{
    Consumer, Ended, History, HistoryBuilder, Members, Missed, Occupancy, Presence, PublishBuilder, Published,
    SubscribeBuilder, Subscription, TopicEvent,
};
pub use quic_websocket_protocol::message;

use quic_websocket_protocol::Printable;

// Their types are part of this crate's interface.
pub use {bytes, bytestring, serde_json, uuid};

// Tests the example of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
