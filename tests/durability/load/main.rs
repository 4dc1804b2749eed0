//! The load of the durability suites: publishers, subscribers and durable consumers that record a history, and a
//! reader.
//!
//! ```text
//! durability_load run --server 127.0.0.1:4433 --ca certs/ca.pem --topics os.a,fsync.a > history
//! durability_load read --server 127.0.0.1:4433 --ca certs/ca.pem --topics os.a,fsync.a > read
//! ```
//!
//! `run` goes on over any number of the server's ends and starts until its standard input ends. It speaks the protocol
//! of docs/PROTOCOL.md by itself, so that a fault of the client library cannot hide one of the server. Both commands
//! print JSON lines that `tests/durability/checker.py` judges.

#![allow(missing_docs)]

mod connection;
mod consumer;
mod content;
mod history;
mod publisher;
mod reader;
mod subscriber;

use std::io::Read as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Result;
use clap::{Args, Parser, Subcommand};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use connection::{Carrier, Dialer};
use history::History;

/// Publishers and subscribers for the durability suites.
#[derive(Parser)]
#[command(name = "durability_load", max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Publish and subscribe until standard input ends, over any number of the server's lives
    Run {
        #[command(flatten)]
        server: ServerArgs,
        /// Publishers; every second one connects by WebSocket
        #[arg(long, default_value_t = 8)]
        publishers: usize,
        /// Subscribers, likewise
        #[arg(long, default_value_t = 8)]
        subscribers: usize,
        /// The largest number of publishes that a publisher has in flight
        #[arg(long, default_value_t = 16)]
        window: usize,
        /// The longest pause of a publisher between two publishes, in milliseconds
        #[arg(long, default_value_t = 10)]
        pause_ms: u64,
        /// The largest content, in bytes
        #[arg(long, default_value_t = 3000)]
        largest: usize,
        /// Topics with durable consumers, separated by commas
        #[arg(long, value_delimiter = ',')]
        consumed: Vec<Arc<str>>,
        /// A prefix that makes the contents of this run different from those of another
        #[arg(long, default_value = "")]
        prefix: String,
    },
    /// Read all that the server has
    Read {
        #[command(flatten)]
        server: ServerArgs,
        /// Read the history backwards as well, and compare; only while no client publishes
        #[arg(long)]
        both_ways: bool,
        /// Connect by WebSocket
        #[arg(long)]
        socket: bool,
    },
}

#[derive(Args)]
struct ServerArgs {
    /// The server's address, for UDP and TCP
    #[arg(long)]
    server: SocketAddr,
    /// The authority that signed its certificate
    #[arg(long)]
    ca: PathBuf,
    /// Topics, separated by commas
    #[arg(long, value_delimiter = ',')]
    topics: Vec<Arc<str>>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    match Cli::parse().command {
        Command::Run { server, publishers, subscribers, window, pause_ms, largest, consumed, prefix } => {
            let history = Arc::new(History::new());
            let (stop, quiet) = (CancellationToken::new(), CancellationToken::new());
            let mut publishing = JoinSet::new();
            for number in 0..publishers {
                let dialer = Dialer::new(server.server, &server.ca, Carrier::by_turns(number))?;
                let shape = publisher::Shape { window, pause_ms, largest };
                let name = format!("{prefix}p{number}");
                publishing.spawn(publisher::run(
                    dialer,
                    name,
                    server.topics.clone(),
                    shape,
                    Arc::clone(&history),
                    stop.clone(),
                ));
            }
            let mut subscribing = JoinSet::new();
            for number in 0..subscribers {
                let dialer = Dialer::new(server.server, &server.ca, Carrier::by_turns(number))?;
                let name = format!("{prefix}s{number}");
                subscribing.spawn(subscriber::run(
                    dialer,
                    name,
                    server.topics.clone(),
                    Arc::clone(&history),
                    quiet.clone(),
                ));
            }
            for (number, member) in consumer::members(&prefix, &consumed).into_iter().enumerate() {
                let dialer = Dialer::new(server.server, &server.ca, Carrier::by_turns(number))?;
                subscribing.spawn(consumer::run(dialer, member, Arc::clone(&history), quiet.clone()));
            }
            tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new())).await??;
            stop.cancel();
            publishing.join_all().await;
            // Nothing more is published: subscribers read what is left.
            quiet.cancel();
            subscribing.join_all().await;
            history.flush()
        }
        Command::Read { server, both_ways, socket } => {
            let carrier = if socket { Carrier::WebSocket } else { Carrier::Quic };
            let dialer = Dialer::new(server.server, &server.ca, carrier)?;
            reader::run(&dialer, &server.topics, both_ways).await
        }
    }
}
