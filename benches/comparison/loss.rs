//! Small messages next to bulk over a lossy link: this project's server over QUIC and over WebSocket, bare Quinn, and
//! the WebSocket baseline, in several arrangements.

use std::fmt::{self, Display, Formatter};
use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use hdrhistogram::Histogram;
use serde_json::{Value, json};

use super::Extent;
use super::column::Column;
use super::servers::{Launch, Stage};
use crate::congestion::Congestion;
use crate::link::{Conditions, Link};
use crate::load::beside::{self, Arrangement, Mixture};
use crate::load::topic_name;
use crate::plot::{Axis, Plot, Scale, Series};

const DELAY_MS: u64 = 20;
const RATE_MBIT: f64 = 100.0;
const LOSSES: [f64; 3] = [0.0, 0.01, 0.03];
/// Bytes per second.
const BULKS: [u64; 2] = [200_000, 1_000_000];
const ROUNDS: u16 = 3;

/// A server, and how the small messages and the bulk share its client.
#[derive(Debug, Clone, Copy)]
struct Variant {
    name: &'static str,
    column: Column,
    arrangement: Arrangement,
    congestion: Option<Congestion>,
    /// Colour and whether dashed, for plotted variants.
    line: Option<((u8, u8, u8), bool)>,
}

const fn quic(name: &'static str, column: Column, arrangement: Arrangement, congestion: Congestion) -> Variant {
    let line = match (column, arrangement, congestion) {
        (Column::Qws, Arrangement::Apart, Congestion::Bbr) => Some(((0x0b, 0x6b, 0xcb), false)),
        (Column::Qws, Arrangement::Together, _) => Some(((0x0b, 0x6b, 0xcb), true)),
        (Column::Qws, _, Congestion::Cubic) => Some(((0x2b, 0x8a, 0x3e), true)),
        (Column::Bare, Arrangement::Apart, Congestion::Bbr) => Some(((0x68, 0x70, 0x78), false)),
        _ => None,
    };
    Variant { name, column, arrangement, congestion: Some(congestion), line }
}

const fn websocket(name: &'static str, column: Column, arrangement: Arrangement) -> Variant {
    let color = if matches!(column, Column::QwsWss) { (0x86, 0x3b, 0xc4) } else { (0xd9, 0x48, 0x0f) };
    let line = match arrangement {
        Arrangement::Attached => None,
        _ => Some((color, matches!(arrangement, Arrangement::Apart))),
    };
    Variant { name, column, arrangement, congestion: None, line }
}

const OURS: &str = "qws, separate topics, BBR";
/// One WebSocket: the better of these is the yardstick.
const WSS: [&str; 2] = ["qws WSS", "WSS"];

const VARIANTS: [Variant; 13] = {
    use Arrangement::{Apart, Attached, Together};
    use Column::{Bare, Qws, QwsWss, Wss};
    use Congestion::{Bbr, Cubic, NewReno};
    [
        quic(OURS, Qws, Apart, Bbr),
        quic("qws, separate topics, CUBIC", Qws, Apart, Cubic),
        quic("qws, separate topics, NewReno", Qws, Apart, NewReno),
        quic("qws, both on the control lane, BBR", Qws, Together, Bbr),
        quic("bare Quinn, two streams, BBR", Bare, Apart, Bbr),
        quic("bare Quinn, two streams, CUBIC", Bare, Apart, Cubic),
        quic("bare Quinn, one stream, BBR", Bare, Together, Bbr),
        quic("bare Quinn, one stream, CUBIC", Bare, Together, Cubic),
        websocket(WSS[0], QwsWss, Together),
        websocket("qws WSS, two connections", QwsWss, Apart),
        websocket("qws WSS, second socket for bulk", QwsWss, Attached),
        websocket(WSS[1], Wss, Together),
        websocket("WSS, two connections", Wss, Apart),
    ]
};

/// Goals at 1 MB/s of bulk: upper bounds relative to the round trip and to the lower percentiles over one WebSocket.
struct Goal {
    loss: f64,
    p50_to_round_trip: f64,
    p50_to_wss: Option<f64>,
    p99_to_wss: f64,
}

