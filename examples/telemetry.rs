//! Sensors of which only the newest value matters. Values are published without acknowledgement and received as
//! datagrams, so that a viewer that is slow or on a lossy network skips values instead of falling behind.
//!
//! `cargo run --release --example telemetry -- --sensors 4 --rate 100 --busy-ms 5`
//!
//! With these settings the server keeps and queues only the newest value:
//!
//! ```toml
//! [[topics]]
//! pattern = "telemetry.>"
//! overflow = "latest"
//! history_messages = 1
//! ```

mod common;
#[path = "common/interrupt.rs"]
mod interrupt;

use std::collections::BTreeMap;
use std::pin::pin;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::{Parser, ValueEnum};
use common::{ServerArgs, show};
use interrupt::interrupted;
use quic_websocket::message::{CloseCode, Payload};
use quic_websocket::{Client, Printable, TopicEvent};
use tokio::time::{MissedTickBehavior, interval, sleep};

/// Publish and show telemetry over datagrams.
#[derive(Parser)]
struct Args {
    #[command(flatten)]
    server: ServerArgs,
    /// Which side to run
    #[arg(long, value_enum, default_value_t = Role::Both)]
    role: Role,
    /// Number of sensors
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=1000))]
    sensors: u16,
    /// Values per second and sensor
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=1000))]
    rate: u16,
    /// End after this many seconds
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Milliseconds that the viewer spends on each value
    #[arg(long, default_value_t = 0)]
    busy_ms: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Role {
    Publish,
    View,
    Both,
}

#[tokio::main]
async fn main() -> ExitCode {
    common::exit_code(run(Args::parse()).await)
}

async fn run(args: Args) -> anyhow::Result<()> {
    let end = Instant::now() + Duration::from_secs(args.seconds);
    let builder = args.server.client()?;
    let connect = async |name| anyhow::Ok(builder.clone().name(name)?.connect().await?.0);
    let every = Duration::from_secs(1) / u32::from(args.rate);
    let busy = Duration::from_millis(args.busy_ms);
    match args.role {
        Role::Publish => publish(connect("sensors").await?, args.sensors, every, end).await,
        Role::View => view(connect("viewer").await?, busy, end).await,
        Role::Both => {
            let (sensors, viewer) = (connect("sensors").await?, connect("viewer").await?);
            tokio::try_join!(publish(sensors, args.sensors, every, end), view(viewer, busy, end))?;
            Ok(())
        }
    }
}

async fn publish(client: Client, sensors: u16, every: Duration, end: Instant) -> anyhow::Result<()> {
    let mut ticks = interval(every);
    // A missed tick is skipped: an old value is of no use.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let started = Instant::now();
    let mut interrupted = pin!(interrupted());
    for round in 0_u64.. {
        tokio::select! {
            _ = ticks.tick() => {}
            () = &mut interrupted => break,
        }
        if Instant::now() >= end {
            break;
        }
        for sensor in 1..=sensors {
            let value = 20.0 + (started.elapsed().as_secs_f64() + f64::from(sensor)).sin() * 5.0;
            // Offsets do not always grow by one, so the viewer counts rounds.
            let (topic, payload) = (format!("telemetry.sensor-{sensor}"), Payload::text(format!("{round} {value:.3}")));
            if round == 0 {
                // The first one is acknowledged, so that an error, such as a missing permission, is reported.
                client.publish(topic, payload).await.context("the first value was not published")?;
            } else {
                client.publish_unacknowledged(&topic, payload).await?;
            }
        }
    }
    client.close(CloseCode::NORMAL, "done").await?;
    Ok(())
}

/// The state of one sensor, as seen by the viewer.
#[derive(Default)]
struct Seen {
    value: String,
    newest: u64,
    timestamp: u64,
    round: u64,
    values: u64,
    skipped: u64,
}

async fn view(client: Client, busy: Duration, end: Instant) -> anyhow::Result<()> {
    // Only the newest value of each sensor is queued; it replaces older ones.
    let mut values = client.subscribe("telemetry.*").datagrams().latest().await?;
    let mut sensors: BTreeMap<String, Seen> = BTreeMap::new();
    let mut every_second = interval(Duration::from_secs(1));
    every_second.tick().await;
    let mut interrupted = pin!(interrupted());
    loop {
        tokio::select! {
            event = values.next() => match event.context("the subscription ended")? {
                TopicEvent::Message(message) => {
                    let seen = sensors.entry(message.topic).or_default();
                    // Datagrams may arrive out of order; older values are ignored. After a restart of the server the
                    // offsets start again, so a newer timestamp counts as well.
                    if message.offset > seen.newest || message.timestamp > seen.timestamp {
                        let content = message.payload.content.unwrap_or_default();
                        let (round, value) = content.split_once(' ').unwrap_or(("0", &content));
                        let round = round.parse().unwrap_or(0);
                        if seen.newest > 0 {
                            seen.skipped += u64::saturating_sub(round, seen.round + 1);
                        }
                        (seen.newest, seen.timestamp, seen.round) = (message.offset, message.timestamp, round);
                        seen.value = value.to_owned();
                        seen.values += 1;
                    }
                    sleep(busy).await;
                }
                TopicEvent::Ended(ended) => bail!("the subscription ended: {ended}"),
                // Datagrams report no gaps, and presence was not requested.
                _ => {}
            },
            () = &mut interrupted => break,
            _ = every_second.tick() => {
                show(format_args!("{:<24} {:>10} {:>9} {:>9}", "topic", "newest", "values/s", "skipped"))?;
                for (topic, seen) in &mut sensors {
                    let Seen { value, values, skipped, .. } = seen;
                    let (topic, value) = (Printable::new(topic).to_string(), Printable::new(value).to_string());
                    show(format_args!("{topic:<24} {value:>10} {values:>9} {skipped:>9}"))?;
                    (seen.values, seen.skipped) = (0, 0);
                }
                show("")?;
                if Instant::now() >= end {
                    break;
                }
            }
        }
    }
    client.close(CloseCode::NORMAL, "done").await?;
    Ok(())
}
