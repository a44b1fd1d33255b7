//! One HTML file with tables and plots, from plain data: no script, nothing from elsewhere, for light, dark and print.
//!
//! Figures that are not finite, or below zero, are left out: a plot shows what was measured.

mod bars;
mod lines;
mod markup;
mod scale;
#[cfg(test)]
mod wellformed;

use std::fmt::Write as _;

use self::markup::escape;

/// A whole page.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Page {
    /// Its heading, and the browser's tab.
    pub title: String,
    /// Below it: what this is, in a sentence.
    pub subtitle: String,
    /// What the figures come from: machine, date, versions.
    pub facts: Vec<(String, String)>,
    /// From top to bottom.
    pub sections: Vec<Section>,
}

/// A part of a page with a heading.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Section {
    /// The heading.
    pub heading: String,
    /// What is shown and what it says; empty lines part paragraphs.
    pub text: String,
    /// From top to bottom.
    pub parts: Vec<Part>,
}

/// Something in a section.
#[derive(Clone, Debug, PartialEq)]
pub enum Part {
    /// Rows of words and figures.
    Table(Table),
    /// A plot.
    Chart(Chart),
    /// A remark that must not be overlooked.
    Note(String),
}

/// Rows of words and figures. The first column is words, and stands left; the others stand right.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Table {
    /// What the table is of; may be empty.
    pub caption: String,
    /// The columns' names.
    pub head: Vec<String>,
    /// As wide as the head.
    pub rows: Vec<Vec<String>>,
}

/// A plot with its title.
#[derive(Clone, Debug, PartialEq)]
pub struct Chart {
    /// What is plotted.
    pub title: String,
    /// The plot.
    pub plot: Plot,
}

/// What can be plotted.
#[derive(Clone, Debug, PartialEq)]
pub enum Plot {
    /// Latency by percentile, on HDR plots' axis: 90, 99 and 99.9 % are equally far apart.
    Percentiles {
        /// Of the latency: `µs`.
        unit: String,
        /// The latency's axis is logarithmic.
        log: bool,
        /// Points (percentile, latency) by percentile. 100 % is infinitely far away, and left out.
        series: Vec<Series>,
    },
    /// Something over time.
    Timeline {
        /// Of what is plotted: `MB/s`.
        unit: String,
        /// Points (seconds, figure) by time. Where one is left out, the line is broken.
        series: Vec<Series>,
        /// Vertical lines.
        events: Vec<Event>,
    },
    /// Horizontal bars of stages laid end to end.
    Stacks {
        /// Of all figures.
        unit: String,
        /// All bars are equally long, and show shares of their sums; the figures at them are the figures all the same. For
        /// bars of which one is many times as long as another.
        shares: bool,
        /// The stages' names, in their order.
        stages: Vec<String>,
        /// From top to bottom.
        bars: Vec<Stack>,
    },
    /// Groups of horizontal bars with their figures.
    Groups {
        /// Of all figures.
        unit: String,
        /// The axis is logarithmic: then lengths of bars don't compare, only their ends.
        log: bool,
        /// The bars' names, the same in each group.
        names: Vec<String>,
        /// From top to bottom.
        groups: Vec<Group>,
    },
}

/// A line.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Series {
    /// In the legend.
    pub name: String,
    /// (x, y), x rising.
    pub points: Vec<(f64, f64)>,
}

/// Something that happened.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Event {
    /// When, on the plot's time axis.
    pub at: f64,
    /// What.
    pub label: String,
}

/// A bar of stages.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Stack {
    /// Left of the bar.
    pub name: String,
    /// One figure for each stage.
    pub parts: Vec<f64>,
}

/// Bars that are compared.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Group {
    /// Above the bars.
    pub name: String,
    /// One for each name.
    pub bars: Vec<Bar>,
}

/// A figure, and how it spread.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Bar {
    /// The figure; not finite: it was not measured, which the plot says.
    pub value: f64,
    /// Least and most, as a whisker.
    pub range: Option<(f64, f64)>,
}

