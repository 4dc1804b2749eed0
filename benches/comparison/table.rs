//! Figures of a comparison by row and server, displayed as a Markdown table or as JSON.

use std::fmt::{self, Display, Formatter};

use serde_json::{Value, json};

use super::{Extent, plan};
use crate::load::Driver;

const DRIVERS: [Driver; 3] = [Driver::Qws, Driver::Bare, Driver::Wss];

/// Target ratio of this project's server to each baseline.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Goals {
    pub(super) bare: Option<f64>,
    pub(super) wss: Option<f64>,
}

impl Goals {
    pub(super) const NONE: Self = Self { bare: None, wss: None };
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Metric {
    Rate,
    P50,
    P99,
    /// The server's processor time per delivery or connection.
    Cpu,
    Connections,
    Memory,
    /// Connections per second, resumed divided by full.
    Resumption,
    /// Deliveries per second, two workers divided by one.
    Scaling,
}

impl Metric {
    const fn name(self) -> &'static str {
        match self {
            Self::Rate => "messages/s",
            Self::P50 => "p50, us",
            Self::P99 => "p99, us",
            Self::Cpu => "server CPU, us each",
            Self::Connections => "connections/s",
            Self::Memory => "KiB/client",
            Self::Resumption => "times full",
            Self::Scaling => "times 1 worker",
        }
    }

    const fn is_better_higher(self) -> bool {
        matches!(self, Self::Rate | Self::Connections | Self::Resumption | Self::Scaling)
    }

    fn is_met(self, value: f64, goal: f64) -> bool {
        if self.is_better_higher() { value >= goal } else { value <= goal }
    }

    const fn relation(self) -> &'static str {
        if self.is_better_higher() { "at least" } else { "at most" }
    }
}

pub(super) struct Table {
    extent: Extent,
    rows: Vec<Row>,
    remarks: Vec<String>,
}

struct Row {
    work: String,
    metric: Metric,
    goals: Goals,
    /// By driver, then by round.
    samples: [Vec<f64>; 3],
}

pub(super) struct Spread {
    pub(super) median: f64,
    min: f64,
    max: f64,
}

impl Spread {
    pub(super) fn of(samples: &[f64]) -> Option<Self> {
        let mut sorted = samples.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let median = f64::midpoint(sorted[(sorted.len() - 1) / 2], sorted[sorted.len() / 2]);
        Some(Self { median, min, max })
    }

    fn to_json(&self) -> Value {
        json!({ "median": self.median, "min": self.min, "max": self.max })
    }
}

impl Display for Spread {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let digits = if self.median >= 1000.0 {
            0
        } else if self.median >= 10.0 {
            1
        } else {
            2
        };
        write!(f, "{:.digits$} ({:.digits$}-{:.digits$})", self.median, self.min, self.max)
    }
}

impl Row {
    fn of(&self, driver: Driver) -> &[f64] {
        &self.samples[place(driver)]
    }

    /// Ratio of this project's server to a baseline, round by round.
    fn ratio(&self, baseline: Driver) -> Option<Spread> {
        let pairs = self.of(Driver::Qws).iter().zip(self.of(baseline));
        Spread::of(&pairs.map(|(ours, theirs)| ours / theirs.max(1e-9)).collect::<Vec<_>>())
    }

    fn goal(&self, baseline: Driver) -> Option<f64> {
        if baseline == Driver::Bare { self.goals.bare } else { self.goals.wss }
    }

    fn ratio_cell(&self, baseline: Driver) -> String {
        let Some(ratio) = self.ratio(baseline) else { return String::new() };
        let Some(goal) = self.goal(baseline) else { return format!("{:.2}", ratio.median) };
        let verdict = if self.metric.is_met(ratio.median, goal) { "met" } else { "**MISSED**" };
        format!("{:.2} ({} {goal}: {verdict})", ratio.median, self.metric.relation())
    }

    fn ratio_json(&self, baseline: Driver) -> Value {
        let Some(ratio) = self.ratio(baseline) else { return Value::Null };
        let mut value = ratio.to_json();
        if let Some(goal) = self.goal(baseline) {
            value["goal"] = json!(goal);
            value["met"] = json!(self.metric.is_met(ratio.median, goal));
        }
        value
    }
}

impl Table {
    pub(super) fn new(extent: &Extent) -> Self {
        Self { extent: extent.clone(), rows: Vec::new(), remarks: Vec::new() }
    }

    /// Adds one round's figure.
    pub(super) fn add(&mut self, work: &str, metric: Metric, goals: Goals, driver: Driver, value: f64) {
        let known = self.rows.iter().position(|row| row.work == work && row.metric == metric);
        let index = known.unwrap_or_else(|| {
            self.rows.push(Row { work: work.to_owned(), metric, goals, samples: Default::default() });
            self.rows.len() - 1
        });
        self.rows[index].samples[place(driver)].push(value);
    }

