//! Lines: latency by percentile, figures over time.

use std::fmt::Write as _;

use super::markup::{Anchor, Svg, colour, cut, legend, width};
use super::scale::{Scale, figure_words};
use super::{Event, Series, is_figure};

const WIDTH: f64 = 860.0;
/// The plot's own height, without what stands around it.
const TALL: f64 = 300.0;
/// Above the plot stands the unit; events have rows of their own below that.
const TOP: f64 = 24.0;
const ROW: f64 = 15.0;
/// Below it: tick labels and the axis' name.
const BOTTOM: f64 = 42.0;
const RIGHT: f64 = 36.0;
/// Labels of events have so many rows; whose label has no place is told by hovering.
const ROWS: usize = 4;
/// One label of an event, at most.
const LABEL: f64 = 190.0;
/// Strips over a timeline that tell by hovering what lies below.
const STRIPS: u8 = 100;
/// The same over percentiles.
const TOLD: [f64; 15] =
    [0.0, 25.0, 50.0, 75.0, 90.0, 95.0, 97.5, 99.0, 99.5, 99.9, 99.95, 99.99, 99.995, 99.999, 99.9999];

/// Latency by percentile. None: there are no figures.
pub(super) fn percentiles(title: &str, unit: &str, log: bool, series: &[Series]) -> Option<String> {
    let shown = |&(p, y): &(f64, f64)| (0.0..100.0).contains(&p) && is_figure(y) && !(log && y == 0.0);
    let figures: Vec<(f64, f64)> = series.iter().flat_map(|s| s.points.iter().copied().filter(shown)).collect();
    let (least, most) = least_and_most(figures.iter().map(|(_, y)| *y))?;
    let x = Scale::percentiles(figures.iter().map(|(p, _)| *p).fold(0.0, f64::max));
    let y = if log { Scale::log(least, most) } else { Scale::linear(most) };
    let unit_words = if log { format!("{unit}, logarithmic") } else { unit.to_owned() };
    let mut plot = Plot::new(&describe(title, series), x, y, &[]);
    plot.axes(&unit_words, "percentile of the requests");
    let strip = |p: f64| -> Option<Strip> {
        let told = |s: &Series| {
            let at = s.points.iter().filter(|point| shown(point)).find(|(of, _)| *of >= p - 1e-9)?;
            Some(format!("{}: {} {unit}", s.name, figure_words(at.1)))
        };
        Some((plot.x.at(p)?, format!("{p} %"), series.iter().filter_map(told).collect()))
    };
    let strips: Vec<Strip> = TOLD.into_iter().filter_map(strip).collect();
    plot.strips(&strips);
    plot.series(series, shown);
    Some(legend(series.iter().map(|s| s.name.as_str()), true) + &plot.svg.finish())
}

/// Figures over time. None: there are none.
pub(super) fn timeline(title: &str, unit: &str, series: &[Series], events: &[Event]) -> Option<String> {
    let shown = |&(t, y): &(f64, f64)| is_figure(t) && is_figure(y);
    let figures: Vec<(f64, f64)> = series.iter().flat_map(|s| s.points.iter().copied().filter(shown)).collect();
    let (_, most) = least_and_most(figures.iter().map(|(_, y)| *y))?;
    let events: Vec<&Event> = events.iter().filter(|event| is_figure(event.at)).collect();
    let end = figures.iter().map(|(t, _)| *t).chain(events.iter().map(|e| e.at)).fold(0.0, f64::max);
    let x = Scale::exact(end);
    let mut plot = Plot::new(&describe(title, series), x, Scale::linear(most), &events);
    plot.axes(unit, "time, s");
    let width = end / f64::from(STRIPS);
    let strip = |i: u8| -> Option<Strip> {
        let (begin, end) = (f64::from(i) * width, f64::from(i + 1) * width);
        let told = |s: &Series| {
            let inside = s.points.iter().filter(|p| shown(p) && p.0 >= begin && p.0 < end).map(|p| p.1);
            let (least, most) = least_and_most(inside)?;
            let (least, most) = (figure_words(least), figure_words(most));
            let words = if least == most { least } else { format!("{least} to {most}") };
            Some(format!("{}: {words} {unit}", s.name))
        };
        let middle = f64::midpoint(begin, end);
        Some((plot.x.at(middle)?, format!("{} s", figure_words(middle)), series.iter().filter_map(told).collect()))
    };
    let strips: Vec<Strip> = (0..STRIPS).filter_map(strip).collect();
    plot.strips(&strips);
    plot.series(series, shown);
    plot.events();
    Some(legend(series.iter().map(|s| s.name.as_str()), true) + &plot.svg.finish())
}

/// What is told by hovering over a strip: its middle as a share of the axis, its name, and its lines.
type Strip = (f64, String, Vec<String>);

/// An event's place: its line, and its label's row with where the label begins, if it has one.
struct Placed {
    x: f64,
    row: Option<usize>,
    label: String,
    anchor: Anchor,
    title: String,
}

struct Plot {
    svg: Svg,
    x: Scale,
    y: Scale,
    left: f64,
    top: f64,
    events: Vec<Placed>,
}

