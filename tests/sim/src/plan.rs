//! What a run does to the cluster: an explicit list of faults and requests, each at its time.
//!
//! An ordinary run draws the list as it goes, by the seed and by what is possible at that moment, and keeps it
//! ([`World::deeds`]); a run from a list ([`World::from_list`]) does the same again, or what is left of it when
//! somebody looks for less that breaks the same promise ([`crate::shrink`]).
//!
//! Chance comes from three places, so that one does not disturb the others: the plan's own numbers (what, and when); a
//! fault's dice (whom it strikes, how long it lasts); everything else is noise (latencies, what is lost, what lands).

use core::fmt;

use twinsan_wire::{BlobKind, NodeId};

use crate::config::{FenceKind, SimConfig};
use crate::event::Ev;
use crate::rng::Rng;
use crate::world::World;

/// One thing that is done to the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deed {
    /// When, in µs.
    pub at_us: u64,
    /// What.
    pub what: What,
}

/// A fault or a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// Something goes wrong. What is not possible at that time does not happen.
    Fault {
        /// Its kind.
        fault: Fault,
        /// Whom it strikes and how long it lasts follow from this.
        dice: u64,
    },
    /// A caller of a client asks for something.
    Request {
        /// Which client; one that has ended: the one that works.
        client: usize,
        /// For what.
        request: Request,
    },
}

/// A caller's request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// A write of this kind; `None`: a read.
    pub write: Option<BlobKind>,
    /// First block.
    pub lba: u64,
    /// Number of blocks.
    pub blocks: u32,
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.write {
            None => f.write_str("read")?,
            Some(BlobKind::Write) => f.write_str("write")?,
            Some(kind) => write!(f, "{}", format!("{kind:?}").to_lowercase())?,
        }
        if self.blocks == 1 {
            write!(f, " block {}", self.lba)
        } else {
            write!(f, " blocks {}-{}", self.lba, self.lba + u64::from(self.blocks) - 1)
        }
    }
}

macro_rules! faults {
    ($($name:ident, $weight:literal, $words:literal;)*) => {
        /// A kind of fault; what each does, `faults.rs`, `storage.rs`, `fabric.rs`, `clock.rs` and `cuts.rs` say.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[allow(missing_docs, reason = "their words are in the table")]
        pub enum Fault {
            $($name,)*
        }

        /// Kinds by weight.
        const WEIGHTS: &[(Fault, u64)] = &[$((Fault::$name, $weight),)*];

        impl Fault {
            /// In words.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $words,)*
                }
            }
        }
    };
}

faults! {
    // Processes and hosts.
    CrashPrimary, 14, "primary killed";
    CrashOther, 12, "other node killed";
    HostDies, 8, "a node's host dies";
    FreezePrimary, 20, "primary frozen";
    FreezeOther, 7, "other node frozen";
    CrashClient, 9, "client killed";
    FreezeClient, 4, "client frozen";
    Usurp, 5, "another client takes over";
    Switchover, 20, "switchover";
    StopPrimary, 6, "primary stopped in order";
    Stop, 5, "node stopped in order";
    StopBoth, 3, "both nodes stopped in order";
    KillBoth, 0, "both nodes killed";
    // Clocks.
    ClockLeaps, 5, "a clock leaps";
    ClockStands, 5, "a clock stands still";
    Suspended, 4, "a host is suspended, and its clock";
    // The network.
    CutNodes, 8, "nodes cut apart";
    CutClient, 8, "client cut from a node";
    Isolate, 6, "node isolated";
    CutOffAlone, 8, "a lone primary is cut off";
    Stalls, 12, "a connection's writes are late";
    HalfOpen, 10, "a connection is half-open";
    CorruptBlob, 8, "a blob arrives corrupt";
    CorruptMessage, 6, "a message arrives corrupt";
    // The disk.
    DiskFails, 6, "a node's disk fails";
    DiskFailsForBoth, 3, "both nodes' disk fails";
    SomeIoFails, 7, "some of a node's I/O fails";
    DiskSlow, 6, "a node's disk is slow";
    DiskFull, 4, "the disk is full";
    PathFailsOver, 5, "a node's I/O waits for another path";
    PrimaryLosesPaths, 8, "the primary loses its paths";
    OtherLosesPaths, 4, "the other node loses its paths";
    BothLosePaths, 3, "both nodes lose their paths";
    PathReturns, 4, "a path comes back";
    FalseConflict, 4, "a conflict with the key there";
    SlotRots, 4, "a superblock slot rots";
    SlotTorn, 6, "a node dies as it writes a superblock slot";
}

