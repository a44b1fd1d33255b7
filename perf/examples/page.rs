//! A page with every kind of plot, from made-up figures: `cargo run -p twinsan-perf --example page > page.html`.

use twinsan_perf::page::{Bar, Chart, Event, Group, Page, Part, Plot, Section, Series, Stack, Table};

const CONTESTANTS: [&str; 5] = [
    "TwinSAN",
    "nbdkit memory (one copy)",
    "two nbdkits, written by the client",
    "qemu quorum over two nbdkits",
    "the disk",
];

fn main() {
    print!("{}", page().html());
}

fn page() -> Page {
    Page {
        title: "An example of a report".into(),
        subtitle: "Every kind of plot, from figures that nobody has measured.".into(),
        facts: [("machine", "2 cores, 24 GiB"), ("kernel", "Linux 6.1"), ("figures", "made up")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into(),
        sections: vec![
            section("Latency", Plot::Percentiles { unit: "µs".into(), log: true, series: percentiles() }),
            section("Over time", Plot::Timeline { unit: "MB/s".into(), series: throughput(), events: events() }),
            section("Where the time goes", ladder(false)),
            section("Where the time goes, in shares", ladder(true)),
            section("Workloads", workloads(true)),
            section("The same on a plain axis", workloads(false)),
            table(),
        ],
    }
}

fn section(heading: &str, plot: Plot) -> Section {
    let chart = Chart { title: format!("{heading} of synchronous writes of 4 KiB"), plot };
    Section {
        heading: heading.into(),
        text: "What is shown here, and what it says.\n\nAnd what it does not say.".into(),
        parts: vec![Part::Chart(chart)],
    }
}

fn percentiles() -> Vec<Series> {
    let curve = |(i, name): (usize, &str)| {
        let scale = 22.0 * 1.9_f64.powi(i32::try_from(i).unwrap_or(0));
        let point = |n: u32| {
            let nines = f64::from(n) / 25.0;
            (100.0 - 100.0 * 10_f64.powf(-nines), scale * (1.0 + 0.1 * nines + 0.02 * nines.powi(4)))
        };
        Series { name: name.into(), points: (0..=105).map(point).collect() }
    };
    CONTESTANTS.into_iter().enumerate().map(curve).collect()
}

fn throughput() -> Vec<Series> {
    let line = |name: &str, level: f64, every: u32| Series {
        name: name.into(),
        points: (0..600_u32)
            .map(|i| {
                let dip = if i % 200 > 196 { 0.0 } else { 1.0 };
                let wave = 1.0 + 0.08 * (f64::from(i) / 9.0).sin() + 0.05 * (f64::from(i * i % 97) / 97.0);
                let missing = if i / 50 == every { f64::NAN } else { 1.0 };
                (f64::from(i) / 10.0, level * wave * dip * missing)
            })
            .collect(),
    };
    vec![line("TwinSAN", 410.0, 99), line("the disk", 95.0, 7)]
}

fn events() -> Vec<Event> {
    [
        (19.7, "primary killed"),
        (20.4, "san1 joins"),
        (39.7, "primary killed"),
        (40.1, "san2 joins"),
        (59.0, "switchover, asked for"),
    ]
    .map(|(at, label)| Event { at, label: label.into() })
    .into()
}

fn ladder(shares: bool) -> Plot {
    let bar = |name: &str, parts: [f64; 6]| Stack { name: name.into(), parts: parts.into() };
    Plot::Stacks {
        unit: "µs".into(),
        shares,
        stages: ["NBD in", "payload to both nodes", "secondary", "ACK", "primary", "completion"]
            .map(String::from)
            .into(),
        bars: vec![
            bar("4 KiB", [4.2, 5.1, 3.0, 2.8, 2.9, 3.3]),
            bar("64 KiB", [11.0, 19.3, 6.1, 2.8, 6.0, 3.3]),
            bar("1 MiB", [120.0, 204.0, 48.0, 3.1, 47.5, 4.0]),
        ],
    }
}

fn workloads(log: bool) -> Plot {
    let group = |name: &str, scale: f64| Group {
        name: name.into(),
        bars: (0..5_u32)
            .map(|i| {
                let value = if i == 3 && scale > 9.0 { f64::NAN } else { scale * 21.0 * f64::from(1 + i * i) };
                Bar { value, range: Some((value * 0.9, value * 1.25)) }
            })
            .collect(),
    };
    Plot::Groups {
        unit: "µs".into(),
        log,
        names: CONTESTANTS.map(String::from).into(),
        groups: vec![group("4 KiB, one at a time", 1.0), group("4 KiB, 32 at a time", 4.7), group("1 MiB", 16.0)],
    }
}

fn table() -> Section {
    let row = |name: &str, cells: [&str; 5]| [&[name][..], &cells].concat().into_iter().map(String::from).collect();
    let rows = vec![
        row("TwinSAN", ["21.2", "28.0", "61", "144", "1.9"]),
        row("the disk, O_DIRECT|O_DSYNC", ["1,103", "1,980", "4,100", "9,321", "0.4"]),
    ];
    let head = ["4 KiB", "p50 µs", "p90 µs", "p99 µs", "p99.9 µs", "CPU s/GB"].map(String::from).into();
    let table = Table { caption: "Synchronous writes".into(), head, rows };
    let note = "Others used 31 % of the machine meanwhile: look at the spread.";
    Section { heading: "Figures".into(), text: String::new(), parts: vec![Part::Table(table), Part::Note(note.into())] }
}
