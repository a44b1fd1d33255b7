//! What was counted.

use std::fmt::Write as _;

use serde::Serialize;

use super::kinds::Spent;
use crate::instructions::report::Spread;

/// Kinds of less than this share of a process's instructions are not in the table.
const SMALL: f64 = 0.01;

/// Cases that should cost the same: the first one has more staged, or more volumes.
pub const PAIRS: [(&str, &str); 2] = [("full", "empty"), ("volumes", "one")];

/// A process in a case.
#[derive(Clone, Debug, Serialize)]
pub struct Process {
    /// User instructions for a write, what is executed at rest taken off.
    pub per_write: Spread,
    /// User instructions a second at rest.
    pub idle_per_second: f64,
    /// All that it executed meanwhile, for a write; what is executed at rest is in it.
    pub spent: Vec<Spent>,
}

/// A case.
#[derive(Clone, Debug, Serialize)]
pub struct Case {
    /// Its name.
    pub name: &'static str,
    /// `twinsan attach`.
    pub client: Process,
    /// The node that serves.
    pub primary: Process,
    /// The other one.
    pub secondary: Process,
}

impl Case {
    /// The processes with their names.
    #[must_use]
    pub fn processes(&self) -> [(&'static str, &Process); 3] {
        [("client", &self.client), ("primary", &self.primary), ("secondary", &self.secondary)]
    }
}

/// A run.
#[derive(Clone, Debug, Serialize)]
pub struct Counts {
    /// What nodes and client talked by.
    pub fabric: String,
    /// Slices of each case.
    pub rounds: usize,
    /// Volumes in the case `volumes`.
    pub volumes: usize,
    /// The cases.
    pub cases: Vec<Case>,
}

impl Counts {
    /// How many times as much a process executes in a case as in another one, if both were counted: the cost of a write
    /// must not grow with what is staged, or configured.
    #[must_use]
    pub fn growth(&self, much: &str, little: &str) -> Option<[f64; 3]> {
        let of = |name| Some(self.case(name)?.processes().map(|(_, process)| process.per_write.median));
        let (much, little): ([f64; 3], [f64; 3]) = (of(much)?, of(little)?);
        Some([0, 1, 2].map(|i: usize| much[i] / little[i]))
    }

    /// A case by its name.
    #[must_use]
    pub fn case(&self, name: &str) -> Option<&Case> {
        self.cases.iter().find(|case| case.name == name)
    }

    /// For people.
    #[must_use]
    pub fn table(&self) -> String {
        let mut t = String::new();
        let line = "─".repeat(98);
        let _ = writeln!(t, "\n  User instructions per 4 KiB write by NBD over {} (callgrind)", self.fabric);
        let _ = writeln!(t, "  {} rounds; median (least to most), what is executed at rest taken off", self.rounds);
        let _ = writeln!(
            t,
            "  one, batch: 1 and 32 writes at a time; empty, full: of the lane; volumes: {}\n",
            self.volumes
        );
        let _ = writeln!(t, "  {:11}{:>29}{:>29}{:>29}", "case", "client", "primary", "secondary");
        let _ = writeln!(t, "  {line}");
        let words = |s: Spread| format!("{:.0} ({:.0} to {:.0})", s.median, s.least, s.most);
        for case in &self.cases {
            let [client, primary, secondary] = case.processes().map(|(_, process)| words(process.per_write));
            let _ = writeln!(t, "  {:11}{client:>29}{primary:>29}{secondary:>29}", case.name);
        }
        for (much, little) in PAIRS {
            let Some(ratios) = self.growth(much, little) else { continue };
            let [client, primary, secondary] = ratios.map(|ratio| format!("{ratio:.3}"));
            let _ = writeln!(t, "  {:11}{client:>29}{primary:>29}{secondary:>29}", format!("{much}/{little}"));
        }
        let _ = writeln!(t, "  {line}");
        for case in self.cases.iter().filter(|case| matches!(case.name, "one" | "batch")) {
            self.spent(case, &mut t);
            let _ = writeln!(t, "  {line}");
        }
        t
    }

    /// What a case's instructions were spent on.
    fn spent(&self, case: &Case, t: &mut String) {
        let _ = writeln!(t, "  {:44}{:>18}{:>18}{:>18}", case.name, "client", "primary", "secondary");
        let processes = case.processes();
        let of = |process: &Process, on: &str| {
            process.spent.iter().find(|spent| spent.on == on).map_or(0.0, |spent| spent.instructions)
        };
        let sum = |process: &Process| process.spent.iter().map(|spent| spent.instructions).sum::<f64>();
        let mut kinds: Vec<(&str, f64)> = Vec::new();
        for spent in processes.iter().flat_map(|(_, process)| &process.spent) {
            match kinds.iter_mut().find(|(on, _)| *on == spent.on) {
                Some((_, most)) => *most = most.max(spent.instructions),
                None => kinds.push((spent.on, spent.instructions)),
            }
        }
        kinds.sort_by(|a, b| b.1.total_cmp(&a.1));
        for (on, _) in kinds {
            if processes.iter().all(|(_, process)| of(process, on) < SMALL * sum(process)) {
                continue;
            }
            let [client, primary, secondary] = processes.map(|(_, process)| of(process, on));
            let _ = writeln!(t, "  {on:44}{client:>18.0}{primary:>18.0}{secondary:>18.0}");
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::count) fn counts(figures: &[(&'static str, [f64; 3])]) -> Counts {
        let process = |figure: f64| {
            let spent = vec![Spent { on: "NBD", instructions: figure }, Spent { on: "clock", instructions: 0.5 }];
            Process { per_write: Spread::of(&[figure]), idle_per_second: 1.0, spent }
        };
        let case = |(name, [client, primary, secondary]): &(&'static str, [f64; 3])| Case {
            name,
            client: process(*client),
            primary: process(*primary),
            secondary: process(*secondary),
        };
        Counts { fabric: "shm".into(), rounds: 1, volumes: 8, cases: figures.iter().map(case).collect() }
    }

    #[test]
    fn cases_are_compared() {
        let figures = [("one", [100.0, 200.0, 40.0]), ("empty", [1.0, 2.0, 4.0]), ("full", [1.0, 3.0, 5.0])];
        let table = counts(&figures).table();
        let line = table.lines().find(|line| line.contains("full/empty")).unwrap();
        assert_eq!(line.split_whitespace().collect::<Vec<_>>(), ["full/empty", "1.000", "1.500", "1.250"]);
        assert!(!table.contains("volumes/one"), "not counted");
        let line = table.lines().find(|line| line.trim_start().starts_with("NBD")).unwrap();
        assert!(line.contains("200"), "{line}");
        assert!(table.contains("clock"), "1 % of the secondary's");
    }
}
