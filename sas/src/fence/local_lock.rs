//! The fence for two nodes on one host (protocol section 5, `local-lock`): demonstrations, tests, one big machine.
//!
//! The claim is the fence. The kernel lets it go only when the last write through the holder's description has ended,
//! so fencing is: kill the holder, wait until the claim can be taken, take it.
//!
//! ```text
//!              claim free                                   claim free
//!   fence() ───────────────▶ held ◀───────────────────────────────┐
//!      │ claim busy           │ release(): flag cleared, then let go
//!      ▼                      ▼                                   │
//!   who? ── a heartbeat block's holder, alive ──▶ SIGKILL ──▶ wait for the claim ── too long ──▶ StillHeld
//!      └─── nobody (it has just taken it, or is just dying) ──▶ look again ── too long ──▶ Unknown
//!
//!   rule 13: held ── yield_claim(): flag cleared, then let go ──▶ free ── accept(), by the other one ──▶ held
//! ```
//!
//! The holder flag in the heartbeat block is what a fence kills for, so it is set after the claim was taken and cleared
//! before it is let go, and who takes the claim clears the flag that a killed holder left behind. A process is killed
//! only while block, pid, start time, boot and pid namespace all say that it is the holder.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use twinsan_wire::{Incarnation, NodeId};

use super::process::{self, Kill};
use super::{Fence, FenceError};
use crate::disk::{ClaimedDisk, DiskError, OpenError, SharedReader};
use crate::layout;
use crate::superblock::{Heartbeat, ProcessStamp, Uuid};

/// How long the fence waits for what.
#[derive(Clone, Copy, Debug)]
pub struct LocalLockTiming {
    /// For a holder that has not said yet who it is, or has just let go.
    pub unknown: Duration,
    /// For a claim that was handed over: it is free, unless the giver's last page is still on its way.
    pub free: Duration,
    /// For the claim of a killed holder. A process with gigabytes of small pages takes a second and more to die.
    pub dying: Duration,
    /// For a beat of a holder whose boot is not this one: a host that has gone down leaves its flag behind, one that
    /// is up moves it. Several disk heartbeats.
    pub elsewhere: Duration,
    /// Between two looks.
    pub poll: Duration,
}

impl Default for LocalLockTiming {
    fn default() -> Self {
        Self {
            unknown: Duration::from_secs(1),
            free: Duration::from_millis(100),
            dying: Duration::from_secs(10),
            elsewhere: Duration::from_secs(1),
            poll: Duration::from_micros(500),
        }
    }
}

/// See the module's text.
#[derive(Debug)]
pub struct LocalLock {
    path: PathBuf,
    reader: SharedReader,
    volume: Uuid,
    node: NodeId,
    me: ProcessStamp,
    timing: LocalLockTiming,
    admitted: bool,
}

/// Who has the claim.
enum Holder {
    Process(ProcessStamp),
    Nobody,
}

impl LocalLock {
    /// The fence of `node` for the volume on `reader`'s disk.
    ///
    /// # Errors
    /// The disk can't be opened, or /proc does not tell who this process is.
    pub fn new(reader: &SharedReader, volume: Uuid, node: NodeId, timing: LocalLockTiming) -> Result<Self, FenceError> {
        let path = reader.path().to_owned();
        let own = SharedReader::open(&path)?;
        if own.key() != reader.key() {
            return Err(OpenError::Replaced { path }.into());
        }
        let me = ProcessStamp::current().map_err(|source| FenceError::System { what: "reading /proc", source })?;
        Ok(Self { path, reader: own, volume, node, me, timing, admitted: false })
    }

    /// Which process this is.
    #[must_use]
    pub const fn process(&self) -> ProcessStamp {
        self.me
    }

    fn try_claim(&self) -> Result<Option<ClaimedDisk>, FenceError> {
        let claim = ClaimedDisk::try_claim(&self.path)?;
        if let Some(claim) = &claim
            && claim.key() != self.reader.key()
        {
            return Err(OpenError::Replaced { path: self.path.clone() }.into());
        }
        Ok(claim)
    }

    /// The one living process that a heartbeat block calls the holder.
    fn holder(&self) -> Result<Holder, FenceError> {
        for node in NodeId::BOTH {
            let Some(stamp) = self.flagged(node)? else { continue };
            if stamp == self.me {
                return Err(FenceError::OwnProcess);
            }
            if !self.me.sees(&stamp) {
                // After a reboot everybody's flag is of the boot before, and the claim is not: then somebody here has
                // taken it and has not said so yet. A pid of another namespace can't be looked up at all.
                if stamp.boot_id == self.me.boot_id {
                    return Err(FenceError::Elsewhere { pid: stamp.pid });
                }
                continue;
            }
            let alive =
                process::exists(&stamp).map_err(|source| FenceError::System { what: "reading /proc", source })?;
            if alive {
                return Ok(Holder::Process(stamp));
            }
        }
        Ok(Holder::Nobody)
    }

    /// Whom `node`'s heartbeat block calls the holder. A torn block is about to be whole.
    fn flagged(&self, node: NodeId) -> Result<Option<ProcessStamp>, FenceError> {
        Ok(self.beating(node)?.map(|beat| beat.process))
    }

