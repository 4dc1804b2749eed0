//! One load against a running server, and its report.

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context as _, Result};
use hdrhistogram::Histogram;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use super::Args;
use crate::load::board::Plan;
use crate::load::crowd::Crowd;
use crate::load::{Driver, Interest, Limit, Mode, Shape, Target, Topics, connect};

const PERCENTILES: [(&str, f64); 4] = [("p50", 50.0), ("p90", 90.0), ("p99", 99.0), ("p99.9", 99.9)];

/// Returns false if anything was lost, duplicated, reordered or corrupted.
pub(super) async fn run(args: &Args, target: Target) -> Result<bool> {
    let limit = super::limit(args)?;
    match args.mode {
        Mode::Connect => connections(args, target, limit).await,
        Mode::Echo | Mode::Broadcast | Mode::Topic | Mode::Direct | Mode::Request => {
            messages(args, target, limit).await
        }
    }
}

async fn messages(args: &Args, target: Target, limit: Limit) -> Result<bool> {
    let clients = usize::from(args.clients);
    let topics = Topics::everyone_on(1);
    let (interest, connected) = match args.mode {
        Mode::Echo | Mode::Connect => (Interest::Own, clients),
        Mode::Broadcast => (Interest::Broadcasts, clients),
        Mode::Topic => (Interest::Topics(topics), clients),
        Mode::Direct => (Interest::Requests, 2 * clients),
        Mode::Request => (Interest::Calls, 2 * clients),
    };
    let mut crowd = Crowd::connect(&target, connected, interest).await.with_context(|| unreachable(args))?;
    let stalled = if args.mode == Mode::Topic { usize::from(args.stalled) } else { 0 };
    crowd.add_stalled(stalled).await?;
    let senders = match args.mode {
        Mode::Echo | Mode::Direct | Mode::Request | Mode::Connect => clients,
        Mode::Broadcast | Mode::Topic => clients.min(args.senders.into()),
    };
    let size = args.message_size;
    let shape = Shape { driver: target.driver, mode: args.mode, encoding: args.payload, size };
    let plan = Plan { shape, senders, topics, window: args.window, limit };
    let bar = progress_bar(limit, (senders * plan.copies(clients)) as u64, "messages");
    let outcome = crowd.carry(plan, |received| show(&bar, limit, received)).await;
    bar.finish_and_clear();
    let still_stalled = crowd.stalled();
    crowd.disconnect().await;

    let bytes = outcome.rate() * size as f64;
    if args.json {
        let document = json!({
            "server": args.server,
            "mode": mode_name(args.mode).to_lowercase(),
            "clients": clients,
            "senders": senders,
            "stalled": stalled,
            "stalled_and_connected": still_stalled,
            "window": args.window,
            "message_size": size,
            "seconds": outcome.elapsed.as_secs_f64(),
            "messages_per_second": outcome.rate(),
            "bytes_per_second": bytes,
            "latency_us": percentiles(&outcome.latency),
            "sent": outcome.sent,
            "expected": outcome.expected,
            "received": outcome.received,
            "lost": outcome.lost(),
            "duplicated": outcome.duplicated,
            "reordered": outcome.reordered,
            "corrupted": outcome.corrupted,
            "failures": outcome.failures,
        });
        writeln!(std::io::stdout(), "{document:#}")?;
    } else {
        let what = mode_name(args.mode);
        let (who, unit) = if args.mode.is_asked() { ("pairs", "round trips") } else { ("clients", "messages") };
        let mut out = std::io::stdout().lock();
        writeln!(out, "{what}: {clients} {who}, {size} bytes, {} in flight per sender", args.window)?;
        writeln!(out, "  duration    {:.3} s", outcome.elapsed.as_secs_f64())?;
        writeln!(out, "  rate        {:.0} {unit}/s, {:.2} MB/s of payload", outcome.rate(), bytes / 1e6)?;
        writeln!(out, "  latency     {}", latency_line(&outcome.latency))?;
        writeln!(out, "  sent        {} (expecting {})", outcome.sent, outcome.expected)?;
        writeln!(out, "  received    {}", outcome.received)?;
        writeln!(out, "  lost        {}", outcome.lost())?;
        writeln!(out, "  duplicated  {}", outcome.duplicated)?;
        writeln!(out, "  reordered   {}", outcome.reordered)?;
        if stalled > 0 {
            writeln!(
                out,
                "  stalled     {stalled} additional subscribers, {still_stalled} of them connected to the end"
            )?;
        }
        if outcome.corrupted > 0 {
            writeln!(out, "  corrupted   {}", outcome.corrupted)?;
        }
        for failure in outcome.failures.iter().take(5) {
            writeln!(out, "  failed      {failure}")?;
        }
    }
    Ok(outcome.is_clean())
}

