//! The realtime messaging server for QUIC.

mod client;
pub mod config;
mod error;
pub mod frame;
mod handler;
pub mod message;
mod outbound;
mod registry;
mod server;
pub mod tls;
mod transport;
mod worker;

pub use config::Config;
pub use error::ServerError;
pub use server::{Server, ServerStatus};
pub use tokio_util::sync::CancellationToken;
