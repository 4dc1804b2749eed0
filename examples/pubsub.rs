//! Topics in shell pipes: each line is a message.
//!
//! ```text
//! pubsub sub 'sensors.>'                 # prints messages until Ctrl-C
//! pubsub pub sensors.a < file            # publishes each line; ends when the server has acknowledged all
//! pubsub history sensors.a --recent 10   # prints the topic's history
//! pubsub sub orders --durable billing    # prints and acknowledges; later continues where it stopped
//! pubsub sub metrics --max-rate 2 --filter '{"host":{"prefix":"eu-"}}'
//! pubsub pub metrics --data --meta '{"host":"eu-1"}' --ttl 60s < values.jsonl
//! ```
//!
//! Run it as `cargo run --release --example pubsub -- sub 'sensors.>'`.

#[macro_use]
mod common;
#[path = "common/interrupt.rs"]
mod interrupt;
#[path = "common/lines.rs"]
mod lines;
#[path = "pubsub/output.rs"]
mod output;
#[path = "pubsub/values.rs"]
mod values;

use std::pin::pin;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Parser, Subcommand};
use common::ServerArgs;
use interrupt::interrupted;
use lines::next_line;
use output::{Output, output_closed};
use quic_websocket::message::{AckMode, CloseCode, Json, MAX_PAGE, Payload, Position};
use quic_websocket::{
    Client, ClientError, Event, HistoryBuilder, Printable, Published, SubscribeBuilder, Subscription, TopicEvent,
};
use tokio::time::sleep;
use values::{Ack, duration, object, position, time};

/// Subscribe to topics of a quic-websocket server, publish to them, and read their history.
#[derive(Parser)]
struct Args {
    #[command(flatten)]
    server: ServerArgs,
    /// The name that others see
    #[arg(long, global = true, default_value = "pubsub")]
    name: String,
    /// Print one JSON object per line, with all fields
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Print the messages of a topic, or of all topics that match a pattern, one per line; for a pattern, each line
    /// starts with its topic
    Sub(Sub),
    /// Publish each line of standard input, and end once the server has acknowledged the last
    Pub(Pub),
    /// Print the messages that the server has kept of a topic, oldest first
    History {
        /// Topic, such as sensors.a
        topic: String,
        /// Only this many of the newest messages
        #[arg(long, value_name = "N", conflicts_with = "since")]
        #[arg(value_parser = clap::value_parser!(u64).range(1..=MAX_PAGE))]
        recent: Option<u64>,
        /// Only the messages after this position
        #[arg(long, value_name = "EPOCH:OFFSET", value_parser = position)]
        since: Option<Position>,
        /// Only the messages from this time on: Unix milliseconds, or so long ago, such as 90s, 15m, 2h or 7d
        #[arg(long, value_name = "TIME", value_parser = time, conflicts_with_all = ["since", "recent"])]
        since_time: Option<u64>,
        /// Newest first; with --since or --since-time, the messages before
        #[arg(long)]
        reverse: bool,
    },
}

#[derive(clap::Args)]
struct Pub {
    /// Topic, such as sensors.a
    topic: String,
    /// Each line is a JSON value, which subscribers get as it is; without this it is text
    #[arg(long)]
    data: bool,
    /// A JSON object about each message, by which subscribers can filter
    #[arg(long, value_name = "JSON", value_parser = object)]
    meta: Option<Json>,
    /// The time after which a message is worth nothing, and not delivered any more, such as 90s, 15m, 2h or 7d
    #[arg(long, value_name = "TIME", value_parser = duration)]
    ttl: Option<Duration>,
}

