//! Results as pages: what `--html FILE` writes.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::bench::args::Compared;
use crate::bench::result::{Beside, Compare, Contestant, Idle, Latency, Machine, Measured, Run, WorkloadResult};
use crate::bench::table::words;
use crate::ladder::report::Ladder;
use crate::page::{Bar, Chart, Event, Group, Page, Part, Plot, Section, Series, Stack, Table};
use crate::report::Report;

/// What can be shown on a page.
pub trait Shown {
    /// The page.
    fn page(&self) -> Page;
}

/// Writes the page into a file, if one was asked for.
///
/// # Errors
/// If it can't be written.
pub fn write(shown: &impl Shown, file: Option<&Path>) -> Result<()> {
    let Some(file) = file else { return Ok(()) };
    fs::write(file, shown.page().html()).with_context(|| format!("--html {}", file.display()))
}

fn chart(title: impl Into<String>, plot: Plot) -> Part {
    Part::Chart(Chart { title: title.into(), plot })
}

fn percentiles<'a>(series: impl Iterator<Item = (&'a str, &'a Latency)>) -> Plot {
    let series = series.map(|(name, latency)| Series { name: name.into(), points: latency.curve.clone() });
    Plot::Percentiles { unit: "µs".into(), log: true, series: series.collect() }
}

