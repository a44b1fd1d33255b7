//! The io_uring ring: takes transfers, owns all that the kernel was pointed to, gives them back when they have ended.
//!
//! **The invariant that every SAFETY note here leans on:** whatever memory a request in flight points to (the arenas,
//! the page inside its transfer, the zeros, its list of pieces) is owned by the ring, stays where it is, and is not
//! given up before the request's completion has been seen. [`Ring::drop`] waits for the last one.
//!
//! The claimed file is not registered in the ring, on purpose: a registered file is let go only when the kernel gets
//! round to tearing the ring down, some time after the process has died, and with it the claim that the other node
//! waits for. Not registered, it is closed with the process, after its last request. A few hundred nanoseconds per
//! request are a small price for milliseconds of takeover.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::Duration;

use io_uring::types::{Fd, FsyncFlags, SubmitArgs, Timespec};
use io_uring::{IoUring, Probe, opcode, squeue};
use libc::iovec;

use super::Waker;
use super::buffers::{Ask, Buffers, MAX_TRANSFER_BYTES, Transfer};

/// The user data of the poll on the waker; a transfer's is its slot.
const WAKE: u64 = u64::MAX;
/// Requests that the kernel is given at once.
const AT_ONCE: usize = 4;
/// The most that one registered buffer may have (io_uring_register(2)).
const FIXED_BYTES: usize = 1 << 30;

/// A request in flight.
struct Slot {
    transfer: Option<Transfer>,
    iov: Vec<iovec>,
    #[cfg(test)]
    pretend: Option<i32>,
}

/// A registered buffer: part of an arena.
struct Fixed {
    start: usize,
    end: usize,
}

/// See the module's text.
pub(super) struct Ring {
    uring: IoUring,
    buffers: Buffers,
    fixed: Vec<Fixed>,
    vectored_fixed: bool,
    slots: Vec<Slot>,
    free: Vec<usize>,
    ended: Vec<(usize, i32)>,
    waker: Waker,
    armed: bool,
    #[cfg(test)]
    pub(super) faults: super::fault::Faults,
}

/// Why there is no ring.
pub(super) struct SetupError {
    pub(super) what: &'static str,
    pub(super) source: io::Error,
}

impl Ring {
    /// A ring for `entries` requests in flight. The thread that makes it is the one that uses it.
    pub(super) fn new(entries: u32, register: bool, buffers: Buffers, waker: Waker) -> Result<Self, SetupError> {
        let failed = |what| move |source| SetupError { what, source };
        let uring = build(entries).map_err(failed("set up"))?;
        if !uring.params().is_feature_ext_arg() || !uring.params().is_feature_nodrop() {
            let source = io::Error::new(io::ErrorKind::Unsupported, "needs Linux 5.11 or newer");
            return Err(SetupError { what: "features", source });
        }
        let mut probe = Probe::new();
        uring.submitter().register_probe(&mut probe).map_err(failed("probe"))?;
        let slot = || Slot {
            transfer: None,
            iov: Vec::new(),
            #[cfg(test)]
            pretend: None,
        };
        let mut ring = Self {
            uring,
            buffers,
            fixed: Vec::new(),
            vectored_fixed: probe.is_supported(opcode::WritevFixed::CODE),
            slots: (0..entries).map(|_| slot()).collect(),
            free: (0..entries as usize).rev().collect(),
            ended: Vec::new(),
            waker,
            armed: false,
            #[cfg(test)]
            faults: super::fault::Faults::default(),
        };
        if register {
            ring.register();
        }
        Ok(ring)
    }

    /// Registers the arenas, so that the kernel need not pin their pages at every request. Without it all works, at
    /// more CPU time.
    fn register(&mut self) {
        let mut fixed = Vec::new();
        let mut iovs = Vec::new();
        for arena in self.buffers.arenas() {
            for offset in (0..arena.len()).step_by(FIXED_BYTES) {
                let len = FIXED_BYTES.min(arena.len() - offset);
                let base = arena.addr(offset);
                iovs.push(iovec { iov_base: base.cast(), iov_len: len });
                fixed.push(Fixed { start: base.addr(), end: base.addr() + len });
            }
        }
        // SAFETY: the buffers are the arenas' memory, which `self.buffers` keeps mapped for longer than the ring lives
        // (see Drop). The kernel writes into them only for requests, which go through `start`.
        match unsafe { self.uring.submitter().register_buffers(&iovs) } {
            Ok(()) => self.fixed = fixed,
            Err(error) => tracing::warn!(
                %error,
                bytes = iovs.iter().map(|iov| iov.iov_len).sum::<usize>(),
                "buffers not registered with io_uring: disk I/O costs more CPU time. \
                 Raise the limit on locked memory (LimitMEMLOCK=infinity in the unit, `ulimit -l unlimited`)"
            ),
        }
    }