#[derive(clap::Args)]
struct Sub {
    /// Topic or pattern, such as sensors.a, sensors.*, or 'sensors.>'
    topic: String,
    /// Start with this many of the newest messages
    #[arg(long, value_name = "N", conflicts_with = "since")]
    recent: Option<u64>,
    /// Start after this position
    #[arg(long, value_name = "EPOCH:OFFSET", value_parser = position)]
    since: Option<Position>,
    /// Start with the messages from this time on: Unix milliseconds, or so long ago, such as 90s, 15m, 2h or 7d
    #[arg(long, value_name = "TIME", value_parser = time, conflicts_with_all = ["since", "recent"])]
    since_time: Option<u64>,
    /// End after this many messages
    #[arg(long, value_name = "N")]
    count: Option<u64>,
    /// Name of a durable consumer, which the server remembers: prints what was not acknowledged yet, and acknowledges
    /// each message once it is printed. --recent, --since and --since-time count only when it is created
    #[arg(long, value_name = "NAME")]
    durable: Option<String>,
    /// What one acknowledgement covers, fixed when the consumer is created: a message, or all before it as well; none
    /// prints without acknowledging, so the messages come again [default: as the consumer is]
    #[arg(long, value_enum, requires = "durable")]
    ack: Option<Ack>,
    /// Share the messages with others that do: each goes to one, among those of the durable consumer, or among all
    /// without --durable
    #[arg(long)]
    share: bool,
    /// At most this many messages per second of each topic: the newest
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1000))]
    max_rate: Option<u64>,
    /// Only messages with this meta: a JSON object of values, or of {"prefix": "text"}
    #[arg(long, value_name = "JSON", value_parser = object)]
    filter: Option<Json>,
    /// Without what this client publishes itself
    #[arg(long)]
    no_echo: bool,
}

// Several threads, so that the client keeps running while this one waits for a pipe.
#[tokio::main]
async fn main() -> ExitCode {
    common::exit_code(run(Args::parse()).await)
}

async fn run(args: Args) -> anyhow::Result<()> {
    let Args { server, name, json, command } = args;
    let (client, events) = server.client()?.name(&name)?.connect().await?;
    let reporter = tokio::spawn(report_events(events));
    let done = match command {
        Command::Sub(sub) => {
            let out = Output::new(json, sub.topic.split('.').any(|level| matches!(level, "*" | ">")));
            subscribe(&client, sub, out).await
        }
        Command::Pub(options) => publish(&client, &options, Output::new(json, false)).await,
        Command::History { topic, recent, since, since_time, reverse } => {
            let mut request = client.history(topic);
            if let Some(since) = since {
                request = request.since(since);
            }
            if let Some(since) = since_time {
                request = request.since_time(since);
            }
            if reverse {
                request = request.reverse();
            }
            history(request, recent, reverse, Output::new(json, false)).await
        }
    };
    reporter.abort();
    client.close(CloseCode::NORMAL, "done").await?;
    done
}

/// Reports changes of the connection. Published messages arrive at subscriptions, not here.
async fn report_events(mut events: quic_websocket::Events) {
    while let Some(event) = events.next().await {
        match event {
            Event::Disconnected(closed) => {
                note!("Connection lost ({}); reconnecting", Printable::new(&closed.reason))
            }
            Event::Reconnected => note!("Reconnected"),
            Event::Closed(closed) => note!("Connection closed: {} - {}", closed.code, Printable::new(&closed.reason)),
            _ => {}
        }
    }
}

/// The subscription that the arguments ask for.
fn requested<'a>(client: &'a Client, sub: &Sub) -> SubscribeBuilder<'a> {
    let mut subscribe = client.subscribe(&sub.topic);
    if let Some(recent) = sub.recent {
        subscribe = subscribe.recent(recent);
    }
    if let Some(since) = &sub.since {
        subscribe = subscribe.since(since.clone());
    }
    if let Some(since) = sub.since_time {
        subscribe = subscribe.since_time(since);
    }
    if let Some(name) = &sub.durable {
        subscribe = subscribe.durable(name);
    }
    match sub.ack {
        Some(Ack::Each) => subscribe = subscribe.ack_mode(AckMode::Each),
        Some(Ack::Upto) => subscribe = subscribe.ack_mode(AckMode::UpTo),
        Some(Ack::None) | None => {}
    }
    if let Some(per_second) = sub.max_rate {
        subscribe = subscribe.max_rate(per_second);
    }
    if let Some(filter) = &sub.filter {
        subscribe = subscribe.filter(filter.clone());
    }
    subscribe = subscribe.echo(!sub.no_echo);
    if sub.share { subscribe.share() } else { subscribe }
}

