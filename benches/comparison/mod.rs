//! The comparison: the same loads on this project's server, over QUIC and over WebSocket, on two baselines, and on
//! servers of other projects if they are installed; in turn, in one run.
//!
//! It prints medians over rounds, and ratios by round: absolute figures vary from machine to machine and from minute to
//! minute, ratios within a round much less.

mod column;
mod curves;
mod loss;
mod peers;
mod plan;
mod servers;
mod table;

use std::fmt::Display;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use serde_json::Value;

use crate::load::board::Plan;
use crate::load::crowd::Crowd;
use crate::load::{Limit, Shape, Topics, connect};
use crate::processes;
pub(crate) use column::Column;
use plan::{Group, Load, Work};
use servers::{Server, Stage};
use table::{Goals, Metric, Table};

/// Folder of the plots in the documentation.
const PLOTS: &str = "docs/plots";

/// Extent of a comparison, and its conditions.
#[derive(Debug, Clone)]
pub(crate) struct Extent {
    pub(crate) rounds: u16,
    pub(crate) is_quick: bool,
    /// Of this project's server.
    pub(crate) workers: u16,
    pub(crate) sockets: usize,
    /// Only rows whose name contains this.
    pub(crate) only: Option<String>,
    /// Only these columns, if any are given.
    pub(crate) columns: Vec<Column>,
    /// Another binary of this project's server.
    pub(crate) before: Option<PathBuf>,
    /// The binary of NATS.
    pub(crate) nats: PathBuf,
    /// The folder with Node's package `ws`.
    pub(crate) node_ws: PathBuf,
    /// Instead of the rows, measure the cost per delivery by subscribers and by topics.
    pub(crate) curves: bool,
    /// Folder for plots.
    pub(crate) plots: Option<PathBuf>,
}

impl Extent {
    fn wants(&self, column: Column) -> bool {
        self.columns.is_empty() || self.columns.contains(&column)
    }

    fn rounds(&self) -> u16 {
        if self.is_quick { self.rounds.min(2) } else { self.rounds }
    }

    /// Duration of a load before it is measured.
    fn warm_up(&self) -> Duration {
        Duration::from_millis(if self.is_quick { 100 } else { 300 })
    }

    fn measured(&self) -> Duration {
        Duration::from_millis(if self.is_quick { 300 } else { 1000 })
    }
}

/// Runs the comparison and prints it; returns false if anything was lost or failed.
pub(crate) async fn run(extent: &Extent, as_json: bool) -> Result<bool> {
    let mut stage = Stage::build(extent)?;
    if extent.curves {
        let curves = curves::run(&stage, extent).await?;
        curves.write_plots(extent.plots.as_deref().unwrap_or(Path::new(PLOTS)))?;
        return show(&curves, &curves.to_json(), as_json).map(|()| curves.remarks.is_empty());
    }
    if loss::are_wanted(extent) {
        let losses = loss::run(&stage, extent).await?;
        if let Some(folder) = &extent.plots {
            losses.write_plots(folder)?;
        }
        return show(&losses, &losses.to_json(), as_json).map(|()| losses.remarks.is_empty());
    }
    let mut table = Table::new(extent, stage.find_peers());
    let groups = plan::groups(extent);
    for (index, group) in groups.iter().enumerate() {
        eprintln!("[{}/{}] {} ({} rounds)", index + 1, groups.len(), group.name, group.rounds);
        // Idle servers do not disturb the measurement, so all servers of a group live as long as the group.
        let mut servers = Vec::new();
        for column in stage.columns().filter(|column| group.serves(*column)) {
            servers.push(stage.start(column, group.workers).await?);
        }
        for round in 0..group.rounds {
            for turn in 0..servers.len() {
                let which = (turn + usize::from(round)) % servers.len();
                if group.is_memory() {
                    servers[which] = stage.start(servers[which].column, group.workers).await?;
                }
                measure(&servers[which], group, extent, &mut table).await?;
            }
        }
    }
    show(&table, &table.to_json(), as_json)?;
    Ok(table.is_clean())
}

fn show(text: &impl Display, json: &Value, as_json: bool) -> Result<()> {
    let mut out = std::io::stdout().lock();
    if as_json {
        writeln!(out, "{json:#}")?
    } else {
        write!(out, "{text}")?
    }
    Ok(())
}

