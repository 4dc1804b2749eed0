//! Server cost per delivery, by the number of subscribers and by the number of topics.

use std::fmt::{self, Display, Formatter};
use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};

use super::Extent;
use super::column::Column;
use super::servers::{Launch, Server, Stage};
use super::table::Spread;
use crate::load::board::Plan;
use crate::load::crowd::Crowd;
use crate::load::{Audience, Encoding, Interest, Limit, Mode, Shape, Topics};
use crate::plot::{Axis, Plot, Scale, Series};

const SUBSCRIBERS: [usize; 9] = [10, 20, 50, 100, 200, 500, 1000, 2000, 5000];
const TOPICS: [usize; 9] = [1, 3, 10, 30, 100, 300, 1000, 3000, 10_000];
/// Number of clients that share the topics with one subscriber each.
const SHARING: usize = 100;
const SIZE: usize = 128;
const IN_FLIGHT: [u64; 2] = [1, 16];
/// Highest ratio allowed between the cost of a delivery to 1,000 and of one to 100.
const GROWTH: f64 = 1.2;
const ROUNDS: u16 = 3;

/// One line of a plot: the server's processor time per delivery, in microseconds.
struct Curve {
    name: String,
    is_over_topics: bool,
    column: Column,
    window: u64,
    audience: Audience,
    /// By subscribers or topics, then by round.
    points: Vec<(usize, Vec<f64>)>,
}

pub(super) struct Curves {
    curves: Vec<Curve>,
    rounds: u16,
    pub(super) remarks: Vec<String>,
}

/// One point to measure.
#[derive(Clone, Copy)]
struct Spot {
    clients: usize,
    topics: Topics,
}

impl Curve {
    fn spots(&self) -> impl Iterator<Item = Spot> + use<> {
        let (is_over_topics, audience) = (self.is_over_topics, self.audience);
        let sizes = if is_over_topics { TOPICS } else { SUBSCRIBERS };
        sizes.into_iter().map(move |size| match (is_over_topics, audience) {
            (false, _) => Spot { clients: size, topics: Topics::everyone_on(1) },
            (true, Audience::All) => Spot { clients: 1, topics: Topics::everyone_on(size) },
            (true, Audience::One) => Spot { clients: size.min(SHARING), topics: Topics { count: size, audience } },
        })
    }

    fn medians(&self) -> Vec<(f64, f64)> {
        let median = |(at, samples): &(usize, Vec<f64>)| Some((*at as f64, Spread::of(samples)?.median));
        self.points.iter().filter_map(median).collect()
    }
}

fn curves(extent: &Extent) -> Vec<Curve> {
    let mut curves = Vec::new();
    let mut add = |name: String, is_over_topics, column, window, audience| {
        curves.push(Curve { name, is_over_topics, column, window, audience, points: Vec::new() });
    };
    for window in IN_FLIGHT {
        for column in [Column::Qws, Column::Bare, Column::QwsWss, Column::Wss] {
            add(format!("{}, {window} in flight", column.title()), false, column, window, Audience::All);
        }
    }
    for window in IN_FLIGHT {
        add(format!("one subscriber each, {window} in flight"), true, Column::Qws, window, Audience::One);
        add(format!("one subscriber of all, {window} in flight"), true, Column::Qws, window, Audience::All);
    }
    curves.retain(|curve| {
        extent.wants(curve.column) && extent.only.as_ref().is_none_or(|text| curve.name.contains(text.as_str()))
    });
    curves
}

/// Measures all curves.
pub(super) async fn run(stage: &Stage, extent: &Extent) -> Result<Curves> {
    let rounds = if extent.is_quick { 1 } else { extent.rounds.min(ROUNDS) };
    let mut all = Curves { curves: curves(extent), rounds, remarks: Vec::new() };
    let count = all.curves.len();
    for round in 0..rounds {
        for (index, curve) in all.curves.iter_mut().enumerate() {
            eprintln!("[round {}/{rounds}, {}/{count}] {}", round + 1, index + 1, curve.name);
            // As many subscriptions of one client as the longest curve needs.
            let settings = "[limits]\nmax_subscriptions = 20000\n";
            let launch = Launch { column: curve.column, workers: 1, congestion: None, settings, link: None };
            let server = stage.launch(launch).await?;
            for spot in curve.spots() {
                let at = if curve.is_over_topics { spot.topics.count } else { spot.clients };
                let (each, problem) = measure(&server, curve, spot, extent).await?;
                if let Some(problem) = problem {
                    all.remarks.push(format!("{}, {at}: {problem}", curve.name));
                }
                match curve.points.iter_mut().find(|point| point.0 == at) {
                    Some(point) => point.1.push(each),
                    None => curve.points.push((at, vec![each])),
                }
            }
        }
    }
    Ok(all)
}

async fn measure(server: &Server, curve: &Curve, spot: Spot, extent: &Extent) -> Result<(f64, Option<String>)> {
    let driver = curve.column.driver();
    let crowd = Crowd::connect(&server.target, spot.clients, Interest::Topics(spot.topics)).await?;
    let shape = Shape { driver, mode: Mode::Topic, encoding: Encoding::Text, size: SIZE };
    let plan = |time| Plan { shape, senders: 1, topics: spot.topics, window: curve.window, limit: Limit::Time(time) };
    // Thousands of new connections keep discovering their MTU for a while.
    let settling = Duration::from_micros(400) * u32::try_from(spot.clients)?;
    let warm_up = crowd.carry(plan(extent.warm_up() + settling), |_| {}).await;
    let (outcome, used) = super::watched(server, crowd.carry(plan(extent.measured()), |_| {})).await?;
    crowd.disconnect().await;
    Ok((used.server_each(outcome.received), warm_up.problem().or(outcome.problem())))
}