async fn connections(args: &Args, target: Target, limit: Limit) -> Result<bool> {
    // An uncounted connection, for a clear error message if the server is not running.
    Crowd::connect(&target, 1, Interest::Own).await.with_context(|| unreachable(args))?.disconnect().await;
    let made = Arc::new(AtomicU64::new(0));
    let bar = progress_bar(limit, args.clients.into(), "connections");
    let clients = usize::from(args.clients);
    let load = connect::run(&target, clients, args.resume, limit, &made);
    let watch = async {
        loop {
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            show(&bar, limit, made.load(Ordering::Relaxed));
        }
    };
    let outcome = tokio::select! {
        outcome = load => outcome?,
        () = watch => return Ok(false),
    };
    bar.finish_and_clear();

    if args.json {
        let document = json!({
            "server": args.server,
            "mode": "connect",
            "clients": clients,
            "seconds": outcome.elapsed.as_secs_f64(),
            "connections_per_second": outcome.rate(),
            "latency_us": percentiles(&outcome.latency),
            "connected": outcome.made,
            "resumed": outcome.resumed,
            "failed": outcome.failed,
            "failure": outcome.failure,
        });
        writeln!(std::io::stdout(), "{document:#}")?;
    } else {
        let mut out = std::io::stdout().lock();
        writeln!(out, "Connect: {clients} clients, each with one connection after the other")?;
        writeln!(out, "  duration    {:.3} s", outcome.elapsed.as_secs_f64())?;
        writeln!(out, "  rate        {:.0} connections/s", outcome.rate())?;
        writeln!(out, "  latency     {}", latency_line(&outcome.latency))?;
        writeln!(out, "  connected   {} ({} with a resumed session)", outcome.made, outcome.resumed)?;
        writeln!(out, "  failed      {}", outcome.failed)?;
        if let Some(failure) = &outcome.failure {
            writeln!(out, "  the last    {failure}")?;
        }
    }
    Ok(outcome.failed == 0)
}

const fn mode_name(mode: Mode) -> &'static str {
    match mode {
        Mode::Echo => "Echo",
        Mode::Broadcast => "Broadcast",
        Mode::Topic => "Topic",
        Mode::Direct => "Direct",
        Mode::Request => "Request",
        Mode::Connect => "Connect",
    }
}

fn unreachable(args: &Args) -> String {
    let start = match args.driver {
        Driver::Qws | Driver::QwsWss => "is it running? Start it with ./run.sh native, or set another with --server",
        Driver::Bare | Driver::Wss | Driver::Nats => "is it running, and does it speak that protocol?",
    };
    format!("the server {} does not respond; {start}", args.server)
}

/// Shown on a terminal; hidden elsewhere.
fn progress_bar(limit: Limit, units: u64, noun: &str) -> ProgressBar {
    let (length, template) = match limit {
        Limit::Messages(count) => (count * units, format!("{{bar:40}} {{pos}}/{{len}} {noun} {{per_sec}} {{eta}}")),
        Limit::Time(time) => {
            (u64::try_from(time.as_millis()).unwrap_or(u64::MAX), format!("{{bar:40}} {{msg}} {noun}"))
        }
    };
    let bar = ProgressBar::new(length);
    if let Ok(style) = ProgressStyle::with_template(&template) {
        bar.set_style(style);
    }
    bar
}

fn show(bar: &ProgressBar, limit: Limit, done: u64) {
    match limit {
        Limit::Messages(_) => bar.set_position(done),
        Limit::Time(_) => {
            bar.set_message(done.to_string());
            bar.set_position(u64::try_from(bar.elapsed().as_millis()).unwrap_or(u64::MAX));
        }
    }
}

fn percentiles(latency: &Histogram<u64>) -> Value {
    let micros = |nanos: u64| nanos as f64 / 1e3;
    let mut all: serde_json::Map<_, _> = PERCENTILES
        .iter()
        .map(|(name, at)| ((*name).to_owned(), json!(micros(latency.value_at_percentile(*at)))))
        .collect();
    all.insert("max".to_owned(), json!(micros(latency.max())));
    Value::Object(all)
}

fn latency_line(latency: &Histogram<u64>) -> String {
    let readable = |nanos: u64| match nanos {
        0..10_000_000 => format!("{:.1} us", nanos as f64 / 1e3),
        _ => format!("{:.1} ms", nanos as f64 / 1e6),
    };
    let mut parts: Vec<_> =
        PERCENTILES.iter().map(|(name, at)| format!("{name} {}", readable(latency.value_at_percentile(*at)))).collect();
    parts.push(format!("max {}", readable(latency.max())));
    parts.join(", ")
}