const GOALS: [Goal; 2] = [
    Goal { loss: 0.01, p50_to_round_trip: 1.05, p50_to_wss: None, p99_to_wss: 0.6 },
    Goal { loss: 0.03, p50_to_round_trip: 1.1, p50_to_wss: Some(0.4), p99_to_wss: 0.25 },
];

/// Everything measured for one variant under one condition.
pub(super) struct Cell {
    pub(super) loss: f64,
    pub(super) bulk: u64,
    variant: Variant,
    /// Nanoseconds, over all rounds.
    pub(super) latency: Histogram<u64>,
    /// Bytes per second that were returned, by round.
    bulk_back: Vec<f64>,
}

impl Cell {
    fn name(&self) -> String {
        name(self.loss, self.bulk, self.variant)
    }

    /// In milliseconds.
    pub(super) fn percentile(&self, percentile: f64) -> f64 {
        self.latency.value_at_percentile(percentile) as f64 / 1e6
    }

    fn mean_bulk(&self) -> f64 {
        self.bulk_back.iter().sum::<f64>() / self.bulk_back.len().max(1) as f64
    }
}

fn name(loss: f64, bulk: u64, variant: Variant) -> String {
    format!("loss {} %, bulk {} KB/s, {}", loss * 100.0, bulk / 1000, variant.name)
}

/// All results, as displayed.
pub(super) struct Losses {
    pub(super) cells: Vec<Cell>,
    rounds: u16,
    measured: Duration,
    /// Round trips of the idle link, by round and loss.
    round_trips: Vec<Duration>,
    /// Reason why nothing, or nothing more, was measured.
    skipped: Option<String>,
    pub(super) remarks: Vec<String>,
}

/// Whether the rows under loss are requested: all their names begin with the same word.
pub(super) fn are_wanted(extent: &Extent) -> bool {
    extent.only.as_ref().is_some_and(|text| text.starts_with("loss"))
}

fn wanted(extent: &Extent) -> Vec<(f64, u64, Variant)> {
    let mut all = Vec::new();
    for loss in LOSSES {
        for bulk in BULKS {
            all.extend(VARIANTS.map(|variant| (loss, bulk, variant)));
        }
    }
    all.retain(|(loss, bulk, variant)| {
        extent.wants(variant.column)
            && extent.only.as_ref().is_none_or(|text| name(*loss, *bulk, *variant).contains(text.as_str()))
    });
    all
}

/// Runs the requested rows. If no lossy link can be created, reports why and measures nothing.
pub(super) async fn run(stage: &Stage, extent: &Extent) -> Result<Losses> {
    let rounds = if extent.is_quick { 1 } else { extent.rounds.min(ROUNDS) };
    let seconds = if extent.is_quick { [1, 3] } else { [2, 10] };
    let [warm_up, measured] = seconds.map(Duration::from_secs);
    let mut losses =
        Losses { cells: Vec::new(), rounds, measured, round_trips: Vec::new(), skipped: None, remarks: Vec::new() };
    let wanted = wanted(extent);
    for round in 0..rounds {
        for loss in LOSSES {
            let mut wanted: Vec<_> = wanted.iter().filter(|wanted| wanted.0 == loss).collect();
            if wanted.is_empty() {
                continue;
            }
            let conditions = Conditions { delay_ms: DELAY_MS, loss, rate_mbit: RATE_MBIT, seed: u64::from(round) + 1 };
            let link = match Link::make(&conditions) {
                Ok(link) => link,
                Err(error) => {
                    losses.skipped = Some(format!("The rows under loss are skipped: {error:#}."));
                    return Ok(losses);
                }
            };
            losses.round_trips.push(link.round_trip().await?);
            let count = wanted.len();
            wanted.rotate_left(usize::from(round) * 2 % count);
            for (index, (_, bulk, variant)) in wanted.into_iter().enumerate() {
                let name = name(loss, *bulk, *variant);
                eprintln!("[round {}/{rounds}, {}/{count}] {name}", round + 1, index + 1);
                let mixture = Mixture { arrangement: variant.arrangement, bulk: *bulk, warm_up, measured };
                losses.measure(stage, &link, *variant, loss, mixture).await?;
            }
        }
    }
    Ok(losses)
}