    /// Whether the arenas are registered.
    pub(super) fn is_registered(&self) -> bool {
        !self.fixed.is_empty()
    }

    /// Requests in flight.
    pub(super) fn in_flight(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Whether [`Ring::start`] may be called.
    pub(super) fn has_room(&self) -> bool {
        !self.free.is_empty()
    }

    /// Starts a transfer, or continues one. The kernel hears of it at the next [`Ring::submit`] or [`Ring::wait`];
    /// until it has ended, `fd` must stay open (what holds the disk asserts it).
    ///
    /// # Panics
    /// Without room.
    pub(super) fn start(&mut self, fd: BorrowedFd<'_>, transfer: Transfer) {
        let index = *self.free.last().expect("the caller has checked that there is room");
        #[cfg(test)]
        let fault = self.faults.next(&transfer);
        let slot = &mut self.slots[index];
        let transfer = slot.transfer.insert(transfer);
        #[cfg(not(test))]
        let limit = MAX_TRANSFER_BYTES;
        #[cfg(test)]
        let limit = fault.map_or(MAX_TRANSFER_BYTES, |fault| fault.limit(MAX_TRANSFER_BYTES));
        self.buffers.gather(transfer, limit, &mut slot.iov);
        let entry = entry(Fd(fd.as_raw_fd()), transfer, &slot.iov, &self.fixed, self.vectored_fixed);
        #[cfg(test)]
        let entry = match fault.and_then(super::fault::Fault::result) {
            Some(result) => {
                slot.pretend = Some(result);
                opcode::Nop::new().build()
            }
            None => entry,
        };
        // In flight from here on; what could panic lies behind.
        self.free.pop();
        self.push(&entry.user_data(index as u64));
    }

    fn push(&mut self, entry: &squeue::Entry) {
        loop {
            // SAFETY: what the entry points to is owned by the slot or by `self.buffers` and stays until the completion
            // (the module's invariant); the poll on the waker points to no memory, and its descriptor is kept open by
            // `self.waker`.
            if unsafe { self.uring.submission().push(entry) }.is_ok() {
                return self.give_way();
            }
            // The queue has as many entries as there are slots, so it is only full of what was not submitted yet.
            self.submit().expect("io_uring does not take requests");
        }
    }

    /// The kernel issues what it is given in one go, at ten or twenty microseconds a request, and nobody else gets the core
    /// meanwhile: so it is given little at a time, and whoever waits for the core is let in between.
    fn give_way(&mut self) {
        if self.uring.submission().len() >= AT_ONCE {
            // What the kernel does not take now stays in the queue, and `wait` says why.
            let _ = self.submit();
            std::thread::yield_now();
        }
    }

    /// Hands what has been started to the kernel; a system call only if there is anything.
    pub(super) fn submit(&mut self) -> io::Result<()> {
        if self.uring.submission().is_empty() {
            return Ok(());
        }
        let result = self.uring.submit().map(drop);
        forgive(result)
    }

    /// Submits, then waits for a completion, a wake or the timeout (`None`: for ever). May return early.
    pub(super) fn wait(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        if !self.armed {
            self.armed = true;
            let fd = Fd(self.waker.as_fd().as_raw_fd());
            let poll = opcode::PollAdd::new(fd, poll_in()).build().user_data(WAKE);
            self.push(&poll);
        }
        if !self.ended.is_empty() || timeout == Some(Duration::ZERO) {
            return self.submit();
        }
        let result = match timeout {
            None => self.uring.submit_and_wait(1),
            Some(timeout) => {
                let timespec = Timespec::from(timeout);
                self.uring.submitter().submit_with_args(1, &SubmitArgs::new().timespec(&timespec))
            }
        };
        forgive(result.map(drop))
    }

    /// The next transfer that has ended, with the kernel's result.
    pub(super) fn next_ended(&mut self) -> Option<(Transfer, i32)> {
        self.reap();
        let (index, result) = self.ended.pop()?;
        let slot = &mut self.slots[index];
        let transfer = slot.transfer.take().expect("a completion without a request");
        #[cfg(test)]
        let result = slot.pretend.take().unwrap_or(result);
        self.free.push(index);
        Some((transfer, result))
    }

    fn reap(&mut self) {
        for completion in self.uring.completion() {
            match usize::try_from(completion.user_data()) {
                Ok(index) if completion.user_data() != WAKE => self.ended.push((index, completion.result())),
                _ => {
                    self.armed = false;
                    self.waker.take();
                }
            }
        }
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        while self.in_flight() > 0 {
            while self.next_ended().is_some() {}
            if self.in_flight() > 0
                && let Err(error) = forgive(self.uring.submit_and_wait(1).map(drop))
            {
                // The kernel may still use the memory: better leaked than used again.
                tracing::error!(%error, "io_uring can't be waited for: leaking its buffers");
                self.buffers.leak();
                core::mem::forget(core::mem::take(&mut self.slots));
                return;
            }
        }
    }
}

/// One thread issues and reaps, and reaps when it wants to (6.1); older kernels do without.
fn build(entries: u32) -> io::Result<IoUring> {
    let mut best = IoUring::builder();
    best.setup_single_issuer().setup_defer_taskrun().setup_taskrun_flag().setup_clamp();
    match best.build(entries) {
        Err(e) if e.raw_os_error() == Some(libc::EINVAL) => IoUring::builder().setup_clamp().build(entries),
        built => built,
    }
}

/// Errors of io_uring_enter(2) after which the caller simply goes on: a signal, the timeout, and queues that are full
/// until completions are taken.
fn forgive(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(e) if matches!(e.raw_os_error(), Some(libc::EINTR | libc::ETIME | libc::EBUSY | libc::EAGAIN)) => Ok(()),
        other => other,
    }
}