async fn measure(server: &Server, group: &Group, extent: &Extent, table: &mut Table) -> Result<()> {
    match &group.work {
        Work::Messages { clients, interest, loads } => {
            let crowd = Crowd::connect(&server.target, *clients, *interest).await?;
            for load in loads {
                carry(server, &crowd, load, extent, table).await?;
            }
            crowd.disconnect().await;
        }
        Work::Connect { clients, resume } => connections(server, *clients, *resume, extent, table).await?,
        Work::Memory { clients, interest, goals } => {
            let before = server.memory()?;
            let crowd = Crowd::connect(&server.target, *clients, *interest).await?;
            tokio::time::sleep(Duration::from_secs(1)).await;
            let each = server.memory()?.saturating_sub(before) as f64 / *clients as f64;
            crowd.disconnect().await;
            table.add(&group.name, Metric::Memory, *goals, server.column, each / 1e3);
        }
    }
    Ok(())
}

async fn carry(server: &Server, crowd: &Crowd, load: &Load, extent: &Extent, table: &mut Table) -> Result<()> {
    let (column, driver) = (server.column, server.target.driver);
    let shape = Shape { driver, mode: load.mode, encoding: load.encoding, size: load.size };
    let plan = |time| Plan {
        shape,
        senders: load.senders,
        topics: Topics::everyone_on(1),
        window: load.window,
        limit: Limit::Time(time),
    };
    let warm_up = crowd.carry(plan(extent.warm_up()), |_| {}).await;
    let (outcome, used) = watched(server, crowd.carry(plan(extent.measured()), |_| {})).await?;
    for outcome in [&warm_up, &outcome] {
        if let Some(problem) = outcome.problem() {
            table.remark(format!("{}, {}: {problem}", load.name, column.title()));
        }
    }
    let micros = |percentile| outcome.latency.value_at_percentile(percentile) as f64 / 1e3;
    let rate = if load.mode.is_asked() { Metric::RoundTrips } else { Metric::Rate };
    table.add(&load.name, rate, load.rate, column, outcome.rate());
    table.add(&load.name, Metric::P50, load.latency, column, micros(50.0));
    table.add(&load.name, Metric::P99, load.latency, column, micros(99.0));
    table.add(&load.name, Metric::Cpu, load.cpu, column, used.server_each(outcome.received));
    table.add(&load.name, Metric::GeneratorCpu, Goals::NONE, column, used.generator_each(outcome.received));
    if load.shows_cores {
        let elapsed = used.elapsed.as_secs_f64().max(1e-9);
        table.add(&load.name, Metric::ServerCores, Goals::NONE, column, used.server.as_secs_f64() / elapsed);
        table.add(&load.name, Metric::GeneratorCores, Goals::NONE, column, used.generator.as_secs_f64() / elapsed);
    }
    Ok(())
}

/// Processor time used during a load.
struct Used {
    server: Duration,
    generator: Duration,
    elapsed: Duration,
}

impl Used {
    /// Of the server, in microseconds for each of this many.
    fn server_each(&self, count: u64) -> f64 {
        self.server.as_secs_f64() * 1e6 / count.max(1) as f64
    }

    fn generator_each(&self, count: u64) -> f64 {
        self.generator.as_secs_f64() * 1e6 / count.max(1) as f64
    }
}

/// Runs a load, and measures the processor time that it uses.
async fn watched<T>(server: &Server, load: impl Future<Output = T>) -> Result<(T, Used)> {
    let (before, own, started) = (server.cpu()?, processes::own_cpu()?, Instant::now());
    let outcome = load.await;
    let used = Used {
        server: server.cpu()?.saturating_sub(before),
        generator: processes::own_cpu()?.saturating_sub(own),
        elapsed: started.elapsed(),
    };
    Ok((outcome, used))
}

async fn connections(server: &Server, clients: usize, resume: bool, extent: &Extent, table: &mut Table) -> Result<()> {
    let column = server.column;
    let name = if resume { plan::RESUMED } else { plan::FULL };
    let made = Arc::default();
    connect::run(&server.target, clients, resume, Limit::Time(extent.warm_up()), &made).await?;
    let load = connect::run(&server.target, clients, resume, Limit::Time(extent.measured()), &made);
    let (outcome, used) = watched(server, load).await?;
    let outcome = outcome?;
    if outcome.failed > 0 {
        let reason = outcome.failure.as_deref().unwrap_or_default();
        table.remark(format!("{name}, {}: {} connections failed: {reason}", column.title(), outcome.failed));
    }
    if resume && outcome.resumed * 10 < outcome.made * 9 {
        let (resumed, made) = (outcome.resumed, outcome.made);
        table.remark(format!("{name}, {}: only {resumed} of {made} were resumed", column.title()));
    }
    table.add(name, Metric::Connections, plan::CONNECTIONS, column, outcome.rate());
    table.add(name, Metric::Cpu, Goals::NONE, column, used.server_each(outcome.made));
    table.add(name, Metric::GeneratorCpu, Goals::NONE, column, used.generator_each(outcome.made));
    Ok(())
}
