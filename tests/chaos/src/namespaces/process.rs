//! What /proc tells of a process.

use std::fs;
use std::time::{Duration, Instant};

/// SIGKILL among the pending signals of a `/proc/PID/status`.
const KILL_BIT: u64 = 1 << 8;
/// A flag of `/proc/PID/stat`: it is about to end (linux/sched.h).
const PF_EXITING: u64 = 4;
/// For a process to stand still.
const PATIENCE: Duration = Duration::from_millis(500);

/// Whether it is about to die, or has died, though its parent may not know yet.
pub(super) fn is_dying(pid: u32) -> bool {
    let Ok(status) = fs::read_to_string(format!("/proc/{pid}/status")) else { return true };
    let pending = ["SigPnd:", "ShdPnd:"].into_iter().filter_map(|name| {
        let mask = status.lines().find_map(|line| line.strip_prefix(name))?;
        u64::from_str_radix(mask.trim(), 16).ok()
    });
    if pending.fold(0, |all, mask| all | mask) & KILL_BIT != 0 {
        return true;
    }
    let Some((state, flags)) = state(pid) else { return true };
    matches!(state, 'Z' | 'X') || flags & PF_EXITING != 0
}

/// Waits until it stands still after a SIGSTOP, or does not in time: it waits for a disk.
pub(super) fn wait_stopped(pid: u32) {
    let begin = Instant::now();
    while begin.elapsed() < PATIENCE && !threads(pid).iter().all(|state| matches!(state, 'T' | 'Z' | 'X')) {
        std::thread::sleep(Duration::from_micros(200));
    }
}

/// Its resident memory, in bytes.
pub(super) fn memory(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib * 1024)
}

fn threads(pid: u32) -> Vec<char> {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    let state_of = |task: fs::DirEntry| parse(&fs::read_to_string(task.path().join("stat")).ok()?);
    tasks.flatten().filter_map(state_of).map(|(state, _)| state).collect()
}

fn state(pid: u32) -> Option<(char, u64)> {
    parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// State and flags: the third and the ninth field; the second may have blanks and parentheses in it (proc(5)).
fn parse(stat: &str) -> Option<(char, u64)> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((state, fields.nth(5)?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use rustix::process::{Pid, Signal, kill_process};

    use super::*;

    #[test]
    fn a_killed_process_is_dying_before_and_after_it_was_reaped_and_a_stopped_one_is_not() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let pid = Pid::from_child(&child);
        assert!(!is_dying(child.id()));
        assert!(memory(child.id()).unwrap() > 0);
        kill_process(pid, Signal::STOP).unwrap();
        wait_stopped(child.id());
        assert_eq!(threads(child.id()), ['T']);
        assert!(!is_dying(child.id()));
        kill_process(pid, Signal::KILL).unwrap();
        assert!(is_dying(child.id()));
        child.wait().unwrap();
        assert!(is_dying(child.id()));
    }

    #[test]
    fn a_name_with_parentheses_hides_nothing() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194564 100 0 0 0";
        assert_eq!(parse(stat), Some(('S', 4_194_564)));
    }
}
