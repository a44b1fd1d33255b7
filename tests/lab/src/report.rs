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
    /// Why it failed, if it did.
    pub error: Option<String>,
    /// What hosts and programs said.
    pub logs: PathBuf,
}

/// The table's head.
#[must_use]
pub fn head() -> String {
    format!("{:<28} {:<7} {:>7} {:>7}  {}", "scenario", "result", "boot", "all", "seen")
}

impl Row {
    /// Whether it passed.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.error.is_none()
    }

    /// The row, and after a failure why and where to look.
    #[must_use]
    pub fn line(&self) -> String {
        let result = if self.passed() { "passed" } else { "FAILED" };
        let (boot, time) = (self.boot.as_secs_f32(), self.time.as_secs_f32());
        let mut line = format!("{:<28} {result:<7} {boot:>5.1} s {time:>5.1} s  {}", self.name, self.notes.join(", "));
        if let Some(error) = &self.error {
            line += &format!("\n    {}\n    logs: {}", error.trim_end().replace('\n', "\n    "), self.logs.display());
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
            "seconds": self.time.as_secs_f64(),
            "boot_seconds": self.boot.as_secs_f64(),
            "notes": self.notes,
            "error": self.error,
            "logs": (!self.passed()).then_some(&self.logs),
        })
    }
}
