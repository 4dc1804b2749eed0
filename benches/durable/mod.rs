//! Durable topics beside memory topics, NATS JetStream and Redis Streams, in one run.
//!
//! Each row is measured on all servers in turn, after the machine's own `fdatasync`; the servers live as long as the
//! run, and those that are not measured are idle.

mod floor;
mod servers;

use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::load::Limit;
use crate::load::durable::{Kind, Load, Publishers, Stored};
use servers::{Product, Server, Stage};

/// Bytes of each content.
const SIZE: usize = 200;
/// Bytes of each content of a replay.
const REPLAYED: usize = 128;
/// Connections, and publishes in flight on each.
const IN_FLIGHT: [(usize, usize); 4] = [(1, 1), (4, 4), (16, 16), (16, 256)];

/// What is measured.
pub(crate) struct Extent {
    pub(crate) rounds: u16,
    pub(crate) is_quick: bool,
    pub(crate) workers: u16,
    /// Only the parts and rows whose names contain this text.
    pub(crate) only: Option<String>,
    pub(crate) before: Option<PathBuf>,
    pub(crate) nats: PathBuf,
    pub(crate) redis: PathBuf,
    /// A folder on the disk to measure.
    pub(crate) folder: PathBuf,
    /// Size of the store for the measured restart, in MiB.
    pub(crate) restart_mib: u64,
}

impl Extent {
    fn wants(&self, name: &str) -> bool {
        self.only.as_ref().is_none_or(|only| name.contains(only))
    }

    fn time(&self) -> Duration {
        Duration::from_millis(if self.is_quick { 300 } else { 1000 })
    }
}

/// One server, reached one way, with topics of one level.
#[derive(Debug, Clone, Copy)]
struct Column {
    title: &'static str,
    product: Product,
    kind: Kind,
    level: &'static str,
}

const COLUMNS: [Column; 10] = [
    column("memory, before", Product::Before, Kind::WebSocket, "memory"),
    column("memory", Product::Own, Kind::WebSocket, "memory"),
    column("os", Product::Own, Kind::WebSocket, "os"),
    column("fsync", Product::Own, Kind::WebSocket, "fsync"),
    column("memory, QUIC", Product::Own, Kind::Quic, "memory"),
    column("os, QUIC", Product::Own, Kind::Quic, "os"),
    column("fsync, QUIC", Product::Own, Kind::Quic, "fsync"),
    column("JetStream, default", Product::Nats, Kind::JetStream, ""),
    column("JetStream, always", Product::NatsAlways, Kind::JetStream, ""),
    column("Redis, always", Product::Redis, Kind::Redis, ""),
];

const fn column(title: &'static str, product: Product, kind: Kind, level: &'static str) -> Column {
    Column { title, product, kind, level }
}

/// Measures everything that is wanted, and prints tables in Markdown.
pub(crate) async fn run(extent: &Extent) -> Result<()> {
    let stage = Stage::build(&extent.folder, extent.before.as_ref(), &extent.nats, &extent.redis, extent.workers)?;
    let (median, p99) = floor::fdatasync(stage.path())?;
    writeln!(std::io::stdout(), "fdatasync of 4 KiB: p50 {} us, p99 {} us", median.as_micros(), p99.as_micros())?;
    publishes(extent, &stage).await?;
    if extent.wants("replay") {
        replays(extent, &stage).await?;
    }
    if extent.wants("restart") {
        restarts(extent, &stage).await?;
    }
    Ok(())
}

/// The figures of one cell in one round.
struct Figures {
    rate: f64,
    p50: f64,
    p99: f64,
    p999: f64,
    cpu: f64,
    amplification: f64,
}