impl Losses {
    async fn measure(
        &mut self,
        stage: &Stage,
        link: &Link,
        variant: Variant,
        loss: f64,
        mixture: Mixture,
    ) -> Result<()> {
        let settings = format!("[[topics]]\npattern = \"{}\"\npriority = 200\n", topic_name(beside::SMALL));
        let launch = Launch {
            column: variant.column,
            workers: 1,
            congestion: variant.congestion,
            settings: &settings,
            link: Some(link),
        };
        let server = stage.launch(launch).await?;
        let target = server.target.clone();
        let outcome = link.on_client_side(async move || beside::run(&target, mixture).await).await;
        let bulk = mixture.bulk;
        let place = self
            .cells
            .iter()
            .position(|cell| cell.loss == loss && cell.bulk == bulk && cell.variant.name == variant.name);
        let cell = match place {
            Some(place) => &mut self.cells[place],
            None => {
                let latency = Histogram::new_with_bounds(1, 600_000_000_000, 3)?;
                self.cells.push(Cell { loss, bulk, variant, latency, bulk_back: Vec::new() });
                let last = self.cells.len() - 1;
                &mut self.cells[last]
            }
        };
        match outcome {
            Ok(outcome) => {
                cell.latency.add(&outcome.latency)?;
                cell.bulk_back.push(outcome.bulk);
                if outcome.missing > 0 {
                    self.remarks.push(format!("{}: {} small messages never arrived", cell.name(), outcome.missing));
                }
            }
            Err(error) => self.remarks.push(format!("{}: {error:#}", cell.name())),
        }
        Ok(())
    }

    fn cell(&self, loss: f64, bulk: u64, variant: &str) -> Option<&Cell> {
        let mut cells = self.cells.iter();
        cells.find(|cell| cell.loss == loss && cell.bulk == bulk && cell.variant.name == variant)
    }

    /// Median, in milliseconds.
    pub(super) fn round_trip(&self) -> f64 {
        let mut sorted = self.round_trips.clone();
        sorted.sort();
        sorted.get(sorted.len() / 2).map_or(0.0, |middle| middle.as_secs_f64() * 1e3)
    }

    /// For each loss, with the heavier bulk: the share of small messages returned within a given time.
    pub(super) fn write_plots(&self, folder: &Path) -> Result<()> {
        let share = |percentile: f64| -(1.0 - percentile / 100.0).log10();
        let marks = [(0.0, "0"), (50.0, "50 %"), (90.0, "90 %"), (99.0, "99 %"), (99.9, "99.9 %")];
        for loss in LOSSES {
            let cells = self.cells.iter().filter(|cell| cell.loss == loss && cell.bulk == BULKS[1]);
            let series: Vec<_> = cells
                .filter(|cell| !cell.latency.is_empty())
                .filter_map(|cell| {
                    let (color, is_dashed) = cell.variant.line?;
                    let at = |step: u8| 100.0 * (1.0 - 10_f64.powf(-f64::from(step) / 20.0));
                    let points = (0..=60).map(|step| (share(at(step)), cell.percentile(at(step)))).collect();
                    Some(Series { name: cell.variant.name.to_owned(), color, is_dashed, has_points: false, points })
                })
                .collect();
            if series.is_empty() {
                continue;
            }
            let percent = loss * 100.0;
            let plot = Plot {
                title: format!("Small messages next to bulk, {percent} % loss each way"),
                note: format!(
                    "64 B every 10 ms next to {} MB/s of 64 KiB messages, there and back; \
                     {RATE_MBIT} Mbit/s, {:.1} ms round trip",
                    BULKS[1] / 1_000_000,
                    self.round_trip()
                ),
                x: Axis {
                    label: "share of small messages returned in time".to_owned(),
                    scale: Scale::Marked(marks.map(|(at, name)| (share(at), name.to_owned())).to_vec()),
                },
                y: Axis { label: "time from due to returned, ms".to_owned(), scale: Scale::Logarithmic },
                series,
            };
            plot.write(folder, &format!("latency-under-loss-{percent}"))?;
        }
        Ok(())
    }

