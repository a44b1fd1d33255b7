//! Where the microseconds of a write go: `attach --ladder FILE`.
//!
//! Every write's descriptor asks the nodes how long they take over it (`Times`), and the loop notes when the write's
//! request was there, when the write was committed, posted, known to have completed, and answered. The last
//! 131,072 writes stand in the file when the session has ended, one in a line; `twinsan-perf ladder` makes a picture of
//! them. Times are differences by one clock each, so hosts' clocks need not agree.
//!
//! ```text
//! request there ──receive──▶ committed ──post──▶ doorbells rung ──flight──▶ completed ──reply──▶ answered
//!                                                      │  secondary_ack: descriptor taken → ACK left
//!                                                      │  primary_ack: descriptor taken → ACK come
//!                                                      │  primary_completion: descriptor taken → completion left
//! ```

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::time::Instant;

use twinsan_wire::{Seq, Times};

/// Writes that are kept: the last ones.
const ROWS: usize = 1 << 17;

/// The file's first line. All times are in nanoseconds; what is not known stays empty.
pub const HEADER: &str = "seq,bytes,receive,post,flight,reply,primary_ack,primary_completion,secondary_ack";

/// A write that has not been answered, or whose nodes have not said everything.
#[derive(Clone, Copy, Debug)]
struct Step {
    seq: Seq,
    bytes: u64,
    there: Instant,
    committed: Instant,
    posted: Option<Instant>,
    completed: Option<Instant>,
    answered: Option<Instant>,
    primary: Option<Times>,
    secondary: Option<Times>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Ladder {
    file: File,
    block_bytes: u32,
    /// When the request of the next write to be committed was there.
    there: Option<Instant>,
    /// By sequence number, modulo its length.
    steps: Box<[Option<Step>]>,
    /// The first that has not been posted, completed, answered.
    unposted: Seq,
    uncompleted: Seq,
    unanswered: Seq,
    /// The one after the last.
    next: Seq,
    rows: VecDeque<Step>,
}

impl Ladder {
    /// Will be written into `file`. `slots`: the most writes that wait for the nodes' word.
    pub(crate) fn new(file: File, block_bytes: u32, slots: u32) -> Self {
        let one = Seq(1);
        Self {
            file,
            block_bytes,
            there: None,
            steps: vec![None; slots as usize].into(),
            unposted: one,
            uncompleted: one,
            unanswered: one,
            next: one,
            rows: VecDeque::with_capacity(ROWS),
        }
    }

    /// A write's request is there; its payload may still be on the way.
    pub(crate) fn request(&mut self) {
        self.there = Some(Instant::now());
    }

    /// It has been committed as `seq`.
    pub(crate) fn committed(&mut self, seq: Seq, blocks: u32) {
        let bytes = u64::from(blocks) * u64::from(self.block_bytes);
        let committed = Instant::now();
        let there = self.there.take().unwrap_or(committed);
        let (posted, completed, answered, primary, secondary) = (None, None, None, None, None);
        let step = Step { seq, bytes, there, committed, posted, completed, answered, primary, secondary };
        if let Some(old) = self.slot(seq).replace(step) {
            self.keep(old);
        }
        self.next = Seq(seq.0 + 1);
    }

    /// Everything that was committed has been posted.
    pub(crate) fn posted(&mut self) {
        if self.unposted < self.next {
            let now = Instant::now();
            self.note(self.unposted, self.next, |step| step.posted = Some(now));
            self.unposted = self.next;
        }
    }

    /// Every write up to here has completed.
    pub(crate) fn completed(&mut self, upto: Seq) {
        let now = Instant::now();
        let end = self.next.min(Seq(upto.0 + 1));
        self.note(self.uncompleted, end, |step| step.completed = Some(now));
        self.uncompleted = self.uncompleted.max(end);
    }

    /// Everything that has completed has been answered.
    pub(crate) fn answered(&mut self) {
        if self.unanswered < self.uncompleted {
            let now = Instant::now();
            self.note(self.unanswered, self.uncompleted, |step| step.answered = Some(now));
            self.unanswered = self.uncompleted;
        }
    }

    /// A node's word on one.
    pub(crate) fn times(&mut self, times: Times) {
        if let Some(step) = self.slot(times.seq).as_mut().filter(|step| step.seq == times.seq) {
            if times.to_completion_ns.is_some() {
                step.primary = Some(times);
            } else {
                step.secondary = Some(times);
            }
        }
    }