impl Curves {
    pub(super) fn write_plots(&self, folder: &Path) -> Result<()> {
        let rounds = self.rounds;
        let note = format!(
            "{SIZE} B messages on loopback, one worker, median of {rounds} rounds; 1 and 16 publishes in flight"
        );
        let plot = |is_over_topics, title: &str, x: &str| Plot {
            title: title.to_owned(),
            note: note.clone(),
            x: Axis { label: x.to_owned(), scale: Scale::Logarithmic },
            y: Axis { label: "server CPU per delivery, µs".to_owned(), scale: Scale::Logarithmic },
            series: self
                .curves
                .iter()
                .filter(|curve| curve.is_over_topics == is_over_topics)
                .map(|curve| Series {
                    name: curve.name.clone(),
                    color: color(curve),
                    is_dashed: curve.window == 1,
                    has_points: true,
                    points: curve.medians(),
                })
                .filter(|series| !series.points.is_empty())
                .collect(),
        };
        let subscribers = plot(false, "Cost per delivery, by subscribers of the topic", "subscribers of one topic");
        let topics = plot(true, "Cost per delivery, by topics", "topics, published to in turn");
        for (plot, name) in [(subscribers, "cost-by-subscribers"), (topics, "cost-by-topics")] {
            if !plot.series.is_empty() {
                plot.write(folder, name)?;
            }
        }
        Ok(())
    }

    /// Ratio between the cost of a delivery to 1,000 and of one to 100, for this project's server.
    fn growths(&self) -> Vec<(&str, f64)> {
        let ours = self.curves.iter().filter(|curve| curve.column == Column::Qws && !curve.is_over_topics);
        ours.filter_map(|curve| {
            let medians = curve.medians();
            let at = |subscribers: f64| medians.iter().find(|point| point.0 == subscribers).map(|point| point.1);
            Some((curve.name.as_str(), at(1000.0)? / at(100.0)?))
        })
        .collect()
    }

    pub(super) fn to_json(&self) -> Value {
        let curves = self.curves.iter().map(|curve| {
            let points = curve.points.iter().map(|(at, samples)| json!({ "at": at, "us_each": samples }));
            let over = if curve.is_over_topics { "topics" } else { "subscribers" };
            json!({ "curve": curve.name, "over": over, "points": points.collect::<Vec<_>>() })
        });
        let growths = self.growths();
        let growths = growths.iter().map(|(curve, growth)| {
            json!({ "curve": curve, "1000_over_100": growth, "goal": GROWTH, "met": *growth <= GROWTH })
        });
        json!({
            "rounds": self.rounds, "curves": curves.collect::<Vec<_>>(), "growth": growths.collect::<Vec<_>>(),
            "remarks": self.remarks,
        })
    }

    fn write(&self, f: &mut Formatter<'_>, is_over_topics: bool, head: &str, sizes: &[usize]) -> fmt::Result {
        let curves: Vec<_> = self.curves.iter().filter(|curve| curve.is_over_topics == is_over_topics).collect();
        if curves.is_empty() {
            return Ok(());
        }
        write!(f, "\n| {head} |")?;
        sizes.iter().try_for_each(|size| write!(f, " {size} |"))?;
        writeln!(f, "\n|---|{}", "---|".repeat(sizes.len()))?;
        for curve in curves {
            write!(f, "| {} |", curve.name)?;
            for size in sizes {
                let samples = curve.points.iter().find(|point| point.0 == *size).map(|point| point.1.as_slice());
                match samples.and_then(Spread::of) {
                    Some(spread) => write!(f, " {:.2} |", spread.median)?,
                    None => write!(f, " |")?,
                }
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

impl Display for Curves {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "Server CPU per delivery, us; {SIZE} B, medians of {} rounds.", self.rounds)?;
        self.write(f, false, "subscribers of one topic", &SUBSCRIBERS)?;
        self.write(f, true, "topics", &TOPICS)?;
        for (curve, growth) in self.growths() {
            let verdict = if growth <= GROWTH { "met" } else { "**MISSED**" };
            writeln!(f, "\n* {curve}: 1,000 subscribers cost {growth:.2} times 100 (at most {GROWTH}: {verdict})")?;
        }
        for remark in &self.remarks {
            writeln!(f, "\n**Not clean**: {remark}")?;
        }
        Ok(())
    }
}

const fn color(curve: &Curve) -> (u8, u8, u8) {
    match (curve.column, curve.audience) {
        (Column::Bare, _) => (0x68, 0x70, 0x78),
        (Column::QwsWss, _) => (0x86, 0x3b, 0xc4),
        (Column::Wss | Column::Ws | Column::Nats, _) => (0xd9, 0x48, 0x0f),
        (Column::Qws | Column::Before, Audience::One) => (0x2b, 0x8a, 0x3e),
        (Column::Qws | Column::Before, Audience::All) => (0x0b, 0x6b, 0xcb),
    }
}
