//! Measures a running server, or compares this project's server with baselines and other servers:
//!
//! ```text
//! cargo run --release --example benchmark -- --server 127.0.0.1:4433 --clients 10 --messages 100 --message-size 1024
//! cargo run --release --example benchmark -- --compare
//! ```
//!
//! The code is shared with `cargo bench` and is in `benches/`.

#[path = "../benches/baseline/mod.rs"]
mod baseline;
#[path = "../benches/command/mod.rs"]
mod command;
#[path = "../benches/comparison/mod.rs"]
mod comparison;
#[path = "../benches/compression.rs"]
mod compression;
#[path = "../benches/congestion.rs"]
mod congestion;
#[path = "../benches/durable/mod.rs"]
mod durable;
#[path = "../benches/fairness.rs"]
mod fairness;
#[path = "../benches/link/mod.rs"]
mod link;
#[path = "../benches/load/mod.rs"]
mod load;
#[path = "../benches/plot.rs"]
mod plot;
#[path = "../benches/processes.rs"]
mod processes;

fn main() -> std::process::ExitCode {
    command::run(false)
}
