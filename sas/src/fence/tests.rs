//! The holder is a process of its own: this test program again, started with [`CHILD`] set, so that it can be killed.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::FileExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use twinsan_wire::{BlobKind, Lba, NodeId};

use super::{Fence, FenceError, LocalLock, LocalLockTiming};
use crate::disk::{ClaimedDisk, QueueOptions, SharedReader, Source, Waker};
use crate::layout;
use crate::superblock::slots::Expected;
use crate::superblock::{Heartbeat, ProcessStamp, VolumeIdentity};
use crate::testing::{PATIENCE, arena, incarnation, scratch, volume};
use crate::volume::{BlockWrite, VolumeDisk, VolumeOp};

/// What the child does: `fence`, `claim` (without a word about it), `write` (fence, then write for ever), `idle`.
const CHILD: &str = "TWINSAN_TEST_CHILD";
const DISK: &str = "TWINSAN_TEST_DISK";
const BYTES: u64 = 4 << 20;

fn identity(path: &Path) -> VolumeIdentity {
    let reader = SharedReader::open(path).expect("open");
    reader.read_slots(&Expected::default()).expect("a volume").best.identity
}

fn lock(path: &Path, node: NodeId, timing: LocalLockTiming) -> LocalLock {
    let reader = SharedReader::open(path).expect("open");
    LocalLock::new(&reader, identity(path).uuid, node, timing).expect("fence")
}

fn patient() -> LocalLockTiming {
    LocalLockTiming { unknown: PATIENCE, dying: PATIENCE, free: PATIENCE, ..LocalLockTiming::default() }
}

fn hasty() -> LocalLockTiming {
    LocalLockTiming { unknown: Duration::from_millis(30), dying: PATIENCE, ..LocalLockTiming::default() }
}

fn heartbeat(path: &Path, node: NodeId) -> Option<Heartbeat> {
    SharedReader::open(path).expect("open").read_heartbeat(node, identity(path).uuid).expect("whole")
}

/// A child process, killed when dropped.
struct Holder {
    child: Child,
    out: BufReader<ChildStdout>,
}

