//! Which core the client's loop keeps to: that of its caller, while requests are short and no core is free.
//!
//! The caller sleeps while the client works, and the client waits while the caller does; so on one core they stand in nobody's
//! way, and neither is woken across cores. The nodes of this host keep off the client's core (over shared memory they know it).
//! A scheduler that finds the caller on the nodes' core leaves it there: as the nodes poll, a caller that sleeps there is never
//! taken off that core's queue, and is woken where it was. On a host with two cores a small write then takes 46 µs instead of
//! 21. So whose caller is on the nodes' core changes places with the nodes: it goes there, and they, who meet it, leave.
//!
//! Where the caller is, nobody says. But a request that comes while the client has not been off its core was made on another.

use std::fs::File;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use twinsan_arena::current_core;
use twinsan_fabric::parts::Payloads;

/// So many arrivals are judged together.
const ARRIVALS: u32 = 16;
/// After a move, so many of those pass before the next judgement, and twice as many each time that it was in vain.
const PATIENCE: u32 = 1;
/// At most.
const MOST_PATIENCE: u32 = 1024;

/// See the module.
#[derive(Debug)]
pub(crate) struct Placement {
    /// What this thread may use; `None`: there is nothing to choose, or nothing is known of how often it was off its core.
    allowed: Option<CpuSet>,
    /// `/proc/thread-self/schedstat`.
    statistics: Option<File>,
    sight: Sight,
}

/// What is known of the caller.
#[derive(Debug)]
struct Sight {
    arrivals: u32,
    payloads: Payloads,
    /// How often this thread had come to its core at the last judgement.
    slices: Option<u64>,
    /// Judgements to pass over.
    rest: u32,
    patience: u32,
}

impl Placement {
    /// Of the calling thread.
    pub(crate) fn of_this_thread() -> Self {
        let allowed = sched_getaffinity(None).ok().filter(|cores| cores.count() > 1);
        let statistics = allowed.and_then(|_| File::open("/proc/thread-self/schedstat").ok());
        Self { allowed, statistics, sight: Sight::new() }
    }

    /// A blob is posted.
    pub(crate) fn posted(&mut self, payload_bytes: u32) {
        self.sight.payloads.add(payload_bytes);
    }

    /// A caller's connection, which had nothing to say, has something to say. `nodes`: the cores of those on this host.
    pub(crate) fn arrived(&mut self, nodes: impl Iterator<Item = usize>) {
        self.sight.arrivals += 1;
        if self.sight.arrivals < ARRIVALS {
            return;
        }
        let Some(allowed) = &self.allowed else { return };
        let slices = self.statistics.as_ref().and_then(slices);
        if !self.sight.is_elsewhere(slices) {
            return;
        }
        if let Some(own) = current_core()
            && let Some(there) = place_of_nodes(allowed, own, nodes)
        {
            self.sight.moved();
            let moved = sched_setaffinity(None, &there).and_then(|()| sched_setaffinity(None, allowed));
            if let Err(error) = moved {
                tracing::debug!(%error, "the client's core can't be changed: it stays where the scheduler has it");
                self.allowed = None;
            }
        }
    }
}

impl Sight {
    fn new() -> Self {
        Self { arrivals: 0, payloads: Payloads::default(), slices: None, rest: 0, patience: PATIENCE }
    }

    /// Judges the arrivals since the last time: whether the caller of short writes runs on another core. `slices`: how
    /// often this thread has come to its core since it began.
    fn is_elsewhere(&mut self, slices: Option<u64>) -> bool {
        let before = std::mem::replace(&mut self.slices, slices);
        let arrivals = std::mem::take(&mut self.arrivals);
        let is_short = self.payloads.judge() == Some(false);
        let (Some(before), Some(slices)) = (before, slices) else { return false };
        let is_elsewhere = slices - before < u64::from(arrivals / 2);
        if self.rest > 0 {
            self.rest -= 1;
            return false;
        }
        if is_short && !is_elsewhere {
            self.patience = PATIENCE;
        }
        is_short && is_elsewhere
    }

