//! A device's queue: requests come, payloads are moved, results go.
//!
//! **The invariants that the SAFETY notes here lean on:**
//! 1. A command names no memory of ours: payloads are moved by `pread` and `pwrite`, and its own 80 bytes are copied when
//!    it is submitted.
//! 2. The files that commands name are closed only after the ring, by the order of the fields.
//! 3. The driver writes request `tag`'s descriptor before it completes that tag's command, and not again before the next
//!    command of the tag has been submitted.
#![allow(unsafe_code)]

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use io_uring::{IoUring, cqueue, opcode, squeue, types::Fd};
use memmap2::{MmapOptions, MmapRaw};
use rustix::event::{EventfdFlags, eventfd};
use twinsan_arena::Arena;
use zerocopy::IntoBytes;

use crate::abi::{
    COMMIT_AND_FETCH_REQ, ControlCommand, DESCRIPTOR_BYTES, END_USER_RECOVERY, FETCH_REQ, IoCommand, MAX_DEPTH,
    Request, START_DEV, STOP_DEV, payload_position,
};
use crate::control::{CONTROL_FILE, control_entry};
use crate::error::UblkError;

/// The user data of control commands; a request's is its tag.
const START: u64 = 1 << 32;
const STOP: u64 = 2 << 32;

/// The device's file may appear a moment after the device (udev).
const FILE_PATIENCE: Duration = Duration::from_secs(5);

/// What a queue reports.
#[derive(Debug)]
pub enum Happened {
    /// A request has come: see [`Queue::request`].
    Request {
        /// Its number, until it is committed.
        tag: u16,
    },
    /// [`Queue::start`] has ended: the disk is there, or why not.
    Started(io::Result<()>),
    /// [`Queue::stop`] has ended: the disk is gone, or why not.
    Stopped(io::Result<()>),
    /// No request comes with this tag any more: the device is being taken away, if [`is_farewell`] says so of the error,
    /// else the driver has refused the tag's command.
    Aborted {
        /// The tag.
        tag: u16,
        /// What the driver says.
        error: io::Error,
    },
}

/// Whether a tag ends by this because its device does: `UBLK_IO_RES_ABORT`, which is `ENODEV`, or `ECANCELED` with the
/// ring.
#[must_use]
pub fn is_farewell(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(ENODEV | ECANCELED))
}

/// See the module's text.
pub struct Queue {
    ring: IoUring<squeue::Entry128, cqueue::Entry>,
    device: File,
    control: File,
    descriptors: MmapRaw,
    ready: OwnedFd,
    id: u32,
    depth: u16,
}

impl std::fmt::Debug for Queue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Queue").field("id", &self.id).field("depth", &self.depth).finish_non_exhaustive()
    }
}

impl Queue {
    /// Opens the queue of device `id` and asks for requests. The thread that does so is the one that uses it.
    ///
    /// # Errors
    /// The system's.
    pub fn open(id: u32, depth: u16) -> Result<Self, UblkError> {
        let device = open_device(id).map_err(UblkError::system("/dev/ublkcN"))?;
        let control = OpenOptions::new().read(true).write(true).open(CONTROL_FILE);
        let control = control.map_err(UblkError::system(CONTROL_FILE))?;
        let bytes = usize::from(depth) * DESCRIPTOR_BYTES;
        let descriptors = MmapOptions::new().len(bytes).map_raw_read_only(&device);
        let descriptors = descriptors.map_err(UblkError::system("mapping /dev/ublkcN"))?;
        let ready = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(UblkError::system("eventfd"))?;
        // One command per tag, and a control command.
        let mut builder = IoUring::builder();
        let builder = builder.setup_single_issuer().setup_defer_taskrun();
        let ring = builder.build(u32::from(depth) + 2).map_err(UblkError::system("io_uring"))?;
        ring.submitter().register_eventfd(ready.as_raw_fd()).map_err(UblkError::system("io_uring's eventfd"))?;
        let mut queue = Self { ring, device, control, descriptors, ready, id, depth };
        for tag in 0..depth {
            queue.push_io(FETCH_REQ, IoCommand { tag, ..IoCommand::default() });
        }
        queue.submit().map_err(UblkError::system("UBLK_IO_FETCH_REQ"))?;
        Ok(queue)
    }