async fn publishes(extent: &Extent, stage: &Stage) -> Result<()> {
    let rows: Vec<_> = [1, 10_000]
        .into_iter()
        .flat_map(|topics| IN_FLIGHT.map(|(connections, window)| (topics, connections, window)))
        .map(|row| (row, COLUMNS.into_iter().filter(|column| is_wanted(extent, *column, row)).collect::<Vec<_>>()))
        .filter(|(_, columns)| !columns.is_empty())
        .collect();
    if rows.is_empty() {
        return Ok(());
    }
    writeln!(
        std::io::stdout(),
        "\n| in flight | topics | fdatasync p50, us | topics on | publishes/s | p50; p99; p99.9, us | \
              server CPU, us each | written to disk, bytes each |\n|---|---|---|---|---|---|---|---|"
    )?;
    let mut running: Vec<(Product, Server)> = Vec::new();
    for product in [Product::Before, Product::Own, Product::Nats, Product::NatsAlways, Product::Redis] {
        if !rows.iter().flat_map(|(_, columns)| columns).any(|column| column.product == product) {
            continue;
        }
        if !stage.has(product) {
            eprintln!("{product:?} is left out: it is not installed, or not named");
            continue;
        }
        let server = stage.start(product).await?;
        if let Product::Nats | Product::NatsAlways = product {
            Publishers::connect(Kind::JetStream, &server.target, server.plain, 1).await?.make_stream().await?;
        }
        running.push((product, server));
    }
    for ((topics, connections, window), columns) in rows {
        let mut cells: Vec<Vec<Figures>> = columns.iter().map(|_| Vec::new()).collect();
        let mut floors = Vec::new();
        for round in 0..usize::from(extent.rounds) {
            floors.push(floor::fdatasync(stage.path())?.0.as_secs_f64() * 1e6);
            for turn in 0..columns.len() {
                let which = (turn + round) % columns.len();
                let column = columns[which];
                let Some((_, server)) = running.iter().find(|(product, _)| *product == column.product) else {
                    continue;
                };
                cells[which].push(measure(extent, server, column, topics, connections, window).await?);
            }
        }
        let floor = median(floors);
        for (column, figures) in columns.iter().zip(&cells).filter(|(_, figures)| !figures.is_empty()) {
            let of = |figure: fn(&Figures) -> f64| median(figures.iter().map(figure).collect());
            writeln!(
                std::io::stdout(),
                "| {} | {topics} | {floor:.0} | {} | {:.0} | {:.0}; {:.0}; {:.0} | {:.1} | {:.0} |",
                connections * window,
                column.title,
                of(|figures| figures.rate),
                of(|figures| figures.p50),
                of(|figures| figures.p99),
                of(|figures| figures.p999),
                of(|figures| figures.cpu),
                of(|figures| figures.amplification),
            )?;
        }
    }
    Ok(())
}

/// Whether `--only` names the row, or the cell: "os, 1 topics, 256 in flight".
fn is_wanted(extent: &Extent, column: Column, (topics, connections, window): (usize, usize, usize)) -> bool {
    let row = format!("{topics} topics, {} in flight", connections * window);
    extent.wants(&format!("publish, {row}")) || extent.wants(&format!("publish on {}, {row}", column.title))
}

async fn measure(
    extent: &Extent,
    server: &Server,
    column: Column,
    topics: usize,
    connections: usize,
    window: usize,
) -> Result<Figures> {
    let explain = || format!("{}, {topics} topics, {connections} x {window} in flight", column.title);
    let mut publishers = Publishers::connect(column.kind, &server.target, server.plain, connections).await?;
    if column.kind == Kind::JetStream {
        publishers.listen().await?;
    }
    let load = |limit| Load { level: column.level, topics, in_turn: false, window, size: SIZE, limit };
    publishers.run(load(Limit::Time(extent.time() / 4))).await.with_context(explain)?;
    let (cpu, written) = (server.cpu()?, server.written()?);
    let stored = publishers.run(load(Limit::Time(extent.time()))).await.with_context(explain)?;
    let count = stored.count.max(1) as f64;
    Ok(Figures {
        rate: stored.rate(),
        p50: stored.percentile(50.0),
        p99: stored.percentile(99.0),
        p999: stored.percentile(99.9),
        cpu: server.cpu()?.saturating_sub(cpu).as_secs_f64() * 1e6 / count,
        amplification: server.written()?.saturating_sub(written) as f64 / count,
    })
}