/// What is still to come.
#[derive(Clone)]
pub(crate) struct Plan {
    source: Source,
    /// What has been done.
    done: Vec<Deed>,
    over: bool,
    pub(crate) fence: FenceKind,
    /// The node was told to end, and its restart has been put off until it has.
    pub(crate) ending: [bool; 2],
}

#[derive(Clone)]
enum Source {
    Drawn { rng: Rng, left: u64, kill_both: bool },
    Given { deeds: Vec<Deed>, next: usize, until_us: u64 },
}

impl Plan {
    /// One that is drawn as the run goes.
    pub(crate) fn drawn(config: &SimConfig) -> Self {
        let rng = Rng::new(config.seed.wrapping_mul(0x9fb2_1c65_1e98_df25));
        let source = Source::Drawn { rng, left: config.faults, kill_both: config.kill_both };
        Self { source, done: Vec::new(), over: config.faults == 0, fence: config.fence, ending: [false; 2] }
    }

    /// One that is there.
    pub(crate) fn given(config: &SimConfig, deeds: Vec<Deed>, until_us: u64) -> Self {
        Self { source: Source::Given { deeds, next: 0, until_us }, over: false, ..Self::drawn(config) }
    }

    pub(crate) fn end(&mut self) {
        self.over = true;
        if let Source::Drawn { left, .. } = &mut self.source {
            *left = 0;
        }
    }

    /// The workload draws its requests.
    pub(crate) fn draws_requests(&self) -> bool {
        matches!(self.source, Source::Drawn { .. }) && !self.over
    }

    /// Faults or deeds that are still to come.
    fn left(&self) -> u64 {
        match &self.source {
            Source::Drawn { left, .. } => *left,
            Source::Given { deeds, next, .. } => (deeds.len() - next) as u64,
        }
    }

    /// The plan's own numbers.
    pub(crate) fn rng(&mut self) -> &mut Rng {
        let Source::Drawn { rng, .. } = &mut self.source else { unreachable!("nothing is drawn from a list") };
        rng
    }

    fn draw(&mut self) -> (Fault, u64) {
        let Source::Drawn { rng, left, kill_both } = &mut self.source else { unreachable!("from a list") };
        let dice = rng.bits();
        if *kill_both && *left <= 2 {
            return (Fault::KillBoth, dice);
        }
        let total = WEIGHTS.iter().map(|(_, w)| w).sum();
        let mut at = rng.below(total);
        for &(fault, weight) in WEIGHTS {
            match at.checked_sub(weight) {
                Some(rest) => at = rest,
                None => return (fault, dice),
            }
        }
        unreachable!("the weights sum up")
    }

    fn struck(&mut self, fault: Fault) {
        if let Source::Drawn { left, kill_both, .. } = &mut self.source {
            *left -= 1;
            *kill_both &= fault != Fault::KillBoth;
        }
    }

    /// When the next fault comes: after some, into the middle of what they have begun.
    fn gap(&mut self, struck: Option<Fault>) -> u64 {
        let rng = self.rng();
        match rng.below(10) {
            0..=5 if matches!(struck, Some(Fault::Switchover | Fault::StopPrimary)) => rng.between(200, 20_000),
            0..=3 => rng.between(500, 60_000),
            4..=6 => rng.between(20_000, 500_000),
            _ => rng.between(400_000, 1_800_000),
        }
    }
}