    /// `node`'s heartbeat block, if it calls its writer the holder.
    fn beating(&self, node: NodeId) -> Result<Option<Heartbeat>, FenceError> {
        match self.reader.read_heartbeat(node, self.volume) {
            Ok(beat) => Ok(beat.filter(|beat| beat.holder)),
            Err(DiskError::Heartbeat(_)) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    /// Refuses where a process on another host holds the disk: its claim is its own kernel's, and ours says nothing of
    /// it. After a reboot of this host it costs one wait, until the flags are written anew.
    fn nobody_elsewhere(&self) -> Result<(), FenceError> {
        let foreign = |beat: &Heartbeat| beat.process.boot_id != self.me.boot_id;
        let since = Instant::now();
        for node in NodeId::BOTH {
            let Some(first) = self.beating(node)?.filter(foreign) else { continue };
            while since.elapsed() < self.timing.elsewhere {
                match self.beating(node)?.filter(foreign) {
                    Some(now) if now.beat != first.beat => {
                        return Err(FenceError::Elsewhere { pid: now.process.pid });
                    }
                    _ => std::thread::sleep(self.timing.poll),
                }
            }
        }
        Ok(())
    }

    /// Kills the holder, if it still is.
    fn kill(&self, stamp: &ProcessStamp) -> Result<bool, FenceError> {
        let still = || NodeId::BOTH.into_iter().any(|node| self.flagged(node).is_ok_and(|who| who == Some(*stamp)));
        match process::kill(stamp, still) {
            Kill::Sent => {
                tracing::warn!(pid = stamp.pid, disk = %self.path.display(), "killed the process that held the disk");
                Ok(true)
            }
            Kill::Gone => Ok(false),
            Kill::Refused(source) => Err(FenceError::CannotKill { pid: stamp.pid, source }),
        }
    }

    /// Says in the own block that this process is the holder, and takes that word out of the other's.
    pub(super) fn announce(&self, claim: &ClaimedDisk, incarnation: Incarnation) -> Result<(), FenceError> {
        let beat = match self.reader.read_heartbeat(self.node, self.volume) {
            Ok(before) => before.map_or(0, |before| before.beat),
            Err(DiskError::Heartbeat(_)) => 0,
            Err(e) => return Err(e.into()),
        };
        let own = Heartbeat {
            volume: self.volume,
            node: self.node,
            incarnation,
            // It has to differ from the one before, or it looks as if the heart stood still.
            beat: beat.wrapping_add(1),
            process: self.me,
            holder: true,
        };
        claim.write_page(layout::heartbeat_offset(self.node), &own.encode())?;
        let other = self.node.other();
        match self.reader.read_heartbeat(other, self.volume) {
            Ok(Some(stale)) if stale.holder => {
                let cleared = Heartbeat { holder: false, ..stale };
                claim.write_page(layout::heartbeat_offset(other), &cleared.encode())?;
            }
            // A torn block names nobody.
            Ok(_) | Err(DiskError::Heartbeat(_)) => {}
            Err(e) => return Err(e.into()),
        }
        Ok(())
    }

    fn retract(&self, claim: &ClaimedDisk) -> Result<(), DiskError> {
        if let Some(own) = self.reader.read_heartbeat(self.node, self.volume)?
            && own.process == self.me
        {
            let retracted = Heartbeat { holder: false, ..own };
            claim.write_page(layout::heartbeat_offset(self.node), &retracted.encode())?;
        }
        Ok(())
    }
}

impl Fence for LocalLock {
    /// Nothing to register: what fences is the claim, and only who wants to write takes it. That no earlier write of
    /// this host can land any more is seen when it is taken, before anything is written.
    fn admit(&mut self) -> Result<(), FenceError> {
        self.reader.read_page(layout::SLOT_OFFSETS[0])?;
        self.nobody_elsewhere()?;
        self.admitted = true;
        Ok(())
    }

    fn fence(&mut self, incarnation: Incarnation) -> Result<ClaimedDisk, FenceError> {
        let mut since = Instant::now();
        let mut killed: Option<ProcessStamp> = None;
        loop {
            if let Some(claim) = self.try_claim()? {
                self.nobody_elsewhere()?;
                self.announce(&claim, incarnation)?;
                self.admitted = true;
                return Ok(claim);
            }
            match (self.holder()?, killed) {
                (Holder::Process(stamp), None) => {
                    if self.kill(&stamp)? {
                        killed = Some(stamp);
                        since = Instant::now();
                    }
                }
                (Holder::Process(stamp), Some(victim)) if stamp != victim => {
                    return Err(FenceError::Quicker { pid: stamp.pid });
                }
                (Holder::Process(_) | Holder::Nobody, _) => {}
            }
            let waited = since.elapsed();
            match killed {
                Some(victim) if waited > self.timing.dying => {
                    return Err(FenceError::StillHeld { pid: victim.pid, waited });
                }
                None if waited > self.timing.unknown => return Err(FenceError::Unknown { waited }),
                _ => std::thread::sleep(self.timing.poll),
            }
        }
    }

    /// The flag goes first: nobody may be killed for a claim that he has let go.
    fn yield_claim(&mut self, claim: ClaimedDisk) {
        if let Err(error) = self.retract(&claim) {
            tracing::warn!(%error, "the holder flag could not be cleared: this process may be killed for it");
        }
    }

    /// Never kills: who handed over has let go before it said so, and whoever has the claim now was quicker.
    fn accept(&mut self, incarnation: Incarnation) -> Result<ClaimedDisk, FenceError> {
        let since = Instant::now();
        loop {
            if let Some(claim) = self.try_claim()? {
                self.announce(&claim, incarnation)?;
                self.admitted = true;
                return Ok(claim);
            }
            let waited = since.elapsed();
            if waited > self.timing.free {
                return Err(FenceError::NotFree { waited });
            }
            std::thread::sleep(self.timing.poll);
        }
    }

    /// A claim that we have can't be taken away: who fences us kills us. So asking is remembering.
    fn check(&mut self, claim: Option<&ClaimedDisk>) -> Result<bool, FenceError> {
        Ok(claim.is_some() || self.admitted)
    }

    fn release(&mut self, claim: Option<ClaimedDisk>) {
        self.admitted = false;
        if let Some(claim) = claim {
            self.yield_claim(claim);
        }
    }
}
