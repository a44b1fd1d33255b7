use super::wellformed::wellformed;
use super::*;

fn page(plot: Plot) -> String {
    let chart = Part::Chart(Chart { title: "A <chart> & \"more\"".into(), plot });
    let section = Section { heading: "One".into(), text: "First.\n\nSecond.".into(), parts: vec![chart] };
    Page { title: "T".into(), sections: vec![section], ..Page::default() }.html()
}

fn series(name: &str, points: &[(f64, f64)]) -> Series {
    Series { name: name.into(), points: points.into() }
}

fn percentiles(log: bool, points: &[(f64, f64)]) -> Plot {
    Plot::Percentiles { unit: "µs".into(), log, series: vec![series("a", points)] }
}

fn timeline(points: &[(f64, f64)], events: Vec<Event>) -> Plot {
    Plot::Timeline { unit: "MB/s".into(), series: vec![series("a<b", points)], events }
}

fn stacks(parts: &[f64]) -> Plot {
    let stages = vec!["in".into(), "out".into()];
    Plot::Stacks {
        unit: "µs".into(),
        shares: false,
        stages,
        bars: vec![Stack { name: "4 KiB".into(), parts: parts.into() }],
    }
}

fn groups(log: bool, bars: &[Bar]) -> Plot {
    let groups = vec![Group { name: "writes".into(), bars: bars.into() }];
    Plot::Groups { unit: "µs".into(), log, names: vec!["ours".into(), "theirs".into()], groups }
}

fn bar(value: f64) -> Bar {
    Bar { value, range: Some((value, value * 2.0)) }
}

/// All figures of an attribute.
fn attributes(html: &str, name: &str) -> Vec<f64> {
    let name = format!(" {name}=\"");
    html.split(&name).skip(1).filter_map(|rest| rest.split('"').next()?.parse().ok()).collect()
}

fn path(html: &str) -> Vec<&str> {
    let own = html.split_once("role=\"img\"").expect("a plot").1;
    own.split(" d=\"").skip(1).map(|rest| rest.split('"').next().unwrap()).collect()
}

#[test]
fn every_word_is_escaped() {
    let nasty = || "<script>\"&'".to_owned();
    let table = Table { caption: nasty(), head: vec![nasty()], rows: vec![vec![nasty(), nasty()]] };
    let bars = vec![Stack { name: nasty(), parts: vec![1.0] }];
    let stacks = Plot::Stacks { unit: nasty(), shares: true, stages: vec![nasty()], bars };
    let lines = vec![Series { name: nasty(), points: vec![(1.0, 1.0), (2.0, 1.0)] }];
    let events = vec![Event { at: 1.0, label: nasty() }];
    let timeline = Plot::Timeline { unit: nasty(), series: lines.clone(), events };
    let percentiles = Plot::Percentiles { unit: nasty(), log: true, series: lines };
    let bars = vec![Bar { value: 1.0, range: None }];
    let group = Group { name: nasty(), bars };
    let groups = Plot::Groups { unit: nasty(), log: false, names: vec![nasty()], groups: vec![group] };
    let charts = [stacks, timeline, percentiles, groups].map(|plot| Part::Chart(Chart { title: nasty(), plot }));
    let mut parts = vec![Part::Table(table), Part::Note(nasty())];
    parts.extend(charts);
    let section = Section { heading: nasty(), text: nasty(), parts };
    let sections = vec![section.clone(), section.clone(), section];
    let page = Page { title: nasty(), subtitle: nasty(), facts: vec![(nasty(), nasty())], sections }.html();
    assert_eq!(wellformed(&page), Ok(()));
    assert!(!page.contains("<script"), "somebody's words are a tag");
}

#[test]
fn nothing_comes_from_elsewhere() {
    let page = page(percentiles(true, &[(0.0, 10.0), (99.0, 20.0)]));
    for word in ["http://", "https://", "url(", "@import", "<script", "<link", "<img", "src="] {
        assert!(!page.contains(word), "{word}");
    }
}

