//! A pair that is attacked, and the honest client beside the attacker.

use std::time::{Duration, Instant};

use twinsan_auth::Key;
use twinsan_control::admin::VolumeStatus;
use twinsan_wire::{ClientMsg, Generation, Refusal, Seq};

use super::client::Client;
use super::raw::Raw;
use super::{Cluster, PATIENCE, VOLUME};

const BLOCK: usize = 4096;
/// Between two looks at something that is awaited.
const LOOK: Duration = Duration::from_millis(5);
/// Blobs that the honest client has staged at most.
const WINDOW: u64 = 512;
/// Descriptors that come with a node's role, and with the admin socket's clients.
const MAX_MORE_HANDLES: usize = 4;
/// A busy machine's pauses are not what is looked for: who is dropped here was dropped for an attack.
const PATIENT: &str = "[timing]\ntakeover_ms = 8000\ndrop_ms = 5000\njoin_ms = 10000\n";
/// What an attack may leave a node with: its allocator's own, and not what each attack adds to.
const MAX_GROWTH_KIB: u64 = 64 << 10;

/// Two nodes with a key, dual.
pub(crate) struct Site {
    pub(crate) cluster: Cluster,
    pub(crate) primary: usize,
    pub(crate) secondary: usize,
    key: Key,
}

/// A node before an attack.
pub(crate) struct Before {
    epochs: [u64; 2],
    handles: [usize; 2],
    memory_kib: [u64; 2],
}

impl Site {
    pub(crate) fn new() -> Self {
        Self::with_timing(PATIENT)
    }

    /// One whose nodes give each other up when they usually do.
    pub(crate) fn impatient() -> Self {
        Self::with_timing("")
    }

    fn with_timing(timing: &str) -> Self {
        let mut cluster = Cluster::new(&format!("staging = \"4 MiB\"\nkey_file = \"db.key\"\n{timing}"));
        let key = Key::load(&cluster.write_key("0123456789abcdef0123456789abcdef")).unwrap();
        cluster.start(0);
        cluster.start(1);
        let primary = cluster.wait_dual();
        Self { cluster, primary, secondary: 1 - primary, key }
    }

    pub(crate) fn key(&self) -> Option<Key> {
        Some(self.key.clone())
    }

    pub(crate) fn address(&self, node: usize) -> String {
        self.cluster.config().nodes[node].listen[0].to_string()
    }

    /// A client's connection with the right key, without a session.
    pub(crate) fn client(&self, node: usize) -> Client {
        Client::connect(&self.address(node), VOLUME, self.key())
    }

    /// A connection that has said nothing.
    pub(crate) fn raw(&self, node: usize) -> Raw {
        Raw::connect(&self.address(node))
    }

    pub(crate) fn volume(&self, node: usize) -> VolumeStatus {
        self.cluster.wait(node, "there", |_| true)
    }

    pub(crate) fn counter(&self, node: usize, name: &str) -> u64 {
        self.volume(node).counters[name]
    }

    /// How the nodes stand, with only the honest client there.
    pub(crate) fn before(&self) -> Before {
        let nodes = [0, 1];
        Before {
            epochs: nodes.map(|node| self.volume(node).epoch),
            handles: nodes.map(|node| self.cluster.handles(node)),
            memory_kib: nodes.map(|node| self.cluster.memory_kib(node)),
        }
    }

    /// Waits until both count, whoever serves. Who was fenced, which kills it here, is started again.
    pub(crate) fn wait_dual_again(&mut self) {
        let begin = Instant::now();
        loop {
            let ended: Vec<usize> = [0, 1].into_iter().filter(|&node| self.cluster.has_ended(node)).collect();
            ended.iter().for_each(|&node| self.cluster.start(node));
            let dual = |node| self.cluster.status(node).is_some_and(|status| status.volumes[0].dual);
            if dual(0) && dual(1) && ended.is_empty() {
                self.primary = self.cluster.wait_dual();
                self.secondary = 1 - self.primary;
                return;
            }
            assert!(begin.elapsed() < PATIENCE, "they do not become a pair again");
            std::thread::sleep(LOOK);
        }
    }

    /// The pair is as it was: nobody was dropped or took over meanwhile, and the attackers have left nothing behind.
    #[track_caller]
    pub(crate) fn is_whole(&self, before: &Before) {
        assert_eq!(self.cluster.wait_dual(), self.primary);
        assert_eq!([0, 1].map(|node| self.volume(node).epoch), before.epochs, "nobody was dropped");
        self.is_lean(before);
    }