/// Replay of one topic to one client: from memory, from the disk as it was written, and from a cold disk.
async fn replays(extent: &Extent, stage: &Stage) -> Result<()> {
    let count = if extent.is_quick { 50_000 } else { 500_000 };
    writeln!(
        std::io::stdout(),
        "\n| replay of {count} messages of {REPLAYED} B to one client | by | messages/s |\n|---|---|---|"
    )?;
    let mut server = stage.start(Product::Own).await?;
    for level in ["os", "fsync", "memory"] {
        // A memory topic keeps as many as its rule's default.
        let count = if level == "memory" { 1000 } else { count };
        fill(&server, level, 1, count, REPLAYED, true).await?;
        let topic = format!("{level}.{:05}", 0);
        for (kind, name) in [(Kind::WebSocket, "WebSocket"), (Kind::Quic, "QUIC")] {
            let rate = replay(&server, kind, &topic, count, extent.rounds).await?;
            writeln!(std::io::stdout(), "| {level}, hot, {count} messages | {name} | {rate:.0} |")?;
        }
    }
    // 10,000 topics that share the log.
    let (topics, each) = if extent.is_quick { (1000, 20) } else { (10_000, 100) };
    fill(&server, "os", topics, topics as u64 * each, REPLAYED, true).await?;
    let rate = replay(&server, Kind::WebSocket, &format!("os.{:05}", topics / 2), each, extent.rounds).await?;
    writeln!(std::io::stdout(), "| one of {topics} topics with {each} messages each, hot | WebSocket | {rate:.0} |")?;
    drop(server);
    for (name, topic, count) in [
        ("os, cold", format!("os.{:05}", 0), count),
        ("one of many topics, cold", format!("os.{:05}", topics / 2 + 1), each),
    ] {
        // Only root may empty the system's cache.
        if std::fs::write("/proc/sys/vm/drop_caches", "3").is_err() {
            eprintln!("the replay from a cold disk is left out: the system's cache cannot be emptied");
            break;
        }
        server = stage.start(Product::Own).await?;
        std::fs::write("/proc/sys/vm/drop_caches", "3")?;
        let rate = replay(&server, Kind::WebSocket, &topic, count, 1).await?;
        writeln!(std::io::stdout(), "| {name}, {count} messages | WebSocket | {rate:.0} |")?;
        drop(server);
    }
    Ok(())
}

/// Replays a topic several times; the median of the rates.
async fn replay(server: &Server, kind: Kind, topic: &str, count: u64, rounds: u16) -> Result<f64> {
    let mut rates = Vec::new();
    for _ in 0..rounds {
        let mut client = Publishers::connect(kind, &server.target, server.plain, 1).await?;
        let elapsed = client.replay(topic, count).await.with_context(|| format!("replay of {topic}"))?;
        rates.push(count as f64 / elapsed.as_secs_f64());
    }
    Ok(median(rates))
}

/// Publishes this many messages, over 16 connections.
async fn fill(server: &Server, level: &str, topics: usize, count: u64, size: usize, in_turn: bool) -> Result<Stored> {
    let connections = 16;
    let mut publishers = Publishers::connect(Kind::WebSocket, &server.target, server.plain, connections).await?;
    let limit = Limit::Messages(count.div_ceil(connections as u64));
    // The server refuses more than 64 MiB that wait to be stored.
    let window = if size > 1024 { 16 } else { 256 };
    publishers.run(Load { level, topics, in_turn, window, size, limit }).await
}

/// Time from the start of a server that was killed until it has served the first client, and its memory.
async fn restarts(extent: &Extent, stage: &Stage) -> Result<()> {
    writeln!(
        std::io::stdout(),
        "\n| start after kill -9 | until a client was served, ms | resident, MiB |\n|---|---|---|"
    )?;
    let show = |what: &str, server: &Server| -> Result<()> {
        let (ready, resident) =
            (server.ready_after.as_secs_f64() * 1e3, server.resident()? as f64 / f64::from(1 << 20));
        writeln!(std::io::stdout(), "| {what} | {ready:.0} | {resident:.1} |")?;
        Ok(())
    };
    let reopen = || async { stage.start(Product::Own).await };
    std::fs::remove_dir_all(stage.path().join("own")).ok();
    let mut server = reopen().await?;
    show("an empty store", &server)?;
    let topics = if extent.is_quick { 1000 } else { 100_000 };
    fill(&server, "fsync", topics, topics as u64, 100, true).await?;
    writeln!(
        std::io::stdout(),
        "| with {topics} topics, before the kill | - | {:.1} |",
        server.resident()? as f64 / f64::from(1 << 20)
    )?;
    for what in ["once", "again"] {
        drop(server);
        server = reopen().await?;
        show(&format!("{topics} topics, {what}"), &server)?;
    }
    let size = 16 << 10;
    let count = extent.restart_mib * (1 << 20) / size as u64;
    let stored = fill(&server, "os", 1000, count, size, true).await?;
    let rate = stored.rate() * size as f64 / 1e6;
    writeln!(
        std::io::stdout(),
        "| {} MiB more, written at {rate:.0} MB/s, before the kill | - | {:.1} |",
        extent.restart_mib,
        server.resident()? as f64 / f64::from(1 << 20)
    )?;
    for what in ["once", "again"] {
        drop(server);
        server = reopen().await?;
        show(&format!("{} MiB more, {what}", extent.restart_mib), &server)?;
    }
    Ok(())
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or_default()
}
