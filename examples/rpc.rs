//! Requests that another client answers: one answers them, another one asks.
//!
//! ```text
//! rpc serve rpc.sum                      # adds the numbers of each request, until Ctrl-C
//! rpc ask rpc.sum '[1, 2, 3]'            # prints 6.0
//! rpc ask --user ada '"Are you there?"'  # asks a client of the user ada
//! ```
//!
//! Run it as `cargo run --release --example rpc -- serve rpc.sum`. Several clients may answer requests to one topic:
//! they take turns.

mod common;
#[path = "common/interrupt.rs"]
mod interrupt;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Parser, Subcommand};
use common::{ServerArgs, show};
use interrupt::interrupted;
use quic_websocket::message::{CloseCode, Json};
use quic_websocket::{Asked, Client, Printable, Refusal, Target};
use serde_json::json;

/// Ask other clients of a quic-websocket server, and answer their requests.
#[derive(Parser)]
struct Args {
    #[command(flatten)]
    server: ServerArgs,
    /// The name that others see
    #[arg(long, global = true, default_value = "rpc")]
    name: String,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Answer requests to a topic with the sum of their numbers
    Serve {
        /// Topic, such as rpc.sum
        topic: String,
    },
    /// Ask, and print the answer
    Ask {
        /// Topic, such as rpc.sum; with --user the request itself
        topic_or_request: String,
        /// The request, a JSON value
        request: Option<String>,
        /// Ask a client of this user, and not those that answer to a topic
        #[arg(long, conflicts_with = "request")]
        user: Option<String>,
        /// How many milliseconds the answer may take
        #[arg(long, value_name = "MS", default_value = "10000")]
        timeout: u64,
    },
}

#[tokio::main]
async fn main() -> ExitCode {
    common::exit_code(run(Args::parse()).await)
}

async fn run(args: Args) -> anyhow::Result<()> {
    let (client, _events) = args.server.client()?.name(&args.name)?.connect().await?;
    let done = match args.command {
        Command::Serve { topic } => serve(&client, &topic).await,
        Command::Ask { topic_or_request, request, user, timeout } => {
            let (target, request) = match (user, request) {
                (Some(user), _) => (Target::User(user), topic_or_request),
                (None, Some(request)) => (Target::Topic(topic_or_request), request),
                (None, None) => bail!("what is to be asked? Give a topic and a JSON value"),
            };
            ask(&client, target, request, Duration::from_millis(timeout)).await
        }
    };
    client.close(CloseCode::NORMAL, "done").await?;
    done
}

/// Adds numbers. A request with anything else fails, and its client learns why.
async fn sum(asked: Asked) -> Result<serde_json::Value, Refusal> {
    let numbers: Vec<f64> = asked.data()?.ok_or_else(|| Refusal::new(400, "send a list of numbers"))?;
    Ok(json!(numbers.iter().sum::<f64>()))
}

async fn serve(client: &Client, topic: &str) -> anyhow::Result<()> {
    let service = client.serve(topic, sum).await?;
    show(format_args!("Answering requests to {topic}"))?;
    tokio::select! {
        ended = service.ended() => bail!("the server has ended it: {ended}"),
        () = interrupted() => Ok(()),
    }
}

async fn ask(client: &Client, target: Target, request: String, within: Duration) -> anyhow::Result<()> {
    let request = Json::parse(request).context("the request is not a JSON value")?;
    let answer = client.request(target, request).timeout(within).await?;
    let value = answer.payload.data.as_ref().map(Json::as_str);
    show(Printable::new(value.or(answer.text()).unwrap_or_default()))?;
    Ok(())
}