impl World {
    /// A run of what is on the list, which lasts until that time at least before everything is mended; all else is as the
    /// configuration says.
    #[must_use]
    pub fn from_list(config: SimConfig, deeds: Vec<Deed>, until_us: u64) -> Self {
        let plan = Plan::given(&config, deeds, until_us);
        let mut world = Self::new(config);
        world.plan = plan;
        world
    }

    /// What has been done to the cluster so far.
    #[must_use]
    pub fn deeds(&self) -> &[Deed] {
        &self.plan.done
    }

    /// Everything of an ordinary run: boots, lets the plan happen, mends, and looks.
    pub fn run(&mut self) {
        self.schedule_plan();
        self.boot();
        let enough = |w: &Self| {
            let written = !w.plan.draws_requests() || w.counts.writes >= w.config.writes;
            written && w.plan.left() == 0
        };
        let progress = self.run_until(90_000, enough);
        if self.violation().is_some() {
            return;
        }
        if !progress {
            let (writes, left) = (self.counts.writes, self.plan.left());
            let what = format!("no progress though every fault is mended: {writes} writes, {left} faults to come");
            return self.fail("a_healthy_cluster_ends_up_dual", what);
        }
        if let Source::Given { until_us, .. } = self.plan.source {
            while self.queue.peek().is_some_and(|next| next.at_us < until_us) && self.step() {}
        }
        self.plan_ended_us = self.now_us;
        self.finish();
        self.counts.simulated_ms = self.now_ms();
    }

    /// Starts both nodes and a client.
    pub fn boot(&mut self) {
        let first = if self.rng.coin() { NodeId::A } else { NodeId::B };
        self.start_node(first);
        let between = self.rng.below(20);
        self.run_for(between);
        self.start_node(first.other());
        self.start_client();
    }

    fn schedule_plan(&mut self) {
        match &mut self.plan.source {
            Source::Drawn { rng, .. } => {
                let first = rng.between(50_000, 400_000);
                self.after(first, Ev::Fault);
            }
            Source::Given { deeds, .. } => {
                let times: Vec<u64> = deeds.iter().map(|deed| deed.at_us).collect();
                times.into_iter().enumerate().for_each(|(at, time)| self.after(time, Ev::Deed(at)));
            }
        }
    }

    /// The next of the list.
    pub(crate) fn next_deed(&mut self, at: usize) {
        let Source::Given { deeds, next, .. } = &mut self.plan.source else { return };
        let deed = deeds[at];
        *next = at + 1;
        match deed.what {
            What::Fault { fault, dice } => {
                self.apply_by(fault, dice);
            }
            What::Request { client, request } => {
                let there = self.clients.get(client).is_some_and(|c| c.ended.is_none() && c.machine.is_some());
                if let Some(client) = if there { Some(client) } else { self.live_client() } {
                    self.ask(client, request);
                }
            }
        }
    }

    /// The next fault is drawn; some are not possible now.
    pub(crate) fn strike(&mut self) {
        if self.plan.left() == 0 {
            return;
        }
        let mut struck = None;
        for _ in 0..20 {
            let (fault, dice) = self.plan.draw();
            if self.apply_by(fault, dice) {
                self.plan.struck(fault);
                struck = Some(fault);
                break;
            }
        }
        let gap = self.plan.gap(struck);
        self.after(gap, Ev::Fault);
    }

    /// A fault, all of whose chances come from its dice.
    fn apply_by(&mut self, fault: Fault, dice: u64) -> bool {
        let noise = std::mem::replace(&mut self.rng, Rng::new(dice));
        let struck = self.apply(fault);
        self.rng = noise;
        if struck {
            self.counts.fault(fault.name());
            self.plan.done.push(Deed { at_us: self.now_us, what: What::Fault { fault, dice } });
        }
        struck
    }

    /// A client is asked for something, and the list says so.
    pub(crate) fn ask(&mut self, client: usize, request: Request) {
        let Request { write, lba, blocks } = request;
        let taken = match write {
            Some(kind) => self.write(client, kind, lba, blocks).is_some(),
            None => self.read(client, lba, blocks).is_some(),
        };
        if taken {
            self.plan.done.push(Deed { at_us: self.now_us, what: What::Request { client, request } });
        }
    }
}