    /// Descriptors and memory are what they were.
    #[track_caller]
    pub(crate) fn is_lean(&self, before: &Before) {
        for node in [0, 1] {
            let begin = Instant::now();
            while self.cluster.handles(node) > before.handles[node] + MAX_MORE_HANDLES {
                let (now, then) = (self.cluster.handles(node), before.handles[node]);
                assert!(begin.elapsed() < PATIENCE, "node {node} has {now} descriptors open, and had {then}");
                std::thread::sleep(LOOK);
            }
            let (now, then) = (self.cluster.memory_kib(node), before.memory_kib[node]);
            assert!(now < then + MAX_GROWTH_KIB, "node {node} has {now} KiB, and had {then}");
        }
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("san1:\n{}\nsan2:\n{}", self.cluster.log(0), self.cluster.log(1));
        }
    }
}

/// A client that keeps to the protocol, at both nodes.
pub(crate) struct Honest {
    pub(crate) at_primary: Client,
    pub(crate) at_secondary: Client,
    /// Every block's number of the write that it holds.
    written: Vec<u64>,
    writes: u64,
}

impl Honest {
    /// Opens a session, in place of one that is no newer than `over`.
    pub(crate) fn attach(site: &Site, over: Generation) -> Self {
        let mut at_primary = site.client(site.primary);
        at_primary.try_attach(over).unwrap();
        let mut at_secondary = site.client(site.secondary);
        let epoch = at_primary.epoch.0;
        let begin = Instant::now();
        loop {
            site.cluster.wait(site.secondary, "in the session's epoch", |volume| volume.epoch >= epoch);
            match at_secondary.resume(at_primary.generation, Seq(1)) {
                Ok(()) => break,
                Err(Refusal::NotReady) if begin.elapsed() < PATIENCE => {}
                Err(why) => panic!("refused: {why:?}"),
            }
        }
        Self { at_primary, at_secondary, written: vec![0; 97], writes: 0 }
    }

    pub(crate) fn generation(&self) -> Generation {
        self.at_primary.generation
    }

    /// Writes a block, which completes, and reads one back.
    #[track_caller]
    pub(crate) fn works(&mut self) {
        self.writes += 1;
        let (lba, number) = (self.place(self.writes), self.writes);
        self.written[lba] = number;
        let payload = content(number);
        let blob = self.at_primary.blob(lba as u64, &payload);
        self.at_primary.post(&blob);
        self.at_secondary.mirror(&blob, &payload);
        self.at_primary.send(&ClientMsg::Heartbeat);
        self.at_secondary.send(&ClientMsg::Heartbeat);
        self.at_primary.wait_durable(blob.blob.seq);
        let lba = self.place(self.writes / 2 + 1);
        assert!(self.at_primary.read(lba as u64, 1) == content(self.written[lba]), "block {lba}");
        self.wait_room(blob.blob.seq);
    }

    /// The block of a write.
    fn place(&self, number: u64) -> usize {
        usize::try_from(number).unwrap() * 31 % self.written.len()
    }

    /// All that it has written.
    #[track_caller]
    pub(crate) fn reads_all_back(&mut self) {
        for (lba, bytes) in self.contents() {
            assert!(self.at_primary.read(lba, 1) == bytes, "block {lba}");
        }
    }

    /// What each block must hold that it has written.
    pub(crate) fn contents(&self) -> Vec<(u64, Vec<u8>)> {
        let written = (0..).zip(&self.written).filter(|&(_, &number)| number > 0);
        written.map(|(lba, &number)| (lba, content(number))).collect()
    }

    #[track_caller]
    fn wait_room(&mut self, seq: Seq) {
        let begin = Instant::now();
        loop {
            assert!(self.at_primary.is_connected() && self.at_secondary.is_connected(), "cut off");
            let released = self.at_primary.released().min(self.at_secondary.released());
            if seq.0 - released.0 < WINDOW {
                return;
            }
            assert!(begin.elapsed() < PATIENCE, "lane space does not come back: {released} of {seq} is released");
            std::thread::sleep(LOOK);
        }
    }
}

/// What write `number` puts into a block.
fn content(number: u64) -> Vec<u8> {
    number.to_le_bytes().repeat(BLOCK / 8)
}
