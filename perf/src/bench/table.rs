//! Results for people.

use std::fmt::Write as _;

use super::job::Job;
use super::result::{Beside, Compare, Cpu, Idle, Latency, Machine, Measured, Mission, Ratio, Row, Run, WorkloadResult};

/// Others' share of the machine from which on a figure is that of a busy machine.
const BUSY: f64 = 0.10;

/// What a job is, in words.
#[must_use]
pub fn words(job: &Job) -> String {
    let what = match job.read_percent {
        0 => "writes".to_owned(),
        100 => "reads".to_owned(),
        percent => format!("{percent} % reads, {} % writes", 100 - percent),
    };
    let durable = match (job.flush_every, job.writes_something()) {
        (_, false) => String::new(),
        (None, _) => ", each durable when it ends".to_owned(),
        (Some(n), _) => format!(", FLUSH after {n}"),
    };
    let pace = job.rate.map(|rate| format!(", {rate} due a second")).unwrap_or_default();
    format!("{}: {what} of {} bytes, {} in flight{durable}{pace}", job.name, job.bytes, job.depth)
}

fn header(t: &mut String, last: &str) {
    let _ = writeln!(
        t,
        "  {:25} {:>8} {:>8} {:>8} {:>8} {:>9} {:>8} {:>8} {:>8} {:>6}  {last}",
        "on", "p50 µs", "p90 µs", "p99 µs", "p99.9 µs", "max µs", "IOPS", "MB/s", "CPU s/GB", "others"
    );
}

/// The main kind's latencies, then what else there was.
fn lines(t: &mut String, name: &str, all: &Measured, last: &str) {
    let kinds = [("writes", &all.write), ("reads", &all.read), ("flushes", &all.flush)];
    let mut kinds = kinds.into_iter().filter_map(|(kind, latency)| latency.as_ref().map(|l| (kind, l)));
    let Some((_, main)) = kinds.next() else {
        let _ = writeln!(t, "  {name:25} nothing was measured");
        return;
    };
    let (cpu, others) = match &all.cpu {
        Some(Cpu { s_per_gb, others_share, .. }) => {
            (format!("{s_per_gb:.1}"), others_share.map_or("?".into(), |share| format!("{:.0} %", share * 100.0)))
        }
        None => Default::default(),
    };
    let _ = writeln!(
        t,
        "  {name:25} {} {:>8.0} {:>8.1} {cpu:>8} {others:>6}  {last}",
        latencies(main),
        all.iops,
        all.mb_per_s
    );
    for (kind, latency) in kinds {
        let _ = writeln!(t, "    {kind:23} {}", latencies(latency));
    }
}

fn latencies(l: &Latency) -> String {
    format!("{:>8.1} {:>8.1} {:>8.1} {:>8.0} {:>9.0}", l.p50_us, l.p90_us, l.p99_us, l.p999_us, l.max_us)
}

fn machine(m: &Machine) -> String {
    format!("{} CPUs ({}), Linux {}, {} GiB", m.cpus, m.processor, m.kernel, m.memory_bytes >> 30)
}

impl Run {
    /// For people.
    #[must_use]
    pub fn table(&self) -> String {
        let mut t = String::new();
        let (span, all) = (self.span_bytes >> 20, self.target_bytes >> 20);
        let _ = writeln!(t, "\n{}: {span} MiB used of {all}", self.target);
        for measured in &self.jobs {
            let _ = writeln!(t, "\n{}; {} in {:.1} s", words(&measured.job), measured.requests, measured.seconds);
            header(&mut t, "");
            lines(&mut t, "", measured, "");
            if let Some(cpu) = &measured.cpu {
                let each: Vec<String> = cpu.by_process_s.iter().map(|(n, s)| format!("{n} {s:.2}")).collect();
                let _ = writeln!(t, "  CPU seconds: {}", each.join(", "));
                warn(&mut t, cpu.others_share, &measured.job.name);
            }
        }
        let _ = writeln!(t, "\n{} MiB read back, every byte as it was completed.", self.checked_bytes >> 20);
        t
    }
}