    fn moved(&mut self) {
        self.rest = self.patience;
        self.patience = (2 * self.patience).min(MOST_PATIENCE);
    }
}

/// The nodes' core, if the caller, who is not on this one, can be nowhere else.
fn place_of_nodes(allowed: &CpuSet, own: usize, nodes: impl Iterator<Item = usize>) -> Option<CpuSet> {
    let mut others = *allowed;
    others.unset(own);
    let mut theirs = CpuSet::new();
    nodes.filter(|&core| core < CpuSet::MAX_CPU).for_each(|core| theirs.set(core));
    let is_alone = allowed.is_set(own) && !theirs.is_set(own);
    (is_alone && others.count() == 1 && others == theirs).then_some(others)
}

/// How often a thread has come to its core: the third number.
fn slices(statistics: &File) -> Option<u64> {
    let mut text = [0; 80];
    let len = rustix::io::pread(statistics, &mut text, 0).ok()?;
    std::str::from_utf8(&text[..len]).ok()?.split_ascii_whitespace().nth(2)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cores(of: &[usize]) -> CpuSet {
        let mut set = CpuSet::new();
        of.iter().for_each(|&core| set.set(core));
        set
    }

    /// A judgement of so many slices more, after blobs of so many bytes.
    fn judge(sight: &mut Sight, slices: &mut u64, more: u64, bytes: u32) -> bool {
        sight.arrivals = ARRIVALS;
        sight.payloads.add(bytes);
        *slices += more;
        sight.is_elsewhere(Some(*slices))
    }

    #[test]
    fn who_gets_requests_without_leaving_its_core_has_its_caller_elsewhere() {
        let (mut sight, mut slices) = (Sight::new(), 1000);
        assert!(!judge(&mut sight, &mut slices, 0, 4096), "nothing to compare with yet");
        assert!(judge(&mut sight, &mut slices, 1, 4096));
        assert!(!judge(&mut sight, &mut slices, 16, 4096));
        assert!(!judge(&mut sight, &mut slices, 1, 1 << 20), "long payloads take all cores");
        assert!(!sight.is_elsewhere(None));
    }

    #[test]
    fn moves_in_vain_become_rare() {
        let (mut sight, mut slices) = (Sight::new(), 0);
        judge(&mut sight, &mut slices, 0, 4096);
        let moves = (0..1000).filter(|_| {
            let moves = judge(&mut sight, &mut slices, 0, 4096);
            if moves {
                sight.moved();
            }
            moves
        });
        assert_eq!(moves.count(), 10);
        assert!((0..1000).any(|_| judge(&mut sight, &mut slices, 0, 4096)), "but go on");
        sight.moved();
        (0..=MOST_PATIENCE).for_each(|_| assert!(!judge(&mut sight, &mut slices, 40, 4096)));
        assert!(judge(&mut sight, &mut slices, 0, 4096), "it was here meanwhile");
        sight.moved();
        assert_eq!(sight.rest, PATIENCE);
    }

    #[test]
    fn only_a_caller_that_can_be_nowhere_else_is_with_the_nodes() {
        let place =
            |allowed: &[usize], own, nodes: &[usize]| place_of_nodes(&cores(allowed), own, nodes.iter().copied());
        assert_eq!(place(&[0, 1], 0, &[1, 1]), Some(cores(&[1])));
        assert_eq!(place(&[0, 1], 0, &[1]), Some(cores(&[1])));
        assert_eq!(place(&[0, 1], 0, &[0, 1]), None, "they have not left yet");
        assert_eq!(place(&[0, 1], 0, &[]), None, "no node is here");
        assert_eq!(place(&[0, 1, 2], 0, &[1, 1]), None, "it may be on the third");
        assert_eq!(place(&[0, 1], 3, &[1, 1]), None);
    }

    #[test]
    fn the_kernel_says_how_often_a_thread_has_come_to_its_core() {
        let file = File::open("/proc/thread-self/schedstat").unwrap();
        let before = slices(&file).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(1));
        assert!(slices(&file).unwrap() > before);
    }
}