impl Holder {
    fn start(what: &str, path: &Path) -> Self {
        let mut child = Command::new(std::env::current_exe().expect("own path"))
            .args(["--exact", "fence::tests::child", "--ignored", "--nocapture", "--test-threads=1"])
            .env(CHILD, what)
            .env(DISK, path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("spawn");
        let out = BufReader::new(child.stdout.take().expect("piped"));
        let mut holder = Self { child, out };
        holder.hear("ready");
        holder
    }

    fn hear(&mut self, word: &str) {
        let mut line = String::new();
        while !line.contains(word) {
            line.clear();
            assert_ne!(self.out.read_line(&mut line).expect("read"), 0, "the child ended before it said {word:?}");
        }
    }

    fn tell(&mut self) {
        self.child.stdin.as_mut().expect("piped").write_all(b"go\n").expect("write");
    }

    fn is_alive(&mut self) -> bool {
        self.child.try_wait().expect("wait").is_none()
    }

    fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).expect("kill");
    }

    fn killed_by(mut self) -> Option<i32> {
        self.child.wait().expect("wait").signal()
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// The child's program; as a test of this process it has nothing to do.
#[test]
#[ignore = "a child of the other tests"]
fn child() {
    let Ok(what) = std::env::var(CHILD) else { return };
    let path = PathBuf::from(std::env::var_os(DISK).expect("set beside it"));
    let mut fence = lock(&path, NodeId::A, patient());
    match what.as_str() {
        "write" => write_for_ever(&path, &mut fence),
        "idle" => {
            println!("ready");
            wait_for_word();
        }
        "fence" => {
            let claim = fence.fence(incarnation(1)).expect("free");
            println!("ready");
            wait_for_word();
            fence.release(Some(claim));
            println!("released");
            wait_for_word();
        }
        "claim" => {
            let claim = ClaimedDisk::try_claim(&path).expect("open").expect("free");
            println!("ready");
            wait_for_word();
            fence.announce(&claim, incarnation(1)).expect("write");
            println!("announced");
            wait_for_word();
        }
        other => panic!("no such child: {other}"),
    }
}

/// Returns at the parent's word, or when it is gone.
fn wait_for_word() {
    std::io::stdin().read_line(&mut String::new()).expect("stdin");
}

fn write_for_ever(path: &Path, fence: &mut LocalLock) {
    let memory = arena(1 << 20);
    memory.copy_in(0, &vec![0xcc; 1 << 20]);
    let reader = SharedReader::open(path).expect("open");
    let waker = Waker::new().expect("eventfd");
    let options = QueueOptions::default();
    let mut disk = VolumeDisk::new(reader, identity(path), NodeId::A, vec![memory], waker, &options).expect("disk");
    disk.fence(fence, incarnation(1)).expect("free");
    let (mut token, mut said, mut out) = (0, false, Vec::new());
    loop {
        while disk.pending() < 8 {
            // Each of them every other block of the whole volume, so many requests are in flight all the time.
            let write =
                |i: u64| BlockWrite { lba: Lba(2 * i), blocks: 1, source: Source::Arena { arena: 0, offset: 0 } };
            disk.start(VolumeOp::Write((0..512).map(write).collect()), token);
            token += 1;
        }
        disk.wait(None, &mut out).expect("ring");
        if !said && !out.is_empty() {
            println!("ready");
            said = true;
        }
        out.clear();
    }
}

#[test]
fn a_free_disk_is_taken_and_said_so() {
    let dir = scratch();
    let (path, _) = volume(&dir, BYTES);
    let mut fence = lock(&path, NodeId::B, hasty());
    fence.admit().expect("readable");
    let claim = fence.fence(incarnation(7)).expect("free");
    let beat = heartbeat(&path, NodeId::B).expect("written");
    assert!(beat.holder);
    assert_eq!((beat.incarnation, beat.process), (incarnation(7), ProcessStamp::current().expect("/proc")));
    assert!(fence.check(Some(&claim)).expect("it knows"));
    // A second description of the same process does not get it, and the process does not kill itself for it.
    assert!(ClaimedDisk::try_claim(&path).expect("open").is_none());
    let own = lock(&path, NodeId::A, hasty()).fence(incarnation(8)).expect_err("held here");
    assert!(matches!(own, FenceError::OwnProcess) && own.is_lost());
    // Opening and closing the disk elsewhere in the process drops nothing: the lock is the description's.
    drop(std::fs::File::options().read(true).write(true).open(&path).expect("open"));
    assert!(ClaimedDisk::try_claim(&path).expect("open").is_none());

    fence.release(Some(claim));
    assert!(!heartbeat(&path, NodeId::B).expect("written").holder);
    assert!(!fence.check(None).expect("it knows"));
    let again = fence.fence(incarnation(9)).expect("free again");
    assert!(heartbeat(&path, NodeId::B).expect("written").beat > beat.beat, "the heart goes on");
    drop(again);
}

#[test]
fn the_holder_is_killed_even_when_it_is_frozen() {
    for frozen in [false, true] {
        let dir = scratch();
        let (path, _) = volume(&dir, BYTES);
        let holder = Holder::start("fence", &path);
        if frozen {
            holder.signal(rustix::process::Signal::STOP);
        }
        let mut fence = lock(&path, NodeId::B, patient());
        let claim = fence.fence(incarnation(2)).expect("the holder dies");
        assert_eq!(holder.killed_by(), Some(libc::SIGKILL));
        assert!(heartbeat(&path, NodeId::B).expect("written").holder);
        assert!(!heartbeat(&path, NodeId::A).expect("written").holder, "the dead one's flag is gone");
        drop(claim);
    }
}

#[test]
fn nothing_of_a_killed_holder_lands_after_the_fence() {
    for _ in 0..3 {
        let dir = scratch();
        let (path, _) = volume(&dir, BYTES);
        let holder = Holder::start("write", &path);
        let claim = lock(&path, NodeId::B, patient()).fence(incarnation(2)).expect("the holder dies");
        let pattern = vec![0xdd; usize::try_from(BYTES).expect("small")];
        let file = std::fs::File::options().read(true).write(true).open(&path).expect("open");
        file.write_all_at(&pattern, layout::DATA_OFFSET).expect("write");
        file.sync_all().expect("sync");
        assert_eq!(holder.killed_by(), Some(libc::SIGKILL));
        for page in (layout::DATA_OFFSET..layout::DATA_OFFSET + BYTES).step_by(layout::PAGE_BYTES) {
            let page = claim.read_page(page).expect("read");
            assert!(page.0.iter().all(|&b| b == 0xdd), "an old write has landed");
        }
    }
}

#[test]
fn a_released_disk_is_taken_without_a_kill() {
    let dir = scratch();
    let (path, _) = volume(&dir, BYTES);
    let mut holder = Holder::start("fence", &path);
    holder.tell();
    holder.hear("released");
    let claim = lock(&path, NodeId::B, hasty()).fence(incarnation(2)).expect("free");
    assert!(holder.is_alive());
    drop(claim);
}

/// Rule 13: the claim moves, and the one who gave it is still let in.
#[test]
fn a_yielded_claim_is_accepted_and_handed_back() {
    let dir = scratch();
    let (path, _) = volume(&dir, BYTES);
    let [mut first, mut second] = NodeId::BOTH.map(|node| lock(&path, node, hasty()));
    let mut claim = first.fence(incarnation(1)).expect("free");
    for _ in 0..3 {
        second.admit().expect("readable");
        first.yield_claim(claim);
        assert!(!heartbeat(&path, NodeId::A).expect("written").holder, "nobody may be killed for what he let go");
        assert!(first.check(None).expect("it knows"), "still let in");
        claim = second.accept(incarnation(2)).expect("free");
        let beat = heartbeat(&path, NodeId::B).expect("written");
        assert_eq!((beat.holder, beat.incarnation), (true, incarnation(2)));
        second.yield_claim(claim);
        claim = first.accept(incarnation(1)).expect("free");
        assert!(heartbeat(&path, NodeId::A).expect("written").holder);
    }
}

/// Rule 13: accepting fences nobody.
#[test]
fn a_claim_that_is_not_free_is_not_accepted_and_its_holder_lives() {
    let dir = scratch();
    let (path, _) = volume(&dir, BYTES);
    let mut holder = Holder::start("fence", &path);
    let timing = LocalLockTiming { free: Duration::from_millis(30), ..hasty() };
    let error = lock(&path, NodeId::B, timing).accept(incarnation(2)).expect_err("held");
    assert!(matches!(error, FenceError::NotFree { .. }) && error.is_lost(), "{error}");
    assert!(holder.is_alive());
    // A holder that is just letting go is waited for.
    holder.tell();
    lock(&path, NodeId::B, patient()).accept(incarnation(2)).expect("released");
    assert!(holder.is_alive());
}

#[test]
fn a_holder_that_has_not_said_so_is_waited_for() {
    let dir = scratch();
    let (path, _) = volume(&dir, BYTES);
    let mut holder = Holder::start("claim", &path);
    let error = lock(&path, NodeId::B, hasty()).fence(incarnation(2)).expect_err("unknown holder");
    assert!(matches!(error, FenceError::Unknown { .. }) && error.is_lost(), "{error}");
    assert!(holder.is_alive(), "nobody is killed on a guess");
    let fencing = {
        let path = path.clone();
        std::thread::spawn(move || lock(&path, NodeId::B, patient()).fence(incarnation(2)).map(drop))
    };
    holder.tell();
    fencing.join().expect("thread").expect("it said so, and died");
    assert_eq!(holder.killed_by(), Some(libc::SIGKILL));
}

/// Writes node A's heartbeat block as if `bystander` had, changed by `change`, while another child holds the claim;
/// then fences, which has to fail without killing either.
fn nobody_dies(change: impl FnOnce(&mut Heartbeat)) -> FenceError {
    let dir = scratch();
    let (path, _) = volume(&dir, BYTES);
    let mut bystander = Holder::start("fence", &path);
    let mut beat = heartbeat(&path, NodeId::A).expect("the bystander's own");
    bystander.tell();
    bystander.hear("released");
    change(&mut beat);
    let claim = ClaimedDisk::try_claim(&path).expect("open").expect("free");
    claim.write_page(layout::heartbeat_offset(NodeId::A), &beat.encode()).expect("write");
    drop(claim);
    let mut holder = Holder::start("claim", &path);
    let error = lock(&path, NodeId::B, hasty()).fence(incarnation(2)).expect_err("the holder is unknown");
    assert!(bystander.is_alive() && holder.is_alive(), "{error}");
    error
}

#[test]
fn a_process_that_is_not_the_holder_is_never_killed() {
    let later = nobody_dies(|beat| beat.process.start_ticks += 1);
    assert!(matches!(later, FenceError::Unknown { .. }), "the pid is another process's now: {later}");
    let unflagged = nobody_dies(|beat| beat.holder = false);
    assert!(matches!(unflagged, FenceError::Unknown { .. }), "{unflagged}");
    let old_boot = nobody_dies(|beat| beat.process.boot_id = [0; 16]);
    assert!(matches!(old_boot, FenceError::Unknown { .. }), "{old_boot}");
    let elsewhere = nobody_dies(|beat| beat.process.pid_namespace += 1);
    assert!(matches!(elsewhere, FenceError::Elsewhere { .. }) && elsewhere.is_lost(), "{elsewhere}");
}

/// Node A's heartbeat block as a process on another host writes it, `beat` times.
fn beat_of_another_host(path: &Path, beat: u64) {
    let mut process = ProcessStamp::current().expect("/proc");
    process.boot_id = [0xb0; 16];
    let (volume, node) = (identity(path).uuid, NodeId::A);
    let page = Heartbeat { volume, node, incarnation: incarnation(1), beat, process, holder: true }.encode();
    // Beside the claim, as another host would: it knows nothing of this kernel's.
    let file = std::fs::File::options().write(true).open(path).expect("open");
    file.write_all_at(&page.0, layout::heartbeat_offset(node)).expect("write");
    file.sync_all().expect("sync");
}

#[test]
fn a_disk_that_is_held_on_another_host_is_left_alone() {
    let dir = scratch();
    let (path, _) = volume(&dir, BYTES);
    let timing = LocalLockTiming { elsewhere: PATIENCE, ..hasty() };
    beat_of_another_host(&path, 1);
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for beat in 2.. {
                if over.load(Ordering::Relaxed) {
                    return;
                }
                beat_of_another_host(&path, beat);
            }
        });
        let joining = lock(&path, NodeId::B, timing).admit();
        let taking = lock(&path, NodeId::B, timing).fence(incarnation(2)).map(drop);
        over.store(true, Ordering::Relaxed);
        for refused in [joining, taking] {
            let error = refused.expect_err("another kernel's claim is not seen here");
            assert!(matches!(error, FenceError::Elsewhere { .. }) && error.is_lost(), "{error}");
        }
    });
    assert!(heartbeat(&path, NodeId::B).is_none(), "nothing was written");
    // What a boot before this one has left behind does not beat.
    let timing = LocalLockTiming { elsewhere: Duration::from_millis(30), ..hasty() };
    let claim = lock(&path, NodeId::B, timing).fence(incarnation(2)).expect("nobody is there");
    assert!(!heartbeat(&path, NodeId::A).expect("written").holder, "its flag is gone");
    drop(claim);
}