impl Page {
    /// The file. It is well-formed XML too.
    #[must_use]
    pub fn html(&self) -> String {
        let mut out = String::from("<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n");
        out.push_str("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n");
        out.push_str("<meta name=\"color-scheme\" content=\"light dark\"/>\n");
        // The browser's word that nothing is fetched.
        out.push_str("<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; ");
        out.push_str("style-src 'unsafe-inline'\"/>\n");
        let _ = write!(
            out,
            "<title>{}</title>\n<style>\n{}</style>\n",
            escape(&self.title),
            include_str!("page/style.css")
        );
        let _ = write!(out, "</head>\n<body>\n<main>\n<header>\n<h1>{}</h1>\n", escape(&self.title));
        if !self.subtitle.is_empty() {
            let _ = writeln!(out, "<p class=\"subtitle\">{}</p>", escape(&self.subtitle));
        }
        if !self.facts.is_empty() {
            out.push_str("<dl>\n");
            for (name, value) in &self.facts {
                let _ = writeln!(out, "<div><dt>{}</dt><dd>{}</dd></div>", escape(name), escape(value));
            }
            out.push_str("</dl>\n");
        }
        out.push_str("</header>\n");
        self.contents(&mut out);
        for (i, section) in self.sections.iter().enumerate() {
            section.html(i, &mut out);
        }
        out.push_str("</main>\n</body>\n</html>\n");
        out
    }

    fn contents(&self, out: &mut String) {
        if self.sections.len() < 3 {
            return;
        }
        out.push_str("<nav aria-label=\"Contents\"><ol>\n");
        for (i, section) in self.sections.iter().enumerate() {
            let _ = writeln!(out, "<li><a href=\"#section-{i}\">{}</a></li>", escape(&section.heading));
        }
        out.push_str("</ol></nav>\n");
    }
}

impl Section {
    fn html(&self, i: usize, out: &mut String) {
        let _ = write!(out, "<section id=\"section-{i}\">\n<h2>{}</h2>\n", escape(&self.heading));
        for paragraph in self.text.split("\n\n").filter(|text| !text.trim().is_empty()) {
            let _ = writeln!(out, "<p>{}</p>", escape(paragraph.trim()));
        }
        for part in &self.parts {
            match part {
                Part::Table(table) => table.html(out),
                Part::Chart(chart) => chart.html(out),
                Part::Note(text) => drop(writeln!(out, "<p class=\"note\">{}</p>", escape(text))),
            }
        }
        out.push_str("</section>\n");
    }
}

impl Table {
    fn html(&self, out: &mut String) {
        // A wide table scrolls by itself, by keyboard too.
        out.push_str("<div class=\"scroll\" tabindex=\"0\"><table>\n");
        if !self.caption.is_empty() {
            let _ = writeln!(out, "<caption>{}</caption>", escape(&self.caption));
        }
        out.push_str("<thead><tr>");
        for name in &self.head {
            let _ = write!(out, "<th scope=\"col\">{}</th>", escape(name));
        }
        out.push_str("</tr></thead>\n<tbody>\n");
        for row in &self.rows {
            out.push_str("<tr>");
            for (i, cell) in row.iter().enumerate() {
                let cell = escape(cell);
                let _ =
                    if i == 0 { write!(out, "<th scope=\"row\">{cell}</th>") } else { write!(out, "<td>{cell}</td>") };
            }
            out.push_str("</tr>\n");
        }
        out.push_str("</tbody>\n</table></div>\n");
    }
}

impl Chart {
    fn html(&self, out: &mut String) {
        let _ = write!(out, "<figure>\n<figcaption>{}</figcaption>\n", escape(&self.title));
        let drawn = match &self.plot {
            Plot::Percentiles { unit, log, series } => lines::percentiles(&self.title, unit, *log, series),
            Plot::Timeline { unit, series, events } => lines::timeline(&self.title, unit, series, events),
            Plot::Stacks { unit, shares, stages, bars } => bars::stacks(&self.title, unit, *shares, stages, bars),
            Plot::Groups { unit, log, names, groups } => bars::groups(&self.title, unit, *log, names, groups),
        };
        out.push_str(&drawn.unwrap_or_else(|| "<p class=\"none\">No figures.</p>\n".to_owned()));
        out.push_str("</figure>\n");
    }
}

/// What is plotted at all.
fn is_figure(value: f64) -> bool {
    value.is_finite() && value >= 0.0
}

#[cfg(test)]
mod tests;
