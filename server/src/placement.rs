//! Which core the reactor keeps off: that of a client over shared memory, which waits for it there.
//!
//! Both poll, and a scheduler that sees two busy threads on one core and a sleeper's core beside them leaves them there for
//! long. Then each gives way to the other at every look, and the caller behind the client is woken across cores: on a host with
//! two cores a small write took 46 µs instead of 21. So a reactor that meets its client on a core leaves that core to it. Long
//! payloads are another matter: copying one takes longer than a wake-up, and both nodes of a host do it at the same time if
//! they may use all cores. Where the reactor may use one core only (`taskset`, `CPUAffinity=`), somebody has decided already.

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use twinsan_arena::current_core;
use twinsan_fabric::ConnId;
use twinsan_fabric::parts::Payloads;

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
    /// Since the last judgement.
    payloads: Payloads,
    /// Judgements so far.
    judged: u64,
    /// Clients of which blobs have come lately. One at rest is nowhere.
    clients: Vec<Client>,
}

/// Where a client was when its last blob came.
#[derive(Debug)]
struct Client {
    conn: ConnId,
    core: Option<usize>,
    /// After so many judgements.
    at: u64,
}

impl Placement {
    /// Of the calling thread.
    pub(crate) fn of_this_thread() -> Self {
        Self::within(sched_getaffinity(None).ok())
    }

    fn within(allowed: Option<CpuSet>) -> Self {
        Self {
            allowed: allowed.filter(|cores| cores.count() > 1),
            narrowed: false,
            in_vain: false,
            are_long: false,
            payloads: Payloads::default(),
            judged: 0,
            clients: Vec::new(),
        }
    }

    /// A blob has come from a client, which is on this core, where that is known: moves this thread if need be. It judges
    /// now and then, and at once when the client is met here.
    pub(crate) fn came(&mut self, conn: ConnId, payload_bytes: u32, core: Option<usize>) {
        if self.allowed.is_none() {
            return;
        }
        self.count(conn, payload_bytes, core);
        let judges = self.payloads.blobs() == BLOBS;
        if judges {
            self.judge();
        }
        let own = current_core();
        let met = core.is_some() && core == own && !self.are_long && !self.in_vain;
        if (judges || met)
            && let Some(own) = own
            && let Some(mask) = self.decide(own)
            && let Err(error) = sched_setaffinity(None, &mask)
        {
            tracing::debug!(%error, "the reactor's cores can't be changed: it stays where the scheduler has it");
            self.allowed = None;
        }
    }

    fn count(&mut self, conn: ConnId, payload_bytes: u32, core: Option<usize>) {
        self.payloads.add(payload_bytes);
        let at = self.judged;
        match self.clients.iter_mut().find(|client| client.conn == conn) {
            Some(client) => (client.core, client.at) = (core, at),
            None => self.clients.push(Client { conn, core, at }),
        }
    }

    fn judge(&mut self) {
        self.are_long = self.payloads.judge() == Some(true);
        self.in_vain = false;
        let judged = self.judged;
        self.clients.retain(|client| client.at == judged);
        self.judged += 1;
    }

    /// The cores to use from now on, if that changes.
    fn decide(&mut self, own: usize) -> Option<CpuSet> {
        let allowed = self.allowed?;
        let (mut free, mut some, mut here) = (allowed, false, false);
        if !self.are_long {
            for core in self.clients.iter().filter_map(|client| client.core).filter(|&core| core < CpuSet::MAX_CPU) {
                free.unset(core);
                (some, here) = (true, here || core == own);
            }
        }
        if !some {
            return std::mem::take(&mut self.narrowed).then_some(allowed);
        }
        if !here {
            return None;
        }
        self.in_vain = free.count() == 0;
        self.narrowed |= !self.in_vain;
        (!self.in_vain).then_some(free)
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

    /// Where no thread is.
    const ELSEWHERE: Option<usize> = Some(CpuSet::MAX_CPU);

    /// A reactor that may use these cores, and whose clients are on those.
    fn placement(allowed: &[usize], clients: &[usize]) -> Placement {
        let mut placement = Placement::within(Some(cores(allowed)));
        clients_on(&mut placement, clients);
        placement
    }

    fn clients_on(placement: &mut Placement, cores: &[usize]) {
        placement.clients.clear();
        (1..).zip(cores).for_each(|(conn, &core)| placement.count(ConnId(conn), 4096, Some(core)));
    }

    #[test]
    fn who_meets_its_client_leaves_it_the_core_until_it_is_gone() {
        let mut placement = placement(&[0, 1], &[1]);
        assert_eq!(placement.decide(0), None);
        assert_eq!(placement.decide(1), Some(cores(&[0])));
        assert_eq!(placement.decide(0), None);
        // The client has followed.
        clients_on(&mut placement, &[0]);
        assert_eq!(placement.decide(0), Some(cores(&[1])));
        clients_on(&mut placement, &[]);
        assert_eq!(placement.decide(1), Some(cores(&[0, 1])));
        assert_eq!(placement.decide(1), None);
    }

    #[test]
    fn it_goes_where_no_client_is() {
        assert_eq!(placement(&[0, 1, 2, 3], &[2, 0]).decide(2), Some(cores(&[1, 3])));
        let mut crowded = placement(&[0, 1], &[0, 1]);
        for _ in 0..10 {
            assert_eq!(crowded.decide(1), None);
            assert!(crowded.in_vain && !crowded.narrowed);
        }
        let mut pinned = placement(&[1], &[1]);
        assert_eq!(pinned.decide(1), None, "somebody has decided already");
    }

    #[test]
    fn a_client_counts_while_its_blobs_come() {
        let mut placement = Placement::within(Some(cores(&[0, 1])));
        placement.count(ConnId(1), 4096, ELSEWHERE);
        let told = |placement: &Placement| placement.clients.iter().map(|client| client.conn.0).collect::<Vec<_>>();
        for _ in 0..2 {
            (0..BLOBS).for_each(|_| placement.count(ConnId(2), 4096, ELSEWHERE));
            placement.judge();
        }
        assert_eq!(told(&placement), [2], "the first is at rest");
        placement.count(ConnId(1), 4096, ELSEWHERE);
        assert_eq!(told(&placement), [2, 1]);
    }

    #[test]
    fn long_payloads_may_be_copied_on_any_core() {
        let mut placement = placement(&[0, 1], &[1]);
        placement.narrowed = true;
        (0..BLOBS).for_each(|_| placement.count(ConnId(1), 1 << 20, Some(1)));
        placement.judge();
        assert_eq!(placement.decide(1), Some(cores(&[0, 1])));
        assert_eq!(placement.decide(1), None);
        (0..BLOBS).for_each(|_| placement.count(ConnId(1), 4096, Some(1)));
        placement.judge();
        assert_eq!(placement.decide(1), Some(cores(&[0])));
    }
}
