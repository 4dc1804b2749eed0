//! `cargo bench`: this project's server against tuned bare Quinn, WebSocket and others, in one run, as ratios.
//!
//! The same comparison as `cargo run --release --example benchmark -- --compare`, with the same options
//! (`cargo bench -- --quick`).

mod baseline;
mod command;
mod comparison;
mod compression;
mod congestion;
mod durable;
mod fairness;
mod link;
mod load;
mod plot;
mod processes;

fn main() -> std::process::ExitCode {
    command::run(true)
}