    /// Notes a problem that invalidates a figure: losses, failures.
    pub(super) fn remark(&mut self, text: String) {
        self.remarks.push(text);
    }

    pub(super) fn is_clean(&self) -> bool {
        self.remarks.is_empty()
    }

    /// Speed-up by session resumption, if both kinds were measured.
    fn resumption(&self) -> Option<Row> {
        self.quotient("resumed over full", Metric::Resumption, plan::RESUMED, plan::FULL, Metric::Connections)
    }

    /// Speed-up by a second worker, for each row that was repeated with two.
    fn scaling(&self) -> impl Iterator<Item = Row> {
        self.rows.iter().filter(|row| row.metric == Metric::Rate).filter_map(|row| {
            let alone = row.work.strip_suffix(plan::TWO_WORKERS)?;
            let name = format!("{alone}: 2 workers over 1");
            self.quotient(&name, Metric::Scaling, &row.work, alone, Metric::Rate)
        })
    }

    /// Ratio of two rows, round by round.
    fn quotient(&self, name: &str, metric: Metric, over: &str, under: &str, of: Metric) -> Option<Row> {
        let row = |work| self.rows.iter().find(|row| row.work == work && row.metric == of);
        let (over, under) = (row(over)?, row(under)?);
        let samples = DRIVERS.map(|driver| {
            let pairs = over.of(driver).iter().zip(under.of(driver));
            pairs.map(|(over, under)| over / under.max(1e-9)).collect()
        });
        Some(Row { work: name.to_owned(), metric, goals: Goals::NONE, samples })
    }

    pub(super) fn to_json(&self) -> Value {
        let row = |row: &Row| {
            let figures = |driver| {
                let mut value = Spread::of(row.of(driver)).map_or(Value::Null, |spread| spread.to_json());
                if !value.is_null() {
                    value["samples"] = json!(row.of(driver));
                }
                value
            };
            json!({
                "work": row.work,
                "metric": row.metric.name(),
                "qws": figures(Driver::Qws),
                "bare": figures(Driver::Bare),
                "wss": figures(Driver::Wss),
                "qws_to_bare": row.ratio_json(Driver::Bare),
                "qws_to_wss": row.ratio_json(Driver::Wss),
            })
        };
        let mut rows: Vec<_> = self.rows.iter().map(row).chain(self.scaling().map(|scaling| row(&scaling))).collect();
        if let Some(resumption) = self.resumption() {
            let mut value = row(&resumption);
            value["goal"] = json!(plan::RESUMED_TO_FULL);
            value["met"] = json!(self.resumption_is_met());
            rows.push(value);
        }
        json!({
            "rounds": self.extent.rounds(),
            "quick": self.extent.is_quick,
            "workers": self.extent.workers,
            "wss_batches": self.extent.wss_batches,
            "processors": std::thread::available_parallelism().map_or(0, usize::from),
            "rows": rows,
            "remarks": self.remarks,
        })
    }

    fn resumption_is_met(&self) -> Option<bool> {
        let ours = Spread::of(self.resumption()?.of(Driver::Qws))?;
        Some(Metric::Resumption.is_met(ours.median, plan::RESUMED_TO_FULL))
    }
}

impl Display for Table {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let (rounds, workers) = (self.extent.rounds(), self.extent.workers);
        let wss = if self.extent.wss_batches { "one flush for all ready messages" } else { "one flush per message" };
        writeln!(f, "Medians (and spread) of {rounds} rounds; ratios paired by round.")?;
        writeln!(f, "qws: --workers {workers}; bare Quinn: 1 thread; WSS: 2 threads, {wss}.\n")?;
        writeln!(f, "| work | figure | qws | bare Quinn | WSS | qws / bare | qws / WSS |")?;
        writeln!(f, "|---|---|---|---|---|---|---|")?;
        let derived: Vec<_> = self.resumption().into_iter().chain(self.scaling()).collect();
        for row in self.rows.iter().chain(&derived) {
            write!(f, "| {} | {} |", row.work, row.metric.name())?;
            for driver in DRIVERS {
                match Spread::of(row.of(driver)) {
                    Some(spread) => write!(f, " {spread} |")?,
                    None => write!(f, " |")?,
                }
            }
            writeln!(f, " {} | {} |", row.ratio_cell(Driver::Bare), row.ratio_cell(Driver::Wss))?;
        }
        if let Some(is_met) = self.resumption_is_met() {
            let verdict = if is_met { "met" } else { "**MISSED**" };
            writeln!(f, "\nResumed connections at least {} times full ones: {verdict}.", plan::RESUMED_TO_FULL)?;
        }
        for remark in &self.remarks {
            writeln!(f, "\n**Not clean**: {remark}")?;
        }
        Ok(())
    }
}

fn place(driver: Driver) -> usize {
    match driver {
        Driver::Qws => 0,
        Driver::Bare => 1,
        Driver::Wss | Driver::QwsWss | Driver::Nats => 2,
    }
}