fn poll_in() -> u32 {
    u32::from(libc::POLLIN.unsigned_abs())
}

/// The request for the bytes in `iov` of a transfer.
fn entry(fd: Fd, transfer: &Transfer, iov: &[iovec], fixed: &[Fixed], vectored_fixed: bool) -> squeue::Entry {
    let offset = transfer.offset + transfer.done;
    let dsync = if transfer.ask == (Ask::Write { dsync: true }) { libc::RWF_DSYNC } else { 0 };
    // FALLOC_FL_KEEP_SIZE: the disk's size is format's to decide.
    let fallocate = |mode: i32| {
        opcode::Fallocate::new(fd, transfer.rest()).offset(offset).mode(mode | libc::FALLOC_FL_KEEP_SIZE).build()
    };
    match transfer.ask {
        Ask::ZeroRange => return fallocate(libc::FALLOC_FL_ZERO_RANGE),
        Ask::PunchHole => return fallocate(libc::FALLOC_FL_PUNCH_HOLE),
        Ask::Sync { data: true } => return opcode::Fsync::new(fd).flags(FsyncFlags::DATASYNC).build(),
        Ask::Sync { data: false } => return opcode::Fsync::new(fd).build(),
        Ask::Read | Ask::Write { .. } => {}
    }
    let read = transfer.ask == Ask::Read;
    let count = u32::try_from(iov.len()).expect("bounded by MAX_PIECES");
    let index = fixed_index(iov, fixed);
    if let [one] = iov {
        let (base, len) = (one.iov_base.cast::<u8>(), u32::try_from(one.iov_len).expect("bounded"));
        return match index {
            Some(i) if read => opcode::ReadFixed::new(fd, base, len, i).offset(offset).build(),
            Some(i) => opcode::WriteFixed::new(fd, base, len, i).offset(offset).rw_flags(dsync).build(),
            None if read => opcode::Read::new(fd, base, len).offset(offset).build(),
            None => opcode::Write::new(fd, base, len).offset(offset).rw_flags(dsync).build(),
        };
    }
    let list = iov.as_ptr();
    match index.filter(|_| vectored_fixed) {
        Some(i) if read => opcode::ReadvFixed::new(fd, list, count, i).offset(offset).build(),
        Some(i) => opcode::WritevFixed::new(fd, list, count, i).offset(offset).rw_flags(dsync).build(),
        None if read => opcode::Readv::new(fd, list, count).offset(offset).build(),
        None => opcode::Writev::new(fd, list, count).offset(offset).rw_flags(dsync).build(),
    }
}

/// The registered buffer that all pieces lie in.
fn fixed_index(iov: &[iovec], fixed: &[Fixed]) -> Option<u16> {
    let inside = |fixed: &Fixed, piece: &iovec| {
        let start = piece.iov_base.addr();
        fixed.start <= start && start + piece.iov_len <= fixed.end
    };
    let index = fixed.iter().position(|fixed| iov.iter().all(|piece| inside(fixed, piece)))?;
    u16::try_from(index).ok()
}
