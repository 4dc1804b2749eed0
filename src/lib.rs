//! A realtime messaging server for QUIC, and its client library.
//!
//! The smallest client connects, subscribes to a topic, publishes a message to it, and prints the message that arrives.
//! It uses the crate `quic-websocket-client`, which this crate re-exports:
//!
#![doc = "```no_run"]
#![doc = include_str!("../examples/hello.rs")]
#![doc = "```"]
//!
//! [`Client`] also sends requests without a topic ([`echo`](Client::echo), [`broadcast`](Client::broadcast),
//! [`direct`](Client::direct), [`signal`](Client::signal)); [`Events`] delivers what other clients send. After a lost
//! connection the client reconnects and resumes its subscriptions.
//!
//! [`Server`] is the server that the `quic-websocket` binary runs. It can also be part of a test or of your own
//! program:
//!
//! ```
//! use quic_websocket::tls::{DevelopmentFiles, Trust};
//! use quic_websocket::{CancellationToken, Client, Config, Server};
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # tokio::runtime::Runtime::new()?.block_on(async {
//! # let folder = std::env::temp_dir().join(format!("qws-doc-{}", std::process::id()));
//!
//! let certificates = DevelopmentFiles::inside(&folder);
//! certificates.make(&["127.0.0.1".into()], true)?;
//! let mut config = Config::default();
//! config.addr = "127.0.0.1:0".parse()?; // any free port
//! (config.tls.cert, config.tls.key) = (certificates.cert, certificates.key);
//!
//! let server = Server::bind(config)?;
//! let addr = server.local_addr();
//! let shutdown = CancellationToken::new();
//! let running = tokio::spawn(server.run(shutdown.clone()));
//!
//! let trust = Trust::CaFile(certificates.ca);
//! let (client, _events) = Client::builder(addr.to_string()).trust(trust).connect().await?;
//! assert_eq!(client.echo("hello").await?, "Echo: hello");
//!
//! shutdown.cancel(); // tells the clients, sends what is queued, and ends `run`
//! running.await??;
//! # std::fs::remove_dir_all(folder)?;
//! # Ok(()) })}
//! ```
//!
//! The wire protocol is described in docs/PROTOCOL.md, the layout of the code in ARCHITECTURE.md.

pub mod auth;
pub mod config;
mod consumer;
mod durable;
mod envelope;
mod error;
mod handler;
mod http;
mod limits;
mod log;
pub mod metrics;
mod narrow;
mod origin;
mod outbound;
mod pattern_index;
mod presence;
mod registry;
mod reload;
mod request;
mod server;
mod session;
mod status;
pub mod tls;
mod topic;
mod transport;
mod worker;

pub use config::Config;
pub use error::ServerError;
pub use quic_websocket_client::{
    Answer, Asked, Carrier, Client, ClientBuilder, ClientError, ConnectionStats, Consumer, Ended, Event, Events,
    FailedRequest, History, HistoryBuilder, Lane, Members, Missed, Occupancy, Presence, PublishBuilder, Published,
    Refusal, RequestBuilder, ServeBuilder, Service, SubscribeBuilder, Subscription, Target, TopicEvent,
};
pub use quic_websocket_protocol::{Printable, frame, message};
pub use reload::Reload;
pub use server::Server;
pub use status::ServerStatus;
pub use tokio_util::sync::CancellationToken;
