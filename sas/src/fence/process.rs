//! Which process is which.

use std::fs;
use std::io;

use rustix::process::{Pid, PidfdFlags, Signal};

use crate::superblock::ProcessStamp;

impl ProcessStamp {
    /// This process.
    ///
    /// # Errors
    /// /proc is not mounted, or does not look like Linux's.
    pub fn current() -> io::Result<Self> {
        let pid = std::process::id();
        let start_ticks = start_ticks(pid)?.ok_or_else(|| bad("/proc/self/stat", "this process is not in it"))?;
        // A kernel without CONFIG_PID_NS has one namespace, and no number for it.
        let pid_namespace = match rustix::fs::stat("/proc/self/ns/pid") {
            Ok(stat) => stat.st_ino,
            Err(rustix::io::Errno::NOENT) => 0,
            Err(e) => return Err(e.into()),
        };
        Ok(Self { pid, start_ticks, boot_id: boot_id()?, pid_namespace })
    }

    /// Whether the other one's pid means something here: the same boot, the same pid namespace.
    #[must_use]
    pub fn sees(&self, other: &Self) -> bool {
        self.boot_id == other.boot_id && self.pid_namespace == other.pid_namespace
    }
}

/// What came of trying to kill a process.
#[derive(Debug)]
pub(super) enum Kill {
    /// SIGKILL is on its way to it.
    Sent,
    /// It, as stamped, does not exist any more, or `still` says that it need not die.
    Gone,
    /// The kernel refuses.
    Refused(io::Error),
}

/// Kills the very process of `stamp`, which [`ProcessStamp::sees`] has found to be on this host.
///
/// The pidfd pins a process, the start time read after it was opened tells whether it is the stamped one, and `still`
/// says whether it is still to be killed, with all that in hand: no other process can be hit.
pub(super) fn kill(stamp: &ProcessStamp, still: impl FnOnce() -> bool) -> Kill {
    assert_ne!(stamp.pid, std::process::id(), "a fence never kills its own process");
    let Some(pid) = i32::try_from(stamp.pid).ok().and_then(Pid::from_raw) else { return Kill::Gone };
    let pidfd = match rustix::process::pidfd_open(pid, PidfdFlags::empty()) {
        Ok(pidfd) => pidfd,
        Err(rustix::io::Errno::SRCH) => return Kill::Gone,
        Err(e) => return Kill::Refused(e.into()),
    };
    match start_ticks(stamp.pid) {
        Ok(Some(ticks)) if ticks == stamp.start_ticks => {}
        Ok(_) => return Kill::Gone,
        Err(e) => return Kill::Refused(e),
    }
    if !still() {
        return Kill::Gone;
    }
    match rustix::process::pidfd_send_signal(&pidfd, Signal::KILL) {
        Ok(()) => Kill::Sent,
        Err(rustix::io::Errno::SRCH) => Kill::Gone,
        Err(e) => Kill::Refused(e.into()),
    }
}

/// Whether the very process of `stamp` exists (a zombie does).
pub(super) fn exists(stamp: &ProcessStamp) -> io::Result<bool> {
    Ok(start_ticks(stamp.pid)? == Some(stamp.start_ticks))
}

/// When a process started, in clock ticks since boot; `None`: no such process.
fn start_ticks(pid: u32) -> io::Result<Option<u64>> {
    let path = format!("/proc/{pid}/stat");
    let text = match fs::read(&path) {
        Ok(text) => text,
        // ESRCH: it ended between open and read.
        Err(e) if e.kind() == io::ErrorKind::NotFound || e.raw_os_error() == Some(libc::ESRCH) => return Ok(None),
        Err(e) => return Err(e),
    };
    parse_start_ticks(&text).map(Some).ok_or_else(|| bad(&path, "no start time in it"))
}

/// Field 22 of proc_pid_stat(5). Field 2, the program's name in parentheses, may hold anything, `)` and spaces too.
fn parse_start_ticks(stat: &[u8]) -> Option<u64> {
    let name_end = stat.iter().rposition(|&b| b == b')')?;
    let after = core::str::from_utf8(&stat[name_end + 1..]).ok()?;
    after.split_ascii_whitespace().nth(22 - 3)?.parse().ok()
}

fn boot_id() -> io::Result<[u8; 16]> {
    const PATH: &str = "/proc/sys/kernel/random/boot_id";
    parse_boot_id(&fs::read_to_string(PATH)?).ok_or_else(|| bad(PATH, "not a UUID"))
}

fn parse_boot_id(text: &str) -> Option<[u8; 16]> {
    let hex: Vec<u8> = text.trim().bytes().filter(|&b| b != b'-').collect();
    let mut id = [0; 16];
    if hex.len() != 2 * id.len() {
        return None;
    }
    for (byte, pair) in id.iter_mut().zip(hex.chunks_exact(2)) {
        *byte = u8::from_str_radix(core::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(id)
}

fn bad(path: &str, what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{path}: {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn start_time_is_found_behind_any_name() {
        let rest = "S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4242 20";
        for name in ["cat", "a b", "a) R 1 (b", ")", ""] {
            assert_eq!(parse_start_ticks(format!("77 ({name}) {rest}").as_bytes()), Some(4242), "{name}");
        }
        assert_eq!(parse_start_ticks(b"77 (cat) S 1 2 3"), None);
        assert_eq!(parse_start_ticks(b"77 cat S"), None);
    }

    #[test]
    fn boot_id_is_a_uuid() {
        let id = parse_boot_id("0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0\n");
        assert_eq!(id.map(|id| (id[0], id[15])), Some((0x0f, 0xf0)));
        assert_eq!(parse_boot_id("0f1e2d3c"), None);
        assert_eq!(parse_boot_id("zf1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0"), None);
    }

    #[test]
    fn this_process_exists_and_one_with_another_start_time_does_not() {
        let me = ProcessStamp::current().expect("/proc");
        assert!(exists(&me).expect("/proc"));
        let earlier = ProcessStamp { start_ticks: me.start_ticks - 1, ..me };
        assert!(!exists(&earlier).expect("/proc"));
        assert!(me.sees(&earlier));
        assert!(!me.sees(&ProcessStamp { pid_namespace: me.pid_namespace + 1, ..me }));
        assert!(!me.sees(&ProcessStamp { boot_id: [0; 16], ..me }));
    }
}
