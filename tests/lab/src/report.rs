//! What the scenarios came to: a line for each as it ends, and all of them for programs.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};

/// One scenario, once.
#[derive(Clone, Debug, Default)]
pub struct Row {
    /// Its name.
    pub name: &'static str,
    /// Which of the repetitions, from 1 on.
    pub round: u32,
    /// All of it, with booting.
    pub time: Duration,
    /// Until all hosts were ready.
    pub boot: Duration,
    /// What it measured.
    pub notes: Vec<String>,
    /// What does not fit a row.
    pub table: Vec<String>,
    /// The same for programs.
    pub figures: Option<Value>,
    /// Why it failed, if it did.
    pub error: Option<String>,
    /// What each host waited for in the moment of the failure, in short: where the logs are not kept, it is all there is.
    pub state: Vec<String>,
    /// Why it was not run: what these machines lack.
    pub lacking: Option<&'static str>,
    /// What hosts and programs said.
    pub logs: PathBuf,
}

/// The table's head.
#[must_use]
pub fn head() -> String {
    format!("{:<28} {:<7} {:>7} {:>7}  {}", "scenario", "result", "boot", "all", "seen")
}

impl Row {
    /// Whether it passed. What was not run did not.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.error.is_none() && self.lacking.is_none()
    }

    /// Whether it failed. What was not run did not.
    #[must_use]
    pub fn failed(&self) -> bool {
        self.error.is_some()
    }

    /// The row, and after a failure why and where to look.
    #[must_use]
    pub fn line(&self) -> String {
        if let Some(lacking) = self.lacking {
            return format!("{:<28} not on these machines: {lacking}", self.name);
        }
        let result = if self.passed() { "passed" } else { "FAILED" };
        let (boot, time) = (self.boot.as_secs_f32(), self.time.as_secs_f32());
        let mut line = format!("{:<28} {result:<7} {boot:>5.1} s {time:>5.1} s  {}", self.name, self.notes.join(", "));
        for row in &self.table {
            line += &format!("\n    {row}");
        }
        if let Some(error) = &self.error {
            line += &format!("\n    {}\n    logs: {}", error.trim_end().replace('\n', "\n    "), self.logs.display());
            for row in &self.state {
                line += &format!("\n    {row}");
            }
        }
        line
    }

    /// For programs.
    #[must_use]
    pub fn json(&self) -> Value {
        json!({
            "name": self.name,
            "round": self.round,
            "passed": self.passed(),
            "lacking": self.lacking,
            "seconds": self.time.as_secs_f64(),
            "boot_seconds": self.boot.as_secs_f64(),
            "notes": self.notes,
            "figures": self.figures,
            "error": self.error,
            "state": self.failed().then_some(&self.state),
            "logs": self.failed().then_some(&self.logs),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_explains_itself_without_its_logs() {
        let state = vec!["san1 does not answer".to_owned(), "client answers".to_owned()];
        let row = Row { name: "paths", error: Some("why\nand how".into()), state, ..Row::default() };
        let line = row.line();
        assert!(line.contains("\n    why\n    and how\n    logs: "), "{line}");
        assert!(line.ends_with("\n    san1 does not answer\n    client answers"), "{line}");
        assert_eq!(row.json()["state"][0], "san1 does not answer");
    }

    #[test]
    fn what_was_not_run_has_neither_passed_nor_failed() {
        let row = Row { name: "hugepages", lacking: Some("huge pages"), ..Row::default() };
        assert!(!row.passed() && !row.failed());
        assert!(row.line().contains("not on these machines: huge pages"), "{}", row.line());
        assert_eq!(row.json()["passed"], false);
        let row = Row { error: Some("why".into()), ..Row::default() };
        assert!(!row.passed() && row.failed());
        assert!(Row::default().passed());
    }
}
