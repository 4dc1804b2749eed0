//! Line plots as SVG: axes with units, a direct label at the end of each line. Independent of the plotted data.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, anyhow};
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

const SIZE: (u32, u32) = (920, 480);
const TEXT: RGBColor = RGBColor(45, 50, 56);
const FAINT: RGBColor = RGBColor(110, 118, 126);
const GRID: RGBColor = RGBColor(228, 231, 235);
/// Space for the labels at the right end of the lines, and above the plot for its title.
const LABELS: u32 = 210;
const HEAD: u32 = 62;
const LINE_HEIGHT: i32 = 18;

pub(crate) struct Plot {
    pub(crate) title: String,
    /// Measurement and conditions, in one line.
    pub(crate) note: String,
    pub(crate) x: Axis,
    pub(crate) y: Axis,
    pub(crate) series: Vec<Series>,
}

pub(crate) struct Axis {
    /// With its unit.
    pub(crate) label: String,
    pub(crate) scale: Scale,
}

pub(crate) enum Scale {
    Logarithmic,
    /// Linear, with these values marked and labelled, in order.
    Marked(Vec<(f64, String)>),
}

pub(crate) struct Series {
    pub(crate) name: String,
    pub(crate) color: (u8, u8, u8),
    pub(crate) is_dashed: bool,
    pub(crate) has_points: bool,
    pub(crate) points: Vec<(f64, f64)>,
}

impl Plot {
    /// Writes the plot into a folder, which is created if missing.
    pub(crate) fn write(&self, folder: &Path, name: &str) -> Result<()> {
        let path = folder.join(name).with_extension("svg");
        let explain = || format!("cannot write {}", path.display());
        let mut text = String::new();
        self.draw(SVGBackend::with_string(&mut text, SIZE).into_drawing_area())
            .map_err(|error| anyhow!("{error}"))
            .with_context(explain)?;
        fs::create_dir_all(folder).with_context(explain)?;
        fs::write(&path, text).with_context(explain)
    }