async fn subscribe(client: &Client, sub: Sub, mut out: Output) -> anyhow::Result<()> {
    // Created once: a signal between two rounds of the loop is not missed.
    let (mut interrupted, mut output_closed) = (pin!(interrupted()), pin!(output_closed()));
    let mut subscription = tokio::select! {
        biased;
        subscription = requested(client, &sub).into_future() => subscription?,
        () = &mut interrupted => return Ok(()),
    };
    let acknowledges = sub.durable.is_some() && sub.ack != Some(Ack::None);
    let mut left = sub.count.unwrap_or(u64::MAX);
    while left > 0 {
        let event = tokio::select! {
            event = subscription.next() => event.context("the subscription ended")?,
            () = &mut interrupted => break,
            () = &mut output_closed => return Ok(()),
        };
        if let TopicEvent::Ended(ended) = &event {
            bail!("the subscription ended: {ended}");
        }
        if matches!(event, TopicEvent::Message(_)) {
            left -= 1;
        }
        if !out.event(&event, subscription.position().as_ref())? {
            // The output is closed, and the message was not printed.
            return Ok(());
        }
        if let (TopicEvent::Message(message), true) = (&event, acknowledges) {
            acknowledge(&subscription, message.offset).await?;
        }
    }
    if let Some(Position { epoch, offset }) = subscription.position() {
        note!("To continue from here: --since {}:{offset}", Printable::new(&epoch));
    }
    Ok(())
}

/// Acknowledges a message that is printed. If the connection is lost meanwhile, it may come again.
async fn acknowledge(subscription: &Subscription, offset: u64) -> anyhow::Result<()> {
    match subscription.ack(offset).await {
        Err(lost @ (ClientError::Lost | ClientError::Timeout(_))) => {
            note!("Message {offset} may come again: {lost}");
            Ok(())
        }
        acknowledged => acknowledged.map(|_| ()).context("cannot acknowledge"),
    }
}

/// Publishes line by line, each after the server has acknowledged the one before. A line is sent again if the
/// connection is lost; its key keeps it from being published twice. A line that cannot be published is reported and
/// skipped.
async fn publish(client: &Client, options: &Pub, mut out: Output) -> anyhow::Result<()> {
    let topic = &options.topic;
    let run = uuid::Uuid::new_v4();
    let mut input = std::io::stdin().lock();
    let (mut count, mut failed, mut is_open) = (0_u64, 0_u64, true);
    while let Some(line) = tokio::task::block_in_place(|| next_line(&mut input)).context("cannot read the input")? {
        let number = count + failed + 1;
        let published = match line {
            Ok(line) => match payload(options, line) {
                Ok(payload) => {
                    let key = format!("{run}-{number}");
                    publish_line(client, options, payload, &key).await.map_err(|e| e.to_string())
                }
                Err(bad) => Err(format!("not a JSON value: {bad}")),
            },
            Err(bad) => Err(bad.to_string()),
        };
        match published {
            Ok(published) => {
                count += 1;
                // Publishing continues even if the output is closed.
                is_open = is_open && out.published(topic, &published)?;
            }
            Err(why) => {
                failed += 1;
                note!("❌ Line {number} was not published: {}", Printable::new(&why));
            }
        }
        if client.is_closed() {
            break;
        }
    }
    note!("{count} published to {}", Printable::new(topic));
    if failed > 0 {
        bail!("{failed} of {} lines were not published", count + failed);
    }
    Ok(())
}

/// A line as it is to be published.
fn payload(options: &Pub, line: String) -> serde_json::Result<Payload> {
    let payload = if options.data { Payload::json(Json::parse(line)?) } else { Payload::text(line) };
    Ok(match &options.meta {
        Some(meta) => payload.with_meta(meta.clone()),
        None => payload,
    })
}

/// Publishes one line, and waits for the server as long as it takes.
async fn publish_line(client: &Client, options: &Pub, payload: Payload, key: &str) -> Result<Published, ClientError> {
    loop {
        let mut publish = client.publish(&options.topic, payload.clone()).key(key);
        if let Some(ttl) = options.ttl {
            publish = publish.ttl(ttl);
        }
        match publish.await {
            // The server is unreachable, or this is above its rate limit.
            Err(ClientError::Timeout(_)) => note!("No reply from the server; waiting for it"),
            Err(error) => match error.retry_after() {
                Some(wait) => sleep(wait.max(Duration::from_millis(1))).await,
                None => return Err(error),
            },
            published => return published,
        }
    }
}

/// Prints a topic's history, oldest first unless `reverse`.
async fn history(
    request: HistoryBuilder<'_>,
    recent: Option<u64>,
    reverse: bool,
    mut out: Output,
) -> anyhow::Result<()> {
    let mut history = match recent {
        Some(recent) => request.limit(recent).reverse().await?,
        None => request.all().await?,
    };
    if recent.is_some() && !reverse {
        history.messages.reverse();
    }
    for message in history.messages {
        let position = Position { epoch: history.epoch.clone(), offset: message.offset };
        if !out.event(&TopicEvent::Message(message), Some(&position))? {
            break;
        }
    }
    Ok(())
}
