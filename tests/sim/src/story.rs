//! A run for people: one line per event and host, with the time, what came in, and what was decided. What tells nothing
//! is left out: heartbeats, who says again where he stands, looks that find what was there before.

use std::collections::BTreeMap;

use crate::stamp::Version;
use crate::trace::Told;
use crate::world::World;

/// Words that decide nothing, when they are said a second time.
struct Story {
    out: Vec<String>,
    last: BTreeMap<String, String>,
}

impl World {
    /// What happened, up to the violated promise and the history of the block that it is about. Empty unless the
    /// configuration asks for a record.
    #[must_use]
    pub fn story(&self) -> Vec<String> {
        let mut story = Story { out: Vec::new(), last: BTreeMap::new() };
        let told = self.trace.told();
        let mut at = 0;
        while at < told.len() {
            let (time, who, what) = &told[at];
            at += 1;
            let came = match what {
                Told::Note(words) => {
                    story.note(*time, who, words);
                    continue;
                }
                Told::In(said) => Some(said),
                Told::Out(_) => {
                    at -= 1;
                    None
                }
            };
            let mut decided = Vec::new();
            while let Some((_, next, Told::Out(out))) = told.get(at) {
                if next != who {
                    break;
                }
                if !out.quiet {
                    decided.push(out.words.as_str());
                }
                at += 1;
            }
            if decided.is_empty() && came.is_none_or(|said| said.quiet) {
                continue;
            }
            story.line(*time, who, came.map_or("", |said| &said.words), &decided);
        }
        story.out.extend(self.history());
        story.out
    }

    /// The history of the block that the violated promise is about.
    fn history(&self) -> Vec<String> {
        let Some(violation) = self.violation() else { return Vec::new() };
        let mut out = vec![format!("broken: {}: {}", violation.checker, violation.message)];
        let block =
            violation.message.split("block ").nth(1).map(|rest| rest.split(|c: char| !c.is_ascii_digit()).next());
        let Some(lba) = block.flatten().and_then(|digits| digits.parse::<u64>().ok()) else { return out };
        out.push(format!("block {lba}:"));
        for (time, of, words) in self.trace.blocks() {
            if *of == lba {
                out.push(format!("  {} {words}", clock(*time)));
            }
        }
        if let Some(history) = usize::try_from(lba).ok().and_then(|at| self.check.blocks.get(at)) {
            let disk = usize::try_from(lba).map_or(Version::NEVER, |at| self.disk.blocks[at]);
            out.push(format!("  completed {}, read {}, on the disk {disk}", history.completed, history.read));
        }
        out
    }
}

impl Story {
    fn note(&mut self, time: u64, who: &str, words: &str) {
        self.out.push(format!("{} {who:<5} {words}", clock(time)));
    }

    fn line(&mut self, time: u64, who: &str, came: &str, decided: &[&str]) {
        let words = match (came, decided) {
            (came, []) => came.to_owned(),
            ("", decided) => format!("-> {}", decided.join("; ")),
            (came, decided) => format!("{came} -> {}", decided.join("; ")),
        };
        if self.last.insert(who.to_owned(), words.clone()).is_none_or(|before| before != words) {
            self.note(time, who, &words);
        }
    }
}

fn clock(us: u64) -> String {
    format!("{:>6}.{:03} ms ", us / 1000, us % 1000)
}