#[test]
fn a_fence_is_for_the_disk_that_is_read() {
    let dir = scratch();
    let (path, _) = volume(&dir, BYTES);
    let reader = SharedReader::open(&path).expect("open");
    let uuid = identity(&path).uuid;
    let mut fence = LocalLock::new(&reader, uuid, NodeId::A, hasty()).expect("fence");
    std::fs::rename(&path, dir.path().join("moved")).expect("rename");
    std::fs::copy(dir.path().join("moved"), &path).expect("copy");
    let error = fence.fence(incarnation(1)).expect_err("another disk");
    assert!(!error.is_lost(), "{error}");
    assert!(LocalLock::new(&reader, uuid, NodeId::A, hasty()).is_err());
}

#[test]
fn two_pass_the_claim_to_and_fro_through_the_queue() {
    let dir = scratch();
    let (path, report) = volume(&dir, BYTES);
    let options = QueueOptions::default();
    let open = |node| {
        let (reader, waker) = (SharedReader::open(&path).expect("open"), Waker::new().expect("eventfd"));
        VolumeDisk::new(reader, report.identity, node, vec![arena(4096)], waker, &options).expect("disk")
    };
    let mut sides = NodeId::BOTH.map(|node| (open(node), lock(&path, node, hasty())));
    for round in 0..6_u64 {
        let (disk, fence) = &mut sides[usize::from(round % 2 == 1)];
        disk.fence(fence, incarnation(round + 1)).expect("free");
        disk.fence(fence, incarnation(round + 1)).expect("held already");
        assert!(disk.check(fence).expect("it knows"));
        let zeros = Source::Zeros(BlobKind::Zeroes);
        disk.start(VolumeOp::Write(vec![BlockWrite { lba: Lba(round), blocks: 1, source: zeros }]), round);
        let mut out = Vec::new();
        while out.is_empty() {
            disk.wait(Some(PATIENCE), &mut out).expect("ring");
        }
        assert!(out[0].result.is_ok(), "{out:?}");
        disk.release(fence);
    }
}