    fn draw(&self, root: DrawingArea<SVGBackend<'_>, Shift>) -> Result<(), Box<dyn std::error::Error + '_>> {
        root.fill(&WHITE)?;
        let text = |size: i32, color: RGBColor| ("sans-serif", size).into_font().color(&color);
        let bold = ("sans-serif", 18, FontStyle::Bold).into_font().color(&TEXT);
        root.draw(&Text::new(self.title.as_str(), (18, 16), bold))?;
        root.draw(&Text::new(self.note.as_str(), (18, 40), text(13, FAINT)))?;

        let points = || self.series.iter().flat_map(|series| &series.points);
        let x = Ticks::of(&self.x, points().map(|point| point.0));
        let y = Ticks::of(&self.y, points().map(|point| point.1));
        let mut builder = ChartBuilder::on(&root);
        builder.margin_top(HEAD).margin_right(LABELS).margin_left(10).margin_bottom(10);
        builder.x_label_area_size(46).y_label_area_size(64);
        // One type for all four combinations of scales: a logarithm is drawn as a linear axis of exponents.
        let mut chart = builder.build_cartesian_2d(x.from..x.to, y.from..y.to)?;
        chart.configure_mesh().disable_mesh().disable_axes().draw()?;
        for (at, name) in &x.ticks {
            chart.draw_series(LineSeries::new([(*at, y.from), (*at, y.to)], GRID))?;
            let (left, top) = chart.backend_coord(&(*at, y.from));
            let style = text(13, TEXT).pos(Pos::new(HPos::Center, VPos::Top));
            root.draw(&Text::new(name.as_str(), (left, top + 8), style))?;
        }
        for (at, name) in &y.ticks {
            chart.draw_series(LineSeries::new([(x.from, *at), (x.to, *at)], GRID))?;
            let (left, top) = chart.backend_coord(&(x.from, *at));
            let style = text(13, TEXT).pos(Pos::new(HPos::Right, VPos::Center));
            root.draw(&Text::new(name.as_str(), (left - 8, top), style))?;
        }
        chart.draw_series(LineSeries::new([(x.from, y.from), (x.to, y.from)], FAINT))?;
        let (left, bottom) = chart.backend_coord(&(f64::midpoint(x.from, x.to), y.from));
        let style = text(13, FAINT).pos(Pos::new(HPos::Center, VPos::Top));
        root.draw(&Text::new(self.x.label.as_str(), (left, bottom + 30), style))?;
        let (left, middle) = chart.backend_coord(&(x.from, f64::midpoint(y.from, y.to)));
        let style = text(13, FAINT).transform(FontTransform::Rotate270).pos(Pos::new(HPos::Center, VPos::Bottom));
        root.draw(&Text::new(self.y.label.as_str(), (left - 52, middle), style))?;

        let mut labels = Vec::new();
        for series in &self.series {
            let color = RGBColor(series.color.0, series.color.1, series.color.2);
            let line = color.stroke_width(if series.is_dashed { 2 } else { 3 });
            let points: Vec<_> = series.points.iter().map(|point| (x.place(point.0), y.place(point.1))).collect();
            if series.is_dashed {
                chart.draw_series(DashedLineSeries::new(points.iter().copied(), 6, 4, line))?;
            } else {
                chart.draw_series(LineSeries::new(points.iter().copied(), line))?;
            }
            if series.has_points {
                chart.draw_series(points.iter().map(|point| Circle::new(*point, 4, color.filled())))?;
            }
            if let Some(last) = points.last() {
                labels.push((chart.backend_coord(last), series.name.as_str(), color));
            }
        }
        apart(&mut labels);
        for ((left, top), name, color) in labels {
            let style = text(13, color).pos(Pos::new(HPos::Left, VPos::Center));
            root.draw(&Text::new(name, (left + 12, top), style))?;
        }
        root.present()?;
        Ok(())
    }
}

/// Moves overlapping labels up and down, in the order in which the lines end.
fn apart(labels: &mut [((i32, i32), &str, RGBColor)]) {
    labels.sort_by_key(|label| label.0.1);
    // Pushed down from the top, then raised by half of the overshoot of the last ones.
    let wanted: Vec<_> = labels.iter().map(|label| label.0.1).collect();
    for index in 1..labels.len() {
        labels[index].0.1 = labels[index].0.1.max(labels[index - 1].0.1 + LINE_HEIGHT);
    }
    for index in (0..labels.len()).rev() {
        let moved = labels[index].0.1 - wanted[index];
        let room = index.checked_sub(1).map_or(i32::MAX, |above| labels[index].0.1 - labels[above].0.1 - LINE_HEIGHT);
        labels[index].0.1 -= (moved / 2).min(room.max(0));
    }
}

/// An axis as drawn: its range, its ticks, and the position of a value.
struct Ticks {
    from: f64,
    to: f64,
    is_log: bool,
    ticks: Vec<(f64, String)>,
}

impl Ticks {
    fn of(axis: &Axis, values: impl Iterator<Item = f64>) -> Self {
        let (min, max) = values.fold((f64::MAX, f64::MIN), |(min, max), value| (min.min(value), max.max(value)));
        match &axis.scale {
            Scale::Marked(marks) => {
                let ends = (marks.first().map_or(0.0, |mark| mark.0), marks.last().map_or(1.0, |mark| mark.0));
                Self { from: ends.0, to: ends.1, is_log: false, ticks: marks.clone() }
            }
            Scale::Logarithmic => {
                let (min, max) = (min.max(1e-6).log10(), max.max(1e-6).log10());
                let steps: &[f64] = if max - min > 3.2 { &[1.0] } else { &[1.0, 2.0, 5.0] };
                let decades = -6_i8..9;
                let all: Vec<_> = decades
                    .flat_map(|decade| steps.iter().map(move |step| step * 10_f64.powi(decade.into())))
                    .map(|value| (value.log10(), readable(value)))
                    .collect();
                let below = all.iter().rposition(|tick| tick.0 <= min + 0.01).unwrap_or(0);
                let above = all.iter().position(|tick| tick.0 >= max - 0.01).unwrap_or(all.len() - 1);
                let ticks = all[below..=above.max(below + 1)].to_vec();
                let ends = (ticks[0].0, ticks[ticks.len() - 1].0);
                Self { from: ends.0, to: ends.1, is_log: true, ticks }
            }
        }
    }

    fn place(&self, value: f64) -> f64 {
        if self.is_log { value.max(1e-6).log10() } else { value }
    }
}

fn readable(value: f64) -> String {
    if value < 1000.0 {
        // Rounded, since a power of ten may be slightly off.
        return format!("{}", (value * 1e6).round() / 1e6);
    }
    let digits = format!("{value:.0}");
    let groups: Vec<_> = digits.as_bytes().rchunks(3).rev().map(String::from_utf8_lossy).collect();
    groups.join(",")
}