    /// For each measured goal: its subject, the ratio and the goal.
    fn verdicts(&self) -> Vec<(String, f64, f64)> {
        let mut verdicts = Vec::new();
        let bulk = BULKS[1];
        for goal in GOALS {
            let Some(ours) = self.cell(goal.loss, bulk, OURS) else { continue };
            let what = |text: &str| format!("{OURS}, {} % loss, {} KB/s: {text}", goal.loss * 100.0, bulk / 1000);
            let p50 = ours.percentile(50.0);
            verdicts.push((what("p50 to the round trip"), p50 / self.round_trip(), goal.p50_to_round_trip));
            let best = |percentile: f64| {
                let cells = WSS.iter().filter_map(|name| self.cell(goal.loss, bulk, name));
                cells.map(|cell| cell.percentile(percentile)).min_by(f64::total_cmp)
            };
            if let (Some(limit), Some(theirs)) = (goal.p50_to_wss, best(50.0)) {
                verdicts.push((what("p50 to best WSS"), p50 / theirs, limit));
            }
            if let Some(theirs) = best(99.0) {
                verdicts.push((what("p99 to best WSS"), ours.percentile(99.0) / theirs, goal.p99_to_wss));
            }
        }
        verdicts
    }

    pub(super) fn to_json(&self) -> Value {
        let cells = self.cells.iter().map(|cell| {
            json!({
                "loss": cell.loss, "bulk_bytes_per_second": cell.bulk, "variant": cell.variant.name,
                "p50_ms": cell.percentile(50.0), "p90_ms": cell.percentile(90.0), "p99_ms": cell.percentile(99.0),
                "max_ms": cell.latency.max() as f64 / 1e6, "samples": cell.latency.len(),
                "bulk_returned": cell.bulk_back,
            })
        });
        let verdicts = self.verdicts();
        let verdicts = verdicts
            .iter()
            .map(|(what, ratio, goal)| json!({ "work": what, "ratio": ratio, "goal": goal, "met": ratio <= goal }));
        json!({
            "rounds": self.rounds, "seconds": self.measured.as_secs_f64(), "round_trip_ms": self.round_trip(),
            "cells": cells.collect::<Vec<_>>(), "goals": verdicts.collect::<Vec<_>>(),
            "skipped": self.skipped, "remarks": self.remarks,
        })
    }

    /// One table: a row per variant, a column per condition.
    fn write(&self, f: &mut Formatter<'_>, show: impl Fn(&Cell) -> String) -> fmt::Result {
        let mut conditions: Vec<_> = self.cells.iter().map(|cell| (cell.bulk, cell.loss)).collect();
        conditions.sort_by(|a, b| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)));
        conditions.dedup();
        write!(f, "\n| |")?;
        for (bulk, loss) in &conditions {
            write!(f, " {} KB/s, {} % loss |", bulk / 1000, loss * 100.0)?;
        }
        writeln!(f, "\n|---|{}", "---|".repeat(conditions.len()))?;
        for variant in VARIANTS {
            if self.cells.iter().all(|cell| cell.variant.name != variant.name) {
                continue;
            }
            write!(f, "| {} |", variant.name)?;
            for (bulk, loss) in &conditions {
                write!(f, " {} |", self.cell(*loss, *bulk, variant.name).map(&show).unwrap_or_default())?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

impl Display for Losses {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if let Some(reason) = &self.skipped {
            writeln!(f, "{reason}")?;
        }
        if self.cells.is_empty() {
            return Ok(());
        }
        let (rounds, seconds) = (self.rounds, self.measured.as_secs());
        writeln!(
            f,
            "64 B every 10 ms next to bulk of 64 KiB messages, both there and back; {rounds} x {seconds} s each."
        )?;
        writeln!(f, "Link: {RATE_MBIT} Mbit/s, loss each way, round trip {:.1} ms.", self.round_trip())?;
        writeln!(f, "\np50 / p99 of the small messages, ms:")?;
        self.write(f, |cell| format!("{:.1} / {:.0}", cell.percentile(50.0), cell.percentile(99.0)))?;
        writeln!(f, "\nReturned bulk, KB/s:")?;
        self.write(f, |cell| format!("{:.0}", cell.mean_bulk() / 1e3))?;
        for (what, ratio, goal) in self.verdicts() {
            let verdict = if ratio <= goal { "met" } else { "**MISSED**" };
            writeln!(f, "\n* {what}: {ratio:.2} (at most {goal}: {verdict})")?;
        }
        for remark in &self.remarks {
            writeln!(f, "\n**Not clean**: {remark}")?;
        }
        Ok(())
    }
}