impl Compare {
    /// For people.
    #[must_use]
    pub fn table(&self) -> String {
        let mut t = String::new();
        let staging = self.staging_bytes >> 20;
        let load = match self.load {
            "burst" => format!("bursts: each slice fits our staging memory of {staging} MiB, which is empty before it"),
            _ => format!(
                "steady: each slice is many times what our staging memory of {staging} MiB holds, so the disk has to keep up"
            ),
        };
        let _ = writeln!(t, "\n{}\n{load}", machine(&self.machine));
        if !self.staging_pages.is_empty() {
            let _ = writeln!(t, "staging memory on pages that are: {}", self.staging_pages.join(" and "));
        }
        for workload in &self.workloads {
            self.workload(&mut t, workload);
        }
        let _ = writeln!(t, "\n{} MiB read back, every byte as it was completed.", self.checked_bytes >> 20);
        t
    }

    fn workload(&self, t: &mut String, workload: &WorkloadResult) {
        let WorkloadResult { job, rows, beside_ours } = workload;
        let rounds = rows.first().map_or(0, |row| row.slice_p50_us.len());
        let _ = writeln!(t, "\n{}; {rounds} rounds of {}", words(job), job.count);
        let last = if job.depth == 1 { "p50: theirs / ours, by round" } else { "IOPS: ours / theirs, by round" };
        header(t, if beside_ours.is_empty() { "" } else { last });
        for row in rows {
            let name = self.contestants.iter().find(|c| c.key == row.key).map_or(row.key, |c| c.name);
            let beside = beside_ours.iter().find(|b| b.key == row.key);
            lines(t, name, &row.all, &beside.map(|b| verdict(job, b)).unwrap_or_default());
        }
        for row in rows.iter().filter(|row| row.changes > 0) {
            let _ = writeln!(
                t,
                "  ! The members of {} changed {} times meanwhile: its pauses and a node alone are in these figures.",
                row.key, row.changes
            );
        }
        let share = |row: &Row| row.all.cpu.as_ref().and_then(|cpu| cpu.others_share);
        if let Some(row) = rows.iter().max_by(|a, b| share(a).unwrap_or(0.0).total_cmp(&share(b).unwrap_or(0.0))) {
            warn(t, share(row), row.key);
        }
    }
}

fn verdict(job: &Job, beside: &Beside) -> String {
    let Ratio { median, least, most, .. } = if job.depth == 1 { beside.p50 } else { beside.iops };
    let end = if beside.is_result { "" } else { "  not a result" };
    format!("{median:.2} ({least:.2} to {most:.2}){end}")
}

fn warn(t: &mut String, share: Option<f64>, slice: &str) {
    if let Some(share) = share.filter(|&share| share >= BUSY) {
        let _ = writeln!(
            t,
            "  ! Others took {:.0} % of the machine's CPUs in the slices of {slice}: these are figures of a busy machine.",
            share * 100.0
        );
    }
}

impl Mission {
    /// For people.
    #[must_use]
    pub fn table(&self) -> String {
        self.burst.table() + &self.steady.table()
    }
}

impl Idle {
    /// For people.
    #[must_use]
    pub fn table(&self) -> String {
        let mut t = String::new();
        let _ = writeln!(t, "\n{}", machine(&self.machine));
        let _ = writeln!(
            t,
            "A pair and its client with nothing to do, for {:.0} s; in percent of one core:\n",
            self.seconds
        );
        for (name, percent) in &self.percent {
            let _ = writeln!(t, "  {name:20} {percent:>6.2} %");
        }
        let _ = writeln!(t, "  {:20} {:>6.2} %", "all", self.total_percent);
        warn(&mut t, self.others_share, "this");
        t
    }
}
