//! What a scenario is, and how it is run: on a lab that was switched on for it, so that nothing of another one is there.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::cache::Parts;
use crate::machine::{Kind, Pace};
use crate::report::Row;
use crate::topology::Lab;

/// One thing to try.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    /// Short, for `--only`.
    pub name: &'static str,
    /// What it shows.
    pub about: &'static str,
    /// Does it.
    pub run: fn(&mut Stage) -> Result<()>,
}

/// What a scenario needs of the machines beyond what all have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// 2 MiB pages in the kernel's pool.
    HugePages,
    /// NVMe over fabrics, iSER and drbd in the kernel.
    Peers,
}

impl Need {
    /// Why machines of a kind don't do; `None`: they do.
    #[must_use]
    pub const fn lacking(self, kind: Kind) -> Option<&'static str> {
        match (self, kind) {
            (Self::HugePages, Kind::Uml) => Some("User-Mode Linux has no huge pages; --qemu has"),
            (Self::Peers, Kind::Qemu) => Some("its image has no modules of NVMe over fabrics, iSER and drbd"),
            (Self::HugePages, Kind::Qemu) | (Self::Peers, Kind::Uml) => None,
        }
    }
}

/// What a scenario works with.
#[derive(Debug)]
pub struct Stage {
    /// The hosts and cables.
    pub lab: Lab,
    /// For the report.
    pub notes: Vec<String>,
    /// The same where it is more than fits a row: lines below it.
    pub table: Vec<String>,
    /// The same for programs.
    pub figures: Option<Value>,
    /// Where logs go.
    pub logs: PathBuf,
}

impl Stage {
    /// Something for the report: a pause, a count.
    pub fn note(&mut self, note: impl Into<String>) {
        self.notes.push(note.into());
    }
}

impl Scenario {
    /// Runs it, on a lab that has been waited for since `begin`. The lab is given back, if it came up.
    pub fn perform(&self, lab: Result<Lab>, begin: Instant, logs: &Path, round: u32) -> (Row, Option<Lab>) {
        let mut row = Row { name: self.name, round, logs: logs.to_path_buf(), ..Row::default() };
        row.boot = begin.elapsed();
        row.time = row.boot;
        let lab = match lab {
            Ok(lab) => lab,
            Err(error) => {
                row.error = Some(format!("{error:#}"));
                return (row, None);
            }
        };
        let mut stage = Stage { lab, notes: Vec::new(), table: Vec::new(), figures: None, logs: logs.to_path_buf() };
        row.error = (self.run)(&mut stage).err().map(|error| format!("{error:#}"));
        row.time = begin.elapsed();
        if row.failed() {
            row.state = stage.lab.log_state();
        }
        row.notes = stage.notes;
        row.table = stage.table;
        row.figures = stage.figures;
        (row, Some(stage.lab))
    }
}

/// A lab that is switched on, for one scenario.
///
/// # Errors
/// If it does not come up.
pub fn switch_on(parts: &Parts, logs: &Path, pace: &Pace) -> Result<Lab> {
    fs::create_dir_all(logs).with_context(|| logs.display().to_string())?;
    let mut lab = Lab::create(parts, logs)?;
    lab.boot(pace)?;
    Ok(lab)
}

/// Whether a scenario's name is meant by a pattern: a part of it, or all of it with `*` for anything.
#[must_use]
pub fn matches(pattern: &str, name: &str) -> bool {
    if !pattern.contains('*') {
        return name.contains(pattern);
    }
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = name.strip_prefix(first) else { return false };
    let mut last = "";
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
        last = part;
    }
    rest.is_empty() || last.is_empty() || name.ends_with(last)
}

/// As a person reads it.
#[must_use]
pub fn ms(time: Duration) -> String {
    format!("{} ms", time.as_millis())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_is_a_part_of_the_name_or_all_of_it() {
        for (pattern, name, expected) in [
            ("path", "one-path", true),
            ("paths", "one-path", false),
            ("path*", "one-path", false),
            ("*path", "one-path", true),
            ("one*path", "one-path", true),
            ("one*", "one-path", true),
            ("*ne*pa*", "one-path", true),
            ("*a", "aba", true),
            ("*", "", true),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }
}