#[test]
fn plots_without_figures_say_so() {
    let nan = f64::NAN;
    let plots = [
        Plot::Percentiles { unit: "µs".into(), log: true, series: vec![] },
        percentiles(false, &[]),
        percentiles(true, &[(50.0, 0.0), (100.0, 5.0), (nan, 5.0), (-1.0, 5.0), (50.0, f64::INFINITY), (9.0, -1.0)]),
        Plot::Timeline { unit: "µs".into(), series: vec![], events: vec![Event { at: 1.0, label: "e".into() }] },
        timeline(&[(nan, 1.0), (1.0, nan), (-1.0, 1.0)], vec![]),
        Plot::Stacks {
            unit: "µs".into(),
            shares: false,
            stages: vec![],
            bars: vec![Stack { name: "x".into(), parts: vec![1.0] }],
        },
        stacks(&[nan, -3.0]),
        Plot::Groups { unit: "µs".into(), log: true, names: vec![], groups: vec![] },
        groups(true, &[bar(0.0), bar(nan)]),
        groups(false, &[bar(f64::INFINITY)]),
        groups(false, &[]),
    ];
    for plot in plots {
        let page = page(plot.clone());
        assert_eq!(wellformed(&page), Ok(()), "{plot:?}");
        assert!(page.contains("No figures.") && !page.contains("role=\"img\""), "{plot:?}");
    }
}

#[test]
fn what_is_not_finite_is_left_out() {
    let bad = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -1.0];
    for bad in bad {
        let event = |at| Event { at, label: "x".into() };
        let plots = [
            percentiles(false, &[(0.0, 1.0), (50.0, bad), (bad, 2.0), (90.0, 3.0)]),
            timeline(&[(0.0, 1.0), (1.0, bad), (bad, 2.0), (3.0, 3.0)], vec![event(bad), event(2.0)]),
            stacks(&[bad, 3.0]),
            groups(true, &[bar(bad), bar(3.0)]),
            groups(false, &[Bar { value: 1.0, range: Some((bad, 3.0)) }, bar(3.0)]),
        ];
        for plot in plots {
            let page = page(plot.clone());
            assert_eq!(wellformed(&page), Ok(()));
            assert!(page.contains("role=\"img\""), "{plot:?}");
            for word in ["NaN", "inf"] {
                assert!(!page.split_once("</style>").unwrap().1.contains(word), "{word} in {plot:?}");
            }
        }
    }
}

#[test]
fn a_line_is_broken_where_a_figure_is_missing() {
    let whole = page(timeline(&[(0.0, 1.0), (1.0, 2.0), (2.0, 1.0)], vec![]));
    assert_eq!(path(&whole).len(), 1);
    let broken = page(timeline(&[(0.0, 1.0), (1.0, f64::NAN), (2.0, 1.0), (3.0, 2.0)], vec![]));
    assert_eq!(path(&broken).len(), 2);
}

#[test]
fn percentiles_lie_where_their_nines_say() {
    let html = page(percentiles(false, &[(0.0, 0.0), (90.0, 50.0), (99.0, 100.0), (99.9, 75.0), (100.0, 999.0)]));
    let [drawn] = path(&html)[..] else { panic!("one line: {html}") };
    let points: Vec<(f64, f64)> = drawn
        .trim_start_matches('M')
        .split(" L")
        .map(|point| point.split_once(' ').unwrap())
        .map(|(x, y)| (x.parse().unwrap(), y.parse().unwrap()))
        .collect();
    assert_eq!(points.len(), 4, "100 % is not drawn");
    let nine = points[1].0 - points[0].0;
    assert!(nine > 100.0, "{points:?}");
    for pair in points.windows(2) {
        assert!((pair[1].0 - pair[0].0 - nine).abs() < 0.2, "{points:?}");
    }
    // 0, 50, 100, 75 from an axis up to 100: below is more.
    let down = |i: usize| points[0].1 - points[i].1;
    assert!((down(2) - 2.0 * down(1)).abs() < 0.2 && (down(3) - 1.5 * down(1)).abs() < 0.2, "{points:?}");
    assert!(down(1) > 100.0);
}

#[test]
fn stages_lie_end_to_end() {
    let html = page(stacks(&[10.0, 30.0]));
    let plot = html.split_once("role=\"img\"").unwrap().1;
    let (x, width) = (attributes(plot, "x"), attributes(plot, "width"));
    let bars: Vec<f64> =
        plot.lines().filter(|l| l.contains("<rect class=\"bar")).flat_map(|l| attributes(l, "x")).collect();
    let [first, second] = bars[..] else { panic!("{x:?}") };
    assert!((first + width[0] - second).abs() < 0.2, "{first} + {} is not {second}", width[0]);
    assert!((width[1] - 3.0 * width[0]).abs() < 0.4, "{width:?}");
    assert!(plot.contains(">40 µs</text>") && plot.contains("<title>4 KiB, out: 30 µs</title>"), "{plot}");
}

