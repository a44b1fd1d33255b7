//! `lab-guest load` on the client, as the launcher sees it, and fio's own verification beside it.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::agent::{Job, Output, tail};
use crate::guest::load::{Line, Summary};
use crate::pair::PATIENCE;
use crate::topology::{Host, Lab};

/// A running load.
#[derive(Debug)]
pub struct Load {
    job: Job,
    fio: Job,
    kind: Kind,
}

/// Requests that prove that the volume serves.
pub const SOME: u64 = 50;

/// What it came to.
#[derive(Debug)]
pub struct Outcome {
    /// Of our own load.
    pub summary: Summary,
    /// What fio has written, read back and found well.
    pub fio_bytes: u64,
}

/// What is sent to the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Writes and reads, one after the other, as fast as they complete.
    Full,
    /// Writes only, at most 80 a second and fio's 16: a lane of 64 MiB holds them for over 10 s.
    Paced,
}

impl Kind {
    /// For `lab-guest load`.
    const fn arguments(self) -> &'static str {
        match self {
            Self::Full => "",
            Self::Paced => " --writes-only --rest-ms 25",
        }
    }

    /// For fio: blocks in a round, and writes a second. A round takes four seconds, and is then read back.
    const fn fio(self) -> (u64, u64) {
        match self {
            Self::Full => (256, 64),
            Self::Paced => (64, 16),
        }
    }
}

/// Where fio's part of the device begins, behind the load's.
const FIO_OFFSET: &str = "96m";
/// What fio writes at a time.
const FIO_BLOCK: u64 = 4096;
/// Ends fio's rounds.
const ENOUGH: &str = "/tmp/fio-enough";
/// Said before each of fio's rounds.
const ROUND: &str = "== round";
/// Said before what an interrupted round has written is read back.
const REST: &str = "== rest";
/// Reading everything back takes a while.
pub(crate) const VERIFY: Duration = Duration::from_secs(180);

impl Load {
    /// Begins to write to a block device of the client's.
    ///
    /// # Errors
    /// If the client is gone.
    pub fn start(lab: &Lab, device: &str) -> Result<Self> {
        Self::start_kind(lab, device, Kind::Full)
    }

    /// The same with another kind of load.
    ///
    /// # Errors
    /// The same.
    pub fn start_kind(lab: &Lab, device: &str, kind: Kind) -> Result<Self> {
        let client = lab.node(Host::Client);
        let job = client.spawn("load", &format!("exec /lab/bin/lab-guest load {device}{}", kind.arguments()))?;
        let rounds = fio_rounds(device, kind);
        Ok(Self { job, fio: client.spawn("fio", &rounds)?, kind })
    }

    /// Requests completed so far.
    #[must_use]
    pub fn completed(&self) -> u64 {
        counts(&self.job.said()).next_back().unwrap_or(0)
    }

    /// Waits for `more` further completions: the volume serves.
    ///
    /// # Errors
    /// If they don't come, or a request failed.
    pub fn goes_on(&self, more: u64) -> Result<()> {
        // The count is told ten times a second: of the last one, requests from before this call may be missing.
        let before = counts(&self.job.said()).count();
        let now = |said: &str| counts(said).nth(before + 1);
        let goal = self.job.wait_for("the load tells its count", PATIENCE, now)? + more;
        let what = format!("{goal} requests have completed");
        self.job.wait_for(&what, PATIENCE, |said| counts(said).next_back().filter(|&n| n >= goal).map(|_| ()))
    }

    /// Ends it, and checks that every completed write is there, as does fio, and that no request took longer than `most`
    /// does on the fastest hosts.
    ///
    /// # Errors
    /// If a request failed or took longer, or a write is lost.
    pub fn end_and_check(self, lab: &Lab, most: Duration) -> Result<Outcome> {
        let (output, summary) = self.end(lab)?;
        ensure!(summary.lost_blocks == 0, "completed writes are lost: {}", tail(&output.text));
        ensure!(output.code == 0, "the load ended with {}", output.code);
        let (longest, most) = (Duration::from_millis(summary.longest_ms), lab.scaled(most));
        ensure!(longest <= most, "a request took {} ms, more than {} ms", longest.as_millis(), most.as_millis());
        let reads = summary.reads > 0 || self.kind == Kind::Paced;
        ensure!(summary.writes > 0 && reads, "the load did nothing: {summary:?}");
        let fio = self.fio.wait(VERIFY)?;
        ensure!(fio.code == 0, "fio's verification ended with {}: {}", fio.code, tail(&fio.text));
        let fio_bytes = verified_blocks(&fio.text).with_context(|| tail(&fio.text))? * FIO_BLOCK;
        Ok(Outcome { summary, fio_bytes })
    }

    /// Ends it where completed writes may be lost. Gives how many of the load's blocks are; fio ends at the first that it
    /// misses.
    ///
    /// # Errors
    /// If a request failed.
    pub fn end_lossy(self, lab: &Lab) -> Result<u64> {
        let (_, summary) = self.end(lab)?;
        self.fio.wait(VERIFY)?;
        Ok(summary.lost_blocks)
    }

    fn end(&self, lab: &Lab) -> Result<(Output, Summary)> {
        // Nobody waits for the end of a round. Between two rounds there is no fio to be told, and one more begins, or none.
        lab.node(Host::Client).sh(&format!("touch {ENOUGH}; pkill -INT -x fio || true"))?;
        self.job.signal(libc::SIGTERM)?;
        let output = self.job.wait(VERIFY)?;
        let summary = summary(&output)?;
        Ok((output, summary))
    }

