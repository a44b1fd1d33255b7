//! Writes to a block device and reads it back all the time, remembers what was completed, and says how long it waited.
//!
//! Every thread has a part of the device for itself. Its blocks carry the number of the write that they came from
//! (`twinsan_witness::pattern`), and any read, in between and of everything at the end, must find the last completed one.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use twinsan_witness::device::{Aligned, Device, Direct};
use twinsan_witness::pattern::{BLOCK, Lost, Model, Random, fill};

/// What the load aligns everything to; the largest logical block that a volume may have.
const ALIGN: usize = 4096;
/// The largest request in units of [`ALIGN`].
const MOST_UNITS: u64 = 16;
/// One read to so many writes.
const READ_EVERY: u64 = 4;
/// A request that takes longer counts as a pause.
pub const PAUSE: Duration = Duration::from_millis(150);

/// What is wanted.
#[derive(Clone, Debug)]
pub struct Options {
    /// A block device, or a file that is there.
    pub device: PathBuf,
    /// Requests in flight.
    pub threads: u64,
    /// From the device's beginning, so many bytes are used.
    pub span_bytes: u64,
    /// No reads but those at the end.
    pub writes_only: bool,
    /// Each thread rests so long after a request.
    pub rest: Duration,
}

/// A line of standard output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Line {
    /// Ten times a second.
    Progress {
        /// Requests so far.
        completed: u64,
    },
    /// The last line.
    Done(Summary),
}

/// What it came to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// Completed.
    pub writes: u64,
    /// Completed and compared, the final reading of everything not among them.
    pub reads: u64,
    /// How long requests waited where that was longer than [`PAUSE`]; waits at the same time are one.
    pub pauses_ms: Vec<u64>,
    /// The longest that any request took.
    pub longest_ms: u64,
    /// Blocks that hold something else than what was completed last.
    pub lost_blocks: u64,
}

/// What the threads share.
#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    completed: AtomicU64,
}

/// What a thread did.
struct Part {
    first_byte: u64,
    model: Model,
    writes: u64,
    reads: u64,
    waits: Vec<(Instant, Instant)>,
    longest: Duration,
    lost: Vec<Lost>,
}

/// Runs until `stop`, then reads everything back.
///
/// # Errors
/// If a request fails.
///
/// # Panics
/// If a thread of it did.
pub fn run(options: &Options, stop: &AtomicBool, mut say: impl FnMut(&Line)) -> Result<Summary> {
    let shared = Arc::new(Shared::default());
    let unit = u64::try_from(ALIGN)?;
    let part_bytes = options.span_bytes / options.threads / unit * unit;
    ensure!(
        part_bytes >= MOST_UNITS * unit,
        "{} bytes are too few for {} threads",
        options.span_bytes,
        options.threads
    );
    let threads: Vec<_> = (0..options.threads)
        .map(|number| {
            let (options, shared) = (options.clone(), Arc::clone(&shared));
            std::thread::spawn(move || {
                let part = write_and_read(&options, number, part_bytes, &shared);
                // One that fails ends all.
                shared.stop.store(true, Ordering::Release);
                part
            })
        })
        .collect();
    while !stop.load(Ordering::Acquire) && !shared.stop.load(Ordering::Acquire) {
        std::thread::sleep(Duration::from_millis(100));
        say(&Line::Progress { completed: shared.completed.load(Ordering::Acquire) });
    }
    shared.stop.store(true, Ordering::Release);
    let parts: Vec<_> = threads.into_iter().map(|t| t.join().expect("a load thread")).collect::<Result<_>>()?;
    summarise(&options.device, part_bytes, parts)
}

fn summarise(device: &Path, part_bytes: u64, parts: Vec<Part>) -> Result<Summary> {
    let mut device = open(device)?;
    let mut summary = Summary::default();
    let mut waits = Vec::new();
    for mut part in parts {
        check_all(&mut device, &mut part, part_bytes)?;
        summary.writes += part.writes;
        summary.reads += part.reads;
        for lost in &part.lost {
            eprintln!("lost in the part from byte {}: {lost:?}", part.first_byte);
        }
        summary.lost_blocks += part.lost.len() as u64;
        waits.extend(part.waits);
        summary.longest_ms = summary.longest_ms.max(ms(part.longest));
    }
    summary.pauses_ms = merge(waits).into_iter().map(ms).collect();
    Ok(summary)
}