    /// N of `/dev/ublkbN`.
    #[must_use]
    pub const fn id(&self) -> u32 {
        self.id
    }

    /// Requests at once.
    #[must_use]
    pub const fn depth(&self) -> u16 {
        self.depth
    }

    /// Brings the disk up, a new one or that of a quiesced device. The block layer reads its partition table before
    /// [`Happened::Started`].
    ///
    /// # Errors
    /// The system's.
    pub fn start(&mut self, recovery: bool) -> io::Result<()> {
        self.control(if recovery { END_USER_RECOVERY } else { START_DEV }, START)
    }

    /// Takes the disk down: waits for what is open, which is to be completed meanwhile, and fails what comes later.
    /// [`Happened::Stopped`] follows.
    ///
    /// # Errors
    /// The system's.
    pub fn stop(&mut self) -> io::Result<()> {
        self.control(STOP_DEV, STOP)
    }

    fn control(&mut self, operation: u32, user_data: u64) -> io::Result<()> {
        let data = u64::from(std::process::id());
        let command = ControlCommand { device: self.id, queue: u16::MAX, data, ..ControlCommand::default() };
        let entry = control_entry(&self.control, operation, &command).user_data(user_data);
        self.push(&entry);
        self.submit()
    }

    /// Appends what has happened since. To be called when [`Queue::as_fd`] is readable, which it may also be for
    /// nothing.
    ///
    /// # Errors
    /// The system's.
    pub fn poll(&mut self, happened: &mut Vec<Happened>) -> io::Result<()> {
        // Its count means nothing; that it has none is news of a moment ago.
        match rustix::io::read(&self.ready, &mut [0_u8; 8]) {
            Ok(_) | Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        // Runs what the driver has left for this thread to do, which is where completions come from.
        // SAFETY: it submits nothing and passes no argument.
        let entered = unsafe { self.ring.submitter().enter::<()>(0, 0, GET_EVENTS, None) };
        forgive(entered.map(drop))?;
        for completion in self.ring.completion() {
            let result = match completion.result() {
                0.. => Ok(()),
                errno => Err(io::Error::from_raw_os_error(-errno)),
            };
            happened.push(match (completion.user_data(), u16::try_from(completion.user_data()), result) {
                (START, _, result) => Happened::Started(result),
                (STOP, _, result) => Happened::Stopped(result),
                (_, Ok(tag), Ok(())) => Happened::Request { tag },
                (_, Ok(tag), Err(error)) => Happened::Aborted { tag, error },
                (other, Err(_), _) => panic!("the completion of a command that was never given: {other:#x}"),
            });
        }
        Ok(())
    }

    /// What the request of a tag wants: one that has been reported and not committed. `None`: the driver said something
    /// absurd.
    ///
    /// # Panics
    /// If there is no such tag.
    #[must_use]
    pub fn request(&self, tag: u16) -> Option<Request> {
        assert!(tag < self.depth, "no such tag");
        let at = self.descriptors.as_ptr().wrapping_add(usize::from(tag) * DESCRIPTOR_BYTES);
        // SAFETY: the mapping has `depth` descriptors, and `tag` is one of them; the first 8 bytes are two words, the
        // next one long word, all aligned, as the mapping begins with a page and a descriptor has 24 bytes. The driver
        // may write there only under invariant 3; volatile reads in any case take nothing for granted.
        let (op_flags, sectors, start) = unsafe {
            let words = at.cast::<u32>();
            (words.read_volatile(), words.add(1).read_volatile(), at.cast::<u64>().add(1).read_volatile())
        };
        Request::decode(op_flags, sectors, start)
    }

    /// Copies the payload of write `tag` to `at` in the arena.
    ///
    /// # Errors
    /// The system's; `UnexpectedEof` if the request is shorter.
    pub fn take_payload(&self, tag: u16, arena: &Arena, at: usize, len: usize) -> io::Result<()> {
        arena.read_exact_at(self.device.as_fd(), payload_position(tag), at, len)
    }

    /// Copies `len` bytes at `at` in the arena to the pages of read `tag`, from byte `from` on.
    ///
    /// # Errors
    /// The system's; `WriteZero` if the request is shorter.
    pub fn give_payload(&self, tag: u16, from: u32, arena: &Arena, at: usize, len: usize) -> io::Result<()> {
        arena.write_all_at(self.device.as_fd(), payload_position(tag) + u64::from(from), at, len)
    }

    /// Completes request `tag` and asks for the next: `Ok` with the bytes read or written, zero for what moves none,
    /// else the errno. The driver hears of it at the next [`Queue::submit`].
    pub fn commit(&mut self, tag: u16, result: Result<u32, i32>) {
        let result = wire_result(result);
        self.push_io(COMMIT_AND_FETCH_REQ, IoCommand { tag, result, ..IoCommand::default() });
    }

    /// Hands what has been committed to the driver; a system call only if there is anything.
    ///
    /// # Errors
    /// The system's.
    pub fn submit(&mut self) -> io::Result<()> {
        if self.ring.submission().is_empty() {
            return Ok(());
        }
        forgive(self.ring.submit().map(drop))
    }

    fn push_io(&mut self, operation: u32, command: IoCommand) {
        let mut bytes = [0; 80];
        bytes[..size_of::<IoCommand>()].copy_from_slice(command.as_bytes());
        let entry = opcode::UringCmd80::new(Fd(self.device.as_raw_fd()), operation).cmd(bytes).build();
        self.push(&entry.user_data(u64::from(command.tag)));
    }

    fn push(&mut self, entry: &squeue::Entry128) {
        // SAFETY: the command names no memory, and its file outlives the ring (invariants 1 and 2).
        unsafe { self.ring.submission().push(entry) }.expect("a command per tag at most, and a control command");
    }
}

/// Readable when [`Queue::poll`] may have something.
impl AsFd for Queue {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ready.as_fd()
    }
}

