//! Which core the reactor keeps off: that of a client over shared memory, which waits for it there.
//!
//! Both poll, and a scheduler that sees two busy threads on one core and a sleeper's core beside them leaves them there for
//! long. Then each gives way to the other at every look, and the caller behind the client is woken across cores: on a host with
//! two cores a small write took 46 µs instead of 21. So a reactor that meets its client on a core leaves that core to it. Long
//! payloads are another matter: copying one takes longer than a wake-up, and both nodes of a host do it at the same time if
//! they may use all cores. Where the reactor may use one core only (`taskset`, `CPUAffinity=`), somebody has decided already.

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use twinsan_arena::current_core;

/// From here on payloads are long: copying and checking one takes 20 µs.
const LONG_PAYLOAD_BYTES: u64 = 128 << 10;
/// Whether they are is judged by so many blobs together.
const BLOBS: u64 = 32;

/// See the module.
#[derive(Debug)]
pub(crate) struct Placement {
    /// What this thread may use; `None`: there is nothing to choose.
    allowed: Option<CpuSet>,
    /// It keeps off some core.
    narrowed: bool,
    /// Clients are on all cores: until the next judgement it is no use to move.
    in_vain: bool,
    are_long: bool,
    /// Blobs and their bytes since the last judgement.
    blobs: u64,
    bytes: u64,
}

impl Placement {
    /// Of the calling thread.
    pub(crate) fn of_this_thread() -> Self {
        Self::within(sched_getaffinity(None).ok())
    }

    fn within(allowed: Option<CpuSet>) -> Self {
        let allowed = allowed.filter(|cores| cores.count() > 1);
        Self { allowed, narrowed: false, in_vain: false, are_long: false, blobs: 0, bytes: 0 }
    }

    /// A blob has come, from a client on this core, where that is known. Returns whether it is time for a
    /// [look](Placement::look): now and then, and at once when the client is met here.
    pub(crate) fn came(&mut self, payload_bytes: u32, client: Option<usize>) -> bool {
        self.blobs += 1;
        self.bytes += u64::from(payload_bytes);
        if self.blobs == BLOBS {
            self.are_long = self.bytes / self.blobs >= LONG_PAYLOAD_BYTES;
            (self.blobs, self.bytes, self.in_vain) = (0, 0, false);
            return self.allowed.is_some();
        }
        let minds = self.allowed.is_some() && !self.are_long && !self.in_vain;
        minds && client.is_some() && client == current_core()
    }

    /// Looks where the clients are, and moves this thread if need be.
    pub(crate) fn look(&mut self, clients: impl Iterator<Item = usize>) {
        let mut cores = CpuSet::new();
        if !self.are_long {
            clients.filter(|&core| core < CpuSet::MAX_CPU).for_each(|core| cores.set(core));
        }
        if let Some(own) = current_core()
            && let Some(mask) = self.decide(own, &cores)
            && let Err(error) = sched_setaffinity(None, &mask)
        {
            tracing::debug!(%error, "the reactor's cores could not be changed");
        }
    }

    /// The cores to use from now on, if that changes; `clients`: those to keep off.
    fn decide(&mut self, own: usize, clients: &CpuSet) -> Option<CpuSet> {
        let allowed = self.allowed.as_ref()?;
        if clients.count() == 0 {
            return std::mem::take(&mut self.narrowed).then_some(*allowed);
        }
        if !clients.is_set(own) {
            return None;
        }
        let mut mask = *allowed;
        mask.unset(own);
        let is_free = (0..CpuSet::MAX_CPU).any(|core| mask.is_set(core) && !clients.is_set(core));
        self.in_vain = !is_free;
        self.narrowed |= is_free;
        is_free.then_some(mask)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cores(of: &[usize]) -> CpuSet {
        let mut set = CpuSet::new();
        of.iter().for_each(|&core| set.set(core));
        set
    }

    #[test]
    fn who_meets_its_client_leaves_it_the_core_until_it_is_gone() {
        let mut placement = Placement::within(Some(cores(&[0, 1])));
        assert_eq!(placement.decide(0, &cores(&[1])), None);
        assert_eq!(placement.decide(1, &cores(&[1])), Some(cores(&[0])));
        assert_eq!(placement.decide(0, &cores(&[1])), None);
        // The client has followed.
        assert_eq!(placement.decide(0, &cores(&[0])), Some(cores(&[1])));
        assert_eq!(placement.decide(1, &cores(&[])), Some(cores(&[0, 1])));
        assert_eq!(placement.decide(1, &cores(&[])), None);
    }

    #[test]
    fn it_looks_now_and_then_and_at_once_when_a_client_is_here() {
        let mut placement = Placement::within(Some(cores(&[0, 1])));
        let elsewhere = Some(CpuSet::MAX_CPU);
        let looks = (0..10 * BLOBS).filter(|_| placement.came(4096, elsewhere) || placement.came(4096, None));
        assert_eq!(looks.count(), 20);
        // The thread may be moved between the two questions.
        assert!((0..10).any(|_| placement.came(4096, current_core())));
        (0..2 * BLOBS).for_each(|_| {
            placement.came(1 << 20, elsewhere);
        });
        assert!(
            placement.are_long && (0..10).all(|_| !placement.came(1 << 20, current_core())),
            "they may be together"
        );
        let mut pinned = Placement::within(Some(cores(&[1])));
        assert!((0..10 * BLOBS).all(|_| !pinned.came(4096, current_core())));
    }

    #[test]
    fn with_clients_on_all_cores_or_one_core_only_nobody_moves() {
        let mut placement = Placement::within(Some(cores(&[0, 1])));
        for _ in 0..10 {
            assert_eq!(placement.decide(1, &cores(&[0, 1])), None);
            assert!(placement.in_vain);
        }
        let mut pinned = Placement::within(Some(cores(&[1])));
        for _ in 0..10 {
            assert_eq!(pinned.decide(1, &cores(&[1])), None);
        }
    }
}