fn machine(machine: &Machine) -> Vec<(String, String)> {
    let Machine { cpus, processor, kernel, memory_bytes } = machine;
    [
        ("machine", format!("{cpus} CPUs ({processor}), {} GiB", memory_bytes >> 30)),
        ("kernel", format!("Linux {kernel}")),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into()
}

fn strings<const N: usize>(words: [&str; N]) -> Vec<String> {
    words.map(str::to_owned).into()
}

/// A row of figures, the first cell a name.
fn figures(name: &str, measured: &Measured) -> Vec<String> {
    let Some(main) = measured.write.as_ref().or(measured.read.as_ref()) else {
        return [&[name][..], &["–"; 7]].concat().into_iter().map(str::to_owned).collect();
    };
    let cost = measured.cpu.as_ref().map_or("–".to_owned(), |cpu| format!("{:.1}", cpu.s_per_gb));
    let latencies = [main.p50_us, main.p90_us, main.p99_us, main.p999_us].map(|us| format!("{us:.1}"));
    let rest = [format!("{:.0}", measured.iops), format!("{:.1}", measured.mb_per_s), cost];
    std::iter::once(name.to_owned()).chain(latencies).chain(rest).collect()
}

const COLUMNS: [&str; 8] = ["", "p50 µs", "p90 µs", "p99 µs", "p99.9 µs", "IOPS", "MB/s", "CPU s/GB"];

fn name_of<'a>(contestants: &'a [Contestant], key: &'a str) -> &'a str {
    contestants.iter().find(|contestant| contestant.key == key).map_or(key, |contestant| contestant.name)
}

impl Shown for Run {
    fn page(&self) -> Page {
        let sections = self.jobs.iter().map(|measured| {
            let kinds = [("writes", &measured.write), ("reads", &measured.read), ("flushes", &measured.flush)];
            let kinds = kinds.into_iter().filter_map(|(kind, latency)| Some((kind, latency.as_ref()?)));
            let points = measured.series.iter().map(|point| (point.second, point.mb_per_s)).collect();
            let throughput = Plot::Timeline {
                unit: "MB/s".into(),
                series: vec![Series { name: self.target.clone(), points }],
                events: Vec::new(),
            };
            let rows = vec![figures(&measured.job.name, measured)];
            Section {
                heading: measured.job.name.clone(),
                text: words(&measured.job),
                parts: vec![
                    Part::Table(Table { caption: String::new(), head: strings(COLUMNS), rows }),
                    chart("Latency by percentile", percentiles(kinds)),
                    chart("Throughput over time", throughput),
                ],
            }
        });
        Page {
            title: format!("Load on {}", self.target),
            subtitle: "Every completed write was read back.".into(),
            facts: vec![
                ("target".into(), format!("{} bytes, of which {} were used", self.target_bytes, self.span_bytes)),
                ("read back".into(), format!("{} bytes", self.checked_bytes)),
            ],
            sections: sections.collect(),
        }
    }
}

impl Shown for Compared {
    fn page(&self) -> Page {
        match self {
            Self::One(compare) => comparison("Comparison", compare, sections(compare, "")),
            Self::Mission(mission) => {
                let mut all = sections(&mission.burst, "Burst: ");
                all.extend(sections(&mission.steady, "Steady: "));
                comparison("The mission's workloads", &mission.burst, all)
            }
            Self::Idle(idle) => at_rest(idle),
        }
    }
}

fn comparison(title: &str, compare: &Compare, sections: Vec<Section>) -> Page {
    let mut facts = machine(&compare.machine);
    facts.push(("rounds".into(), format!("{}, in turns, by the same client", compare.rounds)));
    facts.push(("staging".into(), format!("{} MiB a node", compare.staging_bytes >> 20)));
    facts.push(("read back".into(), format!("{} MiB", compare.checked_bytes >> 20)));
    let copies = |contestant: &Contestant| format!("{}: {}", contestant.name, contestant.copies);
    let subtitle = compare.contestants.iter().map(copies).collect::<Vec<_>>().join(" · ");
    Page { title: title.into(), subtitle, facts, sections }
}

fn sections(compare: &Compare, prefix: &str) -> Vec<Section> {
    let Compare { contestants, workloads, .. } = compare;
    let names: Vec<String> = contestants.iter().map(|contestant| contestant.name.to_owned()).collect();
    let groups = workloads.iter().map(|workload| {
        let bar = |contestant: &Contestant| {
            let slices = workload.rows.iter().find(|row| row.key == contestant.key);
            let main = slices.and_then(|row| row.all.write.as_ref().or(row.all.read.as_ref()));
            let range = slices.and_then(|row| {
                let least = row.slice_p50_us.iter().copied().min_by(f64::total_cmp)?;
                Some((least, row.slice_p50_us.iter().copied().max_by(f64::total_cmp)?))
            });
            Bar { value: main.map_or(f64::NAN, |latency| latency.p50_us), range }
        };
        Group { name: words(&workload.job), bars: contestants.iter().map(bar).collect() }
    });
    let plot = Plot::Groups { unit: "µs".into(), log: true, names, groups: groups.collect() };
    let overview = Section {
        heading: format!("{prefix}medians"),
        text: "Median latency, with the least and the greatest median of a slice.".into(),
        parts: vec![chart("Median latency", plot)],
    };
    std::iter::once(overview)
        .chain(workloads.iter().map(|workload| workload_section(workload, contestants, prefix)))
        .collect()
}

fn workload_section(workload: &WorkloadResult, contestants: &[Contestant], prefix: &str) -> Section {
    let rows = workload.rows.iter().map(|row| figures(name_of(contestants, row.key), &row.all)).collect();
    let curves = workload
        .rows
        .iter()
        .filter_map(|row| Some((name_of(contestants, row.key), row.all.write.as_ref().or(row.all.read.as_ref())?)));
    let mut parts = vec![
        Part::Table(Table { caption: String::new(), head: strings(COLUMNS), rows }),
        chart("Latency by percentile", percentiles(curves)),
    ];
    if !workload.beside_ours.is_empty() {
        let row = |beside: &Beside| {
            let ratio = |ratio: &crate::bench::result::Ratio| {
                format!("{:.2} ({:.2} to {:.2})", ratio.median, ratio.least, ratio.most)
            };
            let verdict = if beside.is_result { "" } else { "not a result: the rounds disagree" };
            vec![
                name_of(contestants, beside.key).to_owned(),
                ratio(&beside.p50),
                ratio(&beside.iops),
                verdict.to_owned(),
            ]
        };
        parts.push(Part::Table(Table {
            caption: "Slice by slice; above 1 ours is the better one".into(),
            head: strings(["", "their p50 / ours", "our IOPS / theirs", ""]),
            rows: workload.beside_ours.iter().map(row).collect(),
        }));
    }
    Section { heading: format!("{prefix}{}", workload.job.name), text: words(&workload.job), parts }
}

fn at_rest(idle: &Idle) -> Page {
    let row = |(name, percent): &(String, f64)| vec![name.clone(), format!("{percent:.2}")];
    let mut rows: Vec<Vec<String>> = idle.percent.iter().map(row).collect();
    rows.push(vec!["all".into(), format!("{:.2}", idle.total_percent)]);
    Page {
        title: "A pair and its client at rest".into(),
        subtitle: format!("CPU time in {:.0} s without a request", idle.seconds),
        facts: machine(&idle.machine),
        sections: vec![Section {
            heading: "CPU time".into(),
            text: String::new(),
            parts: vec![Part::Table(Table { caption: String::new(), head: strings(["", "% of one core"]), rows })],
        }],
    }
}

impl Shown for Ladder {
    fn page(&self) -> Page {
        let stages: Vec<String> = self
            .sizes
            .first()
            .map(|size| size.rungs.iter().map(|rung| rung.name.to_owned()).collect())
            .unwrap_or_default();
        let bars: Vec<Stack> = self
            .sizes
            .iter()
            .map(|size| Stack {
                name: format!("{} bytes", size.bytes),
                parts: size.rungs.iter().map(|rung| rung.mean_us).collect(),
            })
            .collect();
        let stacks = |shares| Plot::Stacks { unit: "µs".into(), shares, stages: stages.clone(), bars: bars.clone() };
        let what = self.sizes.first().map(|size| size.rungs.iter()).into_iter().flatten();
        let legend = what.map(|rung| vec![rung.name.to_owned(), rung.what.to_owned()]).collect();
        let floors = self.sizes.iter().map(|size| {
            let links = size.rungs.iter().find(|rung| rung.name == "links").map_or(f64::NAN, |rung| rung.p50_us);
            vec![
                format!("{} bytes", size.bytes),
                format!("{:.1}", size.whole.p50_us),
                format!("{:.1}", size.whole.p99_us),
                format!("{links:.1}"),
                format!("{:.1}", size.links_floor_us),
            ]
        });
        Page {
            title: "Where the microseconds of a synchronous write go".into(),
            subtitle: "One write at a time, from the caller's write to its return".into(),
            facts: vec![
                ("fabric".into(), self.fabric.clone()),
                ("payload CRCs".into(), if self.integrity { "yes" } else { "no" }.into()),
                ("polling".into(), format!("{} µs at most before sleeping", self.spin_us)),
            ],
            sections: vec![
                Section {
                    heading: "The ladder".into(),
                    text: "Means without the slowest hundredth of the writes: they add up to the whole.".into(),
                    parts: vec![chart("Mean time by step", stacks(false)), chart("Shares of each write", stacks(true))],
                },
                Section {
                    heading: "The steps".into(),
                    text: String::new(),
                    parts: vec![Part::Table(Table {
                        caption: String::new(),
                        head: strings(["step", "what happens in it"]),
                        rows: legend,
                    })],
                },
                Section {
                    heading: "The links and their floor".into(),
                    text: "The raw hops of the same fabric, without the protocol, are what the links' step can't go below.".into(),
                    parts: vec![Part::Table(Table {
                        caption: String::new(),
                        head: strings(["write", "whole p50 µs", "whole p99 µs", "links p50 µs", "floor µs"]),
                        rows: floors.collect(),
                    })],
                },
            ],
        }
    }
}

impl Shown for Report {
    fn page(&self) -> Page {
        let events = self.events.iter().map(|(at, label)| Event { at: *at, label: label.clone() }).collect();
        let series = vec![Series { name: "TwinSAN".into(), points: self.timeline.clone() }];
        let bar = |f: Option<&crate::workload::Figures>| Bar { value: f.map_or(f64::NAN, |f| f.p50_us), range: None };
        let groups = self
            .workloads
            .iter()
            .enumerate()
            .map(|(i, ours)| Group { name: ours.name.into(), bars: vec![bar(Some(ours)), bar(self.disk.get(i))] });
        let medians = Plot::Groups {
            unit: "µs".into(),
            log: true,
            names: strings(["TwinSAN, two copies in RAM", "the disk, O_DIRECT|O_DSYNC"]),
            groups: groups.collect(),
        };
        let pauses: Vec<String> = self.pause_ms.iter().map(|ms| format!("{ms:.0} ms")).collect();
        Page {
            title: "The demo".into(),
            subtitle: "Two nodes, a client, three workloads, the primary killed twice, and every block read back"
                .into(),
            facts: vec![
                ("writes completed".into(), self.writes_completed.to_string()),
                ("writes lost".into(), self.writes_lost.to_string()),
                ("pauses".into(), pauses.join(", ")),
            ],
            sections: vec![
                Section {
                    heading: "Throughput".into(),
                    text: "Payload that completed, in steps of 100 ms; what is between the workloads is left out."
                        .into(),
                    parts: vec![chart("Throughput over time", Plot::Timeline { unit: "MB/s".into(), series, events })],
                },
                Section {
                    heading: "The race".into(),
                    text: "Synchronous writes, one at a time.".into(),
                    parts: vec![chart("Median latency", medians)],
                },
            ],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::Figures;

    #[test]
    fn a_demos_page_shows_its_failovers_and_its_race() {
        let figures = |p50_us| Figures {
            name: "10 KB",
            bytes: 10_240,
            count: 9,
            p50_us,
            p99_us: 1.0,
            p999_us: 1.0,
            max_us: 1.0,
            mb_per_s: 1.0,
        };
        let report = Report {
            workloads: vec![figures(21.0)],
            disk: vec![figures(84.0)],
            timeline: vec![(0.0, 300.0), (0.1, 20.0), (0.2, 310.0)],
            events: vec![(0.1, "san1 killed".into())],
            pause_ms: vec![3.0],
            ..Report::default()
        };
        let html = report.page().html();
        for words in ["san1 killed", "3 ms", "84", "O_DIRECT"] {
            assert!(html.contains(words), "{words}");
        }
    }

    #[test]
    fn nothing_measured_is_said_and_not_drawn() {
        let row = figures("x", &Measured { write: None, read: None, ..empty() });
        assert_eq!(row.len(), COLUMNS.len());
        assert!(row[1..].iter().all(|cell| cell == "–"), "{row:?}");
        let page = Ladder {
            fabric: "shm".into(),
            integrity: true,
            spin_us: 100,
            primary: "san1".into(),
            rounds: 0,
            sizes: Vec::new(),
        }
        .page();
        assert!(page.html().contains("Where the microseconds"));
    }

    fn empty() -> Measured {
        Measured {
            job: crate::bench::job::Job::writes("x", 4096, 4096, 1),
            requests: 0,
            bytes: 0,
            seconds: 0.0,
            iops: 0.0,
            mb_per_s: 0.0,
            read: None,
            write: None,
            flush: None,
            series: Vec::new(),
            cpu: None,
        }
    }
}