impl Plot {
    fn new(label: &str, x: Scale, y: Scale, events: &[&Event]) -> Self {
        let widest = y.ticks.iter().map(|(_, label)| width(label)).fold(0.0, f64::max);
        let left = (widest + 14.0).max(30.0);
        let events = place(events, |at| Some(left + x.at(at)? * (WIDTH - RIGHT - left)));
        let rows = events.iter().filter_map(|event| event.row).max().map_or(0, |row| row + 1);
        let top = TOP + (0..rows).map(|_| ROW).sum::<f64>();
        Self { svg: Svg::new(WIDTH, top + TALL + BOTTOM, label), x, y, left, top, events }
    }

    fn across(&self, share: f64) -> f64 {
        self.left + share * (WIDTH - RIGHT - self.left)
    }

    fn down(&self, share: f64) -> f64 {
        self.top + (1.0 - share) * TALL
    }

    fn axes(&mut self, unit: &str, across: &str) {
        self.svg.text("unit", (4.0, 14.0), Anchor::Start, unit);
        for (at, label) in self.y.ticks.clone() {
            let Some(share) = self.y.at(at) else { continue };
            let y = self.down(share);
            self.svg.line("grid", (self.left, y), (WIDTH - RIGHT, y));
            self.svg.text("tick", (self.left - 6.0, y + 4.0), Anchor::End, &label);
        }
        let bottom = self.down(0.0);
        for (at, label) in self.x.ticks.clone() {
            let Some(share) = self.x.at(at) else { continue };
            let x = self.across(share);
            self.svg.line("grid", (x, self.top), (x, bottom + 4.0));
            self.svg.text("tick", (x, bottom + 17.0), Anchor::Middle, &label);
        }
        self.svg.line("axis", (self.left, bottom), (WIDTH - RIGHT, bottom));
        self.svg.text("unit", (WIDTH - RIGHT, bottom + 34.0), Anchor::End, across);
    }

    /// Each reaches half way to its neighbours.
    fn strips(&mut self, strips: &[Strip]) {
        for (i, (at, name, lines)) in strips.iter().enumerate() {
            if lines.is_empty() {
                continue;
            }
            let begin = i.checked_sub(1).map_or(0.0, |before| f64::midpoint(strips[before].0, *at));
            let end = strips.get(i + 1).map_or(1.0, |after| f64::midpoint(after.0, *at));
            let (from, to) = (self.across(begin), self.across(end));
            self.svg.rect("strip", (from, self.top), (to - from, TALL), &format!("{name}\n{}", lines.join("\n")));
        }
    }

    fn series(&mut self, series: &[Series], shown: impl Fn(&(f64, f64)) -> bool) {
        for (i, one) in series.iter().enumerate() {
            for run in one.points.split(|point| !shown(point)) {
                let place = |&(x, y): &(f64, f64)| Some((self.across(self.x.at(x)?), self.down(self.y.at(y)?)));
                let points: Vec<_> = run.iter().filter_map(place).collect();
                if !points.is_empty() {
                    self.svg.path(&format!("series {} d{i}", colour(i)), &points, &one.name);
                }
            }
        }
    }

    /// All lines, then the labels, over them.
    fn events(&mut self) {
        let bottom = self.down(0.0);
        let events = std::mem::take(&mut self.events);
        for event in &events {
            let from = event.row.map_or(self.top, |row| self.row(row) - ROW + 4.0);
            self.svg.line("event", (event.x, from), (event.x, bottom));
            self.svg.rect("strip", (event.x - 4.0, from), (8.0, bottom - from), &event.title);
        }
        for event in &events {
            let Some(row) = event.row else { continue };
            let x = if event.anchor == Anchor::End { event.x - 4.0 } else { event.x + 4.0 };
            self.svg.text("label", (x, self.row(row)), event.anchor, &event.label);
        }
    }

    /// The base line of a row of labels; row 0 is next to the plot.
    fn row(&self, row: usize) -> f64 {
        self.top - 4.0 - (0..row).map(|_| ROW).sum::<f64>()
    }
}

/// Each label is in the first row where there is place; right of its line, or left of it where it would go over the edge.
fn place(events: &[&Event], across: impl Fn(f64) -> Option<f64>) -> Vec<Placed> {
    let mut sorted = events.to_vec();
    sorted.sort_by(|a, b| a.at.total_cmp(&b.at));
    let mut taken = [0.0; ROWS];
    let placed = sorted.into_iter().filter_map(|event| {
        let x = across(event.at)?;
        let label = cut(&event.label, LABEL);
        let long = width(&label) + 4.0;
        let (begin, anchor) = if x + long > WIDTH { (x - long, Anchor::End) } else { (x, Anchor::Start) };
        let row = taken.iter().position(|end| begin >= *end);
        if let Some(row) = row {
            taken[row] = begin + long + 6.0;
        }
        let title = format!("{}\n{} s", event.label, figure_words(event.at));
        Some(Placed { x, row, label, anchor, title })
    });
    placed.collect()
}

/// For whoever hears the plot: its title, and how far each line goes.
fn describe(title: &str, series: &[Series]) -> String {
    let mut words = format!("{title}.");
    for one in series {
        if let Some((least, most)) = least_and_most(one.points.iter().map(|p| p.1).filter(|y| is_figure(*y))) {
            let _ = write!(words, " {}: {} to {}.", one.name, figure_words(least), figure_words(most));
        }
    }
    words
}

fn least_and_most(figures: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
    figures.fold(None, |so_far, y| {
        let (least, most) = so_far.unwrap_or((y, y));
        Some((y.min(least), y.max(most)))
    })
}