#[test]
fn shares_are_equally_long_in_all() {
    let stack = |scale: f64| Stack { name: "x".into(), parts: vec![scale, 3.0 * scale] };
    let bars = vec![stack(1.0), stack(1000.0), stack(0.0)];
    let stages = vec!["in".into(), "out".into()];
    let html = page(Plot::Stacks { unit: "µs".into(), shares: true, stages, bars });
    let plot = html.split_once("role=\"img\"").unwrap().1;
    let widths = attributes(plot, "width");
    assert_eq!(widths.len(), 4, "{widths:?}");
    assert_eq!(widths[..2], widths[2..]);
    assert!(plot.contains("<title>x, out: 3,000 µs</title>") && plot.contains(">4,000 µs</text>"), "{plot}");
}

#[test]
fn bars_show_their_figures_and_what_is_missing() {
    let html = page(groups(true, &[bar(12.34), Bar { value: f64::NAN, range: None }]));
    assert!(html.contains(">12.3</text>") && html.contains(">not measured</text>"), "{html}");
    assert!(html.contains("<title>writes, ours: 12.3 µs (12.3 to 24.7)</title>"), "{html}");
}

#[test]
fn nothing_is_drawn_beyond_the_edge() {
    let long = "a name that is far too long for any place that a plot could ever have for it, and goes on";
    let mut events: Vec<Event> = (0..40_u8).map(|i| Event { at: f64::from(i), label: long.into() }).collect();
    events.push(Event { at: 39.9, label: "the end".into() });
    let mut named = [
        timeline(&[(0.0, 1e9), (40.0, 2e9)], events),
        percentiles(true, &[(0.0, 1e-3), (99.9999, 1e9)]),
        stacks(&[1e9, 2e9]),
        groups(false, &[bar(1e9), bar(1.0)]),
    ];
    if let Plot::Stacks { bars, .. } = &mut named[2] {
        bars[0].name = long.into();
    }
    if let Plot::Groups { names, groups, .. } = &mut named[3] {
        names[0] = long.into();
        groups[0].name = long.repeat(3);
    }
    for plot in named {
        let html = page(plot);
        let plot = html.split_once("<figcaption>").unwrap().1;
        let plot = &plot[plot.find("<svg viewBox=\"0 0 8").expect("the plot, not its legend")..];
        let height: f64 = plot.split('"').nth(1).unwrap().rsplit(' ').next().unwrap().parse().unwrap();
        for line in plot.lines().filter(|line| line.starts_with("<text")) {
            let words = line.split_once('>').unwrap().1.split_once('<').unwrap().0;
            let (x, y) = (attributes(line, "x")[0], attributes(line, "y")[0]);
            let wide = markup::width(words);
            let begin = match line {
                l if l.contains("\"end\"") => x - wide,
                l if l.contains("\"middle\"") => x - wide / 2.0,
                _ => x,
            };
            assert!(begin >= 0.0 && begin + wide <= 860.0, "{line}: {begin} to {}", begin + wide);
            assert!(y >= 8.0 && y <= height, "{line}");
        }
    }
}

#[test]
fn labels_of_events_don_t_overlap() {
    let events = (0..30_u8).map(|i| Event { at: f64::from(i), label: format!("killed {i}") }).collect();
    let html = page(timeline(&[(0.0, 1.0), (100.0, 2.0)], events));
    let mut rows = std::collections::BTreeMap::<String, Vec<(f64, f64)>>::new();
    for line in html.lines().filter(|line| line.starts_with("<text class=\"label\"")) {
        let words = line.split_once('>').unwrap().1.split_once('<').unwrap().0;
        let (x, y) = (attributes(line, "x")[0], attributes(line, "y")[0]);
        rows.entry(y.to_string()).or_default().push((x, x + markup::width(words)));
    }
    assert_eq!(rows.len(), 4, "{rows:?}");
    for row in rows.values() {
        assert!(row.windows(2).all(|pair| pair[0].1 <= pair[1].0), "{row:?}");
    }
    // Those without a place are told by hovering.
    assert_eq!(html.matches("class=\"event\"").count(), 30);
    assert!(html.contains("<title>killed 29\n29 s</title>"));
}

#[test]
fn sections_are_listed_where_there_are_many() {
    let section = |heading: &str| Section { heading: heading.into(), ..Section::default() };
    let page = |n: usize| Page { sections: vec![section("One"); n], ..Page::default() }.html();
    assert!(!page(2).contains("<nav"));
    assert!(page(3).contains("<a href=\"#section-2\">One</a>") && page(3).contains("<section id=\"section-2\">"));
}
