//! What a write may cost: a file with the counts of each case.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use super::report::{Case, Counts, PAIRS};

/// Of a case that had none.
const TOLERANCE: f64 = 0.08;

/// The file.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Baseline {
    /// What nodes and client talked by.
    pub fabric: String,
    /// Volumes in the case `volumes`.
    pub volumes: usize,
    /// In one run, `full` may be so many times `empty`.
    pub full_over_empty: f64,
    /// In one run, `volumes` may be so many times `one`.
    pub volumes_over_one: f64,
    /// By case, by process. The first ones of [`PAIRS`] have none: what they may cost is said above.
    pub case: BTreeMap<String, Figures>,
}

/// Instructions per write.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Figures {
    /// A count may be above its figure by this share: more than what runs differ by.
    pub tolerance: f64,
    /// `twinsan attach`.
    pub client: f64,
    /// The node that serves.
    pub primary: f64,
    /// The other one.
    pub secondary: f64,
}

impl Figures {
    fn of(self, process: &str) -> f64 {
        match process {
            "client" => self.client,
            "primary" => self.primary,
            _ => self.secondary,
        }
    }
}

impl Baseline {
    /// Reads the file.
    ///
    /// # Errors
    /// If it is not there, or not right; the text says where.
    pub fn load(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
        let baseline: Self = toml::from_str(&text).with_context(|| path.display().to_string())?;
        let Self { full_over_empty, volumes_over_one, .. } = baseline;
        for (name, Figures { tolerance, .. }) in &baseline.case {
            let sound = *tolerance > 0.0 && *tolerance < 1.0;
            ensure!(sound, "{}: case.{name}.tolerance = {tolerance}; write a share like 0.05", path.display());
        }
        for (name, ratio) in [("full_over_empty", full_over_empty), ("volumes_over_one", volumes_over_one)] {
            ensure!(ratio > 1.0, "{}: {name} = {ratio}; write a ratio above 1, like 1.05", path.display());
        }
        Ok(baseline)
    }

    /// The same limits with the figures of a run.
    #[must_use]
    pub fn renewed(&self, counts: &Counts) -> String {
        let mut text = format!(
            "# User instructions per 4 KiB write by NBD, by case and process (docs/performance.md). The gate fails above\n\
             # (1 + tolerance) times a figure. The figures are written by: twinsan-perf count --renew FILE\n\
             fabric = {:?}\nvolumes = {}\nfull_over_empty = {}\nvolumes_over_one = {}\n",
            counts.fabric, counts.volumes, self.full_over_empty, self.volumes_over_one
        );
        for case in bound(counts) {
            let tolerance = self.case.get(case.name).map_or(TOLERANCE, |figures| figures.tolerance);
            let _ = writeln!(text, "\n[case.{}]\ntolerance = {tolerance}", case.name);
            for (name, process) in case.processes() {
                let _ = writeln!(text, "{name} = {:.0}.0", process.per_write.median);
            }
        }
        text
    }

    /// What is not kept, each with its figures. A case that was not counted, or of which the file has no figures, is not
    /// kept either.
    #[must_use]
    pub fn broken(&self, counts: &Counts) -> Vec<String> {
        let mut broken = Vec::new();
        if self.fabric != counts.fabric {
            broken.push(format!("counted over {}, the figures are of {}", counts.fabric, self.fabric));
        }
        if self.volumes != counts.volumes {
            broken.push(format!("counted with {} volumes, the figures are of {}", counts.volumes, self.volumes));
        }
        for name in self.case.keys().filter(|name| counts.case(name).is_none()) {
            broken.push(format!("{name}: not counted"));
        }
        for case in bound(counts) {
            let Some(figures) = self.case.get(case.name) else {
                broken.push(format!("{}: no figures to compare with", case.name));
                continue;
            };
            for (name, process) in case.processes() {
                let (counted, figure) = (process.per_write.median, figures.of(name));
                let limit = figure * (1.0 + figures.tolerance);
                // What is not a number is above every limit.
                if counted.is_nan() || counted > limit {
                    broken.push(format!(
                        "{}, {name}: {counted:.0} instructions per write; {limit:.0} at most ({figure:.0} before)",
                        case.name
                    ));
                }
            }
        }
        self.uneven(counts, &mut broken);
        broken
    }

    fn uneven(&self, counts: &Counts, broken: &mut Vec<String>) {
        for ((much, little), limit) in PAIRS.into_iter().zip([self.full_over_empty, self.volumes_over_one]) {
            let Some(ratios) = counts.growth(much, little) else { continue };
            for (process, ratio) in ["client", "primary", "secondary"].into_iter().zip(ratios) {
                if ratio.is_nan() || ratio > limit {
                    broken.push(format!(
                        "{much}, {process}: {ratio:.3} times the instructions of {little}; {limit:.3} at most"
                    ));
                }
            }
        }
    }

