//! Figures of a comparison by row and server, displayed as a Markdown table or as JSON.

use std::fmt::{self, Display, Formatter};

use serde_json::{Value, json};

use super::column::{Column, Yardstick};
use super::{Extent, plan};

/// Target of this project's server over QUIC: ratios to others, and an upper bound in the figure's own unit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Goals {
    pub(super) bare: Option<f64>,
    pub(super) best_wss: Option<f64>,
    pub(super) own_wss: Option<f64>,
    pub(super) most: Option<f64>,
}

impl Goals {
    pub(super) const NONE: Self = Self { bare: None, best_wss: None, own_wss: None, most: None };

    const fn against(&self, yardstick: Yardstick) -> Option<f64> {
        match yardstick {
            Yardstick::Column(Column::Bare) => self.bare,
            Yardstick::Column(Column::QwsWss) => self.own_wss,
            Yardstick::Column(_) => None,
            Yardstick::BestWss => self.best_wss,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Metric {
    Rate,
    RoundTrips,
    P50,
    P99,
    /// The server's processor time per delivery, round trip or connection.
    Cpu,
    /// The same of the load generator.
    GeneratorCpu,
    /// Processor time by elapsed time.
    ServerCores,
    GeneratorCores,
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
            Self::RoundTrips => "round trips/s",
            Self::P50 => "p50, us",
            Self::P99 => "p99, us",
            Self::Cpu => "server CPU, us each",
            Self::GeneratorCpu => "generator CPU, us each",
            Self::ServerCores => "server, cores",
            Self::GeneratorCores => "generator, cores",
            Self::Connections => "connections/s",
            Self::Memory => "KB/client",
            Self::Resumption => "times full",
            Self::Scaling => "times 1 worker",
        }
    }

    const fn is_better_higher(self) -> bool {
        matches!(self, Self::Rate | Self::RoundTrips | Self::Connections | Self::Resumption | Self::Scaling)
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
    /// Versions of the servers of other projects.
    versions: Vec<String>,
    rows: Vec<Row>,
    remarks: Vec<String>,
}

struct Row {
    work: String,
    metric: Metric,
    goals: Goals,
    /// By column, then by round.
    samples: [Vec<f64>; Column::COUNT],
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
    fn of(&self, column: Column) -> &[f64] {
        &self.samples[column.place()]
    }

    /// The figures that this project's server is measured by, round by round.
    fn yardstick(&self, yardstick: Yardstick) -> Vec<f64> {
        match yardstick {
            Yardstick::Column(column) => self.of(column).to_vec(),
            Yardstick::BestWss => {
                let (own, baseline) = (self.of(Column::QwsWss), self.of(Column::Wss));
                let rounds = 0..own.len().max(baseline.len());
                let best = rounds.filter_map(|round| match (own.get(round), baseline.get(round)) {
                    (Some(own), Some(baseline)) if self.metric.is_better_higher() => Some(own.max(*baseline)),
                    (Some(own), Some(baseline)) => Some(own.min(*baseline)),
                    (own, baseline) => own.or(baseline).copied(),
                });
                best.collect()
            }
        }
    }

    /// Ratio of this project's server to a yardstick, round by round.
    fn ratio(&self, yardstick: Yardstick) -> Option<Spread> {
        let theirs = self.yardstick(yardstick);
        let pairs = self.of(Column::Qws).iter().zip(theirs);
        Spread::of(&pairs.map(|(ours, theirs)| ours / theirs.max(1e-9)).collect::<Vec<_>>())
    }

    fn verdict(&self, value: f64, goal: f64) -> String {
        let verdict = if self.metric.is_met(value, goal) { "met" } else { "**MISSED**" };
        format!("({} {goal}: {verdict})", self.metric.relation())
    }

    fn cell(&self, column: Column) -> String {
        match (Spread::of(self.of(column)), self.goals.most) {
            (Some(spread), Some(goal)) if column == Column::Qws => {
                format!("{spread} {}", self.verdict(spread.median, goal))
            }
            (Some(spread), _) => spread.to_string(),
            (None, _) => String::new(),
        }
    }

    fn ratio_cell(&self, yardstick: Yardstick) -> String {
        match (self.ratio(yardstick), self.goals.against(yardstick)) {
            (Some(ratio), Some(goal)) => format!("{:.2} {}", ratio.median, self.verdict(ratio.median, goal)),
            (Some(ratio), None) => format!("{:.2}", ratio.median),
            (None, _) => String::new(),
        }
    }

    fn judged(&self, spread: &Spread, goal: Option<f64>) -> Value {
        let mut value = spread.to_json();
        if let Some(goal) = goal {
            value["goal"] = json!(goal);
            value["met"] = json!(self.metric.is_met(spread.median, goal));
        }
        value
    }

    fn to_json(&self) -> Value {
        let mut row = json!({ "work": self.work, "metric": self.metric.name() });
        for column in Column::ALL {
            if let Some(spread) = Spread::of(self.of(column)) {
                row[column.key()] = self.judged(&spread, self.goals.most.filter(|_| column == Column::Qws));
                row[column.key()]["samples"] = json!(self.of(column));
            }
        }
        for yardstick in Yardstick::ALL {
            if let Some(ratio) = self.ratio(yardstick) {
                row[yardstick.key()] = self.judged(&ratio, self.goals.against(yardstick));
            }
        }
        row
    }
}

impl Table {
    pub(super) fn new(extent: &Extent, versions: Vec<String>) -> Self {
        Self { extent: extent.clone(), versions, rows: Vec::new(), remarks: Vec::new() }
    }

    /// Adds one round's figure.
    pub(super) fn add(&mut self, work: &str, metric: Metric, goals: Goals, column: Column, value: f64) {
        let known = self.rows.iter().position(|row| row.work == work && row.metric == metric);
        let index = known.unwrap_or_else(|| {
            self.rows.push(Row { work: work.to_owned(), metric, goals, samples: Default::default() });
            self.rows.len() - 1
        });
        self.rows[index].samples[column.place()].push(value);
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
        let samples = Column::ALL.map(|column| {
            let pairs = over.of(column).iter().zip(under.of(column));
            pairs.map(|(over, under)| over / under.max(1e-9)).collect()
        });
        Some(Row { work: name.to_owned(), metric, goals: Goals::NONE, samples })
    }

    /// Columns with figures, and yardsticks with ratios.
    fn shown(&self) -> (Vec<Column>, Vec<Yardstick>) {
        let has_figures = |column: &Column| self.rows.iter().any(|row| !row.of(*column).is_empty());
        let has_ratios = |yardstick: &Yardstick| self.rows.iter().any(|row| row.ratio(*yardstick).is_some());
        (Column::ALL.into_iter().filter(has_figures).collect(), Yardstick::ALL.into_iter().filter(has_ratios).collect())
    }

    pub(super) fn to_json(&self) -> Value {
        let mut rows: Vec<_> = self.rows.iter().map(Row::to_json).collect();
        rows.extend(self.scaling().map(|scaling| scaling.to_json()));
        if let Some(resumption) = self.resumption() {
            let mut value = resumption.to_json();
            value["goal"] = json!(plan::RESUMED_TO_FULL);
            value["met"] = json!(self.resumption_is_met());
            rows.push(value);
        }
        json!({
            "rounds": self.extent.rounds(),
            "quick": self.extent.is_quick,
            "workers": self.extent.workers,
            "versions": self.versions,
            "processors": std::thread::available_parallelism().map_or(0, usize::from),
            "rows": rows,
            "remarks": self.remarks,
        })
    }

    fn resumption_is_met(&self) -> Option<bool> {
        let ours = Spread::of(self.resumption()?.of(Column::Qws))?;
        Some(Metric::Resumption.is_met(ours.median, plan::RESUMED_TO_FULL))
    }
}

impl Display for Table {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let (rounds, workers) = (self.extent.rounds(), self.extent.workers);
        writeln!(f, "Medians (and spread) of {rounds} rounds; ratios of qws to others, paired by round.")?;
        write!(f, "qws: --workers {workers}; bare Quinn: 1 thread; WSS: tokio-tungstenite, 2 threads")?;
        self.versions.iter().try_for_each(|version| write!(f, "; {version}"))?;
        let (columns, yardsticks) = self.shown();
        write!(f, ".\n\n| work | figure |")?;
        columns.iter().try_for_each(|column| write!(f, " {} |", column.title()))?;
        yardsticks.iter().try_for_each(|yardstick| write!(f, " to {} |", yardstick.title()))?;
        writeln!(f, "\n|---|---|{}", "---|".repeat(columns.len() + yardsticks.len()))?;
        let derived: Vec<_> = self.resumption().into_iter().chain(self.scaling()).collect();
        for row in self.rows.iter().chain(&derived) {
            write!(f, "| {} | {} |", row.work, row.metric.name())?;
            columns.iter().try_for_each(|column| write!(f, " {} |", row.cell(*column)))?;
            yardsticks.iter().try_for_each(|yardstick| write!(f, " {} |", row.ratio_cell(*yardstick)))?;
            writeln!(f)?;
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
