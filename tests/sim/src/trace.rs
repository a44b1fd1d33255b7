//! The record of a run: lines with everything, as the machines write it, and the same in words for [`crate::story`].

use core::fmt;
use std::collections::BTreeMap;

use twinsan_wire::{Incarnation, NodeId};

use crate::words::Said;

/// One thing told: when, of whom, what.
pub(crate) type Entry = (u64, String, Told);

/// What is told of a host.
#[derive(Clone)]
pub(crate) enum Told {
    /// It came in.
    In(Said),
    /// It was decided, on what came in before.
    Out(Said),
    /// What the simulator did, or a disk access.
    Note(String),
}

/// Where lines go.
#[derive(Clone, Default)]
pub(crate) struct Trace {
    /// Off: nothing is even formatted.
    pub(crate) on: bool,
    lines: Vec<String>,
    told: Vec<Entry>,
    /// What has become of single blocks.
    blocks: Vec<(u64, u64, String)>,
    /// Incarnations by their node and a number.
    names: BTreeMap<Incarnation, String>,
    named: [usize; 2],
}

impl Trace {
    /// Recording or not.
    #[must_use]
    pub(crate) fn new(on: bool) -> Self {
        Self { on, ..Self::default() }
    }

    /// One line, at `now_us`.
    pub(crate) fn line(&mut self, now_us: u64, who: &dyn fmt::Display, what: fmt::Arguments<'_>) {
        let what = what.to_string();
        self.lines.push(format!("{:>6}.{:03} ms  {who:<5} {what}", now_us / 1000, now_us % 1000));
        // What the machines hear and decide is told in words.
        let in_words = ["<- ", "-> ", "fence: ", "=== Paths"];
        if !in_words.iter().any(|beginning| what.starts_with(beginning)) {
            self.told.push((now_us, who.to_string(), Told::Note(what)));
        }
    }

    /// The same in words.
    pub(crate) fn tell(&mut self, now_us: u64, who: &dyn fmt::Display, what: Told) {
        self.told.push((now_us, who.to_string(), what));
    }

    /// Something has become of a block.
    pub(crate) fn block(&mut self, now_us: u64, lba: u64, words: fmt::Arguments<'_>) {
        self.blocks.push((now_us, lba, words.to_string()));
    }

    /// An incarnation is called by its node and a number from now on.
    pub(crate) fn call(&mut self, node: NodeId, who: Incarnation) {
        if !self.names.contains_key(&who) {
            self.named[node.index()] += 1;
            self.names.insert(who, format!("{node}{}", self.named[node.index()]));
        }
    }

    pub(crate) fn name(&self, who: Incarnation) -> String {
        self.names.get(&who).cloned().unwrap_or_else(|| who.to_string())
    }

    /// All lines so far.
    #[must_use]
    pub(crate) fn lines(&self) -> &[String] {
        &self.lines
    }

    pub(crate) fn told(&self) -> &[Entry] {
        &self.told
    }

    pub(crate) fn blocks(&self) -> &[(u64, u64, String)] {
        &self.blocks
    }
}

/// Records a line if tracing is on: `trace!(world, who, "format", …)`.
macro_rules! trace {
    ($world:expr, $who:expr, $($arg:tt)*) => {
        if $world.trace.on {
            let now = $world.now_us;
            $world.trace.line(now, &$who, format_args!($($arg)*));
        }
    };
}
pub(crate) use trace;

/// Records what has become of a block, if tracing is on: `trace_block!(world, lba, "format", …)`.
macro_rules! trace_block {
    ($world:expr, $lba:expr, $($arg:tt)*) => {
        if $world.trace.on {
            let now = $world.now_us;
            $world.trace.block(now, $lba, format_args!($($arg)*));
        }
    };
}
pub(crate) use trace_block;