    /// Waits until its device refuses it.
    ///
    /// # Errors
    /// If it ends well, or in another way than by an I/O error.
    pub fn until_refused(self) -> Result<()> {
        let output = self.job.wait(PATIENCE)?;
        let refused = output.code != 0 && output.text.contains("Input/output error");
        ensure!(refused, "it ended with {}, and not by an I/O error: {}", output.code, tail(&output.text));
        // On a host that was frozen, fio's rate can leave it asleep for ever.
        self.fio.signal(libc::SIGKILL)
    }
}

/// A round after the other, until it is enough. One that is interrupted then leaves behind how far it has come
/// (`verify_state_save`), and all of that is read back; where it had not come to anything, there is one whole round.
fn fio_rounds(device: &str, kind: Kind) -> String {
    let (blocks, rate) = kind.fio();
    let size = blocks * FIO_BLOCK;
    let round = format!(
        "fio --name=beside --filename={device} --offset={FIO_OFFSET} --size={size} --direct=1 --ioengine=psync \
         --rw=randwrite --bs={FIO_BLOCK} --rate_iops=,{rate} --randseed=$n --verify=crc32c --verify_fatal=1 --do_verify=1"
    );
    // 128: fio was interrupted, and has found nothing wrong before that. 130: so early that it did not know yet what to do then.
    format!(
        "cd /tmp; rm -f {ENOUGH}; state=local-beside-0-verify.state; n=0; any=; \
         while [ -z \"$any\" ] || [ ! -e {ENOUGH} ]; do \
         rm -f $state; n=$((n + 1)); echo '{ROUND}'; {round}; code=$?; \
         if [ $code = 0 ]; then any=1; continue; fi; \
         {{ [ $code = 128 ] || [ $code = 130 ]; }} && [ -e {ENOUGH} ] || exit 1; \
         [ -e $state ] || continue; \
         echo '{REST}'; rest=$({round} --verify_only=1 --verify_state_load=1); code=$?; echo \"$rest\"; \
         [ $code = 0 ] || exit 1; \
         case \"$rest\" in *'rwts: total='[1-9]*) any=1 ;; esac; \
         done"
    )
}

/// How many blocks fio has written and read back, by what its rounds said: all that it had written, none of them less.
fn verified_blocks(said: &str) -> Result<u64> {
    let (mut verified, mut open, mut resting) = (0, 0, false);
    for line in said.lines() {
        match line.trim() {
            ROUND => {
                ensure!(open == 0, "fio wrote {open} blocks that it did not read back");
                resting = false;
            }
            REST => resting = true,
            line => {
                let Some((reads, writes)) = issued(line) else { continue };
                // Of a pass that only reads, fio counts the writes before it.
                open = if resting { open } else { writes };
                if reads == open {
                    verified += open;
                    open = 0;
                }
            }
        }
    }
    ensure!(open == 0, "fio wrote {open} blocks that it did not read back");
    ensure!(verified > 0, "fio did nothing");
    Ok(verified)
}

/// Reads and writes of one fio: "issued rwts: total=64,256,0,0 short=…".
fn issued(line: &str) -> Option<(u64, u64)> {
    let mut counts = line.strip_prefix("issued rwts: total=")?.split(',');
    Some((counts.next()?.parse().ok()?, counts.next()?.parse().ok()?))
}

/// Its last line.
pub(crate) fn summary(output: &Output) -> Result<Summary> {
    match output.text.lines().rev().find_map(|line| serde_json::from_str(line).ok()) {
        Some(Line::Done(summary)) => Ok(summary),
        _ => bail!("the load ended with {}: {}", output.code, tail(&output.text)),
    }
}

/// The counts that it told so far, ten a second.
pub(crate) fn counts(said: &str) -> impl DoubleEndedIterator<Item = u64> {
    said.lines().filter_map(|line| match serde_json::from_str(line) {
        Ok(Line::Progress { completed }) => Some(completed),
        _ => None,
    })
}

impl Outcome {
    /// For the report: the pauses, or the longest request where there was none.
    #[must_use]
    pub fn note(&self) -> String {
        let Summary { pauses_ms, longest_ms, writes, reads, .. } = &self.summary;
        let pauses: Vec<String> = pauses_ms.iter().map(ToString::to_string).collect();
        let pauses = match pauses.as_slice() {
            [] => format!("no pause (longest request {longest_ms} ms)"),
            pauses => format!("paused {} ms", pauses.join(" + ")),
        };
        format!("{pauses}; {writes} writes, {reads} reads; fio verified {} KiB", self.fio_bytes >> 10)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(reads: u64, writes: u64) -> String {
        format!("{ROUND}\nbeside: (g=0)\n     issued rwts: total={reads},{writes},0,0 short=0,0,0,0 dropped=0,0,0,0\n")
    }

    #[test]
    fn all_that_fio_has_written_is_read_back() {
        let rest = |reads| round(reads, 256).replace(ROUND, REST);
        let nothing = format!("{ROUND}\nfio: terminating on signal 2\n");
        for (said, expected) in [
            (round(256, 256) + &round(256, 256), Some(512)),
            // Interrupted while it writes, while it reads, and before it did anything.
            (round(256, 256) + &round(0, 80) + &rest(80), Some(336)),
            (round(40, 256) + &rest(256), Some(256)),
            (nothing.clone() + &round(256, 256), Some(256)),
            (nothing, None),
            (round(256, 256) + &round(0, 80), None),
            (round(0, 80) + &rest(79), None),
            (round(0, 80) + &round(256, 256), None),
        ] {
            assert_eq!(verified_blocks(&said).ok(), expected, "{said}");
        }
    }
}
