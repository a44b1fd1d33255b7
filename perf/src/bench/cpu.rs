//! CPU time of the processes involved, and of all others, from `/proc`.
//!
//! A process's comes from its threads' `schedstat`, in nanoseconds, where the kernel has it: slices are short. Else from its
//! `stat`, and the machine's always from `/proc/stat`: in hundredths of a second.

use std::fs;

use anyhow::{Context, Result};

use super::result::{Cpu, Machine};

/// `/proc` counts in hundredths of a second, on every architecture that we run on.
const TICK_NS: u64 = 10_000_000;
/// With fewer of the machine's, others' share would be an accident.
const LEAST_TICKS: u64 = 50;
/// How the process that makes the load is called.
pub const CLIENT: &str = "load client";

/// A process by the name that it has in the result.
pub type Process = (String, u32);

/// CPU time spent so far.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Sample {
    /// In nanoseconds.
    processes: Vec<u64>,
    machine: Ticks,
}

/// Of all CPUs together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Ticks {
    busy: u64,
    all: u64,
}

/// Sums over slices what some processes and the machine spend.
#[derive(Clone, Debug)]
pub struct Account {
    processes: Vec<Process>,
    begin: Option<Sample>,
    /// In nanoseconds.
    spent: Vec<u64>,
    machine: Ticks,
}

impl Account {
    /// Of these processes and of this one.
    #[must_use]
    pub fn new(processes: &[Process]) -> Self {
        let mut processes = processes.to_vec();
        processes.push((CLIENT.to_owned(), std::process::id()));
        let spent = vec![0; processes.len()];
        Self { processes, begin: None, spent, machine: Ticks::default() }
    }

    /// A slice begins.
    ///
    /// # Errors
    /// If a process is gone.
    pub fn begin(&mut self) -> Result<()> {
        self.begin = Some(self.sample()?);
        Ok(())
    }

    /// It ends.
    ///
    /// # Errors
    /// If a process is gone.
    pub fn end(&mut self) -> Result<()> {
        let end = self.sample()?;
        let Some(begin) = self.begin.take() else { return Ok(()) };
        for (spent, (end, begin)) in self.spent.iter_mut().zip(end.processes.iter().zip(&begin.processes)) {
            *spent += end.saturating_sub(*begin);
        }
        self.machine.busy += end.machine.busy.saturating_sub(begin.machine.busy);
        self.machine.all += end.machine.all.saturating_sub(begin.machine.all);
        Ok(())
    }

    /// Over all slices, for so many bytes.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "figures for people")]
    pub fn cpu(&self, bytes: u64) -> Cpu {
        let seconds = |ns: u64| ns as f64 / 1e9;
        let total: u64 = self.spent.iter().sum();
        let others = (self.machine.busy * TICK_NS).saturating_sub(total) / TICK_NS;
        let share = others as f64 / self.machine.all.max(1) as f64;
        Cpu {
            by_process_s: self
                .processes
                .iter()
                .zip(&self.spent)
                .map(|((n, _), &ns)| (n.clone(), seconds(ns)))
                .collect(),
            total_s: seconds(total),
            s_per_gb: seconds(total) / (bytes as f64 / 1e9).max(1e-9),
            others_share: (self.machine.all >= LEAST_TICKS).then_some(share),
        }
    }

    fn sample(&self) -> Result<Sample> {
        let process = |(name, pid): &Process| process_ns(*pid).with_context(|| format!("process {pid} ({name})"));
        let processes = self.processes.iter().map(process).collect::<Result<_>>()?;
        let text = fs::read_to_string("/proc/stat")?;
        Ok(Sample { processes, machine: machine_ticks(&text).context("/proc/stat without a line \"cpu\"")? })
    }
}

/// All of its threads'. Those that have ended count only where there is no `schedstat`; none of the contestants' do.
fn process_ns(pid: u32) -> Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).context("it is not there")?;
    let by_threads = fs::read_dir(format!("/proc/{pid}/task"))?.map(|thread| {
        let text = fs::read_to_string(thread.ok()?.path().join("schedstat")).ok()?;
        thread_ns(&text)
    });
    // A thread that ends between two looks is no error; a kernel without schedstat has none of any.
    let by_threads: Vec<u64> = by_threads.flatten().collect();
    if !by_threads.is_empty() {
        return Ok(by_threads.iter().sum());
    }
    process_ticks(&text).map(|ticks| ticks * TICK_NS).with_context(|| format!("/proc/{pid}/stat says {text:?}"))
}

/// The first number of `/proc/PID/task/TID/schedstat`.
fn thread_ns(text: &str) -> Option<u64> {
    text.split_ascii_whitespace().next()?.parse().ok()
}