    fn slot(&mut self, seq: Seq) -> &mut Option<Step> {
        let len = self.steps.len() as u64;
        &mut self.steps[usize::try_from(seq.0 % len).expect("below a length")]
    }

    fn note(&mut self, from: Seq, end: Seq, note: impl Fn(&mut Step)) {
        for seq in from.0..end.0 {
            if let Some(step) = self.slot(Seq(seq)).as_mut().filter(|step| step.seq.0 == seq) {
                note(step);
            }
        }
    }

    fn keep(&mut self, step: Step) {
        if self.rows.len() == ROWS {
            self.rows.pop_front();
        }
        self.rows.push_back(step);
    }

    /// Writes the file.
    ///
    /// # Errors
    /// The filesystem's.
    pub(crate) fn write(mut self) -> io::Result<()> {
        let mut open: Vec<Step> = self.steps.iter_mut().filter_map(Option::take).collect();
        open.sort_by_key(|step| step.seq);
        open.into_iter().for_each(|step| self.keep(step));
        let mut file = BufWriter::new(self.file);
        writeln!(file, "{HEADER}")?;
        for step in &self.rows {
            step.write(&mut file)?;
        }
        file.flush()
    }
}

impl Step {
    fn write(&self, file: &mut impl Write) -> io::Result<()> {
        let since =
            |from: Option<Instant>, to: Option<Instant>| Some((to?.saturating_duration_since(from?)).as_nanos());
        let (there, committed) = (Some(self.there), Some(self.committed));
        write!(file, "{},{}", self.seq.0, self.bytes)?;
        for time in [
            since(there, committed),
            since(committed, self.posted),
            since(self.posted, self.completed),
            since(self.completed, self.answered),
            self.primary.and_then(|times| times.to_ack_ns).map(u128::from),
            self.primary.and_then(|times| times.to_completion_ns).map(u128::from),
            self.secondary.and_then(|times| times.to_ack_ns).map(u128::from),
        ] {
            match time {
                Some(time) => write!(file, ",{time}")?,
                None => write!(file, ",")?,
            }
        }
        writeln!(file)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Seek};

    use super::*;
    use twinsan_wire::Generation;

    fn lines(ladder: Ladder) -> Vec<String> {
        let mut file = ladder.file.try_clone().unwrap();
        ladder.write().unwrap();
        file.rewind().unwrap();
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        text.lines().map(str::to_owned).collect()
    }

    fn times(seq: u64, to_ack_ns: Option<u32>, to_completion_ns: Option<u32>) -> Times {
        Times { generation: Generation(1), seq: Seq(seq), to_ack_ns, to_completion_ns }
    }

    fn write(ladder: &mut Ladder, seq: u64) {
        ladder.request();
        ladder.committed(Seq(seq), 8);
        ladder.posted();
        ladder.completed(Seq(seq));
        ladder.answered();
    }

    #[test]
    fn a_write_has_a_line_with_what_both_nodes_said() {
        let mut ladder = Ladder::new(tempfile::tempfile().unwrap(), 512, 1024);
        write(&mut ladder, 1);
        ladder.times(times(1, Some(30), Some(40)));
        ladder.times(times(1, Some(20), None));
        ladder.times(times(2, Some(20), None));
        ladder.request();
        ladder.committed(Seq(2), 1);
        let lines = lines(ladder);
        assert_eq!(lines[0], HEADER);
        assert!(lines[1].starts_with("1,4096,") && lines[1].ends_with(",30,40,20"), "{}", lines[1]);
        assert!(lines[1].split(',').all(|field| !field.is_empty()), "{}", lines[1]);
        assert!(lines[2].starts_with("2,512,") && lines[2].ends_with(",,,,,,"), "it was never posted: {}", lines[2]);
        assert_eq!(lines.len(), 3);
    }

    #[test]
    fn a_late_word_on_a_slot_that_has_a_new_write_is_nobodys() {
        let mut ladder = Ladder::new(tempfile::tempfile().unwrap(), 512, 1024);
        let slots = 1024;
        write(&mut ladder, 1);
        for seq in 2..=slots + 1 {
            write(&mut ladder, seq);
        }
        ladder.times(times(1, Some(30), Some(40)));
        let lines = lines(ladder);
        assert_eq!(lines.len() as u64, slots + 2);
        assert!(lines[1].starts_with("1,") && lines[1].ends_with(",,,"), "{}", lines[1]);
        assert!(lines.last().unwrap().starts_with(&format!("{},", slots + 1)));
    }
}
