//! Horizontal bars: stages end to end, and groups side by side.

use std::fmt::Write as _;

use super::markup::{Anchor, Svg, colour, cut, legend, width};
use super::scale::{Scale, figure_words};
use super::{Group, Stack, is_figure};

const WIDTH: f64 = 860.0;
/// Left of the bars: names, which are cut beyond this.
const NAMES: f64 = 270.0;
/// From one row to the next, and how thick a bar is.
const STACK: (f64, f64) = (34.0, 24.0);
const BAR: (f64, f64) = (19.0, 13.0);
/// A group's name, above its bars.
const HEADING: f64 = 24.0;
/// Below the bars: tick labels and the unit.
const BOTTOM: f64 = 42.0;
/// Between the end of a bar and the figure behind it.
const GAP: f64 = 6.0;

/// Bars of stages. None: there are no figures.
pub(super) fn stacks(title: &str, unit: &str, shares: bool, stages: &[String], bars: &[Stack]) -> Option<String> {
    let figures = |bar: &Stack| -> Vec<f64> {
        bar.parts.iter().map(|part| if is_figure(*part) { *part } else { 0.0 }).take(stages.len()).collect()
    };
    let total = |bar: &Stack| figures(bar).iter().sum::<f64>();
    let most = bars.iter().map(total).fold(0.0, f64::max);
    if most <= 0.0 {
        return None;
    }
    let mut label = format!("{title}.");
    for bar in bars {
        let _ = write!(label, " {}: {} {unit}.", bar.name, figure_words(total(bar)));
    }
    let height = bars.iter().map(|_| STACK.0).sum::<f64>();
    let sums = bars.iter().map(|bar| format!("{} {unit}", figure_words(total(bar))));
    let behind = sums.map(|words| width(&words)).fold(0.0, f64::max);
    let scale = Scale::linear(if shares { 100.0 } else { most });
    let mut plot = Plot::new(&label, bars.iter().map(|bar| bar.name.as_str()), scale, height, behind);
    plot.axis(if shares { "%" } else { unit });
    for (row, bar) in bars.iter().enumerate() {
        let y = (0..row).map(|_| STACK.0).sum::<f64>() + (STACK.0 - STACK.1) / 2.0;
        plot.name(&bar.name, y + STACK.1 / 2.0);
        let whole = total(bar);
        let scaled = |figure: f64| if shares && whole > 0.0 { figure / whole * 100.0 } else { figure };
        let mut sum = 0.0;
        for (i, part) in figures(bar).into_iter().enumerate() {
            let (from, to) = (plot.across(scaled(sum)), plot.across(scaled(sum + part)));
            sum += part;
            if part > 0.0 {
                let words = format!("{}, {}: {} {unit}", bar.name, stages[i], figure_words(part));
                plot.svg.rect(&format!("bar {}", colour(i)), (from, y), (to - from, STACK.1), &words);
            }
            let inside = figure_words(part);
            if to - from > width(&inside) + 6.0 {
                let at = (f64::midpoint(from, to), y + STACK.1 / 2.0 + 4.0);
                plot.svg.text("inside", at, Anchor::Middle, &inside);
            }
        }
        let at = (plot.across(scaled(sum)) + GAP, y + STACK.1 / 2.0 + 4.0);
        plot.svg.text("value", at, Anchor::Start, &format!("{} {unit}", figure_words(sum)));
    }
    Some(legend(stages.iter().map(String::as_str), false) + &plot.svg.finish())
}