fn write_and_read(options: &Options, number: u64, part_bytes: u64, shared: &Shared) -> Result<Part> {
    let mut device = open(&options.device)?;
    let first_byte = number * part_bytes;
    let model = Model::new(part_bytes);
    let longest = Duration::ZERO;
    let mut part = Part { first_byte, model, writes: 0, reads: 0, waits: Vec::new(), longest, lost: Vec::new() };
    let mut random = Random::new(number + 1);
    let mut buffer = Aligned::new(usize::try_from(MOST_UNITS)? * ALIGN);
    while !shared.stop.load(Ordering::Acquire) {
        let units = random.below(MOST_UNITS) + 1;
        let unit = random.below(part_bytes / ALIGN as u64 - units + 1);
        let data = &mut buffer.bytes()[..usize::try_from(units)? * ALIGN];
        let (offset, first_block) = (unit * ALIGN as u64, unit * (ALIGN / BLOCK) as u64);
        let begin = Instant::now();
        if !options.writes_only && random.below(READ_EVERY + 1) == 0 {
            device.read(first_byte + offset, data)?;
            part.model.check(first_block, data, &mut part.lost);
            part.reads += 1;
        } else {
            let stamp = part.model.next_stamp() + (number << 48);
            fill(data, first_block, stamp);
            device.write(first_byte + offset, data)?;
            part.model.completed(first_block, data.len() / BLOCK, stamp);
            part.writes += 1;
        }
        let end = Instant::now();
        part.longest = part.longest.max(end - begin);
        if end - begin > PAUSE {
            part.waits.push((begin, end));
        }
        shared.completed.fetch_add(1, Ordering::Release);
        std::thread::sleep(options.rest);
    }
    Ok(part)
}

fn check_all(device: &mut Direct, part: &mut Part, part_bytes: u64) -> Result<()> {
    let mut buffer = Aligned::new(1 << 20);
    let mut offset = 0;
    while offset < part_bytes {
        let len = usize::try_from(part_bytes - offset)?.min(1 << 20);
        let data = &mut buffer.bytes()[..len];
        device.read(part.first_byte + offset, data)?;
        part.model.check(offset / BLOCK as u64, data, &mut part.lost);
        offset += len as u64;
    }
    Ok(())
}

fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn open(device: &Path) -> Result<Direct> {
    Direct::open(device).with_context(|| device.display().to_string())
}

/// The waits, with those that overlap made one.
fn merge(mut waits: Vec<(Instant, Instant)>) -> Vec<Duration> {
    waits.sort();
    let mut merged: Vec<(Instant, Instant)> = Vec::new();
    for (begin, end) in waits {
        match merged.last_mut() {
            Some(last) if begin <= last.1 => last.1 = last.1.max(end),
            _ => merged.push((begin, end)),
        }
    }
    merged.into_iter().map(|(begin, end)| end - begin).collect()
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::FileExt;

    use super::*;

    #[test]
    fn waits_at_the_same_time_are_one_pause() {
        let zero = Instant::now();
        let at = |ms| zero + Duration::from_millis(ms);
        let pauses = merge(vec![(at(10), at(30)), (at(100), at(110)), (at(0), at(20)), (at(5), at(6))]);
        assert_eq!(pauses, [Duration::from_millis(30), Duration::from_millis(10)]);
    }

    #[test]
    fn a_device_that_forgets_a_write_is_caught() {
        let folder = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let device = folder.path().join("device");
        File::create(&device).unwrap().set_len(8 << 20).unwrap();
        let options = Options {
            device: device.clone(),
            threads: 2,
            span_bytes: 8 << 20,
            writes_only: false,
            rest: Duration::ZERO,
        };
        let stop = AtomicBool::new(false);
        let mut lines = 0;
        let good = run(&options, &stop, |_| {
            lines += 1;
            stop.store(lines == 3, Ordering::Release);
        });
        let good = good.unwrap();
        assert!(good.writes > 10 && good.reads > 0 && good.lost_blocks == 0, "{good:?}");

        stop.store(false, Ordering::Release);
        let mut lines = 0;
        let bad = run(&options, &stop, |_| {
            lines += 1;
            File::options().write(true).open(&device).unwrap().write_all_at(&[0xA5; 8 << 18], 0).unwrap();
            stop.store(lines == 3, Ordering::Release);
        });
        assert!(bad.unwrap().lost_blocks > 0);
    }
}