/// Needs a block device that may be overwritten, for example a loop device, in `TWINSAN_TEST_BLOCK_DEVICE`.
#[test]
#[ignore = "overwrites the block device in TWINSAN_TEST_BLOCK_DEVICE"]
fn a_block_device_is_claimed_fenced_and_zeroed() {
    let path = PathBuf::from(std::env::var_os("TWINSAN_TEST_BLOCK_DEVICE").expect("TWINSAN_TEST_BLOCK_DEVICE"));
    let options = crate::format::FormatOptions { force: true, ..crate::testing::format_options(path.clone(), None) };
    let report = crate::format::format(&options).expect("format");
    assert_eq!(report.geometry.kind, crate::disk::DeviceKind::Block);
    let holder = Holder::start("write", &path);
    let in_use = crate::format::format(&options).expect_err("claimed with O_EXCL");
    assert!(matches!(in_use, crate::format::FormatError::InUse { .. }), "{in_use}");
    let mut fence = lock(&path, NodeId::B, patient());
    let (reader, waker) = (SharedReader::open(&path).expect("readers need no claim"), Waker::new().expect("eventfd"));
    let memory = arena(1 << 20);
    let queue = QueueOptions::default();
    let mut disk =
        VolumeDisk::new(reader, report.identity, NodeId::B, vec![memory.clone()], waker, &queue).expect("disk");
    disk.fence(&mut fence, incarnation(2)).expect("the holder dies");
    assert_eq!(holder.killed_by(), Some(libc::SIGKILL));
    memory.copy_in(0, &vec![0xee; 1 << 20]);
    let staged = |lba| BlockWrite { lba: Lba(lba), blocks: 256, source: Source::Arena { arena: 0, offset: 0 } };
    let zeros = |lba, kind| BlockWrite { lba: Lba(lba), blocks: 64, source: Source::Zeros(kind) };
    let batches = [vec![staged(0), staged(256)], vec![zeros(0, BlobKind::Discard), zeros(300, BlobKind::Zeroes)]];
    let read = crate::volume::BlockRead { lba: Lba(0), blocks: 256, arena: 0, offset: 0 };
    let read_on = crate::volume::BlockRead { lba: Lba(256), ..read };
    let mut run = |op| {
        disk.start(op, 1);
        let mut out = Vec::new();
        while out.is_empty() {
            disk.wait(Some(PATIENCE), &mut out).expect("ring");
        }
        assert!(out[0].result.is_ok(), "{out:?}");
    };
    for batch in batches {
        run(VolumeOp::Write(batch));
    }
    for (op, zeroed) in [(read, 0..64), (read_on, 44..108)] {
        run(VolumeOp::Read(vec![op]));
        let mut block = [0; 4096];
        for at in 0..256 {
            memory.copy_out(at * 4096, &mut block);
            let want = if zeroed.contains(&at) { 0 } else { 0xee };
            assert_eq!(block, [want; 4096], "block {at} from {}", op.lba);
        }
    }
    disk.release(&mut fence);
}
