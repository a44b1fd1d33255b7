//! What happened when: one line for each fault's beginning and end, and for what came of it.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result};

/// A file of lines, and the last of them.
#[derive(Debug)]
pub(super) struct Log {
    file: File,
    began: Instant,
    lines: Vec<String>,
}

/// The evidence has so many.
const TAIL: usize = 60;

impl Log {
    pub(super) fn create(path: &Path, began: Instant) -> Result<Self> {
        let file = File::create(path).with_context(|| format!("{}", path.display()))?;
        Ok(Self { file, began, lines: Vec::new() })
    }

    pub(super) fn line(&mut self, what: &str) {
        let line = format!("{:9.3} s  {what}", self.began.elapsed().as_secs_f64());
        // A log that can't be written is no reason to end.
        let _ = writeln!(self.file, "{line}");
        self.lines.push(line);
        if self.lines.len() > 2 * TAIL {
            self.lines.drain(..TAIL);
        }
    }

    pub(super) fn tail(&self) -> String {
        self.lines[self.lines.len().saturating_sub(TAIL)..].join("\n")
    }
}
