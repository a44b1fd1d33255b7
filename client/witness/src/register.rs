//! One block as a register that many read and write at once: is there an order of all its operations, each between its
//! beginning and its end, in which every read finds the write before it?
//!
//! Every write has a number of its own, so the answer needs no search (Gibbons and Korach, "Testing Shared Memories", 1997):
//! take a write together with all reads that found it. Of two such groups one comes first as a whole. So there is no order
//! if and only if for some two of them an operation of each has ended before one of the other began, or a read has found
//! what nobody had begun to write. A group is its write's number and two times: the earliest end and the latest beginning.
//!
//! A write without an end (its client was killed, or its request failed) may have happened or not. It counts once a read
//! has found it. By the time that the next session serves it has happened, or it never will (protocol rule 10): from
//! then on it has an end.

/// Nanoseconds since the ledger was opened.
pub type Time = u64;

/// No end yet.
const NEVER: Time = Time::MAX;

/// What every block holds before its first write in the ledger.
pub const FIRST: u64 = 0;

/// A write and all the reads that found it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Group {
    stamp: u64,
    earliest_end: Time,
    latest_begin: Time,
    /// It has completed, or a read has found it.
    happened: bool,
    /// Its writer has been told so.
    completed: bool,
}

impl Group {
    /// An operation of this one has ended before one of the other began.
    fn precedes(&self, other: &Self) -> bool {
        self.earliest_end < other.latest_begin
    }
}

/// A block's memory.
#[derive(Clone, Debug)]
pub struct Register {
    groups: Vec<Group>,
    /// When the operations that are under way began.
    open: Vec<Time>,
}

/// What can't have happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrong {
    /// A read found an older write than one that had completed before the read began.
    Lost {
        /// The write that completed.
        completed: u64,
        /// What was found.
        found: u64,
    },
    /// A read found an older write than an earlier read did.
    WentBack {
        /// What the earlier read found.
        before: u64,
        /// What was found.
        found: u64,
    },
}

impl Default for Register {
    fn default() -> Self {
        let first = Group { stamp: FIRST, earliest_end: 0, latest_begin: 0, happened: true, completed: false };
        Self { groups: vec![first], open: Vec::new() }
    }
}

impl Register {
    /// A write begins; its number is new.
    pub fn write_begins(&mut self, stamp: u64, at: Time) {
        self.open.push(at);
        self.groups.push(Group { stamp, earliest_end: NEVER, latest_begin: at, happened: false, completed: false });
    }

    /// The write that began at `begun` has completed.
    ///
    /// # Errors
    /// If that contradicts what was read.
    pub fn write_completes(&mut self, stamp: u64, begun: Time, at: Time) -> Result<(), Wrong> {
        let outcome = self.happens(stamp, begun, at, true);
        self.closes(begun);
        outcome
    }

    /// Nobody will tell how the write that began at `begun` ended.
    pub fn write_is_unknown(&mut self, begun: Time) {
        self.closes(begun);
    }

    /// What is unknown has happened by now, or never will.
    pub fn settle(&mut self, at: Time) {
        for group in self.groups.iter_mut().filter(|g| !g.happened && g.earliest_end == NEVER) {
            group.earliest_end = at;
        }
        self.forget();
    }

    /// A read begins.
    pub fn read_begins(&mut self, at: Time) {
        self.open.push(at);
    }

    /// The read that began at `begun` has found a write.
    ///
    /// # Errors
    /// If it can't have.
    pub fn read_finds(&mut self, stamp: u64, begun: Time, at: Time) -> Result<(), Wrong> {
        let outcome = self.happens(stamp, begun, at, false);
        self.closes(begun);
        outcome
    }

    /// The read that began at `begun` has found nothing that can be judged: it failed.
    pub fn read_fails(&mut self, begun: Time) {
        self.closes(begun);
    }

    /// How many writes it has to remember.
    #[must_use]
    pub fn remembered(&self) -> usize {
        self.groups.len()
    }

    fn happens(&mut self, stamp: u64, begun: Time, at: Time, completed: bool) -> Result<(), Wrong> {
        let Some(group) = self.groups.iter_mut().find(|g| g.stamp == stamp) else {
            // Forgotten, as newer ones have replaced it; or never written here, which is no better.
            return Err(wrong(&self.groups, |g| g.happened, stamp));
        };
        group.happened = true;
        group.completed |= completed;
        group.earliest_end = group.earliest_end.min(at);
        group.latest_begin = group.latest_begin.max(begun);
        let group = *group;
        let contradicts = |g: &Group| g.stamp != stamp && g.happened && g.precedes(&group) && group.precedes(g);
        if self.groups.iter().any(contradicts) { Err(wrong(&self.groups, contradicts, stamp)) } else { Ok(()) }
    }

    fn closes(&mut self, begun: Time) {
        if let Some(at) = self.open.iter().position(|&t| t == begun) {
            self.open.swap_remove(at);
        }
        self.forget();
    }

    /// Forgets the writes that no read may find any more: one that happened after them had ended before any operation
    /// that is under way began. To find one of them is as wrong as to find what was never written.
    fn forget(&mut self) {
        let under_way = self.open.iter().copied().min().unwrap_or(NEVER);
        let newer: Vec<Group> =
            self.groups.iter().filter(|g| g.happened && g.earliest_end < under_way).copied().collect();
        self.groups.retain(|old| !newer.iter().any(|new| new.stamp != old.stamp && old.precedes(new)));
    }
}

/// What the finding of `found` contradicts: a write that has completed, if there is one.
fn wrong(groups: &[Group], contradicts: impl Fn(&Group) -> bool, found: u64) -> Wrong {
    let against = |completed| groups.iter().rev().find(|g| contradicts(g) && g.completed == completed);
    match (against(true), against(false)) {
        (Some(write), _) => Wrong::Lost { completed: write.stamp, found },
        (None, read) => Wrong::WentBack { before: read.map_or(FIRST, |g| g.stamp), found },
    }
}

#[cfg(test)]
#[path = "register/tests.rs"]
mod tests;