/// Groups of bars. None: there are no figures.
pub(super) fn groups(title: &str, unit: &str, log: bool, names: &[String], groups: &[Group]) -> Option<String> {
    let shown = |figure: f64| is_figure(figure) && !(log && figure == 0.0);
    let values = || groups.iter().flat_map(|group| group.bars.iter().take(names.len()).map(|bar| bar.value));
    let ranges = groups.iter().flat_map(|group| group.bars.iter().take(names.len()).filter_map(|bar| bar.range));
    let mut figures: Vec<f64> = ranges.flat_map(|(least, most)| [least, most]).chain(values()).collect();
    figures.retain(|figure| shown(*figure));
    let (least, most) = figures.iter().fold((f64::MAX, 0.0), |(a, b): (f64, f64), x| (a.min(*x), b.max(*x)));
    if !values().any(shown) {
        return None;
    }
    // The shortest bar has a length too.
    let scale = if log { Scale::log(least / 1.5, most) } else { Scale::linear(most) };
    let mut label = format!("{title}.");
    for group in groups {
        let _ = write!(label, " {}:", group.name);
        for (name, bar) in names.iter().zip(&group.bars).filter(|(_, bar)| shown(bar.value)) {
            let _ = write!(label, " {name} {} {unit};", figure_words(bar.value));
        }
    }
    let height = groups.iter().map(|group| HEADING + names.iter().zip(&group.bars).map(|_| BAR.0).sum::<f64>()).sum();
    let behind = values().filter(|v| shown(*v)).map(|v| width(&figure_words(v))).fold(0.0, f64::max);
    let mut plot = Plot::new(&label, names.iter().map(String::as_str), scale, height, behind);
    plot.axis(&if log { format!("{unit}, logarithmic") } else { unit.to_owned() });
    let mut y = 0.0;
    for group in groups {
        plot.svg.text("group", (4.0, y + HEADING - 7.0), Anchor::Start, &cut(&group.name, WIDTH - 8.0));
        y += HEADING;
        for (i, (name, bar)) in names.iter().zip(&group.bars).enumerate() {
            let middle = y + BAR.0 / 2.0;
            plot.name(name, middle);
            let at = if shown(bar.value) {
                let range = bar.range.filter(|(least, most)| shown(*least) && shown(*most));
                let words = match range {
                    Some((least, most)) => {
                        let (value, least, most) = (figure_words(bar.value), figure_words(least), figure_words(most));
                        format!("{}, {name}: {value} {unit} ({least} to {most})", group.name)
                    }
                    None => format!("{}, {name}: {} {unit}", group.name, figure_words(bar.value)),
                };
                let corner = (plot.left, middle - BAR.1 / 2.0);
                let to = plot.across(bar.value);
                plot.svg.rect(&format!("bar {}", colour(i)), corner, (to - plot.left, BAR.1), &words);
                let end = plot.whisker(range, middle);
                (to.max(end), figure_words(bar.value))
            } else {
                (plot.left, "not measured".to_owned())
            };
            plot.svg.text("value", (at.0 + GAP, middle + 4.0), Anchor::Start, &at.1);
            y += BAR.0;
        }
    }
    Some(plot.svg.finish())
}

struct Plot {
    svg: Svg,
    scale: Scale,
    left: f64,
    right: f64,
    bottom: f64,
}

impl Plot {
    /// `behind`: how wide the figures behind the bars are.
    fn new<'a>(label: &str, names: impl Iterator<Item = &'a str>, scale: Scale, height: f64, behind: f64) -> Self {
        let left = names.map(width).fold(0.0, f64::max).min(NAMES) + 16.0;
        let svg = Svg::new(WIDTH, height + BOTTOM, label);
        Self { svg, scale, left, right: WIDTH - behind - GAP - 6.0, bottom: height }
    }

    fn across(&self, figure: f64) -> f64 {
        self.left + self.scale.at(figure).unwrap_or(0.0) * (self.right - self.left)
    }

    fn axis(&mut self, unit: &str) {
        for (at, label) in self.scale.ticks.clone() {
            let x = self.across(at);
            self.svg.line("grid", (x, 0.0), (x, self.bottom + 4.0));
            self.svg.text("tick", (x, self.bottom + 17.0), Anchor::Middle, &label);
        }
        self.svg.line("axis", (self.left, 0.0), (self.left, self.bottom));
        self.svg.text("unit", (self.right, self.bottom + 34.0), Anchor::End, unit);
    }

    fn name(&mut self, name: &str, middle: f64) {
        self.svg.text("tick", (self.left - 8.0, middle + 4.0), Anchor::End, &cut(name, NAMES));
    }

    /// From the least to the most; says where it ends.
    fn whisker(&mut self, range: Option<(f64, f64)>, middle: f64) -> f64 {
        let Some((least, most)) = range else { return 0.0 };
        let (from, to) = (self.across(least), self.across(most));
        self.svg.line("whisker", (from, middle), (to, middle));
        for x in [from, to] {
            self.svg.line("whisker", (x, middle - 3.0), (x, middle + 3.0));
        }
        to
    }
}