    /// Counts that are so far below their figures that these say nothing any more.
    #[must_use]
    pub fn outdated(&self, counts: &Counts) -> bool {
        counts.cases.iter().filter_map(|case| Some((case, self.case.get(case.name)?))).any(|(case, figures)| {
            let far = |(name, process): (&str, &super::report::Process)| {
                process.per_write.median < figures.of(name) * (1.0 - figures.tolerance)
            };
            case.processes().into_iter().any(far)
        })
    }
}

/// Cases with figures of their own.
fn bound(counts: &Counts) -> impl Iterator<Item = &Case> {
    counts.cases.iter().filter(|case| PAIRS.iter().all(|(much, _)| *much != case.name))
}

#[cfg(test)]
mod tests {
    use super::super::report::tests::counts;
    use super::*;

    const FILE: &str = "fabric = \"shm\"\nvolumes = 8\nfull_over_empty = 1.05\nvolumes_over_one = 1.2\n\
        [case.one]\ntolerance = 0.1\nclient = 100\nprimary = 200.0\nsecondary = 50.0\n";

    fn baseline() -> Baseline {
        toml::from_str(FILE).unwrap()
    }

    #[test]
    fn a_count_above_its_figure_is_told() {
        let baseline = baseline();
        assert_eq!(baseline.broken(&counts(&[("one", [109.0, 219.0, 10.0])])), Vec::<String>::new());
        let broken = baseline.broken(&counts(&[("one", [111.0, 219.0, f64::NAN])]));
        assert_eq!(broken.len(), 2, "{broken:?}");
        assert_eq!(broken[0], "one, client: 111 instructions per write; 110 at most (100 before)");
        assert!(broken[1].starts_with("one, secondary: NaN"));
    }

    #[test]
    fn what_is_missing_is_not_kept() {
        let baseline = baseline();
        assert_eq!(baseline.broken(&counts(&[])), ["one: not counted"]);
        let more = counts(&[("one", [1.0; 3]), ("batch", [1.0; 3])]);
        assert_eq!(baseline.broken(&more), ["batch: no figures to compare with"]);
        let elsewhere = Baseline { fabric: "tcp".into(), ..baseline };
        assert_eq!(elsewhere.broken(&counts(&[("one", [1.0; 3])])), ["counted over shm, the figures are of tcp"]);
        let fewer = Counts { volumes: 2, ..counts(&[("one", [1.0; 3])]) };
        assert_eq!(self::baseline().broken(&fewer), ["counted with 2 volumes, the figures are of 8"]);
    }

    #[test]
    fn a_cost_that_grows_is_told() {
        let run = counts(&[
            ("empty", [100.0; 3]),
            ("full", [104.0, 106.0, 90.0]),
            ("one", [10.0; 3]),
            ("volumes", [12.1, 11.9, f64::NAN]),
        ]);
        let mut baseline = baseline();
        baseline.case = toml::from_str::<Baseline>(&baseline.renewed(&run)).unwrap().case;
        let broken = baseline.broken(&run);
        assert_eq!(broken.len(), 3, "{broken:?}");
        assert_eq!(broken[0], "full, primary: 1.060 times the instructions of empty; 1.050 at most");
        assert_eq!(broken[1], "volumes, client: 1.210 times the instructions of one; 1.200 at most");
        assert!(broken[2].starts_with("volumes, secondary: NaN times"), "{broken:?}");
    }

    #[test]
    fn what_is_written_is_read_again() {
        let run = counts(&[("one", [1.0, 2.0, 3.0]), ("batch", [4.0, 5.0, 6.0])]);
        let renewed: Baseline = toml::from_str(&baseline().renewed(&run)).unwrap();
        assert_eq!((renewed.volumes, renewed.case["one"].tolerance), (8, 0.1));
        assert_eq!((renewed.full_over_empty, renewed.volumes_over_one), (1.05, 1.2));
        assert_eq!(renewed.case["batch"], Figures { tolerance: TOLERANCE, client: 4.0, primary: 5.0, secondary: 6.0 });
        assert!(renewed.broken(&run).is_empty() && !renewed.outdated(&run));
        assert!(renewed.outdated(&counts(&[("one", [1.0, 1.5, 3.0])])));
    }

    #[test]
    fn a_wrong_file_is_told_by_its_values() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("instructions.toml");
        fs::write(&path, FILE.replace("0.1\n", "8\n")).unwrap();
        let error = Baseline::load(&path).unwrap_err().to_string();
        assert!(error.ends_with("instructions.toml: case.one.tolerance = 8; write a share like 0.05"), "{error}");
        fs::write(&path, FILE.replace("1.2", "0.2")).unwrap();
        let error = Baseline::load(&path).unwrap_err().to_string();
        assert!(error.ends_with("volumes_over_one = 0.2; write a ratio above 1, like 1.05"), "{error}");
        fs::write(&path, FILE.replace("client", "klient")).unwrap();
        assert!(format!("{:#}", Baseline::load(&path).unwrap_err()).contains("klient"));
        fs::write(&path, FILE).unwrap();
        assert_eq!(Baseline::load(&path).unwrap(), baseline());
    }
}