/// User and system time of `/proc/PID/stat`, all threads. The name stands in parentheses and may hold anything, spaces and
/// parentheses too: what counts begins after the last one.
fn process_ticks(text: &str) -> Option<u64> {
    let (_, fields) = text.rsplit_once(')')?;
    // From the third one on: state, ppid, …; utime is the 14th, stime the 15th.
    let mut fields = fields.split_ascii_whitespace().skip(11);
    let mut next = || fields.next()?.parse::<u64>().ok();
    Some(next()? + next()?)
}

/// The first line of `/proc/stat`: user, nice, system, idle, iowait, irq, softirq, steal. Guests' time is in user's already.
fn machine_ticks(text: &str) -> Option<Ticks> {
    let line = text.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let ticks: Vec<u64> = line.split_ascii_whitespace().take(8).map(str::parse).collect::<Result<_, _>>().ok()?;
    let idle: u64 = ticks.get(3..5)?.iter().sum();
    let all = ticks.iter().sum();
    Some(Ticks { busy: all - idle, all })
}

/// What this host is.
#[must_use]
pub fn machine() -> Machine {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let field = |text: &str, key: &str| {
        let line = text.lines().find(|line| line.starts_with(key));
        line.and_then(|line| line.split_once(':')).map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
    };
    let kib = field(&read("/proc/meminfo"), "MemTotal").trim_end_matches(" kB").parse::<u64>().unwrap_or(0);
    Machine {
        cpus: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        processor: field(&read("/proc/cpuinfo"), "model name"),
        kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
        memory_bytes: kib << 10,
    }
}

/// RAM that can be had, in bytes.
#[must_use]
pub fn memory_available() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:")).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap_or(0) << 10
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_may_be_called_anything() {
        let rest = "S 1 2 3 0 -1 4194560 900 0 0 0 123 45 7 8 20 0 4 0 1000 1 1";
        for name in ["twinsand", "a b", "a) S 9 9 (b", ")", "", "x\n) y ("] {
            assert_eq!(process_ticks(&format!("4711 ({name}) {rest}\n")), Some(168), "{name:?}");
        }
        for text in ["", "4711", "4711 (x", "4711 (x) S 1 2", "4711 (x) S 1 2 3 0 -1 4 9 0 0 0 many 45"] {
            assert_eq!(process_ticks(text), None, "{text:?}");
        }
    }

    #[test]
    fn idle_and_waiting_for_the_disk_are_not_busy_and_guests_count_once() {
        let text = "cpu  100 10 50 1000 200 3 7 30 99 9\ncpu0 1 1 1 1 1 1 1 1 1 1\nintr 5\n";
        assert_eq!(machine_ticks(text), Some(Ticks { busy: 200, all: 1400 }));
        assert_eq!(machine_ticks("cpu0 1 2 3 4 5 6 7 8\n"), None);
        assert_eq!(machine_ticks("cpu  1 2\n"), None);
        assert_eq!(machine_ticks("cpu  1 2 x 4 5 6 7 8\n"), None);
    }

    #[test]
    fn what_is_nobodys_is_others() {
        let account = Account {
            processes: vec![("a".into(), 1), (CLIENT.into(), 2)],
            begin: None,
            spent: vec![300_000_000, 200_000_000],
            machine: Ticks { busy: 100, all: 400 },
        };
        let cpu = account.cpu(500_000_000);
        assert_eq!(cpu.by_process_s, [("a".to_owned(), 0.3), (CLIENT.to_owned(), 0.2)]);
        assert_eq!((cpu.total_s, cpu.s_per_gb, cpu.others_share), (0.5, 1.0, Some(0.125)));
        // A process whose counter was read later than the machine's does not make others' negative.
        let late = Account { machine: Ticks { busy: 40, all: 400 }, ..account };
        assert_eq!(late.cpu(1).others_share, Some(0.0));
        let short = Account { machine: Ticks { busy: 10, all: 20 }, ..late };
        assert_eq!(short.cpu(1).others_share, None, "too short to say");
    }

    #[test]
    fn our_own_process_is_there_and_one_that_is_not_is_named() {
        let mut account = Account::new(&[]);
        account.begin().unwrap();
        account.end().unwrap();
        let mut gone = Account::new(&[("ghost".into(), u32::MAX >> 1)]);
        assert!(gone.begin().unwrap_err().to_string().contains("ghost"));
        assert!(process_ns(std::process::id()).unwrap() > 0);
        assert_eq!(thread_ns("123456 78 9\n"), Some(123_456));
        assert_eq!((thread_ns(""), thread_ns("x 1")), (None, None));
        assert!(machine().cpus >= 1 && machine().memory_bytes > 0 && memory_available() > 0);
    }
}