const EIO: i32 = 5;
const ENODEV: i32 = 19;
const ECANCELED: i32 = 125;

/// `IORING_ENTER_GETEVENTS`.
const GET_EVENTS: u32 = 1;

/// Errors of io_uring_enter(2) after which the caller simply goes on.
fn forgive(result: io::Result<()>) -> io::Result<()> {
    use io::ErrorKind::{Interrupted, ResourceBusy, WouldBlock};
    match result {
        Err(error) if matches!(error.kind(), Interrupted | ResourceBusy | WouldBlock) => Ok(()),
        other => other,
    }
}

/// A result as the driver takes it: bytes, or a negative errno. More bytes than it can be told of are none that it has
/// asked to be moved: an error of that request, not the end of the process and of all the others.
fn wire_result(result: Result<u32, i32>) -> i32 {
    match result {
        Ok(bytes) => i32::try_from(bytes).unwrap_or(-EIO),
        Err(errno) => -errno,
    }
}

fn open_device(id: u32) -> io::Result<File> {
    let begin = Instant::now();
    loop {
        match OpenOptions::new().read(true).write(true).open(format!("/dev/ublkc{id}")) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && begin.elapsed() < FILE_PATIENCE => {
                std::thread::sleep(Duration::from_millis(5));
            }
            opened => return opened,
        }
    }
}

const _: () = assert!(MAX_DEPTH as u64 <= START);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_comes_with_a_devices_end_is_a_farewell() {
        for (errno, farewell) in [(19, true), (125, true), (22, false), (16, false), (5, false), (524, false)] {
            assert_eq!(is_farewell(&io::Error::from_raw_os_error(errno)), farewell, "{errno}");
        }
    }

    #[test]
    fn no_result_is_a_panic() {
        assert_eq!(wire_result(Ok(0)), 0);
        assert_eq!(wire_result(Ok((1 << 31) - 4096)), i32::MAX - 4095);
        assert_eq!(wire_result(Err(95)), -95);
        for bytes in [1 << 31, u32::MAX / 4096 * 4096, u32::MAX] {
            assert_eq!(wire_result(Ok(bytes)), -EIO);
        }
    }
}
